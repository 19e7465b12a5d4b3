"""autonomy_trio itself, as its peers are measured."""

import trio
from attrs import frozen
from command import run, verify, wall_time

from autonomy_trio import Request, agent, on, open_node


@frozen
class Total:
    """A sum so far."""

    value: int


@frozen
class More:
    """Add to a sum."""

    amount: int


@frozen
class Add(Request[Total]):
    """Add to a sum, and ask for it."""

    amount: int


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


async def count(number: int) -> float:
    """Tell, and ask once at the end."""
    one = More(1)
    async with open_node() as node:
        counter = node.spawn(Counter)
        with wall_time() as spent:
            for _ in range(number):
                await counter.tell(one)
            total = await counter.ask(Add(0))
    verify(total.value, number)
    return spent.seconds


async def ask(number: int) -> float:
    """Ask, one at a time."""
    one, total = Add(1), Total(0)
    async with open_node() as node:
        counter = node.spawn(Counter)
        with wall_time() as spent:
            for _ in range(number):
                total = await counter.ask(one)
    verify(total.value, number)
    return spent.seconds


run(count=lambda number: trio.run(count, number), ask=lambda number: trio.run(ask, number))
