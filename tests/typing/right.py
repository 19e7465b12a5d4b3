"""What type checkers must keep accepting and inferring: agents, handlers and typed asks, as users write them."""

from typing import assert_type

from attrs import Factory, field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Node, Request, agent, message, on


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@message(name="shop.Reset")
@frozen
class Reset(Request[None]):
    pass


@frozen
class Find(Request[Total | None]):
    name: str


@frozen
class Note:
    text: str


@agent
class Counter:
    total: int = 0
    notes: list[str] = Factory(list[str])

    @on(Add, allow='principal.team == "payments"')
    async def add(self, message: Add, context: Context) -> Total:
        assert_type(context.sender.id, str)
        self.total += message.amount
        return Total(self.total)

    @on(Note)
    def note(self, message: Note) -> None:
        self.notes.append(message.text)

    async def on_start(self, context: Context) -> None:
        await context.self.tell(Note("started"))


@agent(mailbox=Mailbox(8), restart="permanent")
class Client:
    counter: AgentRef[Counter]
    factor: int = field(default=2, kw_only=True)

    @on(Find)
    async def find(self, message: Find) -> Total | None:
        return await self.counter.ask(Add(self.factor))


def constructors(counter: AgentRef[Counter]) -> None:
    assert_type(Counter(), Counter)
    assert_type(Counter(3, ["a"]).total, int)
    assert_type(Counter(total=3), Counter)
    assert_type(Client(counter, factor=3).factor, int)


async def asks(node: Node) -> None:
    counter = node.spawn(Counter)
    assert_type(counter, AgentRef[Counter])
    assert_type(node.spawn(lambda: Client(counter)), AgentRef[Client])
    assert_type(await counter.ask(Add(3)), Total)
    assert_type(await counter.ask(Find("a")), Total | None)
    await counter.ask(Reset())
    await counter.tell(Note("hello"))
    counter.tell_nowait(Add(3))


async def same(counter: AgentRef[Counter]) -> int:
    total = await counter.ask(Add(3))
    return total.value


def a_method_keeps_its_type(counter: Counter) -> None:
    assert_type(counter.note(Note("direct")), None)
