"""The references: each local workload on trio alone, by a task and a memory channel of 64 places for each agent.

A function here has its counterpart of the same name in `agents`, checks its result and returns seconds of CPU time.
"""

import trio
import trio.testing

from benchmarks import workloads
from benchmarks.measure import check, cpu_time
from benchmarks.workloads import BIG, CAPACITY, PERIOD, RING, TIMERS, Add, More, Ping, Pong, Token, Total, p99, peers_of


async def count(messages: int) -> float:
    """One sender, one receiver that adds up."""
    send, receive = trio.open_memory_channel[More](CAPACITY)
    total = 0

    async def add_up() -> None:
        nonlocal total
        async for message in receive:
            total += message.amount

    with cpu_time() as spent:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(add_up)
            async with send:
                for _ in range(messages):
                    await send.send(workloads.ONE)
    check("raw count", total, messages)
    return spent.seconds


async def ask(requests: int, askers: int) -> float:
    """Askers in turns of one request at a time; a new channel for each reply."""
    send, receive = trio.open_memory_channel[tuple[Add, trio.MemorySendChannel[Total]]](CAPACITY)
    totals = 0

    async def answer() -> None:
        total = 0
        async for message, reply in receive:
            total += message.amount
            await reply.send(Total(total))

    async def ask_in_turn(own: trio.MemorySendChannel[tuple[Add, trio.MemorySendChannel[Total]]]) -> None:
        nonlocal totals
        async with own:
            for _ in range(requests // askers):
                reply_to, reply = trio.open_memory_channel[Total](1)
                await own.send((workloads.ASK, reply_to))
                total = await reply.receive()
                totals += total.value

    with cpu_time() as spent:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            async with send:
                for _ in range(askers):
                    nursery.start_soon(ask_in_turn, send.clone())
    check("raw ask", totals, sum(range(requests + 1)))
    return spent.seconds


async def ring(hops: int) -> float:
    """One token through a hundred tasks."""
    channels = [trio.open_memory_channel[Token](CAPACITY) for _ in range(RING)]
    passed = 0
    done = trio.Event()

    async def station(receive: trio.MemoryReceiveChannel[Token], following: trio.MemorySendChannel[Token]) -> None:
        nonlocal passed
        async for token in receive:
            passed += 1
            if token.hops == 0:
                done.set()
            else:
                await following.send(Token(token.hops - 1))

    async with trio.open_nursery() as nursery:
        for (_, receive), (following, _) in zip(channels, [*channels[1:], channels[0]], strict=True):
            nursery.start_soon(station, receive, following)
        with cpu_time() as spent:
            await channels[0][0].send(Token(hops))
            await done.wait()
        nursery.cancel_scope.cancel()
    check("raw ring", passed, hops + 1)
    return spent.seconds


async def big(pings: int) -> float:
    """Savina's big: each of many tasks pings one of the others and waits for its pong before it pings the next."""
    channels = [trio.open_memory_channel[Ping | Pong](CAPACITY) for _ in range(BIG)]
    pinged = finished = 0
    done = trio.Event()

    async def player(index: int) -> None:
        nonlocal pinged, finished
        peers = iter(peers_of(index, pings))
        ping = Ping(index)
        await channels[next(peers)][0].send(ping)
        async for message in channels[index][1]:
            if isinstance(message, Ping):
                pinged += 1
                await channels[message.sender][0].send(Pong())
            elif (peer := next(peers, None)) is not None:
                await channels[peer][0].send(ping)
            else:
                finished += 1
                if finished == BIG:
                    done.set()

    async with trio.open_nursery() as nursery:
        with cpu_time() as spent:
            for index in range(BIG):
                nursery.start_soon(player, index)
            await done.wait()
        nursery.cancel_scope.cancel()
    check("raw big", pinged, BIG * pings)
    return spent.seconds


async def create(tasks: int) -> float:
    """Make a channel and a task that stays, send it one message; until all are handled."""
    total = 0
    done = trio.Event()

    async def add_up(receive: trio.MemoryReceiveChannel[More]) -> None:
        nonlocal total
        async for message in receive:
            total += message.amount
            if total >= tasks:
                done.set()

    async with trio.open_nursery() as nursery:
        with cpu_time() as spent:
            for _ in range(tasks):
                send, receive = trio.open_memory_channel[More](CAPACITY)
                nursery.start_soon(add_up, receive)
                await send.send(workloads.ONE)
            await done.wait()
        check("raw create", total, tasks)
        nursery.cancel_scope.cancel()
    return spent.seconds


async def idle(nursery: trio.Nursery, tasks: int) -> list[trio.MemorySendChannel[More]]:
    """Start tasks that each wait on a channel of their own, and return its ends; for who measures what they cost."""

    async def wait(receive: trio.MemoryReceiveChannel[More]) -> None:
        async for _ in receive:
            pass

    ends: list[trio.MemorySendChannel[More]] = []
    for _ in range(tasks):
        send, receive = trio.open_memory_channel[More](CAPACITY)
        ends.append(send)
        nursery.start_soon(wait, receive)
    await trio.testing.wait_all_tasks_blocked()
    return ends


async def start(tasks: int) -> float:
    """Start tasks that wait on a channel of their own."""
    async with trio.open_nursery() as nursery:
        with cpu_time() as spent:
            ends = await idle(nursery, tasks)
        check("raw start", len(nursery.child_tasks), tasks)
        check("raw start", sum(end.statistics().tasks_waiting_receive for end in ends), tasks)
        nursery.cancel_scope.cancel()
    return spent.seconds


async def flood(seconds: float) -> float:
    """Return the 99th percentile of lateness, in milliseconds, of tasks that sleep beside a flooded channel."""
    lateness: list[float] = []
    send, receive = trio.open_memory_channel[More](CAPACITY)
    total = sent = 0
    end = trio.current_time() + seconds

    async def add_up() -> None:
        nonlocal total
        async for message in receive:
            total += message.amount

    async def sleep_often() -> None:
        while (due := trio.current_time() + PERIOD) < end:
            await trio.sleep_until(due)
            lateness.append(trio.current_time() - due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add_up)
        for _ in range(TIMERS):
            nursery.start_soon(sleep_often)
        async with send:
            while trio.current_time() < end:
                await send.send(workloads.ONE)
                sent += 1
    check("raw flood", total, sent)
    return p99(lateness)
