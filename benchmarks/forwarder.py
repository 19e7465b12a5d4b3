"""A raw process between two ends: ``python -m benchmarks.forwarder`` prints its port and forwards frames over TCP.

A frame is `length u32 | destination u8 | bytes`; the first one of a connection, empty, says who it is and comes back.
"""

import struct
from contextlib import suppress
from typing import Final

import click
import trio

HEADER: Final = struct.Struct("!IB")
RECEIVE_BYTES: Final = 64 * 1024


def frame(destination: int, body: bytes) -> bytes:
    """Return a frame, ready to be sent."""
    return HEADER.pack(len(body), destination) + body


class Frames:
    """The frames that a stream has."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._start = 0

    async def next(self) -> tuple[int, bytes] | None:
        """Return the next one, whom it names and what is in it; None at the end."""
        buffer = self._buffer
        while True:
            body = self._start + HEADER.size
            if len(buffer) >= body:
                length, name = HEADER.unpack_from(buffer, self._start)
                if len(buffer) >= body + length:
                    self._start = body + length
                    return name, bytes(memoryview(buffer)[body : body + length])
            del buffer[: self._start]
            self._start = 0
            received = await self._stream.receive_some(RECEIVE_BYTES)
            if not received:
                return None
            buffer += received


async def connect(port: int, own: int) -> trio.SocketStream:
    """Open a connection to the forwarder, and be known there."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(frame(own, b""))
    await stream.receive_some(HEADER.size)
    return stream


async def main() -> None:
    """Forward until the process is ended."""
    known: dict[int, trio.SocketStream] = {}
    locks: dict[int, trio.Lock] = {}

    async def serve(stream: trio.SocketStream) -> None:
        own: int | None = None
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # an end that has what it wants leaves
            frames = Frames(stream)
            while (found := await frames.next()) is not None:
                name, body = found
                if own is None:
                    own = name
                    known[own], locks[own] = stream, trio.Lock()
                    await stream.send_all(frame(own, b""))
                else:
                    async with locks[name]:
                        await known[name].send_all(frame(own, body))

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    click.echo(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(serve, listeners)


if __name__ == "__main__":
    trio.run(main)
