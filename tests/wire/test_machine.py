"""Two endpoints, and an adversary that has every packet in its hands: whatever it does, in whatever order.

What is delivered is a subsequence of what was sent, each message at most once and in its sender's name; and when the
adversary leaves, honest traffic resumes.
"""

from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from autonomy_trio.trust.delegates import Introduction, derive_agent_key, make_delegate
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.entries import Ask, Tell
from autonomy_trio.wire.events import Received
from autonomy_trio.wire.introductions import Speaker
from autonomy_trio.wire.packets import make_reject, read_data_header
from tests.wire.conftest import Node, Packet, World

DATA = 0x30
HEADER = {0x01: 12, 0x02: 12, 0x03: 12, DATA: 16, 0x50: 20}
NAMES = ("alice", "bob")
# Born once: what a machine does is about sessions, and identities cost more than all of it.
VAULTS = {name: Vault.in_memory() for name in NAMES}
AGENTS = {name: derive_agent_key(bytes(32), "counter", VAULTS[name].identifier) for name in NAMES}

sides = st.sampled_from(NAMES)


class Adversary(RuleBasedStateMachine):
    """The adversary chooses; the model remembers what was said and heard."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.held: list[Packet] = []
        self.number = 0
        self.boots = 0
        self.sent: dict[str, list[bytes]] = {name: [] for name in NAMES}
        self.spoken: dict[bytes, bytes | None] = {}
        self.heard: dict[str, list[tuple[bytes, bool]]] = {name: [] for name in NAMES}

    @initialize()
    def begin(self) -> None:
        self.nodes: dict[str, Node] = {name: self.world.add(name, VAULTS[name]) for name in NAMES}
        self.world.adversary = self.hold
        for name in NAMES:
            self.expect(name)
        self.connect("alice")
        self.let_all_through()

    def hold(self, packet: Packet) -> list[Packet]:
        self.held.append(packet)
        return []

    def other(self, name: str) -> Node:
        return self.nodes[NAMES[1 - NAMES.index(name)]]

    def expect(self, name: str) -> None:
        self.nodes[name].endpoint.expect(self.other(name).id, waiting=True, ticks=self.world.ticks)

    def settle(self) -> None:
        """Carry what the endpoints say into the adversary's hands, and check what they heard."""
        self.world.run()
        for name in NAMES:
            for event in self.nodes[name].of(Received):
                for entry in event.entries:
                    if isinstance(entry, Tell | Ask):
                        self.check(name, entry, event)

    def check(self, name: str, entry: Tell | Ask, event: Received) -> None:
        sender = self.other(name).name
        payload = entry.payload
        assert payload in self.sent[sender], "something was delivered that nobody said"
        assert payload not in [each for each, _ in self.heard[name]], "something was delivered twice"
        agent = self.spoken[payload]
        if entry.sender:
            found = event.senders.get(entry.sender)
            assert found is None or found.identifier == agent, "somebody spoke in another's name"
        else:
            assert agent is None, "an agent's words became its node's"
        self.heard[name].append((payload, event.late))
        in_order = [self.sent[sender].index(each) for each, late in self.heard[name] if not late]
        assert in_order == sorted(in_order), "something late was not said to be late"

    @rule(name=sides)
    def connect(self, name: str) -> None:
        self.world.connect(self.nodes[name], self.other(name))
        self.settle()

    @rule(name=sides, count=st.integers(1, 3), by_agent=st.booleans())
    def say(self, name: str, count: int, by_agent: bool) -> None:
        node, other = self.nodes[name], self.other(name)
        if not node.endpoint.is_ready(other.id, self.world.now, self.world.ticks):
            return
        entries = []
        for _ in range(count):
            self.number += 1
            payload = b"%d" % self.number
            self.spoken[payload] = AGENTS[name].identifier if by_agent else None
            self.sent[name].append(payload)
            entries.append(Tell("agent", "Message", payload, 0, 0))
        agent = AGENTS[name]
        introduction = Introduction(agent.identifier, agent.change, make_delegate(agent, 0, self.world.now))
        speakers = dict.fromkeys(range(count), Speaker(introduction, inherits=True)) if by_agent else {}
        node.endpoint.send(other.id, entries, self.world.now, self.world.ticks, speakers)
        self.settle()

    def deliver(self, packet: Packet) -> None:
        self.world.deliver(packet)
        self.settle()

    @precondition(lambda self: self.held)
    @rule()
    def let_all_through(self) -> None:
        while self.held:
            self.deliver(self.held.pop(0))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def let_one_through(self, data: st.DataObject) -> None:
        self.deliver(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        del self.held[data.draw(st.integers(0, len(self.held) - 1))]

    def recorded(self, data: st.DataObject) -> Packet:
        """Choose any packet there ever was, one of the last rather than of the first."""
        return self.world.log[-1 - data.draw(st.integers(0, len(self.world.log) - 1))]

    @rule(data=st.data(), count=st.integers(1, 12))
    def replay(self, data: st.DataObject, count: int) -> None:
        first = data.draw(st.integers(0, len(self.world.log) - 1))
        for packet in self.world.log[-1 - first :][:count]:
            self.deliver(packet)

    @rule(data=st.data())
    def tamper(self, data: st.DataObject) -> None:
        packet = self.recorded(data)
        changed = bytearray(packet.data)
        position = data.draw(st.integers(0, len(changed) * 8 - 1))
        changed[position // 8] ^= 1 << position % 8
        self.deliver(evolve(packet, data=bytes(changed)))

    @rule(data=st.data())
    def splice(self, data: st.DataObject) -> None:
        """Put the head of one packet before the tail of another, and send one back to where it came from."""
        one, other = self.recorded(data), self.recorded(data)
        cut = HEADER[one.data[1]] if data.draw(st.booleans()) else data.draw(st.integers(0, len(one.data)))
        self.deliver(evolve(one, data=one.data[:cut] + other.data[cut:]))
        self.deliver(evolve(other, destination=other.source))

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        packet = self.recorded(data)
        if packet.data[1] == DATA:
            forged = make_reject(read_data_header(packet.data))
            self.deliver(evolve(packet, destination=packet.source, data=forged))

    @rule(seconds=st.sampled_from([0.3, 1, 4, 6, 11, 16, 30, 125, 200]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)
        self.settle()

    @rule(name=sides)
    def restart(self, name: str) -> None:
        self.settle()
        self.boots += 1
        self.nodes[name] = self.world.restart(self.nodes[name], b"%d" % self.boots)
        self.expect(name)

    def teardown(self) -> None:
        if not hasattr(self, "nodes"):
            return
        self.world.adversary = lambda packet: [packet]
        self.world.advance(30)
        for name in NAMES:
            self.world.connect(self.nodes[name], self.other(name))
        # Whoever remembers a session that the other has lost learns of it by one packet, and asks for another.
        for _ in range(2):
            self.world.advance(12)
            for name in NAMES:
                self.world.connect(self.nodes[name], self.other(name))
                self.say(name, 1, by_agent=True)
        for name in NAMES:
            sender = self.other(name).name
            assert self.heard[name][-1:] == [(self.sent[sender][-1], False)], "honest traffic did not resume"


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
