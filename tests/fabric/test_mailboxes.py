"""What a relay promises about envelopes for nodes that are away."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from autonomy_trio.errors import LinkBroken
from autonomy_trio.fabric.relays import mailboxes
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.fabric.stores.sqlite import open_sqlite_store
from autonomy_trio.fabric.stores.store import Envelope, Place, Store
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import Deliver, Frame, Ping, Pong, Stored, join_frames
from autonomy_trio.wire.frames import Store as StoreFrame
from autonomy_trio.wire.mailbox import Connection, make_ack, make_fetch, stored_id
from autonomy_trio.wire.packets import SealedPacket
from tests.support.neighbours import NONCE, NOW, Neighbour, Neighbourhood, eventually

pytestmark = pytest.mark.usefixtures("calm")


def sealed(text: str) -> bytes:
    """What a relay takes for a sealed envelope; it opens none."""
    packet = SealedPacket(1, bytes(96), text.encode().ljust(128))
    return packet.header + packet.message + packet.body


def store_frame(destination: bytes, text: str, life: int = 60) -> StoreFrame:
    return StoreFrame(destination, life, sealed(text))


def stored(text: str, refusal: str | None = None) -> Stored:
    return Stored(stored_id(sealed(text)), refusal)


@attrs.define(eq=False)
class FickleStore:
    """Envelopes in memory, in a store whose moods a test sets."""

    envelopes: list[Envelope] = attrs.field(factory=list[Envelope])
    refusal: str | None = None
    fails: bool = False
    may_end: trio.Event = attrs.field(factory=trio.Event)

    async def put(self, envelopes: Sequence[Envelope]) -> Sequence[str | None]:
        await self.may_end.wait()
        if self.refusal is None:
            self.envelopes.extend(envelopes)
        return [self.refusal] * len(envelopes)

    async def read(self, destination: bytes, after: Place, most: int) -> Sequence[tuple[Place, Envelope]]:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise StoreFailed("gone")
        mine = [(place, each) for place, each in enumerate(self.envelopes, 1) if each.destination == destination]
        return [(place, each) for place, each in mine if place > after][:most]

    async def forget(self, destination: bytes, ids: Sequence[bytes]) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise StoreFailed("gone")
        self.envelopes = [each for each in self.envelopes if each.destination != destination or each.id not in ids]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    async with open_sqlite_store(tmp_path / "box", now=lambda: NOW) as store:
        yield store


def near(store: Store | None, nursery: trio.Nursery) -> Neighbourhood:
    return Neighbourhood(Relay(Vault.in_memory(), now=lambda: NOW, store=store), nursery)


async def hear_text(neighbour: Neighbour) -> str:
    frame = await neighbour.hear()
    assert isinstance(frame, Deliver)
    return frame.packet[-128:].decode().strip()


async def test_what_is_stored_waits_for_a_node_that_is_away(store: Store, nursery: trio.Nursery) -> None:
    relay, away = near(store, nursery), Vault.in_memory()
    alice = await relay.neighbour()
    await alice.say(store_frame(away.identifier, "1"), store_frame(away.identifier, "2"))
    assert [await alice.hear(), await alice.hear()] == [stored("1"), stored("2")]
    bob = await relay.neighbour(away)
    await bob.fetch()
    assert await bob.hear() == Deliver(alice.id, sealed("1"))
    assert await bob.hear() == Deliver(alice.id, sealed("2"))


async def test_what_is_stored_for_a_node_that_fetches_comes_at_once(store: Store, nursery: trio.Nursery) -> None:
    relay = near(store, nursery)
    alice, bob = await relay.neighbour(), await relay.neighbour()
    await bob.fetch()
    await alice.say(store_frame(bob.id, "1"))
    assert await hear_text(bob) == "1"


async def test_stored_is_said_when_the_store_has_it_and_not_before(nursery: trio.Nursery) -> None:
    store = FickleStore()
    alice = await near(store, nursery).neighbour()
    await alice.say(store_frame(bytes(32), "1"))
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0):
        pytest.fail(f"said {await alice.hear()} too soon")
    store.may_end.set()
    assert await alice.hear() == stored("1")
    assert [each.packet for each in store.envelopes] == [sealed("1")]


@pytest.mark.parametrize("refusal", ["disk failed", "mailbox full"])
async def test_what_is_not_stored_is_refused_with_the_reason(nursery: trio.Nursery, refusal: str) -> None:
    store = FickleStore(refusal=refusal)
    store.may_end.set()
    alice = await near(store, nursery).neighbour()
    await alice.say(store_frame(bytes(32), "1"))
    assert await alice.hear() == stored("1", refusal)


async def test_a_relay_without_a_store_says_so(nursery: trio.Nursery) -> None:
    alice = await near(None, nursery).neighbour()
    await alice.fetch()
    await alice.acknowledge(bytes(32))
    await alice.say(store_frame(bytes(32), "1"))
    assert await alice.hear() == stored("1", "no store")


async def test_what_is_not_acknowledged_comes_again_on_the_next_connection(store: Store, nursery: trio.Nursery) -> None:
    relay = near(store, nursery)
    alice, bob = await relay.neighbour(), await relay.neighbour()
    await alice.say(store_frame(bob.id, "1"), store_frame(bob.id, "2"))
    await bob.fetch()
    assert [await hear_text(bob), await hear_text(bob)] == ["1", "2"]
    await bob.acknowledge(stored_id(sealed("1")))
    with trio.fail_after(1):
        while len(await store.read(bob.id, 0, 2)) > 1:  # noqa: ASYNC110 - nobody tells when it is forgotten
            await trio.sleep(0.001)
    await bob.link.aclose()
    again = await relay.neighbour(bob.vault)
    await again.fetch()
    assert await hear_text(again) == "2"


async def test_a_node_has_no_more_unacknowledged_than_it_asked_for(store: Store, nursery: trio.Nursery) -> None:
    relay = near(store, nursery)
    alice, bob = await relay.neighbour(), await relay.neighbour()
    await alice.say(*(store_frame(bob.id, str(number)) for number in range(3)))
    assert [await alice.hear() for _ in range(3)] == [stored(str(number)) for number in range(3)]
    await bob.fetch(1)
    for number in range(3):
        assert await hear_text(bob) == str(number)
        await trio.testing.wait_all_tasks_blocked()
        assert not bob._heard
        await bob.acknowledge(stored_id(sealed(str(number))))


async def test_what_a_node_never_acknowledges_holds_others_up_for_a_minute(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    store = FickleStore()
    store.may_end.set()
    relay = near(store, nursery)
    alice, bob = await relay.neighbour(), await relay.neighbour()
    await alice.say(store_frame(bob.id, "1"), store_frame(bob.id, "2"))
    await bob.fetch(1)
    assert await hear_text(bob) == "1"
    began = trio.current_time()
    assert await hear_patiently(bob) == Deliver(alice.id, sealed("2"))
    assert mailboxes.HELD_UP <= trio.current_time() - began < mailboxes.HELD_UP + 2


async def hear_patiently(neighbour: Neighbour) -> Frame:
    """Answer pings until something else is said."""
    while isinstance(frame := await neighbour.hear(), Ping):
        await neighbour.say(Pong())
    return frame


async def test_a_store_that_is_gone_for_a_while_is_asked_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    store = FickleStore(fails=True)
    store.may_end.set()
    relay = near(store, nursery)
    alice, bob = await relay.neighbour(), await relay.neighbour()
    await alice.say(store_frame(bob.id, "1"))
    await bob.fetch()
    await trio.sleep(5)
    store.fails = False
    assert await hear_text(bob) == "1"


async def test_what_could_not_be_forgotten_comes_again(nursery: trio.Nursery) -> None:
    store = FickleStore()
    store.may_end.set()
    relay = near(store, nursery)
    alice, bob = await relay.neighbour(), await relay.neighbour()
    await alice.say(store_frame(bob.id, "1"))
    await bob.fetch()
    assert await hear_text(bob) == "1"
    store.fails = True
    await bob.acknowledge(stored_id(sealed("1")))
    await trio.testing.wait_all_tasks_blocked()
    store.fails = False
    await bob.fetch()
    assert await hear_text(bob) == "1"


async def test_nobody_acknowledges_what_is_anothers(store: Store, nursery: trio.Nursery) -> None:
    relay = near(store, nursery)
    alice, bob = await relay.neighbour(), await relay.neighbour()
    await alice.say(store_frame(bob.id, "1"))
    assert await alice.hear() == stored("1")
    await alice.fetch()
    await alice.acknowledge(stored_id(sealed("1")))
    await trio.testing.wait_all_tasks_blocked()
    await bob.fetch()
    assert await hear_text(bob) == "1"


async def is_ended(neighbour: Neighbour) -> bool:
    try:
        with trio.fail_after(1):
            await neighbour.link.receive()
    except LinkBroken:
        return True
    return False


async def test_a_request_that_is_replayed_or_of_another_connection_ends_it(store: Store, nursery: trio.Nursery) -> None:
    relay = near(store, nursery)
    for forge in (
        lambda each: make_fetch(each.vault, Connection(bytes(32), NONCE), 0, 256),
        lambda each: make_fetch(Vault.in_memory(), each.connection, 0, 256),
        lambda each: make_ack(each.vault, Connection(bytes(32), NONCE), 0, [bytes(32)]),
    ):
        bob = await relay.neighbour()
        await bob.link.send(join_frames([forge(bob)]))
        assert await is_ended(bob)
    bob = await relay.neighbour()
    assert bob.connection is not None
    fetch = make_fetch(bob.vault, bob.connection, 0, 256)
    await bob.link.send(join_frames([fetch, fetch]))
    assert await is_ended(bob)


async def test_what_is_no_sealed_envelope_is_not_stored(store: Store, nursery: trio.Nursery) -> None:
    alice = await near(store, nursery).neighbour()
    await alice.say(StoreFrame(bytes(32), 60, b"anything"))
    assert await is_ended(alice)
    assert await store.read(bytes(32), 0, 1) == []


async def test_more_than_waits_for_the_store_is_refused(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "MOST_UNSTORED_BYTES", 3 * len(sealed("1")))
    store = FickleStore()
    alice = await near(store, nursery).neighbour()
    await alice.say(*(store_frame(bytes(32), str(number)) for number in range(4)))
    assert await alice.hear() == stored("3", "overloaded")
    store.may_end.set()
    assert [await alice.hear() for _ in range(3)] == [stored(str(number)) for number in range(3)]


async def test_an_envelope_that_has_expired_is_not_handed_over(tmp_path: Path, nursery: trio.Nursery) -> None:
    time = NOW
    async with open_sqlite_store(tmp_path / "box", now=lambda: time) as store:
        relay = near(store, nursery)
        alice, bob = await relay.neighbour(), await relay.neighbour()
        await alice.say(store_frame(bob.id, "1", life=1), store_frame(bob.id, "2"))
        assert [await alice.hear(), await alice.hear()] == [stored("1"), stored("2")]
        time += 5
        await bob.fetch()
        assert await hear_text(bob) == "2"
        await bob.link.aclose()
        await alice.link.aclose()
        await eventually(lambda: relay.relay.statistics().connections == 0)
