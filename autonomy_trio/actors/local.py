"""The ref to an agent of this process: straight into its mailbox."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import attrs
import trio

from autonomy_trio.actors.crew import speaker
from autonomy_trio.actors.delivery import OUTSIDE, Delivery, PendingReply, Sender
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import Handler
from autonomy_trio.actors.streams import Items
from autonomy_trio.errors import DeliveryError, MailboxFull, NotDelivered, NotHandled

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.crew import Worker
    from autonomy_trio.actors.dead_letters import Reason
    from autonomy_trio.actors.pools import PoolCell
    from autonomy_trio.actors.runtime import Runtime
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

    async def tell(self, message: object) -> None:
        """Queue a message, waiting for room; see `AgentRef.tell`."""
        runtime = self.runtime
        runtime.sends += 1
        if not runtime.sends % SENDS_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint()
        speaking = speaker.get()
        try:
            cell, handler = self._recipient(message, speaking)
        except (NotHandled, NotDelivered) as error:
            self._bury(message, speaking, error)
            return
        source = None if speaking is None or speaking.cell.breed.runtime is not runtime else speaking.cell
        try:
            cell = cell.chosen()
            delivery = Delivery(message, handler, source)
            try:
                cell.accept_nowait(delivery)
            except MailboxFull:
                await cell.accept(delivery, _waiter(speaking))
        except NotDelivered as error:
            self._bury(message, speaking, error)

    def tell_nowait(self, message: object) -> None:
        """Queue a message or raise `MailboxFull`; see `AgentRef.tell_nowait`."""
        speaking = speaker.get()
        try:
            cell, handler = self._recipient(message, speaking)
            cell.chosen().accept_nowait(Delivery(message, handler, self._source(speaking)))
        except (NotHandled, NotDelivered) as error:
            self._bury(message, speaking, error)

    async def ask(self, message: "Request[R]") -> R:
        """Queue a request and wait for its reply; see `AgentRef.ask`."""
        runtime, speaking = self.runtime, speaker.get()
        cell, handler = self._recipient(message, speaking)
        cell = cell.chosen()
        if handler.kind == "plain" and not handler.takes_context and cell.is_free():
            runtime.sends += 1
            if runtime.sends % SENDS_PER_CHECKPOINT:
                return cast("R", self._run_here(cell, handler, message, speaking))
            await trio.lowlevel.checkpoint()
        elif handler.kind == "stream":
            raise NotHandled(f"{type(message).__name__} is a Stream: open it with 'async with ref.stream(…)'")
        reply = PendingReply()
        delivery = Delivery(message, handler, self._source(speaking), reply, trio.current_effective_deadline())
        limited = delivery.deadline == float("inf")
        if limited:
            runtime.keeper.add_ask(delivery)
        waiter = _waiter(speaking)
        try:
            try:
                cell.accept_nowait(delivery)
            except MailboxFull:
                await cell.accept(delivery, waiter)
            if waiter is None:
                return cast("R", await reply.wait(delivery.cancel))
            return cast("R", await self._wait_as(waiter, cell, delivery, reply))
        finally:
            if limited:
                runtime.keeper.asks.pop(delivery, None)

    def stream(self, message: "Stream[T]") -> AbstractAsyncContextManager[AsyncIterator[T]]:
        """Open a stream of replies; see `AgentRef.stream`."""
        return self._open(message)

    @asynccontextmanager
    async def _open(self, message: "Stream[T]") -> AsyncGenerator[AsyncIterator[T]]:
        speaking = speaker.get()
        cell, handler = self._recipient(message, speaking)
        if handler.kind != "stream":
            raise NotHandled(f"{type(message).__name__} is no Stream: ask or tell it")
        items = Items()
        delivery = Delivery(message, handler, self._source(speaking), items)
        await cell.chosen().accept(delivery, _waiter(speaking))
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

    def _recipient(self, message: object, speaking: "Worker | Cell | None") -> "tuple[Cell | PoolCell, Handler]":
        if self.runtime.draining and self._source(speaking) is None:
            msg = "the node is stopping: nothing was sent"
            raise NotDelivered(msg)
        cell = self._found
        if cell is None or cell.state == "stopped":
            cell = self.find_any()
            if cell is None:
                msg = f"no agent is called {self._name!r} on this node"
                raise NotDelivered(msg)
        spec = cell.spec
        handler = spec.found.get(type(message)) or spec.handler_of(type(message))
        if handler is None:
            raise cell.not_handled(message)
        return cell, handler

    def _source(self, speaking: "Worker | Cell | None") -> "Cell | None":
        """Return the agent that sends, if it is one of this node."""
        if speaking is None:
            return None
        cell = speaking.cell
        return cell if cell.breed.runtime is self.runtime else None

    def _run_here(self, cell: "Cell", handler: Handler, message: object, speaking: "Worker | Cell | None") -> Any:  # noqa: ANN401
        """Run a plain handler of an idle agent in the asker's task."""
        cell.started = True
        token = speaker.set(cell)
        try:
            result = handler.function(cell.instance, message)
            if handler.reply is not None and not isinstance(result, handler.reply):
                raise handler.wrong_reply(result)  # noqa: TRY301 - a failure like any other
        except handler.raises:
            self.runtime.handled += 1
            raise
        except Exception as error:  # noqa: BLE001 - fence: an agent, whose failure is its own
            failure: Exception = error
        else:
            self.runtime.handled += 1
            return result
        finally:
            speaker.reset(token)
        reply = PendingReply()
        cell.failed(failure, Delivery(message, handler, self._source(speaking), reply))
        raise reply.error() from None

    async def _wait_as(self, worker: "Worker", cell: "Cell", delivery: Delivery, reply: PendingReply) -> Any:  # noqa: ANN401
        """Wait for a reply in a handler, unless that would be for ever."""
        try:
            self.runtime.check_wait(worker, cell)
        except BaseException:
            delivery.cancelled = True
            raise
        worker.waits.append(cell)
        try:
            return await reply.wait(delivery.cancel)
        finally:
            worker.waits.remove(cell)

    def _bury(self, message: object, speaking: "Worker | Cell | None", error: DeliveryError) -> None:
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


def _waiter(speaking: "Worker | Cell | None") -> "Worker | None":
    """Return the worker whose handler waits; a background task is none."""
    return None if speaking is None or speaking.waits is None else speaking
