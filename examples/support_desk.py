"""A support desk: a model answers, looks orders up on the shop's node, and pays back what a person here has approved.

export SUPPORT_MODEL=openai:gpt-5 OPENAI_API_KEY=…
python -m examples.support_desk

Without a key, any server on this machine that speaks as OpenAI does will do, such as Ollama or llama.cpp's:

export SUPPORT_MODEL=openai:llama3.2 SUPPORT_MODEL_URL=http://127.0.0.1:11434/v1
"""

import os
import sys
from functools import partial

import trio
from attrs import field, frozen

from autonomy_trio import AgentRef, Request, agent, on, open_node
from autonomy_trio.connect.models import (
    Approve,
    ChatInParts,
    Model,
    ModelAgent,
    ModelFailed,
    Text,
    ToolBegun,
    ToolEnded,
    ToolsOf,
)
from autonomy_trio.errors import AutonomyError, ReplyError


@frozen
class Order:
    item: str
    state: str
    price: int


@frozen
class NoSuchOrder(ReplyError):
    number: int


@frozen
class LookUp(Request[Order]):
    """Find out what was ordered under a number, where it is, and what it cost."""

    number: int


@frozen
class PayBack(Request[str]):
    """Pay back a part of an order's price, or all of it."""

    number: int
    amount: int


@agent
class Orders:
    """The shop's agent, on a node of its own: who may ask what is decided there."""

    orders: dict[int, Order] = field(
        factory=lambda: {7: Order("bicycle bell", "on its way", 12), 8: Order("touring bicycle", "delivered", 900)}
    )

    @on(LookUp, allow='principal.team == "support"', raises=NoSuchOrder)
    def look_up(self, message: LookUp) -> Order:
        if message.number not in self.orders:
            raise NoSuchOrder(message.number)
        return self.orders[message.number]

    @on(PayBack, allow='principal.team == "support" && context.message.amount <= 100', raises=NoSuchOrder)
    def pay_back(self, message: PayBack) -> str:
        order = self.look_up(LookUp(message.number))
        return f"{min(message.amount, order.price)} euros for the {order.item} are on their way back"


@agent
class Person:
    """Whoever sits at this terminal, and is asked before money is paid."""

    @on(Approve)
    async def approve(self, message: Approve) -> bool:
        return await read_line(f"\n  may it {message.tool} {message.arguments}? [y/N] ") == "y"


@agent(inherit=False)
class Desk(ModelAgent):
    """Who answers: it asks the shop as itself, and may there what its own credential says."""

    instructions = "You are the support desk of a bicycle shop. Be brief. Look orders up before you speak about them."
    model = "model"
    approver = "person"


async def read_line(prompt: str) -> str:
    """Ask at the terminal; the empty text once nobody is there any more."""
    print(prompt, end="", flush=True)
    return (await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)).strip()


async def answer(desk: AgentRef[Desk], text: str) -> None:
    """Print what the desk says and does."""
    async with desk.stream(ChatInParts("terminal", text)) as parts:
        async for part in parts:
            match part:
                case Text():
                    print(part.text, end="", flush=True)
                case ToolBegun():
                    print(f"\n  it calls {part.tool} {part.arguments}", flush=True)
                case ToolEnded():
                    print(f"\n  and is told: {part.told}", flush=True)
                case _:
                    print(f"\n  ({part.usage.read} tokens read, {part.usage.written} written)")


async def main() -> None:
    """Open both nodes, and answer what is typed."""
    model = Model(
        os.environ.get("SUPPORT_MODEL", "openai:gpt-5"),
        name="model",
        base_url=os.environ.get("SUPPORT_MODEL_URL"),
        most_tokens=500,
    )
    async with open_node([Orders], listen="127.0.0.1:0") as shop:
        tools = ToolsOf(Orders, at=shop.address("orders"), approve=[PayBack])
        desk = partial(Desk, tools=(tools,))
        async with open_node([model, Person, desk], relay=shop.relays[0]) as office:
            who = office.agent_identifier("desk")
            office.add_credential(shop.issue(who, team="support"), agent="desk")
            print("Ask about order 7 or 8, or for your money back; an empty line ends it.")
            while text := await read_line("\n> "):
                try:
                    await answer(office.ref("desk", Desk), text)
                except ModelFailed as failure:
                    print(f"no answer: {failure}")


if __name__ == "__main__":
    try:
        trio.run(main)
    except AutonomyError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
