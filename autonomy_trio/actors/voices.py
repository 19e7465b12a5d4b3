"""Whose code is running: what it sends and waits for is that agent's."""

import contextvars
from typing import TYPE_CHECKING, Final, final

import attrs

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell

speaker: Final[contextvars.ContextVar["Voice | Cell | None"]] = contextvars.ContextVar("speaker", default=None)
"""Whose code is running: a worker's, the agent of a background task or of a handler in an asker's task, or neither."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Voice:
    """A worker while it serves one agent: what a handler leaves running never speaks for the crew's next agent."""

    cell: "Cell"
    """The agent whose handlers run."""
    waits: "list[Cell]" = attrs.field(factory=list["Cell"])
    """The agents whose answer, or room, the running handler waits for."""
