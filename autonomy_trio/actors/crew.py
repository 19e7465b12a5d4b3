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
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Final, cast, final

import attrs
import outcome
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.delivery import Asked, Delivery, Signal
from autonomy_trio.actors.instances import begin, change
from autonomy_trio.actors.interceptors import intercepted
from autonomy_trio.actors.spec import Refused, Stashed
from autonomy_trio.groups import fence

if TYPE_CHECKING:
    from autonomy_trio.actors.belongings import Belongings
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.runtime import Runtime
    from autonomy_trio.actors.spec import Handler
    from autonomy_trio.actors.streams import Turn

MOST_WITHOUT_CHECKPOINT: Final = 64
"""Messages a worker handles between two checkpoints, where their handlers have none."""

WAKE: Final = Delivery(None, cast("Handler", None), None)
"""What wakes a worker that waits in an empty channel; no message."""

speaker: Final[contextvars.ContextVar["Voice | Cell | None"]] = contextvars.ContextVar("speaker", default=None)
"""Whose code is running: a worker's, the agent of a background task or of a handler in an asker's task, or neither."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Voice:
    """A worker while it serves one agent: what a handler leaves running never speaks for the crew's next agent."""

    cell: "Cell"
    """The agent whose handlers run."""
    waits: "list[Cell]" = attrs.field(factory=list["Cell"])
    """The agents whose answer, or room, the running handler waits for."""


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Aside:
    """What does not wait in the channel."""

    urgent: deque[Delivery] = attrs.field(factory=deque[Delivery])
    """Ticks of timers and `Down` messages: one at most for each timer and each watch."""
    front: deque[Delivery] = attrs.field(factory=deque[Delivery])
    """Messages that come back from the stash, and those for one of several workers that wait."""
    turns: deque["Turn"] = attrs.field(factory=deque["Turn"])
    """Streams that wait for a turn: they alternate with messages."""
    lobby: OrderedDict[Delivery, trio.lowlevel.Task | None] = attrs.field(
        factory=OrderedDict[Delivery, trio.lowlevel.Task | None]
    )
    """Messages that found no room, oldest first, and who is to be told when they have it: no one who waits for the
    answer anyway. While there are any, the channel is full."""
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
        return len(self.urgent) + len(self.front) + len(self.turns) + len(self.lobby)


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
    send: Callable[[Delivery], None] = attrs.field(init=False)
    """Queue a delivery, or raise `trio.WouldBlock` where there is no room; workers that wait do not see it."""
    take: Callable[[], Delivery] = attrs.field(init=False)
    """Take the message that waited longest, or raise `trio.WouldBlock`."""
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
    """What the keeper saw when it last looked: the messages handled, and whether the crew was idle."""
    since: float = 0.0
    """When the keeper first saw it so, on trio's clock."""
    full: int = 0
    """How often in a row the keeper found the mailbox full."""
    overflowed: bool = False
    """Whether a message was refused or dropped for want of room since the keeper last looked."""

    def __attrs_post_init__(self) -> None:
        self.send, self.take = self._send.send_nowait, self._receive.receive_nowait
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
            self.hand_over(delivery)
        else:
            self.send(delivery)

    def hand_over(self, delivery: Delivery) -> None:
        """Wake a worker that waits, to handle a delivery."""
        worker = self.parked.pop()
        if delivery is not WAKE:
            worker.current = delivery
        trio.lowlevel.reschedule(worker.task, outcome.Value(delivery))

    async def put_when_room(self, delivery: Delivery) -> None:
        """Queue a delivery that found no room, in the order of the senders; on cancellation it is not sent."""
        self.set_aside().lobby[delivery] = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self.leave_lobby(delivery)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def leave_lobby(self, delivery: Delivery) -> None:
        """Take back a delivery that may still wait for room."""
        if self.aside is not None:
            self.aside.lobby.pop(delivery, None)

    def release_own(self) -> None:
        """Let no worker wait for room in its own mailbox, which nobody makes now; its messages keep their places."""
        if self.aside is None:
            return
        own = {worker.task for worker in self.workers if worker.waits}
        for delivery, task in list(self.aside.lobby.items()):
            if task in own:
                self.aside.lobby[delivery] = None
                trio.lowlevel.reschedule(task)

    def let_in(self) -> Delivery:
        """Take the message that has waited longest for room, and tell its sender that it need not wait."""
        assert self.aside is not None  # noqa: S101 - the lobby is a part of it
        delivery, task = self.aside.lobby.popitem(last=False)
        if task is not None:
            trio.lowlevel.reschedule(task)
        return delivery

    def set_aside(self) -> Aside:
        """Return where to put what does not wait in the channel."""
        if self.aside is None:
            self.aside = Aside()
        return self.aside

    def nudge(self) -> None:
        """Have a worker look at what has changed, if all wait."""
        if self.parked:
            self.put(WAKE)

    def rouse(self) -> None:
        """Have all workers that wait look at what has changed, the lead among them."""
        while self.parked:
            self.put(WAKE)

    def put_front(self, deliveries: list[Delivery]) -> None:
        """Put messages in front of all others, in their order, and have as many workers look as can take one."""
        self.set_aside().front.extendleft(reversed(deliveries))
        for _ in deliveries:
            self.nudge()

    def line_up(self, delivery: Delivery) -> None:
        """Hand a delivery to the workers that wait, behind what came before it; there must be one."""
        self.set_aside().front.append(delivery)
        self.nudge()

    def put_urgent(self, delivery: Delivery) -> None:
        """Put a message that waits behind no other kind."""
        self.set_aside().urgent.append(delivery)
        self.nudge()

    def put_turn(self, turn: "Turn") -> None:
        """Queue a stream for its next turn."""
        self.set_aside().turns.append(turn)
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
        return self._receive.statistics().current_buffer_used + (len(self.aside) if self.aside else 0)

    def empty(self) -> list[Delivery]:
        """Take all that waits, the messages of waiting senders included."""
        aside, waiting = self.set_aside(), list[Delivery]()
        with suppress(trio.WouldBlock):
            while True:
                waiting.append(self.take())
        while aside.lobby:
            waiting.append(self.let_in())
        self.aside = None
        return [*aside.urgent, *aside.front, *waiting]

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

    async def _serve(self, cell: "Cell", scope: trio.CancelScope) -> None:  # noqa: C901, PLR0912 - a call a message costs
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
            if intercepted or delivery.cancelled or delivery.limited or handler.kind == "stream":
                await self._special(cell, delivery, scope)
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
        if delivery.limited:
            if delivery.deadline <= trio.current_time():
                self.current = None
                cell.bury(delivery, "expired")
                delivery.fail(trio.TooSlowError())
                return
            scope.deadline = min(scope.deadline, delivery.deadline)
        if delivery.handler.kind == "stream" and not self.crew.runtime.interceptors:
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
