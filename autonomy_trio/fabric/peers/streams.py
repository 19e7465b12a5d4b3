"""Streams between nodes: the end that reads, here, and the end that an agent feeds.

Items carry an index, so that a gap ends the stream with an error: nothing is sent twice. The reader grants credit as an
absolute count and repeats it while the stream is open. That heals a credit that was lost, shows one end what the other
has lost (`Progress` answers a credit that brings nothing new), and lets an agent's end whose reader has gone without a
word run out.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from autonomy_trio.actors.streams import CREDIT, Producer, Sink
from autonomy_trio.errors import MessageError, OutcomeUnknown
from autonomy_trio.fabric.peers.outcomes import Expected, error_entry, read_value, reply_entry
from autonomy_trio.payloads import Resolve
from autonomy_trio.wire.entries import Credit, Error, Foreseen, Item, Open, Progress, Reply

if TYPE_CHECKING:
    from autonomy_trio.fabric.peers.peer import Peer

MOST_STREAMS: Final = 256
"""Streams that one node may have open here."""

REPEAT_EVERY: Final = 10.0
"""Seconds between two words on each stream that is open."""

LEASE: Final = 35.0
"""Seconds without a word of its reader after which an agent's stream is cancelled: three were lost."""


@final
@attrs.define(eq=False, repr=False)
class Reading(AsyncIterator[Any]):
    """The reader's end of a stream of an agent on another node."""

    entry: Open
    expected: Expected
    _peer: "Peer"
    _resolve: Resolve | None
    _left: Callable[[], None]
    """Takes back what it asks of the other node."""
    sent_at: float | None = None
    """On trio's clock; None while its opening waits to leave."""
    word: Credit | None = None
    """What it has granted last."""
    _received: int = 0
    _taken: int = 0
    _buffer: deque[bytes] = attrs.field(factory=deque[bytes])
    is_over: bool = False
    """Whether nothing more can come."""
    _error: BaseException | None = None
    _changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def _allowed(self) -> int:
        return self.entry.allowed if self.word is None else self.word.allowed

    def grant(self, allowed: int | None = None) -> None:
        """Say how many items may come in all, or repeat it."""
        self.word = Credit(self.entry.request, self._allowed if allowed is None else allowed)
        self._peer.post(self.word)

    def take(self, entry: Item | Progress) -> None:
        """Take what the other node says of the stream; a gap ends it."""
        if isinstance(entry, Item):
            if entry.index != self._received or self._received >= self._allowed:
                self._lose()
            else:
                self._received += 1
                self._buffer.append(entry.payload)
                self._changed.set()
        elif entry.count > self._received or (entry.is_over and entry.count < self._received):
            self._lose()
        elif entry.is_over:
            self.answer(None)

    def answer(self, value: object) -> None:
        """End the stream, after what has come; the first end counts."""
        del value
        self.is_over = True
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """End the stream, after what has come, with an error; the first end counts."""
        if not self.is_over:
            self.is_over, self._error = True, error
            self._changed.set()

    def _lose(self) -> None:
        if not self.is_over:
            name, address = self.expected.message, self.expected.address
            text = f"items of {name} from {address} were lost on the way: {self._received} came before that"
            self.fail(OutcomeUnknown(text))
            self._left()

    async def __anext__(self) -> Any:  # noqa: ANN401 - the item's type is the stream's
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self.is_over:
                raise StopAsyncIteration if self._error is None else self._error
            self._changed = trio.Event()
            await self._changed.wait()
        payload = self._buffer.popleft()
        self._taken += 1
        if not self.is_over and self._allowed - self._taken <= CREDIT // 2:
            self.grant(self._taken + CREDIT)
        try:
            return read_value(payload, self.expected, self._resolve, "item")
        except MessageError as error:
            self._buffer.clear()
            self.fail(error)
            self._left()
            raise


@final
@attrs.define(eq=False, repr=False)
class Feeding(Sink):
    """The agent's end of a stream that another node reads."""

    opening: Open
    _peer: "Peer"
    _ended: Callable[[], None]
    """Called once, when it has ended."""
    heard_at: float
    """When its reader was heard last, on trio's clock."""
    withdraw: Callable[[], None] | None = None
    """Takes its opening back."""
    _producer: Producer | None = None
    _sent: int = 0
    _allowed: int = attrs.field(init=False)
    _is_over: bool = False

    def __attrs_post_init__(self) -> None:
        self._allowed = min(self.opening.allowed, CREDIT)

    @property
    def request(self) -> int:
        """The reader's number for it."""
        return self.opening.request

    @property
    def credit(self) -> int:
        """How many items its reader has allowed so far."""
        return self._allowed

    @property
    def is_congested(self) -> bool:
        """Whether too much waits to leave for the reader's node."""
        return not (self._peer.has_room() or self._peer.ended)

    async def wait_room(self) -> None:
        """Return when more may wait to leave."""
        while self.is_congested:
            await self._peer.wait_changed()

    def attach(self, producer: Producer) -> None:
        """Take items from a producer, which has begun."""
        self._producer = producer
        if self._is_over:
            producer.scope.cancel()

    def allow(self, entry: Credit, now: float) -> None:
        """Take the reader's word; one that allows no more than before is answered by how far this end is."""
        self.heard_at = now
        allowed = min(entry.allowed, self._sent + CREDIT)
        if allowed > self._allowed:
            more, self._allowed = allowed - self._allowed, allowed
            if self._producer is not None:
                self._producer.add_credit(more)
        else:
            self._peer.post(Progress(self.request, self._sent, is_over=False))

    def offer(self, item: object) -> None:
        """Send an item."""
        if self._is_over:
            return
        encoded = reply_entry(self.request, item)
        if isinstance(encoded, Reply):
            self._peer.post(Item(self.request, self._sent, encoded.payload))
            self._sent += 1
        else:
            self._end(encoded)
            self.cancel()

    def answer(self, value: object) -> None:
        """End the stream, after what was sent; the first end counts."""
        del value
        self._end(Progress(self.request, self._sent, is_over=True))

    def fail(self, error: BaseException) -> None:
        """End the stream, after what was sent, with an error; the first end counts."""
        self._end(error_entry(self.request, error))

    def cancel(self) -> None:
        """End the stream without a word, and its producer."""
        self._end(None)
        if self.withdraw is not None:
            self.withdraw()
        if self._producer is not None:
            self._producer.scope.cancel()

    def _end(self, last: Reply | Error | Foreseen | Progress | None) -> None:
        if not self._is_over:
            self._is_over = True
            if last is not None:
                self._peer.post(last)
            self._ended()
