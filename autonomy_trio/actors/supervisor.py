"""Supervisors at work: they carry out what `decide` says, one end of a child after the other."""

import random
from collections import deque
from typing import TYPE_CHECKING, Any, final

import attrs
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.supervision import Begin, History, Supervise, decide

if TYPE_CHECKING:
    from autonomy_trio.actors.runtime import Runtime
    from autonomy_trio.actors.spec import Restart

_random = random.SystemRandom()


@final
@attrs.define(eq=False, repr=False)
class Supervisor:
    """One node of the tree: its children are agents and supervisors."""

    runtime: "Runtime"
    supervise: Supervise
    parent: "Supervisor | Cell | None" = None
    children: "list[Cell | Supervisor]" = attrs.field(factory=list[Any])
    _history: History = attrs.field(factory=History)
    _ended: "deque[Cell | Supervisor]" = attrs.field(factory=deque[Any])
    _paused: dict[Cell, None] = attrs.field(factory=dict[Cell, None])
    """Agents that are to be started and have not been yet."""
    _done: trio.Event | None = None
    """While it is at work: set when it has done everything."""

    def begin(self) -> None:
        """Start what was spawned just now, one after the other, in order."""
        for cell in self.leaves():
            if cell.spec.on_start or self._paused:  # one without it waits too, for those before
                cell.hold()
                self._paused[cell] = None
        if self._paused:
            self._set_to_work()

    def ended(self, child: "Cell | Supervisor") -> None:
        """Take note that a child has failed, or ended by its own wish; a task decides what follows."""
        self._ended.append(child)
        self._set_to_work()

    def leaves(self) -> list[Cell]:
        """Return the agents below, in the order in which they start."""
        return _leaves(self.children)

    async def wait_done(self) -> None:
        """Return when nothing is left to be decided and started."""
        while self._done is not None:
            await self._done.wait()

    def _set_to_work(self) -> None:
        if self._done is None:
            self._done = trio.Event()
            self.runtime.start_soon(self._work, self._done)

    async def _work(self, done: trio.Event) -> None:
        try:
            while self._ended or self._paused:
                child = self._ended.popleft() if self._ended else None
                if child in self.children and not (isinstance(child, Cell) and child.state != "halted"):
                    await self._decide(child)
                else:
                    await self._resume([])
        finally:
            self._done = None
            done.set()

    async def _decide(self, child: "Cell | Supervisor") -> None:
        failed = not isinstance(child, Cell) or child.failed_last
        restarts: list[Restart] = [
            each.spec.restart if isinstance(each, Cell) else "permanent" for each in self.children
        ]
        verdict, self._history = decide(
            self.supervise,
            restarts,
            self.children.index(child),
            failed=failed,
            history=self._history,
            now=trio.current_time(),
            chance=_random.uniform(0.5, 1.0),
        )
        if isinstance(verdict, Begin):
            stop = _leaves([self.children[each] for each in verdict.stop])
            await self._restart(_leaves([self.children[each] for each in verdict.restart]), stop, verdict.pause)
        elif verdict == "forget":
            assert isinstance(child, Cell)  # noqa: S101 - a supervisor is permanent
            self.runtime.errors.error("agent stopped for good", agent=child.name, restarts=child.relations.restarts)
            child.stop(self.runtime.grace, "failed" if failed else "stopped")
            await self._restart([], [], 0)
        else:
            self._give_up()

    async def _restart(self, restart: list[Cell], stop: list[Cell], pause: float) -> None:
        """End instances, the last first, and begin new ones, the first first."""
        affected = {*restart, *stop, *self._paused}
        order = [leaf for leaf in self.leaves() if leaf in affected]
        for cell in reversed(order):
            if cell in stop:
                cell.stop(self.runtime.grace, "failed")
                await cell.wait_stopped()
            elif cell.state not in ("stopping", "stopped"):
                self._paused[cell] = None
                await cell.pause().reached.wait()
        if pause:
            with trio.move_on_after(pause):
                for cell in list(self._paused):
                    await cell.wait_stopped()
        await self._resume(order)

    async def _resume(self, affected: list[Cell]) -> None:
        """Start what is to be started, the first first, until one of these or of those affected has failed."""
        order = [leaf for leaf in self.leaves() if leaf in self._paused]
        concerned = {*order, *affected}
        for cell in order:
            if not concerned.isdisjoint(_leaves(list(self._ended))):
                return  # first what follows from that
            self._paused.pop(cell, None)
            if cell.state == "halted":
                await cell.resume().wait()
                await self._wait_below(cell)
        self._paused.clear()

    async def _wait_below(self, cell: Cell) -> None:
        """Return when the supervisors between this one and an agent, which may have failed, have decided."""
        below = cell.parent
        while isinstance(below, Supervisor) and below is not self:
            await below.wait_done()
            below = below.parent

    def _give_up(self) -> None:
        self._history = History()
        self._ended.clear()
        self._paused.clear()
        names = [leaf.name for leaf in self.leaves()]
        if isinstance(self.parent, Supervisor):
            self.parent.ended(self)
            return
        self.runtime.errors.error("agent stopped for good: it failed too often", agents=names)
        for leaf in reversed(self.leaves()):
            leaf.stop(0, "gave up")
        if isinstance(self.parent, Cell) and self.parent.state in ("resting", "running"):
            self.parent.failed(RuntimeError(f"its child {', '.join(names)} failed too often"), None)


def _leaves(children: "list[Cell | Supervisor]") -> list[Cell]:
    return [leaf for child in children for leaf in ([child] if isinstance(child, Cell) else child.leaves())]
