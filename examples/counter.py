"""One agent that adds up, for those who can prove that they are in the payments team.

python -m autonomy_trio run examples.counter:agents
"""

from attrs import frozen

from autonomy_trio import Context, Request, agent, on


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@agent
class Counter:
    total: int = 0

    @on(Add, allow='principal.team == "payments" && context.message.amount <= 100')
    async def add(self, message: Add, context: Context) -> Total:
        self.total += message.amount
        context.log.info("added", amount=message.amount, by=context.sender.id)
        return Total(self.total)


agents = [Counter]
