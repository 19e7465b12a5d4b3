"""Watches: who is told that an agent has ended for good, and that just once."""

from typing import TYPE_CHECKING, Any, cast, final

import attrs

from autonomy_trio.actors.delivery import Signal
from autonomy_trio.actors.local import LocalRef
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.actors.refs import AgentRef, Down, OutsideRef
from autonomy_trio.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.relations import End


def watch(watcher: "Cell", ref: AgentRef[Any]) -> None:
    """Send an agent a `Down` when another one ends.

    Raises:
        UsageError: the ref is of another node of this process.
        Overloaded: the agent has too many watches.
    """
    if isinstance(ref, OutsideRef):
        _watch_outside(watcher, ref)
        return
    if not isinstance(ref, LocalRef) or ref.runtime is not watcher.runtime:
        msg = f"{watcher.name} watches {ref.name} by the ref of another node: make one with context.ref(address)"
        raise UsageError(msg)
    belongings = watcher.own()
    belongings.check_watch()
    found = ref.find_any()
    cell = found.living() if isinstance(found, PoolCell) else found
    if cell is None:
        _send(watcher, Down(ref, "unknown agent"))
        return
    belongings.watching[cell] = cell.relations.watchers[watcher] = ref


def _watch_outside(watcher: "Cell", ref: OutsideRef[Any]) -> None:
    belongings = watcher.own()
    outside = belongings.outside
    if ref in outside:
        return
    belongings.check_watch()

    def told(reason: str) -> None:
        # Once the instance has gone that watched, nobody wants to know.
        if outside.pop(ref, None) is not None:
            _send(watcher, Down(ref, cast("Any", reason)))

    outside[ref] = ref.watch(told)


def unwatch(watcher: "Cell", ref: AgentRef[Any]) -> None:
    """End the watch of an agent by its ref, and withdraw what is under way."""
    crew = watcher.crew
    if crew is None or crew.belongings is None:
        return
    if isinstance(ref, OutsideRef) and (end := crew.belongings.outside.pop(ref, None)) is not None:
        end()
    for cell, watched in list(crew.belongings.watching.items()):
        if watched == ref:
            forget(watcher, cell)
    if crew.aside is not None:
        for signal in crew.aside.urgent:
            if isinstance(signal, Signal) and isinstance(signal.message, Down) and signal.message.ref == ref:
                signal.cancelled = True


def forget(watcher: "Cell", cell: "Cell") -> None:
    """End the watch of an agent."""
    if watcher.crew is not None and watcher.crew.belongings is not None:
        watcher.crew.belongings.watching.pop(cell, None)
    cell.relations.watchers.pop(watcher, None)


def tell(watcher: "Cell", cell: "Cell", down: Down) -> None:
    """Tell a watcher that an agent has ended; of a pool it watches on while any of its agents lives."""
    crew = watcher.crew
    watching = crew.belongings.watching if crew is not None and crew.belongings is not None else None
    forget(watcher, cell)
    found = watcher.runtime.find(down.ref.name)
    if watching is not None and isinstance(found, PoolCell) and found.state != "stopped":
        living = found.living()
        watching[living] = living.relations.watchers[watcher] = down.ref
    else:
        _send(watcher, down)


@final
@attrs.define(eq=False)
class Outsider:
    """Somebody outside of this process who watches an agent, or a pool while any of its agents lives."""

    told: "Callable[[End], None]"
    """Called once with how it ended."""
    _found: "Cell | PoolCell"
    _cell: "Cell | None" = None

    def begin(self) -> None:
        """Watch, an agent that lives."""
        self._cell = self._found.living() if isinstance(self._found, PoolCell) else self._found
        self._cell.relations.outsiders[self] = None

    def end(self) -> None:
        """Watch no more."""
        if self._cell is not None:
            self._cell.relations.outsiders.pop(self, None)

    def tell(self, fate: "End") -> None:
        """Take note that the agent has ended."""
        if isinstance(self._found, PoolCell) and self._found.state != "stopped":
            self.begin()
        else:
            self.told(fate)


def _send(watcher: "Cell", down: Down) -> None:
    handler = watcher.spec.handler_of(Down)
    crew = watcher.crew
    if handler is None or crew is None or crew.belongings is None or watcher.state not in ("running", "halted"):
        return
    crew.belongings.downs += 1
    crew.put_urgent(Signal(down, handler, None, taken=crew.belongings.down_taken))
