"""Messages that an agent sends itself later, once or again and again."""

import trio
from attrs import frozen

from autonomy_trio import Context, agent, on, open_node


@frozen
class Tick:
    pass


@frozen
class Remind:
    text: str


@agent
class Clock:
    ticks: int = 0

    async def on_start(self, context: Context) -> None:
        context.every(0.2, Tick())
        context.after(0.5, Remind("half a second has passed"))

    @on(Tick)
    async def tick(self, message: Tick) -> None:
        self.ticks += 1
        print("tick", self.ticks)

    @on(Remind)
    async def remind(self, message: Remind) -> None:
        print(message.text)


async def main() -> None:
    async with open_node([Clock]):
        await trio.sleep(0.7)


if __name__ == "__main__":
    trio.run(main)
