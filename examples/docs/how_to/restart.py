"""A failed agent is replaced: same name, same mailbox, new state."""

import trio
from attrs import frozen

from autonomy_trio import Request, agent, on, open_node
from autonomy_trio.errors import HandlerFailed


@frozen
class Add(Request[int]):
    amount: int


@agent
class Counter:
    total: int = 0

    @on(Add)
    async def add(self, message: Add) -> int:
        if message.amount < 0:
            raise ValueError(message.amount)
        self.total += message.amount
        return self.total


async def main() -> None:
    async with open_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        print(await counter.ask(Add(2)))
        try:
            await counter.ask(Add(-1))
        except HandlerFailed:
            print("failed")
        print(await counter.ask(Add(3)))


if __name__ == "__main__":
    trio.run(main)
