"""A handler that yields answers with a stream: a slow reader stops it, a reader that leaves ends it."""

from collections.abc import AsyncIterator

import trio
from attrs import frozen

from autonomy_trio import Stream, agent, on, open_node


@frozen
class Quote:
    price: int


@frozen
class Watch(Stream[Quote]):
    start: int


@agent
class Market:
    @on(Watch)
    async def watch(self, message: Watch) -> AsyncIterator[Quote]:
        price = message.start
        try:
            while True:
                yield Quote(price)
                price += 1
        finally:
            print("the market has stopped quoting")


async def main() -> None:
    async with open_node([Market]) as node:
        market = node.ref("market", Market)
        async with market.stream(Watch(start=100)) as quotes:
            async for quote in quotes:
                print(quote)
                if quote.price == 102:
                    break


if __name__ == "__main__":
    trio.run(main)
