"""Credit: how far the messages of one node may be ahead of an agent of another one.

Each message has a number, which rises from message to message to one agent. What has left counts until the other node
says `Accepted` through its number: the agent's mailbox has it, or it was denied, dropped or lost. So nothing that is
lost on the way costs credit, and what two relays reorder shows: a number that is not above all before it is late.

All words are absolute, so each may be lost, repeated or come twice. Who waits for credit says so again and again, with
the number of its last message (`Blocked`), and is answered with how it stands.

A number is the flow's, since the sender's boot, << 32 | that of the message in it, from 1: a flow that is begun anew
stands above those before it, and within one each gap is a message that was lost.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, final

from attrs import define, field

from autonomy_trio.wire.constants import FLOW_BITS, MESSAGE_OVERHEAD, WINDOW_BYTES
from autonomy_trio.wire.entries import FRAMING_BYTES, UTF8_BYTES, Message

_POSITION: Final = (1 << FLOW_BITS) - 1
_HALF: Final = WINDOW_BYTES // 2
_FIXED_COST: Final = MESSAGE_OVERHEAD + FRAMING_BYTES
MOST_MISSING: Final = WINDOW_BYTES // MESSAGE_OVERHEAD
"""Messages that can be missing before one that has come: no more were allowed to be under way."""


def message_cost(entry: Message) -> int:
    """Return what a message takes of a window, in bytes; both sides find the same: `MESSAGE_OVERHEAD` and its size."""
    return _FIXED_COST + len(entry.payload) + UTF8_BYTES * (len(entry.recipient) + len(entry.name))


@final
@define(eq=False)
class Spending:
    """The sender's side of one flow: what one node sends to one agent of another.

    Attributes:
        last: the number of the message that left last.
        through: the number that was accepted last, with all below it.
        window: how many bytes may be under way, as the other node said last.
        under_way: bytes of messages that wait to leave, or have left and are not accepted.
    """

    _begin: Callable[[], int]
    """Returns the number of a flow that begins now."""
    last: int = 0
    through: int = 0
    window: int = WINDOW_BYTES
    under_way: int = 0
    _sent: deque[tuple[int, int]] = field(factory=deque[tuple[int, int]])
    """Number and bytes of what has left and is not accepted."""

    def __attrs_post_init__(self) -> None:
        self._begin_flow()

    def has_room(self, cost: int) -> bool:
        """Tell whether a message may go; the only one under way may be larger than the window, unless that is shut."""
        return self.under_way + cost <= self.window or (not self.under_way and self.window > 0)

    def reserve(self, cost: int) -> None:
        """Let a message wait to leave."""
        self.under_way += cost

    def release(self, cost: int) -> None:
        """Take back a message that waited to leave."""
        self.under_way -= cost

    def number(self, cost: int) -> int:
        """Let a message leave that waited, and return its number."""
        if self.last & _POSITION == _POSITION:
            self._begin_flow()
        self.last += 1
        self._sent.append((self.last, cost))
        return self.last

    def accept(self, through: int, window: int) -> int:
        """Take the other node's word; an older one than was heard before changes nothing.

        Returns:
            the bytes that are not under way any more.
        """
        if not self.through <= through <= self.last:
            return 0
        self.through, self.window = through, window
        freed = 0
        while self._sent and self._sent[0][0] <= through:
            freed += self._sent.popleft()[1]
        self.under_way -= freed
        return freed

    def forget(self) -> int:
        """Let nothing that has left count, as when the other node was restarted: a new flow begins.

        Returns:
            the bytes that are not under way any more.
        """
        freed = sum(cost for _, cost in self._sent)
        self._sent.clear()
        self.under_way -= freed
        self.window = WINDOW_BYTES
        self._begin_flow()
        return freed

    @property
    def is_unaccepted(self) -> bool:
        """Whether something has left that was not accepted yet."""
        return bool(self._sent)

    def _begin_flow(self) -> None:
        self.last = self.through = self._begin() << FLOW_BITS


@final
@define(eq=False)
class Granting:
    """The receiver's side of one flow: what one agent here is sent by one other node.

    Attributes:
        highest: the number that came last, or that the sender said has left; 0 before anything has.
        held: what waits for room in the agent's mailbox: bytes by number, the oldest first.
        held_bytes: their sum.
        uncredited: bytes that were accepted since the sender was last told.
        is_awaited: whether the sender waits for credit, and has not been told yet that it may send a good part more.
    """

    highest: int = 0
    held: dict[int, int] = field(factory=dict[int, int])
    held_bytes: int = 0
    uncredited: int = 0
    is_awaited: bool = False
    _is_asked: bool = False
    """Whether the sender is to be told how it stands in any case."""

    def arrive(self, number: int) -> int | None:
        """Take note that a message has come.

        Returns:
            how many messages before it are known to be missing; None for one that is late.
        """
        if number <= self.highest:
            return None
        missing = self._missing_before(number)
        self.highest = number
        return missing

    def may_hold(self, cost: int) -> bool:
        """Tell whether a message may wait for room; a sender that keeps to what it was granted never hears a no."""
        return self.held_bytes + cost <= WINDOW_BYTES or not self.held

    def hold(self, number: int, cost: int) -> None:
        """Let a message that has arrived wait for room in the mailbox."""
        self.held[number] = cost
        self.held_bytes += cost

    def let_go(self, number: int) -> None:
        """Let a message wait no more: it has found room, or is not wanted any more."""
        cost = self.held.pop(number)
        self.held_bytes -= cost
        self.uncredited += cost

    def dispose(self, cost: int) -> None:
        """Count a message that did not have to wait: handed over, denied or dropped."""
        self.uncredited += cost

    def asked(self, sent: int) -> int:
        """Hear that the sender waits, and has sent what is numbered up to `sent`: what has not come is lost.

        Returns:
            how many messages that is.
        """
        missing = self._missing_before(sent + 1)
        self.highest = max(self.highest, sent)
        self.is_awaited = self._is_asked = True
        return missing

    @property
    def is_due(self) -> bool:
        """Whether the sender is to be told how it stands: it asked, or half a window was accepted, or is free again."""
        return self._is_asked or self.uncredited >= _HALF or (self.is_awaited and self.held_bytes <= _HALF)

    @property
    def through(self) -> int:
        """The number through which everything is accepted."""
        return next(iter(self.held)) - 1 if self.held else self.highest

    def tell(self) -> int:
        """Return what the sender is told now: through which number everything is accepted."""
        self.uncredited = 0
        self._is_asked = False
        self.is_awaited = self.is_awaited and self.held_bytes > _HALF
        return self.through

    def _missing_before(self, number: int) -> int:
        """Return how many numbers of its flow lie between the highest and this one; none where nothing is known."""
        if not self.highest or number <= self.highest:
            return 0
        return min(number - max(self.highest, number - 1 & ~_POSITION) - 1, MOST_MISSING)
