"""Refs in messages and replies: local ones travel as they are, others as addresses that the receiving node resolves."""

from typing import Any

import attrs
import pytest
import trio
from attrs import frozen

from autonomy_trio import AgentRef, Request, agent, on
from autonomy_trio.errors import MessageError, NotDelivered, NotHandled
from autonomy_trio.messages import Untyped, decode_payload, encode_payload
from tests.support.net import Net

FREE = "true"


@frozen
class Price:
    amount: int


@agent
class Buyer:
    seen: list[int] = attrs.Factory(list[int])

    @on(Price, allow=FREE)
    def price(self, message: Price) -> None:
        self.seen.append(message.amount)


@frozen
class Subscribe(Request[AgentRef[Any]]):
    """A message with a ref in every kind of place."""

    who: AgentRef[Buyer]
    others: tuple[AgentRef[Any], ...] = ()
    named: dict[str, "AgentRef[Buyer] | None"] = attrs.Factory(dict)


@agent
class Market:
    took: list[Subscribe] = attrs.Factory(list[Subscribe])

    @on(Subscribe, allow=FREE)
    async def subscribe(self, message: Subscribe) -> AgentRef[Any]:
        self.took.append(message)
        await message.who.tell(Price(3))
        return message.who


def instance(node: Any, name: str) -> Any:  # noqa: ANN401 - whatever agent it is
    cell = node._runtime.find(name)
    assert cell is not None
    return cell.instance


async def test_in_a_process_a_ref_in_a_message_is_the_same_object(net: Net, autojump_clock: object) -> None:
    async with net.node([Market, Buyer], relay=()) as node:
        buyer = node.ref("buyer", Buyer)
        assert await node.ref("market", Market).ask(Subscribe(buyer)) is buyer
        await trio.testing.wait_all_tasks_blocked()
        assert instance(node, "buyer").seen == [3]


async def test_a_ref_of_the_sender_reaches_its_agent_from_another_node(net: Net, autojump_clock: object) -> None:
    async with net.node([Market]) as server, net.node([Buyer]) as client:
        buyer = client.ref("buyer", Buyer)
        market = client.ref(server.address("market"), Market)
        returned = await market.ask(Subscribe(buyer, (buyer, market), {"a": buyer, "b": None}))
        await trio.sleep(1)
        assert instance(client, "buyer").seen == [3]
        assert returned == buyer, "its own agent's address is its own ref again"
        (took,) = instance(server, "market").took
        assert took.who.address == buyer.address
        assert took.who == took.others[0] == took.named["a"]
        assert took.others[1] == server.ref("market"), "an agent of the receiving node is a local ref there"
        assert took.named["b"] is None


async def test_a_ref_reaches_a_third_node(net: Net, autojump_clock: object) -> None:
    async with net.node([Market]) as server, net.node([Buyer]) as owner, net.node() as client:
        buyer = client.ref(owner.address("buyer"), Buyer)
        returned = await client.ref(server.address("market"), Market).ask(Subscribe(buyer))
        await trio.sleep(1)
        assert instance(owner, "buyer").seen == [3]
        assert returned == buyer
        await returned.tell(Price(4))
        await client.flush()
        await trio.sleep(1)
        assert instance(owner, "buyer").seen == [3, 4]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("buyer", "this is no agent's address @ Subscribe.who"),
        (3, "expected str, got int @ Subscribe.who"),
        ("I12/buyer", " @ Subscribe.who"),
        ("a\x1b/b", "this is no agent's address @ Subscribe.who"),
        (f"ws://{'a' * 700}/I{'0' * 64}/buyer", "this is no agent's address @ Subscribe.who"),
    ],
)
async def test_what_is_no_address_is_no_ref(net: Net, autojump_clock: object, address: object, why: str) -> None:
    async with net.node([Market]) as server, net.node() as client:
        market = client.ref(server.address("market"))
        with pytest.raises(NotHandled) as refused:
            await market.ask(Untyped("Subscribe", {"who": address}))
        assert str(refused.value).endswith(why)
        assert not instance(server, "market").took


async def test_a_ref_that_is_read_reaches_for_no_relay_until_it_is_used(net: Net, autojump_clock: object) -> None:
    async with net.node([Market]) as server, net.node() as client:
        far = f"ws://elsewhere:9/I{'0' * 64}/buyer"
        market = client.ref(server.address("market"))
        fields = {"who": client.address("nobody"), "others": [far]}
        assert await market.ask(Untyped("Subscribe", fields)) == client.address("nobody")
        assert [other.address for other in instance(server, "market").took[0].others] == [far]
        assert server.relays == [net.url]


async def test_a_strangers_ref_attaches_to_no_relay_and_is_tried_by_the_nodes_own(
    net: Net, autojump_clock: object
) -> None:
    """Who may send a ref must not make the receiver call anywhere it likes, inside its network or out."""
    async with net.node([Market]) as server, net.node([Buyer]) as client:
        market = client.ref(server.address("market"))
        for node in (client.identifier, f"I{'0' * 64}"):
            await market.tell(Untyped("Subscribe", {"who": f"ws://elsewhere:9/{node}/buyer"}))
            await trio.sleep(10)
        assert instance(client, "buyer").seen == [3]
        first, second = instance(server, "market").took
        assert server.relays == [net.url]
        with pytest.raises(NotDelivered):
            await second.who.ask(Subscribe(first.who))
        # What the program asks for itself it gets.
        await server.ref(first.who.address).tell(Price(4))
        assert server.relays == [net.url, "ws://elsewhere:9"]


async def test_a_reply_with_a_ref_makes_its_asker_attach_to_no_relay(net: Net, autojump_clock: object) -> None:
    async with net.node([Market]) as server, net.node([Buyer]) as owner, net.node() as client:
        far = f"ws://elsewhere:9/{owner.identifier}/buyer"
        returned = await client.ref(server.address("market"), Market).ask(Subscribe(server.ref(far)))
        assert returned.address == far
        await returned.tell(Price(5))
        await trio.sleep(1)
        assert client.relays == [net.url]
        assert instance(owner, "buyer").seen == [3, 5]


def test_without_a_node_no_ref_can_be_read() -> None:
    with pytest.raises(MessageError, match=r"AgentRef can be read on a node only @ Subscribe\.who"):
        decode_payload(encode_payload(Untyped("Subscribe", {"who": "a/b"})), Subscribe)
