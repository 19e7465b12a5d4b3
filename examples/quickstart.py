"""The main job in one process: three nodes, a relay that can read nothing, one sender enrolled and one denied.

python -m autonomy_trio run examples.quickstart:agents
"""

import tempfile
from functools import partial
from pathlib import Path

import trio
from attrs import field, frozen

from autonomy_trio import Context, agent, current_node, on, open_node
from autonomy_trio.errors import Denied
from examples.counter import Add, Count, Counter


@frozen
class Note:
    text: str


@agent
class Letterbox:
    """Where whoever likes leaves a note."""

    arrived: trio.Event

    @on(Note, allow="true")
    async def note(self, message: Note) -> None:
        print(f"alice is back and finds {message}")
        self.arrived.set()


@agent
class Visitors:
    """Plays two other machines: opens nodes for alice and for bob, with a home each, which meet the counter's here."""

    homes: tempfile.TemporaryDirectory[str] = field(factory=lambda: tempfile.TemporaryDirectory(prefix="autonomy-"))

    async def on_start(self, context: Context) -> None:
        here, arrived = current_node(), trio.Event()
        relay, counter = here.relays[0], here.address("counter")
        alice, bob = Path(self.homes.name, "alice"), Path(self.homes.name, "bob")
        letterbox = partial(Letterbox, arrived)

        here.serve_authority()
        async with open_node([letterbox], home=alice, relay=relay) as node:
            await node.enroll(here.ticket(team="payments"))
            ref, letters = node.ref(counter, Counter), node.address("letterbox")
            print(f"alice redeemed a ticket for team=payments and asks Add(3): {await ref.ask(Add(3))}")
            async with ref.stream(Count(3)) as numbers:
                print(f"alice opens the stream Count(3): {[number async for number in numbers]}")

        async with open_node(home=bob) as node:
            try:
                await node.ref(counter, Counter).ask(Add(3))
            except Denied:
                print(f"bob can prove nothing and asks Add(3): denied, {here.dead_letters.latest().why}")

        await here.ref(letters, Letterbox).tell(Note("call me"), durable=True)
        print("alice is away: the relay keeps a note for her, sealed")
        async with open_node([letterbox], home=alice, relay=relay):
            await arrived.wait()

        command = "python -m autonomy_trio"
        print("\nNow you, from a second terminal, as alice and as bob:\n")
        print(f"""  {command} ask {counter} '{{"Add": {{"amount": 4}}}}' --home {alice}\n""")
        print(f"""  {command} stream {counter} '{{"Count": {{"to": 5}}}}' --home {alice}\n""")
        print(f"""  {command} ask {counter} '{{"Add": {{"amount": 4}}}}' --home {bob}\n""", flush=True)

    async def on_stop(self, context: Context) -> None:
        self.homes.cleanup()


agents = [Counter, Visitors]
