"""A websocket proxy between nodes and their relay, which keeps everything, as whoever runs the relay could."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from autonomy_trio.errors import LinkBroken
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.links.websocket import connect, listen
from autonomy_trio.wire.frames import (
    Deliver,
    Register,
    Send,
    decode_frame,
    encode_frame,
    join_frames,
    split_frames,
)


@attrs.define(eq=False)
class Conversation:
    """One node's link, and the link to the relay on its behalf."""

    node: Link
    relay: Link
    to_relay: list[bytes] = attrs.field(factory=list)
    to_node: list[bytes] = attrs.field(factory=list)
    ended: bool = False
    _sending: trio.Lock = attrs.field(factory=trio.Lock)

    def is_of(self, identifier: bytes) -> bool:
        """Tell whether it is that node's: the first message proves who it is, and a second one welcomes it."""
        if self.ended or not self.to_relay or len(self.to_node) < 2:
            return False
        return isinstance(decode_frame(split_frames(self.to_relay[0])[0]), Register) and identifier in self.to_relay[0]

    def deliveries(self) -> list[bytes]:
        """Every packet that came to the node, as a message that delivers it once more."""
        frames = [decode_frame(frame) for message in self.to_node for frame in split_frames(message)]
        return [join_frames([encode_frame(frame)]) for frame in frames if isinstance(frame, Deliver)]

    async def carry_up(self) -> None:
        while True:
            message = await self.node.receive()
            self.to_relay.append(message)
            await self.relay.send(message)

    async def carry_down(self) -> None:
        while True:
            message = await self.relay.receive()
            self.to_node.append(message)
            await self.inject(message)

    async def inject(self, message: bytes) -> None:
        """Send the node a message, as if it came from its relay."""
        async with self._sending:
            await self.node.send(message)


@attrs.define(eq=False)
class Recorder:
    """The proxy, and all it has heard."""

    url: str
    relay: str
    conversations: list[Conversation] = attrs.field(factory=list)

    @property
    def messages(self) -> list[bytes]:
        """Every message of every link, both ways."""
        return [message for each in self.conversations for message in (*each.to_relay, *each.to_node)]

    def sent(self, kind: int) -> int:
        """How many packets of a kind were sent by nodes."""
        frames = [
            decode_frame(frame)
            for each in self.conversations
            for message in each.to_relay
            for frame in split_frames(message)
        ]
        return sum(isinstance(frame, Send) and frame.packet[1] == kind for frame in frames)

    def find(self, identifier: bytes) -> Conversation | None:
        """The conversation of a node that is registered now, if it is."""
        return next((each for each in self.conversations if each.is_of(identifier)), None)

    def of(self, identifier: bytes) -> Conversation:
        """The conversation of a node that is registered now."""
        found = self.find(identifier)
        assert found is not None
        return found

    async def serve_link(self, link: Link) -> None:
        async with trio.open_nursery() as nursery:
            onward = await connect(self.relay, nursery)
            conversation = Conversation(link, onward)
            self.conversations.append(conversation)

            async def carry(direction: str) -> None:
                with suppress(LinkBroken):
                    await (conversation.carry_up() if direction == "up" else conversation.carry_down())
                nursery.cancel_scope.cancel()

            try:
                async with trio.open_nursery() as carriers:
                    carriers.start_soon(carry, "up")
                    carriers.start_soon(carry, "down")
            finally:
                conversation.ended = True
                await onward.aclose()


@asynccontextmanager
async def recording(relay: str) -> AsyncGenerator[Recorder]:
    """Record what passes between nodes that use `Recorder.url` and a relay."""
    listener = await listen(ListenAddress("127.0.0.1", 0))
    recorder = Recorder(listener.address.url, relay)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, recorder.serve_link)
        yield recorder
        nursery.cancel_scope.cancel()
