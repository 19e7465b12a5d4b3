"""A buyer orders while the shop is closed; the relay keeps the order, and the shop packs it when it opens."""

import tempfile
from functools import partial
from pathlib import Path

import trio
from attrs import field, frozen

from autonomy_trio import Request, agent, on
from autonomy_trio.testing import open_test_fabric


@frozen
class Order:
    item: str


@frozen
class Open(Request[bool]):
    pass


@agent
class Shop:
    packed: trio.Event = field(factory=trio.Event)

    @on(Order, allow='principal.team == "buyers"')
    def order(self, message: Order) -> None:
        print(f"packed: {message.item}")
        self.packed.set()

    @on(Open, allow="true")
    def is_open(self, message: Open) -> bool:
        return True


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "shop"
        async with open_test_fabric() as fabric, fabric.open_node() as buyer:
            async with fabric.open_node([Shop], home=home) as shop:
                buyer.add_credential(shop.issue(buyer.identifier, team="buyers"))
                ref = buyer.ref(shop.address("shop"), Shop)
                print("open:", await ref.ask(Open()))
            await ref.tell(Order("tea"), durable=True)
            print("the shop is closed, and the order is stored")
            packed = trio.Event()
            async with fabric.open_node([partial(Shop, packed)], home=home):
                await packed.wait()
            print("the shop was open again")


if __name__ == "__main__":
    trio.run(main)
