"""What belongs to one instance of an agent, and goes with it: timers, watches, background tasks, streams, the stash."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import trio

from autonomy_trio.actors.delivery import Delivery, Signal
from autonomy_trio.actors.voices import speaker
from autonomy_trio.errors import MailboxFull, NotDelivered, Overloaded, UsageError
from autonomy_trio.groups import fence
from autonomy_trio.messages import wire_name

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.crew import Crew
    from autonomy_trio.actors.refs import AgentRef
    from autonomy_trio.actors.spec import Handler

MOST_BELONGINGS: Final = 1024
"""Timers, watches and background tasks that one agent may have, of each."""
MOST_STREAMS: Final = 64
"""Streams that one agent may have open."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Timer:
    """A handle to a message that an agent sends itself later, made by `Context.after` and `Context.every`."""

    _belongings: "Belongings" = attrs.field(repr=False)
    _message: object
    _handler: "Handler" = attrs.field(repr=False)
    when: float
    """When it is due next, on trio's clock."""
    _period: float | None
    """Seconds between two ticks; None for a single one."""
    _tick: Signal | None = attrs.field(default=None, repr=False)
    active: bool = True
    """Whether it will tick again."""

    def cancel(self) -> None:
        """Send no more; a tick that waits in the mailbox is withdrawn too."""
        if self._tick is not None:
            self._tick.cancelled = True
        self._end()

    def ring(self, now: float) -> bool:
        """Send the message, and tell whether the timer goes on; ticks that were missed are one tick."""
        cell = self._belongings.cell
        if self._tick is None and cell.crew is not None:
            self._tick = Signal(self._message, self._handler, cell, taken=self._taken)
            cell.crew.put_urgent(self._tick)
        if self._period is None:
            self._end()
        else:
            missed = (now - self.when) // self._period
            self.when += (missed + 1) * self._period
        return self.active

    def _taken(self) -> None:
        self._tick = None
        self._give_place_back()

    def _end(self) -> None:
        if self.active:
            self.active = False
            self._give_place_back()
            self._belongings.cell.runtime.keeper.timer_ended()

    def _give_place_back(self) -> None:
        """Count no more as one of the agent's timers, once no tick waits either: so ticks are as bounded as timers."""
        if not self.active and self._tick is None:
            self._belongings.timers.pop(self, None)


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Belongings:
    """What one instance of an agent has under way. An agent that has any stays awake."""

    cell: "Cell"
    crew: "Crew"
    timers: dict[Timer, None] = attrs.field(factory=dict[Timer, None])
    watching: "dict[Cell, AgentRef[Any]]" = attrs.field(factory=dict[Any, Any])
    outside: "dict[AgentRef[Any], Callable[[], None]]" = attrs.field(factory=dict[Any, Any])
    """Agents of other nodes that it watches, and what ends each watch."""
    downs: int = 0
    """`Down` messages that wait; each keeps the place of its watch."""
    stash: list[Delivery] = attrs.field(factory=list[Delivery])
    tasks: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope])
    """The scopes of background tasks and streams."""
    streams: int = 0
    clearing: bool = False
    """Whether the instance has ended, so that no turns are given any more."""
    _emptied: trio.Event = attrs.field(factory=trio.Event)

    def __bool__(self) -> bool:
        return bool(self.timers or self.watching or self.outside or self.stash or self.tasks)

    def add_timer(self, seconds: float, message: object, *, repeat: bool) -> Timer:
        """Send the agent a message later; see `Context.after`."""
        name = wire_name(type(message))
        is_time = isinstance(cast("object", seconds), int | float) and seconds < float("inf")
        if not is_time or not (seconds > 0 if repeat else seconds >= 0):
            least = "more than 0" if repeat else "0 or more"
            msg = f"{self.cell.name}: a timer for {name} in {seconds!r} s: give seconds, {least}"
            raise UsageError(msg)
        handler = self.cell.spec.handler_of(type(message))
        if handler is None:
            raise self.cell.not_handled(message)
        self._check_room(len(self.timers), "timers")
        when = trio.current_time() + seconds
        timer = Timer(self, message, handler, when, seconds if repeat else None)
        self.timers[timer] = None
        self.cell.runtime.keeper.add_timer(timer)
        return timer

    def put_in_stash(self, delivery: Delivery) -> None:
        """Keep the message that is handled now for later.

        Raises:
            MailboxFull: as many messages as the mailbox holds are in the stash.
            UsageError: another one is handled now.
        """
        if not self._is_handled(delivery):
            name = wire_name(type(delivery.message))
            msg = (
                f"{self.cell.name} stashes a {name} that it does not handle now: call stash() in the handler itself, "
                "on the context that this call of it was given"
            )
            raise UsageError(msg)
        capacity = self.cell.spec.mailbox.capacity
        if len(self.stash) >= capacity:
            self._drop_tombstones()
        if len(self.stash) >= capacity:
            msg = f"the stash of {self.cell.name} is full ({capacity} messages, as many as its mailbox holds)"
            raise MailboxFull(msg)
        self.stash.append(delivery)

    def _is_handled(self, delivery: Delivery) -> bool:
        """Whether the task that runs is in the handler of a message: its worker, or its asker in a plain one."""
        speaking, task = speaker.get(), trio.lowlevel.current_task()
        if speaking is self.cell:
            return self.cell.runtime.here is delivery
        return any(
            each.current is delivery and each.task is task and each.voice is speaking for each in self.crew.workers
        )

    def _drop_tombstones(self) -> None:
        """Take messages out of the stash whose askers have gone."""
        wanted = [each for each in self.stash if not each.cancelled]
        self.cell.runtime.withdrawn += len(self.stash) - len(wanted)
        self.stash = wanted

    def unstash(self) -> None:
        """Put the stash back in front of the mailbox, in its order."""
        stash, self.stash = self.stash, []
        if stash:
            self.crew.put_front(stash)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a background task of the agent; see `Context.start_soon`."""
        self._check_task()
        scope = self.add_task()
        self.cell.runtime.start_soon(self._run, scope, function, args)

    async def start(self, function: Callable[..., Awaitable[object]], *args: object) -> Any:  # noqa: ANN401 - as trio's
        """Run a background task and wait until it calls ``task_status.started``; see `Context.start`."""
        self._check_task()
        scope = self.add_task()
        try:
            return await self.cell.runtime.nursery.start(self._run_started, scope, function, args)
        finally:
            if not scope.cancel_called and scope not in self.tasks:
                self.end_task(scope)

    def add_task(self) -> trio.CancelScope:
        """Return the scope of a new task of this instance."""
        scope = trio.CancelScope()
        self.tasks.add(scope)
        return scope

    def end_task(self, scope: trio.CancelScope) -> None:
        """Forget a task that has ended."""
        self.tasks.discard(scope)
        if not self.tasks:
            self._emptied.set()

    async def clear(self) -> None:
        """End everything, and wait until the tasks have ended."""
        self.cancel()
        if self.tasks:
            self._emptied = trio.Event()
            await self._emptied.wait()

    def cancel(self) -> None:
        """End everything, without waiting for the tasks."""
        self.clearing = True
        for timer in list(self.timers):
            timer.cancel()
        for cell in list(self.watching):
            self.cell.forget_watch(cell)
        while self.outside:
            self.outside.popitem()[1]()
        self.unstash()
        for scope in self.tasks:
            scope.cancel()
        if self.crew.aside is not None:
            while self.crew.aside.turns:
                self.crew.aside.turns.popleft().revoke()
            self.crew.aside.urgent.clear()

    async def _run(
        self, scope: trio.CancelScope, function: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        def failed(error: Exception) -> None:
            self.cell.failed(error, None, ended=self.clearing)

        speaker.set(self.cell)
        try:
            # Fence: a background task of an agent, whose failure is the agent's.
            with fence(failed), scope:
                await function(*args)
        finally:
            self.end_task(scope)

    async def _run_started(
        self,
        scope: trio.CancelScope,
        function: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
        task_status: trio.TaskStatus[Any],
    ) -> None:
        status = _Status(task_status)

        def failed(error: Exception) -> None:
            if not status.is_started:
                raise error
            self.cell.failed(error, None, ended=self.clearing)

        speaker.set(self.cell)
        try:
            # Fence: as above, once it has started; before that its starter is told.
            with fence(failed), scope:
                await function(*args, task_status=status)
        finally:
            self.end_task(scope)

    def _check_task(self) -> None:
        if self.cell.state != "running":
            msg = f"{self.cell.name} is stopping: it starts no task"
            raise NotDelivered(msg)
        self._check_room(len(self.tasks), "background tasks")

    def check_watch(self) -> None:
        """Refuse a watch more than an agent may have.

        Raises:
            Overloaded: it has as many.
        """
        self._check_room(len(self.watching) + len(self.outside) + self.downs, "watches")

    def down_taken(self) -> None:
        """Give back the place of a watch whose `Down` a worker has taken."""
        self.downs -= 1

    def _check_room(self, count: int, what: str) -> None:
        if count >= MOST_BELONGINGS:
            msg = f"{self.cell.name} has {count:,} {what}: an agent has at most that many"
            raise Overloaded(msg)


@attrs.define(eq=False, repr=False)
class _Status:
    """A task status that remembers whether it was told."""

    _status: trio.TaskStatus[Any]
    is_started: bool = False

    def started(self, value: object = None) -> None:
        self.is_started = True
        self._status.started(value)
