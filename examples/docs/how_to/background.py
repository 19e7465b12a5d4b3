"""Work beside the handlers: it tells its own agent what it finds, and ends with it."""

from collections.abc import Iterator

import trio
from attrs import field, frozen

from autonomy_trio import Context, agent, on, open_node


@frozen
class Measured:
    degrees: int


@agent
class Thermometer:
    sensor: Iterator[int] = field(factory=lambda: iter([20, 21, 23]))

    async def on_start(self, context: Context) -> None:
        context.start_soon(self.measure, context)

    async def measure(self, context: Context) -> None:
        for degrees in self.sensor:
            await trio.sleep(0.1)
            await context.self.tell(Measured(degrees))

    @on(Measured)
    async def measured(self, message: Measured) -> None:
        print(message.degrees, "degrees")


async def main() -> None:
    async with open_node([Thermometer]):
        await trio.sleep(0.5)


if __name__ == "__main__":
    trio.run(main)
