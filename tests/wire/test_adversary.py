"""Between two endpoints stands somebody who reads, changes, holds back, repeats and makes up packets."""

from typing import TYPE_CHECKING

import nacl.utils
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_base

from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire import endpoint as endpoint_module
from autonomy_trio.wire.constants import PENDING_HANDSHAKES, PENDING_PER_PATH
from autonomy_trio.wire.entries import Cancel, Tell, encode_entries
from autonomy_trio.wire.events import Established, GaveUp, PeerGone, Received, Refused, Transmit
from autonomy_trio.wire.noise import encrypt
from autonomy_trio.wire.packets import HandshakePacket, make_data_header, make_reject, read_data_header, read_handshake
from autonomy_trio.wire.padding import padded_length
from autonomy_trio.wire.peers import Channel

if TYPE_CHECKING:
    from tests.wire.conftest import Node, Packet, World

XX1, XX2, XX3, DATA = 0x01, 0x02, 0x03, 0x30
FOLLOWED = "a handshake with a process of the peer that another has followed"


def damaged(data: bytes) -> list[bytes]:
    """Return a packet with each bit changed, with each end cut off, and with something after its end."""
    flipped = []
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        flipped.append(bytes(changed))
    return flipped + [data[:length] for length in range(len(data))] + [data + b"\x00", data + data]


def give(node: "Node", world: "World", data: bytes, path: object = "the adversary") -> list[object]:
    """Give a node a packet; return what it says of it, but for what it sends."""
    node.endpoint.receive(data, path, world.now, world.ticks)
    events = node.endpoint.take()
    return [event for event in events if not isinstance(event, Transmit)]


def make_first(number: int) -> bytes:
    """Make a first handshake packet of a stranger."""
    key = crypto_scalarmult_base(number.to_bytes(4, "big") * 8)
    return HandshakePacket(XX1, number + 1, 0, key).encode()


def channel_of(node: "Node", other: "Node") -> Channel:
    return node.endpoint._roster.get(other.id).current


def seal_as_thief(node: "Node", other: "Node", *, signer: Vault, body: bytes) -> bytes:
    """Seal with the session keys of a node, and sign with another's."""
    session = channel_of(node, other).session
    header = make_data_header(session.remote.index, session._next)
    signature = signer.sign("env", session._signed(header, body, is_sending=True))
    framed = signature + len(body).to_bytes(4, "big") + body
    sealed = encrypt(
        session._keys.sending, header.counter, header.encoded, framed.ljust(padded_length(len(framed)), b"\x00")
    )
    return header.encoded + sealed


@pytest.mark.parametrize("kind", [XX1, XX2, XX3, DATA])
def test_a_damaged_packet_establishes_and_delivers_nothing_and_the_true_one_still_does(
    world: "World", kind: int
) -> None:
    alice, bob = world.add("alice"), world.add("bob")

    def adversary(packet: "Packet") -> list["Packet"]:
        if packet.data[1] != kind:
            return [packet]
        receiver = world.nodes[packet.destination]
        before = receiver.endpoint.statistics()
        for data in damaged(packet.data):
            events = give(receiver, world, data)
            # A first message is a key and says nothing of its sender: a damaged one is another stranger's.
            assert all(isinstance(event, Refused) for event in events)
            assert events or kind == XX1
        if kind != XX1:
            assert receiver.endpoint.statistics() == before
        return [packet]

    world.adversary = adversary
    world.connect(alice, bob)
    world.tell(alice, bob, b"genuine")
    world.tell(bob, alice, b"genuine too")
    assert (bob.payloads(), alice.payloads()) == ([b"genuine"], [b"genuine too"])
    assert len(alice.of(Established)) == len(bob.of(Established)) == 1


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\x30", b"\x01\x40" + bytes(200), bytes(200), bytes(200_000)])
def test_what_is_no_packet_is_refused(world: "World", data: bytes) -> None:
    alice, _ = world.pair()
    (refused,) = give(alice, world, data)
    assert isinstance(refused, Refused)
    assert refused.path == "the adversary"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from([b"", b"\x01\x01\x01\x00", b"\x01\x02\x01\x00", b"\x01\x30\x00\x00"]), st.binary())
    )
)
def test_no_bytes_raise_or_deliver(world: "World", packets: list[tuple[bytes, bytes]]) -> None:
    alice = next(iter(world.nodes.values()), None) or world.pair()[0]
    for start, rest in packets:
        assert all(isinstance(event, Refused) for event in give(alice, world, start + rest))


def test_replayed_traffic_delivers_nothing_and_the_session_lives_on(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.connect(alice, bob)
    world.tell(alice, bob, b"1")
    world.tell(bob, alice, b"2")
    alice.events.clear()
    bob.events.clear()
    for packet in list(world.log):
        world.deliver(packet)
        world.run()
    assert alice.of(Received) == bob.of(Received) == []
    assert alice.of(Established) == bob.of(Established) == []
    world.tell(alice, bob, b"on")
    assert bob.payloads() == [b"on"]


def test_replayed_traffic_delivers_nothing_after_renewal(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.connect(alice, bob)
    world.tell(alice, bob, b"1")
    world.tell(bob, alice, b"2")
    recorded = list(world.log)
    world.advance(185)
    alice.events.clear()
    bob.events.clear()
    for packet in recorded:
        world.deliver(packet)
        world.run()
    assert alice.of(Received) == bob.of(Received) == []
    assert alice.of(Established) == bob.of(Established) == []
    world.connect(alice, bob)
    world.tell(alice, bob, b"on")
    assert bob.payloads() == [b"on"]


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_replayed_traffic_delivers_nothing_after_a_restart(world: "World", who: str) -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.connect(alice, bob)
    world.tell(alice, bob, b"1")
    world.tell(bob, alice, b"2")
    recorded = list(world.log)
    if who == "alice":
        alice = world.restart(alice, b"second")
    else:
        bob = world.restart(bob, b"second")
    alice.events.clear()
    bob.events.clear()
    for packet in recorded:
        world.deliver(packet)
        world.run()
    # A packet of the session that is lost is rejected, and a new session may follow; nothing of the old one does.
    assert alice.of(Received) == bob.of(Received) == []
    world.connect(alice, bob)
    world.tell(alice, bob, b"on")
    world.tell(bob, alice, b"on too")
    assert (bob.payloads(), alice.payloads()) == ([b"on"], [b"on too"])


def test_a_last_message_held_back_does_not_bring_an_ended_process_back(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    held: list[Packet] = []
    world.adversary = lambda packet: held.append(packet) or [] if packet.data[1] == XX3 else [packet]
    world.connect(bob, alice)
    world.adversary = lambda packet: [packet]
    world._move_to(world.ticks + 1)
    bob = world.restart(bob, b"second")
    world.connect(bob, alice)
    world.tell(alice, bob, b"1")
    alice.events.clear()
    world.deliver(held[0])
    world.run()
    assert [event.reason for event in alice.events] == [
        "a handshake with a process of the peer that another has followed"
    ]
    world.tell(alice, bob, b"2")
    world.tell(bob, alice, b"3")
    assert (bob.payloads(), alice.payloads()) == ([b"1", b"2"], [b"3"])
    assert alice.endpoint.statistics().sessions == 1


def test_a_first_packet_held_back_does_not_bring_an_ended_process_back(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    held: list[Packet] = []
    world.adversary = lambda packet: held.append(packet) or [] if packet.data[1] == DATA else [packet]
    world.connect(alice, bob)
    world.adversary = lambda packet: [packet]
    world._move_to(world.ticks + 0.5)
    bob = world.restart(bob, b"second")
    world.connect(bob, alice)
    world.tell(alice, bob, b"1")
    alice.events.clear()
    world.deliver(held[0])
    world.run()
    assert [event.reason for event in alice.events] == [
        "a handshake with a process of the peer that another has followed"
    ]
    world.tell(alice, bob, b"2")
    assert bob.payloads() == [b"1", b"2"]
    assert alice.endpoint.statistics().sessions == 1


def test_packets_given_to_another_node_deliver_nothing(world: "World") -> None:
    alice, bob = world.pair()
    carol = world.add("carol")
    world.connect(alice, carol)
    carol.events.clear()
    held = world.capture(lambda: world.tell(alice, bob, b"for bob"))
    index = channel_of(carol, alice).session.index
    for data in (held[0].data, held[0].data[:4] + index.to_bytes(4, "big") + held[0].data[8:]):
        assert all(isinstance(event, Refused) for event in give(carol, world, data))


def test_packets_sent_back_to_their_sender_deliver_nothing(world: "World") -> None:
    alice, bob = world.pair()
    held = world.capture(lambda: world.tell(alice, bob, b"for bob"))
    index = channel_of(alice, bob).session.index
    data = held[0].data[:4] + index.to_bytes(4, "big") + held[0].data[8:]
    assert all(isinstance(event, Refused) for event in give(alice, world, data))


def test_handshake_packets_sent_back_to_their_sender_establish_nothing(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.adversary = lambda packet: [evolve(packet, destination=packet.source)]
    world.connect(alice, bob)
    world.advance(10)
    assert alice.of(Established) == []
    assert alice.of(GaveUp)


def test_stolen_session_keys_close_the_session_and_deliver_nothing(world: "World") -> None:
    alice, bob = world.pair()
    body = encode_entries([Tell("agent", "Message", b"forged", 0, 0)])
    events = give(bob, world, seal_as_thief(alice, bob, signer=Vault.in_memory(), body=body))
    gone, refused = events
    assert gone == PeerGone(alice.id, "an envelope is not signed by the node it comes from")
    assert isinstance(refused, Refused)
    assert bob.endpoint.statistics().sessions == 0
    # The other side learns of it with its next packet, and opens another session.
    world.tell(alice, bob, b"lost")
    assert bob.of(Established)
    world.tell(alice, bob, b"on")
    assert bob.payloads() == [b"on"]


def test_a_signed_body_that_is_malformed_closes_its_session_only(world: "World") -> None:
    alice, bob = world.pair()
    bad = seal_as_thief(alice, bob, signer=alice.vault, body=b"\xc1")
    channel_of(alice, bob).session._next += 1
    world.advance(121)
    bob.events.clear()
    before = bob.endpoint.statistics().sessions
    (refused,) = give(bob, world, bad)
    assert "no list of entries" in refused.reason
    assert bob.endpoint.statistics().sessions == before - 1
    world.tell(alice, bob, b"on")
    assert bob.payloads() == [b"on"]


@pytest.mark.parametrize("body", [b"\xc1", b"\x90", encode_entries([Cancel(1)])])
def test_a_responder_that_does_not_begin_with_its_credentials_is_given_up(world: "World", body: bytes) -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.adversary = lambda packet: [] if packet.data[1] == DATA else [packet]
    world.connect(alice, bob)
    (gave_up, refused) = give(alice, world, seal_as_thief(bob, alice, signer=bob.vault, body=body))
    assert isinstance(gave_up, GaveUp)
    assert gave_up.reason == refused.reason
    assert alice.endpoint.statistics().sessions == alice.endpoint.statistics().openings == 0


def test_a_repeated_second_packet_is_answered_and_another_is_refused(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.adversary = lambda packet: [] if packet.data[1] == DATA else [packet]
    world.connect(alice, bob)
    second, third = world.log[1].data, world.log[2].data
    alice.endpoint.receive(second, "another path", world.now, world.ticks)
    assert alice.endpoint.take() == [Transmit("another path", bob.id, third)]
    other = second[:-1] + bytes((second[-1] ^ 1,))
    assert give(alice, world, other) == [Refused("the adversary", "another answer to a handshake that was answered")]


def test_a_repeated_third_packet_is_answered_now_and_then_until_it_is_known_to_have_worked(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.adversary = lambda packet: [] if packet.data[1] == DATA else [packet]
    world.connect(alice, bob)
    third = world.log[2].data

    def answers() -> int:
        bob.endpoint.receive(third, "a path", world.now, world.ticks)
        return len([event for event in bob.endpoint.take() if isinstance(event, Transmit)])

    assert answers() == 0
    world._move_to(world.ticks + 0.5)
    assert [answers(), answers()] == [1, 0]
    other = third[:-1] + bytes((third[-1] ^ 1,))
    assert give(bob, world, other) == [Refused("the adversary", "the end of no handshake of this node")]
    world.adversary = lambda packet: [packet]
    world.advance(1)
    world.tell(alice, bob, b"x")
    world.advance(1)
    assert answers() == 0


def test_a_handshake_that_was_answered_too_late_is_refused(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.adversary = lambda packet: [] if packet.data[1] == XX3 else [packet]
    world.connect(alice, bob)
    second, third = world.log[1].data, world.log[2].data
    world.advance(6)
    assert bob.endpoint.statistics().pending == 0
    assert give(bob, world, third) == [Refused("the adversary", "the end of no handshake of this node")]
    assert give(alice, world, second) == [Refused("the adversary", "an answer to no handshake of this node")]


def test_one_path_has_four_handshakes_pending_and_others_have_room(world: "World") -> None:
    bob = world.add("bob")
    for number in range(10):
        events = give(bob, world, make_first(number), "one path")
        assert [isinstance(event, Refused) for event in events] == ([] if number < PENDING_PER_PATH else [True])
    assert bob.endpoint.statistics().pending == PENDING_PER_PATH
    assert give(bob, world, make_first(0), "one path") == []
    alice = world.add("alice")
    world.connect(alice, bob)
    assert bob.of(Established)


def test_256_handshakes_are_pending_for_5_seconds(world: "World") -> None:
    bob = world.add("bob")
    for number in range(PENDING_HANDSHAKES + 20):
        give(bob, world, make_first(number), number)
    assert bob.endpoint.statistics().pending == PENDING_HANDSHAKES
    world.advance(4.9)
    assert bob.endpoint.statistics().pending == PENDING_HANDSHAKES
    world.advance(0.2)
    assert bob.endpoint.statistics().pending == 0
    assert bob.endpoint._roster.pending._per_path == {}


def test_pending_handshakes_expire_in_turn(world: "World") -> None:
    bob = world.add("bob")
    give(bob, world, make_first(1))
    world.advance(3)
    give(bob, world, make_first(2))
    assert bob.endpoint.next_deadline() == 5
    world.advance(2)
    assert bob.endpoint.statistics().pending == 1


def test_strangers_past_the_limit_of_peers_are_refused_and_known_ones_are_not(
    world: "World", monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bob = world.pair()
    carol = world.add("carol")
    monkeypatch.setattr(endpoint_module, "PEERS", 1)
    world.connect(carol, bob)
    assert bob.of(Established) == []
    assert "no room" in bob.of(Refused)[0].reason
    world.advance(121)
    assert bob.of(Established)


def test_a_reject_echoes_the_header_of_a_packet_for_nobody(world: "World") -> None:
    bob = world.add("bob")
    packet = make_data_header(7, 9).encoded + bytes(100)
    bob.endpoint.receive(packet, "a path", world.now, world.ticks)
    transmit, refused = bob.endpoint.take()
    assert transmit == Transmit("a path", None, bytes.fromhex("01500000") + packet[:16])
    assert isinstance(refused, Refused)


def test_a_packet_for_a_handshake_that_runs_is_not_rejected(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.adversary = lambda packet: [] if packet.data[1] == XX2 else [packet]
    world.connect(alice, bob)
    for node, index in (
        (alice, read_handshake(world.log[0].data).sender),
        (bob, read_handshake(world.log[1].data).sender),
    ):
        node.endpoint.receive(make_data_header(index, 0).encoded + bytes(100), "a path", world.now, world.ticks)
        assert [type(event) for event in node.endpoint.take()] == [Refused]


def test_a_reject_starts_one_handshake_in_10_seconds_and_ends_nothing(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    world.advance(20)
    world.tell(alice, bob, b"x")
    reject = make_reject(read_data_header(world.log[-1].data))
    world.adversary = lambda packet: [] if packet.data[1] < DATA else [packet]
    starts = []
    for _ in range(40):
        alice.endpoint.receive(reject, "the adversary", world.now, world.ticks)
        world.log.clear()
        world.run()
        starts += [world.ticks - 20 for packet in world.log if packet.data[1] == XX1]
        world.advance(0.5)
    assert starts == [0, 10]
    assert alice.events == []
    world.tell(alice, bob, b"on")
    assert bob.payloads() == [b"x", b"on"]


def test_forged_rejects_start_nothing(world: "World") -> None:
    alice, bob = world.pair()
    world.tell(alice, bob, b"x")
    header = read_data_header(world.log[-1].data)
    forged = [
        make_reject(make_data_header(header.receiver, header.counter + 1)),
        make_reject(make_data_header(header.receiver, 0)),
        make_reject(make_data_header(header.receiver ^ 1, header.counter)),
    ]
    for data in forged:
        assert give(alice, world, data) == [Refused("the adversary", "a reject of a packet that was not sent")]
    assert alice.endpoint.statistics().openings == 0


def test_a_damaged_reject_starts_nothing_and_no_reject_is_answered(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.connect(alice, bob)
    world.tell(alice, bob, b"x")
    sent = [packet.data for packet in world.log if packet.source == alice.id and packet.data[1] == DATA]
    rejects = {make_reject(read_data_header(data)) for data in sent}
    for reject in rejects:
        # A changed bit may make a REJECT of another packet that was sent: whoever sees headers can make those.
        for data in set(damaged(reject)) - rejects:
            alice.endpoint.receive(data, "the adversary", world.now, world.ticks)
            assert [type(event) for event in alice.endpoint.take()] == [Refused]
            bob.endpoint.receive(data, "the adversary", world.now, world.ticks)
            assert [type(event) for event in bob.endpoint.take()] == [Refused]
    assert alice.endpoint.statistics().openings == 0
    world.tell(alice, bob, b"on")
    assert bob.payloads() == [b"x", b"on"]


def test_a_reject_for_an_older_session_starts_nothing(world: "World") -> None:
    alice, bob = world.pair()
    world.tell(alice, bob, b"x")
    reject = make_reject(read_data_header(world.log[-1].data))
    world.advance(121)
    assert give(alice, world, reject) == []
    assert alice.endpoint.statistics().openings == 0


def test_sessions_towards_the_same_index_of_different_peers_do_not_disturb_each_other(world: "World") -> None:
    alice = world.add("alice")
    # Peers choose their indices alone; these two are made to choose the same.
    same = iter([b"\x00\x00\x00\x07"] * 2)

    def draw(count: int) -> bytes:
        return next(same) if count == 4 else nacl.utils.random(count)

    bob, carol = world.add("bob"), world.add("carol")
    for node in (bob, carol):
        object.__setattr__(node.endpoint._own, "random", draw)
        world.connect(alice, node)
        world.tell(alice, node, b"hello")
        node.events.clear()
    assert channel_of(alice, bob).session.remote.index == channel_of(alice, carol).session.remote.index == 7
    bob.endpoint.close()
    world.run()
    world.tell(alice, carol, b"x")
    assert carol.payloads() == [b"x"]


def test_an_index_is_never_zero_or_taken(world: "World") -> None:
    alice = world.add("alice")
    draws = iter([b"\x00\x00\x00\x05", b"\x00\x00\x00\x00", b"\x00\x00\x00\x05", b"\x00\x00\x00\x06"])
    alice.endpoint._roster.openings[5] = None
    object.__setattr__(alice.endpoint._own, "random", lambda count: next(draws))
    assert alice.endpoint._roster.new_index() == 6
