"""What outlets lead to in tests, and what goes through portals."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from autonomy_trio import Node


@attrs.define
class Target:
    """A server on a real socket, which counts its connections and does with each what it is told."""

    port: int
    connections: int = 0
    received: bytearray = attrs.field(factory=bytearray)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def echo_server() -> AsyncGenerator[Target]:
    """A server that sends back all it gets, and ends when its client has."""

    async def echo(stream: trio.SocketStream) -> None:
        target.connections += 1
        async with stream:
            try:
                async for data in stream:
                    target.received += data
                    await stream.send_all(data)
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        target = Target(listeners[0].socket.getsockname()[1])
        yield target
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = bytearray()
    async for data in stream:
        received += data
    return bytes(received)


async def exchange(node: Node, address: str, data: bytes) -> bytes:
    async with node.connect(address) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        received = bytearray(await read_all(stream))
    return bytes(received)


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Return when something is so, which it soon is; fail the test where it never is."""
    with trio.fail_after(seconds):
        while True:
            if condition():
                return
            await trio.lowlevel.checkpoint()
