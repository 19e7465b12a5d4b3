"""One agent: its instance, its mailbox, and the task that takes one message at a time.

Rules that the worker keeps:

* A message is in exactly one place: in the channel, in `_current`, or finished. Nothing waits while holding one outside
  `_current`, so a cancellation anywhere loses none.
* One cancel scope serves many messages. Whoever cancels a handler cancels the scope, and a scope that was cancelled is
  left before the next message is taken, even if the handler returned normally.
* An exception ends the instance, never the task: the fence in `run` is the agent's supervisor.
"""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, final

import attrs
import outcome
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import Spec
from autonomy_trio.actors.delivery import OUTSIDE, Delivery
from autonomy_trio.actors.supervision import decide
from autonomy_trio.errors import HandlerFailed, MailboxFull, NotDelivered, OutcomeUnknown
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log
from autonomy_trio.messages import wire_name

if TYPE_CHECKING:
    from autonomy_trio.actors.dead_letters import Reason
    from autonomy_trio.actors.runtime import Runtime

State = Literal["waiting", "running", "stopping", "stopped"]

MOST_WITHOUT_CHECKPOINT: Final = 64
"""Messages an agent handles between two checkpoints, where its handlers have none."""

_log = get_log()


@final
@attrs.define(eq=False)
class Cell:
    """The runtime's side of one agent; users hold an `AgentRef`."""

    runtime: "Runtime"
    name: str
    spec: Spec
    factory: Callable[[], Any]
    instance: Any
    state: State = "waiting"
    """``waiting`` until its first message: no task and no channel yet."""
    restarts: int = 0
    handled: int = 0
    gave_up: bool = False
    _send: trio.MemorySendChannel[Delivery] | None = None
    _receive: trio.MemoryReceiveChannel[Delivery] | None = None
    _scope: trio.CancelScope | None = None
    _current: Delivery | None = None
    _started: bool = False
    _history: tuple[float, ...] = ()
    _ended: trio.Event = attrs.field(factory=trio.Event)

    def start(self) -> None:
        """Give the agent its channel and its task."""
        self._send, self._receive = trio.open_memory_channel[Delivery](self.spec.mailbox.capacity)
        self.state = "running"
        self.runtime.start_task(self)

    def accept_nowait(self, delivery: Delivery) -> None:
        """Queue a delivery.

        Raises:
            MailboxFull: it has no room.
            NotDelivered: the agent is stopping.
        """
        channel = self._open_channel()
        try:
            channel.send_nowait(delivery)
        except trio.WouldBlock:
            msg = f"the mailbox of {self.name} is full ({self.spec.mailbox.capacity} messages)"
            raise MailboxFull(msg) from None
        self.runtime.unfinished += 1

    async def accept(self, delivery: Delivery) -> None:
        """Queue a delivery, waiting for room; an agent that ends meanwhile finishes it all the same.

        Raises:
            NotDelivered: the agent is stopping.
        """
        try:
            self.accept_nowait(delivery)
        except MailboxFull:
            pass
        else:
            return
        # Counted before it waits: a receiver may take and finish it before this task runs again.
        self.runtime.unfinished += 1
        try:
            await self._open_channel().send(delivery)
        except BaseException:  # cancellation
            self.runtime.finished()
            raise

    def cancel_handler(self) -> None:
        """Cancel the handler that runs now; the agent goes on with its next message."""
        assert self._scope is not None  # noqa: S101 - a handler runs in it
        self._scope.cancel()

    def stop(self, patience: float) -> None:
        """End the agent once its running handler has ended, which has `patience` seconds to do so."""
        if self.state == "waiting":
            self.state = "stopped"
            self._forget()
        elif self.state == "running":
            self.state = "stopping"
            if self._scope is None:
                return
            if self._current is None and self._started:
                self._scope.cancel()
            else:
                self._scope.deadline = min(self._scope.deadline, trio.current_time() + patience)

    async def wait_stopped(self) -> None:
        """Return when the agent has ended and its ``on_stop`` has run."""
        await self._ended.wait()

    def _open_channel(self) -> trio.MemorySendChannel[Delivery]:
        if self.state == "waiting":
            self.start()
        if self._send is None or self.state != "running":
            raise self._stopping()
        return self._send

    def _stopping(self) -> NotDelivered:
        return NotDelivered(f"{self.name} is stopping: nothing was run")

    async def run(self) -> None:
        """Be the agent's task: one turn for each instance, and for each cancelled handler."""
        try:
            while self.state == "running":
                # Fence: an agent; what it raises ends its instance and nothing else.
                with fence(self._failed), trio.CancelScope() as scope:
                    self._scope = scope
                    await self._turn(scope)
                self._withdrawn()
                self._scope = None
            if self._started and self.spec.on_stop:
                await self._on_stop()
        finally:
            self._end()

    async def _turn(self, scope: trio.CancelScope) -> None:
        if not self._started:
            if self.spec.on_start:
                await _complete(self.instance.on_start(self._context(None)))
            self._started = True
        await self._serve(scope)

    async def _on_stop(self) -> None:
        def failed(error: Exception) -> None:
            _log.error("on_stop failed", agent=self.name, exc_info=error)

        # Fence: a hook of an agent that is ending anyway.
        with fence(failed), trio.move_on_after(self.runtime.grace) as scope:
            await _complete(self.instance.on_stop(self._context(None)))
        if scope.cancelled_caught:
            _log.error("on_stop was cut off", agent=self.name, after=self.runtime.grace)

    async def _serve(self, scope: trio.CancelScope) -> None:
        """Handle messages until the scope is cancelled or the agent is stopping."""
        receive = self._receive
        assert receive is not None  # noqa: S101 - start() made it
        since_checkpoint = 0
        while self.state == "running" and not scope.cancel_called:
            if since_checkpoint >= MOST_WITHOUT_CHECKPOINT:
                since_checkpoint = 0
                await trio.lowlevel.checkpoint()
            try:
                delivery = receive.receive_nowait()
                since_checkpoint += 1
            except trio.WouldBlock:
                since_checkpoint = 0
                delivery = await receive.receive()
            self._current = delivery
            if not self._is_void(delivery):
                await self._handle(delivery, scope)

    def _is_void(self, delivery: Delivery) -> bool:
        """Finish a delivery that is not to be handled: a tombstone, one that expired, or any of a stopping agent."""
        if delivery.cancelled:
            self._finish()
        elif self.state != "running":
            self._bury(delivery, "stopped")
            self._finish(outcome.Error(self._stopping()))
        elif delivery.deadline <= trio.current_time():
            self._bury(delivery, "expired")
            self._finish(outcome.Error(trio.TooSlowError()))
        return self._current is None

    async def _handle(self, delivery: Delivery, scope: trio.CancelScope) -> None:
        message = delivery.message
        handler = self.spec.handler_of(type(message))
        assert handler is not None  # noqa: S101 - whoever sends asks the spec first
        delivery.cell = self
        if delivery.deadline != float("inf"):
            scope.deadline = delivery.deadline
        if handler.takes_context:
            result = handler.function(self.instance, message, self._context(delivery))
        else:
            result = handler.function(self.instance, message)
        if inspect.iscoroutine(result):
            result = await result
        if delivery.reply is not None:
            handler.check_reply(result)
        if delivery.deadline != float("inf") and self.state == "running":
            scope.deadline = float("inf")
        self.handled += 1
        self._finish(outcome.Value(result))

    def _finish(self, result: outcome.Outcome[Any] | None = None) -> None:
        delivery = self._current
        assert delivery is not None  # noqa: S101 - who finishes one has it
        self._current = delivery.cell = None
        self.runtime.finished()
        if result is not None:
            delivery.settle(result)

    def _withdrawn(self) -> None:
        """Finish the message whose handler was cancelled, if the turn ended that way: no failure, the state stays."""
        delivery = self._current
        if delivery is None:
            return
        if self.state == "running":
            self._finish(outcome.Error(trio.TooSlowError()))
        else:
            name = wire_name(type(delivery.message))
            self._bury(delivery, "stopped")
            msg = f"{self.name} was stopped while it handled {name}: it may have had effects"
            self._finish(outcome.Error(OutcomeUnknown(msg)))

    def _failed(self, error: Exception) -> None:
        """Let the supervisor decide what follows the failure of an instance."""
        delivery = self._current
        if delivery is None:
            _log.error("agent failed", agent=self.name, exc_info=error)
        else:
            name = wire_name(type(delivery.message))
            _log.error("agent failed", agent=self.name, message=name, sender=delivery.sender.id, exc_info=error)
            self._bury(delivery, "failed")
            self._finish(outcome.Error(HandlerFailed(f"{self.name} failed on {name}: the log of its node says why")))
        self._started = False
        if self.state != "running":
            return
        verdict, self._history = decide(self.spec.restart, failed=True, history=self._history, now=trio.current_time())
        if verdict == "restart":
            self._restart()
        else:
            self.state = "stopping"
            self.gave_up = True
            _log.error("agent stopped for good", agent=self.name, restarts=self.restarts, verdict=verdict)

    def _restart(self) -> None:
        self.restarts += 1
        try:
            self.instance = self.factory()
        except Exception as error:  # noqa: BLE001 - fence: the constructor of an agent, which counts as its failure
            self._failed(error)

    def _context(self, delivery: Delivery | None) -> Context:
        if delivery is None:
            return Context(self.runtime.ref_to(self), OUTSIDE, float("inf"))
        return Context(self.runtime.ref_to(self), delivery.sender, delivery.deadline)

    def _bury(self, delivery: Delivery, reason: "Reason") -> None:
        self.runtime.bury(self.name, delivery.message, delivery.sender, reason)

    def _end(self) -> None:
        """Empty the mailbox and take what waits for room in it, answer all, and give the name back. Never waits."""
        self.state = "stopped"
        self._withdrawn()
        receive = self._receive
        assert receive is not None  # noqa: S101 - only a started agent has a task that ends
        while True:
            try:
                self._current = receive.receive_nowait()
            except trio.WouldBlock:
                break
            self._is_void(self._current)
        receive.close()
        self._forget()

    def _forget(self) -> None:
        self.runtime.forget(self)
        self._ended.set()


async def _complete(result: object) -> None:
    """Await what a hook returned if it is ``async def``."""
    if inspect.iscoroutine(result):
        await result
