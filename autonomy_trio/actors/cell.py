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

import inspect
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import attrs
import outcome
import trio

from autonomy_trio.actors.belongings import MOST_BELONGINGS, MOST_STREAMS, Belongings
from autonomy_trio.actors.context import Context
from autonomy_trio.actors.delivery import Delivery, Signal
from autonomy_trio.actors.local import LocalRef
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.actors.refs import AgentRef, Down
from autonomy_trio.actors.streams import Items, Producer, Turn
from autonomy_trio.errors import (
    HandlerFailed,
    MailboxFull,
    NotDelivered,
    NotHandled,
    OutcomeUnknown,
    Overloaded,
    UsageError,
)
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log
from autonomy_trio.messages import wire_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from autonomy_trio.actors.crew import Crew, Worker
    from autonomy_trio.actors.dead_letters import Reason
    from autonomy_trio.actors.runtime import Runtime
    from autonomy_trio.actors.spec import Spec
    from autonomy_trio.actors.supervisor import Supervisor

State = Literal["resting", "running", "halted", "stopping", "stopped"]
End = Literal["stopped", "failed", "gave up"]

_log = get_log()


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Breed:
    """What the agents of one class share on a node."""

    runtime: "Runtime"
    spec: "Spec"
    factory: "Callable[[], Any]"


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Halt:
    """A pause between two instances, and how far it is."""

    normal: bool
    """Whether the agent ended by its own wish."""
    reached: trio.Event = attrs.field(factory=trio.Event)
    """Nothing of the old instance is left."""
    resume: trio.Event = attrs.field(factory=trio.Event)
    """The supervisor has decided: by now the cell is ``running`` again, or ``stopping``."""
    over: trio.Event = attrs.field(factory=trio.Event)
    """The new instance has started, or failed to, or there is none."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Relations:
    """What few agents have, or have for long."""

    restarts: int = 0
    failures: int = 0
    children: "dict[Cell, None]" = attrs.field(factory=dict[Any, None])
    watchers: "dict[Cell, AgentRef[Any]]" = attrs.field(factory=dict[Any, Any])
    topics: dict[str, None] = attrs.field(factory=dict[str, None])
    ended: trio.Event = attrs.field(factory=trio.Event)
    halt: Halt | None = None
    fate: End = "stopped"
    """How it ends, if it does."""


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

    def accept_nowait(self, delivery: Delivery) -> None:
        """Queue a delivery, as its overflow policy says.

        Raises:
            MailboxFull: it has no room.
            NotDelivered: the agent is stopping.
        """
        crew = self.crew
        if crew is None or self.state == "stopping":
            crew = self.wake()
        runtime = self.breed.runtime
        if runtime.draining:
            runtime.busy.add(crew)
        try:
            crew.put(delivery)
        except trio.WouldBlock:
            self._overflow(delivery, crew)

    async def accept(self, delivery: Delivery, worker: "Worker | None") -> None:
        """Queue a delivery, waiting for room; an agent that ends meanwhile finishes it all the same.

        Raises:
            MailboxFull: the overflow policy is ``fail``.
            Deadlock: `worker` would wait for ever.
            NotDelivered: the agent is stopping.
        """
        try:
            self.accept_nowait(delivery)
        except MailboxFull:
            if self.spec.mailbox.overflow != "block":
                raise
        else:
            return
        assert self.crew is not None  # noqa: S101 - it is full
        if worker is None:
            await self.crew.put_when_room(delivery)
            return
        self.runtime.check_wait(worker, self)
        worker.waits.append(self)
        try:
            await self.crew.put_when_room(delivery)
        finally:
            worker.waits.remove(self)

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
            crew.nudge()
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
        belongings, items = self.own(), delivery.reply
        assert isinstance(items, Items)  # noqa: S101 - a stream is opened by LocalRef.stream alone
        if belongings.streams >= MOST_STREAMS:
            self.bury(delivery, "overloaded")
            items.settle(outcome.Error(Overloaded(f"{self.name} has {MOST_STREAMS} open streams: close one")))
            return
        belongings.streams += 1
        turn = Turn()
        producer = Producer(delivery, belongings, items, belongings.add_task(), turn)
        items.attach(producer)
        self.runtime.start_soon(producer.run)
        await turn.give(worker)

    def _overflow(self, delivery: Delivery, crew: "Crew") -> None:
        mailbox = self.spec.mailbox
        full = f"the mailbox of {self.name} is full ({mailbox.capacity} messages)"
        if mailbox.overflow in ("block", "fail"):
            raise MailboxFull(full)
        dropped = delivery
        if mailbox.overflow == "drop_oldest":
            dropped = crew.take()
            crew.put(delivery)
        if not dropped.cancelled:
            self.bury(dropped, "overloaded")
            dropped.settle(outcome.Error(Overloaded(f"{full}: it was dropped")))

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

    def leave(self) -> None:
        """End the agent by its own wish, once its running handlers have ended."""
        if self.state == "running":
            if self.spec.restart == "permanent":
                self._halt(normal=True)
            else:
                self.stop(float("inf"))

    def intercepted(self, delivery: Delivery) -> "Awaitable[Any]":
        """Handle a message through the node's interceptors."""
        return self.runtime.intercepted(self, delivery)

    @property
    def has_children(self) -> bool:
        """Whether it has spawned agents that live."""
        return self._relations is not None and bool(self._relations.children)

    async def wait_stopped(self) -> None:
        """Return when the agent has ended and its ``on_stop`` has run."""
        if self.state != "stopped":
            await self.relations.ended.wait()

    async def begin(self) -> None:
        """Start the instance, in the lead."""
        if self.spec.on_start:
            await _complete(self.instance.on_start(Context(self)))
        self.started = True
        self._set_over()

    async def change(self, crew: "Crew") -> None:
        """Do in the lead what follows the end of an instance: nothing of it may be left, then go on or end."""
        await crew.wait_alone()
        await self._conclude(crew)
        if self.state == "halted":
            halt = self.relations.halt
            assert halt is not None  # noqa: S101 - it is halted
            halt.reached.set()
            await halt.resume.wait()
        if self.state == "running":
            try:
                self.instance = self.breed.factory()
            except Exception as error:  # noqa: BLE001 - fence: the constructor of an agent, which counts as its failure
                self.failed(error, None)
        else:
            self.end()
        crew.announce()

    async def _conclude(self, crew: "Crew") -> None:
        """Stop the children, run ``on_stop``, end what belongs to the instance: within the node's grace."""

        def failed(error: Exception) -> None:
            _log.error("on_stop failed", agent=self.name, exc_info=error)

        with trio.move_on_at(self.runtime.patience()) as scope:
            await self._stop_children()
            if crew.belongings is not None:
                await crew.belongings.clear()
            if self.started and self.spec.on_stop:
                # Fence: a hook of an instance that is ending anyway.
                with fence(failed):
                    await _complete(self.instance.on_stop(Context(self)))
        if scope.cancelled_caught:
            _log.error("on_stop was cut off", agent=self.name, after=self.runtime.grace)
        if crew.belongings is not None:
            crew.belongings.cancel()
        self.started = False
        crew.belongings = None

    async def _stop_children(self) -> None:
        while self.has_children:
            child = next(reversed(self.relations.children))
            child.stop(self.runtime.grace)
            await child.wait_stopped()

    def end(self) -> None:
        """Be gone: empty the mailbox, tell all who wait, give the name back. Never waits."""
        self.state = "stopped"
        crew, relations = self.crew, self._relations
        if crew is not None:
            waiting = crew.empty()
            if crew.belongings is not None:
                waiting = [*crew.belongings.stash, *waiting]
            for delivery in waiting:
                if not delivery.cancelled:
                    self.bury(delivery, "stopped")
                    delivery.settle(outcome.Error(NotDelivered(f"{self.name} is stopping: nothing was run")))
            self.runtime.let_go(crew)
            crew.dismiss()
        self.runtime.forget(self)
        if relations is not None:
            self._set_over()
            if relations.halt is not None:
                relations.halt.reached.set()
            relations.ended.set()
            for watcher, ref in list(relations.watchers.items()):
                watcher.told_down(self, Down(ref, relations.fate))
            self.runtime.topics.forget(self, relations.topics)

    # Failures

    def failed(self, error: Exception, delivery: Delivery | None) -> None:
        """Count a failure of the instance, tell the asker, and leave what follows to the supervisor."""
        relations = self.relations
        relations.failures += 1
        fields: dict[str, object] = {}
        if delivery is not None:
            name = wire_name(type(delivery.message))
            fields = {"message": name, "sender": delivery.sender.id}
            self.bury(delivery, "failed")
            delivery.settle(outcome.Error(HandlerFailed(f"{self.name} failed on {name}: the log of its node says why")))
        if relations.failures & (relations.failures - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood fills no log
            shown = error.with_traceback(_own_frames(error.__traceback__))
            _log.error("agent failed", agent=self.name, **fields, failures=relations.failures, exc_info=shown)
        self.runtime.failed(self)
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
        delivery.settle(outcome.Error(error))

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
        self.relations.restarts += 1
        self.state = "running"
        halt.resume.set()
        return halt.over

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
        else:
            self.crew.interrupt()
        self.runtime.supervisor_of(self).ended(self)

    def _begin_halt(self, *, normal: bool) -> None:
        self._set_over()
        self.state = "halted"
        self.relations.halt = Halt(normal)

    def _resume(self) -> None:
        halt = self.relations.halt
        assert halt is not None  # noqa: S101 - it is halted
        halt.resume.set()

    def _set_over(self) -> None:
        if self._relations is not None and self._relations.halt is not None:
            self._relations.halt.over.set()

    # Watches

    def watch(self, ref: AgentRef[Any]) -> None:
        """Send this agent a `Down` when another one ends."""
        if not isinstance(ref, LocalRef) or ref.runtime is not self.runtime:
            msg = f"{self.name} watches {ref.address}: agents of other nodes cannot be watched yet"
            raise UsageError(msg)
        watching = self.own().watching
        found = ref.find_any()
        cell = found.living() if isinstance(found, PoolCell) else found
        if cell is None:
            self._send_down(Down(ref, "unknown agent"))
            return
        if len(watching) >= MOST_BELONGINGS:
            msg = f"{self.name} has {len(watching):,} watches: an agent has at most that many"
            raise Overloaded(msg)
        watching[cell] = cell.relations.watchers[self] = ref

    def unwatch_ref(self, ref: AgentRef[Any]) -> None:
        """End the watch of an agent by its ref."""
        crew = self.crew
        if crew is None or crew.belongings is None:
            return
        for cell, watched in list(crew.belongings.watching.items()):
            if watched == ref:
                self.unwatch(cell)
        if crew.aside is not None:
            for signal in crew.aside.urgent:
                if isinstance(signal.message, Down) and signal.message.ref == ref:
                    signal.cancelled = True

    def unwatch(self, cell: "Cell") -> None:
        """End the watch of an agent."""
        if self.crew is not None and self.crew.belongings is not None:
            self.crew.belongings.watching.pop(cell, None)
        cell.relations.watchers.pop(self, None)

    def told_down(self, cell: "Cell", down: Down) -> None:
        """Be told that a watched agent has ended."""
        watching = self.crew.belongings.watching if self.crew is not None and self.crew.belongings is not None else None
        self.unwatch(cell)
        found = self.runtime.find(down.ref.name)
        if watching is not None and isinstance(found, PoolCell) and found.state != "stopped":
            living = found.living()
            watching[living] = living.relations.watchers[self] = down.ref
        else:
            self._send_down(down)

    def _send_down(self, down: Down) -> None:
        handler = self.spec.handler_of(Down)
        if handler is not None and self.crew is not None and self.state in ("running", "halted"):
            self.crew.put_urgent(Signal(down, handler))


def _own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of the runtime: they tell a user nothing, and some renderers show all they hold."""
    own = traceback
    while own is not None and own.tb_frame.f_globals.get("__name__", "").startswith("autonomy_trio."):
        own = own.tb_next
    return own or traceback


async def _complete(result: object) -> None:
    """Await what a hook returned if it is ``async def``."""
    if inspect.iscoroutine(result):
        await result
