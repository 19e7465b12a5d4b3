"""What one would write on trio alone: TCP through a forwarding process, signed and encrypted in batches."""

import collections
import itertools
import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec
import nacl.utils
import trio

from autonomy_trio.trust.records import SigningKey, digest, verify
from autonomy_trio.wire.noise import decrypt, encrypt
from benchmarks import forwarder
from benchmarks.linked import SIZE
from benchmarks.measure import check, cpu_time
from benchmarks.processes import Running

BATCH_BYTES: Final = 64 * 1024
WAITING: Final = 1024
"""Messages in a channel, as many as wait for another node in ours."""
NEAR: Final = 1
FAR: Final = 2


class Chunk(msgspec.Struct):
    """What is told."""

    recipient: str
    data: bytes


class Crypto:
    """A key for both directions, and a signature in each envelope, as in ours."""

    def __init__(self) -> None:
        self._signer, self._key = SigningKey(nacl.utils.random(32)), nacl.utils.random(32)
        self._counters = itertools.count()

    def seal(self, body: bytes) -> bytes:
        """Sign and encrypt."""
        counter = next(self._counters)
        signature = self._signer.sign("env", digest("h-body", body))
        return counter.to_bytes(8, "big") + encrypt(self._key, counter, b"", signature + body)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt and verify."""
        opened = decrypt(self._key, int.from_bytes(sealed[:8], "big"), b"", sealed[8:])
        assert opened is not None  # noqa: S101 - nobody is between
        check("a signature", verify(self._signer.public, "env", digest("h-body", opened[64:]), opened[:64]), 1)
        return opened[64:]


@asynccontextmanager
async def both(port: int) -> AsyncGenerator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Connect two ends to the forwarder."""
    async with await forwarder.connect(port, NEAR) as near, await forwarder.connect(port, FAR) as far:
        yield near, far


async def one_way(port: int, messages: int) -> float:
    """Send so many one by one, from a task to another task; return how many arrive in a second of CPU.

    What waits in the channel of who writes leaves together, and each that arrives goes to the channel of its recipient.
    """
    crypto, arrived = Crypto(), trio.Event()
    to_write, written = trio.open_memory_channel[Chunk](WAITING)
    to_sink, in_sink = trio.open_memory_channel[Chunk](WAITING)
    received = 0

    async def sink() -> None:
        nonlocal received
        while received < messages:
            received += len((await in_sink.receive()).data) == SIZE
            with suppress(trio.WouldBlock):
                while True:
                    received += len(in_sink.receive_nowait().data) == SIZE
        arrived.set()

    async with both(port) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(write, near, crypto, written)
        nursery.start_soon(read, far, crypto, {"sink": to_sink})
        nursery.start_soon(sink)
        with cpu_time() as spent:
            for _ in range(messages):
                await put(to_write, Chunk("sink", bytes(SIZE)))
            await arrived.wait()
        nursery.cancel_scope.cancel()
    check("raw chunks", received, messages)
    return messages / spent.seconds


async def write(near: trio.SocketStream, crypto: Crypto, written: trio.MemoryReceiveChannel[Chunk]) -> None:
    """Send what waits in a channel, as much as fits in one envelope."""
    encoder, in_batch = msgspec.msgpack.Encoder(), BATCH_BYTES // SIZE
    async for first in written:
        batch = [first]
        with suppress(trio.WouldBlock):
            while len(batch) < in_batch:
                batch.append(written.receive_nowait())
        await near.send_all(forwarder.frame(FAR, crypto.seal(encoder.encode(batch))))


async def read(far: trio.SocketStream, crypto: Crypto, recipients: dict[str, trio.MemorySendChannel[Chunk]]) -> None:
    """Hand what arrives to its recipients."""
    frames, decoder = forwarder.Frames(far), msgspec.msgpack.Decoder(list[Chunk])
    while (found := await frames.next()) is not None:
        for chunk in decoder.decode(crypto.open(found[1])):
            await put(recipients[chunk.recipient], chunk)


async def put(channel: trio.MemorySendChannel[Chunk], chunk: Chunk) -> None:
    """Send into a channel, and let others run where it is full: a checkpoint for each message would cost it all."""
    try:
        channel.send_nowait(chunk)
    except trio.WouldBlock:
        await channel.send(chunk)


async def in_bulk(port: int, messages: int) -> float:
    """Send so many in batches made by hand, with no task or channel a message; return how many arrive as above."""
    crypto, encoder, decoder = Crypto(), msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(list[Chunk])
    in_batch = BATCH_BYTES // SIZE
    received = 0
    async with both(port) as (near, far), trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, messages, in_batch):
                batch = [Chunk("sink", bytes(SIZE)) for _ in range(min(in_batch, messages - start))]
                await near.send_all(forwarder.frame(FAR, crypto.seal(encoder.encode(batch))))

        with cpu_time() as spent:
            nursery.start_soon(send)
            frames = forwarder.Frames(far)
            while received < messages and (found := await frames.next()) is not None:
                received += sum(len(chunk.data) == SIZE for chunk in decoder.decode(crypto.open(found[1])))
    check("raw chunks", received, messages)
    return messages / spent.seconds


async def median_echo(port: int, requests: int, *, sealed: bool = False) -> float:
    """Send a message and wait for it to come back, one at a time; return how many of the median one a second has.

    Args:
        port: the forwarder's.
        requests: how many.
        sealed: whether each is signed and encrypted, both ways; else it is plain.
    """
    crypto = Crypto()
    close, open_ = (crypto.seal, crypto.open) if sealed else (bytes, bytes)
    taken: collections.deque[float] = collections.deque()
    async with both(port) as (near, far), trio.open_nursery() as nursery:

        async def echo() -> None:
            frames = forwarder.Frames(far)
            while (found := await frames.next()) is not None:
                await far.send_all(forwarder.frame(NEAR, close(open_(found[1]))))

        nursery.start_soon(echo)
        answers = forwarder.Frames(near)
        for _ in range(requests):
            start = time.perf_counter()
            await near.send_all(forwarder.frame(FAR, close(bytes(SIZE))))
            answer = await answers.next()
            opened = b"" if answer is None else open_(answer[1])
            taken.append(time.perf_counter() - start)
            check("bytes of an answer", len(opened), SIZE)
        nursery.cancel_scope.cancel()
    return 1 / statistics.median(taken)


async def frames(port: int, process: Running, count: int) -> float:
    """Send so many frames of 16 KiB; return how many a second of the forwarder's CPU has."""
    size = 16 * 1024
    received = 0
    async with both(port) as (near, far), trio.open_nursery() as nursery:
        spent = process.cpu_seconds()

        async def send() -> None:
            for _ in range(count):
                await near.send_all(forwarder.frame(FAR, bytes(size)))

        nursery.start_soon(send)
        arrived = forwarder.Frames(far)
        while received < count and (found := await arrived.next()) is not None:
            received += len(found[1]) == size
        spent = process.cpu_seconds() - spent
    check("raw frames", received, count)
    return count / spent
