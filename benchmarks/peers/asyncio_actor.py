"""What one would write by hand on asyncio: a task that takes from a queue as long as our mailbox."""

import asyncio
from dataclasses import dataclass

from command import run, verify, wall_time


@dataclass(frozen=True, slots=True)
class Add:
    """Add to a sum, and answer where somebody waits."""

    amount: int
    reply: asyncio.Future[int] | None = None


async def count_up(queue: asyncio.Queue[Add]) -> None:
    """Be the actor."""
    total = 0
    while True:
        message = await queue.get()
        total += message.amount
        if message.reply is not None:
            message.reply.set_result(total)


async def ask_once(queue: asyncio.Queue[Add], amount: int) -> int:
    """Send a message and wait for its reply."""
    reply = asyncio.get_running_loop().create_future()
    await queue.put(Add(amount, reply))
    return await reply


async def count(number: int) -> float:
    """Tell, and ask once at the end."""
    one, queue = Add(1), asyncio.Queue[Add](64)
    actor = asyncio.create_task(count_up(queue))
    with wall_time() as spent:
        for _ in range(number):
            await queue.put(one)
        total = await ask_once(queue, 0)
    actor.cancel()
    verify(total, number)
    return spent.seconds


async def ask(number: int) -> float:
    """Ask, one at a time."""
    total, queue = 0, asyncio.Queue[Add](64)
    actor = asyncio.create_task(count_up(queue))
    with wall_time() as spent:
        for _ in range(number):
            total = await ask_once(queue, 1)
    actor.cancel()
    verify(total, number)
    return spent.seconds


run(count=lambda number: asyncio.run(count(number)), ask=lambda number: asyncio.run(ask(number)))
