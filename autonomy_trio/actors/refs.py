"""How code reaches an agent: `AgentRef`, the same whether the agent is here or on another node."""

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, final

import attrs
import trio

if TYPE_CHECKING:
    from autonomy_trio.messages import Request

A_co = TypeVar("A_co", covariant=True)
R = TypeVar("R")


class Route(Protocol):
    """The way from a ref to its agent: the runtime's ends in this process, the fabric's leave it."""

    @property
    def name(self) -> str:
        """The agent's name on its node."""
        ...

    @property
    def address(self) -> str:
        """Where the agent is reached from other nodes."""
        ...

    @property
    def ask_limit(self) -> float:
        """Seconds an ask without a deadline of its own may take."""
        ...

    async def tell(self, message: object) -> None:
        """Send a message."""
        ...

    def tell_nowait(self, message: object) -> None:
        """Send a message without waiting."""
        ...

    async def ask(self, message: object, deadline: float) -> Any:  # noqa: ANN401 - the reply's type is the request's
        """Send a request and return its reply; `deadline` is on trio's clock."""
        ...


@final
@attrs.frozen(repr=False)
class AgentRef(Generic[A_co]):
    """A handle to an agent, made by `spawn` and `ref`; it stays valid when the agent is restarted.

    The type parameter is the agent's class. Two refs are equal if they reach the same agent in the same way.
    """

    _route: Route

    @property
    def name(self) -> str:
        """The agent's name on its node."""
        return self._route.name

    @property
    def address(self) -> str:
        """The agent's address, for other nodes: ``I<node>/<agent>``, with its relay in front where there is one."""
        return self._route.address

    async def tell(self, message: object) -> None:
        """Put a message into the agent's mailbox, and wait while that is full.

        In this process it is lossless while both ends live; what nobody takes is a dead letter. To another node it is
        sent at most once, in order; whether it was denied or lost is not told, but counted. At least each 64th call is
        a checkpoint.

        Raises:
            MessageError: the message has no encoding, or is too large (to another node only).
            NotDelivered: this node is stopping.

        On cancellation the message is not sent.
        """
        await self._route.tell(message)

    def tell_nowait(self, message: object) -> None:
        """Do what `tell` does without waiting.

        Raises:
            MailboxFull: the mailbox, or the queue to its node, is full.
            MessageError, NotDelivered: as `tell`.
        """
        self._route.tell_nowait(message)

    async def ask(self, message: "Request[R]") -> R:
        """Send a request and wait for its reply.

        The deadline is trio's: put it into ``trio.fail_after``. The handler gets the time that remains, across the wire
        too; without a deadline the node's ``ask_limit`` applies.

        Raises:
            NotHandled: the agent does not handle this message, or the message does not fit it.
            Denied: the agent's policy does not let this sender do it.
            Overloaded: there was no room for it.
            NotDelivered: there is no such agent, or it is stopping, or its node was not reached.
            HandlerFailed: the handler raised.
            OutcomeUnknown: the agent or the connection was lost after the request was sent.
            MessageError: the message has no encoding, is too large, or the reply does not fit the request.
            trio.TooSlowError: the deadline or the limit passed.

        On cancellation a queued request is withdrawn and a running handler cancelled, across the wire too.
        """
        deadline = trio.current_effective_deadline()
        if deadline != float("inf"):
            return cast("R", await self._route.ask(message, deadline))
        limit = trio.current_time() + self._route.ask_limit
        with trio.fail_at(limit):
            return cast("R", await self._route.ask(message, limit))

    def __repr__(self) -> str:
        return f"<AgentRef {self._route.address}>"
