"""A deadline around an ask reaches the handler; when it passes, the handler is cancelled and the agent goes on."""

import trio
from attrs import frozen

from autonomy_trio import Context, Request, agent, on, open_node


@frozen
class Search(Request[str]):
    words: str
    seconds: float


@frozen
class Summary(Request[str]):
    pass


@agent
class Library:
    begun: int = 0
    found: int = 0
    ended: int = 0

    @on(Search)
    async def search(self, message: Search, context: Context) -> str:
        print(f"search within {context.deadline - trio.current_time():.0f} seconds")
        self.begun += 1
        try:
            await trio.sleep(message.seconds)
            self.found += 1
        finally:
            self.ended += 1
        return f"found {message.words}"

    @on(Summary)
    async def summary(self, message: Summary) -> str:
        return f"{self.begun} begun, {self.found} found, {self.ended} ended"


async def main() -> None:
    async with open_node([Library]) as node:
        library = node.ref("library", Library)

        with trio.fail_after(10):
            print(await library.ask(Search("trio", seconds=0.1)))

        try:
            with trio.fail_after(1):
                await library.ask(Search("every book", seconds=100))
        except trio.TooSlowError:
            print("too slow")

        with trio.move_on_after(1):
            await library.ask(Search("every book", seconds=100))

        print(await library.ask(Search("nothing", seconds=0)))
        print(await library.ask(Summary()))


if __name__ == "__main__":
    trio.run(main)
