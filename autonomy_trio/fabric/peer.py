"""One other node as the fabric sees it: what waits to leave for it, and the asks open between us."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, final

import attrs
import outcome
import trio

from autonomy_trio.actors.delivery import Delivery, PendingReply
from autonomy_trio.errors import DeliveryError
from autonomy_trio.fabric.buckets import TokenBucket
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.wire.entries import Ask, Entry, Tell, entry_size, next_batch

MOST_WAITING: Final = 1024
"""Messages that wait to leave for one node; the next sender waits."""

MOST_WAITING_BYTES: Final = 1024 * 1024
"""Bytes that wait to leave for one node."""


class Carrier(Protocol):
    """What takes packets to other nodes: a node's attachment to a relay."""

    @property
    def is_attached(self) -> bool:
        """Whether the relay is there now."""
        ...

    def carry(self, destination: bytes, packet: bytes) -> bool:
        """Queue a packet for another node; False where it had to be dropped."""
        ...

    async def wait_room(self) -> None:
        """Return when packets can be queued again."""
        ...


SHOWS: Final = (1.0, 64.0)
"""Credentials a second that are looked at from one node, and at once: each costs signature checks."""

Path = tuple[Carrier, bytes]
"""A relay, and the node behind it that packets come from."""


Answer = Callable[[outcome.Outcome[Any]], None]
"""Takes the outcome of an ask and sends it to its asker."""


class Judge(Protocol):
    """Who decides on what arrives: the node's admission."""

    def show(self, peer: "Peer", presentations: Sequence[bytes]) -> None:
        """Take note of the credentials a node shows."""
        ...

    def admit(self, peer: "Peer", entry: Tell | Ask, answer: Answer, *, late: bool) -> Delivery | DeliveryError | None:
        """Judge one message: the delivery of an ask that waits for its handler, why it may not pass, or None."""
        ...


@attrs.define(eq=False)
class OpenAsk:
    """An ask of ours that has no answer yet."""

    entry: Ask
    reply: PendingReply
    reply_type: object | None
    address: str
    sent_at: float | None = None
    """On trio's clock; None while it waits to leave."""


@final
@attrs.define(eq=False)
class Peer:
    """Another node, for as long as something is under way with it."""

    identifier: bytes
    bundle: Bundle | None = None
    """What the other node has proven; None until a session stands."""
    waiting: deque[Entry] = attrs.field(factory=deque[Entry])
    waiting_bytes: int = 0
    asked: dict[int, OpenAsk] = attrs.field(factory=dict[int, OpenAsk])
    served: dict[int, Delivery] = attrs.field(factory=dict[int, Delivery])
    proof: Any = None
    """What `Judge.show` made of the node's credentials."""
    shows: TokenBucket = attrs.field(factory=lambda: TokenBucket(*SHOWS), repr=False)
    """Bounds the credentials a node shows in a session."""
    carrier: Carrier | None = None
    """What the last packet left by."""
    ended: bool = False
    _sender: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _others: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def name(self) -> str:
        """The node's identifier as text."""
        return format_identifier(self.identifier)

    def has_room(self) -> bool:
        """Tell whether one more message may wait."""
        return len(self.waiting) < MOST_WAITING and self.waiting_bytes < MOST_WAITING_BYTES

    def post(self, entry: Entry) -> None:
        """Let an entry wait to leave."""
        self.waiting.append(entry)
        self.waiting_bytes += entry_size(entry)
        self._sender.unpark_all()

    def take_batch(self) -> list[Entry]:
        """Take what leaves in one envelope."""
        batch = next_batch(self.waiting)
        self.waiting_bytes -= sum(map(entry_size, batch))
        self._others.unpark_all()
        return batch

    def put_back(self, batch: list[Entry]) -> None:
        """Put what could not leave back in front."""
        self.waiting.extendleft(reversed(batch))
        self.waiting_bytes += sum(map(entry_size, batch))

    def withdraw(self, entry: Entry) -> None:
        """Take back an entry that still waits."""
        if entry in self.waiting:
            self.waiting.remove(entry)
            self.waiting_bytes -= entry_size(entry)
            self._others.unpark_all()

    def take_all(self) -> list[Entry]:
        """Empty the queue."""
        entries = list(self.waiting)
        self.waiting.clear()
        self.waiting_bytes = 0
        self._others.unpark_all()
        return entries

    def end(self) -> None:
        """Let the tasks that wait on this peer see that it has ended."""
        self.ended = True
        self.wake()
        self._others.unpark_all()

    def wake(self) -> None:
        """Let the sending task look again."""
        self._sender.unpark_all()

    async def wait_woken(self) -> None:
        """Wait for `wake` or `post`."""
        await self._sender.park()

    async def wait_changed(self) -> None:
        """Return when something has left the queue."""
        await self._others.park()

    async def wait_room(self) -> None:
        """Return when one more message may wait."""
        while not self.has_room():
            await self._others.park()
