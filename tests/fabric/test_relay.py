from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
import trio
import trio.testing

from autonomy_trio.errors import LinkBroken, ProtocolError
from autonomy_trio.fabric.links.buckets import Places
from autonomy_trio.fabric.links.link import FRAME_COST, Link
from autonomy_trio.fabric.links.memory import MemoryLink
from autonomy_trio.fabric.relays import relay as relay_module
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import PACKET_BYTES
from autonomy_trio.wire.frames import (
    Deliver,
    Nack,
    Ping,
    Pong,
    Register,
    Send,
    decode_frame,
    encode_frame,
    join_frames,
)
from autonomy_trio.wire.registration import (
    make_register,
    verify_hello,
    verify_welcome,
)
from tests.support.neighbours import NONCE, NOW, Neighbour, Neighbourhood, eventually

pytestmark = pytest.mark.usefixtures("calm")

STRANGER = bytes(32)
"""The identifier of nobody who is registered."""


async def is_ended(link: Link) -> bool:
    """Tell whether the relay ends a link before anything else happens on it."""
    try:
        with trio.fail_after(1):
            await link.receive()
    except LinkBroken:
        return True
    return False


async def test_a_registered_node_is_welcomed_by_the_relay_that_hello_named(neighbourhood: Neighbourhood) -> None:
    link, node = neighbourhood.link(), Vault.in_memory()
    hello = (await link.receive())[4:]
    _, relay = verify_hello(hello, NOW)
    register = make_register(node, hello, (), NONCE, NOW)
    await link.send(join_frames([register]))
    welcome = (await link.receive())[4:]
    assert verify_welcome(welcome, hello, register, relay).parameters.gone_after == 25
    with pytest.raises(ProtocolError):
        verify_welcome(welcome[:-1] + bytes([welcome[-1] ^ 1]), hello, register, relay)
    assert neighbourhood.relay.statistics().nodes == 1


def wrong_signature(hello: bytes) -> bytes:
    good = make_register(Vault.in_memory(), hello, (), NONCE, NOW)
    return good[:-1] + bytes([good[-1] ^ 1])


def bundle_of_someone_else(hello: bytes) -> bytes:
    victim = Vault.in_memory().bundle(NOW)
    before = encode_frame(Register(victim, (), NONCE, bytes(64)))[:-64]
    mine = decode_frame(make_register(Vault.in_memory(), hello, (), NONCE, NOW))
    assert isinstance(mine, Register)
    return before + mine.signature


def expired_attestation(hello: bytes) -> bytes:
    return make_register(Vault.in_memory(), hello, (), NONCE, NOW - 8 * 86_400)


def attestation_of_the_future(hello: bytes) -> bytes:
    return make_register(Vault.in_memory(), hello, (), NONCE, NOW + 86_400)


def another_frame(hello: bytes) -> bytes:
    return encode_frame(Ping())


def its_own_hello(hello: bytes) -> bytes:
    return hello


def no_frame(hello: bytes) -> bytes:
    return b"\xc1"


@pytest.mark.parametrize(
    "make",
    [
        wrong_signature,
        bundle_of_someone_else,
        expired_attestation,
        attestation_of_the_future,
        another_frame,
        its_own_hello,
        no_frame,
    ],
)
async def test_a_registration_that_proves_nothing_is_refused(
    neighbourhood: Neighbourhood, make: Callable[[bytes], bytes]
) -> None:
    link = neighbourhood.link()
    hello = (await link.receive())[4:]
    await link.send(join_frames([make(hello)]))
    assert await is_ended(link)
    assert neighbourhood.relay.statistics().nodes == 0
    assert neighbourhood.relay.statistics().connections == 0


@pytest.mark.parametrize("message", [b"", b"\0", b"\0\0\0\0", b"\0\0\0\7\xa0", bytes(256 * 1024 + 1)])
async def test_a_message_that_is_not_made_of_frames_ends_the_connection(
    neighbourhood: Neighbourhood, message: bytes
) -> None:
    link = neighbourhood.link()
    await link.receive()
    await link.send(message)
    assert await is_ended(link)


async def test_a_registration_overheard_elsewhere_is_refused(neighbourhood: Neighbourhood) -> None:
    first, second = neighbourhood.link(), neighbourhood.link()
    hello = (await first.receive())[4:]
    register = join_frames([make_register(Vault.in_memory(), hello, (), NONCE, NOW)])
    await second.receive()
    await second.send(register)
    assert await is_ended(second)
    assert neighbourhood.relay.statistics().nodes == 0
    await first.send(register)
    await first.receive()
    assert neighbourhood.relay.statistics().nodes == 1


async def test_frames_before_the_welcome_are_refused(neighbourhood: Neighbourhood) -> None:
    link = neighbourhood.link()
    hello = (await link.receive())[4:]
    await link.send(join_frames([make_register(Vault.in_memory(), hello, (), NONCE, NOW), encode_frame(Ping())]))
    assert await is_ended(link)


async def test_a_connection_that_says_nothing_is_dropped_after_five_seconds(
    neighbourhood: Neighbourhood, autojump_clock: trio.testing.MockClock
) -> None:
    link = neighbourhood.link()
    await link.receive()
    with pytest.raises(LinkBroken):
        await link.receive()
    assert trio.current_time() == pytest.approx(5)
    assert neighbourhood.relay.statistics().connections == 0


async def test_packets_are_forwarded_with_a_hint_where_to_answer(neighbourhood: Neighbourhood) -> None:
    a, b = await neighbourhood.neighbour(), await neighbourhood.neighbour()
    largest = bytes(PACKET_BYTES)
    await a.send(b.id, b"one")
    assert await b.hear() == Deliver(a.id, b"one")
    await b.send(a.id, b"two", b"")
    assert [await a.hear(), await a.hear()] == [Deliver(b.id, b"two"), Deliver(b.id, b"")]
    await a.send(b.id, largest)
    assert await b.hear() == Deliver(a.id, largest)
    await a.send(a.id, b"to itself")
    assert await a.hear() == Deliver(a.id, b"to itself")
    assert neighbourhood.relay.statistics().forwarded == 5


async def test_a_packet_for_nobody_is_refused_as_unknown(neighbourhood: Neighbourhood) -> None:
    a = await neighbourhood.neighbour()
    await a.send(STRANGER, b"packet")
    assert await a.hear() == Nack("unknown", STRANGER)
    assert neighbourhood.relay.statistics().refused == 1


async def test_a_node_can_be_reached_before_its_welcome_leaves(neighbourhood: Neighbourhood) -> None:
    a = await neighbourhood.neighbour()
    late = Neighbour(neighbourhood.link(), Vault.in_memory())
    hello = (await late.link.receive())[4:]
    await late.link.send(join_frames([make_register(late.vault, hello, (), NONCE, NOW)]))
    await trio.testing.wait_all_tasks_blocked()
    await a.send(late.id, b"packet")
    await late.link.receive()
    assert await late.hear() == Deliver(a.id, b"packet")


async def test_packets_for_one_node_are_joined_into_one_message(neighbourhood: Neighbourhood) -> None:
    a, b = await neighbourhood.neighbour(), await neighbourhood.neighbour()
    await a.send(b.id, b"one", b"two", b"three")
    message = await b.link.receive()
    assert message == join_frames(encode_frame(Deliver(a.id, packet)) for packet in (b"one", b"two", b"three"))


async def test_the_newest_registration_of_an_identity_wins(neighbourhood: Neighbourhood) -> None:
    a, vault = await neighbourhood.neighbour(), Vault.in_memory()
    old = await neighbourhood.neighbour(vault)
    new = await neighbourhood.neighbour(vault)
    assert await is_ended(old.link)
    await a.send(vault.identifier, b"packet")
    assert await new.hear() == Deliver(a.id, b"packet")
    assert neighbourhood.relay.statistics().nodes == 2
    assert neighbourhood.relay.statistics().connections == 2
    await new.link.aclose()
    await trio.testing.wait_all_tasks_blocked()
    await a.send(vault.identifier, b"packet")
    assert await a.hear() == Nack("unknown", vault.identifier)


@pytest.fixture
def small(nursery: trio.Nursery) -> Neighbourhood:
    """A relay with little room for each node."""
    return Neighbourhood(Relay(Vault.in_memory(), outbox_bytes=64 * 1024, now=lambda: NOW), nursery)


async def test_a_full_outbox_refuses_and_no_other_node_notices(small: Neighbourhood) -> None:
    a, b, slow = await small.neighbour(), await small.neighbour(), await small.neighbour()
    for _ in range(100):
        await a.send(slow.id, bytes(10_000))
        await a.send(b.id, b"packet")
        assert await b.hear() == Deliver(a.id, b"packet")
        await trio.testing.wait_all_tasks_blocked()
        assert small.relay._members[slow.id].outbox.size <= 64 * 1024
    refused = small.relay.statistics().refused
    assert 85 < refused < 100
    heard = [await a.hear() for _ in range(refused)]
    assert heard == [Nack("overloaded", slow.id)] * refused
    assert small.relay.statistics().forwarded == 200 - refused


async def test_what_waits_is_bounded_however_small_it_is(small: Neighbourhood) -> None:
    a, slow = await small.neighbour(), await small.neighbour()
    for _ in range(50):
        await a.send(slow.id, *[b""] * 1000)
        await trio.testing.wait_all_tasks_blocked()
    member = small.relay._members[slow.id]
    assert 0 < len(member.outbox._frames) <= 64 * 1024 // FRAME_COST


async def test_a_reader_that_takes_nothing_for_ten_seconds_is_dropped(
    neighbourhood: Neighbourhood, autojump_clock: trio.testing.MockClock
) -> None:
    a, slow = await neighbourhood.neighbour(), await neighbourhood.neighbour()
    began = trio.current_time()
    for _ in range(3):
        await a.send(slow.id, bytes(PACKET_BYTES))
    await eventually(lambda: neighbourhood.relay.statistics().nodes == 1, 20)
    assert trio.current_time() - began == pytest.approx(10, abs=0.3)
    await a.send(slow.id, b"packet")
    assert [await a.hear(), await a.hear()] == [Ping(), Nack("unknown", slow.id)]


async def test_what_a_leaving_node_said_last_is_forwarded_though_it_takes_nothing_any_more(
    neighbourhood: Neighbourhood,
) -> None:
    a, leaving = await neighbourhood.neighbour(), await neighbourhood.neighbour()
    assert isinstance(leaving.link, MemoryLink)
    await trio.testing.wait_all_tasks_blocked()
    leaving.link._receive.close()
    # The relay fails to answer the first, and has the second already.
    leaving.link._send.send_nowait(join_frames([encode_frame(Ping())]))
    leaving.link._send.send_nowait(join_frames([encode_frame(Send(a.id, 0, 30, b"farewell"))]))
    leaving.link._send.close()
    assert await a.hear() == Deliver(leaving.id, b"farewell")


async def test_a_ping_is_answered(neighbourhood: Neighbourhood) -> None:
    a = await neighbourhood.neighbour()
    await a.say(Ping(), Ping(), Pong())
    assert await a.hear() == Pong()


async def test_a_silent_node_is_pinged_after_ten_seconds_and_gone_after_twenty_five(
    neighbourhood: Neighbourhood, autojump_clock: trio.testing.MockClock
) -> None:
    silent, talker = await neighbourhood.neighbour(), await neighbourhood.neighbour()
    began = trio.current_time()
    assert await silent.hear() == Ping()
    assert trio.current_time() - began == pytest.approx(10)
    assert await talker.hear() == Ping()
    await talker.say(Pong())
    with pytest.raises(LinkBroken):
        await silent.hear()
    assert trio.current_time() - began == pytest.approx(25)
    assert neighbourhood.relay.statistics().nodes == 1


@pytest.mark.parametrize(
    "frame", [Deliver(STRANGER, b""), Nack("unknown", STRANGER), Register(b"", (), NONCE, bytes(64))]
)
async def test_a_registered_node_that_breaks_the_protocol_is_dropped_and_nobody_else(
    neighbourhood: Neighbourhood, log: list[MutableMapping[str, Any]], frame: Deliver | Nack | Register
) -> None:
    a, wicked, b = [await neighbourhood.neighbour() for _ in range(3)]
    await wicked.say(frame)
    assert await is_ended(wicked.link)
    await a.send(b.id, b"packet")
    assert await b.hear() == Deliver(a.id, b"packet")
    assert [line["log_level"] for line in log if "broke the protocol" in line["event"]] == ["warning"]


async def test_a_registered_node_that_sends_garbage_is_dropped(neighbourhood: Neighbourhood) -> None:
    wicked = await neighbourhood.neighbour()
    await wicked.link.send(b"\0\0\0\5garbage")
    assert await is_ended(wicked.link)
    assert neighbourhood.relay.statistics().nodes == 0


async def test_connections_are_bounded(neighbourhood: Neighbourhood, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MOST_CONNECTIONS", 2)
    a, _ = await neighbourhood.neighbour(), await neighbourhood.neighbour()
    assert await is_ended(neighbourhood.link())
    assert neighbourhood.relay.statistics().turned_away == 1
    await a.link.aclose()
    await trio.testing.wait_all_tasks_blocked()
    await neighbourhood.neighbour()


async def test_connections_that_are_not_registered_are_bounded_in_all_and_for_one_address(
    neighbourhood: Neighbourhood,
) -> None:
    neighbourhood.relay._unregistered = Places(3, 2)
    links = list[Link]()
    for address in ("a", "a", "a", "b", "c"):
        links.append(neighbourhood.link(address))
        await trio.testing.wait_all_tasks_blocked()
    assert [await is_ended(link) for link in links] == [False, False, True, False, True]
    assert neighbourhood.relay.statistics().turned_away == 2
    await links[1].aclose()
    await trio.testing.wait_all_tasks_blocked()
    await neighbourhood.neighbour()
    assert not await is_ended(neighbourhood.link("a"))


async def test_connections_from_one_address_are_slowed_down_and_others_are_not(
    neighbourhood: Neighbourhood, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(relay_module, "REGISTRATIONS", (1.0, 2.0))
    for _ in range(2):
        assert not await is_ended(neighbourhood.link("a"))
    assert await is_ended(neighbourhood.link("a"))
    assert not await is_ended(neighbourhood.link("b"))
    await trio.sleep(1)
    assert not await is_ended(neighbourhood.link("a"))


async def test_addresses_that_are_counted_are_bounded(
    neighbourhood: Neighbourhood, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(relay_module, "MOST_ADDRESSES", 2)
    monkeypatch.setattr(relay_module, "REGISTRATIONS", (1.0, 1.0))
    assert not await is_ended(neighbourhood.link("a"))
    assert not await is_ended(neighbourhood.link("b"))
    assert await is_ended(neighbourhood.link("c"))
    await trio.sleep(1)
    assert not await is_ended(neighbourhood.link("c"))
    assert len(neighbourhood.relay._arrivals) <= 2


async def test_a_node_that_sends_too_much_is_read_more_slowly_and_loses_nothing(
    neighbourhood: Neighbourhood, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(relay_module, "TRAFFIC", (10_000.0, 20_000.0))
    a, b = await neighbourhood.neighbour(), await neighbourhood.neighbour()
    began = trio.current_time()

    async def send() -> None:
        for _ in range(50):
            await a.send(b.id, bytes(2_000))

    neighbourhood.nursery.start_soon(send)
    for _ in range(50):
        assert await b.hear() == Deliver(a.id, bytes(2_000))
    assert trio.current_time() - began == pytest.approx((50 * 2_000 - 20_000) / 10_000, rel=0.1)


async def test_many_small_frames_are_traffic_too(
    neighbourhood: Neighbourhood, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(relay_module, "TRAFFIC", (1_000.0 * FRAME_COST, 0.0))
    a = await neighbourhood.neighbour()
    began = trio.current_time()
    for _ in range(3):
        await a.say(*[Pong()] * 1_000)
    await a.send(STRANGER, b"packet")
    assert await a.hear() == Nack("unknown", STRANGER)
    assert trio.current_time() - began == pytest.approx(3, rel=0.15)


async def test_nothing_is_left_running_when_a_relay_is_cancelled() -> None:
    async with trio.open_nursery() as nursery:
        neighbourhood = Neighbourhood(Relay(Vault.in_memory(), now=lambda: NOW), nursery)
        for _ in range(3):
            await neighbourhood.neighbour()
        neighbourhood.link()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert neighbourhood.relay.statistics().connections == 0
    assert neighbourhood.relay.statistics().nodes == 0
