"""The one task that begins agents that have an ``on_start``: few at a time, so that a flood of them slows no other."""

from collections import deque
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell

STARTED_PER_CHECKPOINT: Final = 8
"""Agents that begin between two checkpoints."""


@final
@attrs.define(eq=False, repr=False)
class Starter:
    """Agents with an ``on_start`` that were spawned and have not begun, in their order."""

    _waiting: "deque[Cell]" = attrs.field(factory=deque["Cell"])
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _done: trio.Event = attrs.field(factory=trio.Event)

    def add(self, cell: "Cell") -> None:
        """Begin an agent soon; a message to it begins it at once."""
        self._waiting.append(cell)
        self._changed.set()

    async def wait_done(self) -> None:
        """Return when all have begun."""
        while self._waiting:
            self._done = trio.Event()
            await self._done.wait()

    async def run(self) -> None:
        """Be the task, until cancelled."""
        while True:
            if not self._waiting:
                self._done.set()
                self._changed = trio.Event()
                await self._changed.wait()
            for _ in range(min(STARTED_PER_CHECKPOINT, len(self._waiting))):
                cell = self._waiting.popleft()
                if cell.state == "resting" and not cell.started:
                    cell.wake()
            await trio.lowlevel.checkpoint()
