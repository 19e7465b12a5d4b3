"""Agents speak in their node's session under an index, and nobody else does."""

from typing import TYPE_CHECKING

import msgspec
import pytest
from attrs import evolve

from autonomy_trio.errors import ProtocolError
from autonomy_trio.trust.delegates import AgentKey, Introduction, derive_agent_key, make_delegate
from autonomy_trio.trust.identity import Attestation, verify_bundle
from autonomy_trio.trust.records import Signed, SigningKey, sign_record
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import CHECKS_BURST, INTRODUCTIONS, INTRODUCTIONS_BYTES
from autonomy_trio.wire.entries import Ask, Cancel, Forgotten, Introduce, Introduced, Tell
from autonomy_trio.wire.events import Received, Refused
from autonomy_trio.wire.introductions import Agent, IntroducedAgents, Introducing, KnownAgents, Speaker
from tests.wire.test_handshake import Forger, refuse_second, refuse_third

if TYPE_CHECKING:
    from tests.wire.conftest import Node, Packet, World

SECRET = b"s" * 32
DATA = 0x30
DAY = 86_400
BURST = int(CHECKS_BURST) // 2


def agent_of(node: "Node", name: str = "counter") -> AgentKey:
    return derive_agent_key(SECRET, name, node.id)


def speaker(agent: AgentKey, now: float, *presentations: bytes) -> Speaker:
    return Speaker(
        Introduction(agent.identifier, agent.change, make_delegate(agent, 0, now)),
        inherits=True,
        presentations=presentations,
    )


def introduce(index: int, change: Signed, delegate: Signed) -> Introduce:
    return Introduce(index, change, delegate, inherits=True, presentations=())


def say(world: "World", source: "Node", destination: "Node", *spoken: tuple[bytes, Speaker | None]) -> None:
    entries = [Tell("agent", "Message", payload, 0, 0) for payload, _ in spoken]
    speakers = {position: who for position, (_, who) in enumerate(spoken) if who is not None}
    source.endpoint.send(destination.id, entries, world.now, world.ticks, speakers)
    world.run()


def heard(node: "Node") -> list[tuple[bytes, bytes | None]]:
    """Return each payload and who said it: an agent's identifier, the node, or nobody."""
    said = []
    for event in node.of(Received):
        for entry in event.entries:
            sender = event.senders.get(entry.sender)
            who = sender.identifier if sender is not None else b"node" if entry.sender == 0 else None
            said.append((entry.payload, who))
    return said


def introductions_in(world: "World") -> int:
    return sum(packet.data[1] == DATA and len(packet.data) > 400 for packet in world.log)


def drop_data(packet: "Packet") -> list["Packet"]:
    return []


def test_an_agent_speaks_for_itself_and_the_node_beside_it(world: "World") -> None:
    alice, bob = world.pair()
    counter = agent_of(alice)
    shown = speaker(counter, world.now, b"its credential")
    say(world, alice, bob, (b"1", shown), (b"2", None))
    (event,) = bob.events
    assert [entry.payload for entry in event.entries] == [b"1", b"2"]
    agent = event.senders[event.entries[0].sender]
    assert agent == Agent(
        counter.identifier, int(world.now) + 7 * DAY, inherits=True, presentations=(b"its credential",)
    )
    assert event.entries[1].sender == 0
    assert set(event.senders) == {event.entries[0].sender}


def test_asks_carry_their_agent_and_nothing_else_can(world: "World") -> None:
    alice, bob = world.pair()
    shown = speaker(agent_of(alice), world.now)
    alice.endpoint.send(bob.id, [Ask(1, "a", "M", b"", None, 0, 0)], world.now, world.ticks, {0: shown})
    world.run()
    (event,) = bob.of(Received)
    assert event.senders[event.entries[0].sender].identifier == agent_of(alice).identifier
    with pytest.raises(ValueError, match="a cancel has no sender"):
        alice.endpoint.send(bob.id, [Cancel(1)], world.now, world.ticks, {0: shown})


def test_an_introduction_rides_along_until_it_is_acknowledged(world: "World") -> None:
    alice, bob = world.pair()
    shown = speaker(agent_of(alice), world.now)
    world.adversary = lambda packet: [] if packet.source == bob.id else [packet]
    say(world, alice, bob, (b"1", shown))
    say(world, alice, bob, (b"2", shown))
    world._move_to(world.ticks + 1)
    world.adversary = lambda packet: [packet]
    say(world, alice, bob, (b"3", shown))
    assert introductions_in(world) == 3
    say(world, alice, bob, (b"4", shown))
    assert introductions_in(world) == 3
    assert heard(bob) == [(payload, agent_of(alice).identifier) for payload in (b"1", b"2", b"3", b"4")]


def test_a_lost_introduction_costs_only_the_messages_lost_with_it(world: "World") -> None:
    alice, bob = world.pair()
    shown = speaker(agent_of(alice), world.now)
    world.adversary = drop_data
    say(world, alice, bob, (b"lost", shown))
    world.adversary = lambda packet: [packet]
    say(world, alice, bob, (b"on", shown))
    assert heard(bob) == [(b"on", agent_of(alice).identifier)]


def test_acknowledging_owes_nothing(world: "World") -> None:
    alice, bob = world.pair()
    say(world, alice, bob, (b"1", speaker(agent_of(alice), world.now)))
    world.log.clear()
    world.advance(60)
    # What bob acknowledged was an answer, and bob's acknowledgement waits for none.
    assert [packet.source for packet in world.log] == []


def test_a_renewed_session_introduces_again_and_verifies_nothing_again(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    agents = [speaker(agent_of(alice, str(number)), world.now) for number in range(100)]
    say(world, alice, bob, *((b"x", each) for each in agents))
    world.advance(121)
    world._move_to(world.ticks)
    bob.events.clear()
    say(world, alice, bob, *((b"x", each) for each in agents))
    said = heard(bob)
    assert len(said) == len(agents)
    assert all(who is not None for _, who in said)
    assert len(bob.endpoint._roster.get(alice.id).agents) == len(agents)


def test_introductions_too_large_to_ride_go_ahead(world: "World") -> None:
    alice, bob = world.pair()
    many = [speaker(agent_of(alice, str(number)), world.now, bytes(20_000)) for number in range(6)]
    say(world, alice, bob, *((b"%d" % number, each) for number, each in enumerate(many)))
    assert heard(bob) == [(b"%d" % number, agent_of(alice, str(number)).identifier) for number in range(6)]
    assert all(len(packet.data) <= 160 * 1024 for packet in world.log)


def give_entries(world: "World", source: "Node", destination: "Node", *entries: object) -> list[object]:
    """Let a node that lies send entries of its own making."""
    destination.events.clear()
    world.send(source, destination, *entries)
    return destination.events


def lies(world: "World", alice: "Node", carol: "Node") -> dict[str, tuple[Signed, Signed]]:
    own, other = agent_of(alice), agent_of(carol)
    change, delegate = own.change, make_delegate(own, 0, world.now)
    signature = Signed(delegate.body, bytes(64))
    return {
        "of another node": (other.change, make_delegate(other, 0, world.now)),
        "of another agent": (change, make_delegate(agent_of(alice, "other"), 0, world.now)),
        "not signed": (change, signature),
        "another's signature": (change, Signed(delegate.body, SigningKey(SECRET).sign("delegate", delegate.body))),
        "for another purpose": (change, Signed(delegate.body, own.key.sign("attest", delegate.body))),
        "expired": (change, make_delegate(own, 0, world.now - 8 * DAY)),
        "not yet": (change, make_delegate(own, 0, world.now + 61)),
        "of a later sequence": (change, make_delegate(own, 1, world.now)),
        "junk": (Signed(b"junk", bytes(64)), Signed(bytes(100_000), bytes(64))),
    }


@pytest.mark.parametrize(
    "lie",
    [
        "of another node",
        "of another agent",
        "not signed",
        "another's signature",
        "for another purpose",
        "expired",
        "not yet",
        "of a later sequence",
        "junk",
    ],
)
def test_an_introduction_that_does_not_hold_lets_nobody_speak_and_costs_no_more(world: "World", lie: str) -> None:
    alice, bob = world.pair()
    change, delegate = lies(world, alice, world.add("carol"))[lie]
    events = give_entries(
        world,
        alice,
        bob,
        introduce(7, change, delegate),
        Tell("a", "M", b"x", 7, 0),
        Tell("a", "M", b"y", 0, 0),
    )
    assert [type(event) for event in events] == [Refused, Received]
    assert heard(bob) == [(b"x", None), (b"y", b"node")]
    say(world, alice, bob, (b"on", speaker(agent_of(alice), world.now)))
    assert heard(bob) == [(b"on", agent_of(alice).identifier)]


def test_an_agents_key_opens_no_handshake() -> None:
    # An agent change is no change of a node, so a bundle made of it is refused by every handshake.
    vault = Vault.in_memory()
    agent = derive_agent_key(SECRET, "counter", vault.identifier)
    attestation = Attestation(
        agent.identifier, 0, vault.session_public, vault.signing_public, (), 1_799_999_999, 1_800_000_999
    )
    bundle = msgspec.msgpack.encode([[agent.change], sign_record(agent.key, "attest", attestation)])
    assert "not a change of an identity" in refuse_second(Forger(vault, bundle=bundle))
    assert "not a change of an identity" in refuse_third(Forger(vault, bundle=bundle))


def test_an_index_that_was_never_introduced_speaks_for_nobody_and_is_said_so(world: "World") -> None:
    alice, bob = world.pair()
    world.log.clear()
    give_entries(world, alice, bob, Tell("a", "M", b"x", 9, 0))
    assert heard(bob) == [(b"x", None)]
    assert [packet.source for packet in world.log] == [alice.id, bob.id]


def test_a_forgotten_agent_is_introduced_again(world: "World") -> None:
    alice, bob = world.pair()
    shown = speaker(agent_of(alice), world.now)
    say(world, alice, bob, (b"1", shown))
    bob.endpoint._roster.get(alice.id).current.introduced = IntroducedAgents()
    say(world, alice, bob, (b"refused", shown))
    say(world, alice, bob, (b"2", shown))
    assert heard(bob) == [(b"1", agent_of(alice).identifier), (b"refused", None), (b"2", agent_of(alice).identifier)]


def test_a_delegate_that_expires_in_a_session_speaks_no_more_and_a_new_one_does(world: "World") -> None:
    alice, bob = world.pair()
    old = speaker(agent_of(alice), world.now - 7 * DAY + 100)
    say(world, alice, bob, (b"1", old))
    world._move_to(world.ticks + 5)
    say(world, bob, alice, (b"x", None))
    world.now += 95
    say(world, alice, bob, (b"2", old))
    say(world, alice, bob, (b"3", speaker(agent_of(alice), world.now)))
    assert heard(bob) == [(b"1", agent_of(alice).identifier), (b"2", None), (b"3", agent_of(alice).identifier)]


def test_an_index_is_never_given_to_two_agents(world: "World") -> None:
    alice, bob = world.pair()
    one, two = (speaker(agent_of(alice, name), world.now).introduction for name in ("one", "two"))
    give_entries(world, alice, bob, introduce(1, one.change, one.delegate))
    (refused, _) = give_entries(
        world,
        alice,
        bob,
        introduce(1, two.change, two.delegate),
        Tell("a", "M", b"x", 1, 0),
    )
    assert refused.reason == "index 1 was given to two agents"
    assert heard(bob) == [(b"x", agent_of(alice, "one").identifier)]


def test_agents_are_verified_at_100_signatures_a_second_past_a_burst_of_1024(world: "World") -> None:
    alice, bob = world.pair()
    world.keep_alive(alice, bob)
    agents = [speaker(agent_of(alice, str(number)), world.now) for number in range(BURST + 100)]

    def all_speak() -> int:
        bob.events.clear()
        for first in range(0, len(agents), 200):
            say(world, alice, bob, *((b"x", each) for each in agents[first : first + 200]))
        return sum(who is not None for _, who in heard(bob))

    assert all_speak() == BURST
    world.advance(1)
    assert all_speak() == BURST + 50
    world.advance(1)
    assert all_speak() == BURST + 100


def test_1024_agents_are_kept_on_either_side_and_the_oldest_gives_way() -> None:
    introducing = Introducing()
    agents = [
        Speaker(Introduction(bytes(32), Signed(b"%d" % number, bytes(64)), Signed(b"", bytes(64))), inherits=True)
        for number in range(INTRODUCTIONS + 1)
    ]
    indices = []
    for each in agents[:-1]:
        riding, entries = introducing.address([Tell("a", "M", b"", 0, 0)], {0: each})
        indices.append(entries[0].sender)
        assert [entry.index for entry in riding] == indices[-1:]
    introducing.acknowledge(indices)
    assert introducing.address([Tell("a", "M", b"", 0, 0)], {0: agents[0]}) == ([], [Tell("a", "M", b"", 1, 0)])
    introducing.address([Tell("a", "M", b"", 0, 0)], {0: agents[-1]})
    assert len(introducing) == INTRODUCTIONS
    riding, entries = introducing.address([Tell("a", "M", b"", 0, 0)], {0: agents[1]})
    assert [entry.index for entry in riding] == [entries[0].sender] == [INTRODUCTIONS + 2]

    introduced = IntroducedAgents()
    for number in range(1, INTRODUCTIONS + 1):
        introduced.add(number, Agent(bytes(32), 2, inherits=True, presentations=()))
    assert introduced.find(1, 1.0) is not None
    introduced.add(INTRODUCTIONS + 1, Agent(bytes(32), 2, inherits=True, presentations=()))
    assert len(introduced) == INTRODUCTIONS
    assert introduced.find(1, 1.0) is not None
    assert introduced.find(2, 1.0) is None


def test_what_is_kept_of_agents_is_bounded_in_bytes() -> None:
    introduced = IntroducedAgents()
    for number in range(100):
        introduced.add(number + 1, Agent(bytes(32), 2, inherits=True, presentations=(bytes(20_000),)))
    assert len(introduced) == INTRODUCTIONS_BYTES // 20_512


def test_verifying_again_costs_no_signature_but_another_sequence_does(world: "World") -> None:
    alice, _ = world.pair()
    known = KnownAgents()
    agent = agent_of(alice)
    shown = speaker(agent, world.now)
    entry = introduce(1, shown.introduction.change, shown.introduction.delegate)
    verified = verify_bundle(alice.vault.bundle(world.now), world.now)
    for _ in range(1000):
        assert known.verify(entry, verified, world.now, 0.0).identifier == agent.identifier
    rotated = evolve(verified, history=evolve(verified.history, keys=(*verified.history.keys, bytes(32))))
    with pytest.raises(ProtocolError, match="sequence 0 of its node, which is at 1"):
        known.verify(entry, rotated, world.now, 0.0)


def test_acknowledging_and_forgetting_what_was_never_introduced_does_nothing(world: "World") -> None:
    alice, bob = world.pair()
    shown = speaker(agent_of(bob), world.now)
    give_entries(world, alice, bob, Introduced((1, 2)), Forgotten((3, 4)))
    assert bob.events == []
    say(world, bob, alice, (b"x", shown))
    assert heard(alice) == [(b"x", agent_of(bob).identifier)]


def test_no_answer_is_sent_on_a_session_that_stopped_sending(world: "World") -> None:
    alice, bob = world.pair()
    shown = speaker(agent_of(alice), world.now)
    held = world.capture(lambda: say(world, alice, bob, (b"x", shown)))
    world._move_to(world.ticks + 176)
    world.log.clear()
    world.deliver(held[0])
    world.run()
    assert heard(bob) == [(b"x", agent_of(alice).identifier)]
    assert world.log == []
