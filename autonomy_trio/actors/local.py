"""The ref to an agent of this process: straight into its mailbox."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.delivery import OUTSIDE, Asked, Delivery, PendingReply, Sender
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import Handler, Stashed
from autonomy_trio.actors.streams import Items
from autonomy_trio.actors.voices import speaker
from autonomy_trio.errors import DeliveryError, NotDelivered, NotHandled

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.dead_letters import Reason
    from autonomy_trio.actors.pools import PoolCell
    from autonomy_trio.actors.runtime import Runtime
    from autonomy_trio.actors.voices import Voice
    from autonomy_trio.messages import Request, Stream

R = TypeVar("R")
T = TypeVar("T")

SENDS_PER_CHECKPOINT: Final = 64
"""A send that need not wait still lets others run, once in so many."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class LocalRef(AgentRef[Any]):
    """The ref that `spawn` and `ref` make; it finds its agent by name, so a later agent of that name is reached too."""

    runtime: "Runtime"
    _name: str
    _found: "Cell | PoolCell | None" = None

    @property
    def name(self) -> str:
        """The agent's name on its node."""
        return self._name

    @property
    def address(self) -> str:
        """Where the agent is reached from other nodes."""
        return self.runtime.address_of(self._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalRef) and other._name == self._name and other.runtime is self.runtime

    def __hash__(self) -> int:
        return hash(self._name)

    async def tell(self, message: object, *, durable: bool = False) -> None:  # noqa: ARG002 - nothing is lost here
        """Queue a message, waiting for room; see `AgentRef.tell`."""
        runtime = self.runtime
        sends = runtime.sends = runtime.sends + 1
        if not sends % SENDS_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint()
        speaking = speaker.get()
        cell = self._found
        try:
            if cell is None or cell.state == "stopped" or runtime.draining:
                cell, handler = self._recipient(message, speaking)
            else:
                handler = cell.breed.spec.told.get(type(message)) or self._recipient(message, speaking)[1]
            source = None if speaking is None or speaking.cell.breed.runtime is not runtime else speaking.cell
            delivery = Delivery(message, handler, source)
            if not cell.offer(delivery):
                await cell.accept(delivery, _waiter(speaking))
        except (NotHandled, NotDelivered) as error:
            self._bury(message, speaking, error)

    def tell_nowait(self, message: object) -> None:
        """Queue a message or raise `MailboxFull`; see `AgentRef.tell_nowait`."""
        speaking = speaker.get()
        try:
            cell, handler = self._recipient(message, speaking)
            cell.accept_nowait(Delivery(message, handler, self._source(speaking)))
        except (NotHandled, NotDelivered) as error:
            self._bury(message, speaking, error)

    async def ask(self, message: "Request[R]") -> R:
        """Queue a request and wait for its reply; see `AgentRef.ask`."""
        runtime, speaking = self.runtime, speaker.get()
        found, handler = self._recipient(message, speaking)
        cell = found.chosen()
        here = handler.kind == "plain" and cell.is_free()
        if here:
            runtime.sends += 1
            if not runtime.sends % SENDS_PER_CHECKPOINT:
                here = False
                await trio.lowlevel.checkpoint()
            elif not handler.takes_context:
                return cast("R", self._run_here(cell, handler, message, speaking))
        reply = PendingReply()
        delivery = Asked(message, handler, self._source(speaking), reply)
        keeper = runtime.keeper
        limit = keeper.add_ask(reply)
        if handler.takes_context or runtime.interceptors:
            deadline = trio.current_effective_deadline()
            delivery.deadline = limit if deadline == float("inf") else deadline
        waiter = _waiter(speaking)
        try:
            if here:
                runtime.here = delivery
                try:
                    with suppress(Stashed):
                        return cast("R", self._run_here(cell, handler, message, speaking, Context(cell, delivery)))
                finally:
                    runtime.here = None
            withdraw = delivery.cancel if here or cell.offer(delivery) else cell.put_in_lobby(delivery)
            if waiter is None:
                return cast("R", await reply.wait(withdraw))
            return cast("R", await self._wait_as(waiter, cell, reply, withdraw))
        finally:
            keeper.asks.pop(reply, None)

    def stream(self, message: "Stream[T]") -> AbstractAsyncContextManager[AsyncIterator[T]]:
        """Open a stream of replies; see `AgentRef.stream`."""
        return self._open(message)

    @asynccontextmanager
    async def _open(self, message: "Stream[T]") -> AsyncGenerator[AsyncIterator[T]]:
        speaking = speaker.get()
        cell, handler = self._recipient(message, speaking, stream=True)
        items = Items()
        delivery = Asked(message, handler, self._source(speaking), items)
        await cell.accept(delivery, _waiter(speaking))
        try:
            yield items
        finally:
            delivery.cancelled = True
            items.leave()

    def stop(self) -> None:
        """Stop the agent; see `AgentRef.stop`."""
        cell = self.find_any()
        if cell is not None:
            cell.stop(self.runtime.grace)

    async def stopped(self) -> None:
        """Wait until the agent has ended; see `AgentRef.stopped`."""
        await trio.lowlevel.checkpoint()
        cell = self.find_any()
        if cell is not None:
            await cell.wait_stopped()

    def find_any(self) -> "Cell | PoolCell | None":
        """Return the agent or pool that the ref reaches now."""
        cell = self._found
        if cell is None or cell.state == "stopped":
            cell = self._found = self.runtime.find(self._name)
        return cell

    def _recipient(
        self, message: object, speaking: "Voice | Cell | None", *, stream: bool = False
    ) -> "tuple[Cell | PoolCell, Handler]":
        if self.runtime.draining and self._source(speaking) is None:
            msg = "the node is stopping: nothing was sent"
            raise NotDelivered(msg)
        cell = self._found
        if cell is None or cell.state == "stopped":
            cell = self.find_any()
            if cell is None:
                msg = f"no agent is called {self._name!r} on this node"
                raise NotDelivered(msg)
        handler = cell.breed.spec.handler_of(type(message))
        if handler is None:
            raise cell.not_handled(message)
        if (handler.kind == "stream") is not stream:
            raise not_so(message, handler)
        return cell, handler

    def _source(self, speaking: "Voice | Cell | None") -> "Cell | None":
        """Return the agent that sends, if it is one of this node."""
        if speaking is None:
            return None
        cell = speaking.cell
        return cell if cell.breed.runtime is self.runtime else None

    def _run_here(
        self,
        cell: "Cell",
        handler: Handler,
        message: object,
        speaking: "Voice | Cell | None",
        context: Context | None = None,
    ) -> Any:  # noqa: ANN401
        """Run a plain handler of an idle agent in the asker's task.

        Raises:
            Stashed: it has put its message into the stash.
        """
        cell.started = True
        token = speaker.set(cell)
        try:
            if context is None:
                result = handler.function(cell.instance, message)
            else:
                result = handler.function(cell.instance, message, context)
            if type(result) is CoroutineType if handler.reply is None else not isinstance(result, handler.reply):
                raise handler.wrong_reply(result)  # noqa: TRY301 - a failure like any other
        except handler.answers as answer:
            self.runtime.handled += not isinstance(answer, Stashed)
            raise
        except Exception as error:  # noqa: BLE001 - fence: an agent, whose failure is its own
            failure: Exception = error
        else:
            self.runtime.handled += 1
            return result
        finally:
            speaker.reset(token)
        reply = PendingReply()
        cell.failed(failure, Asked(message, handler, self._source(speaking), reply))
        raise reply.error() from None

    async def _wait_as(self, waiter: "Voice", cell: "Cell", reply: PendingReply, withdraw: Callable[[], None]) -> Any:  # noqa: ANN401
        """Wait for a reply in a handler, unless that would be for ever."""
        try:
            self.runtime.check_wait(waiter, cell)
        except BaseException:
            withdraw()
            raise
        waiter.waits.append(cell)
        try:
            return await reply.wait(withdraw)
        finally:
            waiter.waits.remove(cell)

    def _bury(self, message: object, speaking: "Voice | Cell | None", error: DeliveryError) -> None:
        """Make a `tell` that nobody takes a dead letter and no error, as it would be on another node."""
        source = self._source(speaking)
        if isinstance(error, NotHandled):
            reason: Reason = "not handled"
        elif self.runtime.draining and source is None:
            raise error
        else:
            reason = "unknown agent" if self.runtime.find(self._name) is None else "stopped"
        sender = OUTSIDE if source is None else Sender(source.name, "")
        self.runtime.bury(self._name, message, sender, reason)


def not_so(message: object, handler: Handler) -> NotHandled:
    """Return what a sender is told that took a stream for something else, or the other way round."""
    is_stream = handler.kind == "stream"
    ways = "is a Stream: open it with 'async with ref.stream(…)'" if is_stream else "is no Stream: ask or tell it"
    return NotHandled(f"{type(message).__name__} {ways}")


def _waiter(speaking: "Voice | Cell | None") -> "Voice | None":
    """Return the worker whose handler waits; a background task is none."""
    return None if speaking is None or speaking.waits is None else speaking
