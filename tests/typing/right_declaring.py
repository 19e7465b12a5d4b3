"""What type checkers must accept and infer where agents are declared: handlers, hooks, constructors."""

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import assert_type

from attrs import Factory

from autonomy_trio import AgentRef, Context, Down, Mailbox, agent, message, on
from tests.typing.vocabulary import (
    Add,
    Client,
    Closed,
    Counter,
    Find,
    Insufficient,
    Note,
    Reset,
    Subscribe,
    Total,
    Watch,
)


@agent
class Plain:
    @on(Add)
    def add(self, message: Add) -> Total:
        return Total(message.amount)

    @on(Find)
    def find(self, message: Find, context: Context) -> Total | None:
        return None

    @on(Reset)
    def reset(self, message: Reset) -> None:
        pass

    @on(Note)
    def note(self, message: Note, context: Context) -> None:
        pass


@agent
class Waiting:
    @on(Add)
    async def add(self, message: Add) -> Total:
        return Total(message.amount)

    @on(Find, allow='principal.team == "payments"')
    async def find(self, message: Find, context: Context) -> Total | None:
        return None

    @on(Reset)
    async def reset(self, message: Reset, context: Context) -> None:
        pass

    @on(Note)
    async def note(self, message: Note) -> None:
        pass


@agent
class Streaming:
    @on(Watch)
    async def watch(self, message: Watch) -> AsyncIterator[Total]:
        yield Total(1)


@agent
class StreamingInContext:
    @on(Watch)
    async def watch(self, message: Watch, context: Context) -> AsyncGenerator[Total, None]:
        yield Total(1)


@agent
class StreamingAgain:
    @on(Watch)
    async def watch(self, message: Watch) -> AsyncIterable[Total]:
        yield Total(1)


@agent
class Refusing:
    @on(Add, raises=Insufficient)
    async def add(self, message: Add) -> Total:
        raise Insufficient(balance=3)

    @on(Find, raises=(Insufficient, Closed))
    async def find(self, message: Find) -> Total | None:
        raise Closed


@agent
class ManyMessages:
    @on(Note)
    @on(Subscribe)
    async def take(self, message: Note | Subscribe) -> None:
        pass

    @on(Add)
    @on(Down)
    def anything(self, message: object) -> Total:
        return Total(0)


@agent
class Watching:
    counter: AgentRef[Counter]
    reasons: list[str] = Factory(list[str])

    def on_start(self, context: Context) -> None:
        context.watch(self.counter)

    async def on_stop(self, context: Context) -> None:
        await self.counter.tell(Note("stopping"))

    @on(Down)
    def down(self, message: Down) -> None:
        assert_type(message.ref.name, str)
        self.reasons.append(message.reason)
        match message.reason:
            case "stopped" | "failed":
                pass
            case "gave up" | "unknown agent" | "node lost":
                self.reasons.clear()


@agent
class OwnInit:
    def __init__(self, counter: AgentRef[Counter], *, times: int = 1) -> None:
        self.counter = counter
        self.times = times


@agent
class Derived(Counter):
    bonus: int = 1

    async def add(self, message: Add, context: Context) -> Total:
        return Total(self.total + self.bonus)


@agent(mailbox=Mailbox(8, overflow="drop_oldest"), restart="temporary", concurrency=4, idle_after=math.inf)
class Tuned:
    pass


def constructors(counter: AgentRef[Counter]) -> None:
    assert_type(Counter(), Counter)
    assert_type(Counter(3, ["a"]).total, int)
    assert_type(Counter(total=3).notes, list[str])
    assert_type(Client(counter, factor=3).factor, int)
    assert_type(OwnInit(counter, times=3).times, int)
    assert_type(Derived(3, ["a"], 2).bonus, int)
    assert_type(Watching(counter), Watching)
    assert_type(Tuned(), Tuned)


def mailboxes() -> None:
    assert_type(Mailbox().capacity, int)
    assert_type(Mailbox(8), Mailbox)
    assert_type(Mailbox(capacity=8, overflow="fail"), Mailbox)


async def a_handler_is_a_method(plain: Plain, waiting: Waiting) -> None:
    assert_type(plain.add(Add(3)), Total)
    assert_type(plain.reset(Reset()), None)
    assert_type(await waiting.add(Add(3)), Total)


def a_named_message_keeps_its_type() -> None:
    named = message(name="shop.Note")(Note)
    assert_type(named("a"), Note)
