"""A worker of an awake agent: a task that takes messages, one after the other.

Rules that it keeps:

* A message is in exactly one place: in the channel, set aside, in `current`, or finished. Nothing waits while holding
  one elsewhere, so a cancellation anywhere loses none.
* One cancel scope serves many messages. Whoever cancels a handler cancels the scope and sets `interrupted`; a worker
  that was interrupted leaves its scope before it takes the next message, even if the handler returned normally.
* An exception ends the instance, never the task: the fence in `run` hands it to the agent's cell.
* The first worker is the lead: it alone starts, ends and restarts the instance, while the others wait.
* A worker parks in the crew, not in the channel, so that whoever sends knows at once whether the agent is idle.
"""

from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Final, cast, final

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.delivery import WAKE, Asked, Delivery, Signal
from autonomy_trio.actors.instances import begin, change
from autonomy_trio.actors.interceptors import intercepted
from autonomy_trio.actors.spec import Refused, Stashed
from autonomy_trio.actors.voices import Voice, speaker
from autonomy_trio.groups import fence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.crew import Crew

MOST_WITHOUT_CHECKPOINT: Final = 64
"""Messages a worker handles between two checkpoints, where their handlers have none."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Worker:
    """One task of a crew."""

    crew: "Crew"
    current: Delivery | None = None
    interrupted: bool = False
    voice: Voice | None = None
    task: trio.lowlevel.Task = attrs.field(init=False)
    _scope: trio.CancelScope | None = None

    @property
    def waits(self) -> "Sequence[Cell]":
        """The agents whose answer, or room, the running handler waits for."""
        return () if self.voice is None else self.voice.waits

    def cancel_handler(self) -> None:
        """Cancel what runs now; the worker goes on."""
        self.interrupted = True
        if self._scope is not None:
            self._scope.cancel()

    def hurry(self, patience: float) -> None:
        """End what runs in `patience` seconds; what only waits, now."""
        if self in self.crew.parked or self._scope is None:
            self.cancel_handler()
        else:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + patience)

    async def run(self) -> None:
        """Be the worker's task: one turn for each instance, and for each cancelled handler."""
        crew = self.crew
        lead = crew.workers[0] is self
        self.task = trio.lowlevel.current_task()
        try:
            while (cell := crew.cell) is not None:
                if self.voice is None or self.voice.cell is not cell:
                    self.voice = Voice(cell)
                    speaker.set(self.voice)
                if cell.state == "running" and (lead or cell.started):
                    await self._turn(cell)
                elif lead:
                    await change(cell, crew)
                else:
                    await crew.changed.wait()
        finally:
            if lead and crew.cell is not None:  # cancelled: the node ends at once
                crew.cell.end()

    async def _turn(self, cell: "Cell") -> None:
        crew = self.crew
        follower = crew.workers[0] is not self
        crew.inside += follower
        scope = trio.CancelScope()
        try:
            # Fence: an agent; what it raises ends its instance and nothing else.
            with fence(partial(self._failed, cell)), scope:
                self.interrupted, self._scope = False, scope
                if not cell.started:
                    await begin(cell)
                    crew.announce()
                await self._serve(cell, scope)
        finally:
            self._scope = None
            if self.current is not None:
                self._cut_off(cell, self.current, withdrawn=self.interrupted or scope.cancel_called)
            if follower:
                crew.inside -= 1
                crew.announce()

    async def _serve(self, cell: "Cell", scope: trio.CancelScope) -> None:  # noqa: C901, PLR0912, PLR0915 - a call a message costs
        """Handle messages until interrupted, or until the agent no longer runs: the one hot loop."""
        crew = self.crew
        instance, intercepted = cell.instance, bool(crew.runtime.interceptors)
        take = crew.take
        left = MOST_WITHOUT_CHECKPOINT
        delivery: Delivery | None
        while not self.interrupted and cell.state == "running":
            if not left:
                left = MOST_WITHOUT_CHECKPOINT
                await trio.lowlevel.checkpoint()
                continue
            left -= 1
            if crew.aside is None:
                try:
                    delivery = take()
                except trio.WouldBlock:
                    delivery = await self._park(cell)
                    left = MOST_WITHOUT_CHECKPOINT
            else:
                delivery = await self._next(cell)
            if delivery is None:
                if crew.cell is not cell:
                    return
                continue
            self.current = delivery
            handler, reply = delivery.handler, delivery.reply
            if reply is not None:
                cast("Asked", delivery).worker = self
            if intercepted or delivery.cancelled or handler.kind == "stream":
                await self._special(cell, delivery, scope)
                continue
            limited = delivery.limited
            if limited and not self._limit(cell, delivery, scope):
                continue
            try:
                if handler.takes_context:
                    result = handler.function(instance, delivery.message, Context(cell, delivery))
                else:
                    result = handler.function(instance, delivery.message)
                if handler.is_async:
                    result = await result
                if result is not None and type(result) is CoroutineType:
                    raise handler.wrong_reply(cast("object", result))
            except handler.answers as answer:
                self._answered(delivery, answer)
            else:
                if reply is not None:
                    handler.check_reply(result)
                self.current = None
                crew.handled += 1
                if reply is not None:
                    reply.answer(result)
            if limited and handler.is_async:
                self._unlimit(cell, scope)

    async def _next(self, cell: "Cell") -> Delivery | None:
        """Return what is to be handled next where something lies aside; None to look again."""
        crew = self.crew
        item = None
        if crew.aside is not None:
            item = crew.aside.take()
            if not crew.aside:
                crew.aside = None
        if item is not None:
            if not isinstance(item, Delivery):
                await item.give(self)
                return None
            if isinstance(item, Signal):
                item.taken()
            return item
        try:
            delivery = crew.take()
        except trio.WouldBlock:
            return None if crew.aside else await self._park(cell)
        if crew.aside is not None and crew.aside.lobby:
            crew.send(crew.let_in())
        return delivery

    async def _park(self, cell: "Cell") -> Delivery | None:
        """Wait for a message; None for one to look at what has changed."""
        crew, instance = self.crew, cell.instance
        crew.parked.append(self)
        if crew.runtime.draining:
            crew.runtime.quieted(crew)
        delivery = await trio.lowlevel.wait_task_rescheduled(self._unpark)
        # Another agent may have taken this crew over, or the same one once more, restarted meanwhile with another crew.
        taken_over = crew.cell is not cell or cell.instance is not instance
        self.interrupted = self.interrupted or taken_over
        if delivery is not WAKE and cell.state == "running" and not taken_over:
            return cast("Delivery", delivery)
        self.current = None
        if delivery is not WAKE:
            if crew.cell is None:  # the node was cancelled in the same moment
                cell.turn_away(cast("Delivery", delivery))
            else:  # the next instance handles it, or the agent's end finishes it
                crew.put_front([cast("Delivery", delivery)])
        return None

    def _unpark(self, _: object, /) -> trio.lowlevel.Abort:
        self.crew.parked.remove(self)
        return trio.lowlevel.Abort.SUCCEEDED

    async def _special(self, cell: "Cell", delivery: Delivery, scope: trio.CancelScope) -> None:
        """Handle what needs more than a call: a tombstone, a deadline of its own, a stream, an interceptor."""
        if delivery.cancelled:
            self.crew.runtime.withdrawn += 1
            self.current = None
            return
        if delivery.limited and not self._limit(cell, delivery, scope):
            return
        if delivery.handler.kind == "stream" and not self.crew.runtime.interceptors:
            await cell.open_stream(delivery, self)
        else:
            await self._intercepted(cell, delivery)
        if delivery.limited:
            self._unlimit(cell, scope)

    def _limit(self, cell: "Cell", delivery: Delivery, scope: trio.CancelScope) -> bool:
        """Let a message's deadline hold for its handler; False where that has passed, and it was told so.

        A plain handler cannot be cancelled.
        """
        if delivery.deadline <= trio.current_time():
            self.current = None
            cell.bury(delivery, "expired")
            delivery.fail(trio.TooSlowError())
            return False
        if delivery.handler.kind != "plain" or self.crew.runtime.interceptors:
            scope.deadline = min(scope.deadline, delivery.deadline)
        return True

    def _unlimit(self, cell: "Cell", scope: trio.CancelScope) -> None:
        """Take back what `_limit` did."""
        if scope.cancel_called:
            self.interrupted = True
        elif cell.state == "running":
            scope.deadline = float("inf")

    async def _intercepted(self, cell: "Cell", delivery: Delivery) -> None:
        try:
            result = await intercepted(cell, delivery, self)
        except Refused as refusal:
            self.current = None
            cell.bury(delivery, "denied")
            delivery.fail(refusal.error)
        except delivery.handler.answers as answer:
            self._answered(delivery, answer)
        else:
            if self.current is delivery:  # it is none any more where a stream has opened
                self.current = None
                self.crew.handled += 1
                if delivery.reply is not None:
                    delivery.reply.answer(result)

    def _answered(self, delivery: Delivery, answer: BaseException) -> None:
        """Finish a message that its handler has stashed, or answered with an error that it foresees."""
        self.current = None
        if not isinstance(answer, Stashed):
            self.crew.handled += 1
            delivery.fail(answer)

    def _failed(self, cell: "Cell", error: Exception) -> None:
        delivery, self.current = self.current, None
        cell.failed(error, delivery)

    def _cut_off(self, cell: "Cell", delivery: Delivery, *, withdrawn: bool) -> None:
        """Finish the message whose handler was cancelled: no failure, the state stays."""
        self.current = None
        cell.cut_off(delivery, withdrawn=withdrawn)
