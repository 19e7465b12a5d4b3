"""Topics between nodes: who may subscribe is a decision, and what is published is judged where it arrives."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Node, Request, agent, on
from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.errors import AddressError, HandlerFailed, PolicyError, UsageError
from autonomy_trio.fabric.peers.watches import MOST_WATCHES
from autonomy_trio.wire.entries import Entry, Subscribe, Unwatch
from tests.support.net import Lose, Net, say


@frozen
class Price:
    of: str
    cents: int


@frozen
class Local:
    """A message that no other node may send."""


@frozen
class Publish(Request[None]):
    price: Price


@frozen
class Join(Request[None]):
    topic: str
    leave: bool = False


@frozen
class Heard(Request[list[int]]):
    pass


@agent(topics={"#prices": 'principal.team == "payments"'})
class Market:
    @on(Publish)
    async def publish(self, message: Publish, context: Context) -> None:
        context.publish("#prices", message.price)


@agent(mailbox=Mailbox(4))
class Trader:
    heard: list[int] = field(factory=list[int])
    senders: list[Any] = field(factory=list[Any])

    @on(Join)
    async def join(self, message: Join, context: Context) -> None:
        if message.leave:
            context.unsubscribe(message.topic)
        else:
            context.subscribe(message.topic)

    @on(Price, allow='principal.team == "market"')
    async def price(self, message: Price, context: Context) -> None:
        self.heard.append(message.cents)
        self.senders.append(context.sender)
        if not message.cents:
            await trio.sleep(5)

    @on(Local)
    def local(self, message: Local) -> None:
        raise AssertionError("no other node may send it")

    @on(Heard)
    def read(self, message: Heard) -> list[int]:
        return list(self.heard)


@frozen
class Pair:
    net: Net
    server: Node
    user: Node

    @property
    def topic(self) -> str:
        return self.server.address("#prices")

    @property
    def trader(self) -> AgentRef[Trader]:
        return self.user.ref("trader", Trader)

    def publish(self, *cents: int) -> None:
        for each in cents:
            self.server.publish("#prices", Price("tea", each))

    async def heard(self) -> list[int]:
        await trio.sleep(1)
        return await self.trader.ask(Heard())


@pytest.fixture
async def pair(net: Net) -> AsyncGenerator[Pair]:
    async with net.node([Market]) as server, net.node([Trader]) as user:
        user.add_credential(server.issue(user.identifier, team="payments"))
        server.add_credential(user.issue(server.identifier, team="market"))
        yield Pair(net, server, user)


async def test_what_is_published_reaches_agents_of_other_nodes_in_order(pair: Pair, autojump_clock: object) -> None:
    await pair.trader.ask(Join(pair.topic))
    assert await pair.heard() == []
    pair.publish(1, 2, 3)
    await pair.server.ref("market").ask(Publish(Price("tea", 4)))
    assert await pair.heard() == [1, 2, 3, 4]
    await pair.trader.ask(Join(pair.topic))
    pair.publish(5)
    assert await pair.heard() == [1, 2, 3, 4, 5], "twice is once"
    cell = pair.user._runtime.find("trader")
    assert isinstance(cell, Cell)
    by_node, by_agent = cell.instance.senders[0], cell.instance.senders[3]
    assert by_node.id == by_node.node == by_agent.node == pair.server.identifier
    assert by_agent.id != by_agent.node, "an agent publishes as itself"
    await pair.trader.ask(Join(pair.topic, leave=True))
    assert len(await pair.heard()) == 5
    pair.publish(6)
    assert await pair.heard() == [1, 2, 3, 4, 5]
    assert pair.server._runtime.topics._outside == {}


async def test_who_may_not_subscribe_hears_nothing_and_the_log_says_so(net: Net, autojump_clock: object) -> None:
    async with net.node([Market]) as server, net.node([Trader]) as user:
        server.add_credential(user.issue(server.identifier, team="market"))
        pair = Pair(net, server, user)
        with structlog.testing.capture_logs() as lines:
            await pair.trader.ask(Join(pair.topic))
            await pair.trader.ask(Join(server.address("#other")))
            await pair.heard()
            pair.publish(1)
            server.publish("#other", Price("tea", 2))
            assert await pair.heard() == []
        assert sum(line["event"] == "subscription refused" for line in lines) == 2
        assert server.dead_letters.counts() == {"denied": 1, "unknown agent": 1}
        user.add_credential(server.issue(user.identifier, team="payments"))
        await trio.sleep(70)  # it is tried again once a minute
        pair.publish(3)
        assert await pair.heard() == [3]


async def test_what_comes_from_a_topic_is_judged_as_any_message(net: Net, autojump_clock: object) -> None:
    async with net.node([Market]) as server, net.node([Trader]) as user:
        user.add_credential(server.issue(user.identifier, team="payments"))
        pair = Pair(net, server, user)
        await pair.trader.ask(Join(pair.topic))
        await pair.heard()
        pair.publish(1)
        server.publish("#prices", Local())
        assert await pair.heard() == []
        assert user.dead_letters.counts() == {"denied": 2}
        server.add_credential(user.issue(server.identifier, team="market"))
        pair.publish(2)
        server.publish("#prices", Local())
        assert await pair.heard() == [2]
        assert user.dead_letters.counts() == {"denied": 3}


async def test_a_right_that_ends_ends_the_subscription_with_the_next_publication(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Market]) as server, net.node([Trader]) as user:
        server.add_credential(user.issue(server.identifier, validity=3600, team="market"))
        user.add_credential(server.issue(user.identifier, validity=60, team="payments"))
        pair = Pair(net, server, user)
        await pair.trader.ask(Join(pair.topic))
        await pair.heard()
        pair.publish(1)
        await trio.sleep(50)
        pair.publish(2)
        await trio.sleep(10)
        pair.publish(3)
        assert await pair.heard() == [1, 2]
        assert server._runtime.topics._outside == {}


async def test_publishing_never_waits_and_what_finds_no_room_is_counted(pair: Pair, autojump_clock: object) -> None:
    await pair.trader.ask(Join(pair.topic))
    await pair.heard()
    pair.publish(0)
    await trio.sleep(0.5)
    pair.publish(*range(1, 2001))
    lost_here = pair.server.dead_letters.counts()["overloaded"]
    assert lost_here > 900
    await trio.sleep(10)
    heard = await pair.heard()
    assert heard == list(range(2001 - lost_here)), "it was told what had room, in order"


async def test_a_subscription_outlives_the_loss_of_either_node(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node([Trader], home=tmp_path / "user") as user:
        async with net.node([Market], home=tmp_path / "server") as server:
            user.add_credential(server.issue(user.identifier, team="payments"))
            server.add_credential(user.issue(server.identifier, team="market"))
            pair = Pair(net, server, user)
            await pair.trader.ask(Join(pair.topic))
            await pair.heard()
            pair.publish(1)
            assert await pair.heard() == [1]
        await trio.sleep(20)
        async with net.node([Market], home=tmp_path / "server") as server:
            pair = Pair(net, server, user)
            await trio.sleep(20)
            pair.publish(2)
            assert await pair.heard() == [1, 2]
            net.kill_relay()
            await trio.sleep(5)
            net.start_relay()
            await trio.sleep(60)
            pair.publish(3)
            assert await pair.heard() == [1, 2, 3]
            user.ref("trader").stop()
            await trio.sleep(1)
            assert server._runtime.topics._outside == {}


async def test_a_subscriber_that_vanishes_is_forgotten(pair: Pair, autojump_clock: object) -> None:
    await pair.trader.ask(Join(pair.topic))
    await pair.heard()
    pair.net.loses = lambda frame: True
    await trio.sleep(40)
    assert pair.server._runtime.topics._outside == {}


@pytest.mark.parametrize("kind", [Subscribe, Unwatch])
async def test_words_about_subscriptions_that_were_lost_come_again(
    pair: Pair, lose: Lose, kind: type[Entry], autojump_clock: object
) -> None:
    lose(lambda entry: isinstance(entry, kind))
    await pair.trader.ask(Join(pair.topic))
    await trio.sleep(5)
    lose(lambda _: False)
    await trio.sleep(15)
    pair.publish(1)
    assert await pair.heard() == [1]
    lose(lambda entry: isinstance(entry, kind))
    await pair.trader.ask(Join(pair.topic, leave=True))
    await trio.sleep(5)
    lose(lambda _: False)
    await trio.sleep(40)
    assert pair.server._runtime.topics._outside == {}
    pair.publish(2)
    assert await pair.heard() == [1]


async def test_subscriptions_of_one_node_are_bounded_with_its_watches(pair: Pair, autojump_clock: object) -> None:
    await pair.trader.ask(Join(pair.topic))
    await pair.heard()
    for first in range(0, 1200, 100):
        say(pair.user, pair.server, *(Subscribe(10_000 + first + each, "#prices", "trader", 0) for each in range(100)))
    await trio.sleep(1)
    (peer,) = pair.server._peers.sessions.peers.values()
    assert len(peer.watched) == MOST_WATCHES
    pair.publish(1)
    await trio.sleep(1)
    assert set(await pair.heard()) == {1}
    await trio.sleep(50)
    assert len(peer.watched) == 1, "nobody repeated the others"


async def test_a_message_that_cannot_travel_fails_no_publisher(pair: Pair, autojump_clock: object) -> None:
    await pair.trader.ask(Join(pair.topic))
    await pair.heard()
    pair.server.publish("#prices", Price("x" * 200_000, 1))
    pair.server.publish("#prices", Price("x", object()))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pair.publish(2)
    assert await pair.heard() == [2]
    assert pair.server.dead_letters.counts() == {"malformed": 2}


async def test_what_is_no_topic_is_refused(pair: Pair, autojump_clock: object) -> None:
    cell = pair.user._runtime.find("trader")
    assert isinstance(cell, Cell)
    context = Context(cell)
    with pytest.raises(UsageError, match="'prices' is no topic"):
        context.subscribe(pair.server.address("prices"))
    with pytest.raises(AddressError):
        context.subscribe("I12/#prices")
    with pytest.raises(UsageError, match="is a topic of another node, where its own agents alone publish"):
        context.publish(pair.topic, Price("tea", 1))


def test_the_condition_of_a_topic_is_checked_with_the_class() -> None:
    with pytest.raises(UsageError, match="'prices' is no topic"):

        @agent(topics={"prices": "true"})
        class Nameless:
            pass

    with pytest.raises(PolicyError, match="the topic #prices"):

        @agent(topics={"#prices": "principal.team =="})
        class Broken:
            pass

    with pytest.raises(PolicyError, match="the topic #prices"):

        @agent(topics={"#prices": "context.message.x == 1"})
        class Reading:
            pass


async def test_one_process_knows_no_other_node(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(Trader)
        with pytest.raises(HandlerFailed):
            await ref.ask(Join(f"I{'0' * 64}/#prices"))
