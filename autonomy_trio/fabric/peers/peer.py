"""One other node as the fabric sees it: what waits to leave for it, and what is open between us."""

import itertools
from collections import deque
from collections.abc import Callable
from math import ceil, inf
from typing import Any, Final, Protocol, final

import attrs
import trio
from msgspec.structs import replace

from autonomy_trio.errors import Denied, Overloaded
from autonomy_trio.fabric.identity.voices import Pace
from autonomy_trio.fabric.links.buckets import TokenBucket
from autonomy_trio.fabric.peers.asks import Answering, OpenAsk
from autonomy_trio.fabric.peers.flows import Inflows, Outflows
from autonomy_trio.fabric.peers.outcomes import read_error
from autonomy_trio.fabric.peers.streams import MOST_STREAMS, Feeding, Reading
from autonomy_trio.fabric.peers.watches import Watched, Watching, take_down
from autonomy_trio.payloads import Resolve
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.wire.constants import BATCH_ENTRIES, LARGEST_NUMBER, MESSAGE_BYTES
from autonomy_trio.wire.credit import message_cost
from autonomy_trio.wire.entries import (
    Answer,
    Ask,
    Cancel,
    Down,
    Entry,
    Item,
    Message,
    Open,
    Piece,
    Progress,
    Reply,
    Spoken,
    Standing,
    Tell,
    Unwatch,
    entry_size,
    next_batch,
)
from autonomy_trio.wire.lanes import ENVELOPE_ROOM, Lane

MILLISECONDS: Final = 1000
"""In a second."""

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

    @property
    def pin(self) -> str | None:
        """Which relay it is, where that is pinned."""
        ...

    @property
    def is_clear(self) -> bool:
        """Whether the relay is there, and nothing waits to leave for it."""
        ...

    def carry(self, destination: bytes, packet: bytes) -> bool:
        """Queue a packet for another node; False where it had to be dropped."""
        ...

    async def wait_room(self) -> None:
        """Return when packets can be queued again."""
        ...


MOST_SERVED: Final = 8192
"""Unanswered asks from one node."""

MOST_UNSENT: Final = 8 * MOST_WAITING
"""Answers and messages waiting to leave for one node, from which on its asks are not looked at."""

MOST_UNSENT_BYTES: Final = 8 * MOST_WAITING_BYTES
"""The same in bytes."""

SHOWS: Final = (1.0, 64.0)
"""Credentials a second that are looked at from one node, and at once: each costs signature checks."""

Path = tuple[Carrier, bytes]
"""A relay, and the node behind it that packets come from."""


def _wake(peer: "Peer") -> None:
    peer.wake()


@final
@attrs.define(eq=False)
class Peer:
    """Another node, for as long as something is under way with it."""

    identifier: bytes
    _begin_flow: Callable[[], int] = attrs.field(repr=False, factory=lambda: itertools.count(1).__next__)
    """Returns the number of a flow that begins."""
    bundle: Bundle | None = None
    """What the other node has proven; None until a session stands."""
    waiting: deque[Entry] = attrs.field(factory=deque[Entry])
    waiting_bytes: int = 0
    asked: dict[int, OpenAsk] = attrs.field(factory=dict[int, OpenAsk])
    served: dict[int, Answering] = attrs.field(factory=dict[int, Answering])
    reading: dict[int, Reading] = attrs.field(factory=dict[int, Reading])
    """Streams of its agents that are read here."""
    feeding: dict[int, Feeding] = attrs.field(factory=dict[int, Feeding])
    """Streams of agents here that it reads."""
    watching: dict[int, Watching] = attrs.field(factory=dict[int, Watching])
    """Agents of its that are watched here."""
    watched: dict[int, Watched] = attrs.field(factory=dict[int, Watched])
    """Agents here that it watches."""
    proof: Any = None
    """What `Judge` made of the credentials of the node and its agents."""
    shows: TokenBucket = attrs.field(factory=lambda: TokenBucket(*SHOWS), repr=False)
    """Bounds the credentials a node shows in a session."""
    pace: Pace = attrs.field(factory=Pace, repr=False)
    """Bounds the agents that are introduced to the node."""
    carrier: Carrier | None = None
    """What the last packet left by."""
    via: str | None = None
    """The pinned relay that the packet came by which is being looked at."""
    ended: bool = False
    send_now: "Callable[[Peer], None]" = attrs.field(repr=False, default=_wake)
    """Sends what was put there, where little is under way, or wakes the task that does so."""
    asks_for_credit: bool = False
    """Whether a task asks the node again and again how far it is."""
    outflows: Outflows = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(lambda self: Outflows(self._begin_flow, self.has_room, self.wake), takes_self=True),
    )
    """What is sent to its agents."""
    inflows: Inflows = attrs.field(factory=Inflows, repr=False)
    """What it sends to agents here."""
    lane: Lane | None = None
    """The streams of portals with it; None before the first."""
    _passed_over: bool = False
    """Whether messages left no room for bytes of portals, which then have an envelope of their own."""
    _sender: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _is_asleep: bool = False
    """Whether a task may wait for `wake`."""
    _others: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def name(self) -> str:
        """The node's identifier as text."""
        return format_identifier(self.identifier)

    @property
    def is_owed(self) -> bool:
        """Whether anything is open, here or there, so that its loss must be noticed."""
        open_here = self.asked or self.reading or self.watching or self.outflows.is_awaited
        return bool(open_here or self.served or self.feeding or self.watched or self.lane)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to leave."""
        return not (self.waiting or self.outflows.has_words or self.inflows.has_words or self.carries)

    @property
    def carries(self) -> bool:
        """Whether bytes of a portal, or a word about them, wait to leave."""
        return self.lane is not None and self.lane.has_work

    def note_sent(self, entry: Entry, now: float) -> None:
        """Note that what somebody waits for the answer to has left."""
        if isinstance(entry, Ask | Open | Standing):
            request = entry.request
            waiting = self.asked.get(request) or self.reading.get(request) or self.watching.get(request)
            if waiting is not None:
                waiting.sent_at = now

    def has_too_many(self, entry: Ask | Open) -> Overloaded | None:
        """Return why one more of the node's asks or streams cannot be taken."""
        if entry.request in self.served or entry.request in self.feeding:
            return Overloaded("an ask or a stream of that number is open already")
        if isinstance(entry, Ask):
            return Overloaded(f"{MOST_SERVED} asks are open already") if len(self.served) >= MOST_SERVED else None
        return Overloaded(f"{MOST_STREAMS} streams are open already") if len(self.feeding) >= MOST_STREAMS else None

    def take_answer(self, entry: Answer, resolve: Resolve | None) -> None:
        """Hand an answer to who waits for it."""
        request = entry.request
        if isinstance(entry, Reply):
            asked = self.asked.pop(request, None)
            if asked is not None:
                asked.take(entry, resolve)
            return
        if isinstance(entry, Down):
            if not self.is_glutted:  # else it comes again
                take_down(self, entry)
            return
        if isinstance(entry, Item | Progress):
            reading = self.reading.get(request)
            if reading is not None:
                reading.take(entry)
                if reading.is_over:
                    self.reading.pop(request, None)
            return
        asked = self.asked.pop(request, None)
        if asked is not None:
            asked.take(entry, resolve)
        elif request in self.reading:
            reading = self.reading.pop(request)
            reading.fail(read_error(entry, reading.expected, resolve))

    def fail(self, entry: Spoken, error: Exception) -> None:
        """Tell who waits for the answer to a message of ours that there will be none."""
        if isinstance(entry, Tell):
            return
        if isinstance(entry, Standing):
            watching = self.watching.pop(entry.request, None)
            if watching is not None:
                watching.told("unknown agent" if isinstance(error, Denied) else "node lost")
            return
        asked = (self.asked if isinstance(entry, Ask) else self.reading).pop(entry.request, None)
        if isinstance(asked, OpenAsk):
            asked.reply.fail(error)
        elif asked is not None:
            asked.fail(error)

    def drop(self, entry: Spoken, error: Exception) -> None:
        """Tell who waits for the answer to a message that was taken from the queue that it will not leave."""
        if isinstance(entry, Message):
            self.outflows.release(entry.recipient, message_cost(entry))
        self.fail(entry, error)

    def take_back(self, entry: Ask | Open | Standing) -> None:
        """Take back what nobody wants any more: out of the queue, or with a word after it."""
        request = entry.request
        waiting = self.asked.pop(request, None) or self.reading.pop(request, None) or self.watching.pop(request, None)
        if waiting is None:
            return
        if isinstance(waiting, Reading):
            waiting.answer(None)
        if waiting.sent_at is None:
            self.withdraw(entry)
        else:
            self.post(Unwatch(request) if isinstance(entry, Standing) else Cancel(request))

    def drop_served(self) -> None:
        """Cancel what a process asked that has gone; its successor uses its numbers again, so no answer may stay."""
        self.take_out(lambda entry: isinstance(entry, Answer))
        for request in (*self.served, *self.feeding, *self.watched):
            self.cancel(request)

    def cancel(self, request: int) -> None:
        """Withdraw an ask, a stream or a watch of the node's."""
        served = self.served.get(request) or self.feeding.get(request)
        if served is not None:
            served.cancel()
        watched = self.watched.pop(request, None)
        if watched is not None:
            watched.end()

    @property
    def is_glutted(self) -> bool:
        """Whether so much waits for a node that takes nothing that it gets no more answers."""
        return len(self.waiting) >= MOST_UNSENT or self.waiting_bytes >= MOST_UNSENT_BYTES

    def has_room(self) -> bool:
        """Tell whether one more message may wait."""
        return len(self.waiting) < MOST_WAITING and self.waiting_bytes < MOST_WAITING_BYTES

    def post(self, entry: Entry, size: int | None = None) -> None:
        """Let an entry wait to leave; `size` is what `entry_size` said of it, where that is known."""
        self.waiting.append(entry)
        self.waiting_bytes += entry_size(entry) if size is None else size
        self.wake()

    def put(self, entry: Entry, size: int | None = None) -> None:
        """Do what `post` does, for one who calls `send_now` then."""
        self.waiting.append(entry)
        self.waiting_bytes += entry_size(entry) if size is None else size

    def leave(self, entry: Entry, now: float) -> Entry:
        """Return an entry as it leaves: a message with its number, an ask with the time that remains for it."""
        match entry:
            case Tell():
                return Tell(entry.recipient, entry.name, entry.payload, entry.sender, self.outflows.number(entry))
            case Ask():
                asked, remaining = self.asked.get(entry.request), entry.remaining
                if asked is not None and asked.deadline != inf:
                    remaining = min(ceil(max(0.0, asked.deadline - now) * MILLISECONDS), LARGEST_NUMBER)
                return replace(entry, number=self.outflows.number(entry), remaining=remaining)
            case Open():
                return replace(entry, number=self.outflows.number(entry))
            case _:
                return entry

    def take_batch(self, window: int) -> list[Entry]:
        """Take what leaves in one envelope, words about credit first; nothing where it is the turn of portals.

        Args:
            window: what is granted to whom it is due.
        """
        if self._passed_over and self.carries:
            return []
        words: list[Entry] = [*self.inflows.words(window), *self.outflows.words()]
        for word in words:
            self.waiting.appendleft(word)
            self.waiting_bytes += entry_size(word)
        batch = next_batch(self.waiting, self.waiting_bytes)
        self.waiting_bytes = self.waiting_bytes - sum(map(entry_size, batch)) if self.waiting else 0
        self._note_left()
        return batch

    def take_pieces(self, batch: list[Entry], now: float) -> list[Entry]:
        """Take what leaves of portals with a batch of messages, in the room that those leave, or next time alone."""
        self._passed_over = False
        if self.lane is None or not self.lane.has_work:
            return []
        room = min(ENVELOPE_ROOM, MESSAGE_BYTES - sum(map(entry_size, batch)))
        pieces = self.lane.take(room, BATCH_ENTRIES - len(batch), now)
        has_bytes = any(type(piece) is Piece and piece.payload for piece in pieces)
        self._passed_over = bool(batch) and not has_bytes and self.carries
        return [*pieces]

    def put_back(self, batch: list[Entry]) -> None:
        """Put what could not leave back in front."""
        self.waiting.extendleft(reversed(batch))
        self.waiting_bytes += sum(map(entry_size, batch))

    def withdraw(self, entry: Ask | Open | Standing) -> None:
        """Take back an entry that still waits."""
        if entry in self.waiting:
            self.waiting.remove(entry)
            self.waiting_bytes -= entry_size(entry)
            if not isinstance(entry, Standing):
                self.outflows.release(entry.recipient, message_cost(entry))
            self._note_left()

    def take_out(self, unwanted: Callable[[Entry], bool]) -> list[Entry]:
        """Take from the queue what shall not leave; the others keep their places."""
        entries = list(self.waiting)
        taken = [entry for entry in entries if unwanted(entry)]
        self.waiting = deque(entry for entry in entries if not unwanted(entry))
        self.waiting_bytes = sum(map(entry_size, self.waiting))
        self._note_left()
        return taken

    def _note_left(self) -> None:
        """Let those go on that wait for room in the queue."""
        self._others.unpark_all()
        self.outflows.let_go()

    def end(self) -> None:
        """Let the tasks that wait on this peer see that it has ended."""
        self.ended = True
        self.outflows.end()
        self.wake()
        self._others.unpark_all()

    def wake(self) -> None:
        """Let the sending task look again."""
        if self._is_asleep:
            self._is_asleep = False
            self._sender.unpark_all()

    async def wait_woken(self) -> None:
        """Wait for `wake` or `post`."""
        self._is_asleep = True
        await self._sender.park()

    async def wait_changed(self) -> None:
        """Return when something has left the queue."""
        await self._others.park()
