"""The agents of one process: names, spawning, crews, draining."""

import contextvars
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast, final

import attrs
import trio

from autonomy_trio.actors.cell import Breed, Cell
from autonomy_trio.actors.context import Context
from autonomy_trio.actors.crew import Crew, Worker, speaker
from autonomy_trio.actors.dead_letters import TOPIC, DeadLetter, DeadLetters, Reason
from autonomy_trio.actors.deadlock import check_wait
from autonomy_trio.actors.delivery import OUTSIDE, Delivery, Sender
from autonomy_trio.actors.keeper import Keeper
from autonomy_trio.actors.local import LocalRef
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import Spec, spec_of
from autonomy_trio.actors.supervision import DEFAULT, Pool, Supervise
from autonomy_trio.actors.supervisor import Supervisor
from autonomy_trio.actors.topics import Topics
from autonomy_trio.errors import NameTaken, NotDelivered, UsageError
from autonomy_trio.messages import wire_name

if TYPE_CHECKING:
    from collections.abc import Mapping

A = TypeVar("A")

MOST_AWAKE: Final = 10_000
"""Awake agents from which on idle ones give way to those that wake, before their time."""
MOST_FREE: Final = 1_000
"""Crews that wait for an agent."""
_LOOKED_AT: Final = 4
"""Awake agents that are looked at for an idle one."""
_STOPPED_PER_CHECKPOINT: Final = 1_000
GRACES: Final = 4
"""How many times its grace a node gives to all `on_stop` hooks together; each gets one."""


class Interceptor(Protocol):
    """What wraps the handling of a message: tracing, metrics, a rate limit."""

    async def __call__(self, delivery: "Intercepted", proceed: Callable[[], Awaitable[Any]], /) -> Any:  # noqa: ANN401
        """Return what ``await proceed()`` returns, or raise a `DeliveryError` to refuse the message."""
        ...


@attrs.frozen
class Intercepted:
    """A message that is about to be handled, as an interceptor sees it."""

    recipient: str
    """The name of the agent."""
    message: object
    sender: Sender
    deadline: float
    """On trio's clock; infinite for a `tell`."""


@final
@attrs.define(eq=False, repr=False)
class Runtime:
    """Every agent of one node; made by `open_runtime`, wrapped by the fabric's node."""

    nursery: trio.Nursery
    ask_limit: float
    grace: float
    interceptors: Sequence[Interceptor] = ()
    address_of: Callable[[str], str] = attrs.field(default=str)
    """What an agent's name is called from outside."""
    owner: object = None
    """The node that wraps this runtime."""
    resolver: Callable[[str], AgentRef[Any]] | None = None
    """Finds agents that are not of this process."""
    know: Callable[[Spec], None] = attrs.field(default=lambda _: None)
    """Told of each class before its first instance lives."""
    dead_letters: DeadLetters = attrs.field(factory=DeadLetters)
    topics: Topics = attrs.field(factory=Topics)
    keeper: Keeper = attrs.field(init=False, default=attrs.Factory(Keeper, takes_self=True))
    awake: "OrderedDict[Crew, None]" = attrs.field(factory=OrderedDict["Crew", None])
    busy: set[Crew] = attrs.field(factory=set[Crew])
    """While draining: crews that have something to do."""
    draining: bool = False
    sends: int = 0
    handled: int = 0
    """Messages handled, without those of agents that are awake now."""
    withdrawn: int = 0
    """Messages whose asker had gone."""
    failures: int = 0
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context, repr=False)
    """Agents' tasks start in the node's own context, not in that of whoever happened to send the first message."""
    _cells: dict[str, Cell | PoolCell] = attrs.field(factory=dict[str, Cell | PoolCell])
    _breeds: dict[object, Breed] = attrs.field(factory=dict[object, Breed])
    _numbers: dict[str, int] = attrs.field(factory=dict[str, int])
    _free: dict[tuple[int, int], list[Crew]] = attrs.field(factory=dict[tuple[int, int], list[Crew]])
    _quiet: trio.Event = attrs.field(factory=trio.Event)
    _emptied: trio.Event = attrs.field(factory=trio.Event)
    _give_up_at: float = float("inf")

    # Agents

    def spawn(
        self, factory: "Callable[[], A] | Pool[A]", name: str | None = None, parent: "Supervisor | Cell | None" = None
    ) -> AgentRef[A]:
        """Make an agent, or a pool of them; see `Node.spawn`."""
        if isinstance(factory, Pool):
            return self._spawn_pool(cast("Pool[Any]", factory), name, parent)
        if self.draining or (isinstance(parent, Cell) and parent.state in ("stopping", "stopped")):
            msg = "the node or the agent is stopping: no agent can be spawned"
            raise NotDelivered(msg)
        breed = self._breeds.get(factory)
        if breed is None and isinstance(factory, type):
            spec = spec_of(factory)
            self.know(spec)
            breed = self._breeds[factory] = Breed(self, spec, factory)
        instance = factory()
        if breed is None:
            spec = spec_of(type(cast("object", instance)))
            self.know(spec)
            breed = Breed(self, spec, factory)
        name = self._number(breed.spec.name) if name is None else self._check_name(name)
        cell = self._cells[name] = Cell(breed, name, instance, parent)
        if isinstance(parent, Cell):
            parent.relations.children[cell] = None
        elif parent is not None:
            parent.children.append(cell)
        if breed.spec.on_start:
            cell.wake()
        return cast("AgentRef[A]", LocalRef(self, name, cell))

    def start(self, entry: "Callable[[], Any] | Pool[Any] | Supervise", parent: Supervisor | None = None) -> None:
        """Spawn an entry of an app's list."""
        if not isinstance(entry, Supervise):
            self.spawn(entry, None, parent)
            return
        supervisor = Supervisor(self, entry, parent)
        if parent is not None:
            parent.children.append(supervisor)
        for child in entry.children:
            self.start(child, supervisor)

    def supervisor_of(self, cell: Cell) -> Supervisor:
        """Return an agent's supervisor; one of its own where no other was declared."""
        parent = cell.parent
        if not isinstance(parent, Supervisor):
            parent = cell.parent = Supervisor(self, DEFAULT, parent, [cell])
        return parent

    def ref(self, name: str) -> AgentRef[Any]:
        """Return a ref to the agent of that name, which need not live yet."""
        return LocalRef(self, name)

    def resolve(self, target: str) -> AgentRef[Any]:
        """Return a ref by a name or an address."""
        return LocalRef(self, target) if self.resolver is None else self.resolver(target)

    def find(self, name: str) -> Cell | PoolCell | None:
        """Return the agent or pool of that name."""
        return self._cells.get(name)

    def specs(self) -> "Mapping[str, Spec]":
        """Return what each living agent or pool declares, by name, in the order they were spawned."""
        return {name: cell.spec for name, cell in self._cells.items() if name == cell.name and "/" not in name}

    def cells(self) -> list[Cell]:
        """Return all agents, in the order they were spawned."""
        return [cell for cell in self._cells.values() if isinstance(cell, Cell)]

    def count(self) -> int:
        """Return how many agents live."""
        return len(self._cells)

    def forget(self, cell: Cell) -> None:
        """Give an ended agent's name back."""
        if self._cells.get(cell.name) is cell:
            del self._cells[cell.name]
        parent = cell.parent
        while isinstance(parent, Supervisor):
            if cell in parent.children:
                parent.children.remove(cell)
            parent = parent.parent
        if isinstance(parent, Cell) and parent.has_children:
            parent.relations.children.pop(cell, None)
        pool = self._cells.get(cell.name.partition("/")[0])
        if isinstance(pool, PoolCell) and pool.state == "stopped":
            del self._cells[pool.name]
        if not self._cells:
            self._emptied.set()

    # Crews

    def hire(self, cell: Cell) -> Crew:
        """Return a crew for an agent that wakes: a free one, that of an agent long idle, or a new one."""
        key = cell.spec.mailbox.capacity, cell.spec.concurrency
        free = self._free.setdefault(key, [])
        if not free and len(self.awake) >= MOST_AWAKE:
            self._put_to_rest()
        crew = free.pop() if free else self._new_crew(cell, key)
        crew.cell = cell
        crew.seen = -1
        self.awake[crew] = None
        self.keeper.watch_awake()
        return crew

    def take_back(self, crew: Crew) -> None:
        """Keep the crew of an agent that rests for another one."""
        self.let_go(crew)
        crew.cell = crew.belongings = None
        free = self._free.setdefault((crew.capacity, crew.size), [])
        if len(free) < MOST_FREE and not self.draining:
            free.append(crew)
        else:
            crew.dismiss()

    def let_go(self, crew: Crew) -> None:
        """Count a crew as no agent's any more."""
        self.awake.pop(crew, None)
        self.handled += crew.handled
        crew.handled = 0
        self.quieted(crew)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object, name: object = None) -> None:
        """Start a task in the node's nursery and context."""
        self.context.copy().run(lambda: self.nursery.start_soon(function, *args, name=name))

    def _new_crew(self, cell: Cell, key: tuple[int, int]) -> Crew:
        send, receive = trio.open_memory_channel[Delivery](key[0])
        crew = Crew(self, cell, key[0], key[1], send, receive)
        for worker in crew.workers:
            self.start_soon(worker.run, name="agent's worker")
        return crew

    def _put_to_rest(self) -> None:
        """Send one of the agents that woke first to rest, if it is idle."""
        for _ in range(_LOOKED_AT):
            crew = next(iter(self.awake))
            if crew.can_rest and crew.cell is not None and crew.cell.state == "running":
                crew.cell.rest()
                return
            self.awake.move_to_end(crew)

    # Messages

    def publish(self, topic: str, message: object, source: Cell | None = None) -> None:
        """Send a message to a topic's subscribers."""
        self.topics.publish(topic, message, source)

    def sender(self) -> Sender:
        """Return who sends: the agent whose code is running, else the node."""
        speaking = speaker.get()
        if speaking is None or speaking.cell.runtime is not self:
            return OUTSIDE
        return Sender(speaking.cell.name, "")

    def check_wait(self, worker: Worker, cell: Cell) -> None:
        """Refuse a wait that could never end; see `deadlock`."""
        check_wait(worker, cell)

    async def intercepted(self, cell: Cell, delivery: Delivery) -> Any:  # noqa: ANN401 - the reply's type is the request's
        """Handle a message inside the interceptors, the first one outermost."""
        handler = delivery.handler
        seen = Intercepted(cell.name, delivery.message, delivery.sender, delivery.deadline)

        async def call() -> Any:  # noqa: ANN401
            arguments = (Context(cell, delivery),) if handler.takes_context else ()
            result = handler.function(cell.instance, delivery.message, *arguments)
            if handler.kind == "async":
                result = await result
            if delivery.reply is not None:
                handler.check_reply(result)
            return result

        proceed: Callable[[], Awaitable[Any]] = call
        for interceptor in reversed(self.interceptors):
            proceed = _around(interceptor, seen, proceed)
        return await proceed()

    def bury(self, recipient: str, message: object, sender: Sender, reason: Reason) -> None:
        """Count a message of this process that is not handled to its end."""
        letter = DeadLetter(recipient, wire_name(type(message)), sender.id, reason)
        if isinstance(message, DeadLetter):  # one about another is not published: it would breed the next
            self.dead_letters.add(letter)
        else:
            self.add_dead_letter(letter)

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """Count a dead letter, and publish it."""
        self.dead_letters.add(letter)
        self.topics.publish(TOPIC, letter, None)

    def lost_publication(self, cell: Cell, message: object, sender: str, reason: Reason) -> None:
        """Count what a subscriber could not take; a dead letter about a dead letter is not published again."""
        letter = DeadLetter(cell.name, wire_name(type(message)), sender, reason)
        if isinstance(message, DeadLetter):
            self.dead_letters.add(letter)
        else:
            self.add_dead_letter(letter)

    def failed(self, cell: Cell) -> None:
        """Count an agent's failure."""
        del cell
        self.failures += 1

    def handled_so_far(self) -> int:
        """Return how many messages were handled to their end."""
        return self.handled + sum(crew.handled for crew in self.awake)

    def queued(self) -> int:
        """Return how many messages wait or are being handled."""
        return sum(
            crew.queued()
            + sum(each.current is not None for each in crew.workers)
            + (len(crew.belongings.stash) if crew.belongings else 0)
            for crew in self.awake
        )

    # The end

    def quieted(self, crew: Crew) -> None:
        """Note while draining that a crew has nothing to do."""
        if self.draining and (crew.idle or crew.cell is None or crew not in self.awake):
            self.busy.discard(crew)
            if not self.busy:
                self._quiet.set()

    def patience(self) -> float:
        """Return until when an instance that ends may take, on trio's clock."""
        return min(self._give_up_at, trio.current_time() + self.grace)

    async def wait_emptied(self) -> None:
        """Return when the last agent has ended."""
        while self._cells:
            self._emptied = trio.Event()
            await self._emptied.wait()

    async def drain(self) -> None:
        """Stop every agent: refuse outside senders, let the agents finish, run ``on_stop``, later agents first.

        Takes at most `grace` seconds until the agents are quiet and each ``on_start`` is over, `grace` for each
        ``on_stop`` hook, and four times `grace` for all of them. On cancellation agents are left to the nursery's
        owner, which ends them.
        """
        self.draining = True
        self.busy = {crew for crew in self.awake if not crew.idle}
        with trio.move_on_after(self.grace) as patience:
            if self.busy:
                await self._quiet.wait()
        self._give_up_at = trio.current_time() + GRACES * self.grace
        for number, cell in enumerate(reversed(self.cells()), 1):
            cell.stop(max(0.0, patience.deadline - trio.current_time()))
            if cell.spec.on_stop or cell.has_children:
                await cell.wait_stopped()
            if not number % _STOPPED_PER_CHECKPOINT:
                await trio.lowlevel.checkpoint()
        for cell in self.cells():
            await cell.wait_stopped()

    def close(self) -> None:
        """Refuse what comes when nothing can run any more, and forget the agents that never did."""
        self.draining = True
        for cell in self.cells():
            if cell.state == "resting":
                cell.end()
        for free in self._free.values():
            while free:
                free.pop().dismiss()

    # Names

    def _spawn_pool(self, pool: Pool[A], name: str | None, parent: "Supervisor | Cell | None") -> AgentRef[A]:
        cls = pool.factory if isinstance(pool.factory, type) else type(cast("object", pool.factory()))
        spec = spec_of(cls)
        name = self._number(spec.name) if name is None else self._check_name(name)
        supervisor = Supervisor(self, DEFAULT, parent)
        if isinstance(parent, Supervisor):
            parent.children.append(supervisor)
        names = [f"{name}/{number}" for number in range(pool.size)]
        members = [self._spawn_member(pool.factory, each, supervisor, parent) for each in names]
        self._cells[name] = PoolCell(name, members)
        return cast("AgentRef[A]", LocalRef(self, name))

    def _spawn_member(
        self, factory: Callable[[], Any], name: str, supervisor: Supervisor, parent: "Supervisor | Cell | None"
    ) -> Cell:
        ref = self.spawn(factory, name, supervisor)
        cell = self._cells[ref.name]
        assert isinstance(cell, Cell)  # noqa: S101 - a member is an agent
        if isinstance(parent, Cell):
            parent.relations.children[cell] = None
        return cell

    def _check_name(self, name: str) -> str:
        taken = self._cells.get(name)
        if taken is not None:
            msg = f"{name!r} is the name of a {taken.spec.agent} on this node: choose another"
            raise NameTaken(msg)
        member = "/" in name and name.partition("/")[0] not in self._cells and name.rpartition("/")[2].isdigit()
        if not name or not name.isprintable() or name.startswith("#") or ("/" in name and not member):
            msg = f"{name!r} cannot be an agent's name: use letters, digits, '_', '-' or '.'"
            raise UsageError(msg)
        return name

    def _number(self, name: str) -> str:
        """Return a class's name for an unnamed agent: as it is first, then with a number never used before."""
        if name not in self._cells and name not in self._numbers:
            return name
        number = self._numbers.get(name, 1) + 1
        while (numbered := f"{name}_{number}") in self._cells:
            number += 1
        self._numbers[name] = number
        return numbered


def _around(
    interceptor: Interceptor, seen: Intercepted, proceed: Callable[[], Awaitable[Any]]
) -> Callable[[], Awaitable[Any]]:
    return lambda: interceptor(seen, proceed)


@asynccontextmanager
async def open_runtime(
    *, ask_limit: float = 30.0, grace: float = 5.0, interceptors: Sequence[Interceptor] = ()
) -> AsyncGenerator[Runtime]:
    """Hold agents for the length of a block, and drain them at its end.

    Args:
        ask_limit: seconds an ask may take that has no deadline of its own.
        grace: seconds agents get to finish what they have when the block ends, and again for their ``on_stop`` hooks.
        interceptors: what wraps the handling of each message, the first one outermost.

    An exception in the block, or cancellation, ends the agents at once. Nothing is left running.
    """
    async with trio.open_nursery() as nursery:
        runtime = Runtime(nursery, ask_limit, grace, interceptors)
        keeping = trio.CancelScope()

        async def keep() -> None:
            with keeping:
                await runtime.keeper.run()

        nursery.start_soon(keep)
        try:
            yield runtime
            await runtime.drain()
        finally:
            keeping.cancel()
            runtime.close()
