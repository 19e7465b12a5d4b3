"""What a link is, and the one task that may write to it.

A link carries bytes messages both ways between two neighbours: a node and a relay. Encryption is end to end above it,
so every link is treated as hostile. A cancelled send may leave half a message behind, so only one task may send: until
a node is registered the one that registers it, from then on the one in `Outbox.write_to`.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final

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


async def receive_alive(link: Link, outbox: "Outbox", *, ping_after: float, gone_after: float) -> bytes:
    """Return a link's next message; ask for a sign of life when it is silent, and give it up when none comes.

    Args:
        link: where from.
        outbox: where the ping is put.
        ping_after: seconds of silence after which to ask.
        gone_after: seconds of silence after which the link has ended.

    Raises:
        LinkBroken: the link has ended.
    """
    with trio.move_on_after(ping_after):
        return await link.receive()
    outbox.put_urgent(PING)
    with trio.move_on_after(gone_after - ping_after):
        return await link.receive()
    raise LinkBroken(f"{link.remote} was silent for {gone_after:g} s")


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
    _sending: bool = False
    _writer: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _others: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def put(self, frame: bytes) -> bool:
        """Add a frame, ready to be joined with others; False where there is no room and it was not added."""
        if self.size + len(frame) + FRAME_COST > self.most:
            return False
        self._frames.append(frame)
        self.size += len(frame) + FRAME_COST
        self._writer.unpark_all()
        return True

    def put_urgent(self, frame: bytes) -> None:
        """Add `PING` or `PONG`, unless the same waits already: before all others, for a full outbox is no silence."""
        self._urgent[frame] = None
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
        self._sending = False
        self._others.unpark_all()

    async def wait_empty(self) -> None:
        """Return when nothing waits and nothing is being sent."""
        while self._frames or self._urgent or self._sending:
            await self._others.park()

    async def write_to(self, link: Link) -> None:
        """Send what waits, frames joined, until the link ends.

        Raises:
            LinkBroken: the link ended, or its reader took nothing for `PATIENCE` seconds.

        On cancellation the link is ended if a message was being sent.
        """
        while True:
            while not self._frames and not self._urgent:
                await self._writer.park()
            message = self._take()
            self._sending = True
            await send_patiently(link, message)
            self._sending = False
            self._others.unpark_all()

    def _take(self) -> bytes:
        joined = list(self._urgent)
        self._urgent.clear()
        size = sum(map(len, joined))
        while self._frames and (not joined or size + len(self._frames[0]) <= MOST_JOINED):
            frame = self._frames.popleft()
            joined.append(frame)
            size += len(frame)
            self.size -= len(frame) + FRAME_COST
        return b"".join(joined)
