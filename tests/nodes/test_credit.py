"""Credit between nodes: a full mailbox over there holds back whoever sends to it, and nobody else."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Node, Request, Stream, agent, on, open_node
from autonomy_trio.errors import MailboxFull, NotDelivered
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.peers import flows
from autonomy_trio.fabric.peers.peer import Carrier
from autonomy_trio.messages import encode_payload
from autonomy_trio.testing import Faults, open_test_fabric
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.wire.constants import PEER_WINDOW_BYTES, WINDOW_BYTES, XX1
from autonomy_trio.wire.entries import Accepted, Ask, Blocked, Open, Tell
from tests.support.net import Lose, Net, World, say


@frozen
class Put:
    number: int
    ballast: bytes = b""


@frozen
class Look(Request[list[int]]):
    pass


@frozen
class Nap(Request[None]):
    seconds: float


@frozen
class Left(Request[float]):
    """How many seconds its deadline leaves it."""


@frozen
class Numbers(Stream[int]):
    upto: int


@agent(mailbox=Mailbox(4))
class Slow:
    taken: list[int] = field(factory=list[int])

    @on(Put, allow="true")
    def put(self, message: Put) -> None:
        self.taken.append(message.number)

    @on(Look, allow="true")
    def look(self, message: Look) -> list[int]:
        return list(self.taken)

    @on(Nap, allow="true")
    async def nap(self, message: Nap) -> None:
        await trio.sleep(message.seconds)

    @on(Left, allow="true")
    async def left(self, message: Left, context: Context) -> float:
        return context.deadline - trio.current_time()

    @on(Numbers, allow="true")
    async def numbers(self, message: Numbers) -> AsyncIterator[int]:
        for number in range(message.upto):
            yield number


@agent(mailbox=Mailbox(4, overflow="drop_oldest"))
class Latest(Slow):
    @on(Put, allow="true")
    async def put(self, message: Put) -> None:
        self.taken.append(message.number)
        await trio.sleep(1)


@agent
class Closed(Slow):
    @on(Put, allow='principal.team == "nobody"')
    def put(self, message: Put) -> None:
        raise AssertionError("it was denied")


@frozen
class Told:
    """How many tells have returned, as a task goes on telling."""

    counts: list[int] = field(factory=lambda: [0])

    @property
    def count(self) -> int:
        return self.counts[0]

    async def put(self, ref: AgentRef[Any], upto: int, ballast: bytes = b"", first: int = 0) -> None:
        for number in range(first, upto):
            await ref.tell(Put(number, ballast))
            self.counts[0] += 1


BALLAST = bytes(2_000)
AHEAD = WINDOW_BYTES // len(BALLAST) + 4
"""More than are ever under way to an agent that takes nothing, and its mailbox."""


async def napping(ref: AgentRef[Any], nursery: trio.Nursery, seconds: float) -> None:
    nursery.start_soon(ref.ask, Nap(seconds))
    await trio.sleep(0.5)


async def answered(ref: AgentRef[Any]) -> None:
    """Return when an agent answers, on a node that may not be there yet."""
    while True:
        with suppress(NotDelivered):
            await ref.ask(Look())
            return


def fill(ref: AgentRef[Any]) -> None:
    for number in range(1000):
        ref.tell_nowait(Put(number, BALLAST))


def held(node: Node) -> int:
    return node.statistics().waiting


def leave(node: Node, other: Node) -> None:
    """Have a node take leave of another one, as if it were to end."""
    identifier = other._vault.identifier
    node._peers.sessions.endpoint.close(identifier, "it leaves")
    node._peers.sessions._carry_out()
    node._peers.sessions._end(node._peers.sessions.peers[identifier], "it leaves")


async def test_a_full_mailbox_over_there_blocks_tell_over_here_and_nothing_else(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        server.spawn(Slow, "other")
        slow, other = (user.ref(server.address(name), Slow) for name in ("slow", "other"))
        told = Told()
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 20)
            nursery.start_soon(told.put, slow, 1000, BALLAST)
            await trio.sleep(5)
            assert 4 < told.count <= AHEAD, "tell waits"
            assert held(server) <= WINDOW_BYTES
            for number in range(500):
                await other.tell(Put(number))
            with trio.fail_after(1):
                assert await other.ask(Look()) == list(range(500))
            assert told.count <= AHEAD
        assert await slow.ask(Look()) == list(range(1000)), "none was lost, and all are in order"
        assert server.dead_letters.counts() == {}
        assert held(server) == 0


async def test_an_ask_waits_for_room_behind_what_was_told_before(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 5)
            for number in range(20):
                await slow.tell(Put(number))
            assert await slow.ask(Look()) == list(range(20))
            assert await slow.ask(Look()) == list(range(20))


async def test_a_stream_is_opened_when_there_is_room(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 5)
            for number in range(20):
                await slow.tell(Put(number))
            async with slow.stream(Numbers(40)) as numbers:
                assert [number async for number in numbers] == list(range(40))


async def test_a_deadline_holds_while_an_ask_waits_for_room(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 10)
            for there in (0, 1000):  # in the lobby over there, and here for want of credit
                nursery.start_soon(Told().put, slow, there, BALLAST)
                await trio.sleep(1)
                start = trio.current_time()
                with pytest.raises(trio.TooSlowError), trio.fail_after(2):
                    await slow.ask(Nap(100))
                assert trio.current_time() - start == pytest.approx(2, abs=0.1)
        assert len(await slow.ask(Look())) == 1000
        assert server.statistics().queued == 0


async def test_a_tell_that_is_cancelled_while_it_waits_is_not_sent_and_holds_nobody_up(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        told = Told()
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 10)
            with trio.move_on_after(2) as scope:
                await told.put(slow, 1000, BALLAST)
            assert scope.cancelled_caught
            nursery.start_soon(slow.tell, Put(-1))
            nursery.start_soon(slow.tell, Put(-2))
        taken = await slow.ask(Look())
        assert taken[: told.count] == list(range(told.count))
        assert sorted(taken[told.count :]) == [-2, -1]


async def test_an_ask_withdrawn_while_it_waits_over_there_gives_its_room_back(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 10)
            for number in range(4):
                await slow.tell(Put(number))
            with trio.move_on_after(1):
                await slow.ask(Nap(1000))
            await trio.sleep(0.5)
            assert held(server) == 0
        assert await slow.ask(Look()) == [0, 1, 2, 3]


async def test_tell_nowait_says_when_the_way_to_a_full_mailbox_is_full(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow, other = (user.ref(server.address(name), Slow) for name in ("slow", "other"))
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 10)
            with pytest.raises(MailboxFull, match="/slow is full"):
                fill(slow)
            other.tell_nowait(Put(0))
        assert 50 < len(await slow.ask(Look())) <= AHEAD


async def test_denied_messages_give_their_credit_back(net: Net, autojump_clock: object) -> None:
    async with net.node([Closed]) as server, net.node() as user:
        for name in ("closed", "nobody"):
            told = Told()
            with trio.fail_after(10):
                await told.put(user.ref(server.address(name)), 1000, BALLAST)
        await trio.sleep(1)
        assert server.dead_letters.counts() == {"denied": 1000, "unknown agent": 1000}
        assert held(server) == 0


async def test_lost_messages_give_their_credit_back_and_are_counted(
    net: Net, lose: Lose, autojump_clock: object
) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        await slow.tell(Put(-1))
        await slow.ask(Look())
        lose(lambda entry: isinstance(entry, Tell))
        with trio.fail_after(60):
            await Told().put(slow, 600, BALLAST)
            await trio.sleep(1)
            lose(lambda _: False)
            await Told().put(slow, 10)
        assert await slow.ask(Look()) == [-1, *range(10)]
        assert server.statistics().missing == 600


async def test_lost_words_about_credit_come_again(net: Net, lose: Lose, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow, told = user.ref(server.address("slow"), Slow), Told()
        lose(lambda entry: isinstance(entry, Accepted))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.put, slow, 400, BALLAST)
            await trio.sleep(10)
            assert told.count <= AHEAD
            lose(lambda entry: isinstance(entry, Blocked))
            await trio.sleep(10)
            assert told.count < 400
            lose(lambda _: False)
            await trio.sleep(10)
            assert told.count == 400
        assert await slow.ask(Look()) == list(range(400))


@pytest.mark.parametrize("seed", range(6))
async def test_on_links_that_err_order_and_credit_hold(seed: int, autojump_clock: object) -> None:
    """Nothing is handled twice or out of order, whoever waits for credit gets it, and each message is accounted for."""
    async with open_test_fabric(seed=seed) as fabric, fabric.open_node([Slow]) as server, fabric.open_node() as user:
        slow, told = user.ref(server.address("slow"), Slow), Told()
        await slow.tell(Put(-1))
        await slow.ask(Look())
        fabric.faults = Faults(drop=0.1, duplicate=0.1, reorder=0.1, delay=0.05)
        with trio.fail_after(600):
            await told.put(slow, 1500, BALLAST)
        fabric.faults = Faults()
        await trio.sleep(20)
        await slow.tell(Put(1500))
        taken = await slow.ask(Look())
        assert taken == sorted(set(taken))
        assert taken[-1] == 1500
        statistics = server.node.statistics()
        late = server.node.dead_letters.counts().get("late", 0)
        assert len(taken) + statistics.missing == 1502, "a late one is a missing one that came"
        assert late <= statistics.missing
        assert statistics.waiting == 0


async def test_traffic_beyond_a_grant_is_refused_and_counted(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 20)
            for first in range(0, 1000, 20):
                puts = [encode_payload(Put(number, BALLAST)) for number in range(first, first + 20)]
                say(user, server, *(Tell("slow", "Put", put, 0, 0) for put in puts))
                await trio.sleep(0.01)
            await trio.sleep(1)
            assert held(server) <= WINDOW_BYTES
            refused = server.dead_letters.counts()["overloaded"]
            assert refused >= 1000 - AHEAD
            say(user, server, *(Tell("slow", "Put", encode_payload(Put(0)), 0, 0) for _ in range(20)))
            await trio.sleep(1)
            refused = server.dead_letters.counts()["overloaded"]
            ask = Ask(77, "slow", "Nap", encode_payload(Nap(1)), None, 0, 0)
            say(user, server, ask, Open(78, "slow", "Numbers", encode_payload(Numbers(1)), 1, 0, 0))
            await trio.sleep(1)
            (peer,) = server._peers.sessions.peers.values()
            assert not peer.feeding
            assert 77 not in peer.served
        assert len(await slow.ask(Look())) == 1020 - refused


async def test_what_waits_for_mailboxes_is_bounded_for_a_node_and_in_all(
    net: Net, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "PEER_WINDOW_BYTES", 4 * WINDOW_BYTES)
    names = [f"slow_{number}" for number in range(8)]
    async with net.node() as server, net.node() as user, net.node() as third:
        for name in names:
            server.spawn(Slow, name)
        told = Told()
        async with trio.open_nursery() as nursery:
            for name in names:
                ref = user.ref(server.address(name), Slow)
                await napping(ref, nursery, 20)
                nursery.start_soon(told.put, ref, 300, BALLAST)
            await trio.sleep(2)
            assert 3 * WINDOW_BYTES < held(server) <= 4 * WINDOW_BYTES
            assert server.dead_letters.counts() == {}
            with trio.fail_after(1):
                await third.ref(server.address("slow_0"), Slow).tell(Put(0))
        for name in names:
            assert len(await user.ref(server.address(name), Slow).ask(Look())) in (300, 301)
        assert held(server) == 0


async def test_a_node_full_of_what_waits_grants_less_and_takes_no_more(
    net: Net, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "MOST_HELD", WINDOW_BYTES)
    async with net.node([Slow]) as server, net.node() as user, net.node() as third:
        server.spawn(Slow, "other")
        slow, other = user.ref(server.address("slow"), Slow), third.ref(server.address("other"), Slow)
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 20)
            await napping(other, nursery, 20)
            nursery.start_soon(Told().put, slow, 300, BALLAST)
            await trio.sleep(2)
            for number in range(20):
                await other.tell(Put(number, BALLAST))
            await trio.sleep(2)
            assert held(server) <= WINDOW_BYTES
            assert server.dead_letters.counts()["overloaded"] >= 10
            say(third, server, Blocked("other", 0))
            await trio.sleep(1)
            (peer,) = third._peers.sessions.peers.values()
            assert peer.outflows._flow("other").spending.window == WINDOW_BYTES // 16
        assert len(await slow.ask(Look())) == 300


async def test_a_mailbox_that_drops_never_blocks_its_senders(net: Net, autojump_clock: object) -> None:
    async with net.node([Latest]) as server, net.node() as user:
        latest = user.ref(server.address("latest"), Latest)
        with trio.fail_after(0.9):
            await Told().put(latest, 1000, BALLAST)
        await trio.sleep(6)
        assert (await latest.ask(Look()))[-4:] == [996, 997, 998, 999]
        assert server.dead_letters.counts() == {"overloaded": 995}


async def test_an_agent_that_ends_lets_go_of_what_waited_for_it(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow, told = user.ref(server.address("slow"), Slow), Told()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(NotDelivered, match="is stopping"):
                    await slow.ask(Look())

            server._runtime.ref("slow").tell_nowait(Nap(1000))  # type: ignore[arg-type]
            for number in range(8):
                await slow.tell(Put(number))
            nursery.start_soon(ask)
            await trio.sleep(1)
            nursery.start_soon(told.put, slow, 1000, BALLAST)
            await trio.sleep(2)
            assert told.count < 1000
            server.ref("slow").stop()
        assert told.count == 1000
        await trio.sleep(1)
        assert held(server) == 0
        counts = server.dead_letters.counts()
        assert counts["stopped"] + counts["unknown agent"] >= 1009


async def test_a_node_that_is_lost_lets_its_senders_go_on_within_thirty_seconds(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow, told = user.ref(server.address("slow"), Slow), Told()
        server._runtime.ref("slow").tell_nowait(Nap(1000))  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.put, slow, 1000, BALLAST)
            await trio.sleep(5)
            before = told.count
            net.loses = lambda frame: True
            await trio.sleep(30)
            assert told.count > before, "it waits for the next try, and that is lost too"
            nursery.cancel_scope.cancel()
        await trio.sleep(60)
        assert user.statistics().lost > 0


async def test_a_node_that_was_restarted_owes_no_credit(net: Net, autojump_clock: object, tmp_path: Path) -> None:
    async with net.node() as user:
        told = Told()
        async with trio.open_nursery() as nursery:
            async with net.node([Slow], home=tmp_path / "home", grace=0.5) as server:
                slow = user.ref(server.address("slow"), Slow)
                server._runtime.ref("slow").tell_nowait(Nap(1000))  # type: ignore[arg-type]
                nursery.start_soon(told.put, slow, 600, BALLAST)
                await trio.sleep(5)
                assert told.count < 600
            async with net.node([Slow], home=tmp_path / "home"):
                await answered(slow)  # a home is opened by a thread, for which virtual time does not wait
                await Told().put(slow, 2000, BALLAST, first=1000)
                taken = await slow.ask(Look())
                assert [number for number in taken if number >= 1000] == list(range(1000, 2000))
                assert told.count == 600


async def test_an_ask_carries_what_is_left_of_its_deadline_when_it_leaves(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        assert await slow.ask(Left()) == pytest.approx(30, abs=0.1)
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 5)
            nursery.start_soon(Told().put, slow, 1000, BALLAST)
            await trio.sleep(0.5)
            start = trio.current_time()
            with trio.fail_after(20):
                left = await slow.ask(Left())
            waited = trio.current_time() - start
        assert waited >= 4
        assert left == pytest.approx(20 - waited, abs=0.1)


async def test_senders_wait_in_the_order_they_came(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow, told = user.ref(server.address("slow"), Slow), Told()
        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 10)
            nursery.start_soon(told.put, slow, 200, BALLAST)
            await trio.sleep(1)
            first = told.count
            for number in range(300, 310):
                nursery.start_soon(slow.tell, Put(number))
                await trio.sleep(0.1)
        taken = await slow.ask(Look())
        assert [number for number in taken if number >= 300] == list(range(300, 310))
        assert taken.index(300) == first + 1, "the one that waited first goes first"


async def test_flows_are_forgotten_where_nothing_is_under_way(
    net: Net, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "MOST_FLOWS", 16)
    async with net.node([Slow]) as server, net.node() as user:
        for number in range(400):
            ref = user.ref(server.address(f"nobody_{number}"))
            for _ in range(2):
                await ref.tell(Put(number, BALLAST))
        slow = user.ref(server.address("slow"), Slow)
        await Told().put(slow, 300, BALLAST)
        assert await slow.ask(Look()) == list(range(300))
        await trio.sleep(30)
        (near,), (far,) = user._peers.sessions.peers.values(), server._peers.sessions.peers.values()
        assert len(far.inflows._flows) <= 16
        assert near.outflows.under_way < PEER_WINDOW_BYTES // 4
        assert len(await slow.ask(Look())) == 300
        say(user, server, *(Blocked(f"stranger_{number}", number) for number in range(200)))
        assert len(far.inflows._due) <= 16
        await trio.sleep(1)
        assert not far.inflows.has_words


async def test_many_asks_wait_for_a_slow_agent_and_none_is_turned_away(world: World, autojump_clock: object) -> None:
    del world
    async with open_test_fabric() as fabric, fabric.open_node([Slow]) as server, fabric.open_node() as user:
        slow, found = user.ref(server.address("slow"), Slow), list[list[int]]()

        async def ask() -> None:
            found.append(await slow.ask(Look()))

        async with trio.open_nursery() as nursery:
            await napping(slow, nursery, 5)
            for _ in range(2000):
                nursery.start_soon(ask)
        assert found == [[]] * 2000


async def test_words_about_flows_that_never_were_change_nothing(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        slow = user.ref(server.address("slow"), Slow)
        await slow.tell(Put(1))
        assert await slow.ask(Look()) == [1]
        say(server, user, Accepted("nobody", 2**62, 0), Accepted("slow", 2**62, 0), Accepted("slow", 0, 0))
        await trio.sleep(1)
        with trio.fail_after(1):
            await slow.tell(Put(2))
            assert await slow.ask(Look()) == [1, 2]


async def test_words_about_credit_do_not_keep_a_node_knocking_at_one_that_has_gone(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        assert await user.ref(server.address("slow"), Slow).ask(Look()) == []
        await trio.sleep(20)  # what is sent now must be preceded by a handshake
        (peer,) = server._peers.sessions.peers.values()
        net.loses = lambda frame: True
        before = net.packets(XX1)
        peer.inflows.asked(Blocked("slow", 1 << 33))
        peer.wake()
        await trio.sleep(100)
        assert 1 <= net.packets(XX1) - before <= 10, "one handshake, repeated for 5 s"
        assert not peer.inflows.has_words


async def test_two_relays_that_reorder_break_neither_order_nor_credit(autojump_clock: object) -> None:
    """What one relay holds back is late for the agents that heard more meanwhile, and in order for the others."""
    async with open_test_fabric() as slower, open_test_fabric() as faster:
        fabrics = {"ws://memory:1": slower, "ws://memory:2": faster}

        async def connect(url: str, nursery: trio.Nursery) -> Link:
            return await fabrics[url].connect(slower.url, nursery)

        def open_one(*agents: type) -> AbstractAsyncContextManager[Node]:
            return open_node(agents, relay=list(fabrics), now=virtual_now, connect=connect)

        async with open_one(Slow) as server, open_one() as user:
            server.spawn(Slow, "other")
            slow, other = (user.ref(f"{server.identifier}/{name}", Slow) for name in ("slow", "other"))
            assert await slow.ask(Look()) == await other.ask(Look()) == []
            state = user._peers.sessions.endpoint._roster.get(server._vault.identifier)
            assert state is not None
            assert state.current is not None
            one, two = user._peers.sessions.carriers

            async def over(carrier: Carrier, first: int, ref: AgentRef[Any]) -> None:
                assert state.current is not None
                state.current.path = carrier, server._vault.identifier
                for number in range(first, first + 50):
                    await ref.tell(Put(number))
                await trio.sleep(0.01)

            slower.faults = Faults(delay=2)
            await over(one, 0, slow)
            await over(one, 0, other)
            await over(two, 50, slow)
            await trio.sleep(1)
            slower.faults = Faults()
            await trio.sleep(5)
            with trio.fail_after(5):
                assert await slow.ask(Look()) == list(range(50, 100))
                assert await other.ask(Look()) == list(range(50))
            assert server.dead_letters.counts() == {"late": 50}
            assert server.statistics().missing == 50
            with trio.fail_after(5):
                await Told().put(slow, 300, BALLAST)
            assert (await slow.ask(Look()))[50:] == list(range(300))


async def test_a_node_that_comes_again_and_again_holds_no_more_than_one_may(net: Net, autojump_clock: object) -> None:
    async with net.node([Slow]) as server, net.node() as user:
        names = [server.spawn(Slow, f"slow-{number}").name for number in range(PEER_WINDOW_BYTES // WINDOW_BYTES)]
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(server.ref(name, Slow).ask, Nap(600))
            for _ in range(3):
                for name in names:
                    with pytest.raises(MailboxFull):
                        fill(user.ref(server.address(name), Slow))
                    await trio.sleep(0.02)
                await trio.sleep(2)
                leave(user, server)
                await trio.sleep(1)
                assert held(server) <= PEER_WINDOW_BYTES
            nursery.cancel_scope.cancel()
