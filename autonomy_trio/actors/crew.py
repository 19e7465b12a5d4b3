"""The awake half of an agent: the channel that is its mailbox, and its workers, each a task that takes messages.

Rules that a worker keeps:

* A message is in exactly one place: in the channel, set aside, in `current`, or finished. Nothing waits while holding
  one elsewhere, so a cancellation anywhere loses none.
* One cancel scope serves many messages. Whoever cancels a handler cancels the scope and sets `interrupted`; a worker
  that was interrupted leaves its scope before it takes the next message, even if the handler returned normally.
* An exception ends the instance, never the task: the fence in `run` hands it to the agent's cell.
* The first worker is the lead: it alone starts, ends and restarts the instance, while the others wait.
* A worker parks in the crew, not in the channel, so that whoever sends knows at once whether the agent is idle.

A crew outlives its agent's wakefulness: that of an agent at rest serves the next one that wakes.
"""

import contextvars
from collections import deque
from typing import TYPE_CHECKING, Final, cast, final

import attrs
import outcome
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.delivery import Delivery, Signal
from autonomy_trio.actors.spec import Stashed
from autonomy_trio.groups import fence

if TYPE_CHECKING:
    from autonomy_trio.actors.belongings import Belongings
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.runtime import Runtime
    from autonomy_trio.actors.spec import Handler
    from autonomy_trio.actors.streams import Turn

MOST_WITHOUT_CHECKPOINT: Final = 64
"""Messages a worker handles between two checkpoints, where their handlers have none."""

WAKE: Final = Delivery(None, cast("Handler", None))
"""What wakes a worker that waits in an empty channel; no message."""

speaker: Final[contextvars.ContextVar["Worker | Cell | None"]] = contextvars.ContextVar("speaker", default=None)
"""Whose code is running: a worker, the agent of a background task or of a handler in an asker's task, or neither."""


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Aside:
    """What does not wait in the channel."""

    urgent: deque[Delivery] = attrs.field(factory=deque[Delivery])
    """Ticks of timers and `Down` messages: one at most for each timer and each watch."""
    front: deque[Delivery] = attrs.field(factory=deque[Delivery])
    """Messages that come back from the stash."""
    turns: deque["Turn"] = attrs.field(factory=deque["Turn"])
    """Streams that wait for a turn: they alternate with messages."""
    _turn_next: bool = False

    def take(self) -> "Delivery | Turn | None":
        """Return what goes before the channel's next message."""
        if self.urgent:
            return self.urgent.popleft()
        if self.front:
            return self.front.popleft()
        self._turn_next = not self._turn_next
        return self.turns.popleft() if self.turns and self._turn_next else None

    def __len__(self) -> int:
        return len(self.urgent) + len(self.front) + len(self.turns)


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Crew:
    """The workers of one awake agent and the channel they share; without a cell while it waits for an agent."""

    runtime: "Runtime"
    cell: "Cell | None"
    capacity: int
    size: int
    _send: trio.MemorySendChannel[Delivery]
    _receive: trio.MemoryReceiveChannel[Delivery]
    workers: "list[Worker]" = attrs.field(init=False, factory=list["Worker"])
    parked: "list[Worker]" = attrs.field(factory=list["Worker"])
    """Workers that wait for a message."""
    inside: int = 0
    """Workers besides the lead that are in a turn."""
    handled: int = 0
    aside: Aside | None = None
    belongings: "Belongings | None" = None
    changed: trio.Event = attrs.field(factory=trio.Event)
    """Set by the lead when the instance has started or ended, and by the others when they leave a turn."""
    seen: int = -1
    """What `handled` was when the keeper last looked."""
    since: float = 0.0
    """When the keeper first saw it so, on trio's clock."""

    def __attrs_post_init__(self) -> None:
        self.workers = [Worker(self) for _ in range(self.size)]

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or waits."""
        return len(self.parked) == self.size and not self.aside

    @property
    def can_rest(self) -> bool:
        """Whether the agent can give its crew back and not miss it."""
        return len(self.parked) == self.size and not self.aside and not self.belongings

    def put(self, delivery: Delivery) -> None:
        """Hand a delivery to a worker that waits, else queue it.

        Raises:
            trio.WouldBlock: there is no room.
        """
        if self.parked:
            trio.lowlevel.reschedule(self.parked.pop().task, outcome.Value(delivery))
        else:
            self._send.send_nowait(delivery)

    async def put_when_room(self, delivery: Delivery) -> None:
        """Queue a delivery that found no room, in the order of the senders; on cancellation it is not sent."""
        await self._send.send(delivery)

    def take(self) -> Delivery:
        """Take the message that waited longest.

        Raises:
            trio.WouldBlock: none waits.
        """
        return self._receive.receive_nowait()

    def nudge(self) -> None:
        """Have a worker look at what has changed, if all wait."""
        if self.parked:
            self.put(WAKE)

    def put_front(self, deliveries: list[Delivery]) -> None:
        """Put messages in front of all others, in their order."""
        if self.aside is None:
            self.aside = Aside()
        self.aside.front.extendleft(reversed(deliveries))
        self.nudge()

    def put_urgent(self, delivery: Delivery) -> None:
        """Put a message that waits behind no other kind."""
        if self.aside is None:
            self.aside = Aside()
        self.aside.urgent.append(delivery)
        self.nudge()

    def put_turn(self, turn: "Turn") -> None:
        """Queue a stream for its next turn."""
        if self.aside is None:
            self.aside = Aside()
        self.aside.turns.append(turn)
        self.nudge()

    def interrupt(self) -> None:
        """Cancel what the workers do now."""
        for worker in self.workers:
            worker.cancel_handler()

    def announce(self) -> None:
        """Let the other workers look at what has changed."""
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    async def wait_alone(self) -> None:
        """Return to the lead once no other worker is in a turn."""
        while self.inside:
            await self.changed.wait()

    def queued(self) -> int:
        """Return how many messages wait, with those whose senders wait for room."""
        channel = self._receive.statistics()
        return channel.current_buffer_used + channel.tasks_waiting_send + (len(self.aside) if self.aside else 0)

    def empty(self) -> list[Delivery]:
        """Take all that waits, the messages of waiting senders included."""
        waiting: list[Delivery] = []
        if self.aside is not None:
            waiting = [*self.aside.urgent, *self.aside.front]
            self.aside = None
        while True:
            try:
                waiting.append(self.take())
            except trio.WouldBlock:
                return waiting

    def dismiss(self) -> None:
        """End the tasks; to be called when they wait, or from the last of them."""
        self.cell = None
        while self.parked:
            self.put(WAKE)
        self.announce()


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Worker:
    """One task of a crew."""

    crew: Crew
    current: Delivery | None = None
    interrupted: bool = False
    waits: "list[Cell]" = attrs.field(factory=list["Cell"])
    """The agents whose answer, or room, the running handler waits for."""
    task: trio.lowlevel.Task = attrs.field(init=False)
    _scope: trio.CancelScope | None = None
    _held: Delivery | None = None
    _left: int = MOST_WITHOUT_CHECKPOINT

    @property
    def cell(self) -> "Cell":
        """The agent whose handler runs."""
        assert self.crew.cell is not None  # noqa: S101 - a handler runs
        return self.crew.cell

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
        speaker.set(self)
        try:
            while (cell := crew.cell) is not None:
                if cell.state == "running" and (lead or cell.started):
                    await self._turn(cell)
                elif lead:
                    await cell.change(crew)
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
            with fence(self._failed), scope:
                self.interrupted, self._scope = False, scope
                if not cell.started:
                    await cell.begin()
                    crew.announce()
                await self._serve(cell, scope)
        finally:
            self._scope = None
            if self.current is not None:
                self._cut_off(self.current, withdrawn=self.interrupted or scope.cancel_called)
            if follower:
                crew.inside -= 1
                crew.announce()

    async def _serve(self, cell: "Cell", scope: trio.CancelScope) -> None:  # noqa: C901, PLR0912 - a call a message costs
        """Handle messages until interrupted, or until the agent no longer runs: the one hot loop."""
        crew = self.crew
        instance, intercepted = cell.instance, bool(crew.runtime.interceptors)
        take = crew.take
        while not self.interrupted and cell.state == "running" and crew.cell is cell:
            delivery = None
            if self._left and crew.aside is None and self._held is None:
                self._left -= 1
                try:
                    delivery = take()
                except trio.WouldBlock:
                    delivery = await self._park(cell)
            else:
                delivery = await self._next(cell)
            if delivery is None:
                continue
            self.current = delivery
            handler = delivery.handler
            if delivery.cancelled or delivery.limited or intercepted or handler.kind == "stream":
                await self._special(cell, delivery, scope)
                continue
            delivery.worker = self
            try:
                if handler.takes_context:
                    result = handler.function(instance, delivery.message, Context(cell, delivery))
                else:
                    result = handler.function(instance, delivery.message)
                if handler.kind == "async":
                    result = await result
            except handler.answers as answer:
                self._answered(delivery, answer)
            else:
                reply = delivery.reply
                if reply is not None:
                    handler.check_reply(result)
                self.current = delivery.worker = None
                crew.handled += 1
                if reply is not None:
                    reply.settle(outcome.Value(result))

    async def _next(self, cell: "Cell") -> Delivery | None:
        """Return what is to be handled next where that is not simply the channel's next; None to look again."""
        crew = self.crew
        if self._held is not None:
            held, self._held = self._held, None
            return held
        if not self._left:
            self._left = MOST_WITHOUT_CHECKPOINT
            await trio.lowlevel.checkpoint()
            return None
        self._left -= 1
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
            return crew.take()
        except trio.WouldBlock:
            return None if crew.aside else await self._park(cell)

    async def _park(self, cell: "Cell") -> Delivery | None:
        """Wait for a message; None for one to look at what has changed."""
        crew = self.crew
        crew.parked.append(self)
        if crew.runtime.draining:
            crew.runtime.quieted(crew)
        delivery = await trio.lowlevel.wait_task_rescheduled(self._unpark)
        self._left = MOST_WITHOUT_CHECKPOINT
        if delivery is WAKE:
            return None
        if crew.cell is not cell:  # another agent has taken this crew over
            self._held = delivery
            return None
        if cell.state != "running":  # the instance ended in the same moment: the next one handles it
            crew.put_front([cast("Delivery", delivery)])
            return None
        return cast("Delivery", delivery)

    def _unpark(self, _: object, /) -> trio.lowlevel.Abort:
        self.crew.parked.remove(self)
        return trio.lowlevel.Abort.SUCCEEDED

    async def _special(self, cell: "Cell", delivery: Delivery, scope: trio.CancelScope) -> None:
        """Handle what needs more than a call: a tombstone, a deadline of its own, a stream, an interceptor."""
        if delivery.cancelled:
            self.crew.runtime.withdrawn += 1
            self.current = None
            return
        if delivery.limited:
            if delivery.deadline <= trio.current_time():
                self.current = None
                cell.bury(delivery, "expired")
                delivery.settle(outcome.Error(trio.TooSlowError()))
                return
            scope.deadline = min(scope.deadline, delivery.deadline)
        delivery.worker = self
        if delivery.handler.kind == "stream":
            self.current = None
            await cell.open_stream(delivery, self)
        else:
            await self._intercepted(cell, delivery)
        if delivery.limited:
            if scope.cancel_called:
                self.interrupted = True
            elif cell.state == "running":
                scope.deadline = float("inf")

    async def _intercepted(self, cell: "Cell", delivery: Delivery) -> None:
        try:
            result = await cell.intercepted(delivery)
        except delivery.handler.answers as answer:
            self._answered(delivery, answer)
        else:
            self.current = delivery.worker = None
            self.crew.handled += 1
            delivery.settle(outcome.Value(result))

    def _answered(self, delivery: Delivery, answer: Exception) -> None:
        """Finish a message that its handler has stashed, or answered with an error that it foresees."""
        self.current = delivery.worker = None
        if not isinstance(answer, Stashed):
            self.crew.handled += 1
            delivery.settle(outcome.Error(answer))

    def _failed(self, error: Exception) -> None:
        delivery, self.current = self.current, None
        if delivery is not None:
            delivery.worker = None
        self.cell.failed(error, delivery)

    def _cut_off(self, delivery: Delivery, *, withdrawn: bool) -> None:
        """Finish the message whose handler was cancelled: no failure, the state stays."""
        self.current = delivery.worker = None
        self.cell.cut_off(delivery, withdrawn=withdrawn)
