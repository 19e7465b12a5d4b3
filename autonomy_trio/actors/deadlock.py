"""Waits that can never end: agents whose every worker waits, directly or not, for each other."""

from typing import TYPE_CHECKING

from autonomy_trio.errors import Deadlock

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.voices import Voice


def check_wait(waiter: "Voice", target: "Cell") -> None:
    """Refuse a wait of a worker for an agent that could never end.

    A wait can end if some worker of the agent it is for is free, or waits only for agents whose waits can end.

    Raises:
        Deadlock: it could not; the text names the agents in the order in which they wait.
    """
    waiter.waits.append(target)
    try:
        if _is_free(target):
            return
        reached = _reachable(target)
        able = {cell for cell in reached if _is_free(cell)}
        while more := [cell for cell in reached if cell not in able and _goes_on(cell, able)]:
            able.update(more)
    finally:
        waiter.waits.remove(target)
    if target not in able:
        names = " → ".join([waiter.cell.name, *_cycle(target, waiter.cell)])
        msg = f"waiting would never end: each waits for the next, {names}"
        raise Deadlock(msg)


def _is_free(cell: "Cell") -> bool:
    return cell.crew is None or any(not each.waits for each in cell.crew.workers)


def _goes_on(cell: "Cell", able: "set[Cell]") -> bool:
    return cell.crew is None or any(all(wait in able for wait in each.waits) for each in cell.crew.workers)


def _waits(cell: "Cell") -> "list[Cell]":
    return [] if cell.crew is None else [wait for each in cell.crew.workers for wait in each.waits]


def _reachable(start: "Cell") -> "list[Cell]":
    found = {start: None}
    pending = [start]
    while pending:
        for cell in _waits(pending.pop()):
            if cell not in found:
                found[cell] = None
                pending.append(cell)
    return list(found)


def _cycle(start: "Cell", end: "Cell") -> list[str]:
    """Return the names on a way along the waits from one agent to another; just the first where there is none."""
    before: dict[Cell, Cell | None] = {start: None}
    pending = [start]
    while pending:
        cell: Cell | None = pending.pop(0)
        if cell is end:
            names: list[str] = []
            while cell is not None:
                names.insert(0, cell.name)
                cell = before[cell]
            return names
        assert cell is not None  # noqa: S101 - what is pending
        for follower in _waits(cell):
            if follower not in before:
                before[follower] = cell
                pending.append(follower)
    return [start.name]
