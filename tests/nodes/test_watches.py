"""Watches between nodes on bad days: what is lost, who may not, and whose node goes away."""

from collections.abc import AsyncGenerator

import attrs
import pytest
import trio

from autonomy_trio import AgentRef, Node
from autonomy_trio.actors.cell import Cell
from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.fabric.peers.streams import LEASE, REPEAT_EVERY
from autonomy_trio.fabric.peers.watches import MOST_WATCHES
from autonomy_trio.testing import Faults, open_test_fabric
from autonomy_trio.wire.entries import Down, Entry, Unwatch, Watch
from tests.support.contract import Add, See, Seen, Service, Watcher
from tests.support.net import Counter, Lose, Net, virtual_now


@attrs.frozen
class Pair:
    net: Net
    server: Node
    user: Node

    @property
    def watcher(self) -> AgentRef[Watcher]:
        return self.user.ref("watcher", Watcher)

    @property
    def service(self) -> AgentRef[Service]:
        return self.user.ref(self.server.address("service"), Service)

    async def see(self) -> None:
        await self.watcher.ask(See(self.service))
        await trio.sleep(1)

    @property
    def serving(self) -> Peer:
        """The user's node as the server sees it."""
        return self.server._peers.sessions.peers[self.user._vault.identifier]

    def outsiders(self) -> int:
        found = self.server._runtime.find("service")
        assert isinstance(found, Cell)
        return len(found.relations.outsiders)

    def say(self, *entries: Entry) -> None:
        """Have the user's node send what no ref would."""
        sessions = self.user._peers.sessions
        sessions.endpoint.send(self.server._vault.identifier, entries, virtual_now(), trio.current_time())
        sessions._carry_out()


@pytest.fixture
async def pair(net: Net) -> AsyncGenerator[Pair]:
    async with net.node([Service]) as server, net.node([Watcher]) as user:
        yield Pair(net, server, user)


async def test_losing_a_node_is_an_end_within_thirty_seconds(pair: Pair, autojump_clock: object) -> None:
    await pair.see()
    pair.net.loses = lambda _: True
    await trio.sleep(29)
    assert await pair.watcher.ask(Seen()) == ["node lost"]
    pair.net.loses = lambda _: False
    await trio.sleep(60)
    assert await pair.watcher.ask(Seen()) == ["node lost"]
    assert pair.outsiders() == 0, "the node that watched was lost too"


async def test_a_node_that_leaves_is_an_end_at_once(net: Net, autojump_clock: object) -> None:
    async with net.node([Watcher]) as user:
        async with net.node([Service]) as server:
            await user.ref("watcher", Watcher).ask(See(user.ref(server.address("service"))))
            await trio.sleep(1)
        await trio.sleep(1)
        (reason,) = await user.ref("watcher", Watcher).ask(Seen())
        assert reason in ("stopped", "node lost")
        await trio.sleep(60)
        assert await user.ref("watcher", Watcher).ask(Seen()) == [reason]


async def test_a_node_that_is_not_there_is_an_end(net: Net, autojump_clock: object) -> None:
    async with net.node([Watcher]) as user:
        await user.ref("watcher", Watcher).ask(See(user.ref(f"I{'0' * 64}/service")))
        await trio.sleep(10)
        assert await user.ref("watcher", Watcher).ask(Seen()) == ["node lost"]
        assert user.statistics().peers == 0


async def test_a_long_watch_outlives_sessions_and_a_relay(pair: Pair, autojump_clock: object) -> None:
    await pair.see()
    await trio.sleep(600)
    pair.net.kill_relay()
    await trio.sleep(8)
    pair.net.start_relay()
    await trio.sleep(60)
    assert await pair.watcher.ask(Seen()) == []
    pair.server.ref("service").stop()
    await trio.sleep(1)
    assert await pair.watcher.ask(Seen()) == ["stopped"]


@pytest.mark.parametrize("kind", [Watch, Down], ids=["the watch", "the end"])
async def test_what_was_lost_is_said_again(pair: Pair, lose: Lose, kind: type[Entry], autojump_clock: object) -> None:
    await pair.service.ask(Add(1))
    lose(lambda entry: isinstance(entry, kind) and trio.current_time() < 15)
    await pair.see()
    if kind is Down:
        pair.server.ref("service").stop()
    await trio.sleep(25)
    pair.server.ref("service").stop()
    await trio.sleep(1)
    assert await pair.watcher.ask(Seen()) == ["stopped"]
    assert not pair.serving.watched


async def test_a_lost_end_of_a_watch_leaves_nothing_for_long(pair: Pair, lose: Lose, autojump_clock: object) -> None:
    lose(lambda entry: isinstance(entry, Unwatch))
    await pair.see()
    assert pair.outsiders() == 1
    await pair.watcher.ask(See(pair.service, end=True))
    await trio.sleep(LEASE + 2 * REPEAT_EVERY)
    assert pair.outsiders() == 0
    assert await pair.watcher.ask(Seen()) == []


async def test_who_may_send_an_agent_nothing_sees_no_agent(net: Net, autojump_clock: object) -> None:
    async with net.node([Counter]) as server, net.node([Watcher]) as user:
        watcher = user.ref("watcher", Watcher)
        await watcher.ask(See(user.ref(server.address("counter"))))
        await trio.sleep(1)
        assert await watcher.ask(Seen()) == ["unknown agent"]
        assert server.dead_letters.counts() == {"denied": 1}
    async with net.node([Counter]) as server, net.node([Watcher]) as user:
        user.add_credential(server.issue(user.identifier, team="payments"))
        watcher = user.ref("watcher", Watcher)
        await watcher.ask(See(user.ref(server.address("counter"))))
        await trio.sleep(1)
        assert await watcher.ask(Seen()) == []
        server.ref("counter").stop()
        await trio.sleep(1)
        assert await watcher.ask(Seen()) == ["stopped"]


async def test_a_watch_ends_with_the_agent_that_watches(pair: Pair, autojump_clock: object) -> None:
    await pair.see()
    assert pair.outsiders() == 1
    pair.watcher.stop()
    await trio.sleep(1)
    assert pair.outsiders() == 0


async def test_watches_of_one_node_are_bounded(pair: Pair, autojump_clock: object) -> None:
    await pair.service.ask(Add(1))
    for first in range(1, MOST_WATCHES + 512, 256):
        pair.say(*(Watch(number, "service", 0) for number in range(first, first + 256)))
        await trio.sleep(0.1)
    assert len(pair.serving.watched) == pair.outsiders() == MOST_WATCHES
    await trio.sleep(LEASE + REPEAT_EVERY)
    assert pair.outsiders() == 0


async def test_words_about_watches_that_are_none_change_nothing(pair: Pair, autojump_clock: object) -> None:
    await pair.see()
    pair.say(Down(999, "stopped"), Unwatch(999))
    await trio.sleep(1)
    assert await pair.watcher.ask(Seen()) == []
    assert pair.outsiders() == 1


@pytest.mark.parametrize("seed", range(8))
async def test_on_links_that_err_a_watcher_is_told_once(seed: int, autojump_clock: object) -> None:
    async with (
        open_test_fabric(seed=seed) as fabric,
        fabric.open_node([Service]) as server,
        fabric.open_node([Watcher]) as user,
    ):
        watcher = user.ref("watcher", Watcher)
        await user.ref(server.address("service"), Service).ask(Add(1))
        fabric.faults = Faults(drop=0.2, duplicate=0.2, tamper=0.05, reorder=0.2)
        await watcher.ask(See(user.ref(server.address("service"))))
        await trio.sleep(40)
        server.ref("service").stop()
        await trio.sleep(120)
        (reason,) = await watcher.ask(Seen())
        # Where every word of the watch was lost for 35 s, it begins anew, and may find the agent gone.
        assert reason in ("stopped", "node lost", "unknown agent")
