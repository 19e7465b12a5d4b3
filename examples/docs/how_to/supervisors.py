"""One fails, and those that depend on it start anew with it; past the limit its supervisor gives up."""

from collections import Counter

import trio
from attrs import frozen

from autonomy_trio import Context, Down, agent, on, open_node, supervise


@frozen
class Break:
    pass


starts: Counter[str] = Counter()


@agent
class Clock:
    async def on_start(self, context: Context) -> None:
        starts["clock"] += 1


@agent
class Connection:
    async def on_start(self, context: Context) -> None:
        starts["connection"] += 1

    @on(Break)
    async def fail(self, message: Break) -> None:
        raise ConnectionError("reset by peer")


@agent
class Session:
    async def on_start(self, context: Context) -> None:
        starts["session"] += 1


@agent
class Monitor:
    async def on_start(self, context: Context) -> None:
        context.watch(context.ref("connection"))

    @on(Down)
    async def down(self, message: Down) -> None:
        print(f"{message.ref.name} is down: {message.reason}")


agents = [
    Clock,
    Monitor,
    supervise(Connection, Session, strategy="rest_for_one", max_restarts=2, within=60),
]


async def main() -> None:
    async with open_node(agents) as node:
        await trio.sleep(0.1)
        for _ in range(3):
            await node.ref("connection").tell(Break())
            await trio.sleep(0.1)
            print("starts:", sorted(starts.items()))


if __name__ == "__main__":
    trio.run(main)
