"""Nodes in memory with an adversary between them, on a clock that only the test moves."""

from collections.abc import Callable, Hashable
from typing import TypeVar

import pytest
from attrs import define, field, frozen

from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import Entry, Tell
from autonomy_trio.wire.events import Event, Received, Transmit

EventType = TypeVar("EventType")

START = 1_800_000_000.0


@frozen
class Packet:
    """A packet on its way."""

    source: bytes
    destination: bytes
    data: bytes
    path: Hashable


@define(eq=False)
class Node:
    """A node's endpoint, and what came out of it."""

    name: str
    vault: Vault
    endpoint: Endpoint
    presentations: list[bytes]
    events: list[Event] = field(factory=list)
    clock_ahead: float = 0.0

    @property
    def id(self) -> bytes:
        return self.vault.identifier

    def of(self, kind: type[EventType]) -> list[EventType]:
        """Return the events of a kind, and forget them."""
        found = [event for event in self.events if isinstance(event, kind)]
        self.events = [event for event in self.events if not isinstance(event, kind)]
        return found

    def payloads(self) -> list[bytes]:
        """Return the payloads received since the last call."""
        return [entry.payload for event in self.of(Received) for entry in event.entries if isinstance(entry, Tell)]


class World:
    """Some nodes and a network that does what `adversary` says with each packet: nothing, unless a test sets it."""

    def __init__(self) -> None:
        self.now = START
        self.ticks = 0.0
        self.nodes: dict[bytes, Node] = {}
        self.log: list[Packet] = []
        self.adversary: Callable[[Packet], list[Packet]] = lambda packet: [packet]

    def add(self, name: str, vault: Vault | None = None, boot: bytes | None = None) -> Node:
        vault = vault or Vault.in_memory()
        presentations = [f"credential of {name}".encode()]
        endpoint = Endpoint(vault, boot=boot or name.encode().ljust(16), presentations=lambda: presentations)
        node = Node(name, vault, endpoint, presentations)
        self.nodes[vault.identifier] = node
        return node

    def restart(self, node: Node, boot: bytes) -> Node:
        """Start a node anew with its identity: its old sessions are lost without a word."""
        return self.add(node.name, node.vault, boot.ljust(16))

    def connect(self, source: Node, destination: Node) -> None:
        source.endpoint.connect(destination.id, self.now + source.clock_ahead, self.ticks)
        self.run()

    def keep_alive(self, one: Node, other: Node) -> None:
        """Let something be expected both ways from now on, so that neither falls silent."""
        one.endpoint.expect(other.id, waiting=True, ticks=self.ticks)
        other.endpoint.expect(one.id, waiting=True, ticks=self.ticks)

    def tell(self, source: Node, destination: Node, *payloads: bytes) -> None:
        self.send(source, destination, *(Tell("agent", "Message", payload, 0, 0) for payload in payloads))

    def send(self, source: Node, destination: Node, *entries: Entry) -> None:
        source.endpoint.send(destination.id, entries, self.now + source.clock_ahead, self.ticks)
        self.run()

    def deliver(self, packet: Packet) -> None:
        """Give a packet to its destination, whatever the adversary would do."""
        node = self.nodes.get(packet.destination)
        if node is not None:
            node.endpoint.receive(packet.data, packet.path, self.now + node.clock_ahead, self.ticks)

    def run(self) -> None:
        """Carry packets until there are none."""
        moving = True
        while moving:
            moving = False
            for node in list(self.nodes.values()):
                for event in node.endpoint.take():
                    if not isinstance(event, Transmit):
                        node.events.append(event)
                        continue
                    moving = True
                    self._carry(node, event)

    def _carry(self, node: Node, event: Transmit) -> None:
        destination = event.peer if event.path is None else event.path[1]
        packet = Packet(node.id, destination, event.packet, ("relay", node.id))
        self.log.append(packet)
        for carried in self.adversary(packet):
            self.deliver(carried)

    def advance(self, seconds: float) -> None:
        """Let time pass, with every timer at its time."""
        end = self.ticks + seconds
        while True:
            deadline = min(node.endpoint.next_deadline() for node in self.nodes.values())
            self._move_to(min(max(deadline, self.ticks), end))
            for node in self.nodes.values():
                node.endpoint.handle_timer(self.now + node.clock_ahead, self.ticks)
            self.run()
            if self.ticks >= end and all(node.endpoint.next_deadline() > end for node in self.nodes.values()):
                return

    def _move_to(self, ticks: float) -> None:
        self.now += ticks - self.ticks
        self.ticks = ticks

    def capture(self, act: Callable[[], object]) -> list[Packet]:
        """Return the packets that an action would send, and let none of them through."""
        before, self.adversary = self.adversary, lambda packet: []
        start = len(self.log)
        act()
        self.run()
        self.adversary = before
        return self.log[start:]

    def pair(self) -> tuple[Node, Node]:
        """Return two nodes with a session that the first began, both sides settled."""
        alice, bob = self.add("alice"), self.add("bob")
        self.connect(alice, bob)
        self.tell(alice, bob, b"hello")
        self.tell(bob, alice, b"hello")
        alice.events.clear()
        bob.events.clear()
        self.log.clear()
        return alice, bob


@pytest.fixture
def world() -> World:
    return World()
