"""The main job in one process: three nodes, a relay that can read nothing, one sender enrolled and one denied.

python -m autonomy_trio run examples.quickstart:agents
"""

import tempfile
from pathlib import Path

from attrs import field

from autonomy_trio import Context, agent, current_node, open_node
from autonomy_trio.errors import Denied
from examples.counter import Add, Counter


@agent
class Visitor:
    """Plays two other machines: opens a node for each, with a home of its own, and asks the counter over the relay."""

    homes: tempfile.TemporaryDirectory[str] = field(factory=lambda: tempfile.TemporaryDirectory(prefix="autonomy-"))

    async def on_start(self, context: Context) -> None:
        here = current_node()
        counter = here.address("counter")
        alice, bob = Path(self.homes.name, "alice"), Path(self.homes.name, "bob")

        here.serve_authority()
        async with open_node(home=alice) as node:
            await node.enroll(here.ticket(team="payments"))
            total = await node.ref(counter, Counter).ask(Add(3))
        print(f"alice redeemed a ticket for team=payments and asks Add(3): {total}")

        async with open_node(home=bob) as node:
            try:
                await node.ref(counter, Counter).ask(Add(3))
            except Denied:
                print(f"bob can prove nothing and asks Add(3): denied, {here.dead_letters.latest().why}")

        ask = f"""python -m autonomy_trio ask {counter} '{{"Add": {{"amount": 4}}}}' --home"""
        print("\nNow you, from a second terminal, as alice and as bob:\n")
        print(f"  {ask} {alice}\n")
        print(f"  {ask} {bob}\n", flush=True)

    async def on_stop(self, context: Context) -> None:
        self.homes.cleanup()


agents = [Counter, Visitor]
