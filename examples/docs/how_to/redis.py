"""Visits counted in Redis by any number of nodes, each of which hears of all of them."""

import os

import trio
from attrs import field, frozen

from autonomy_trio import Context, Request, agent, on, open_node
from autonomy_trio.connect.redis import Redis


@frozen
class Visit(Request[int]):
    page: str


@agent
class Visits:
    redis: Redis = field(factory=lambda: Redis(os.environ["REDIS"]))

    async def on_start(self, context: Context) -> None:
        await context.start(self.redis.serve)
        await context.start(self.listen)

    @on(Visit)
    async def visit(self, message: Visit) -> int:
        count, _ = await self.redis.transaction(
            ("INCR", f"visits:{message.page}"),
            ("PUBLISH", "visits", message.page),
        )
        return int(count)

    async def listen(self, task_status: trio.TaskStatus[None]) -> None:
        async with self.redis.subscribe("visits") as subscription:
            task_status.started()
            async for published in subscription:
                print("somebody visited", published.data.decode())


async def main() -> None:
    async with open_node([Visits]) as node:
        visits = node.ref("visits", Visits)
        print("visit", await visits.ask(Visit("home")))
        print("visit", await visits.ask(Visit("home")))


if __name__ == "__main__":
    trio.run(main)
