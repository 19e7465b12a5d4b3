"""The one task that keeps time for all agents of a node: timers, the limit of asks, rest for the idle, trouble."""

import heapq
import itertools
from typing import TYPE_CHECKING, Final, final

import attrs
import outcome
import trio

from autonomy_trio.actors.delivery import Delivery
from autonomy_trio.logs import get_log

if TYPE_CHECKING:
    from autonomy_trio.actors.belongings import Timer
    from autonomy_trio.actors.crew import Crew
    from autonomy_trio.actors.runtime import Runtime

SWEEP_SECONDS: Final = 1.0
"""How often it looks for agents that are idle or in trouble."""
SWEEP_CHUNK: Final = 500
"""Agents it looks at between two checkpoints."""
LONG: Final = 10.0
"""Seconds in one handler, or with a full mailbox, after which an agent is in trouble."""
MANY_CHILDREN: Final = 10_000
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
    asks: dict[Delivery, float] = attrs.field(factory=dict[Delivery, float])
    """Asks without a deadline of their own, oldest first, and when their limit passes."""
    troubled: dict[str, str] = attrs.field(factory=dict[str, str])
    """Agents in trouble, and a word on it."""
    _timers: "list[tuple[float, int, Timer]]" = attrs.field(factory=list["tuple[float, int, Timer]"])
    _numbers: "itertools.count[int]" = attrs.field(factory=itertools.count)
    _ended: int = 0
    _next: float = float("inf")
    """When the task wakes by itself."""
    _sweep: float = float("inf")
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def add_ask(self, delivery: Delivery) -> None:
        """End an ask when the node's limit passes."""
        limit = trio.current_time() + self.runtime.ask_limit
        delivery.deadline = limit
        self.asks[delivery] = limit
        self._wake_by(limit)

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
                self._sweep = trio.current_time() + SWEEP_SECONDS if self.runtime.awake else float("inf")
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
            delivery, limit = next(iter(self.asks.items()))
            if limit > now:
                return
            del self.asks[delivery]
            delivery.settle(outcome.Error(trio.TooSlowError()))
            delivery.cancel()

    async def _look(self, now: float) -> None:
        """Send idle agents to rest, and note those in trouble."""
        troubled: dict[str, str] = {}
        for number, crew in enumerate(list(self.runtime.awake), 1):
            self._look_at(crew, now, troubled)
            if not number % SWEEP_CHUNK:
                await trio.lowlevel.checkpoint()
        for name, word in troubled.items():
            if name not in self.troubled:
                _log.warning("agent in trouble", agent=name, why=word)
        self.troubled = troubled

    def _look_at(self, crew: "Crew", now: float, troubled: dict[str, str]) -> None:
        cell = crew.cell
        if cell is None:
            return
        if crew.handled != crew.seen:
            crew.seen, crew.since = crew.handled, now
        still = now - crew.since
        if crew.can_rest and cell.state == "running":
            if still >= cell.spec.idle_after:
                cell.rest()
        elif len(troubled) < MOST_TROUBLED:
            word = self._word(crew, still)
            if word:
                troubled[cell.name] = word

    def _word(self, crew: "Crew", still: float) -> str:
        cell = crew.cell
        assert cell is not None  # noqa: S101 - it is awake
        children = len(cell.relations.children) if cell.has_children else 0
        if children >= MANY_CHILDREN:
            return f"it has {children:,} children"
        if not crew.idle and still >= LONG:
            return f"in one handler for {still:.0f} s"
        if crew.queued() >= crew.capacity:
            return f"its mailbox is full ({crew.capacity} messages)"
        return ""
