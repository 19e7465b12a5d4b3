"""A relay that loses, replays, reorders, tampers, dies: what it can read, and what it cannot do."""

import random
from pathlib import Path

import pytest
import trio

from autonomy_trio.errors import NotDelivered, OutcomeUnknown, RelayUnreachable
from autonomy_trio.wire.frames import Deliver, decode_frame, encode_frame, join_frames, split_frames
from tests.support.net import Add, Counter, Hold, Net, Note, Notes, Total, World, open_net, virtual_now


def replay(world: World, packets: list[bytes]) -> None:
    """Hand packets to every node, as a relay that kept them could."""
    for node in (world.server, world.alice, world.bob):
        (attachment,) = node._attachments._by_url.values()
        for packet in packets:
            node._peers.sessions.receive(attachment, world.alice._vault.identifier, packet)


async def test_a_replay_of_all_traffic_to_every_node_dispatches_nothing_and_sessions_live_on(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    for number in range(1, 4):
        assert await counter.ask(Add(1)) == Total(number)
        await counter.tell(Note("once"))
    await trio.sleep(1)
    before = world.server.statistics()
    replay(world, world.net.delivered())
    await trio.sleep(1)
    after = world.server.statistics()
    assert (after.decoded, after.queued, after.dead_letters) == (before.decoded, 0, before.dead_letters)
    assert await counter.ask(Notes()) == ["once"] * 3
    assert await counter.ask(Add(1)) == Total(4)


async def test_a_replay_after_a_restart_of_the_receiver_dispatches_nothing(net: Net, tmp_path: Path) -> None:
    """In real time, for opening a home waits for a thread, in which virtual time would pass and a credential expire."""
    home = tmp_path / "server"
    async with net.node() as alice:
        async with net.node([Counter], home=home) as server:
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            address = server.address("counter")
            assert await alice.ref(address, Counter).ask(Add(5)) == Total(5)
            await trio.sleep(0.2)
        async with net.node([Counter], home=home) as server:
            (attachment,) = server._attachments._by_url.values()
            for packet in net.delivered():
                server._peers.sessions.receive(attachment, alice._vault.identifier, packet)
            await trio.sleep(0.2)
            assert server.statistics().decoded == 0
            assert await alice.ref(address, Counter).ask(Add(1)) == Total(1)


async def test_the_relay_sees_no_name_no_attribute_no_field_and_no_credential(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    await counter.tell(Note("the content of a note"))
    await counter.ask(Notes())
    with pytest.raises(Exception, match="denied"):
        await world.bob.ref(world.address, Counter).ask(Add(1))
    seen = b"".join(world.net.sent + world.net.received)
    (credential,) = world.alice._wallet.shown(virtual_now())
    # None shorter than five bytes: three or four would stand in that much ciphertext by chance now and then.
    for word in (b"counter", b"\xa4Note", b"amount", b"the content", b"payments", b"\xa4team", b"denied"):
        assert word not in seen
    assert credential not in seen
    assert credential[40:200] not in seen


async def test_flipping_any_byte_of_a_packet_changes_nothing(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    await counter.ask(Add(1))
    draw = random.Random(1)
    forged: list[bytes] = []
    for packet in world.net.delivered():
        for _ in range(20):
            at = draw.randrange(len(packet))
            forged.append(packet[:at] + bytes([packet[at] ^ (1 << draw.randrange(8))]) + packet[at + 1 :])
    replay(world, forged)
    await trio.sleep(1)
    assert await counter.ask(Add(1)) == Total(2)
    assert world.server.statistics().decoded == 2


async def test_reordered_envelopes_break_no_order(world: World, autojump_clock: object) -> None:
    """A relay that swaps two envelopes costs the late one, which is counted, and never turns two messages round."""
    counter = world.alice.ref(world.address, Counter)
    await counter.ask(Add(1))
    held: list[Deliver] = []
    (attachment,) = world.server._attachments._by_url.values()
    deliver = attachment._deliver

    def swap(at: object, source: bytes, packet: bytes) -> None:
        held.append(Deliver(source, packet))
        if len(held) == 2:
            for frame in reversed(held):
                deliver(attachment, frame.source, frame.packet)

    attachment._deliver = swap
    await counter.tell(Note("first"))
    await trio.sleep(1)
    await counter.tell(Note("second"))
    await trio.sleep(1)
    attachment._deliver = deliver
    assert await counter.ask(Notes()) == ["second"]
    assert world.server.dead_letters.counts()["late"] == 1


async def test_a_lost_first_packet_of_each_kind_is_made_up_for(world: World, autojump_clock: object) -> None:
    lost: set[int] = set()

    def loses(frame: object) -> bool:
        packet = getattr(frame, "packet", None)
        if packet is None or packet[1] in lost or packet[1] == 0x30:
            return False
        lost.add(packet[1])
        return True

    world.net.loses = loses
    with trio.fail_after(8):
        assert await world.alice.ref(world.address, Counter).ask(Add(1)) == Total(1)
    assert lost == {0x01, 0x02, 0x03}


async def test_a_killed_relay_and_a_new_one_the_nodes_are_back_and_asking_within_ten_seconds(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    assert await counter.ask(Add(1)) == Total(1)
    world.net.kill_relay()
    await trio.sleep(30)
    assert world.alice.statistics().relays == 0
    world.net.start_relay()
    with trio.fail_after(10):
        while True:
            try:
                assert await counter.ask(Add(1)) == Total(2)
            except (NotDelivered, OutcomeUnknown):
                # The other node is not back yet. It may be up to 5 s later, as long as a handshake waits for it.
                await trio.sleep(0.5)
            else:
                break


async def test_a_restarted_node_is_reached_again_and_open_asks_end(net: Net, tmp_path: Path) -> None:
    """The receiver dies without a word and comes back with its home: its peer learns it from the new boot.

    In real time, for opening a home waits for a thread, in which virtual time would pass.
    """
    home = tmp_path / "server"
    async with net.node() as alice:
        async with net.node([Counter], home=home) as server:
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            counter = alice.ref(server.address("counter"), Counter)
            await counter.ask(Add(5))
            net.loses = lambda frame: True
        net.loses = lambda frame: False
        async with net.node([Counter], home=home):
            with trio.fail_after(60), pytest.raises(OutcomeUnknown, match="was restarted after Add was sent"):
                await counter.ask(Add(1))
            assert await counter.ask(Add(1)) == Total(1)


async def test_two_relays_and_one_of_them_dies(autojump_clock: object) -> None:
    async with open_net("ws://one:1") as one, open_net("ws://two:1") as two:

        async def connect(url: str, inner: trio.Nursery) -> object:
            return await (one if url == one.url else two).connect(url, inner)

        options = {"relay": [one.url, two.url], "connect": connect}
        async with one.node([Counter], **options) as server, one.node(**options) as alice:
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            counter = alice.ref(f"{server.identifier}/counter", Counter)
            assert await counter.ask(Add(1)) == Total(1)
            one.kill_relay()
            await trio.sleep(1)
            with trio.fail_after(40):
                while True:
                    with trio.move_on_after(5):
                        assert (await counter.ask(Add(1))).value >= 2
                        break


async def test_a_relay_that_is_not_there_at_the_start_is_said(net: Net, autojump_clock: object) -> None:
    net.kill_relay()
    with pytest.raises(RelayUnreachable):
        async with net.node():
            pass


async def test_frames_of_the_relay_that_make_no_sense_end_the_link_and_not_the_node(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    await counter.ask(Add(1))
    assert world.net.relay is not None
    for member in list(world.net.relay._members.values()):
        member.outbox.put(join_frames([b"\xc1"]))
    await trio.sleep(10)
    assert world.alice.statistics().relays == 1
    assert await counter.ask(Add(1)) == Total(2)
    assert split_frames(join_frames([encode_frame(Deliver(bytes(32), b""))]))
    assert decode_frame(encode_frame(Deliver(bytes(32), b"")))


async def test_an_answer_that_fell_into_an_outage_arrives_after_it(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    assert await counter.ask(Add(1)) == Total(1)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with trio.fail_after(60):
                assert await counter.ask(Hold(10)) > 50

        nursery.start_soon(ask)
        await trio.sleep(1)
        world.net.kill_relay()
        await trio.sleep(16)
        world.net.start_relay()
