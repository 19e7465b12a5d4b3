"""The one task that keeps time for all agents of a node: timers, the limit of asks, rest for the idle, trouble."""

import heapq
import itertools
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from autonomy_trio.actors.delivery import PendingReply
from autonomy_trio.logs import get_log

if TYPE_CHECKING:
    from autonomy_trio.actors.belongings import Timer
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.crew import Crew
    from autonomy_trio.actors.runtime import Runtime

SWEEP_SECONDS: Final = 1.0
"""How often it looks for agents that are idle or in trouble."""
SWEEP_CHUNK: Final = 500
"""Agents it looks at between two checkpoints."""
LONG: Final = 10.0
"""Seconds in one handler after which an agent is in trouble."""
LATELY: Final = 60.0
"""Seconds in which a failure counts with the one before, and in which trouble that comes back is not logged again."""
AGAIN: Final = 3
"""Failures, one soon after the other, from which on an agent is in trouble."""
MANY_CHILDREN: Final = 10_000
"""Children from which on an agent is in trouble."""
MOST_FAILING: Final = 1_000
"""Agents whose failures are counted, those that failed last."""
MOST_TROUBLED: Final = 100
"""Agents in trouble that statistics name."""
_MOST_ENDED: Final = 1000
"""Timers that have ended and still lie in the heap, before it is cleaned up."""

_log = get_log()


@final
@attrs.define(eq=False, repr=False)
class Keeper:
    """What falls due, and the task that sees to it."""

    runtime: "Runtime"
    asks: dict[PendingReply, float] = attrs.field(factory=dict[PendingReply, float])
    """Asks that wait, oldest first, and when the limit passes that holds for those without a deadline of their own."""
    troubled: dict[str, str] = attrs.field(factory=dict[str, str])
    """Agents in trouble, and a word on it."""
    _failing: dict[str, tuple[int, float]] = attrs.field(factory=dict[str, tuple[int, float]])
    """How often agents have failed lately, and when last; the one that did so longest ago comes first."""
    _crowds: "dict[Cell, None]" = attrs.field(factory=dict[Any, None])
    """Agents that had very many children when they were looked at last."""
    _told: dict[str, float] = attrs.field(factory=dict[str, float])
    """Agents whose trouble was logged, and when they were in it last."""
    _timers: "list[tuple[float, int, Timer]]" = attrs.field(factory=list["tuple[float, int, Timer]"])
    _numbers: "itertools.count[int]" = attrs.field(factory=itertools.count)
    _ended: int = 0
    _next: float = float("inf")
    """When the task wakes by itself."""
    _sweep: float = float("inf")
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _clock: trio.abc.Clock = attrs.field(factory=trio.lowlevel.current_clock)

    def add_ask(self, reply: PendingReply) -> float:
        """Tell an asker when the node's limit passes, which is returned: seconds on trio's clock."""
        limit = self.asks[reply] = self._clock.current_time() + self.runtime.ask_limit
        if limit < self._next:
            self._wake_by(limit)
        return limit

    def add_timer(self, timer: "Timer") -> None:
        """Ring a timer when it is due."""
        heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
        self._wake_by(timer.when)

    def timer_ended(self) -> None:
        """Clean up, once many timers have been cancelled before they were due."""
        self._ended += 1
        if self._ended > _MOST_ENDED and self._ended * 2 > len(self._timers):
            self._timers = [each for each in self._timers if each[2].active]
            heapq.heapify(self._timers)
            self._ended = 0

    def watch_awake(self) -> None:
        """Look after awake agents."""
        if self._sweep == float("inf"):
            self._sweep = trio.current_time() + SWEEP_SECONDS
            self._wake_by(self._sweep)

    def note_failure(self, name: str) -> None:
        """Count the failure of an agent, which may have ended by it."""
        now = trio.current_time()
        count, last = self._failing.pop(name, (0, now))
        self._failing[name] = (count + 1 if now - last <= LATELY else 1), now
        if len(self._failing) > MOST_FAILING:
            del self._failing[next(iter(self._failing))]

    def note_child(self, cell: "Cell") -> None:
        """Look at an agent that has got one child more."""
        if len(cell.relations.children) == MANY_CHILDREN:
            self._crowds[cell] = None
            self.watch_awake()

    async def run(self) -> None:
        """Be the task, until cancelled."""
        while True:
            self._changed = trio.Event()
            with trio.move_on_at(self._next):
                await self._changed.wait()
            now = trio.current_time()
            self._ring(now)
            self._limit(now)
            if self._sweep <= now:
                await self._look(now)
                more = self.runtime.awake or self._failing or self._crowds or self._told
                self._sweep = trio.current_time() + SWEEP_SECONDS if more else float("inf")
            timer = self._timers[0][0] if self._timers else float("inf")
            ask = next(iter(self.asks.values())) if self.asks else float("inf")
            self._next = min(timer, ask, self._sweep)

    def _wake_by(self, when: float) -> None:
        if when < self._next:
            self._next = when
            self._changed.set()

    def _ring(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, __, timer = heapq.heappop(self._timers)
            if timer.active:
                if timer.ring(now):
                    heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
            else:
                self._ended -= 1

    def _limit(self, now: float) -> None:
        while self.asks:
            reply, limit = next(iter(self.asks.items()))
            if limit > now:
                return
            del self.asks[reply]
            reply.limit_passed()

    async def _look(self, now: float) -> None:
        """Send idle agents to rest, and name those in trouble."""
        troubled: dict[str, str] = {}
        for name, (count, last) in list(self._failing.items()):
            if now - last > LATELY:
                del self._failing[name]
            elif count >= AGAIN:
                _add(troubled, name, f"it has failed {count:,} times, each soon after the last")
        for cell in list(self._crowds):
            children = len(cell.relations.children)
            if cell.state == "stopped" or children < MANY_CHILDREN:
                del self._crowds[cell]
            else:
                _add(troubled, cell.name, f"it has {children:,} children")
        for number, crew in enumerate(list(self.runtime.awake), 1):
            self._look_at(crew, now, troubled)
            if not number % SWEEP_CHUNK:
                await trio.lowlevel.checkpoint()
        self._tell(troubled, now)
        self.troubled = troubled

    def _tell(self, troubled: dict[str, str], now: float) -> None:
        """Log those who were in no trouble lately."""
        for name, word in troubled.items():
            if name not in self._told:
                _log.warning("agent in trouble", agent=name, why=word)
            self._told[name] = now
        for name, last in list(self._told.items()):
            if now - last > LATELY:
                del self._told[name]

    def _look_at(self, crew: "Crew", now: float, troubled: dict[str, str]) -> None:
        cell = crew.cell
        if cell is None:
            return
        seen = 2 * crew.handled + crew.idle
        if crew.seen != seen:
            crew.seen, crew.since = seen, now
        still = now - crew.since
        if crew.can_rest and cell.state == "running":
            if still >= cell.spec.idle_after:
                cell.rest()
        elif still >= LONG and not crew.idle and not cell.paused and not cell.spec.patient:
            _add(troubled, cell.name, f"in one handler or hook for {still:.0f} s")
            return
        crew.full = crew.full + 1 if crew.queued() >= crew.capacity else 0
        # Senders that wait for room are how it should be, unless they do so for long.
        if crew.overflowed or crew.full * SWEEP_SECONDS >= LONG:
            crew.overflowed = False
            _add(troubled, cell.name, f"its mailbox is full ({crew.capacity} messages)")


def _add(troubled: dict[str, str], name: str, word: str) -> None:
    if len(troubled) < MOST_TROUBLED:
        troubled.setdefault(name, word)
