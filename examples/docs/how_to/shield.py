"""A cancelled handler stops at its next checkpoint: a change in two steps is shielded."""

import trio
from attrs import field, frozen

from autonomy_trio import Request, agent, on, open_node


@frozen
class Move(Request[None]):
    amount: int


@frozen
class Sum(Request[int]):
    pass


@agent
class Shop:
    shelf: int = 10
    till: int = 0
    receipts: list[int] = field(factory=list)

    @on(Move)
    async def move(self, message: Move) -> None:
        await self.ask_the_bank()  # may be cancelled: nothing has changed
        with trio.CancelScope(shield=True):
            self.shelf -= message.amount
            await self.print_receipt(message.amount)
            self.till += message.amount

    @on(Sum)
    async def sum(self, message: Sum) -> int:
        return self.shelf + self.till

    async def ask_the_bank(self) -> None:
        await trio.sleep(0.1)

    async def print_receipt(self, amount: int) -> None:
        await trio.sleep(0.1)
        self.receipts.append(amount)


async def main() -> None:
    async with open_node([Shop]) as node:
        shop = node.ref("shop", Shop)
        for patience in (0.05, 0.15, 0.25):
            with trio.move_on_after(patience) as scope:
                await shop.ask(Move(1))
            print(f"after {patience} s, cancelled: {scope.cancelled_caught}, sum: {await shop.ask(Sum())}")


if __name__ == "__main__":
    trio.run(main)
