"""Flow control with one other node: who waits here for room over there, and what waits here for room in a mailbox.

The arithmetic is `wire.credit`; this is the table of flows, one for each agent, and the tasks that wait.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Final, TypeVar, final

import attrs
import outcome
import trio

from autonomy_trio.wire.constants import PEER_WINDOW_BYTES, WINDOW_BYTES
from autonomy_trio.wire.credit import Granting, Spending, message_cost
from autonomy_trio.wire.entries import Accepted, Blocked, Message

F = TypeVar("F")

MOST_FLOWS: Final = 1024
"""Flows in one direction that are remembered with nothing under way."""

MOST_WORDS: Final = 64
"""Words about credit that leave at once."""

MOST_HELD: Final = 128 * 1024 * 1024
"""Bytes of messages from all other nodes that wait for room in the mailboxes here."""


@attrs.frozen(eq=False)
class _Waiter:
    cost: int
    post: Callable[[], None]
    task: trio.lowlevel.Task


@final
@attrs.define(eq=False)
class _Outgoing:
    spending: Spending
    waiters: deque[_Waiter] = attrs.field(factory=deque[_Waiter])

    @property
    def is_idle(self) -> bool:
        return not (self.waiters or self.spending.under_way)


@final
@attrs.define(eq=False)
class Outflows:
    """What is sent to the agents of one other node."""

    _begin: Callable[[], int]
    """Returns the number of a flow that begins."""
    _queue_has_room: Callable[[], bool]
    _wake: Callable[[], None]
    """Has the sending task look for words."""
    under_way: int = 0
    """Bytes of messages that wait to leave, or have left and are not accepted."""
    _flows: OrderedDict[str, _Outgoing] = attrs.field(factory=OrderedDict[str, _Outgoing])
    _waiting: dict[str, _Outgoing] = attrs.field(factory=dict[str, _Outgoing])
    """Those that somebody waits for."""
    _asked: dict[str, _Outgoing] = attrs.field(factory=dict[str, _Outgoing])
    """Those about which the other node is to be asked."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for credit."""
        return bool(self._waiting)

    @property
    def has_words(self) -> bool:
        """Whether the other node is to be asked for credit."""
        return bool(self._asked)

    def try_reserve(self, recipient: str, cost: int) -> bool:
        """Reserve room for a message; False where there is none, or others wait for it."""
        flow = self._flows.get(recipient) or self._flow(recipient)
        return not flow.waiters and self._take_room(flow, cost)

    async def wait(self, recipient: str, cost: int, post: Callable[[], None]) -> bool:
        """Wait for room, in the order of those who want it.

        Args:
            recipient: the agent's name.
            cost: what the message takes of the window.
            post: queues the message; called as soon as there is room, and never once this was cancelled.

        Returns:
            whether it was; not where the other node has gone.
        """
        flow, waiter = self._flow(recipient), _Waiter(cost, post, trio.lowlevel.current_task())
        flow.waiters.append(waiter)
        if recipient not in self._waiting:
            self._waiting[recipient] = self._asked[recipient] = flow
            self._wake()

        def abort(_: object) -> trio.lowlevel.Abort:
            flow.waiters.remove(waiter)
            self.let_go()
            return trio.lowlevel.Abort.SUCCEEDED

        return bool(await trio.lowlevel.wait_task_rescheduled(abort))

    def release(self, recipient: str, cost: int) -> None:
        """Give back the room of a message that does not leave."""
        self._flows[recipient].spending.release(cost)
        self.under_way -= cost
        self.let_go()

    def number(self, entry: Message) -> int:
        """Let a message leave that room was reserved for, and return its number."""
        return self._flows[entry.recipient].spending.number(message_cost(entry))

    def accept(self, entry: Accepted) -> None:
        """Take the other node's word on how far it is."""
        flow = self._flows.get(entry.recipient)
        if flow is not None:
            self.under_way -= flow.spending.accept(entry.through, entry.window)
            self.let_go()

    def ask_again(self) -> None:
        """Ask once more about the flows that somebody waits for, and about all where their sum is the limit."""
        self._asked.update(self._waiting)
        if any(not self._fits(flow.waiters[0].cost) for flow in self._waiting.values()):
            self._asked.update({name: flow for name, flow in self._flows.items() if flow.spending.is_unaccepted})
        self._wake()

    def words(self) -> list[Blocked]:
        """Take what is to be asked now."""
        return [Blocked(name, flow.spending.last) for name, flow in _taken(self._asked)]

    def drop_words(self) -> None:
        """Ask nothing now: the other node cannot be reached; it is asked again while somebody waits."""
        self._asked.clear()

    def forget(self) -> None:
        """Let nothing that has left count: whoever was to accept it has been restarted."""
        self._asked.clear()
        for flow in self._flows.values():
            self.under_way -= flow.spending.forget()
        self.let_go()

    def let_go(self) -> None:
        """Give room that there is to those that wait for it, and forget the flows that nobody waits for."""
        for recipient, flow in list(self._waiting.items()):
            while flow.waiters and self._take_room(flow, flow.waiters[0].cost):
                waiter = flow.waiters.popleft()
                waiter.post()
                trio.lowlevel.reschedule(waiter.task, outcome.Value(value=True))
            if not flow.waiters:
                del self._waiting[recipient]
                self._asked.pop(recipient, None)

    def end(self) -> None:
        """Let nobody wait any more: the other node has gone."""
        self._asked.clear()
        for flow in self._waiting.values():
            while flow.waiters:
                trio.lowlevel.reschedule(flow.waiters.popleft().task, outcome.Value(value=False))
        self._waiting.clear()

    def _flow(self, recipient: str) -> _Outgoing:
        flow = self._flows.get(recipient)
        if flow is None:
            if len(self._flows) >= MOST_FLOWS:
                _drop_oldest(self._flows, lambda each: each.is_idle)
            flow = self._flows[recipient] = _Outgoing(Spending(self._begin))
        return flow

    def _take_room(self, flow: _Outgoing, cost: int) -> bool:
        """Reserve room where there is any; False where there is none."""
        if flow.spending.has_room(cost) and self._fits(cost) and self._queue_has_room():
            self._reserve(flow, cost)
            return True
        return False

    def _reserve(self, flow: _Outgoing, cost: int) -> None:
        flow.spending.reserve(cost)
        self.under_way += cost

    def _fits(self, cost: int) -> bool:
        return not self.under_way or self.under_way + cost <= PEER_WINDOW_BYTES


@final
@attrs.define(eq=False)
class Inflows:
    """What one other node sends to agents here."""

    missing: int = 0
    """Messages that were lost on the way and are not counted yet."""
    _uncredited: int = 0
    """Bytes accepted that the other node was not told of, in the flows that are remembered."""
    _flows: OrderedDict[str, Granting] = attrs.field(factory=OrderedDict[str, Granting])
    _due: dict[str, Granting] = attrs.field(factory=dict[str, Granting])
    """Those about which the other node is to be told."""

    @property
    def has_words(self) -> bool:
        """Whether the other node is to be told how far it is."""
        return bool(self._due)

    def arrive(self, entry: Message, *, late: bool) -> Granting | None:
        """Take note that a message has come; None where it is late.

        Args:
            entry: the message.
            late: whether a later envelope came before it, which counts where nothing is remembered of its flow.
        """
        flow = self._flows.get(entry.recipient)
        if flow is None:
            if late or not entry.number:
                return None
            flow = self._add(entry.recipient)
        elif entry.number == flow.highest + 1:  # as nearly always
            flow.highest += 1
            return flow
        missing = flow.arrive(entry.number)
        if missing is None:
            return None
        self.missing += missing
        return flow

    def take_missing(self) -> int:
        """Return how many messages were lost since this was last called, as far as those after them show."""
        missing, self.missing = self.missing, 0
        return missing

    def let_go(self, flow: Granting, entry: Message, cost: int) -> None:
        """Let a message wait no more."""
        flow.let_go(entry.number)
        self._uncredited += cost
        self._tell_more(flow, entry.recipient)

    def dispose(self, flow: Granting, entry: Message, cost: int) -> None:
        """Count a message that did not have to wait."""
        flow.dispose(cost)
        self._uncredited += cost
        if flow.is_due or self._uncredited >= PEER_WINDOW_BYTES // 4:
            self._tell_more(flow, entry.recipient)

    def asked(self, entry: Blocked) -> None:
        """Take the word of a sender that waits."""
        flow = self._flows.get(entry.recipient)
        if flow is None:
            flow = self._add(entry.recipient)
        self.missing += flow.asked(entry.sent)
        self._tell_of(entry.recipient, flow)

    def words(self, window: int) -> list[Accepted]:
        """Take what is to be told now."""
        told: list[Accepted] = []
        for name, flow in _taken(self._due):
            if self._flows.get(name) is flow:
                self._uncredited -= flow.uncredited
            told.append(Accepted(name, flow.tell(), window))
        return told

    def drop_words(self) -> None:
        """Tell nothing now: the other node cannot be reached; it asks again while somebody waits there."""
        self._due.clear()

    def _add(self, recipient: str) -> Granting:
        if len(self._flows) >= MOST_FLOWS:
            dropped = _drop_oldest(self._flows, lambda each: not each.held)
            if dropped is not None and dropped[1].uncredited:
                self._uncredited -= dropped[1].uncredited
                self._tell_of(*dropped)
        flow = self._flows[recipient] = Granting()
        return flow

    def _tell_more(self, flow: Granting, recipient: str) -> None:
        """Tell of a flow that is due, and of all once much was accepted that nobody was told of."""
        if flow.is_due:
            self._tell_of(recipient, flow)
        elif self._uncredited >= PEER_WINDOW_BYTES // 4:
            for name, each in self._flows.items():
                if each.uncredited:
                    self._tell_of(name, each)

    def _tell_of(self, recipient: str, flow: Granting) -> None:
        if len(self._due) < MOST_FLOWS or recipient in self._due:  # else the sender asks again
            self._due[recipient] = flow


def window_for(held: int) -> int:
    """Return how much of one sender may be under way to one agent, given what waits in this node for mailboxes."""
    return WINDOW_BYTES if held <= MOST_HELD // 2 else WINDOW_BYTES // 16


def may_hold(of_one: int, of_all: int) -> bool:
    """Tell whether so many bytes of one node, and of all, may wait for room in mailboxes."""
    return of_one <= PEER_WINDOW_BYTES and of_all <= MOST_HELD


def _taken(flows: dict[str, F]) -> Iterator[tuple[str, F]]:
    for name in list(flows)[:MOST_WORDS]:
        yield name, flows.pop(name)


def _drop_oldest(flows: OrderedDict[str, F], may_go: Callable[[F], bool]) -> tuple[str, F] | None:
    """Forget the first of the oldest few that may go; the others count as new."""
    for _ in range(4):
        name, flow = next(iter(flows.items()))
        if may_go(flow):
            del flows[name]
            return name, flow
        flows.move_to_end(name)
    return None
