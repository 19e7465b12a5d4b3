"""The instances of an agent, one after the other: how one begins, how one ends, and what comes between two.

All of it runs in the lead worker of the agent's crew, so no message is handled meanwhile.
"""

import inspect
from typing import TYPE_CHECKING, Final

import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.groups import fence

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.crew import Crew

_STOPPED_PER_CHECKPOINT: Final = 100
"""Children that are told to stop between two checkpoints."""


async def begin(cell: "Cell") -> None:
    """Start the instance, in the lead."""
    if cell.spec.on_start:
        await _complete(cell.instance.on_start(Context(cell)))
    cell.started = True
    cell.set_over()


async def change(cell: "Cell", crew: "Crew") -> None:
    """Do in the lead what follows the end of an instance: nothing of it may be left, then go on or end."""
    await crew.wait_alone()
    await _conclude(cell, crew)
    fresh = False
    if cell.state == "halted":
        halt = cell.relations.halt
        assert halt is not None  # noqa: S101 - it is halted
        fresh = halt.fresh
        halt.reached.set()
        cell.runtime.quieted(crew)
        await halt.resume.wait()
    if cell.state == "running":
        try:
            if not fresh:
                cell.instance = cell.breed.factory()
        except Exception as error:  # noqa: BLE001 - fence: the constructor of an agent, which counts as its failure
            cell.failed(error, None)
    else:
        cell.end()
    crew.announce()


async def _conclude(cell: "Cell", crew: "Crew") -> None:
    """Stop the children, run ``on_stop``, end what belongs to the instance: within the node's grace."""

    def failed(error: Exception) -> None:
        cell.runtime.errors.error("on_stop failed", agent=cell.name, exc_info=error)
        cell.runtime.on_failure(cell.name, None, error)

    with trio.move_on_at(cell.runtime.patience()) as scope:
        await _stop_children(cell)
        if crew.belongings is not None:
            await crew.belongings.clear()
        if cell.started and cell.spec.on_stop:
            # Fence: a hook of an instance that is ending anyway.
            with fence(failed):
                await _complete(cell.instance.on_stop(Context(cell)))
    if scope.cancelled_caught:
        cell.runtime.errors.error("on_stop was cut off", agent=cell.name, after=cell.runtime.grace)
        await _tell_children(cell, 0, wait=False)
    if crew.belongings is not None:
        crew.belongings.cancel()
    cell.started = False
    crew.belongings = None


async def _stop_children(cell: "Cell") -> None:
    while cell.has_children:
        children = list(cell.relations.children)
        await _tell_children(cell, cell.runtime.grace, wait=True)
        for child in children:
            await child.wait_stopped()


async def _tell_children(cell: "Cell", patience: float, *, wait: bool) -> None:
    """Stop the children, the last first; with `wait`, one that has something to do at its end before the next."""
    for number, child in enumerate(reversed(list(cell.relations.children)), 1):
        child.stop(patience)
        if wait and (child.spec.on_stop or child.has_children):
            await child.wait_stopped()
        if not number % _STOPPED_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint()


async def _complete(result: object) -> None:
    """Await what a hook returned if it is ``async def``."""
    if inspect.iscoroutine(result):
        await result
