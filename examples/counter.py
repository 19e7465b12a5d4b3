"""One agent that adds up and counts, for those who can prove that they are in the payments team.

python -m autonomy_trio run examples.counter:agents
"""

from collections.abc import AsyncGenerator

from attrs import frozen

from autonomy_trio import Context, Request, Stream, agent, on


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class Count(Stream[int]):
    to: int


@agent
class Counter:
    total: int = 0

    @on(Add, allow='principal.team == "payments" && context.message.amount <= 100')
    async def add(self, message: Add, context: Context) -> Total:
        self.total += message.amount
        context.log.info("added", amount=message.amount, by=context.sender.id)
        return Total(self.total)

    @on(Count, allow='principal.team == "payments"')
    async def count(self, message: Count) -> AsyncGenerator[int]:
        for number in range(1, message.to + 1):
            yield number


agents = [Counter]
