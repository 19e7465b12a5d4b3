"""A refusal that the protocol foresees reaches the asker with its fields and fails nobody; any other exception does."""

import trio
from attrs import frozen

from autonomy_trio import Request, agent, on, open_node
from autonomy_trio.errors import HandlerFailed, ReplyError


@frozen
class Reserve(Request[int]):
    """Answered with the seats that are left."""

    seats: int


@frozen
class SoldOut(ReplyError):
    left: int


@agent
class Hall:
    left: int = 5

    @on(Reserve, raises=SoldOut)
    async def reserve(self, message: Reserve) -> int:
        if message.seats < 0:
            raise ValueError(message.seats)
        if message.seats > self.left:
            raise SoldOut(self.left)
        self.left -= message.seats
        return self.left


async def main() -> None:
    async with open_node([Hall]) as node:
        hall = node.ref("hall", Hall)
        for seats in (3, 4, 1, -1, 1):
            try:
                left = await hall.ask(Reserve(seats))
            except SoldOut as refusal:
                print(f"{seats} refused: {refusal.left} left")
            except HandlerFailed:
                print(f"{seats} failed the agent")
            else:
                print(f"{seats} reserved: {left} left")


if __name__ == "__main__":
    trio.run(main)
