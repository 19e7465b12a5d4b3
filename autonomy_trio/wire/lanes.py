"""Lanes: all streams of portals between this node and one other, beside their messages.

Three bounds hold what is under way. The window of a stream, by what its reader has taken, keeps a stalled stream from
stalling another. The flight of a lane, by what has arrived, keeps all of its streams from filling the queues of relays;
it grows while all arrives, and is halved by a loss. And each envelope has room for so many bytes of streams beside its
messages, which the streams take in turns when it leaves: so no message waits behind bytes.
"""

from collections.abc import Callable
from typing import Final, final

from attrs import define, field

from autonomy_trio.wire.constants import PORTAL_WINDOW
from autonomy_trio.wire.entries import PIECE_FRAMING_BYTES, Missing, Piece, Portal, Reset
from autonomy_trio.wire.portals import RESEND_AFTER, PortalEnd

PIECE_BYTES: Final = 120 * 1024
"""Bytes of one piece: an envelope costs much the same whatever its size."""

ENVELOPE_ROOM: Final = PIECE_BYTES + 4 * 1024
"""Bytes of one envelope that portals take: a full piece, or many, and some words."""

FIRST_FLIGHT: Final = 512 * 1024
"""Bytes to one node that may have left and not arrived, at first."""

LEAST_FLIGHT: Final = 128 * 1024
MOST_FLIGHT: Final = 3 * 1024 * 1024
"""Between these it moves; a relay keeps 4 MiB for a node before it drops what comes."""

FLIGHT_STEP: Final = 64 * 1024
"""Bytes by which it grows with each whole flight that has arrived."""

LONGEST_RESEND: Final = 8.0
"""Seconds between two attempts of which nothing comes, at most."""

DROPPED_PAUSE: Final = 0.25
"""Seconds for which nothing is sent after a relay has dropped something."""

MOST_WORDS: Final = 1024
"""Resets and the like that wait to leave for one node; others are made again by the next word on their stream."""

MOST_GROWN: Final = 16 * 1024 * 1024
"""Bytes by which the windows of all streams with one node may have grown together."""


@final
@define(eq=False, repr=False)
class Lane:
    """All streams between this node and one other.

    Attributes:
        opened: streams that were opened here, by number.
        accepted: streams that the other node has opened, by number.
        in_flight: places of all streams that have left and not arrived.
        flight: how many may be.
        resent: how often streams were gone back in.
    """

    _wake: Callable[[], None]
    """Called when something can leave."""
    stir: Callable[[], None]
    """Called when `tick` has something to wait for."""
    opened: dict[int, PortalEnd] = field(factory=dict[int, PortalEnd])
    accepted: dict[int, PortalEnd] = field(factory=dict[int, PortalEnd])
    in_flight: int = 0
    flight: int = FIRST_FLIGHT
    resent: int = 0
    _ready: dict[PortalEnd, None] = field(factory=dict[PortalEnd, None])
    """Those that have bytes to send, in their turns."""
    _owing: dict[PortalEnd, None] = field(factory=dict[PortalEnd, None])
    """Those that owe a word."""
    _untold: dict[PortalEnd, None] = field(factory=dict[PortalEnd, None])
    """Those that owe a word soon."""
    _words: dict[Missing | Reset, None] = field(factory=dict[Missing | Reset, None])
    """What else is to be told."""
    _grown: int = 0
    _kept: int = 0
    """Bytes that all ends may keep past a first window of each: a node may name wide windows, and take nothing."""
    _unasked: int = 0
    """Bytes that have left since the other node was asked how far it is."""
    _paused_until: float | None = None

    def __len__(self) -> int:
        return len(self.opened) + len(self.accepted)

    def open(self, number: int) -> PortalEnd:
        """Return this end of a stream that is to be opened, of a new number."""
        end = self.opened[number] = PortalEnd(number, True, self)  # noqa: FBT003 - its own field
        return end

    def accept(self, number: int) -> PortalEnd | None:
        """Return this end of a stream that the other node opens; None where it has one of that number."""
        if number in self.accepted:
            return None
        end = self.accepted[number] = PortalEnd(number, False, self)  # noqa: FBT003 - as above
        return end

    def ends(self) -> list[PortalEnd]:
        """Return all ends here."""
        return [*self.opened.values(), *self.accepted.values()]

    @property
    def has_work(self) -> bool:
        """Whether something may leave now."""
        return bool(self._words or self._owing or self._may_send)

    @property
    def _may_send(self) -> bool:
        return bool(self._ready) and self.in_flight < self.flight and self._paused_until is None

    def take(self, room: int, most: int, now: float) -> list[Portal]:
        """Return what leaves in an envelope: words first, then bytes, each stream in its turn.

        Args:
            room: bytes that are left in the envelope.
            most: entries that are left in it.
            now: seconds.
        """
        taken: list[Portal] = []
        most = min(most, room // PIECE_FRAMING_BYTES)
        while self._words and len(taken) < most:
            taken.append(self._words.popitem()[0])
        while self._owing and len(taken) < most:
            end = next(iter(self._owing))
            taken.append(end.word())
            self._note_told(end)
        room -= PIECE_FRAMING_BYTES * len(taken)
        while len(taken) < most and room >= PIECE_FRAMING_BYTES and self._may_send:
            piece = self._next_piece(min(PIECE_BYTES, room - PIECE_FRAMING_BYTES), now)
            if piece is None:
                break
            taken.append(piece)
            room -= PIECE_FRAMING_BYTES + len(piece.payload)
        if self.in_flight:
            self.stir()
        return taken

    def _next_piece(self, room: int, now: float) -> Piece | None:
        end = next(iter(self._ready))
        was_moving = end.in_flight > 0
        if self._unasked >= self.flight // 2:
            self._unasked = 0
            end.ask()
        piece = end.next_piece(room)
        if piece is None:
            return None
        if not was_moving:
            end.moved, end.patience = now, RESEND_AFTER
        self._note_told(end)
        self._count(end)
        self._unasked += len(piece.payload)
        del self._ready[end]
        if end.is_ready:
            self._ready[end] = None
        return piece

    def receive(self, entry: Portal, now: float) -> None:
        """Take a word of the other node's; one about a stream that is not here is answered with a reset."""
        end = (self.accepted if entry.opened else self.opened).get(entry.number)
        if isinstance(entry, Reset):
            if end is not None:
                end.hear_reset()
        elif end is None:
            self.say(Reset(entry.number, not entry.opened))
        elif isinstance(entry, Missing):
            end.hear_missing(entry)
        else:
            end.hear(entry, now)
            arrived = self._count(end)
            if arrived > 0:
                self.flight = min(MOST_FLIGHT, self.flight + max(1, arrived * FLIGHT_STEP // self.flight))
                if self._ready:
                    self._wake()

    def lose_all(self, why: str) -> None:
        """End all streams without a word: the other node has gone."""
        for end in self.ends():
            end.lose(why)
        self._words.clear()

    def go_back(self, *, pause_until: float | None = None) -> None:
        """Send everything again that has not arrived, for some of it was lost.

        Args:
            pause_until: until when nothing is sent, for what is sent is dropped.
        """
        if self._paused_until is not None:
            return
        self._paused_until = pause_until
        flight = max(LEAST_FLIGHT, self.flight // 2) if self.in_flight else self.flight
        for end in self.ends():
            if end.in_flight:
                self.lose_some(end)
        self.flight = flight
        self.stir()

    def repeat(self) -> None:
        """Say how far each stream is, so that the other node tells which of them it does not know any more."""
        for end in self.ends():
            if not end.is_opening:
                self.owe(end)

    @property
    def is_waiting(self) -> bool:
        """Whether `tick` has something to do sooner or later."""
        return bool(self._untold or self._paused_until is not None) or any(
            end.is_waiting or end.is_closed for end in self.ends()
        )

    def tick(self, now: float) -> None:
        """Tell what was not told yet, and send again what nothing was heard of; called some ten times a second."""
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
            self._wake()
        for end in list(self._untold):
            self.owe(end)
        for end in self.ends():
            if now >= end.linger_until:
                end.reset()
            elif end.is_waiting and now >= end.moved + end.patience and self._paused_until is None:
                end.moved, end.patience = now, min(2 * end.patience, LONGEST_RESEND)
                self.lose_some(end)
                self.owe(end)

    # What its ends tell

    def make_ready(self, end: PortalEnd) -> None:
        """Let an end send when it is its turn."""
        if end.is_ready:
            self._ready[end] = None
            self._wake()
        else:
            self.stir()

    def owe(self, end: PortalEnd) -> None:
        """Have an end say how far it is."""
        self._owing[end] = None
        self._wake()

    def note_received(self, end: PortalEnd) -> None:
        """Have an end say soon what has come."""
        self._untold[end] = None
        self.stir()

    def note_taken(self, end: PortalEnd) -> None:
        """Have an end say how far it is: now, where a good part of its window was taken, else soon."""
        if end.untold >= end.window // 4:
            self.owe(end)
        else:
            self.note_received(end)

    def tell_all(self, end: PortalEnd) -> None:
        """Have an end say how far it is, and all others that would do so soon: the other node waits for that."""
        self._owing.update(self._untold)
        self.owe(end)

    def may_grow(self, end: PortalEnd) -> bool:
        """Tell whether the window of an end may grow to twice its size, and count it where it does."""
        if self._grown + end.window > MOST_GROWN:
            return False
        self._grown += end.window
        return True

    def let_keep(self, end: PortalEnd, wanted: int) -> int:
        """Return how many bytes an end may keep of what it sends, and count those past a first window."""
        others = self._kept - max(0, end.keeps - PORTAL_WINDOW)
        keeps = min(wanted, PORTAL_WINDOW + MOST_GROWN - others)
        self._kept = others + max(0, keeps - PORTAL_WINDOW)
        return keeps

    def say(self, word: Missing | Reset) -> None:
        """Have something told that is no piece."""
        if len(self._words) < MOST_WORDS:
            self._words[word] = None
            self._wake()

    def remove(self, end: PortalEnd) -> None:
        """Forget an end that is over."""
        (self.opened if end.is_opener else self.accepted).pop(end.number, None)
        self.in_flight -= end.counted
        self._grown -= end.window - PORTAL_WINDOW
        self.let_keep(end, 0)
        end.counted = 0
        self._note_told(end)
        self._ready.pop(end, None)
        if self._ready:
            self._wake()

    def lose_some(self, end: PortalEnd) -> None:
        """Have an end send again what has not arrived, and let less be in flight."""
        if end.in_flight:
            self.flight = max(LEAST_FLIGHT, self.flight // 2)
            self.resent += 1
        end.go_back()
        end.ask()
        self._count(end)
        self.make_ready(end)

    def _count(self, end: PortalEnd) -> int:
        """Count what of an end is in flight now; returns by how much that is less than before."""
        if end not in (self.opened.get(end.number), self.accepted.get(end.number)):
            return 0
        less = end.counted - end.in_flight
        end.counted -= less
        self.in_flight -= less
        return less

    def _note_told(self, end: PortalEnd) -> None:
        self._owing.pop(end, None)
        self._untold.pop(end, None)
