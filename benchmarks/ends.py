"""What stands around a portal, each ``python -m benchmarks.ends …`` a process that prints where it is reached."""

import socket
import sys
import threading
from typing import Final

import click
import trio

from autonomy_trio import open_node

RECEIVE_BYTES: Final = 64 * 1024
LOCAL: Final = "127.0.0.1"


@click.group()
def main() -> None:
    """Run one of them until the process is ended."""


@main.command("outlet")
@click.argument("relay")
@click.argument("port", type=int)
def run_outlet(relay: str, port: int) -> None:
    """Let whoever is at a relay reach a port."""

    async def serve() -> None:
        async with (
            open_node(relay=relay) as node,
            node.outlet("target", f"{LOCAL}:{port}", allow="true") as outlet,
        ):
            click.echo(outlet.address)
            await trio.sleep_forever()

    trio.run(serve)


@main.command("inlet")
@click.argument("relay")
@click.argument("address")
def run_inlet(relay: str, address: str) -> None:
    """Lead to an outlet, and print the port."""

    async def serve() -> None:
        async with open_node(relay=relay) as node, node.inlet(f"{LOCAL}:0", address) as inlet:
            click.echo(inlet.address.rpartition(":")[2])
            await trio.sleep_forever()

    trio.run(serve)


@main.command("proxy")
@click.argument("port", type=int)
def run_proxy(port: int) -> None:
    """Lead to a port, as a program on trio does that adds nothing, and print the own port."""

    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        while data := await source.receive_some(RECEIVE_BYTES):
            await sink.send_all(data)
        await sink.send_eof()

    async def join(client: trio.SocketStream) -> None:
        try:
            async with client, await trio.open_tcp_stream(LOCAL, port) as server, trio.open_nursery() as nursery:
                nursery.start_soon(copy, client, server)
                await copy(server, client)
        except* (OSError, trio.BrokenResourceError):
            pass  # one of the two has gone

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, join, 0)
            click.echo(listeners[0].socket.getsockname()[1])

    trio.run(serve)


@main.command("sink")
def run_sink() -> None:
    """Take what is uploaded, and answer at its end with how many bytes that were."""
    with socket.create_server((LOCAL, 0)) as listener:
        click.echo(listener.getsockname()[1])
        sys.stdout.flush()
        while True:
            threading.Thread(target=_take, args=(listener.accept()[0],), daemon=True).start()


def _take(connection: socket.socket) -> None:
    buffer, taken = bytearray(1024 * 1024), 0
    with connection:
        while got := connection.recv_into(buffer):
            taken += got
        connection.sendall(taken.to_bytes(8, "big"))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.ends")
