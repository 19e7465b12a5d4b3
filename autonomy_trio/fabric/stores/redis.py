"""A Redis or Valkey server: commands in their order, what is published there, and a connection that comes back.

What cannot be asked now fails at once: nothing waits for a server that is away.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, final

import attrs
import trio

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.fabric.stores.redis_wire import (
    Command,
    RedisAddress,
    RedisLost,
    RedisRefused,
    Wire,
    connect,
    converse,
)
from autonomy_trio.logs import get_log, printable

RETRY_EVERY: Final = 0.5
"""Seconds between two attempts to come back."""

MOST_UNSENT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of commands that wait to leave; whoever comes then waits for room."""

MOST_SEND_BYTES: Final = 1024 * 1024
"""Bytes of commands up to which those that wait leave together."""

_log = get_log()


@final
@attrs.define(eq=False)
class _Call:
    """Commands that were sent together."""

    most: int
    answers: list[Any] = attrs.field(factory=list[Any])
    error: StoreFailed | None = None
    done: trio.Event = attrs.field(factory=trio.Event)

    def take(self, answer: object) -> bool:
        """Take the next answer; tell whether it was the last."""
        self.answers.append(answer)
        if len(self.answers) < self.most:
            return False
        refusals = [each for each in self.answers if isinstance(each, RedisRefused)]
        self.end(StoreFailed(f"Redis refused: {printable(str(refusals[0]))}") if refusals else None)
        return True

    def end(self, error: StoreFailed | None) -> None:
        self.error = error
        self.done.set()


@final
@attrs.define(eq=False)
class Redis:
    """A server that commands go to, over one connection; made by `open_redis`."""

    address: RedisAddress
    is_there: bool = False
    """Whether the server is connected now."""
    _wire: Wire | None = None
    _calls: deque[_Call] = attrs.field(factory=deque[_Call])
    """What has no answer yet, in the order it is answered."""
    _unsent: deque[bytes] = attrs.field(factory=deque[bytes])
    _unsent_bytes: int = 0
    _came: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def do(self, *commands: Command) -> list[Any]:
        """Have commands carried out one after the other, and return their answers.

        Raises:
            StoreFailed: the server is away, went away before it had answered, or refused one of them; where it did not
                refuse, they may have been carried out.

        On cancellation they are carried out all the same, once they wait to leave.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.is_there and self._unsent_bytes >= MOST_UNSENT_BYTES:
            await self._room.park()
        if not self.is_there:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise StoreFailed(f"{self.address} is away")
        call = _Call(len(commands))
        self._put(commands, call)
        await call.done.wait()
        if call.error is not None:
            raise call.error
        return call.answers

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stay connected, until cancelled; started once it is for the first time.

        Raises:
            ConfigurationError: the first attempt failed.
        """
        was_there = False
        while True:
            try:
                wire = await connect(self.address)
            except RedisLost as error:
                if not was_there:
                    msg = f"{self.address} cannot be used ({error}): is it running there?"
                    raise ConfigurationError(msg) from None
                _log.debug("redis still away", address=str(self.address), why=str(error))
                await trio.sleep(RETRY_EVERY)
                continue
            self._wire, self.is_there = wire, True
            if was_there:
                _log.info("redis back", address=str(self.address))
            else:
                task_status.started()
            was_there = True
            await self._serve(wire)
            await trio.sleep(RETRY_EVERY)

    async def _serve(self, wire: Wire) -> None:
        why = "this process ends"
        try:
            why = await converse(wire, self._take, lambda: self._put([("PING",)], _Call(1)), self._write)
            _log.error("redis lost", address=str(self.address), why=why)
        finally:
            self.is_there, self._wire = False, None
            self._unsent.clear()
            self._unsent_bytes = 0
            lost, self._calls = self._calls, deque()
            for call in lost:
                call.end(StoreFailed(f"{self.address} was lost: {why}"))
            self._room.unpark_all()

    def _put(self, commands: Sequence[Command], call: _Call) -> None:
        assert self._wire is not None  # noqa: S101 - it is there
        data = self._wire.pack(commands)
        self._calls.append(call)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._came.unpark_all()

    def _take(self, answer: object) -> None:
        if not self._calls:
            raise RedisLost("it answered what it was not asked")
        if self._calls[0].take(answer):
            self._calls.popleft()

    async def _write(self, wire: Wire) -> None:
        while True:
            while not self._unsent:
                await self._came.park()
            together: list[bytes] = []
            size = 0
            while self._unsent and (not together or size + len(self._unsent[0]) <= MOST_SEND_BYTES):
                together.append(self._unsent.popleft())
                size += len(together[-1])
            self._unsent_bytes -= size
            self._room.unpark_all()
            await wire.send(b"".join(together))


@asynccontextmanager
async def open_redis(address: RedisAddress) -> AsyncGenerator[Redis]:
    """Connect to a server for the length of a block, and again after each loss.

    Raises:
        ConfigurationError: it cannot be reached, or does not let this process in, or hiredis is not installed.
    """
    redis = Redis(address)
    async with trio.open_nursery() as nursery:
        await nursery.start(redis.run)
        yield redis
        nursery.cancel_scope.cancel()


async def listen(
    address: RedisAddress,
    channels: Sequence[str],
    take: Callable[[bytes, bytes], None],
    listening: Callable[[bool], None],
) -> None:
    """Take what is published on channels, until cancelled; what is published while the server is away is lost.

    Args:
        address: the server.
        channels: their names.
        take: takes a channel and what was published there; never waits, never raises.
        listening: called with True when from now on all is taken, with False when that has ended.
    """
    while True:
        try:
            wire = await connect(address)
        except RedisLost as error:
            _log.debug("redis still away", address=str(address), why=str(error))
        else:
            await _listen_once(wire, channels, take, listening)
            listening(False)  # noqa: FBT003 - whether it listens
        await trio.sleep(RETRY_EVERY)


async def _listen_once(
    wire: Wire, channels: Sequence[str], take: Callable[[bytes, bytes], None], listening: Callable[[bool], None]
) -> None:
    pings = deque([wire.pack([("SUBSCRIBE", *channels)])])
    came = trio.lowlevel.ParkingLot()

    def ask() -> None:
        pings.append(wire.pack([("PING",)]))
        came.unpark_all()

    def take_one(answer: object) -> None:
        match answer:
            case [b"message", bytes(channel), bytes(data)]:
                take(channel, data)
            case [b"subscribe", bytes(), int(count)]:
                if count == len(channels):
                    listening(True)  # noqa: FBT003 - whether it listens
            case [b"pong", bytes()]:
                pass
            case _:
                raise RedisLost("it says to a listener what is for none")

    async def write(wire: Wire) -> None:
        while True:
            while not pings:
                await came.park()
            await wire.send(pings.popleft())

    await converse(wire, take_one, ask, write)
