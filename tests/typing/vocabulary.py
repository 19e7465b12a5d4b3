"""The messages and agents that the programs of this folder share."""

from collections.abc import AsyncIterator

from attrs import Factory, field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Request, Stream, agent, message, on
from autonomy_trio.errors import ReplyError


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class AddTwice(Add):
    pass


@frozen
class Find(Request[Total | None]):
    name: str


@message(name="shop.Reset")
@frozen
class Reset(Request[None]):
    pass


@frozen
class Note:
    text: str


@frozen
class Watch(Stream[Total]):
    most: int = 3


@frozen
class Insufficient(ReplyError):
    balance: int


@frozen
class Closed(ReplyError):
    pass


@agent
class Counter:
    total: int = 0
    notes: list[str] = Factory(list[str])

    @on(Add, allow='principal.team == "payments"', raises=Insufficient)
    async def add(self, message: Add, context: Context) -> Total:
        self.total += message.amount
        return Total(self.total)

    @on(Note)
    def note(self, message: Note) -> None:
        self.notes.append(message.text)

    @on(Watch)
    async def watch(self, message: Watch) -> AsyncIterator[Total]:
        for value in range(message.most):
            yield Total(value)


@agent(mailbox=Mailbox(8), restart="permanent")
class Client:
    counter: AgentRef[Counter]
    factor: int = field(default=2, kw_only=True)

    @on(Find)
    async def find(self, message: Find) -> Total | None:
        return await self.counter.ask(Add(self.factor))


@frozen
class Subscribe:
    """A message that hands over a ref."""

    who: AgentRef[Counter]
