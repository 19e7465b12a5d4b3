"""xoscar: an actor in the pool of the calling process, where no socket lies between; ``tell`` is its fire and forget.

Twice: by the ref that ``create_actor`` returns, as in its documentation, and by the local one that ``actor_ref`` finds,
whose ``tell`` starts an asyncio task that calls the actor's method, and which asks without any.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import xoscar
from command import run, verify, wall_time


class Counter(xoscar.Actor):
    """Adds up in coroutines."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    async def add(self, amount: int) -> int:
        """Add to the sum, and return it."""
        self.total += amount
        return self.total


@asynccontextmanager
async def open_counter(*, local: bool) -> AsyncGenerator[xoscar.ActorRef]:
    """Hold a counter for the length of a block."""
    pool = await xoscar.create_actor_pool("test://127.0.0.1", n_process=0)
    async with pool:
        counter = await xoscar.create_actor(Counter, address=pool.external_address)
        yield await xoscar.actor_ref(counter) if local else counter


async def count(number: int, *, local: bool) -> float:
    """Tell, and ask once at the end."""
    async with open_counter(local=local) as counter:
        with wall_time() as spent:
            for _ in range(number):
                await counter.add.tell(1)
            total = await counter.add(0)
    verify(total, number)
    return spent.seconds


async def ask(number: int, *, local: bool) -> float:
    """Ask, one at a time."""
    total = 0
    async with open_counter(local=local) as counter:
        with wall_time() as spent:
            for _ in range(number):
                total = await counter.add(1)
    verify(total, number)
    return spent.seconds


run(
    count=lambda number: asyncio.run(count(number, local=False)),
    ask=lambda number: asyncio.run(ask(number, local=False)),
    local_count=lambda number: asyncio.run(count(number, local=True)),
    local_ask=lambda number: asyncio.run(ask(number, local=True)),
)
