"""``python -m benchmarks.taker HOME FILE URL…``: a node that takes durable messages and writes down each it handles."""

import sys
from pathlib import Path

import trio
from attrs import frozen

from autonomy_trio import Mailbox, agent, on, open_node


@frozen
class Number:
    """What is sent, once each."""

    value: int


@agent(mailbox=Mailbox(1024))
class Taker:
    """Writes down what it handles, as an effect that can be counted from outside."""

    file: Path

    @on(Number, allow="true")
    def take(self, message: Number) -> None:
        """Append the number to the file."""
        with self.file.open("a", encoding="ascii") as file:
            file.write(f"{message.value}\n")


async def main(home: str, file: str, *urls: str) -> None:
    """Run until ended, and say first what the agent is called."""
    async with open_node([lambda: Taker(Path(file))], relay=urls, home=home) as node:
        print(node.address("taker"), flush=True)  # noqa: T201 - whoever started this reads it
        await node.serve_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
