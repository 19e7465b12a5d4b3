"""Neighbours of a relay that speak its frames by hand: what the relay costs, without the nodes."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio
from attrs import frozen

from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.links.websocket import connect
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import Deliver, Send, decode_frame, encode_frame, join_frames, split_frames
from autonomy_trio.wire.registration import make_register, verify_hello, verify_welcome
from benchmarks.measure import check
from benchmarks.processes import Running

FRAME: Final = 16 * 1024
"""Bytes of a packet."""

JOINED: Final = 4
"""Packets in a message: what a node joins of this size."""

AT_ONCE: Final = 128
"""Packets under way: fewer than fill the relay's outbox, which would refuse more."""

UNDELIVERED: Final = 10_000
"""Packets that a slow reader leaves at its relay, of 1 KiB each."""


@frozen
class Neighbour:
    """What is registered with a relay."""

    identifier: bytes
    link: Link

    async def send(self, destination: bytes, packets: int, size: int) -> None:
        """Send packets, four in a message, as a node joins those that wait."""
        frame = encode_frame(Send(destination, 0, 30, bytes(size)))
        for start in range(0, packets, JOINED):
            await self.link.send(join_frames([frame] * min(JOINED, packets - start)))


@asynccontextmanager
async def register(url: str) -> AsyncGenerator[Neighbour]:
    """Be registered for the length of a block."""
    async with trio.open_nursery() as nursery:
        link = await connect(url, nursery)
        try:
            yield Neighbour(await _prove(link), link)
        finally:
            await link.aclose()
            nursery.cancel_scope.cancel()


async def _prove(link: Link) -> bytes:
    """Register, and return the identifier."""
    vault, now = Vault.in_memory(), time.time()
    [hello] = split_frames(await link.receive())
    _, relay = verify_hello(hello, now)
    answer = make_register(vault, hello, (), secrets.token_bytes(32), now)
    await link.send(join_frames([answer]))
    [welcome] = split_frames(await link.receive())
    verify_welcome(welcome, hello, answer, relay)
    return vault.identifier


async def frames(url: str, relay: Running, count: int) -> float:
    """Send so many packets of 16 KiB from one neighbour to another; return how many a second of the relay's CPU has."""
    async with register(url) as near, register(url) as far, trio.open_nursery() as nursery:
        spent = relay.cpu_seconds()
        received = 0
        for start in range(0, count, AT_ONCE):
            some = min(AT_ONCE, count - start)
            nursery.start_soon(near.send, far.identifier, some, FRAME)
            while received < start + some:
                for encoded in split_frames(await far.link.receive()):
                    match decode_frame(encoded):
                        case Deliver(packet=packet):
                            received += len(packet) == FRAME
                        case _:
                            pass
        spent = relay.cpu_seconds() - spent
    check("frames over the relay", received, count)
    return count / spent


async def idle(url: str, relay: Running, count: int) -> float:
    """Register so many neighbours that say nothing more; return the bytes the relay has grown by for each."""
    async with AsyncExitStack() as neighbours:
        await neighbours.enter_async_context(register(url))  # what the relay makes once is made
        before = relay.resident()
        for _ in range(count):
            await neighbours.enter_async_context(register(url))
        return (relay.resident() - before) / count


async def unread(url: str, relay: Running) -> float:
    """Send much to a neighbour that reads nothing; return the bytes the relay has grown by."""
    async with register(url) as near, register(url) as far:
        before = relay.resident()
        with trio.move_on_after(5):
            await near.send(far.identifier, UNDELIVERED, 1024)
        await trio.sleep(0.5)
        return relay.resident() - before
