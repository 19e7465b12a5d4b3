"""One agent, awake or at rest: its name, its instance, its state, and what is asked of it from outside its tasks.

States, and what leads from one to the next:

* ``resting``: no task and no channel. The first message, or `begin` of a class with ``on_start``, makes it ``running``;
  the keeper returns it to rest when nothing is under way.
* ``running``: its crew handles messages.
* ``halted``: its instance has failed, or its supervisor restarts it with a sibling. Messages queue. Its supervisor
  makes it ``running`` again, or ``stopping``.
* ``stopping``: no message is accepted, a running handler may finish.
* ``stopped``: for good. Its name is free.

A cell is small, since a process holds millions at rest: what only few agents have is in `Relations`.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import attrs
import trio

from autonomy_trio.actors import watches
from autonomy_trio.actors.belongings import MOST_STREAMS, Belongings
from autonomy_trio.actors.delivery import Asked, Delivery, Signal
from autonomy_trio.actors.local import LocalRef
from autonomy_trio.actors.refs import AgentRef, Down
from autonomy_trio.actors.relations import End, Halt, Relations
from autonomy_trio.actors.streams import Producer, Sink, Turn
from autonomy_trio.errors import (
    HandlerFailed,
    MailboxFull,
    NotDelivered,
    NotHandled,
    OutcomeUnknown,
    Overloaded,
)
from autonomy_trio.messages import wire_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from autonomy_trio.actors.crew import Crew
    from autonomy_trio.actors.dead_letters import Reason
    from autonomy_trio.actors.runtime import Runtime
    from autonomy_trio.actors.spec import Spec
    from autonomy_trio.actors.supervisor import Supervisor
    from autonomy_trio.actors.voices import Voice
    from autonomy_trio.actors.worker import Worker

State = Literal["resting", "running", "halted", "stopping", "stopped"]


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Breed:
    """What the agents of one class share on a node."""

    runtime: "Runtime"
    spec: "Spec"
    factory: "Callable[[], Any]"


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Cell:
    """The runtime's side of one agent; users hold an `AgentRef`."""

    breed: Breed
    name: str
    instance: Any
    parent: "Supervisor | Cell | None" = None
    """Its supervisor; the agent that spawned it; None for an agent of the node that has not failed yet."""
    state: State = "resting"
    started: bool = False
    """Whether the instance has begun its work, so that its ``on_stop`` is due at its end."""
    crew: "Crew | None" = None
    _relations: Relations | None = None

    waits: ClassVar[None] = None
    """Code that speaks for an agent and is no worker, such as a background task, takes part in no deadlock."""

    @property
    def runtime(self) -> "Runtime":
        """The runtime it lives in."""
        return self.breed.runtime

    @property
    def spec(self) -> "Spec":
        """What its class declares."""
        return self.breed.spec

    @property
    def cell(self) -> "Cell":
        """Itself, as code that speaks for it."""
        return self

    @property
    def relations(self) -> Relations:
        """What ties it to others."""
        if self._relations is None:
            self._relations = Relations()
        return self._relations

    def ref(self) -> AgentRef[Any]:
        """Return a ref to it."""
        return LocalRef(self.runtime, self.name, self)

    def chosen(self) -> "Cell":
        """Itself, as the one to send to."""
        return self

    def is_free(self) -> bool:
        """Whether a plain handler may run now in the asker's task: nothing is under way, waits, or was stashed."""
        crew = self.crew
        if self.runtime.interceptors:
            return False
        if crew is None:
            return self.state == "resting" and (self.started or not self.spec.on_start)
        stashed = crew.belongings is not None and crew.belongings.stash
        return self.state == "running" and self.started and crew.idle and not stashed

    # Messages

    def offer(self, delivery: Delivery) -> bool:
        """Queue a delivery, as its overflow policy says; False where it has to wait for room.

        Raises:
            MailboxFull: it has no room, and the overflow policy is ``fail``.
            NotDelivered: the agent is stopping.
        """
        crew = self.crew
        if crew is None or self.state in ("stopping", "stopped"):
            crew = self.wake()
        runtime = crew.runtime
        if runtime.draining:
            runtime.busy.add(crew)
        if crew.parked:
            if crew.size == 1:
                crew.hand_over(delivery)
            else:  # trio runs them in any order: the first to run takes the first message
                crew.line_up(delivery)
            return True
        try:
            crew.send(delivery)
        except trio.WouldBlock:
            return self._overflow(delivery, crew)
        return True

    def accept_nowait(self, delivery: Delivery) -> None:
        """Queue a delivery, as its overflow policy says.

        Raises:
            MailboxFull: it has no room.
            NotDelivered: the agent is stopping.
        """
        if not self.offer(delivery):
            assert self.crew is not None  # noqa: S101 - it is full
            self.crew.overflowed = True
            raise self._full()

    async def accept(self, delivery: Delivery, waiter: "Voice | None") -> None:
        """Queue a delivery, waiting for room; an agent that ends meanwhile finishes it all the same.

        Raises:
            MailboxFull: the overflow policy is ``fail``.
            Deadlock: `waiter` would wait for ever.
            NotDelivered: the agent is stopping.
        """
        if self.offer(delivery):
            return
        assert self.crew is not None  # noqa: S101 - it is full
        if waiter is None:
            await self.crew.put_when_room(delivery)
            return
        if waiter.cell is self and self.state == "halted":
            msg = f"{self.name} is ending, and nobody makes room in its mailbox before it has: nothing was sent"
            raise NotDelivered(msg)
        self.runtime.check_wait(waiter, self)
        waiter.waits.append(self)
        try:
            await self.crew.put_when_room(delivery)
        finally:
            waiter.waits.remove(self)

    def put_in_lobby(self, delivery: Delivery, told: "Callable[[], None] | None" = None) -> "Callable[[], None]":
        """Let a message that found no room wait for it, and return what withdraws it.

        Args:
            delivery: the message; nobody's task waits with it for room.
            told: called once when it waits no more, in the mailbox or withdrawn.
        """
        crew = self.crew
        assert crew is not None  # noqa: S101 - it is full
        crew.set_aside().lobby[delivery] = told

        def withdraw() -> None:
            crew.leave_lobby(delivery)
            if isinstance(delivery, Asked):
                delivery.cancel()

        return withdraw

    def wake(self) -> "Crew":
        """Give the agent a crew.

        Raises:
            NotDelivered: it is stopping.
        """
        if self.state != "resting":
            msg = f"{self.name} is stopping: nothing was run"
            raise NotDelivered(msg)
        self.state = "running"
        crew = self.crew = self.runtime.hire(self)
        if not self.spec.on_start:
            self.started = True
        elif not self.started:
            crew.rouse()
        return crew

    def rest(self) -> None:
        """Give the crew back, which must have nothing to do."""
        crew = self.crew
        assert crew is not None  # noqa: S101 - it is awake
        self.crew, self.state = None, "resting"
        self.runtime.take_back(crew)

    def not_handled(self, message: object) -> NotHandled:
        """Say that the agent has no handler for a message."""
        takes = ", ".join(sorted(wire_name(each) for each in self.spec.handlers)) or "no message"
        return NotHandled(f"{self.name} does not handle {wire_name(type(message))}; it handles {takes}")

    def bury(self, delivery: Delivery, reason: "Reason") -> None:
        """Make a dead letter of a message."""
        self.runtime.bury(self.name, delivery.message, delivery.sender, reason)

    def turn_away(self, delivery: Delivery) -> None:
        """Finish a message that the agent ends before."""
        if delivery.cancelled:
            self.runtime.withdrawn += not isinstance(delivery, Signal)
        else:
            self.bury(delivery, "stopped")
            delivery.fail(NotDelivered(f"{self.name} is stopping: nothing was run"))

    def own(self) -> Belongings:
        """Return what belongs to the instance."""
        crew = self.crew
        if crew is None:
            crew = self.wake()
        if crew.belongings is None:
            crew.belongings = Belongings(self, crew)
        return crew.belongings

    async def open_stream(self, delivery: Delivery, worker: "Worker") -> None:
        """Start a stream and let it have the first turn."""
        worker.current = None  # what becomes of it is the producer's business now
        belongings, items = self.own(), delivery.reply
        assert isinstance(items, Sink)  # noqa: S101 - that is how a stream is opened
        if belongings.streams >= MOST_STREAMS:
            self.bury(delivery, "overloaded")
            items.fail(Overloaded(f"{self.name} has {MOST_STREAMS} open streams: close one"))
            return
        belongings.streams += 1
        turn = Turn()
        producer = Producer(delivery, belongings, items, belongings.add_task(), turn)
        items.attach(producer)
        self.runtime.start_soon(producer.run)
        await turn.give(worker)

    def _overflow(self, delivery: Delivery, crew: "Crew") -> bool:
        overflow = self.spec.mailbox.overflow
        if overflow == "block":
            return False
        crew.overflowed = True
        if overflow == "fail":
            raise self._full()
        dropped = delivery
        if overflow == "drop_oldest":
            dropped = crew.take()
            crew.put(delivery)
        if not dropped.cancelled:
            self.bury(dropped, "overloaded")
            dropped.fail(Overloaded(f"{self._full()}: it was dropped"))
        return True

    def _full(self) -> MailboxFull:
        return MailboxFull(f"the mailbox of {self.name} is full ({self.spec.mailbox.capacity} messages)")

    # Ends

    def stop(self, patience: float, fate: End = "stopped") -> None:
        """End the agent once its running handlers have ended, which have `patience` seconds to do so."""
        if self.state in ("stopping", "stopped"):
            return
        if fate != "stopped":
            self.relations.fate = fate
        if self.state == "resting":
            if not (self.started and self.spec.on_stop) and not self.has_children:
                self.end()
                return
            self.wake()
        was, self.state = self.state, "stopping"
        assert self.crew is not None  # noqa: S101 - it is awake
        if was == "halted":
            self._resume()
            return
        for worker in self.crew.workers:
            worker.hurry(patience)
        self.crew.release_own()

    def leave(self) -> None:
        """End the agent by its own wish, once its running handlers have ended."""
        if self.state == "resting":  # a plain handler runs in its asker's task
            self.wake()
        if self.state == "running":
            if self.spec.restart == "permanent":
                self._halt(normal=True)
            else:
                self.stop(float("inf"))

    @property
    def has_children(self) -> bool:
        """Whether it has spawned agents that live."""
        return self._relations is not None and bool(self._relations.children)

    async def wait_stopped(self) -> None:
        """Return when the agent has ended and its ``on_stop`` has run."""
        if self.state != "stopped":
            await self.relations.ended.wait()

    def end(self) -> None:
        """Be gone: empty the mailbox, tell all who wait, give the name back. Never waits."""
        self.state = "stopped"
        crew, relations = self.crew, self._relations
        if crew is not None:
            if crew.belongings is not None:  # the node was cancelled: a stream that waits for its turn gets none
                crew.belongings.cancel()
            for delivery in crew.empty():
                self.turn_away(delivery)
            self.runtime.let_go(crew)
            crew.dismiss()
        self.runtime.forget(self)
        if relations is not None:
            self.set_over()
            if relations.halt is not None:
                relations.halt.reached.set()
            relations.ended.set()
            for watcher, ref in list(relations.watchers.items()):
                watches.tell(watcher, self, Down(ref, relations.fate))
            for outsider in list(relations.outsiders):
                outsider.tell(relations.fate)
            self.runtime.topics.forget(self)

    # Watches

    def watch(self, ref: AgentRef[Any]) -> None:
        """Send this agent a `Down` when another one ends; see `watches`."""
        watches.watch(self, ref)

    def unwatch(self, ref: AgentRef[Any]) -> None:
        """End a watch."""
        watches.unwatch(self, ref)

    def forget_watch(self, cell: "Cell") -> None:
        """End the watch of an agent of this node."""
        watches.forget(self, cell)

    # Failures

    def failed(self, error: Exception, delivery: Delivery | None, *, ended: bool = False) -> None:
        """Count a failure of the instance, tell the asker, and leave what follows to the supervisor.

        Of an instance that has `ended` already nothing follows: another may have taken its place.
        """
        relations = self.relations
        relations.failures += 1
        fields: dict[str, object] = {}
        if delivery is not None:
            name = wire_name(type(delivery.message))
            fields = {"message": name, "sender": delivery.sender.id}
            self.bury(delivery, "failed")
            delivery.fail(HandlerFailed(f"{self.name} failed on {name}: the log of its node says why"))
        if relations.failures & (relations.failures - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood fills no log
            shown = error.with_traceback(_own_frames(error.__traceback__))
            fields |= {"failures": relations.failures, "exc_info": shown}
            self.runtime.errors.error("agent failed", agent=self.name, **fields)
        self.runtime.failed(self, error, None if delivery is None else delivery.message)
        if ended:
            return
        if self.state == "resting":  # a plain handler failed in its asker's task
            self.wake()
        if self.state == "running":
            self._halt(normal=False)

    def cut_off(self, delivery: Delivery, *, withdrawn: bool) -> None:
        """Finish a message whose handler was cancelled."""
        name = wire_name(type(delivery.message))
        error: Exception
        if self.state == "running" and withdrawn:
            self.runtime.withdrawn += 1
            error = trio.TooSlowError()
        elif self.state == "halted":
            self.bury(delivery, "failed")
            error = HandlerFailed(f"{self.name} was restarted while it handled {name}: it may have had effects")
        else:
            self.bury(delivery, "stopped")
            error = OutcomeUnknown(f"{self.name} was stopped while it handled {name}: it may have had effects")
        delivery.fail(error)

    def hold(self) -> None:
        """Keep an agent that was spawned just now from starting until it is resumed."""
        crew = self.wake()
        self.started = False
        self._begin_halt(normal=True, fresh=True)
        crew.rouse()

    def pause(self) -> Halt:
        """End the instance for a restart by the supervisor, and return how far that is."""
        if self.state == "resting":
            self.wake()
        if self.state == "running":
            self._begin_halt(normal=True)
            assert self.crew is not None  # noqa: S101 - it is awake
            self.crew.interrupt()
        halt = self.relations.halt
        assert halt is not None  # noqa: S101 - it is halted
        return halt

    def resume(self) -> trio.Event:
        """Have a new instance go on, and return what tells that it has started, or failed to."""
        halt = self.relations.halt
        assert halt is not None  # noqa: S101 - it is halted
        self.relations.restarts += not halt.fresh
        self.state = "running"
        if self.runtime.draining and self.crew is not None:
            self.runtime.busy.add(self.crew)
        halt.resume.set()
        return halt.over

    @property
    def paused(self) -> bool:
        """Whether it waits for its supervisor, with nothing of the old instance left."""
        halt = None if self._relations is None else self._relations.halt
        return self.state == "halted" and halt is not None and halt.reached.is_set()

    @property
    def failed_last(self) -> bool:
        """Whether the last instance ended by an exception."""
        return self._relations is not None and self._relations.halt is not None and not self._relations.halt.normal

    def _halt(self, *, normal: bool) -> None:
        """End the instance and let the supervisor decide."""
        self._begin_halt(normal=normal)
        assert self.crew is not None  # noqa: S101 - it is awake
        if normal:
            for worker in self.crew.workers:
                worker.hurry(float("inf"))
            self.crew.release_own()
        else:
            self.crew.interrupt()
        self.runtime.supervisor_of(self).ended(self)

    def _begin_halt(self, *, normal: bool, fresh: bool = False) -> None:
        self.set_over()
        self.state = "halted"
        self.relations.halt = Halt(normal, fresh)

    def _resume(self) -> None:
        halt = self.relations.halt
        assert halt is not None  # noqa: S101 - it is halted
        halt.resume.set()

    def set_over(self) -> None:
        """Tell its supervisor, if that waits, that the instance has started or never will."""
        if self._relations is not None and self._relations.halt is not None:
            self._relations.halt.over.set()


def _own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of the runtime: they tell a user nothing, and some renderers show all they hold."""
    own = traceback
    while own is not None and own.tb_frame.f_globals.get("__name__", "").startswith("autonomy_trio."):
        own = own.tb_next
    return own
