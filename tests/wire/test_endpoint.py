"""What an endpoint promises its fabric, with two nodes and nobody between them who means harm."""

import random
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from autonomy_trio.errors import NotDelivered, UsageError
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import PRESENTATIONS_BYTES, SESSIONS_PER_PEER
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import Cancel, Close, Presentations, Tell
from autonomy_trio.wire.events import Established, GaveUp, PeerGone, Received, Refused, Transmit

if TYPE_CHECKING:
    from tests.wire.conftest import Packet, World

DAY = 86_400


def drop(packet: "Packet") -> list["Packet"]:
    return []


def test_a_session_is_established_on_both_sides_with_credentials(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.connect(alice, bob)
    (near,), (far,) = alice.of(Established), bob.of(Established)
    assert (near.peer, near.presentations, near.restarted) == (bob.id, (b"credential of bob",), False)
    assert (far.peer, far.presentations, far.restarted) == (alice.id, (b"credential of alice",), False)
    assert near.boot == b"bob".ljust(16)
    assert near.bundle.identifier == bob.id
    assert alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    assert bob.endpoint.is_ready(alice.id, world.now, world.ticks)


def test_a_handshake_takes_three_packets_and_a_first_one(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.connect(alice, bob)
    assert [packet.data[1] for packet in world.log] == [0x01, 0x02, 0x03, 0x30]
    assert len(world.log[0].data) == 44
    assert len(world.log[3].data) == 16 + 96 + 16


def test_the_first_packet_goes_on_every_path_and_answers_on_the_one_it_came_from(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    alice.endpoint.connect(bob.id, world.now, world.ticks)
    (first,) = alice.endpoint.take()
    assert (first.path, first.peer) == (None, bob.id)
    bob.endpoint.receive(first.packet, "one", world.now, world.ticks)
    bob.endpoint.receive(first.packet, "another", world.now, world.ticks)
    second, again = bob.endpoint.take()
    assert second == Transmit("one", None, second.packet)
    assert again == Transmit("another", None, second.packet)
    alice.endpoint.receive(second.packet, "this", world.now, world.ticks)
    (third,) = alice.endpoint.take()
    assert (third.path, third.peer) == ("this", bob.id)


def test_messages_arrive_in_order_and_once(world: "World") -> None:
    alice, bob = world.pair()
    world.tell(alice, bob, b"1", b"2")
    world.tell(alice, bob, b"3")
    world.tell(bob, alice, b"4")
    assert [event.late for event in bob.events] == [False, False]
    assert bob.payloads() == [b"1", b"2", b"3"]
    assert alice.payloads() == [b"4"]


def test_connecting_twice_or_when_ready_sends_nothing_more(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    alice.endpoint.connect(bob.id, world.now, world.ticks)
    alice.endpoint.connect(bob.id, world.now, world.ticks)
    world.run()
    world.connect(alice, bob)
    world.connect(bob, alice)
    assert len(world.log) == 4


def test_connecting_to_oneself_is_refused(world: "World") -> None:
    alice = world.add("alice")
    with pytest.raises(UsageError, match="this node itself"):
        world.connect(alice, alice)


def test_sending_without_a_session_is_refused(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    with pytest.raises(NotDelivered):
        world.tell(alice, bob, b"x")
    world.adversary = drop
    world.connect(alice, bob)
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    with pytest.raises(NotDelivered):
        world.tell(alice, bob, b"x")


def test_a_boot_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Endpoint(Vault.in_memory(), boot=b"short", presentations=list)


def test_a_first_contact_is_tried_every_second_and_given_up_at_five(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.adversary = drop
    times = []
    world.adversary = lambda packet: times.append(world.ticks) or []
    world.connect(alice, bob)
    world.advance(4.9)
    assert alice.events == []
    world.advance(20)
    assert times == [0, 1, 2, 3, 4]
    assert len({packet.data for packet in world.log}) == 1
    assert alice.events == [GaveUp(bob.id, "no answer in 5 s")]
    assert alice.endpoint.statistics().peers == 0
    assert alice.endpoint.next_deadline() == float("inf")


def test_a_failed_handshake_says_at_home_why(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    bob.clock_ahead = 3600.0
    world.connect(alice, bob)
    world.advance(6)
    (gave_up,) = alice.of(GaveUp)
    assert "clocks differ by 3,59" in gave_up.reason
    assert bob.events == []
    assert {packet.data[1] for packet in world.log} == {0x01, 0x02}


def test_a_peer_that_refuses_for_a_clock_that_is_ahead_is_told_of_by_the_difference(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    alice.clock_ahead = 3600.0
    world.connect(alice, bob)
    world.advance(6)
    (gave_up,) = alice.of(GaveUp)
    assert gave_up.reason == "the peer answered and did not confirm in 5 s; clocks differ by 3,600 s"
    assert "begins in 3,600 s" in bob.of(Refused)[0].reason


def test_clocks_that_differ_a_little_are_reported_with_the_session(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    bob.clock_ahead = 30.0
    world.connect(alice, bob)
    assert alice.of(Established)[0].clock_difference == pytest.approx(30, abs=1)
    assert bob.of(Established)[0].clock_difference == pytest.approx(-30, abs=1)


def lose(world: "World", kind: int, count: int) -> None:
    """Lose the first packets of a kind."""
    left = [count]

    def adversary(packet: "Packet") -> list["Packet"]:
        if packet.data[1] == kind and left[0]:
            left[0] -= 1
            return []
        return [packet]

    world.adversary = adversary


@pytest.mark.parametrize("kind", [0x01, 0x02, 0x03, 0x30])
@pytest.mark.parametrize("count", [1, 3])
def test_a_lost_handshake_packet_is_made_good(world: "World", kind: int, count: int) -> None:
    alice, bob = world.add("alice"), world.add("bob")
    lose(world, kind, count)
    world.connect(alice, bob)
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.advance(count - 0.1)
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.advance(0.2)
    assert alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    assert len(alice.of(Established)) == len(bob.of(Established)) == 1
    world.tell(alice, bob, b"x")
    world.tell(bob, alice, b"y")
    assert (bob.payloads(), alice.payloads()) == ([b"x"], [b"y"])


def test_credentials_ride_ahead_until_the_initiator_is_known_to_have_them(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    lose(world, 0x30, 1)
    world.connect(alice, bob)
    assert bob.endpoint.is_ready(alice.id, world.now, world.ticks)
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.tell(bob, alice, b"first")
    established, received = alice.events
    assert established.presentations == (b"credential of bob",)
    assert received.entries == (Tell("agent", "Message", b"first", 0, 0),)
    world.tell(alice, bob, b"heard")
    size = len(world.log[-1].data)
    world.tell(bob, alice, b"later")
    assert len(world.log[-1].data) == size


def test_new_credentials_are_told_and_the_same_are_not(world: "World") -> None:
    alice, bob = world.pair()
    world.send(bob, alice, Presentations((b"credential of bob",)))
    assert alice.events == []
    world.send(bob, alice, Presentations((b"new",)), Cancel(1))
    assert alice.events == [Received(bob.id, (Presentations((b"new",)), Cancel(1)), late=False)]


def test_credentials_that_come_late_do_not_replace_newer_ones(world: "World") -> None:
    alice, bob = world.pair()
    held = world.capture(lambda: world.send(bob, alice, Presentations((b"old",)), Cancel(1)))
    world.send(bob, alice, Presentations((b"new",)))
    alice.events.clear()
    world.deliver(held[0])
    world.run()
    assert alice.events == [Received(bob.id, (Cancel(1),), late=True)]


def test_credentials_that_do_not_fit_are_left_out_and_said_at_home(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    alice.presentations[:] = [bytes(PRESENTATIONS_BYTES), b"too much"]
    world.connect(alice, bob)
    assert bob.of(Established)[0].presentations == (bytes(PRESENTATIONS_BYTES),)
    (refused,) = alice.of(Refused)
    assert refused.path is None
    assert refused.reason.startswith("1 credentials are too many or too large")


def test_a_packet_that_comes_after_a_later_one_is_late(world: "World") -> None:
    alice, bob = world.pair()
    held = world.capture(lambda: world.tell(alice, bob, b"1"))
    world.tell(alice, bob, b"2")
    world.deliver(held[0])
    world.run()
    world.tell(alice, bob, b"3")
    assert [(event.entries[0].payload, event.late) for event in bob.events] == [
        (b"2", False),
        (b"1", True),
        (b"3", False),
    ]


def test_a_packet_of_an_older_session_is_late_when_a_newer_one_was_heard(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    held = world.capture(lambda: world.tell(alice, bob, b"old"))
    world.advance(121)
    world.tell(alice, bob, b"new")
    world.deliver(held[0])
    world.run()
    assert [(event.entries[0].payload, event.late) for event in bob.of(Received)] == [(b"new", False), (b"old", True)]


def test_simultaneous_handshakes_both_finish_and_nothing_is_late(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    alice.endpoint.connect(bob.id, world.now, world.ticks)
    bob.endpoint.connect(alice.id, world.now, world.ticks)
    world.run()
    assert len(alice.of(Established)) == len(bob.of(Established)) == 2
    assert alice.endpoint.statistics().sessions == bob.endpoint.statistics().sessions == 2
    for number in range(5):
        world.tell(alice, bob, b"%d" % number)
        world.tell(bob, alice, b"%d" % number)
    for node in (alice, bob):
        assert not any(event.late for event in node.events)
        assert node.payloads() == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("seed", range(25))
def test_order_is_known_however_a_relay_reorders_simultaneous_handshakes(world: "World", seed: int) -> None:
    draw = random.Random(seed)
    alice, bob = world.add("alice"), world.add("bob")
    waiting = []
    sent = {alice.id: 0, bob.id: 0}
    received = {alice.id: [], bob.id: []}

    def send() -> None:
        for node, other in ((alice, bob), (bob, alice)):
            if node.endpoint.is_ready(other.id, world.now, world.ticks) and draw.random() < 0.5:
                world.tell(node, other, b"%d" % sent[node.id])
                sent[node.id] += 1

    world.adversary = lambda packet: waiting.append(packet) or []
    alice.endpoint.connect(bob.id, world.now, world.ticks)
    bob.endpoint.connect(alice.id, world.now, world.ticks)
    world.run()
    for _ in range(200):
        if waiting:
            world.deliver(waiting.pop(draw.randrange(len(waiting))))
            world.run()
        send()
    for node in (alice, bob):
        for event in node.of(Received):
            numbers = [int(entry.payload) for entry in event.entries if isinstance(entry, Tell)]
            if not event.late:
                received[node.id] += numbers
        assert received[node.id] == sorted(received[node.id])
        assert received[node.id]


def test_renewal_by_the_initiator_at_120_seconds(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(119.9)
    assert [packet for packet in world.log if packet.data[1] == 0x01] == []
    world.advance(0.2)
    (first,) = [packet for packet in world.log if packet.data[1] == 0x01]
    assert first.source == alice.id
    assert [event.restarted for event in alice.of(Established) + bob.of(Established)] == [False, False]
    assert alice.endpoint.statistics().sessions == 2
    world.keep_alive(alice, bob)
    world.advance(61)
    assert alice.endpoint.statistics().sessions == bob.endpoint.statistics().sessions == 1
    assert alice.of(PeerGone) == bob.of(PeerGone) == []
    world.tell(alice, bob, b"on")
    assert bob.payloads() == [b"on"]


def test_renewal_by_the_responder_at_150_seconds_when_the_initiator_does_not(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    world.adversary = lambda packet: [] if packet.source == alice.id and packet.data[1] < 0x30 else [packet]
    world.advance(149.9)
    assert bob.of(Established) == []
    world.adversary = lambda packet: [packet]
    world.log.clear()
    bobs_first = len([packet for packet in world.log if packet.source == bob.id])
    world.advance(0.2)
    starts = {packet.source for packet in world.log if packet.data[1] == 0x01}
    assert bob.id in starts
    assert bobs_first == 0
    assert bob.of(Established)


def test_renewal_from_both_sides_at_once(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(100)
    for node, other in ((alice, bob), (bob, alice)):
        state = node.endpoint._roster.get(other.id)
        node.endpoint._roster.reopen(state, world.ticks)
    world.run()
    assert len(alice.of(Established)) == len(bob.of(Established)) == 2
    world.tell(alice, bob, b"x")
    world.tell(bob, alice, b"y")
    assert (bob.payloads(), alice.payloads()) == ([b"x"], [b"y"])
    assert alice.endpoint.statistics().sessions == 3


def test_a_failed_renewal_is_no_news_while_the_session_stands_and_is_tried_again(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    starts = []

    def adversary(packet: "Packet") -> list["Packet"]:
        if packet.data[1] < 0x30:
            starts.append((world.ticks, packet.source, packet.data))
            return []
        return [packet]

    world.adversary = adversary
    world.advance(174)
    assert alice.events == bob.events == []
    first = {}
    for ticks, source, data in starts:
        if source == alice.id:
            first.setdefault(data, ticks)
    assert list(first.values()) == [120, 130, 140, 150, 160, 170]
    assert alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.advance(1)
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.advance(6)
    assert alice.events == [PeerGone(bob.id, "the session ended")]


def test_an_unused_session_is_not_renewed_and_ends(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.connect(alice, bob)
    world.log.clear()
    alice.events.clear()
    world.advance(179.9)
    # All that is sent is one empty packet, for the responder's first.
    assert [packet.source for packet in world.log] == [alice.id]
    assert alice.endpoint.statistics().sessions == bob.endpoint.statistics().sessions == 1
    assert alice.events == []
    world.advance(0.2)
    assert alice.events == [PeerGone(bob.id, "the session ended")]
    assert alice.endpoint.statistics() == evolve(alice.endpoint.statistics(), peers=0, sessions=0, openings=0)
    assert bob.endpoint.statistics().sessions == 0


def test_a_peer_is_not_gone_while_a_handshake_may_follow_on_its_last_session(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    world.connect(alice, bob)
    world.advance(178)
    alice.events.clear()
    lose(world, 0x01, 4)
    world.connect(alice, bob)
    world.advance(3)
    assert alice.events == []
    world.advance(2)
    (established,) = alice.events
    assert isinstance(established, Established)
    assert not established.restarted
    world.advance(178)
    alice.events.clear()
    world.adversary = drop
    world.connect(alice, bob)
    world.advance(6)
    assert alice.events == [GaveUp(bob.id, "no answer in 5 s"), PeerGone(bob.id, "the session ended")]


def test_a_session_is_not_sent_or_received_on_past_its_end_even_when_timers_are_late(world: "World") -> None:
    alice, bob = world.pair()
    held = world.capture(lambda: world.tell(alice, bob, b"x"))
    world._move_to(world.ticks + 200)
    with pytest.raises(NotDelivered):
        world.tell(alice, bob, b"y")
    world.deliver(held[0])
    world.run()
    assert bob.payloads() == []
    assert "over" in bob.of(Refused)[0].reason


def test_a_session_ends_with_the_peers_attestation(world: "World") -> None:
    alice, bob = world.pair()
    held = world.capture(lambda: world.tell(alice, bob, b"x"))
    assert alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.now += 8 * DAY
    with pytest.raises(NotDelivered):
        world.tell(alice, bob, b"y")
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.deliver(held[0])
    world.run()
    assert bob.payloads() == []
    world.connect(alice, bob)
    world.tell(alice, bob, b"z")
    assert bob.payloads() == [b"z"]


def test_a_restarted_peer_is_known_by_its_boot(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(10)
    bob = world.restart(bob, b"second")
    world.tell(alice, bob, b"lost")
    # The new process knows no such session and says so; that starts a handshake at once.
    (established,) = alice.of(Established)
    assert established.restarted
    assert established.boot == b"second".ljust(16)
    assert not bob.of(Established)[0].restarted
    assert alice.endpoint.statistics().sessions == 1
    world.tell(alice, bob, b"found")
    assert bob.payloads() == [b"found"]
    world.tell(bob, alice, b"answer")
    assert [event.late for event in alice.of(Received)] == [False]


def test_a_peer_that_restarted_and_connects_itself_is_known_by_its_boot(world: "World") -> None:
    alice, bob = world.pair()
    bob = world.restart(bob, b"second")
    world.connect(bob, alice)
    (established,) = alice.of(Established)
    assert established.restarted
    world.tell(alice, bob, b"x")
    assert bob.payloads() == [b"x"]


def test_keepalive_after_five_seconds_while_something_is_unanswered(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(10)
    world.log.clear()
    world.tell(alice, bob, b"x")
    world.advance(4.9)
    assert len(world.log) == 1
    world.advance(0.2)
    assert [packet.source for packet in world.log] == [alice.id, bob.id]
    assert len(world.log[1].data) == 104
    world.advance(60)
    assert len(world.log) == 2
    assert alice.of(Received) == []


def test_keepalives_both_ways_while_something_is_expected(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(20)
    world.keep_alive(alice, bob)
    world.log.clear()
    world.advance(20.5)
    assert [packet.source for packet in world.log].count(alice.id) == 4
    assert [packet.source for packet in world.log].count(bob.id) == 4
    for node, other in ((alice, bob), (bob, alice)):
        node.endpoint.expect(other.id, waiting=False, ticks=world.ticks)
    world.log.clear()
    world.advance(50)
    assert world.log == []


def test_what_is_expected_before_the_session_counts_in_it(world: "World") -> None:
    alice, bob = world.add("alice"), world.add("bob")
    alice.endpoint.expect(bob.id, waiting=True, ticks=world.ticks)
    world.advance(100)
    world.connect(alice, bob)
    assert [event.restarted for event in alice.of(Established)] == [False]
    world.log.clear()
    world.advance(6)
    assert alice.id in [packet.source for packet in world.log]
    assert alice.of(PeerGone) == []


@pytest.mark.parametrize(("why", "quiet"), [("unanswered", 10), ("expected", 40)])
def test_a_silent_peer_is_asked_at_15_seconds_and_gone_at_28(world: "World", why: str, quiet: float) -> None:
    alice, bob = world.pair()
    world.advance(quiet)
    start = world.ticks
    times = []
    world.adversary = lambda packet: times.append((world.ticks - start, packet.data[1])) or []
    if why == "expected":
        alice.endpoint.expect(bob.id, waiting=True, ticks=world.ticks)
    else:
        world.tell(alice, bob, b"x")
    world.advance(27.9)
    handshakes = [seconds for seconds, kind in times if kind == 0x01]
    assert handshakes == [15, 16, 17, 18, 19, 25, 26, 27]
    assert alice.events == []
    world.advance(0.2)
    assert alice.of(PeerGone) == [PeerGone(bob.id, "nothing was heard for 28 s")]
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.advance(10)
    # Nobody waits for the handshake that fails last: it is no news.
    assert alice.events == []
    assert alice.endpoint.statistics().peers == 0


def test_a_silent_peer_that_answers_the_handshake_is_not_gone(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(10)
    world.adversary = lambda packet: [] if packet.data[1] == 0x30 and world.ticks < 25 else [packet]
    world.tell(alice, bob, b"lost")
    world.advance(20)
    assert len(alice.of(Established)) == 1
    world.tell(alice, bob, b"x")
    assert bob.payloads() == [b"x"]
    world.advance(60)
    assert alice.of(PeerGone) == []


def test_a_silent_peer_is_asked_before_it_is_sent_anything(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(14.9)
    assert alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.advance(0.1)
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.log.clear()
    with pytest.raises(NotDelivered):
        world.tell(alice, bob, b"x")
    assert world.log == []
    world.connect(alice, bob)
    assert [packet.data[1] for packet in world.log] == [0x01, 0x02, 0x03, 0x30]
    world.tell(alice, bob, b"x")
    world.tell(bob, alice, b"y")
    assert (bob.payloads(), alice.payloads()) == ([b"x"], [b"y"])


@pytest.mark.parametrize("why", ["restarted", "gone"])
def test_a_peer_that_forgot_the_session_loses_no_message(world: "World", why: str) -> None:
    alice, bob = world.pair()
    if why == "gone":
        world.adversary = drop
        bob.endpoint.expect(alice.id, waiting=True, ticks=world.ticks)
    world.advance(40)
    world.adversary = lambda packet: [packet]
    if why == "restarted":
        bob = world.restart(bob, b"second")
    assert bob.endpoint.statistics().sessions == 0
    assert alice.endpoint.statistics().sessions == 1
    with pytest.raises(NotDelivered):
        world.tell(alice, bob, b"x")
    world.connect(alice, bob)
    assert [event.restarted for event in alice.of(Established)] == [why == "restarted"]
    world.tell(alice, bob, b"x")
    assert bob.payloads() == [b"x"]


def test_a_silent_peer_that_does_not_answer_is_given_up_and_may_yet_be_heard(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(20)
    world.adversary = drop
    for _ in range(2):
        world.connect(alice, bob)
        world.advance(4.9)
        assert alice.events == []
        world.advance(0.1)
        assert alice.events == [GaveUp(bob.id, "no answer in 5 s")]
        alice.events.clear()
    with pytest.raises(NotDelivered):
        world.tell(alice, bob, b"x")
    assert alice.endpoint.statistics().sessions == 1
    world.adversary = lambda packet: [packet]
    world.connect(bob, alice)
    world.tell(alice, bob, b"y")
    assert bob.payloads() == [b"y"]


def test_connecting_to_a_silent_peer_does_not_wait_for_the_next_attempt_of_its_own_accord(world: "World") -> None:
    alice, bob = world.pair()
    alice.endpoint.expect(bob.id, waiting=True, ticks=world.ticks)
    world.adversary = drop
    world.advance(21)
    assert alice.events == []
    world.log.clear()
    world.connect(alice, bob)
    assert [packet.data[1] for packet in world.log] == [0x01]


def test_connecting_while_a_silent_peer_is_asked_waits_for_that_answer(world: "World") -> None:
    alice, bob = world.pair()
    alice.endpoint.expect(bob.id, waiting=True, ticks=world.ticks)
    world.adversary = drop
    world.advance(17)
    world.connect(alice, bob)
    world.advance(4)
    firsts = [packet.data for packet in world.log if packet.source == alice.id and packet.data[1] == 0x01]
    assert len(set(firsts)) == 1
    assert alice.of(GaveUp) == [GaveUp(bob.id, "no answer in 5 s")]
    # The next attempt is of its own accord again, and nobody waits for it.
    world.advance(20)
    assert alice.events == [PeerGone(bob.id, "nothing was heard for 28 s")]


def test_who_connects_is_told_of_a_failure_although_the_session_was_heard_on_meanwhile(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(5)
    held = world.capture(lambda: world.send(bob, alice))
    world.advance(15)
    world.adversary = lambda packet: [] if packet.data[1] < 0x30 else [packet]
    world.connect(alice, bob)
    world.deliver(held[0])
    assert alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    world.advance(5)
    assert alice.events == [GaveUp(bob.id, "no answer in 5 s")]
    world.tell(alice, bob, b"x")
    assert bob.payloads() == [b"x"]


def test_who_connects_is_told_of_a_failure_when_the_peers_attestation_ended_under_a_session(world: "World") -> None:
    alice, bob = world.pair()
    world.now += 8 * DAY
    world.adversary = drop
    world.connect(alice, bob)
    world.advance(5)
    assert alice.events == [GaveUp(bob.id, "no answer in 5 s")]


def test_a_failed_handshake_is_no_news_when_the_peers_own_has_made_a_session(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(20)
    world.adversary = lambda packet: [] if (packet.source, packet.data[1]) == (alice.id, 0x01) else [packet]
    world.connect(alice, bob)
    world.connect(bob, alice)
    world.advance(6)
    (established,) = alice.events
    assert isinstance(established, Established)
    assert alice.endpoint.statistics().openings == 0


def test_two_that_are_silent_to_each_other_may_ask_at_once(world: "World") -> None:
    alice, bob = world.pair()
    world.advance(20)
    alice.endpoint.connect(bob.id, world.now, world.ticks)
    bob.endpoint.connect(alice.id, world.now, world.ticks)
    world.run()
    for number in (b"1", b"2"):
        world.tell(alice, bob, number)
        world.tell(bob, alice, number)
    assert not any(event.late for node in (alice, bob) for event in node.events if isinstance(event, Received))
    assert bob.payloads() == alice.payloads() == [b"1", b"2"]
    world.advance(10)
    assert alice.of(GaveUp) == bob.of(GaveUp) == []


def test_a_late_answer_needs_no_handshake_before_it(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    for _ in range(110):
        world.advance(1)
        assert bob.endpoint.is_ready(alice.id, world.now, world.ticks)
    assert {packet.data[1] for packet in world.log} == {0x30}
    world.tell(bob, alice, b"answer")
    assert alice.payloads() == [b"answer"]


def test_a_silent_peer_is_sent_empty_packets_so_that_it_hears_this_node(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    world.adversary = lambda packet: [] if packet.source == bob.id else [packet]
    world.advance(27.9)
    assert not alice.endpoint.is_ready(bob.id, world.now, world.ticks)
    assert bob.endpoint.is_ready(alice.id, world.now, world.ticks)
    assert bob.payloads() == []


def test_a_peer_that_comes_back_after_it_was_gone_did_not_restart(world: "World") -> None:
    alice, bob = world.pair()
    world.adversary = drop
    world.tell(alice, bob, b"lost")
    world.advance(40)
    assert alice.of(PeerGone)
    world.adversary = lambda packet: [packet]
    world.connect(alice, bob)
    (established,) = alice.of(Established)
    assert not established.restarted
    world.tell(bob, alice, b"x")
    assert [event.late for event in alice.of(Received)] == [False]


def test_closing_tells_the_peer_and_forgets_it(world: "World") -> None:
    alice, bob = world.pair()
    carol = world.add("carol")
    world.connect(alice, carol)
    alice.events.clear()
    alice.endpoint.close(bob.id, "good bye")
    world.run()
    assert alice.events == []
    assert bob.events == [PeerGone(alice.id, "the peer closed: good bye")]
    assert alice.endpoint.statistics().peers == alice.endpoint.statistics().sessions == 1
    assert bob.endpoint.statistics().sessions == 0
    alice.endpoint.close(bob.id)
    world.connect(alice, bob)
    assert [event.restarted for event in bob.of(Established)] == [False]


def test_closing_all_ends_handshakes_too(world: "World") -> None:
    alice, bob, carol = world.add("alice"), world.add("bob"), world.add("carol")
    world.connect(alice, bob)
    world.adversary = lambda packet: [] if packet.data[1] == 0x30 else [packet]
    world.connect(alice, carol)
    world.adversary = drop
    dave = Vault.in_memory()
    alice.endpoint.connect(dave.identifier, world.now, world.ticks)
    alice.endpoint.close()
    world.run()
    statistics = alice.endpoint.statistics()
    assert (statistics.peers, statistics.sessions, statistics.openings) == (0, 0, 0)
    world.advance(60)
    assert alice.of(GaveUp) == []


def test_what_comes_before_a_close_counts_and_what_follows_does_not(world: "World") -> None:
    alice, bob = world.pair()
    world.send(alice, bob, Cancel(1), Close("done"), Cancel(2))
    assert bob.events == [
        Received(alice.id, (Cancel(1),), late=False),
        PeerGone(alice.id, "the peer closed: done"),
    ]


def test_a_close_that_comes_late_ends_its_own_session_only(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    held = world.capture(lambda: world.send(alice, bob, Close("old")))
    world.advance(121)
    world.tell(alice, bob, b"new")
    before = bob.endpoint.statistics().sessions
    world.deliver(held[0])
    world.run()
    assert bob.of(PeerGone) == []
    assert bob.endpoint.statistics().sessions == before - 1
    world.tell(alice, bob, b"on")
    assert bob.payloads() == [b"new", b"on"]


def test_sessions_with_a_peer_are_bounded(world: "World") -> None:
    alice, bob = world.pair()
    for _ in range(10):
        world.advance(0.1)
        state = alice.endpoint._roster.get(bob.id)
        alice.endpoint._roster.reopen(state, world.ticks)
        world.run()
    assert alice.endpoint.statistics().sessions == bob.endpoint.statistics().sessions == SESSIONS_PER_PEER
    world.tell(alice, bob, b"x")
    assert bob.payloads() == [b"x"]


def test_the_sending_path_follows_the_highest_authentic_counter_only(world: "World") -> None:
    alice, bob = world.pair()
    held = world.capture(lambda: (world.tell(alice, bob, b"1"), world.tell(alice, bob, b"2")))
    first, second = (packet.data for packet in held)

    def path() -> object:
        bob.endpoint.send(alice.id, [Cancel(1)], world.now, world.ticks)
        (transmit,) = [event for event in bob.endpoint.take() if isinstance(event, Transmit)]
        return transmit.path

    bob.endpoint.receive(second[:-1] + bytes([second[-1] ^ 1]), "forged", world.now, world.ticks)
    assert path() == ("relay", alice.id)
    bob.endpoint.receive(second, "new relay", world.now, world.ticks)
    assert path() == "new relay"
    bob.endpoint.receive(first, "old relay", world.now, world.ticks)
    assert path() == "new relay"
    bob.endpoint.receive(second, "replaying relay", world.now, world.ticks)
    assert path() == "new relay"


@pytest.mark.parametrize("seed", range(8))
def test_after_a_timer_nothing_is_due_in_the_past(world: "World", seed: int) -> None:
    draw = random.Random(seed)
    alice, bob = world.pair()
    world.adversary = lambda packet: [packet] if draw.random() < 0.7 else []
    for _ in range(300):
        world.advance(draw.choice([0.3, 1, 7, 20]))
        for node, other in ((alice, bob), (bob, alice)):
            assert node.endpoint.next_deadline() > world.ticks
            act = draw.random()
            if act < 0.3 and node.endpoint.is_ready(other.id, world.now, world.ticks):
                world.tell(node, other, b"x")
            elif act < 0.5:
                node.endpoint.expect(other.id, waiting=draw.random() < 0.5, ticks=world.ticks)
            elif act < 0.8:
                world.connect(node, other)
    for node in (alice, bob):
        statistics = node.endpoint.statistics()
        assert statistics.peers <= 1
        assert statistics.sessions <= SESSIONS_PER_PEER + 1
        assert statistics.timers < 200


def test_peers_that_talk_for_hours_leave_no_timers_behind(world: "World") -> None:
    alice, bob = world.pair()
    for _ in range(3 * 120):
        for node, other in ((alice, bob), (bob, alice)):
            node.endpoint.expect(other.id, waiting=True, ticks=world.ticks)
        world.connect(alice, bob)
        world.tell(alice, bob, b"x")
        world.advance(1)
        for node, other in ((alice, bob), (bob, alice)):
            node.endpoint.expect(other.id, waiting=False, ticks=world.ticks)
        world.advance(29)
    assert len(bob.payloads()) == 3 * 120
    for node in (alice, bob):
        assert node.endpoint.statistics().timers < 20
