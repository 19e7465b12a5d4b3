"""What type checkers must keep refusing: a comment stands for each error, and is one itself where it is not needed."""

from attrs import frozen

from autonomy_trio import AgentRef, Mailbox, Node, Request, agent, on


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class Note:
    text: str


@agent
class Counter:
    total: int = 0

    @on(Add)
    async def add(self, message: Add) -> Total:
        return Total(self.total)


@agent(restart="always")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
class Restarted:
    pass


async def asks(counter: AgentRef[Counter]) -> None:
    await counter.ask(Note("asks for nothing"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await counter.ask(Total(3))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await counter.ask(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    number: int = await counter.ask(Add(3))  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    del number


def constructors() -> None:
    Counter("3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Counter(3, 4)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Counter(amount=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Mailbox("64")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def refs(node: Node, counter: AgentRef[Counter]) -> None:
    other: AgentRef[Total] = counter  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    same: AgentRef[Total] = node.spawn(Counter)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    del other, same
