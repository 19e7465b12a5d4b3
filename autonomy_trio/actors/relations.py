"""What ties an agent to others, and what only few agents have: a cell has it once it is needed."""

from typing import TYPE_CHECKING, Any, Literal, final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.refs import AgentRef
    from autonomy_trio.actors.watches import Outsider

End = Literal["stopped", "failed", "gave up"]


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Halt:
    """A pause between two instances, and how far it is."""

    normal: bool
    """Whether the agent ended by its own wish."""
    fresh: bool = False
    """Whether the instance has not begun yet and is the one that goes on."""
    reached: trio.Event = attrs.field(factory=trio.Event)
    """Nothing of the old instance is left."""
    resume: trio.Event = attrs.field(factory=trio.Event)
    """The supervisor has decided: by now the cell is ``running`` again, or ``stopping``."""
    over: trio.Event = attrs.field(factory=trio.Event)
    """The new instance has started, or failed to, or there is none."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Relations:
    """What few agents have, or have for long."""

    restarts: int = 0
    failures: int = 0
    children: "dict[Cell, None]" = attrs.field(factory=dict[Any, None])
    watchers: "dict[Cell, AgentRef[Any]]" = attrs.field(factory=dict[Any, Any])
    outsiders: "dict[Outsider, None]" = attrs.field(factory=dict[Any, None])
    topics: "dict[str, Callable[[], None] | None]" = attrs.field(factory=dict[str, Any])
    """The topics it subscribes to, with what ends that for one of another node."""
    ended: trio.Event = attrs.field(factory=trio.Event)
    halt: Halt | None = None
    fate: End = "stopped"
    """How it ends, if it does."""
