"""The agent that the contract is tested with, reachable from anywhere."""

from collections.abc import AsyncIterator
from typing import Any

import trio
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Down, Request, Stream, agent, on
from autonomy_trio.errors import ReplyError


@frozen
class Add(Request[int]):
    amount: int


@frozen
class Take(Request[int]):
    amount: int


@frozen
class Broken(Request[None]):
    pass


@frozen
class Short(ReplyError):
    missing: int
    of: tuple[str, ...] = ("coins",)


@frozen
class VeryShort(Short):
    pass


@frozen
class Note:
    text: str


@frozen
class Notes(Request[list[str]]):
    pass


@frozen
class Count(Stream[int]):
    upto: int
    wait: bool = False
    """Whether to stay open after the last number."""
    ends: str = ""
    """Whether to end by an error, and by which."""


@frozen
class Streamed(Request[tuple[int, int]]):
    """The numbers made so far by streams, and how many streams have ended."""


@frozen
class Hold(Request[float]):
    """Wait for so long, and answer how many seconds the deadline had left."""

    seconds: float


@frozen
class Cancelled(Request[int]):
    """How many handlers were cancelled."""


@frozen
class Call(Request[None]):
    """Tell an agent, by a ref that came in a message."""

    whom: AgentRef[Any]
    text: str


@frozen
class Whoami(Request[AgentRef[Any]]):
    pass


@agent(topics={"#news": "true"})
class Service:
    total: int = 0
    notes: tuple[str, ...] = ()
    made: int = 0
    ended: int = 0
    begun: int = 0
    cancelled: int = 0

    @on(Add, allow="true")
    async def add(self, message: Add) -> int:
        self.total += message.amount
        return self.total

    @on(Take, allow="true", raises=Short)
    async def take(self, message: Take, context: Context) -> int:
        missing = message.amount - self.total
        if missing > 0:
            raise Short(missing) if missing < 100 else VeryShort(missing, ("gold", "silver"))
        self.total -= message.amount
        return self.total

    @on(Hold, allow="true")
    async def hold(self, message: Hold, context: Context) -> float:
        left = context.deadline - trio.current_time()
        self.begun += 1
        try:
            await trio.sleep(message.seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return left

    @on(Cancelled, allow="true")
    def count_cancelled(self, message: Cancelled) -> int:
        return self.cancelled

    @on(Call, allow="true")
    async def call(self, message: Call) -> None:
        await message.whom.tell(Note(message.text))

    @on(Whoami, allow="true")
    def whoami(self, message: Whoami, context: Context) -> AgentRef[Any]:
        return context.self

    @on(Broken, allow="true")
    async def broken(self, message: Broken) -> None:
        raise ValueError("the secret is 42")

    @on(Note, allow="true")
    def note(self, message: Note) -> None:
        self.notes += (message.text,)

    @on(Count, allow="true", raises=Short)
    async def count(self, message: Count) -> AsyncIterator[int]:
        try:
            for number in range(message.upto):
                self.made += 1
                yield number
            if message.ends == "short":
                raise Short(message.upto)
            if message.ends:
                raise ValueError(message.ends)
            if message.wait:
                await trio.sleep_forever()
        finally:
            self.ended += 1

    @on(Streamed, allow="true")
    def streamed(self, message: Streamed) -> tuple[int, int]:
        return self.made, self.ended

    @on(Notes, allow="true")
    def read(self, message: Notes) -> list[str]:
        return list(self.notes)


@frozen
class See(Request[None]):
    """Watch an agent, or end the watch."""

    ref: AgentRef[Any]
    end: bool = False


@frozen
class Seen(Request[list[str]]):
    pass


@agent
class Watcher:
    seen: list[Down] = field(factory=list[Down])

    @on(See)
    async def see(self, message: See, context: Context) -> None:
        if message.end:
            context.unwatch(message.ref)
        else:
            context.watch(message.ref)

    @on(Down)
    def down(self, message: Down) -> None:
        self.seen.append(message)

    @on(Seen)
    def read(self, message: Seen) -> list[str]:
        """Answer with why each agent ended."""
        return [down.reason for down in self.seen]


@frozen
class Join(Request[None]):
    """Subscribe to a topic, or end that."""

    topic: str
    leave: bool = False


@agent
class Reader:
    notes: tuple[str, ...] = ()

    @on(Join)
    async def join(self, message: Join, context: Context) -> None:
        if message.leave:
            context.unsubscribe(message.topic)
        else:
            context.subscribe(message.topic)

    @on(Note, allow="true")
    def note(self, message: Note) -> None:
        self.notes += (message.text,)

    @on(Notes)
    def read(self, message: Notes) -> list[str]:
        return list(self.notes)
