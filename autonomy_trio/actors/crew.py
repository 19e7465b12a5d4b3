"""The awake half of an agent: the channel that is its mailbox, what lies beside it, and the workers that share both.

A crew outlives its agent's wakefulness: that of an agent at rest serves the next one that wakes.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, final

import attrs
import outcome
import trio

from autonomy_trio.actors.delivery import WAKE, Delivery
from autonomy_trio.actors.worker import Worker

if TYPE_CHECKING:
    from autonomy_trio.actors.belongings import Belongings
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.runtime import Runtime
    from autonomy_trio.actors.streams import Turn


Waiting = trio.lowlevel.Task | Callable[[], None] | None
"""Who is told that a message has found room: the task that waits with it, or what is called."""


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Aside:
    """What does not wait in the channel."""

    urgent: deque[Delivery] = attrs.field(factory=deque[Delivery])
    """Ticks of timers and `Down` messages: one at most for each timer and each watch."""
    front: deque[Delivery] = attrs.field(factory=deque[Delivery])
    """Messages that come back from the stash, and those for one of several workers that wait."""
    turns: deque["Turn"] = attrs.field(factory=deque["Turn"])
    """Streams that wait for a turn: they alternate with messages."""
    lobby: OrderedDict[Delivery, "Waiting"] = attrs.field(factory=OrderedDict[Delivery, "Waiting"])
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
    workers: list[Worker] = attrs.field(init=False, factory=list[Worker])
    parked: list[Worker] = attrs.field(factory=list[Worker])
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
            told = self.aside.lobby.pop(delivery, None)
            if told is not None and not isinstance(told, trio.lowlevel.Task):
                told()

    def release_own(self) -> None:
        """Let no worker wait for room in its own mailbox, which nobody makes now; its messages keep their places."""
        if self.aside is None:
            return
        own = {worker.task for worker in self.workers if worker.waits}
        for delivery, task in list(self.aside.lobby.items()):
            if isinstance(task, trio.lowlevel.Task) and task in own:
                self.aside.lobby[delivery] = None
                trio.lowlevel.reschedule(task)

    def let_in(self) -> Delivery:
        """Take the message that has waited longest for room, and tell its sender that it need not wait."""
        assert self.aside is not None  # noqa: S101 - the lobby is a part of it
        delivery, told = self.aside.lobby.popitem(last=False)
        if isinstance(told, trio.lowlevel.Task):
            trio.lowlevel.reschedule(told)
        elif told is not None:
            told()
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
