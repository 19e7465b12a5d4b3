"""Agents for a node that tests start as a process: one that does what it should, and some that do not."""

from collections.abc import AsyncGenerator

import trio
from attrs import frozen

from autonomy_trio import Context, Request, Stream, agent, on


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class Read(Request[int]):
    pass


@frozen
class Hold(Request[str]):
    seconds: float


@frozen
class Fail(Request[None]):
    text: str


@frozen
class Echo(Request[str]):
    text: str


@frozen
class Scan(Request[bytes]):
    pass


@frozen
class Count(Stream[Total]):
    to: int


@frozen
class Tick(Stream[str]):
    name: str


@frozen
class Note:
    text: str


@agent
class Counter:
    total: int = 0

    @on(Add, allow='principal.team == "payments" && context.message.amount <= 100')
    async def add(self, message: Add, context: Context) -> Total:
        self.total += message.amount
        context.log.info("added", amount=message.amount)
        return Total(self.total)

    @on(Read, allow='principal.team == "payments"')
    async def read(self, message: Read) -> int:
        return self.total

    @on(Hold, allow='principal.team == "payments"')
    async def hold(self, message: Hold, context: Context) -> str:
        context.log.info("holding", seconds=message.seconds)
        try:
            await trio.sleep(message.seconds)
        except trio.Cancelled:
            context.log.info("let go", held=message.seconds)
            raise
        return "held"

    @on(Echo, allow='principal.team == "payments"')
    async def echo(self, message: Echo) -> str:
        return message.text

    @on(Scan, allow='principal.team == "payments"')
    async def scan(self, message: Scan) -> bytes:
        return b"\x00\xff"

    @on(Note, allow='principal.team == "payments"')
    async def note(self, message: Note, context: Context) -> None:
        context.log.info("noted", text=message.text)


@agent
class Clumsy:
    """Fails when it is told to, and is started anew."""

    @on(Fail, allow='principal.team == "payments"')
    async def fail(self, message: Fail) -> None:
        raise ValueError(message.text)


@agent
class Meter:
    """Answers with many: as many as it is asked for, or two and then for ever none."""

    @on(Count, allow='principal.team == "payments"')
    async def count(self, message: Count) -> AsyncGenerator[Total]:
        for number in range(message.to):
            yield Total(number)

    @on(Tick, allow='principal.team == "payments"')
    async def tick(self, message: Tick, context: Context) -> AsyncGenerator[str]:
        try:
            yield message.name
            yield f"{message.name} once more"
            await trio.sleep_forever()
        finally:
            context.log.info("ticked", name=message.name)


@agent
class NeverStarts:
    async def on_start(self, context: Context) -> None:
        raise RuntimeError("no database")

    @on(Read)
    async def read(self, message: Read) -> int:
        return 0


@agent
class LeavesTheProcess:
    async def on_start(self, context: Context) -> None:
        raise SystemExit(3)


@agent
class NeedsSize:
    size: int

    @on(Read)
    async def read(self, message: Read) -> int:
        return self.size


def cannot_build() -> Counter:
    msg = "no disk"
    raise OSError(msg)


agents = [Counter, Clumsy, Meter]
hopeless = [NeverStarts]
leaving = [LeavesTheProcess]
needs_size = [NeedsSize]
unbuildable = [cannot_build]
empty: list[type] = []
classes_of_no_agent = [Total]
instances = [Counter(7)]
single = Counter
