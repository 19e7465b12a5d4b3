"""How code reaches an agent: `AgentRef`, the same whether the agent is here or on another node."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import attrs

from autonomy_trio.annotations import Addressed

if TYPE_CHECKING:
    from autonomy_trio.messages import Request, Stream

A_co = TypeVar("A_co", covariant=True)
R = TypeVar("R")
T = TypeVar("T")


class AgentRef(Addressed, ABC, Generic[A_co]):
    """A handle to an agent, made by `spawn` and `ref`; it stays valid when the agent is restarted.

    The type parameter is the agent's class. Two refs are equal if they reach the same agent in the same way.

    A field of a message can hold one. To another node it travels as its address, and is a ref of that node there: an
    address, and no permission, for whoever uses it sends as itself.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """The agent's name on its node."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The agent's address, for other nodes: ``I<node>/<agent>``, with its relay in front where there is one."""

    @abstractmethod
    async def tell(self, message: object, *, durable: bool = False) -> None:
        """Put a message into the agent's mailbox, and wait while that is full.

        In this process it is lossless while both ends live; what nobody takes is a dead letter. To another node it is
        sent at most once, in order; whether it was denied or lost is not told, but counted. It waits here while as much
        as may be is under way to a mailbox that is full there. At least each 64th call is a checkpoint, as is one that
        waits; others are not.

        With `durable` the agent's node need not be there: it returns when a relay has the message on its disk, sealed
        so that no relay can read it. The node handles it within a week, at least once; twice only if it dies after the
        handler's end and before it has written down that. One that fails its agent three times is given up. Durable
        messages keep no order. To an agent of this process `durable` changes nothing: what it has not handled ends with
        the process.

        Raises:
            NotStored: no relay says that it has the durable message.
            MailboxFull: the mailbox is full, and its overflow policy is ``fail``.
            Deadlock: the wait for room could never end, since the agent waits for the one that sends.
            MessageError: the message has no encoding, or is too large (to another node only).
            NotDelivered: this node is stopping.

        On cancellation the message is not sent.
        """

    @abstractmethod
    def tell_nowait(self, message: object) -> None:
        """Do what `tell` does without waiting.

        Raises:
            MailboxFull: the mailbox, with the way to it, or the queue to its node, is full.
            MessageError, NotDelivered: as `tell`.
        """

    @abstractmethod
    async def ask(self, message: "Request[R]") -> R:
        """Send a request and wait for its reply.

        The deadline is trio's: put it into ``trio.fail_after``. The handler gets the time that remains, across the wire
        too; without a deadline the node's ``ask_limit`` applies. A plain ``def`` handler of an idle agent runs in the
        asker's own task, where one call in 64 is a checkpoint.

        Raises:
            NotHandled: the agent does not handle this message, or the message does not fit it.
            Denied: the agent's policy does not let this sender do it.
            Overloaded: there was no room for it.
            NotDelivered: there is no such agent, or it is stopping, or its node was not reached.
            HandlerFailed: the handler raised, or its agent was restarted meanwhile.
            ReplyError: what the handler answers in place of a reply; a class that its ``raises=`` lists.
            Deadlock: the reply could never come, since the agent waits for the one that asks.
            OutcomeUnknown: the agent or the connection was lost after the request was sent.
            MessageError: the message has no encoding, is too large, or the reply does not fit the request.
            trio.TooSlowError: the deadline or the limit passed.

        On cancellation a queued request is withdrawn and a running handler cancelled, across the wire too.
        """

    @abstractmethod
    def stream(self, message: "Stream[T]") -> AbstractAsyncContextManager[AsyncIterator[T]]:
        """Open a stream of replies: ``async with ref.stream(Watch()) as quotes: async for quote in quotes: …``.

        The handler runs ahead by at most 16 items: a slow reader stops it. Leaving the block cancels it. From another
        node every item comes, in order, or the stream ends in an error.

        Raises:
            NotHandled, NotDelivered: when the block is entered, as `ask`; from another node, in place of the first
                item.
            Denied: another node's agent, in place of the first item.
            Overloaded: there was no room, or the agent has 64 open streams, or this node 256 over there; when the first
                item is read.
            HandlerFailed, ReplyError, OutcomeUnknown: in place of the next item, as `ask`; `OutcomeUnknown` too where
                an item was lost on the way.
            MessageError: as `ask`; of an item, in its place.

        On cancellation the handler is cancelled too.
        """

    @abstractmethod
    def stop(self) -> None:
        """Stop an agent of this process: no more messages, its ``on_stop``, and the name is free; never waits.

        A running handler has the node's grace to end. What is queued becomes dead letters, whose askers get
        `NotDelivered`. Stopping is no failure: nothing restarts the agent.

        Raises:
            UsageError: the agent is on another node.
        """

    @abstractmethod
    async def stopped(self) -> None:
        """Return when an agent of this process has ended, at once where there is none of that name.

        Raises:
            UsageError: the agent is on another node.
        """

    def __repr__(self) -> str:
        return f"<AgentRef {self.address}>"


class OutsideRef(AgentRef[A_co]):
    """A ref to an agent that is not of this process: what the runtime asks of the fabric."""

    __slots__ = ()

    @abstractmethod
    def watch(self, told: Callable[[str], None]) -> Callable[[], None]:
        """Have `told` called once with how the agent ended, never before this returns.

        Returns:
            what ends the watch.
        """


@attrs.frozen
class Down:
    """What a watcher is sent when the agent it watches has ended for good; a restart is no end."""

    ref: AgentRef[Any]
    """The ref that was watched."""
    reason: Literal["stopped", "failed", "gave up", "unknown agent", "node lost"]
    """``failed`` for an agent that is not restarted after failures, ``gave up`` for one that failed too often;
    ``node lost`` where its node left or was not heard for 28 s, and the agent may live on."""
