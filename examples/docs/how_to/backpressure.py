"""What a sender and a slow agent notice of a full mailbox, one policy after the other."""

import trio
from attrs import frozen

from autonomy_trio import Mailbox, Request, agent, on, open_node
from autonomy_trio.errors import MailboxFull, Overloaded


@frozen
class Job(Request[None]):
    number: int


class Worker:
    @on(Job)
    async def work(self, message: Job) -> None:
        await trio.sleep(0.1)
        print("done", message.number)


@agent(mailbox=Mailbox(2))
class Blocking(Worker):
    pass


@agent(mailbox=Mailbox(2, overflow="fail"))
class Failing(Worker):
    pass


@agent(mailbox=Mailbox(2, overflow="drop_newest"))
class DroppingNewest(Worker):
    pass


@agent(mailbox=Mailbox(2, overflow="drop_oldest"))
class DroppingOldest(Worker):
    pass


async def main() -> None:
    for cls in (Blocking, Failing, DroppingNewest, DroppingOldest):
        print(cls.__name__)
        async with open_node() as node:
            worker = node.spawn(cls)
            for number in range(5):
                try:
                    await worker.tell(Job(number))
                except MailboxFull:
                    print("full at", number)
        print("dead letters:", dict(node.dead_letters.counts()))

    print("an ask that was dropped")
    async with open_node() as node:
        worker = node.spawn(DroppingNewest)
        worker.tell_nowait(Job(0))
        worker.tell_nowait(Job(1))
        try:
            await worker.ask(Job(2))
        except Overloaded:
            print("overloaded at 2")


if __name__ == "__main__":
    trio.run(main)
