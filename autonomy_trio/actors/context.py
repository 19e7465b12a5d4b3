"""What a handler or hook learns about the call it is in, and what it can do for its agent."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Never, TypeVar, TypeVarTuple, final, overload

import attrs

from autonomy_trio.actors.delivery import OUTSIDE, Delivery, Sender
from autonomy_trio.actors.refs import AgentRef, Down
from autonomy_trio.actors.spec import Stashed
from autonomy_trio.errors import UsageError
from autonomy_trio.logs import get_log

if TYPE_CHECKING:
    from autonomy_trio.actors.belongings import Timer
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.supervision import Pool

A = TypeVar("A")
Ts = TypeVarTuple("Ts")


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Context:
    """The third parameter of a handler, and the parameter of ``on_start`` and ``on_stop``; of use while they run.

    A background task may use it as long as the agent lives. What it makes (timers, watches, background tasks, children)
    ends with the instance of the agent that made it.
    """

    _cell: "Cell" = attrs.field(repr=False)
    _delivery: Delivery | None = attrs.field(default=None, repr=False)

    @property
    def self(self) -> AgentRef[Any]:
        """The agent's own ref, to hand to others."""
        return self._cell.ref()

    @property
    def sender(self) -> Sender:
        """Who sent the message; in hooks, the node."""
        return OUTSIDE if self._delivery is None else self._delivery.sender

    @property
    def deadline(self) -> float:
        """Until when an answer is wanted, on trio's clock; infinite for a `tell`, a stream and in hooks."""
        return float("inf") if self._delivery is None else self._delivery.deadline

    @property
    def log(self) -> Any:  # noqa: ANN401 - structlog's loggers are duck-typed
        """A structured logger that names this agent."""
        return get_log(agent=self._cell.name)

    @overload
    def spawn(self, factory: "Pool[A]", name: str | None = None) -> AgentRef[A]: ...

    @overload
    def spawn(self, factory: Callable[[], A], name: str | None = None) -> AgentRef[A]: ...

    def spawn(self, factory: "Callable[[], A] | Pool[A]", name: str | None = None) -> AgentRef[A]:
        """Start a child, as `Node.spawn` does; it ends when this agent ends or is restarted, before that does.

        A child that fails too often (more than 3 times in 5 s) is stopped for good, and fails this agent.

        Raises:
            NameTaken, DeclarationError, PolicyError: as `Node.spawn`.
            NotDelivered: the agent or its node is stopping, or the agent is about to be restarted.
        """
        return self._cell.runtime.spawn(factory, name, self._cell)

    @overload
    def ref(self, target: str, agent: None = None) -> AgentRef[Any]: ...

    @overload
    def ref(self, target: str, agent: Callable[..., A]) -> AgentRef[A]: ...

    def ref(self, target: str, agent: Callable[..., Any] | None = None) -> AgentRef[Any]:
        """Return a ref to an agent by its name or address, as `Node.ref` does."""
        return self._cell.runtime.resolve(target, agent)

    def watch(self, ref: AgentRef[Any]) -> None:
        """Have a `Down` message sent to this agent once the other one has ended for good, at once if it is not there.

        One on another node is watched by what its policy lets this node send it: where that is nothing, it is an
        ``unknown agent``. Losing its node is an end too, ``node lost``, at once where the node says that it leaves,
        else within 30 s.

        Raises:
            UsageError: this agent has no handler for `Down`.
            Overloaded: it has 1,024 watches.
        """
        if self._cell.spec.handler_of(Down) is None:
            msg = f"{self._cell.name} watches {ref.name} but has no handler for what it is told: add one, @on(Down)"
            raise UsageError(msg)
        self._cell.watch(ref)

    def unwatch(self, ref: AgentRef[Any]) -> None:
        """End a watch; no `Down` comes any more, not even one that was under way."""
        self._cell.unwatch(ref)

    def after(self, seconds: float, message: object) -> "Timer":
        """Send this agent a message, once, in so many seconds; it waits behind no other message.

        Raises:
            UsageError: the time is negative or infinite.
            NotHandled: the agent has no handler for the message.
            Overloaded: it has 1,024 timers.
        """
        return self._cell.own().add_timer(seconds, message, repeat=False)

    def every(self, seconds: float, message: object) -> "Timer":
        """Send this agent a message every so many seconds, first after that time; ticks that it missed are one.

        Raises:
            UsageError, NotHandled, Overloaded: as `after`; the time must be more than 0.
        """
        return self._cell.own().add_timer(seconds, message, repeat=True)

    def publish(self, topic: str, message: object) -> None:
        """Send a message to a topic's subscribers, without waiting: one that is full loses it, which is counted.

        Raises:
            UsageError: the topic's name does not begin with ``#``.
        """
        self._cell.runtime.publish(topic, message, self._cell)

    def subscribe(self, topic: str) -> None:
        """Have what is published to a topic sent to this agent, until it ends; a restart changes nothing.

        A topic of another node goes by its address, ``I<node>/#prices``. What is published there comes as that node's
        tells, which ``allow=`` of the handler must permit; it lasts over losing that node. Where that node does not let
        this agent subscribe, the log says so, and it is tried again once a minute.

        Raises:
            UsageError: the topic's name does not begin with ``#``.
            AddressError: it is no address.
            Overloaded: the agent subscribes to 1,024 topics.
        """
        self._cell.runtime.topics.subscribe(topic, self._cell)

    def unsubscribe(self, topic: str) -> None:
        """End a subscription, if there is one."""
        self._cell.runtime.topics.unsubscribe(topic, self._cell)

    def stop(self) -> None:
        """End this agent once its running handlers have ended; what is queued gets `NotDelivered`.

        It is a normal end: only an agent declared ``permanent`` is restarted after it, and keeps its queue.
        """
        self._cell.leave()

    def stash(self) -> Never:
        """Keep the message for later and end the handler: `unstash_all` puts it back, and its asker goes on waiting.

        Raises:
            MailboxFull: as many messages as the mailbox holds are in the stash.
            UsageError: there is no message, as in a hook, or it opens a stream; or it is not the one that is handled
                now, as with a context that was kept.
        """
        delivery = self._delivery
        if delivery is None or delivery.handler.kind == "stream":
            msg = f"{self._cell.name}: only a handler that answers once can stash its message"
            raise UsageError(msg)
        self._cell.own().put_in_stash(delivery)
        raise Stashed

    def unstash_all(self) -> None:
        """Put what was stashed in front of the mailbox, in its order."""
        self._cell.own().unstash()

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run ``function(*args)`` beside the handlers; it is cancelled when the agent ends or is restarted.

        It does not take turns with the handlers: it shares their state at each checkpoint. If it raises, the agent
        fails.

        Raises:
            Overloaded: the agent has 1,024 background tasks.
            NotDelivered: the agent is stopping.
        """
        self._cell.own().start_soon(function, *args)

    async def start(self, function: Callable[..., Awaitable[object]], *args: object) -> Any:  # noqa: ANN401 - as trio's
        """Do as `start_soon`, and wait until the function calls ``task_status.started(value)``; returns that value.

        Raises:
            Overloaded, NotDelivered: as `start_soon`.
            Exception: what the function raises before that; it fails nobody but the caller.
        """
        return await self._cell.own().start(function, *args)
