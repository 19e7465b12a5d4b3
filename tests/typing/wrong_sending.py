"""What type checkers must refuse where code sends."""

from autonomy_trio import AgentRef, Node
from tests.typing.vocabulary import Add, Client, Counter, Find, Note, Reset, Subscribe, Total, Watch


async def asks(counter: AgentRef[Counter]) -> None:
    await counter.ask(Note("asks for nothing"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await counter.ask(Total(3))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await counter.ask(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await counter.ask(Watch())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await counter.ask()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await counter.ask(Add(3), timeout=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await counter.ask(Add("3"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await counter.ask(Add(amonut=3))  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    number: int = await counter.ask(Add(3))  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    found: Total = await counter.ask(Find("a"))  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    nothing: Total = await counter.ask(Reset())  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    assert (await counter.ask(Find("a"))).value  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
    assert (await counter.ask(Add(3))).total  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    later: Total = counter.ask(Add(3))  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    del number, found, nothing, later


async def tells(counter: AgentRef[Counter]) -> None:
    await counter.tell()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await counter.tell_nowait(Add(3))  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]
    total: Total = await counter.tell(Add(3))  # type: ignore[assignment, func-returns-value] # pyright: ignore[reportAssignmentType]
    told: Total = counter.tell_nowait(Add(3))  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    await counter.add(Add(3))  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    del total, told


async def streams(counter: AgentRef[Counter]) -> None:
    async with counter.stream(Add(3)) as totals:  # type: ignore[arg-type, var-annotated] # pyright: ignore[reportArgumentType, reportUnknownVariableType]
        del totals
    async with counter.stream(Note("streams nothing")) as notes:  # type: ignore[arg-type, var-annotated] # pyright: ignore[reportArgumentType, reportUnknownVariableType]
        del notes
    async with counter.stream(Watch) as nothing:  # type: ignore[arg-type, var-annotated] # pyright: ignore[reportArgumentType, reportUnknownVariableType]
        del nothing
    async with counter.stream(Watch()) as totals:
        async for total in totals:
            number: int = total  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
            del number
        for total in totals:  # type: ignore[attr-defined] # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
            del total
    async for total in counter.stream(Watch()):  # type: ignore[attr-defined] # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        del total
    await counter.stream(Watch())  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]
    with counter.stream(Watch()) as totals:  # type: ignore[attr-defined] # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        del totals


def refs(node: Node, counter: AgentRef[Counter]) -> None:
    other: AgentRef[Total] = counter  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    same: AgentRef[Client] = node.ref("counter", Counter)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    node.ref(Counter)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    node.ref("counter", "Counter")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    AgentRef[Counter]()  # type: ignore[abstract] # pyright: ignore[reportAbstractUsage]
    counter.name = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    del other, same


def a_ref_is_part_of_a_message(client: AgentRef[Client], counter: Counter) -> None:
    Subscribe(client)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Subscribe(counter)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Subscribe("counter")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Client(client)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def a_message_is_frozen(message: Add) -> None:
    message.amount = 4  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
