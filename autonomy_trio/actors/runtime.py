"""The agents of one process: names, spawning, crews, draining."""

import contextvars
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import attrs
import trio

from autonomy_trio.actors.cell import Breed, Cell
from autonomy_trio.actors.crew import Crew
from autonomy_trio.actors.dead_letters import TOPIC, DeadLetter, DeadLetters, Reason
from autonomy_trio.actors.deadlock import check_wait
from autonomy_trio.actors.delivery import OUTSIDE, Delivery, Sender
from autonomy_trio.actors.interceptors import Interceptor
from autonomy_trio.actors.keeper import Keeper
from autonomy_trio.actors.local import LocalRef
from autonomy_trio.actors.names import Names
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import Spec, build, spec_of
from autonomy_trio.actors.starter import Starter
from autonomy_trio.actors.supervision import DEFAULT, Pool, Supervise
from autonomy_trio.actors.supervisor import Supervisor
from autonomy_trio.actors.topics import Topics
from autonomy_trio.actors.voices import Voice, speaker
from autonomy_trio.errors import DeclarationError, NotDelivered, UsageError
from autonomy_trio.logs import ErrorLog
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
    resolver: Callable[[str, Callable[..., Any] | None], AgentRef[Any]] | None = None
    """Finds agents that are not of this process."""
    know: Callable[[Spec], None] = attrs.field(default=lambda _: None)
    """Told of each class before its first instance lives."""
    on_failure: Callable[[str, object, Exception], None] = attrs.field(default=lambda _, __, ___: None)
    """Told of each failure: the agent's name, the message it was handling or None, and what was raised."""
    dead_letters: DeadLetters = attrs.field(factory=DeadLetters)
    topics: Topics = attrs.field(factory=Topics)
    keeper: Keeper = attrs.field(init=False, default=attrs.Factory(Keeper, takes_self=True))
    names: Names = attrs.field(factory=Names)
    starter: Starter = attrs.field(factory=Starter)
    awake: "OrderedDict[Crew, None]" = attrs.field(factory=OrderedDict["Crew", None])
    busy: set[Crew] = attrs.field(factory=set[Crew])
    """While draining: crews that have something to do."""
    draining: bool = False
    here: Delivery | None = None
    """The message that a plain handler with a context handles now in its asker's task."""
    sends: int = 0
    handled: int = 0
    """Messages handled, without those of agents that are awake now."""
    withdrawn: int = 0
    """Messages whose asker had gone."""
    failures: int = 0
    errors: ErrorLog = attrs.field(factory=ErrorLog, repr=False)
    """Where failures of agents are logged."""
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context, repr=False)
    """Agents' tasks start in the node's own context, not in that of whoever happened to send the first message."""
    _breeds: dict[object, Breed] = attrs.field(factory=dict[object, Breed])
    _free: dict[tuple[int, int], list[Crew]] = attrs.field(factory=dict[tuple[int, int], list[Crew]])
    _quiet: trio.Event = attrs.field(factory=trio.Event)
    _emptied: trio.Event = attrs.field(factory=trio.Event)
    _give_up_at: float = float("inf")

    # Agents

    def spawn(
        self,
        factory: "Callable[[], A] | Pool[A]",
        name: str | None = None,
        parent: "Supervisor | Cell | None" = None,
        *,
        listed: bool = False,
    ) -> AgentRef[A]:
        """Make an agent, or a pool of them; see `Node.spawn`. One that an app lists goes by its class's name alone."""
        if isinstance(factory, Pool):
            return self._spawn_pool(cast("Pool[Any]", factory), name, parent, listed=listed)
        breed, instance = self._build(factory, parent)
        name = self.names.number(breed.spec, listed=listed) if name is None else self.names.check(name)
        return cast("AgentRef[A]", LocalRef(self, name, self._add(breed, name, instance, parent)))

    def _build(self, factory: Callable[[], Any], parent: "Supervisor | Cell | None") -> tuple[Breed, Any]:
        if self.draining or (isinstance(parent, Cell) and parent.state in ("halted", "stopping", "stopped")):
            msg = "the node or the agent is stopping, or about to be restarted: no agent can be spawned"
            raise NotDelivered(msg)
        if not callable(cast("object", factory)):
            kind = type(factory).__name__
            msg = f"an object of type {kind} was spawned: give an agent class, a callable that builds one, or a pool"
            raise DeclarationError(msg)
        breed = self._breeds.get(factory) if isinstance(factory, type) else None
        if breed is None and isinstance(factory, type):
            spec = spec_of(factory)
            self.know(spec)
            breed = self._breeds[factory] = Breed(self, spec, factory)
        instance = build(factory)
        if breed is None:
            spec = spec_of(type(cast("object", instance)))
            self.know(spec)
            breed = Breed(self, spec, factory)
        return breed, instance

    def _add(self, breed: Breed, name: str, instance: object, parent: "Supervisor | Cell | None") -> Cell:
        cell = self.names.held[name] = Cell(breed, name, instance, parent)
        if isinstance(parent, Cell):
            self._adopt(parent, cell)
        elif parent is not None:
            parent.children.append(cell)
        if breed.spec.on_start:
            self.starter.add(cell)
        return cell

    def _adopt(self, parent: Cell, child: Cell) -> None:
        parent.relations.children[child] = None
        self.keeper.note_child(parent)

    def start(self, entry: "Callable[[], Any] | Pool[Any] | Supervise", parent: Supervisor | None = None) -> None:
        """Spawn an entry of an app's list; agents under a supervisor start one after the other.

        Raises:
            NameTaken: two agents of the app would go by one name.
        """
        if not isinstance(entry, Supervise):
            self.spawn(entry, None, parent, listed=True)
            return
        supervisor = Supervisor(self, entry, parent)
        if parent is not None:
            parent.children.append(supervisor)
        for child in entry.children:
            self.start(child, supervisor)
        if parent is None:
            supervisor.begin()

    def _spawn_pool(
        self, pool: Pool[A], name: str | None, parent: "Supervisor | Cell | None", *, listed: bool
    ) -> AgentRef[A]:
        built = [self._build(pool.factory, parent) for _ in range(pool.size)]
        spec = built[0][0].spec
        name = self.names.number(spec, listed=listed) if name is None else self.names.check(name)
        supervisor = Supervisor(self, DEFAULT, parent)
        if isinstance(parent, Supervisor):
            parent.children.append(supervisor)
        members: list[Cell] = []
        for number, (breed, instance) in enumerate(built):
            cell = self._add(breed, f"{name}/{number}", instance, supervisor)
            if isinstance(parent, Cell):
                self._adopt(parent, cell)
            members.append(cell)
        self.names.held[name] = PoolCell(name, members)
        return cast("AgentRef[A]", LocalRef(self, name))

    def supervisor_of(self, cell: Cell) -> Supervisor:
        """Return an agent's supervisor; one of its own where no other was declared."""
        parent = cell.parent
        if not isinstance(parent, Supervisor):
            parent = cell.parent = Supervisor(self, DEFAULT, parent, [cell])
        return parent

    def ref(self, name: str) -> AgentRef[Any]:
        """Return a ref to the agent of that name, which need not live yet."""
        return LocalRef(self, name)

    def resolve(self, target: str, agent: Callable[..., Any] | None) -> AgentRef[Any]:
        """Return a ref by a name or an address."""
        return LocalRef(self, target) if self.resolver is None else self.resolver(target, agent)

    def find(self, name: str) -> Cell | PoolCell | None:
        """Return the agent or pool of that name."""
        return self.names.held.get(name)

    def specs(self) -> "Mapping[str, Spec]":
        """Return what each living agent or pool declares, by name, in the order they were spawned."""
        return {name: cell.spec for name, cell in self.names.held.items() if name == cell.name and "/" not in name}

    def cells(self) -> list[Cell]:
        """Return all agents, in the order they were spawned."""
        return [cell for cell in self.names.held.values() if isinstance(cell, Cell)]

    def count(self) -> int:
        """Return how many agents live."""
        return len(self.names.held)

    def forget(self, cell: Cell) -> None:
        """Give an ended agent's name back, and its place below its supervisor or parent."""
        self.names.forget(cell)
        parent = cell.parent
        while isinstance(parent, Supervisor):
            if cell in parent.children:
                parent.children.remove(cell)
            parent = parent.parent
        if isinstance(parent, Cell) and parent.has_children:
            parent.relations.children.pop(cell, None)
        if not self.names.held:
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
        crew.seen, crew.overflowed, crew.full = -1, False, 0
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

    def speaking(self) -> Cell | None:
        """Return the agent of this node whose code is running; None outside of any."""
        speaking = speaker.get()
        return None if speaking is None or speaking.cell.runtime is not self else speaking.cell

    @contextmanager
    def speaking_for(self, name: str) -> Generator[bool]:
        """Have what is sent in a block be an agent's; tells whether there is an agent of that name."""
        found = self.find(name)
        cell = found.living() if isinstance(found, PoolCell) else found
        if cell is None:
            yield False
            return
        token = speaker.set(cell)
        try:
            yield True
        finally:
            speaker.reset(token)

    def sender(self) -> Sender:
        """Return who sends: the agent whose code is running, else the node."""
        cell = self.speaking()
        return OUTSIDE if cell is None else Sender(cell.name, "")

    def check_wait(self, waiter: Voice, cell: Cell) -> None:
        """Refuse a wait that could never end; see `deadlock`."""
        check_wait(waiter, cell)

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

    def failed(self, cell: Cell, error: Exception, message: object) -> None:
        """Count an agent's failure."""
        self.failures += 1
        self.keeper.note_failure(cell.name)
        self.on_failure(cell.name, message, error)

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
        if self.draining and (crew not in self.awake or _is_quiet(crew)):
            self.busy.discard(crew)
            if not self.busy:
                self._quiet.set()

    def patience(self) -> float:
        """Return until when an instance that ends may take, on trio's clock."""
        return min(self._give_up_at, trio.current_time() + self.grace)

    async def wait_emptied(self) -> None:
        """Return when the last agent has ended."""
        while self.names.held:
            self._emptied = trio.Event()
            await self._emptied.wait()

    async def drain(self) -> None:
        """Stop every agent: refuse outside senders, let the agents finish, run ``on_stop``, later agents first.

        Takes at most `grace` seconds until the agents are quiet and each ``on_start`` is over; one that waits for its
        restart is quiet if no message waits for it. Then `grace` for each ``on_stop`` hook, and four times `grace` for
        all of them. On cancellation agents are left to the nursery's owner, which ends them.
        """
        self.draining = True
        with trio.move_on_after(self.grace) as patience:
            await self.starter.wait_done()
            self._quiet = trio.Event()
            self.busy = {crew for crew in self.awake if not _is_quiet(crew)}
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


def _is_quiet(crew: Crew) -> bool:
    """Whether a crew has nothing to do: none of its agent's code runs, and no message waits for it."""
    return crew.cell is None or crew.idle or (crew.cell.paused and not crew.queued())


@asynccontextmanager
async def open_runtime(
    *, ask_limit: float = 30.0, grace: float = 5.0, interceptors: Sequence[Interceptor] = ()
) -> AsyncGenerator[Runtime]:
    """Hold agents for the length of a block, and drain them at its end.

    Args:
        ask_limit: seconds an ask may take that has no deadline of its own.
        grace: seconds agents get to finish what they have when the block ends, and again for their ``on_stop`` hooks.
        interceptors: what wraps the handling of each message, the first one outermost.

    Raises:
        UsageError: a time that cannot be right.

    An exception in the block, or cancellation, ends the agents at once. Nothing is left running.
    """
    if not (isinstance(cast("object", ask_limit), int | float) and ask_limit > 0):
        msg = f"ask_limit={ask_limit!r}: give seconds, more than 0"
        raise UsageError(msg)
    if not (isinstance(cast("object", grace), int | float) and grace >= 0):
        msg = f"grace={grace!r}: give seconds, 0 or more"
        raise UsageError(msg)
    async with trio.open_nursery() as nursery:
        runtime = Runtime(nursery, ask_limit, grace, interceptors)
        keeping = trio.CancelScope()

        async def keep() -> None:
            with keeping:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(runtime.keeper.run)
                    tasks.start_soon(runtime.starter.run)

        nursery.start_soon(keep)
        try:
            yield runtime
            await runtime.drain()
        finally:
            keeping.cancel()
            runtime.close()
