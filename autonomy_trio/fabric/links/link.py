"""What a link is, and who may write to it.

A link carries bytes messages both ways between two neighbours: a node and a relay. Encryption is end to end above it,
so every link is treated as hostile. A cancelled send may leave half a message behind, so only one may send at a time:
until a node is registered the task that registers it, from then on its `Outbox`.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal, Protocol, final, runtime_checkable

import attrs
import trio

from autonomy_trio.errors import LinkBroken
from autonomy_trio.wire.constants import RELAY_MESSAGE_BYTES
from autonomy_trio.wire.frames import Ping, Pong, encode_frame, join_frames

MOST_MESSAGE: Final = RELAY_MESSAGE_BYTES
"""Bytes one message of a link may have."""

MOST_JOINED: Final = 64 * 1024
"""Bytes up to which waiting frames are joined into one message."""

PATIENCE: Final = 10.0
"""Seconds a reader may take for one message before its link is given up."""

FRAME_COST: Final = 64
"""Bytes a waiting frame is counted for beside its own: what the smallest one takes in memory."""

PING: Final = join_frames([encode_frame(Ping())])
PONG: Final = join_frames([encode_frame(Pong())])
"""Both ready to be put in an outbox."""


class Link(Protocol):
    """Bytes messages both ways."""

    @property
    def remote(self) -> str:
        """The other end's network address, for limits and the log."""
        ...

    async def send(self, message: bytes) -> None:
        """Send one message of at most `MOST_MESSAGE` bytes; the writer's task alone may call it.

        Raises:
            LinkBroken: the link has ended.

        On cancellation the link is ended, since half a message may have left.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            LinkBroken: the link has ended, or the other end broke its rules.
        """
        ...

    async def aclose(self) -> None:
        """End the link, waiting at most a second for the other end."""
        ...


@runtime_checkable
class PromptLink(Link, Protocol):
    """A link that may take a message without waiting, so that a task need not be woken to send it."""

    def try_send(self, message: bytes) -> Literal["whole", "part", "none"]:
        """Send one message as far as it can leave at once; where that is a part, `flush` sends the rest."""
        ...

    async def flush(self) -> None:
        """Send the rest of what `try_send` began; raises and is cancelled as `send`."""
        ...


class Listener(Protocol):
    """Something that hands every link it accepts to a handler of its own task."""

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        """Accept links until cancelled."""
        ...


async def send_patiently(link: Link, message: bytes) -> None:
    """Send one message, and end the link where its reader does not take it in `PATIENCE` seconds.

    Raises:
        LinkBroken: the link has ended.
    """
    with trio.move_on_after(PATIENCE) as scope:
        await link.send(message)
    if scope.cancelled_caught:
        raise LinkBroken(f"{link.remote} took nothing for {PATIENCE:g} s")


async def attend(
    link: Link, outbox: "Outbox", take: Callable[[bytes], float], *, ping_after: float, gone_after: float
) -> None:
    """Take a link's messages until it ends; ask for a sign of life when it is silent, and give it up when none comes.

    Args:
        link: where from.
        outbox: where the ping is put.
        take: takes a message, and returns for how many seconds no other is wanted.
        ping_after: seconds of silence after which to ask.
        gone_after: seconds of silence after which the link has ended.

    Raises:
        LinkBroken: the link has ended.
        Exception: what `take` raised.
    """
    while True:
        # One scope for all messages while they come: one for each would cost as much as reading it.
        with trio.CancelScope(deadline=trio.current_time() + ping_after) as silence:
            while True:
                pause = take(await link.receive())
                if pause:
                    silence.deadline = math.inf
                    await trio.sleep(pause)
                silence.deadline = trio.current_time() + ping_after
        outbox.put_urgent(PING)
        message = None
        with trio.move_on_after(gone_after - ping_after):
            message = await link.receive()
        if message is None:
            raise LinkBroken(f"{link.remote} was silent for {gone_after:g} s")
        await trio.sleep(take(message))


@final
@attrs.define(eq=False)
class Outbox:
    """The frames that wait to leave over one link, bounded in bytes."""

    most: int
    """Bytes it holds, `FRAME_COST` for each frame among them."""
    size: int = 0
    """Bytes that wait now, counted in the same way."""
    _frames: deque[bytes] = attrs.field(factory=deque[bytes])
    _urgent: dict[bytes, None] = attrs.field(factory=dict[bytes, None])
    _message: bytes | None = None
    """What was joined and did not leave at once."""
    _is_behind: bool = False
    """Whether a part of what was sent last has not left."""
    _prompt: PromptLink | None = None
    """The link that is written to, where that can send at once."""
    _sending: bool = False
    _writer: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _others: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def put(self, frame: bytes) -> bool:
        """Add a frame, ready to be joined with others; False where there is no room and it was not added."""
        if not self.add(frame):
            return False
        self._writer.unpark_all()
        return True

    def add(self, frame: bytes) -> bool:
        """Do what `put` does, for one who adds more frames and then calls `flush`."""
        if self.size + len(frame) + FRAME_COST > self.most:
            return False
        self._frames.append(frame)
        self.size += len(frame) + FRAME_COST
        return True

    def put_urgent(self, frame: bytes) -> None:
        """Add `PING` or `PONG`, unless the same waits already: before all others, for a full outbox is no silence."""
        self._urgent[frame] = None
        self._writer.unpark_all()

    def flush(self) -> None:
        """Send what waits now as far as the link takes it at once, and leave the rest to the writer."""
        if self._prompt is not None and not (self._sending or self._is_behind or self._message):
            while self._frames:
                message = self._take()
                sent = self._prompt.try_send(message)
                if sent != "whole":
                    self._is_behind = sent == "part"
                    self._message = message if sent == "none" else None
                    break
            else:
                self._others.unpark_all()
                return
        self._writer.unpark_all()

    async def wait_room(self) -> None:
        """Return when at least half of the outbox is free."""
        while self.size * 2 > self.most:
            await self._others.park()

    def discard(self) -> None:
        """Throw away what waits, since its link has ended; whoever waits for room goes on."""
        self._frames.clear()
        self._urgent.clear()
        self.size = 0
        self._message = self._prompt = None
        self._is_behind = self._sending = False
        self._others.unpark_all()

    async def wait_empty(self) -> None:
        """Return when nothing waits and nothing is being sent."""
        while self._has_work() or self._sending:
            await self._others.park()

    async def write_to(self, link: Link) -> None:
        """Send what waits, frames joined, until the link ends; until then `flush` may send too.

        Raises:
            LinkBroken: the link ended, or its reader took nothing for `PATIENCE` seconds.

        On cancellation the link is ended if a message was being sent.
        """
        self._prompt = link if isinstance(link, PromptLink) else None
        try:
            with trio.CancelScope() as patience:
                while True:
                    while not self._has_work():
                        await self._writer.park()
                    self._sending = True
                    patience.deadline = trio.current_time() + PATIENCE
                    await self._write_next(link)
                    patience.deadline = math.inf
                    self._sending = False
                    self._others.unpark_all()
        finally:
            self._prompt = None
        raise LinkBroken(f"{link.remote} took nothing for {PATIENCE:g} s")

    async def _write_next(self, link: Link) -> None:
        if self._is_behind:
            assert self._prompt is not None  # noqa: S101 - it has sent the part that has left
            self._is_behind = False
            await self._prompt.flush()
        else:
            message, self._message = self._message, None
            await link.send(self._take() if message is None else message)

    def _has_work(self) -> bool:
        return bool(self._frames or self._urgent or self._message or self._is_behind)

    def _take(self) -> bytes:
        joined = list(self._urgent)
        self._urgent.clear()
        size = sum(map(len, joined))
        while self._frames and (not joined or size + len(self._frames[0]) <= MOST_JOINED):
            frame = self._frames.popleft()
            joined.append(frame)
            size += len(frame)
            self.size -= len(frame) + FRAME_COST
        return joined[0] if len(joined) == 1 else b"".join(joined)
