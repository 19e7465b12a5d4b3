"""What a handler or hook learns about the call it is in."""

from typing import TYPE_CHECKING, Any, final

import attrs

from autonomy_trio.actors.delivery import Sender
from autonomy_trio.logs import get_log

if TYPE_CHECKING:
    from autonomy_trio.actors.refs import AgentRef


@final
@attrs.frozen(eq=False)
class Context:
    """The third parameter of a handler, and the parameter of ``on_start`` and ``on_stop``; of use while they run."""

    self: "AgentRef[Any]" = attrs.field(alias="itself")
    """The agent's own ref, to hand to others."""
    sender: Sender
    """Who sent the message; in hooks, the node."""
    deadline: float
    """Until when an answer is wanted, on trio's clock; infinite for a `tell` and in hooks."""

    @property
    def log(self) -> Any:  # noqa: ANN401 - structlog's loggers are duck-typed
        """A structured logger that names this agent."""
        return get_log(agent=self.self.name)
