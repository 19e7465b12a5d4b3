"""A network in memory, in virtual time: relays, the links to them, and everything that travels."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from attrs import field, frozen

from autonomy_trio import Context, Mailbox, Node, Request, agent, on, open_node
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.testing import TestFabric, open_test_fabric
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.wire.credit import message_cost
from autonomy_trio.wire.entries import Entry, Message
from autonomy_trio.wire.frames import Deliver, Send, decode_frame, join_frames, split_frames
from autonomy_trio.wire.introductions import NOBODY, Speaker

Lose = Callable[[Callable[[Entry], bool]], None]
"""Chooses which entries are lost on the way."""


@attrs.define(eq=False)
class TappedLink:
    """A node's end of a link, which keeps what it receives and can be made to lose or delay what it sends."""

    link: Link
    net: "Net"
    remote: str = "memory"

    async def send(self, message: bytes) -> None:
        self.net.sent.append(message)
        frames = [frame for frame in split_frames(message) if not self.net.loses(decode_frame(frame))]
        if frames:
            await self.link.send(join_frames(frames))

    async def receive(self) -> bytes:
        message = await self.link.receive()
        self.net.received.append(message)
        return message

    async def aclose(self) -> None:
        await self.link.aclose()


@attrs.define(eq=False)
class Net:
    """A test fabric, and everything that travels in it."""

    fabric: TestFabric
    url: str = "ws://memory:1"
    """What this net's relay is called; any other name leads to it too."""
    sent: list[bytes] = attrs.field(factory=list[bytes])
    received: list[bytes] = attrs.field(factory=list[bytes])
    loses: Callable[[Any], bool] = lambda _: False

    @property
    def relay(self) -> Relay | None:
        return self.fabric._relay

    def start_relay(self) -> None:
        self.fabric.start_relay()

    def kill_relay(self) -> None:
        self.fabric.stop_relay()

    async def connect(self, url: str, nursery: trio.Nursery) -> Link:
        return TappedLink(await self.fabric.connect(self.fabric.url, nursery), self)

    @asynccontextmanager
    async def node(self, agents: Iterable[Callable[[], object]] = (), **given: object) -> AsyncGenerator[Node]:
        options: dict[str, Any] = {"relay": self.url, "now": virtual_now, "connect": self.connect, **given}
        async with open_node(agents, **options) as node:
            yield node

    def packets(self, kind: int) -> int:
        """How many packets of a kind were sent into the network."""
        sends = [frame for message in self.sent for frame in map(decode_frame, split_frames(message))]
        return sum(frame.packet[1] == kind for frame in sends if isinstance(frame, Send))

    def delivered(self) -> list[bytes]:
        """Every packet that reached a node."""
        frames = [frame for message in self.received for frame in map(decode_frame, split_frames(message))]
        return [frame.packet for frame in frames if isinstance(frame, Deliver)]


def say(node: Node, to: Node, *entries: Entry, speakers: Mapping[int, Speaker] = NOBODY) -> None:
    """Have a node send what no ref would, numbered as its messages are, whether there is credit or not."""
    identifier, now = to._vault.identifier, trio.current_time()
    sessions = node._peers.sessions
    peer = sessions.peer(identifier)
    for entry in entries:
        if isinstance(entry, Message):
            peer.outflows._reserve(peer.outflows._flow(entry.recipient), message_cost(entry))
    sessions.endpoint.send(identifier, [peer.leave(entry, now) for entry in entries], virtual_now(), now, speakers)
    sessions._carry_out()


@asynccontextmanager
async def open_net(url: str = "ws://memory:1") -> AsyncGenerator[Net]:
    async with open_test_fabric() as fabric:
        yield Net(fabric, url)


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class Reset:
    pass


@frozen
class Secret(Request[int]):
    pass


@frozen
class Hold(Request[float]):
    seconds: float


@frozen
class Fail(Request[None]):
    text: str


@frozen
class Note:
    text: str


@frozen
class Notes(Request[list[str]]):
    pass


@agent(mailbox=Mailbox(8))
class Counter:
    total: int = 0
    cancelled: int = 0
    notes: list[str] = field(factory=list[str])

    @on(Add, allow='principal.team == "payments" && context.message.amount <= 100')
    async def add(self, message: Add, context: Context) -> Total:
        self.total += message.amount
        assert not context.sender.is_local
        assert context.sender.attributes == {"team": "payments"}
        return Total(self.total)

    @on(Secret)
    async def secret(self, message: Secret) -> int:
        return 42

    @on(Hold, allow='principal.team == "payments"')
    async def hold(self, message: Hold, context: Context) -> float:
        remaining = context.deadline - trio.current_time()
        try:
            await trio.sleep(message.seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return remaining

    @on(Fail, allow='principal.team == "payments"')
    async def fail(self, message: Fail) -> None:
        raise ValueError(message.text)

    @on(Note, allow='principal.team == "payments"')
    def note(self, message: Note) -> None:
        self.notes.append(message.text)

    @on(Notes, allow='principal.team == "payments"')
    def read(self, message: Notes) -> list[str]:
        return list(self.notes)


@attrs.frozen
class World:
    """A counter on one node, and two nodes that may ask it: alice is in the payments team, bob is not."""

    net: Net
    server: Node
    alice: Node
    bob: Node

    @property
    def address(self) -> str:
        return self.server.address("counter")


@asynccontextmanager
async def open_world() -> AsyncGenerator[World]:
    async with open_net() as net, net.node([Counter]) as server, net.node() as alice, net.node() as bob:
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        yield World(net, server, alice, bob)
