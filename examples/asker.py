"""One agent that asks a counter on another node, again and again, and says when what comes of it changes.

COUNTER=ws://…/I…/counter python -m autonomy_trio run examples.asker:agents --relay ws://…
"""

import os

import trio
from attrs import frozen

from autonomy_trio import Context, agent, on
from autonomy_trio.errors import DeliveryError, Denied
from examples.counter import Add, Counter


@frozen
class Again:
    pass


@agent
class Asker:
    said: str = ""

    async def on_start(self, context: Context) -> None:
        context.every(0.2, Again())

    @on(Again)
    async def ask(self, message: Again, context: Context) -> None:
        counter = context.ref(os.environ["COUNTER"], Counter)
        try:
            with trio.fail_after(5):
                await counter.ask(Add(1))
        except Denied:
            told = "asker: is denied"
        except (DeliveryError, trio.TooSlowError):
            told = "asker: the counter is away"
        else:
            told = "asker: is answered"
        if told != self.said:
            print(told, flush=True)
        self.said = told


agents = [Asker]
