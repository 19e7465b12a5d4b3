"""The local workloads as a user of autonomy_trio would write them; the sender is code in a node's block.

A function here has its counterpart of the same name in `raw`, checks its result and returns seconds of CPU time.
"""

from collections.abc import Iterator
from functools import partial

import trio
from attrs import Factory, field

from autonomy_trio import AgentRef, Context, agent, on, open_node
from benchmarks import workloads
from benchmarks.measure import check, cpu_time
from benchmarks.workloads import (
    BIG,
    PERIOD,
    RING,
    TIMERS,
    Add,
    More,
    Ping,
    Pong,
    Read,
    Start,
    Tick,
    Token,
    Total,
    p99,
    peers_of,
)


@agent
class Counter:
    """Adds up in coroutines."""

    total: int = 0

    @on(More)
    async def more(self, message: More) -> None:
        """Add to the sum."""
        self.total += message.amount

    @on(Add)
    async def add(self, message: Add) -> Total:
        """Add to the sum, and return it."""
        self.total += message.amount
        return Total(self.total)

    @on(Read)
    async def read(self, message: Read) -> Total:  # noqa: ARG002 - it says nothing but its type
        """Return the sum."""
        return Total(self.total)


@agent
class PlainCounter:
    """Adds up in a plain function."""

    total: int = 0

    @on(Add)
    def add(self, message: Add) -> Total:
        """Add to the sum."""
        self.total += message.amount
        return Total(self.total)


@agent
class Station:
    """Passes a token on."""

    following: AgentRef["Station"]
    done: trio.Event
    passed: int = 0

    @on(Token)
    async def take(self, token: Token) -> None:
        """Pass it on, or end its way."""
        self.passed += 1
        if token.hops == 0:
            self.done.set()
        else:
            await self.following.tell(Token(token.hops - 1))

    @on(Read)
    async def read(self, message: Read) -> Total:  # noqa: ARG002 - it says nothing but its type
        """Return how often the token came by."""
        return Total(self.passed)


@agent
class Player:
    """Pings others, one after the other's pong, and answers their pings."""

    index: int
    players: list[AgentRef["Player"]]
    peers: Iterator[int]
    finished: trio.Semaphore
    pinged: int = 0
    ping: Ping = field(init=False, default=Factory(lambda self: Ping(self.index), takes_self=True))

    @on(Start)
    async def start(self, message: Start) -> None:  # noqa: ARG002 - it says nothing but its type
        """Send the first ping."""
        await self.players[next(self.peers)].tell(self.ping)

    @on(Ping)
    async def answer(self, message: Ping) -> None:
        """Send a pong."""
        self.pinged += 1
        await self.players[message.sender].tell(Pong())

    @on(Pong)
    async def go_on(self, message: Pong) -> None:  # noqa: ARG002 - it says nothing but its type
        """Send the next ping."""
        peer = next(self.peers, None)
        if peer is None:
            self.finished.release()
        else:
            await self.players[peer].tell(self.ping)

    @on(Read)
    async def read(self, message: Read) -> Total:  # noqa: ARG002 - it says nothing but its type
        """Return how many pings came."""
        return Total(self.pinged)


class Tally:
    """What many agents add up together."""

    def __init__(self, expected: int) -> None:
        self.total = 0
        self.expected = expected
        self.reached = trio.Event()

    def add(self, amount: int) -> None:
        """Add to the sum."""
        self.total += amount
        if self.total >= self.expected:
            self.reached.set()


@agent
class Contributor:
    """One of many that add to one sum."""

    tally: Tally

    @on(More)
    async def more(self, message: More) -> None:
        """Add to the common sum."""
        self.tally.add(message.amount)


@agent
class Idler:
    """One of very many that have nothing to do; what an application's smallest agent is."""

    total: int = 0

    @on(Add)
    async def add(self, message: Add) -> Total:
        """Add to the sum."""
        self.total += message.amount
        return Total(self.total)


@agent
class Sleeper:
    """Notes how late its timers are."""

    end: float
    lateness: list[float]

    @on(Start)
    async def start(self, message: Start, context: Context) -> None:  # noqa: ARG002 - it says nothing but its type
        """Set the first timers."""
        for _ in range(TIMERS):
            self._set(context)

    @on(Tick)
    async def tick(self, message: Tick, context: Context) -> None:
        """Note how late this one is, and set the next."""
        self.lateness.append(trio.current_time() - message.due)
        self._set(context)

    def _set(self, context: Context) -> None:
        due = trio.current_time() + PERIOD
        if due < self.end:
            context.after(PERIOD, Tick(due))


async def count(messages: int) -> float:
    """Tells to one agent."""
    async with open_node() as node:
        counter = node.spawn(Counter)
        with cpu_time() as spent:
            for _ in range(messages):
                await counter.tell(workloads.ONE)
            total = await counter.ask(Read())
        check("count", total.value, messages)
    return spent.seconds


async def ask(requests: int, askers: int) -> float:
    """Asks to a coroutine, by askers of one request at a time."""
    async with open_node() as node:
        return await _ask(node.spawn(Counter), requests, askers)


async def ask_plain(requests: int, askers: int) -> float:
    """Asks to a plain function of an agent that has nothing else to do."""
    async with open_node() as node:
        return await _ask(node.spawn(PlainCounter), requests, askers)


async def _ask(counter: AgentRef[Counter] | AgentRef[PlainCounter], requests: int, askers: int) -> float:
    totals = 0

    async def ask_in_turn() -> None:
        nonlocal totals
        for _ in range(requests // askers):
            total = await counter.ask(workloads.ASK)
            totals += total.value

    with cpu_time() as spent:
        async with trio.open_nursery() as nursery:
            for _ in range(askers):
                nursery.start_soon(ask_in_turn)
    check("ask", totals, sum(range(requests + 1)))
    return spent.seconds


async def ring(hops: int) -> float:
    """One token through a hundred agents."""
    done = trio.Event()
    async with open_node() as node:
        stations = [
            node.spawn(partial(Station, node.ref(f"station_{(index + 1) % RING}", Station), done), f"station_{index}")
            for index in range(RING)
        ]
        with cpu_time() as spent:
            await stations[0].tell(Token(hops))
            await done.wait()
        passed = [(await station.ask(Read())).value for station in stations]
        check("ring", sum(passed), hops + 1)
    return spent.seconds


async def big(pings: int) -> float:
    """Savina's big: each of many agents pings one of the others and waits for its pong before it pings the next."""
    players: list[AgentRef[Player]] = []
    finished = trio.Semaphore(0)
    async with open_node() as node:
        for index in range(BIG):
            players.append(node.spawn(partial(Player, index, players, iter(peers_of(index, pings)), finished)))
        with cpu_time() as spent:
            for player in players:
                await player.tell(Start())
            for _ in players:
                await finished.acquire()
        pinged = [(await player.ask(Read())).value for player in players]
        check("big", sum(pinged), BIG * pings)
    return spent.seconds


async def create(agents: int) -> float:
    """Spawn an agent and send it one message; until all are handled."""
    tally = Tally(agents)
    contributor = partial(Contributor, tally)
    async with open_node() as node:
        with cpu_time() as spent:
            for _ in range(agents):
                await node.spawn(contributor).tell(workloads.ONE)
            await tally.reached.wait()
        check("create", tally.total, agents)
    return spent.seconds


async def start(agents: int) -> float:
    """Spawn agents that have nothing to do yet."""
    async with open_node() as node:
        with cpu_time() as spent:
            for _ in range(agents):
                node.spawn(Idler)
        check("start", node.statistics().agents, agents)
    return spent.seconds


async def flood(seconds: float) -> float:
    """Return the 99th percentile of lateness, in milliseconds, of an agent's timers while another one is flooded."""
    lateness: list[float] = []
    sent = 0
    end = trio.current_time() + seconds
    async with open_node() as node:
        flooded = node.spawn(Counter)
        await node.spawn(partial(Sleeper, end, lateness)).tell(Start())
        while trio.current_time() < end:
            await flooded.tell(workloads.ONE)
            sent += 1
        total = await flooded.ask(Read())
        check("flood", total.value, sent)
    return p99(lateness)
