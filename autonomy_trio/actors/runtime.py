"""The agents of one process: names, spawning, local sends, draining."""

import contextvars
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, final

import attrs
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.dead_letters import DeadLetter, DeadLetters, Reason
from autonomy_trio.actors.declare import spec_of
from autonomy_trio.actors.delivery import OUTSIDE, Delivery, PendingReply, Sender
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.errors import NameTaken, NotDelivered, NotHandled, UsageError
from autonomy_trio.messages import wire_name

A = TypeVar("A")

TELLS_PER_CHECKPOINT: Final = 64
"""A `tell` that need not wait still lets others run, once in so many."""

_running: contextvars.ContextVar["Cell | None"] = contextvars.ContextVar("autonomy_trio_agent", default=None)


@final
@attrs.define(eq=False)
class Runtime:
    """Every agent of one node; made by `open_runtime`, wrapped by the fabric's node."""

    nursery: trio.Nursery
    ask_limit: float
    grace: float
    address_of: Callable[[str], str] = attrs.field(default=str)
    """What an agent's name is called from outside."""
    dead_letters: DeadLetters = attrs.field(factory=DeadLetters)
    unfinished: int = 0
    """Messages accepted and not yet finished."""
    draining: bool = False
    _cells: dict[str, Cell] = attrs.field(factory=dict[str, Cell])
    _numbers: dict[str, Iterator[int]] = attrs.field(factory=dict[str, Iterator[int]])
    _tells: int = 0
    _quiet: trio.Event = attrs.field(factory=trio.Event)
    _emptied: trio.Event = attrs.field(factory=trio.Event)
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context, repr=False)
    """Agents' tasks start in the node's own context, not in that of whoever happened to send the first message."""

    def spawn(self, factory: Callable[[], A], name: str | None = None) -> AgentRef[A]:
        """Make an agent; see `Node.spawn`."""
        if self.draining:
            msg = "the node is stopping: no agent can be spawned"
            raise NotDelivered(msg)
        instance = factory()
        spec = spec_of(type(instance))
        name = self._number(spec.name) if name is None else name
        if name in self._cells:
            msg = f"{name!r} is the name of a {self._cells[name].spec.agent} on this node: choose another"
            raise NameTaken(msg)
        if not name or "/" in name or not name.isprintable():
            msg = f"{name!r} cannot be an agent's name: use letters, digits, '_', '-' or '.'"
            raise UsageError(msg)
        if self._emptied.is_set():
            self._emptied = trio.Event()
        cell = self._cells[name] = Cell(self, name, spec, factory, instance)
        if spec.on_start:
            cell.start()
        return self.ref(name)

    def ref(self, name: str) -> AgentRef[Any]:
        """Return a ref to the agent of that name, which need not live yet."""
        return AgentRef(LocalRoute(self, name))

    def ref_to(self, cell: Cell) -> AgentRef[Any]:
        """Return a ref to an agent."""
        return self.ref(cell.name)

    def find(self, name: str) -> Cell | None:
        """Return the agent of that name."""
        return self._cells.get(name)

    def cells(self) -> list[Cell]:
        """Return all agents, in the order they were spawned."""
        return list(self._cells.values())

    def start_task(self, cell: Cell) -> None:
        """Start an agent's task in the node's nursery."""

        def start() -> None:
            _running.set(cell)
            self.nursery.start_soon(cell.run, name=f"agent {cell.name}")

        self.context.copy().run(start)

    def sender(self) -> Sender:
        """Return who sends: the agent whose task this is, else the node."""
        cell = _running.get()
        return OUTSIDE if cell is None or cell.runtime is not self else Sender(cell.name, "")

    def deliverable(self, name: str, message: object, sender: Sender) -> Cell:
        """Return the agent that handles a message.

        Raises:
            NotDelivered: there is none of that name, or the node is stopping.
            NotHandled: it has no handler for it.
        """
        if self.draining and sender is OUTSIDE:
            msg = "the node is stopping: nothing was sent"
            raise NotDelivered(msg)
        cell = self._cells.get(name)
        if cell is None:
            msg = f"no agent is called {name!r} on this node"
            raise NotDelivered(msg)
        if cell.spec.handler_of(type(message)) is None:
            raise self.not_handled(cell, message)
        return cell

    def not_handled(self, cell: Cell, message: object) -> NotHandled:
        """Say that an agent has no handler for a message."""
        takes = ", ".join(sorted(wire_name(each) for each in cell.spec.handlers)) or "no message"
        return NotHandled(f"{cell.name} does not handle {wire_name(type(message))}; it handles {takes}")

    def bury(self, recipient: str, message: object, sender: Sender, reason: Reason) -> None:
        """Count a message of this process that is not handled to its end."""
        self.dead_letters.add(DeadLetter(recipient, wire_name(type(message)), sender.id, reason))

    def finished(self) -> None:
        """Count one accepted message as finished."""
        self.unfinished -= 1
        if self.draining and self.unfinished == 0:
            self._quiet.set()

    def forget(self, cell: Cell) -> None:
        """Give an ended agent's name back."""
        self._cells.pop(cell.name, None)
        if not self._cells:
            self._emptied.set()

    def yield_due(self) -> bool:
        """Tell whether this `tell` is one of those that let others run."""
        self._tells += 1
        return self._tells % TELLS_PER_CHECKPOINT == 0

    async def wait_emptied(self) -> None:
        """Return when the last agent has ended."""
        await self._emptied.wait()

    async def drain(self) -> None:
        """Stop every agent: refuse outside senders, let the agents finish, run ``on_stop``, later agents first.

        Takes at most `grace` seconds until the agents are quiet and each ``on_start`` is over, and `grace` for each
        ``on_stop``. On cancellation agents are left to the nursery's owner, which ends them.
        """
        self.draining = True
        with trio.move_on_after(self.grace) as patience:
            if self.unfinished:
                await self._quiet.wait()
        for cell in reversed(self.cells()):
            cell.stop(max(0.0, patience.deadline - trio.current_time()))
            if cell.spec.on_stop:
                await cell.wait_stopped()

    def close(self) -> None:
        """Refuse what comes when nothing can run any more, and forget the agents that never did."""
        self.draining = True
        for cell in self.cells():
            if cell.state == "waiting":
                cell.stop(0)

    def _number(self, name: str) -> str:
        """Return a class's name for an unnamed agent: as it is first, then with a number."""
        if name not in self._cells and name not in self._numbers:
            return name
        numbers = self._numbers.setdefault(name, itertools.count(2))
        return next(free for number in numbers if (free := f"{name}_{number}") not in self._cells)


@final
@attrs.frozen
class LocalRoute:
    """The way to an agent of this process: straight into its mailbox."""

    runtime: Runtime = attrs.field(repr=False)
    name: str

    @property
    def address(self) -> str:
        """Where the agent is reached from other nodes."""
        return self.runtime.address_of(self.name)

    @property
    def ask_limit(self) -> float:
        """Seconds an ask without a deadline of its own may take."""
        return self.runtime.ask_limit

    async def tell(self, message: object) -> None:
        """Queue a message, waiting for room."""
        if self.runtime.yield_due():
            await trio.lowlevel.checkpoint()
        delivery, cell = Delivery(message, self.runtime.sender()), None
        try:
            cell = self.runtime.deliverable(self.name, message, delivery.sender)
            await cell.accept(delivery)
        except (NotHandled, NotDelivered) as error:
            self._bury(delivery, cell, error)

    def tell_nowait(self, message: object) -> None:
        """Queue a message or raise `MailboxFull`."""
        delivery, cell = Delivery(message, self.runtime.sender()), None
        try:
            cell = self.runtime.deliverable(self.name, message, delivery.sender)
            cell.accept_nowait(delivery)
        except (NotHandled, NotDelivered) as error:
            self._bury(delivery, cell, error)

    async def ask(self, message: object, deadline: float) -> Any:  # noqa: ANN401 - the reply's type is the request's
        """Queue a request and wait for its reply."""
        reply = PendingReply()
        delivery = Delivery(message, self.runtime.sender(), reply, deadline)
        await self.runtime.deliverable(self.name, message, delivery.sender).accept(delivery)
        return await reply.wait(delivery.cancel)

    def _bury(self, delivery: Delivery, cell: Cell | None, error: NotHandled | NotDelivered) -> None:
        """Make a `tell` that nobody takes a dead letter and no error, as it would be on another node."""
        if isinstance(error, NotHandled):
            reason: Reason = "not handled"
        elif self.runtime.draining and delivery.sender is OUTSIDE:
            raise error
        else:
            reason = "unknown agent" if cell is None else "stopped"
        self.runtime.bury(self.name, delivery.message, delivery.sender, reason)


@asynccontextmanager
async def open_runtime(*, ask_limit: float = 30.0, grace: float = 5.0) -> AsyncGenerator[Runtime]:
    """Hold agents for the length of a block, and drain them at its end.

    Args:
        ask_limit: seconds an ask may take that has no deadline of its own.
        grace: seconds agents get to finish what they have when the block ends.

    An exception in the block, or cancellation, ends the agents at once. Nothing is left running.
    """
    async with trio.open_nursery() as nursery:
        runtime = Runtime(nursery, ask_limit=ask_limit, grace=grace)
        try:
            yield runtime
            await runtime.drain()
        finally:
            runtime.close()
