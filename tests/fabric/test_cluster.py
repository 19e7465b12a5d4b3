"""What relays on one Redis promise: a node at one reaches a node at another, and what is stored is everybody's."""

import signal
from collections.abc import Callable, Generator
from pathlib import Path

import attrs
import pytest
import trio

from autonomy_trio.fabric.relays import cluster as cluster_module
from autonomy_trio.fabric.relays import passing
from autonomy_trio.fabric.relays.cluster import Cluster
from autonomy_trio.fabric.relays.cluster_words import EVERYBODY, channel_of
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.fabric.relays.stores import open_store
from autonomy_trio.fabric.stores import redis_wire
from autonomy_trio.fabric.stores.redis_store import MAIL
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.directory import ListedAgent, ListedMessage, Record, make_listing
from autonomy_trio.wire.frames import Deliver, Frame, Lookup, Nack, Ping, Pong, Publish, Records, Stored
from autonomy_trio.wire.frames import Store as StoreFrame
from autonomy_trio.wire.mailbox import stored_id
from autonomy_trio.wire.packets import SealedPacket
from tests.support.neighbours import NOW, Neighbour, Neighbourhood
from tests.support.processes import PATIENCE
from tests.support.redis import RedisServer, redis_server

PACKET = b"\x01\x30" + bytes(100)


def sealed(text: str) -> bytes:
    packet = SealedPacket(1, bytes(96), text.encode().ljust(128))
    return packet.header + packet.message + packet.body


@attrs.define(eq=False)
class Member:
    """A relay of the cluster, and what is attached to it."""

    cluster: Cluster
    near: Neighbourhood
    _scope: trio.CancelScope

    @property
    def relay(self) -> Relay:
        return self.near.relay

    async def neighbour(self, vault: Vault | None = None) -> Neighbour:
        return await self.near.neighbour(vault)

    def kill(self) -> None:
        """End it as a crash would: it says nothing to anybody, and its connections end."""
        self.cluster.redis.is_there = False
        self._scope.cancel()


@pytest.fixture
def server(tmp_path: Path) -> Generator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@attrs.define(eq=False)
class Site:
    """A Redis, and the relays on it."""

    server: RedisServer
    nursery: trio.Nursery

    async def relay(self) -> Member:
        return await self.nursery.start(self._run)

    async def _run(self, task_status: trio.TaskStatus[Member]) -> None:
        with trio.CancelScope() as scope:
            async with open_store(self.server.url, now=lambda: NOW) as kept, trio.open_nursery() as nursery:
                assert kept.cluster is not None
                relay = Relay(Vault.in_memory(), now=lambda: NOW, store=kept.store, cluster=kept.cluster)
                await until(lambda: kept.cluster is not None and kept.cluster._caught_up > 0)
                task_status.started(Member(kept.cluster, Neighbourhood(relay, nursery), scope))
                await trio.sleep_forever()


@pytest.fixture
def site(server: RedisServer, nursery: trio.Nursery) -> Site:
    return Site(server, nursery)


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110 - it is another process that brings it about
            await trio.sleep(0.01)


def has_no_listener(site: Site, relay: Member) -> bool:
    """Tell whether Redis has noticed that a relay is gone."""
    return site.server.say("PUBSUB", "NUMSUB", channel_of(relay.cluster._token)).endswith(b":0\r\n")


async def hear(neighbour: Neighbour) -> Frame:
    """Return what a node hears next, besides pings."""
    with trio.fail_after(PATIENCE):
        while isinstance(frame := await neighbour.hear(), Ping):
            await neighbour.say(Pong())
        return frame


async def test_a_node_reaches_one_that_is_attached_to_another_relay(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    await alice.send(bob.id, PACKET)
    assert await hear(bob) == Deliver(alice.id, PACKET)
    await bob.send(alice.id, PACKET)
    assert await hear(alice) == Deliver(bob.id, PACKET)
    assert one.relay.statistics().passed == two.relay.statistics().passed == 1


async def test_packets_to_another_relay_stay_in_order(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    packets = [PACKET + number.to_bytes(2, "big") for number in range(1000)]
    for start in range(0, 1000, 100):
        await alice.send(bob.id, *packets[start : start + 100])
    assert [await hear(bob) for _ in packets] == [Deliver(alice.id, packet) for packet in packets]


async def test_a_packet_as_large_as_they_come_reaches_another_relay(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    await alice.send(bob.id, bytes(160 * 1024))
    assert await hear(bob) == Deliver(alice.id, bytes(160 * 1024))


async def test_a_node_that_is_nowhere_is_said_to_be(site: Site) -> None:
    one, _ = await site.relay(), await site.relay()
    alice = await one.neighbour()
    await alice.send(bytes(32), PACKET)
    assert await hear(alice) == Nack("unknown", bytes(32))
    assert one.relay.statistics().refused == 1


async def test_a_node_that_moves_to_another_relay_is_found_there(site: Site) -> None:
    one, two, three = await site.relay(), await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    await alice.send(bob.id, PACKET)
    await hear(bob)
    await bob.link.aclose()
    again = await three.neighbour(bob.vault)
    await until(lambda: bob.id not in two.relay.attached)
    # What was found before counts until the other relays have heard that it moved.
    with trio.fail_after(PATIENCE):
        while True:
            await alice.send(bob.id, PACKET)
            with trio.move_on_after(0.2):
                assert await hear(again) == Deliver(alice.id, PACKET)
                break


async def test_a_node_that_left_is_not_looked_for_at_its_old_relay_again(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    await alice.send(bob.id, PACKET)
    await hear(bob)
    await bob.link.aclose()
    await until(lambda: not two.relay.attached)
    await alice.send(bob.id, PACKET)
    assert await hear(alice) == Nack("unknown", bob.id)
    assert one.cluster._passing is not None
    assert one.cluster._passing._route(bob.id) is None


async def test_a_node_is_looked_for_where_it_was_said_to_be_last(site: Site) -> None:
    """A relay that could not say that a node left, for Redis was away, keeps nobody from reaching it at another."""
    one, two, three = await site.relay(), await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await three.neighbour()
    (now,) = await one.cluster.redis.do(("TIME",))
    place, relay = f"autonomy:1:at:{bob.id.hex()}", two.cluster._token.hex()
    await one.cluster.redis.do(("ZADD", place, int(now[0]) + int(passing.NODE_LIFE) - 10, relay))
    await alice.send(bob.id, PACKET)
    assert await hear(bob) == Deliver(alice.id, PACKET)
    assert one.relay.statistics().refused == 0


async def test_a_node_at_two_relays_is_reached_by_the_other_when_one_dies(site: Site) -> None:
    one, two, three = await site.relay(), await site.relay(), await site.relay()
    alice, vault = await one.neighbour(), Vault.in_memory()
    places = [(two, await two.neighbour(vault)), (three, await three.neighbour(vault))]
    await alice.send(vault.identifier, PACKET)
    way = one.cluster._passing
    assert way is not None
    await until(lambda: way._route(vault.identifier) is not None)
    used = way._route(vault.identifier)
    places.sort(key=lambda place: place[0].cluster._token != used)
    (dying, first), (_, second) = places
    assert await hear(first) == Deliver(alice.id, PACKET)
    dying.kill()
    await until(lambda: has_no_listener(site, dying))
    await alice.send(vault.identifier, PACKET)
    assert await hear(second) == Deliver(alice.id, PACKET), "it never left, so it is sent where the node is too"


async def test_what_goes_to_a_relay_that_died_with_its_nodes_is_said_at_once(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    await alice.send(bob.id, PACKET)
    await hear(bob)
    two.kill()
    await until(lambda: has_no_listener(site, two))
    await alice.send(bob.id, PACKET)
    assert await hear(alice) == Nack("unknown", bob.id)


async def test_a_slow_node_at_another_relay_is_said_to_be_overloaded(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob, carol = await one.neighbour(), await two.neighbour(), await two.neighbour()
    large = bytes(100 * 1024)
    with trio.fail_after(PATIENCE):
        while True:
            await alice.send(bob.id, large, large)
            with trio.move_on_after(0.01):
                assert await alice.hear() == Nack("overloaded", bob.id)
                break
    while alice._heard:
        alice._heard.popleft()
    await alice.send(carol.id, PACKET)
    assert await hear(carol) == Deliver(alice.id, PACKET), "one slow node slows no other"


async def test_more_than_waits_for_other_relays_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "SEEKING_BYTES", 3 * (len(PACKET) + 64))
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    await alice.send(bob.id, *[PACKET] * 4)
    assert await hear(alice) == Nack("overloaded", bob.id)
    assert [await hear(bob) for _ in range(3)] == [Deliver(alice.id, PACKET)] * 3


async def test_what_is_stored_at_one_relay_is_fetched_at_another(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, away = await one.neighbour(), Vault.in_memory()
    await alice.say(StoreFrame(away.identifier, 60, sealed("1")))
    assert await hear(alice) == Stored(stored_id(sealed("1")), None)
    bob = await two.neighbour(away)
    await bob.fetch()
    assert await hear(bob) == Deliver(alice.id, sealed("1"))
    await alice.say(StoreFrame(away.identifier, 60, sealed("2")))
    assert await hear(bob) == Deliver(alice.id, sealed("2")), "at once, while it is there"
    await bob.acknowledge(stored_id(sealed("1")), stored_id(sealed("2")))
    await until(lambda: site.server.say("ZCARD", "autonomy:1:expiry") == b":0\r\n")
    await bob.link.aclose()
    await alice.say(StoreFrame(away.identifier, 60, sealed("3")))
    again = await one.neighbour(away)
    await again.fetch()
    assert await hear(again) == Deliver(alice.id, sealed("3")), "what was acknowledged there is forgotten here"


async def test_what_was_stored_by_a_relay_that_died_is_there(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, away = await one.neighbour(), Vault.in_memory()
    await alice.say(StoreFrame(away.identifier, 60, sealed("1")))
    assert await hear(alice) == Stored(stored_id(sealed("1")), None)
    one.kill()
    bob = await two.neighbour(away)
    await bob.fetch()
    assert await hear(bob) == Deliver(alice.id, sealed("1"))


def publish(vault: Vault, *agents: str, serial: int = 1) -> Publish:
    listed = tuple(ListedAgent(name, "", (ListedMessage("Add", b""),)) for name in agents)
    record = Record(1, vault.identifier, 0, serial, int(NOW), int(NOW) + 600, (), listed)
    return Publish(make_listing(vault, record, ()))


async def found(neighbour: Neighbour, agent: str) -> int:
    await neighbour.say(Lookup(1, None, agent, None))
    frame = await hear(neighbour)
    assert isinstance(frame, Records)
    return len(frame.listings)


async def found_so_often(neighbour: Neighbour, agent: str, times: int) -> None:
    with trio.fail_after(PATIENCE):
        while await found(neighbour, agent) != times:  # noqa: ASYNC110 - another relay hears of it some time
            await trio.sleep(0.3)


async def test_what_is_published_at_one_relay_is_found_at_another_and_by_one_that_comes_later(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    await alice.say(publish(alice.vault, "till"))
    await found_so_often(bob, "till", 1)
    three = await site.relay()
    carol = await three.neighbour()
    assert await found(carol, "till") == 1
    (kept,) = await one.cluster.redis.do(("HGET", "autonomy:1:records", alice.id.hex()))
    assert kept[:40].isdigit(), "Lua compares text as the locale of the server has it, which is not by its bytes"
    await alice.say(publish(alice.vault, serial=2))
    await found_so_often(bob, "till", 0)
    four = await site.relay()
    assert await found(await four.neighbour(), "till") == 0


@pytest.mark.parametrize(
    "forged",
    [b"", b"\xff" * 40, bytes(16), bytes(16) + b"\x00\x00\x00\x01\x93", b"x" * 100],
    ids=["empty", "noise", "no words", "no word", "text"],
)
async def test_what_anybody_else_publishes_ends_no_relay(site: Site, forged: bytes) -> None:
    one, two = await site.relay(), await site.relay()
    for channel in (EVERYBODY, MAIL, channel_of(two.cluster._token)):
        await one.cluster.redis.do(("PUBLISH", channel, forged))
    alice, bob = await one.neighbour(), await two.neighbour()
    await alice.send(bob.id, PACKET)
    assert await hear(bob) == Deliver(alice.id, PACKET)


async def test_forged_presence_leads_packets_astray_for_a_while_and_does_no_more(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    forged = "00" * 16
    for name, value in ((f"autonomy:1:at:{bob.id.hex()}", forged), (f"autonomy:1:at:{bob.id.hex()}", "no relay")):
        await one.cluster.redis.do(("ZADD", name, 9_999_999_999, value), ("SET", f"autonomy:1:relay:{value}", 1))
    with trio.fail_after(PATIENCE):
        while True:
            await alice.send(bob.id, PACKET)
            with trio.move_on_after(0.2):
                assert await hear(bob) == Deliver(alice.id, PACKET)
                break
            while alice._heard:
                assert alice._heard.popleft() == Nack("unknown", bob.id)


async def test_redis_gone_for_a_while_refuses_what_needs_it_and_comes_back_by_itself(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob, carol = await one.neighbour(), await two.neighbour(), await one.neighbour()
    away = Vault.in_memory()
    await alice.say(StoreFrame(away.identifier, 60, sealed("1")))
    assert await hear(alice) == Stored(stored_id(sealed("1")), None)
    site.server.kill()
    await until(lambda: not one.cluster.redis.is_there)
    await alice.say(StoreFrame(away.identifier, 60, sealed("2")))
    assert await hear(alice) == Stored(stored_id(sealed("2")), "store failed")
    await alice.send(bob.id, PACKET)
    assert await hear(alice) == Nack("other relays away", bob.id)
    await alice.send(carol.id, PACKET)
    assert await hear(carol) == Deliver(alice.id, PACKET), "others are unaffected"
    late = await two.neighbour(away)  # registers as ever
    await late.fetch()
    site.server.start()
    assert await hear(late) == Deliver(alice.id, sealed("1"))
    await alice.say(StoreFrame(away.identifier, 60, sealed("2")))
    assert await hear(alice) == Stored(stored_id(sealed("2")), None)
    assert await hear(late) == Deliver(alice.id, sealed("2"))
    with trio.fail_after(PATIENCE):
        while True:
            await alice.send(bob.id, PACKET)
            with trio.move_on_after(0.2):
                assert await hear(bob) == Deliver(alice.id, PACKET)
                break


async def test_what_was_stored_while_a_relay_did_not_listen_is_handed_over_when_it_does(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, bob = await one.neighbour(), await two.neighbour()
    await bob.fetch()
    await until(lambda: bob.id in two.relay._mailboxes.desks)
    await trio.sleep(0.1)
    site.server.say("CLIENT", "KILL", "TYPE", "pubsub")
    await alice.say(StoreFrame(bob.id, 60, sealed("1")))
    assert await hear(alice) == Stored(stored_id(sealed("1")), None)
    assert await hear(bob) == Deliver(alice.id, sealed("1"))


async def test_a_node_that_registered_at_one_relay_can_be_sealed_for_by_what_another_tells_of_it(site: Site) -> None:
    one, two = await site.relay(), await site.relay()
    alice, away = await one.neighbour(), Vault.in_memory()
    bob = await two.neighbour(away)
    await bob.link.aclose()
    await until(lambda: not two.relay.attached)
    await alice.say(Lookup(7, away.identifier, None, None), Lookup(8, bytes(32), None, None))
    answers = [await hear(alice), await hear(alice)]
    assert {(each.request, each.bundle) for each in answers if isinstance(each, Records)} == {
        (7, away.bundle(NOW)),
        (8, None),
    }


async def test_a_bundle_that_somebody_else_has_written_is_told_to_nobody(site: Site) -> None:
    one = await site.relay()
    alice, other = await one.neighbour(), Vault.in_memory()
    await one.cluster.redis.do(
        ("SET", f"autonomy:1:bundle:{bytes(32).hex()}", b"rubbish"),
        ("SET", f"autonomy:1:bundle:{bytes([1] * 32).hex()}", other.bundle(NOW)),
    )
    for node in (bytes(32), bytes([1] * 32)):
        await alice.say(Lookup(1, node, None, None))
        answer = await hear(alice)
        assert isinstance(answer, Records)
        assert answer.bundle is None


async def test_a_node_is_told_that_nothing_is_known_while_redis_is_away(site: Site) -> None:
    one = await site.relay()
    alice = await one.neighbour()
    site.server.kill()
    await until(lambda: not one.cluster.redis.is_there)
    await alice.say(Lookup(1, bytes(32), None, None))
    answer = await hear(alice)
    assert isinstance(answer, Records)
    assert answer.bundle is None


async def test_bundles_that_are_kept_are_bounded_and_the_oldest_go(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "MOST_BUNDLES", 2)
    one = await site.relay()
    nodes = [await one.neighbour() for _ in range(4)]
    await until(lambda: not one.cluster._unsaid)
    assert site.server.say("ZCARD", "autonomy:1:bundles") == b":2\r\n"
    assert sum(site.server.say("EXISTS", f"autonomy:1:bundle:{each.id.hex()}") == b":1\r\n" for each in nodes) == 2


async def test_what_was_under_way_when_redis_fell_silent_is_said_to_be_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_wire, "ANSWER_LIMIT", 0.5)
    monkeypatch.setattr(redis_wire, "PING_EVERY", 0.1)
    one, two = await site.relay(), await site.relay()
    alice, bob, carol = await one.neighbour(), await two.neighbour(), await two.neighbour()
    await alice.send(bob.id, PACKET)
    assert await hear(bob) == Deliver(alice.id, PACKET)
    site.server.signal(signal.SIGSTOP)
    await alice.send(bob.id, PACKET)  # where he is, is remembered
    await alice.send(carol.id, PACKET)  # where she is, is looked for
    said = [await hear(alice), await hear(alice)]
    assert all(frame in said for frame in (Nack("other relays away", bob.id), Nack("other relays away", carol.id)))
    site.server.signal(signal.SIGCONT)


async def test_a_node_that_comes_here_while_it_is_looked_for_gets_what_is_for_it(site: Site) -> None:
    one = await site.relay()
    alice, vault = await one.neighbour(), Vault.in_memory()
    site.server.signal(signal.SIGSTOP)
    await alice.send(vault.identifier, PACKET)
    way = one.cluster._passing
    assert way is not None
    await until(lambda: vault.identifier in way._seeking)
    async with trio.open_nursery() as nursery:
        came: list[Neighbour] = []

        async def come() -> None:
            came.append(await one.neighbour(vault))

        nursery.start_soon(come)
        await until(lambda: vault.identifier in one.relay.attached)
        site.server.signal(signal.SIGCONT)
    assert await hear(came[0]) == Deliver(alice.id, PACKET)
