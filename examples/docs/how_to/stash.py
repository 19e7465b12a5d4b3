"""Messages that come too early are put aside until the agent is ready for them."""

import trio
from attrs import frozen

from autonomy_trio import Context, agent, on, open_node


@frozen
class Query:
    text: str


@frozen
class Connected:
    pass


@agent
class Database:
    is_connected: bool = False

    async def on_start(self, context: Context) -> None:
        context.after(0.2, Connected())

    @on(Query)
    async def query(self, message: Query, context: Context) -> None:
        if not self.is_connected:
            context.stash()
        print("runs", message.text)

    @on(Connected)
    async def connected(self, message: Connected, context: Context) -> None:
        print("connected")
        self.is_connected = True
        context.unstash_all()


async def main() -> None:
    async with open_node([Database]) as node:
        database = node.ref("database", Database)
        await database.tell(Query("first"))
        await database.tell(Query("second"))
        await trio.sleep(0.5)


if __name__ == "__main__":
    trio.run(main)
