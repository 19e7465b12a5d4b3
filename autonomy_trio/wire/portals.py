"""One end of a portal's stream of bytes, as a machine that does no I/O and reads no clock; `lanes` has what joins them.

A stream is opened by an ask, as any message is sent; then each of its two ends has a direction to send and one to
receive. All words are absolute: a `Piece` says where its bytes belong, how much of the other direction has come, and
how much may come in all. So whatever is lost, doubled or reordered on the way shows, and does no harm.

A sender keeps what the other end has not named. It sends it again from there (go back n) when a relay says that it
dropped something, when the way between the nodes changes, or when nothing has moved for a while. What has come out of
its place is not kept: that happens where the way changes, and is sent again then.

A direction ends with a place of its own, behind its last byte, so that an end is acknowledged, and taken, as bytes are.
An end that is reset takes nothing with it that was taken before, and is never mistaken for an end in good order.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from attrs import define, field

from autonomy_trio.wire.constants import MOST_PORTAL_WINDOW, PORTAL_WINDOW
from autonomy_trio.wire.entries import Missing, Piece, Reset

if TYPE_CHECKING:
    from autonomy_trio.wire.lanes import Lane

LEAST_PIECE: Final = 8 * 1024
"""Bytes below which what is ready is not cut to fit what room is left in an envelope."""

RESEND_AFTER: Final = 1.0
"""Seconds without progress after which what has left is sent again; twice as long each time nothing comes of it."""

LEAST_PART: Final = 4 * 1024
"""Bytes below which what is kept in parts is joined, so that a byte a part does not take many times its room."""

LINGER: Final = 30.0
"""Seconds that an end which is closed waits for the other end to take what was sent, and to end too."""


def _nothing() -> None:
    """Do nothing."""


def _add(parts: deque[bytes], data: bytes) -> None:
    if parts and len(parts[-1]) + len(data) <= LEAST_PART:
        parts[-1] += data
    else:
        parts.append(data)


@final
@define(eq=False, repr=False)
class PortalEnd:
    """One end of a portal's stream; made by `Lane.open` and `Lane.accept`.

    Attributes:
        number: the opener's number for it.
        is_opener: whether it was opened here.
        readable: called when there is something to read, or the stream has ended.
        writable: called when there may be room to write, less may wait to be taken, or the stream has ended.
        lost: why it is over before its time, in words; None where it is not.
        is_closed: whether nobody here reads or writes it any more.
        is_opening: whether the other node may not know of it yet.
    """

    number: int
    is_opener: bool
    _lane: "Lane"
    readable: Callable[[], None] = _nothing
    writable: Callable[[], None] = _nothing
    lost: str | None = None
    is_closed: bool = False
    is_opening: bool = False
    _unsent: deque[bytes] = field(factory=deque[bytes])
    _under_way: deque[bytes] = field(factory=deque[bytes])
    """What has left and not arrived, in its order."""
    _written: int = 0
    _sent: int = 0
    """Places that have left, since it was gone back to."""
    _most_sent: int = 0
    _arrived: int = 0
    _gone_on: int = 0
    """What the other end's reader has taken."""
    _allowed: int = PORTAL_WINDOW
    keeps: int = PORTAL_WINDOW
    """Bytes that may be kept here: the other end's window, within what the lane allows."""
    _went_back_to: int = -1
    """What had arrived when the other end last missed something."""
    _is_finished: bool = False
    """Whether nothing more is written."""
    _asks: bool = False
    moved: float = 0.0
    """When something has moved last, on the caller's clock."""
    patience: float = RESEND_AFTER
    _unread: deque[bytes] = field(factory=deque[bytes])
    _received: int = 0
    _taken: int = 0
    _last: int | None = None
    """Where the other direction ends, once that is known."""
    _told_taken: int = 0
    _told_allowed: int = PORTAL_WINDOW
    untold: int = 0
    """Bytes taken since the other end was told."""
    window: int = PORTAL_WINDOW
    _since_grown: int = 0
    """Bytes taken since the window has grown."""
    linger_until: float = float("inf")
    counted: int = 0
    """What of the lane's flight is this stream's."""
    _is_discarding: bool = False

    # What the owner of the end does

    def write(self, data: bytes) -> None:
        """Send bytes, which are kept until they have arrived; not after `finish`."""
        if self.lost is None and data:
            _add(self._unsent, data)
            self._written += len(data)
            self._lane.make_ready(self)

    def finish(self) -> None:
        """Let the direction end behind what was written."""
        if self.lost is None and not self._is_finished:
            self._is_finished = True
            self._lane.make_ready(self)

    @property
    def room(self) -> int:
        """How many bytes may be written before some have arrived; less than 1 for none."""
        return self.keeps - self._written + min(self._arrived, self._written)

    def read(self) -> bytes:
        """Return all bytes that have come and were not read; none where there are none yet, or no more."""
        if len(self._unread) == 1:
            return self._unread.popleft()
        data = b"".join(self._unread)
        self._unread.clear()
        return data

    def unread(self, data: bytes) -> None:
        """Put back the rest of what was read."""
        self._unread.appendleft(data)

    def take(self, size: int) -> None:
        """Count bytes that were read as gone on: as many more may come."""
        self._taken += size
        self.untold += size
        self._since_grown += size
        if self.lost is None:
            if self._since_grown >= self.window < MOST_PORTAL_WINDOW and not self._unread and self._lane.may_grow(self):
                self.window *= 2
                self._since_grown = 0
            self._lane.note_taken(self)
            self.writable()

    @property
    def has_ended(self) -> bool:
        """Whether the other direction has ended and all of it was read."""
        return not self._unread and self._received == self._end_place

    def take_end(self) -> None:
        """Count the end of the other direction as gone on."""
        if self.lost is None and self._taken < self._end_place:
            self._taken += 1
            self._lane.owe(self)
            self._look_over()
            self.writable()

    @property
    def is_settled(self) -> bool:
        """Whether nothing that was written, or has come, waits for anything."""
        return self.lost is not None or (self._gone_on >= self._written and self._taken == self._received)

    def close(self, now: float) -> None:
        """Let nobody here read or write any more; what was written still goes on, within `LINGER` seconds."""
        self.is_closed = True
        self.linger_until = now + LINGER
        if self.lost is None:
            self._discard()
            self.finish()
            self._end_discarding()
            self._look_over()
            self._lane.stir()

    def reset(self) -> None:
        """End the stream at once, and tell the other end; what was not taken is lost."""
        if self.lost is None and not self.is_over:
            self._lane.say(Reset(self.number, self.is_opener))
            self.lose("it was reset at this end")

    def lose(self, why: str) -> None:
        """End the stream without a word."""
        if self.lost is None:
            self.lost = why
            self._lane.remove(self)
            self._unsent.clear()
            self._under_way.clear()
            self._unread.clear()
            self.readable()
            self.writable()

    @property
    def is_over(self) -> bool:
        """Whether both directions have ended, and all of both was taken, as both ends know."""
        return self._is_finished and self._gone_on > self._written and self._taken == self._end_place

    # What the lane does

    @property
    def _end_place(self) -> float:
        return float("inf") if self._last is None else self._last + 1

    @property
    def in_flight(self) -> int:
        """Places that have left and not arrived."""
        return self._sent - self._arrived

    @property
    def is_ready(self) -> bool:
        """Whether something may leave."""
        if self._unsent:
            return self._sent < self._allowed
        return self._is_finished and self._sent == self._written

    @property
    def is_waiting(self) -> bool:
        """Whether the other end must say something before anything goes on here, as for room."""
        return bool(self._sent > self._arrived or self._unsent)

    def word(self, payload: bytes = b"", *, is_last: bool = False) -> Piece:
        """Return how far this end is, with bytes or none."""
        self.untold = 0
        self._told_taken = self._taken
        self._told_allowed = max(self._told_allowed, self._taken + self.window)
        asks, self._asks = self._asks, False
        return Piece(
            self.number,
            self.is_opener,
            min(self._sent, self._written),
            payload,
            is_last,
            self._received,
            self._taken,
            self.window,
            asks,
            0,
        )

    def next_piece(self, room: int) -> Piece | None:
        """Return the next bytes of a ready end, at most so many, or its end; None where too little would fit."""
        if self._unsent and room < min(len(self._unsent[0]), LEAST_PIECE):
            return None
        payload = self._cut(min(room, self._allowed - self._sent)) if self._unsent else b""
        is_last = self._is_finished and self._sent + len(payload) == self._written
        piece = self.word(payload, is_last=is_last)
        if payload:
            self._under_way.append(payload)
        self._sent += len(payload) + is_last
        self._most_sent = max(self._most_sent, self._sent)
        return piece

    def _cut(self, most: int) -> bytes:
        """Take up to so many bytes of what is to be sent."""
        unsent, parts = self._unsent, list[bytes]()
        while unsent and most > 0:
            part = unsent.popleft()
            if len(part) > most:
                unsent.appendleft(part[most:])
                part = part[:most]
            parts.append(part)
            most -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def ask(self) -> None:
        """Have the next piece ask how far the other end is."""
        self._asks = True

    def go_back(self) -> None:
        """Let everything that has not arrived leave again."""
        self._unsent.extendleft(reversed(self._under_way))
        self._under_way.clear()
        self._sent = self._arrived

    def hear(self, piece: Piece, now: float) -> None:
        """Take the other end's word."""
        self._hear_word(piece, now)
        if self.lost is None and (piece.payload or piece.is_last):
            self._hear_bytes(piece)
        if self.lost is None:
            if piece.asks:
                self._lane.tell_all(self)
            self._end_discarding()
            self._look_over()

    def _hear_word(self, piece: Piece, now: float) -> None:
        if not piece.taken <= piece.through <= self._most_sent:
            self._break_off("the other node took what was not sent")
            return
        if piece.taken > self._gone_on:
            self._gone_on = piece.taken
            if self.is_closed:
                self.linger_until = now + LINGER
            self.writable()
        if piece.taken + piece.window > self._allowed:
            self._allowed = piece.taken + piece.window
            self.keeps = self._lane.let_keep(self, min(piece.window, MOST_PORTAL_WINDOW))
            self.moved, self.patience = now, RESEND_AFTER
            self._lane.make_ready(self)
        if piece.through > self._arrived:
            self._forget(piece.through)
            self.moved, self.patience = now, RESEND_AFTER
            self.writable()

    def _forget(self, through: int) -> None:
        """Keep no more of what has arrived; after going back, some of it waits to leave again."""
        gone = min(through, self._written) - min(self._arrived, self._written)
        for kept in (self._under_way, self._unsent):
            while gone and kept:
                first = kept[0]
                if len(first) > gone:
                    kept[0] = first[gone:]
                    gone = 0
                else:
                    gone -= len(kept.popleft())
        self._arrived = through
        self._sent = max(self._sent, through)

    def _hear_bytes(self, piece: Piece) -> None:
        end = piece.offset + len(piece.payload)
        known = self._last
        if end > self._told_allowed or (known is not None and (end > known or (piece.is_last and end != known))):
            self._break_off("the other node sent more than it may")
            return
        if piece.is_last:
            self._last = end
        known_bytes = self._received - piece.offset
        if known_bytes < 0 or end + piece.is_last <= self._received:
            if known_bytes < 0:
                self._lane.say(Missing(self.number, self.is_opener, self._received))
            self._lane.owe(self)  # of a gap, or nothing new: the other end does not know how far this one is
            return
        payload = piece.payload[known_bytes:] if known_bytes else piece.payload
        self._received = end + piece.is_last
        if payload:
            _add(self._unread, payload)
        if self.is_closed:
            self._discard()
        self._lane.note_received(self)
        self.readable()

    def _discard(self) -> None:
        """Take what nobody reads any more, so that the other end goes on and comes to what was written here."""
        self._is_discarding = self._is_discarding or bool(self._unread)
        self._unread.clear()
        self._taken = self._received
        self._lane.owe(self)

    def _end_discarding(self) -> None:
        """Reset a closed end that was sent more, as soon as the other end has taken all that was written."""
        if self._is_discarding and self._gone_on > self._written:
            self.reset()

    def _break_off(self, why: str) -> None:
        self._lane.say(Reset(self.number, self.is_opener))
        self.lose(why)

    def hear_missing(self, missing: Missing) -> None:
        """Take the other end's word that something was lost: once for each place, for many may come behind a gap."""
        if missing.through == self._arrived != self._went_back_to and self.in_flight:
            self._went_back_to = self._arrived
            self._lane.lose_some(self)

    def hear_reset(self) -> None:
        """Take the other end's word that the stream is not there any more.

        Where both directions have ended here, the other end has only forgotten the stream first.
        """
        if self._is_finished and self._taken == self._end_place:
            self._gone_on = self._written + 1
            self._look_over()
        else:
            self.lose("it was reset at the other end")

    def _look_over(self) -> None:
        if self.is_over:
            self._lane.remove(self)
            if self._told_taken < self._taken:
                self._lane.owe(self)
            self.readable()
            self.writable()
