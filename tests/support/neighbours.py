"""A relay's neighbours in memory, which speak its frames by hand."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.links.memory import open_memory_links
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import (
    Frame,
    Send,
    decode_frame,
    encode_frame,
    join_frames,
    split_frames,
)
from autonomy_trio.wire.mailbox import Connection, make_ack, make_fetch
from autonomy_trio.wire.registration import (
    make_register,
    verify_hello,
    verify_welcome,
)

NOW: Final = 1_800_000_000.0
NONCE: Final = bytes(range(32))


async def eventually(holds: Callable[[], bool], seconds: float = 1) -> None:
    """Return when something holds that nobody tells about."""
    with trio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 - it is the promise of no one part, so that none has an event for it
            await trio.sleep(0.001)


@attrs.define(eq=False)
class Neighbour:
    """What is registered with a relay, and says and hears what a test wants."""

    link: Link
    vault: Vault
    _heard: deque[Frame] = attrs.field(factory=deque)
    connection: Connection | None = None
    _sequence: int = -1

    @property
    def id(self) -> bytes:
        return self.vault.identifier

    async def register(self, presentations: Sequence[bytes] = (), *, now: float = NOW) -> None:
        hello = (await self.link.receive())[4:]
        greeting, relay = verify_hello(hello, now)
        self.connection = Connection(greeting.nonce, NONCE)
        register = make_register(self.vault, hello, presentations, NONCE, now)
        await self.link.send(join_frames([register]))
        verify_welcome((await self.link.receive())[4:], hello, register, relay)

    async def say(self, *frames: Frame) -> None:
        await self.link.send(join_frames(map(encode_frame, frames)))

    async def send(self, destination: bytes, *packets: bytes) -> None:
        await self.say(*(Send(destination, 0, 30, packet) for packet in packets))

    async def fetch(self, unacknowledged: int = 256) -> None:
        await self.link.send(join_frames([make_fetch(self.vault, *self._next(), unacknowledged)]))

    async def acknowledge(self, *ids: bytes) -> None:
        await self.link.send(join_frames([make_ack(self.vault, *self._next(), ids)]))

    def _next(self) -> tuple[Connection, int]:
        assert self.connection is not None
        self._sequence += 1
        return self.connection, self._sequence

    async def hear(self) -> Frame:
        while not self._heard:
            self._heard.extend(map(decode_frame, split_frames(await self.link.receive())))
        return self._heard.popleft()


@attrs.define(eq=False)
class Neighbourhood:
    """A relay and what is linked with it in memory."""

    relay: Relay
    nursery: trio.Nursery

    def link(self, address: str = "10.0.0.1") -> Link:
        """Connect; whoever serves the other end has closed it when it is done."""
        mine, theirs = open_memory_links()
        theirs = attrs.evolve(theirs, remote=address)

        async def serve() -> None:
            try:
                await self.relay.serve_link(theirs)
            finally:
                await theirs.aclose()

        self.nursery.start_soon(serve)
        return mine

    async def neighbour(self, vault: Vault | None = None) -> Neighbour:
        neighbour = Neighbour(self.link(), vault or Vault.in_memory())
        await neighbour.register()
        return neighbour
