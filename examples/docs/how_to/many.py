"""Four workers under one name, and a topic that everyone who asked for it hears of."""

import trio
from attrs import frozen

from autonomy_trio import Context, Request, agent, on, open_node, pool


@frozen
class Job(Request[None]):
    number: int


@frozen
class Done:
    number: int


@agent
class Worker:
    @on(Job)
    async def work(self, message: Job, context: Context) -> None:
        await trio.sleep(1)
        context.publish("#done", Done(message.number))


@agent
class Board:
    done: int = 0

    async def on_start(self, context: Context) -> None:
        context.subscribe("#done")

    @on(Done)
    async def count(self, message: Done) -> None:
        self.done += 1
        print(self.done, "done")


async def main() -> None:
    async with open_node([Board, pool(Worker, 4)]) as node:
        worker = node.ref("worker", Worker)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(worker.ask, Job(number))
        took = trio.current_time() - begun
    print(f"8 jobs of 1 second took {took:.0f} seconds")


if __name__ == "__main__":
    trio.run(main)
