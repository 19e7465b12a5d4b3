"""Plain TCP, where strangers write their bytes by hand."""

import socket
import struct
import tracemalloc
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from autonomy_trio import Node, open_node
from autonomy_trio.errors import ConfigurationError, LinkBroken, LinkError, RelayUnreachable
from autonomy_trio.fabric.links import tcp
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.link import MOST_MESSAGE, Link
from autonomy_trio.fabric.links.tcp import TcpLink, connect, listen
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import Deliver
from tests.support.neighbours import NOW, Neighbour, eventually
from tests.support.processes import free_port

pytestmark = pytest.mark.usefixtures("calm")


@attrs.define(eq=False)
class Server:
    """A relay behind a real socket."""

    relay: Relay
    address: ListenAddress

    async def dial(self) -> trio.SocketStream:
        """Return a connection that has had its HELLO."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.address.port)
        assert await stream.receive_some()
        return stream

    async def check_goes_on(self, nursery: trio.Nursery) -> None:
        """Let two nodes meet here."""
        with trio.fail_after(10):
            neighbours: list[Neighbour] = []
            for _ in range(2):
                neighbours.append(Neighbour(await connect(self.address.url, nursery), Vault.in_memory()))
                await neighbours[-1].register()
            a, b = neighbours
            await a.send(b.id, b"packet")
            assert await b.hear() == Deliver(a.id, b"packet")
            await a.link.aclose()
            await b.link.aclose()

    async def wait_alone(self) -> None:
        await eventually(lambda: self.relay.statistics().connections == 0, 10)


@pytest.fixture
async def server(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(tcp, "CLOSE_LIMIT", 0.1)  # strangers do not close
    listener = await listen(ListenAddress("127.0.0.1", 0, "tcp"))
    server = Server(Relay(Vault.in_memory(), now=lambda: NOW), listener.address)
    nursery.start_soon(server.relay.serve, listener)
    return server


@pytest.mark.parametrize("length", [0, MOST_MESSAGE + 1, 100 * 1024 * 1024, 2**32 - 1])
async def test_a_length_that_no_message_has_ends_the_link_before_any_of_it_is_read(
    server: Server, nursery: trio.Nursery, length: int
) -> None:
    stream = await server.dial()
    await stream.send_all(length.to_bytes(4, "big"))
    with trio.fail_after(10):
        assert await stream.receive_some() == b""
    await stream.aclose()
    await server.wait_alone()
    await server.check_goes_on(nursery)


async def fill(stream: trio.SocketStream) -> None:
    """Send the head of the largest message, and zeros for ever: that message, and then many that are empty."""
    await stream.send_all(MOST_MESSAGE.to_bytes(4, "big"))
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(bytes(64 * 1024))


async def test_what_is_held_of_a_stranger_is_bounded(server: Server) -> None:
    stream = await server.dial()
    tracemalloc.start()
    try:
        with trio.move_on_after(2):
            await fill(stream)
        assert tracemalloc.get_traced_memory()[1] < 8 * MOST_MESSAGE
    finally:
        tracemalloc.stop()
    await trio.aclose_forcefully(stream)
    await server.wait_alone()


@pytest.mark.parametrize("said", [b"", b"\x00\x00", b"\x00\x00\x00\x05half", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_stranger_that_leaves_or_speaks_something_else_is_let_go(
    server: Server, nursery: trio.Nursery, said: bytes
) -> None:
    stream = await server.dial()
    if said:
        await stream.send_all(said)
    await stream.aclose()
    await server.wait_alone()
    await server.check_goes_on(nursery)


async def test_a_stranger_that_says_nothing_is_dropped(server: Server, nursery: trio.Nursery) -> None:
    stream = await server.dial()
    with trio.fail_after(60):
        assert await stream.receive_some() == b""
    await stream.aclose()
    await server.wait_alone()
    await server.check_goes_on(nursery)


async def test_a_reset_connection_is_let_go(server: Server, nursery: trio.Nursery) -> None:
    stream = await server.dial()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    await trio.aclose_forcefully(stream)
    await server.wait_alone()
    await server.check_goes_on(nursery)


async def test_a_handler_that_fails_ends_its_connection_and_no_other(
    nursery: trio.Nursery, log: list[MutableMapping[str, Any]]
) -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0, "tcp"))
    served = 0

    async def serve(link: Link) -> None:
        nonlocal served
        served += 1
        if served == 1:
            raise LinkBroken("as the relay never lets out")
        await link.send(await link.receive())

    nursery.start_soon(listener.serve, serve)
    with trio.fail_after(10):
        first = await connect(listener.address.url, nursery)
        with pytest.raises(LinkBroken, match="closed the connection"):
            await first.receive()
        second = await connect(listener.address.url, nursery)
        await second.send(b"echo")
        assert await second.receive() == b"echo"
        for link in (first, second):
            await link.aclose()
    assert log.pop(0)["event"] == "connection failed"


async def test_nothing_that_answers_is_unreachable(nursery: trio.Nursery) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(RelayUnreachable, match=rf"{url} cannot be reached \(connection refused\): is a relay running"):
        await connect(url, nursery)


async def test_a_name_that_nothing_has_is_unreachable(nursery: trio.Nursery) -> None:
    with pytest.raises(RelayUnreachable, match="nothing has that name"):
        await connect("tcp://nowhere.invalid:1", nursery)


async def test_one_that_does_not_answer_is_given_up(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def open_tcp_stream(*_: object) -> TcpLink:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    with pytest.raises(RelayUnreachable, match=r"tcp://far:1 did not answer in 5 s"):
        await connect("tcp://far:1", nursery)


async def test_an_address_in_use_says_so() -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0, "tcp"))
    with pytest.raises(ConfigurationError, match=r"cannot listen on 127.*in use.*--listen"):
        await listen(listener.address)
    for each in listener._listeners:
        await each.aclose()


async def test_a_websocket_at_tcp_and_tcp_at_a_websocket_are_told_apart(nursery: trio.Nursery, server: Server) -> None:
    with pytest.raises(LinkError):
        async with open_node(relay=f"ws://{server.address}"):
            pass
    async with open_node(listen="127.0.0.1:0") as there:
        with pytest.raises(LinkError):
            async with open_node(relay=there.relays[0].replace("ws:", "tcp:")):
                pass


async def test_a_relay_that_sends_nonsense_is_told(nursery: trio.Nursery) -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0, "tcp"))

    async def serve(link: Link) -> None:
        assert isinstance(link, TcpLink)
        await link._stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await trio.sleep_forever()

    nursery.start_soon(listener.serve, serve)
    with pytest.raises(Exception, match=r"1213486160 bytes: is it a relay or node, and at tcp://\?"):
        async with open_node(relay=listener.address.url):
            pass
    nursery.cancel_scope.cancel()


async def test_a_node_over_tcp_is_found_at_the_address_it_prints() -> None:
    async with open_node(listen="tcp://127.0.0.1:0") as node:
        assert node.relays[0].startswith("tcp://127.0.0.1:")
        assert node.address("counter") == f"{node.relays[0]}/{node.identifier}/counter"
        async with open_node() as other:
            assert isinstance(other, Node)
            assert other.ref(node.address("counter")).address == node.address("counter")
