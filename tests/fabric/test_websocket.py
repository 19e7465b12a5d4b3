"""Websockets between real sockets; the strangers write their bytes by hand."""

import re
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing
from wsproto.utilities import LocalProtocolError, generate_accept_token

from autonomy_trio.errors import ConfigurationError, LinkBroken, RelayUnreachable
from autonomy_trio.fabric.links import rfc6455, websocket
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.link import MOST_MESSAGE, Link
from autonomy_trio.fabric.links.websocket import WebSocketLink, connect, listen
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import Deliver
from tests.support.neighbours import NOW, Neighbour, eventually

pytestmark = pytest.mark.usefixtures("calm")

CERTIFICATE: Final = Path(__file__).with_name("localhost.pem")
"""A certificate of localhost that nobody trusts, and its key."""

CONTINUATION, TEXT, BINARY, CLOSE, WEB_PING = 0x0, 0x1, 0x2, 0x8, 0x9
UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n"
)


def head(opcode: int, size: int, *, fin: bool = True, mask: bool = True) -> bytes:
    """Return the head of a frame; its mask is of zeros, which leave the payload as it is."""
    first, bit = opcode | (0x80 if fin else 0), 0x80 if mask else 0
    if size < 126:
        length = struct.pack(">BB", first, bit | size)
    elif size < 65_536:
        length = struct.pack(">BBH", first, bit | 126, size)
    else:
        length = struct.pack(">BBQ", first, bit | 127, size)
    return length + bytes(4 if mask else 0)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True) -> bytes:
    return head(opcode, len(payload), fin=fin, mask=mask) + payload


@attrs.define(eq=False)
class Server:
    """A relay behind a real socket."""

    relay: Relay
    address: ListenAddress
    streams: list[trio.SocketStream] = attrs.field(factory=list)

    async def dial(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.address.port)
        self.streams.append(stream)
        return stream

    async def dial_websocket(self) -> trio.SocketStream:
        """Return a connection that is a websocket and has had its HELLO."""
        stream = await self.dial()
        await stream.send_all(UPGRADE + b"\r\n")
        received = b""
        while b"\r\n\r\n" not in received or received.endswith(b"\r\n\r\n"):
            received += await stream.receive_some()
        return stream

    async def neighbour(self, nursery: trio.Nursery) -> Neighbour:
        neighbour = Neighbour(await connect(self.address.url, nursery), Vault.in_memory())
        await neighbour.register()
        return neighbour

    async def check_goes_on(self) -> None:
        """Let two nodes meet here."""
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                a, b = await self.neighbour(nursery), await self.neighbour(nursery)
                await a.send(b.id, b"packet")
                assert await b.hear() == Deliver(a.id, b"packet")
                await a.link.aclose()
                await b.link.aclose()

    async def wait_alone(self) -> None:
        await eventually(lambda: self.relay.statistics().connections == 0)


@asynccontextmanager
async def open_server(nursery: trio.Nursery) -> AsyncGenerator[Server]:
    listener = await listen(ListenAddress("127.0.0.1", 0))
    server = Server(Relay(Vault.in_memory(), now=lambda: NOW), listener.address)
    nursery.start_soon(server.relay.serve, listener)
    try:
        yield server
    finally:
        for stream in server.streams:
            stream.socket.close()


@pytest.fixture
async def server(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Server]:
    # Strangers do not answer a close.
    monkeypatch.setattr(websocket, "CLOSE_LIMIT", 0.1)
    async with open_server(nursery) as server:
        yield server


OpenLink = Callable[[str], Awaitable[WebSocketLink]]


@pytest.fixture
async def open_link(nursery: trio.Nursery) -> AsyncGenerator[OpenLink]:
    links: list[WebSocketLink] = []

    async def open_and_close(url: str) -> WebSocketLink:
        links.append(await connect(url, nursery))
        return links[-1]

    yield open_and_close
    for link in links:
        await trio.aclose_forcefully(link._stream)


async def wait_end(stream: trio.SocketStream) -> None:
    """Return when the other end has closed or reset a connection."""
    with trio.fail_after(1):
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@asynccontextmanager
async def answering(answer: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    """Serve TCP connections by hand; what is yielded is the URL that leads there."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await answer(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def upgrade(stream: trio.SocketStream) -> None:
    """Answer a client's request as a websocket's server should."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += await stream.receive_some()
    (key,) = re.findall(rb"sec-websocket-key: *(.*?)\r\n", request, re.IGNORECASE)
    await stream.send_all(SWITCH % generate_accept_token(key))


async def test_messages_cross_whole_and_in_order(nursery: trio.Nursery, open_link: OpenLink) -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0))

    async def echo(link: Link) -> None:
        while True:
            await link.send(await link.receive())

    nursery.start_soon(listener.serve, lambda link: ended_by_peer(echo(link)))
    link = await open_link(listener.address.url)
    messages = [b"x", bytes(125), bytes(126), bytes(65_536), bytes(range(256)) * 1024]
    assert len(messages[-1]) == MOST_MESSAGE
    for message in messages:
        await link.send(message)
        assert await link.receive() == message
    await link.aclose()
    with pytest.raises(LinkBroken):
        await link.send(b"x")
    with pytest.raises(LinkBroken):
        await link.receive()


async def ended_by_peer(task: Awaitable[None]) -> None:
    with suppress(LinkBroken):
        await task


async def test_links_know_the_other_end_by_address(nursery: trio.Nursery, open_link: OpenLink) -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0))
    remotes: list[str] = []

    async def handler(link: Link) -> None:
        remotes.append(link.remote)

    nursery.start_soon(listener.serve, handler)
    link = await open_link(listener.address.url)
    with pytest.raises(LinkBroken):
        await link.receive()
    assert remotes == ["127.0.0.1"]
    assert link.remote == f"127.0.0.1:{listener.address.port}"


STRANGE_FRAMES: dict[str, list[bytes]] = {
    "a message of 100 MiB": [head(BINARY, 100 * 2**20), *[bytes(2**20)] * 100],
    "a message of 100 MiB in fragments": [
        frame(BINARY, fin=False),
        *[frame(CONTINUATION, bytes(2**20), fin=False)] * 100,
    ],
    "a million fragments without content": [frame(BINARY, fin=False), *[frame(CONTINUATION, fin=False) * 10_000] * 100],
    "text": [frame(TEXT, b"text")],
    "half a text": [frame(TEXT, b"te", fin=False)],
    "text that is not UTF-8": [frame(TEXT, b"\xff")],
    "a frame without a mask": [frame(BINARY, b"x", mask=False)],
    "an unknown kind of frame": [frame(0x3, b"x")],
    "reserved bits": [b"\xf2" + frame(BINARY, b"x")[1:]],
    "a continuation of nothing": [frame(CONTINUATION, b"x")],
    "a message in a message": [frame(BINARY, b"x", fin=False), frame(BINARY, b"x")],
    "half a ping": [frame(WEB_PING, fin=False)],
    "a long ping": [frame(WEB_PING, bytes(126))],
    "an impossible length": [b"\x82\xff" + b"\xff" * 8 + bytes(4)],
    "a strange close": [frame(CLOSE, b"\0\0")],
    "half a close": [frame(CLOSE, b"\3")],
    "a close and more": [frame(CLOSE), frame(BINARY, b"x") * 1000],
    "no frame of a relay": [frame(BINARY, b"garbage")],
    "an empty message": [frame(BINARY)],
}


@pytest.mark.parametrize("chunks", STRANGE_FRAMES.values(), ids=STRANGE_FRAMES.keys())
async def test_strange_frames_end_their_connection_and_nothing_else(server: Server, chunks: list[bytes]) -> None:
    stream = await server.dial_websocket()
    with trio.fail_after(1):
        try:
            for chunk in chunks:
                await stream.send_all(chunk)
        except trio.BrokenResourceError:
            pass
        await wait_end(stream)
    await server.wait_alone()
    await server.check_goes_on()


STRANGE_REQUESTS: dict[str, bytes] = {
    "garbage": bytes(range(256)) * 100,
    "a line without end": b"GET /" + b"x" * 100_000,
    "headers without end": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "a page": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a post": UPGRADE.replace(b"GET", b"POST") + b"\r\n",
    "an old version": UPGRADE.replace(b"13", b"12") + b"\r\n",
    "no key": UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key") + b"\r\n",
    "a host that cannot be": UPGRADE.replace(b"localhost", b"\xff.xn--\xfe") + b"\r\n",
    "a path that cannot be": UPGRADE.replace(b"/ ", b"/\xff ") + b"\r\n",
}


@pytest.mark.parametrize("request_bytes", STRANGE_REQUESTS.values(), ids=STRANGE_REQUESTS.keys())
async def test_strange_requests_end_their_connection_and_nothing_else(server: Server, request_bytes: bytes) -> None:
    stream = await server.dial()
    with suppress(trio.BrokenResourceError):
        await stream.send_all(request_bytes)
    await wait_end(stream)
    await server.check_goes_on()


async def test_a_request_that_cannot_be_answered_ends_its_connection_and_nothing_else(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(request: object) -> None:
        raise LocalProtocolError("no answer fits")

    with monkeypatch.context() as patch:
        patch.setattr("trio_websocket.WebSocketRequest.accept", fail)
        stream = await server.dial()
        await stream.send_all(UPGRADE + b"\r\n")
        await wait_end(stream)
    await server.check_goes_on()


@pytest.mark.parametrize("said", [b"", b"GET / HT", UPGRADE])
async def test_half_a_request_and_then_silence_is_dropped(
    server: Server, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(websocket, "UPGRADE_LIMIT", 0.1)
    stream = await server.dial()
    await stream.send_all(said)
    await wait_end(stream)
    await server.check_goes_on()


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HT", UPGRADE, UPGRADE + b"\r\n", UPGRADE + b"\r\n" + frame(BINARY, b"half")[:7]],
    ids=["at once", "in a line", "in the headers", "after the request", "in a frame"],
)
@pytest.mark.parametrize("wait", [0.0, 0.01])
async def test_a_reset_ends_its_connection_and_nothing_else(server: Server, said: bytes, wait: float) -> None:
    for _ in range(5):
        stream = await server.dial()
        await stream.send_all(said)
        await trio.sleep(wait)
        reset(stream)
    await server.wait_alone()
    await server.check_goes_on()


async def test_a_reset_of_a_registered_node_frees_its_place(server: Server, nursery: trio.Nursery) -> None:
    neighbour = await server.neighbour(nursery)
    reset(neighbour.link._stream)  # type: ignore[attr-defined]
    await server.wait_alone()
    await server.check_goes_on()


async def test_a_connection_that_is_gone_when_it_is_accepted_is_no_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(stream: object) -> None:
        raise OSError("the other end is gone")

    with monkeypatch.context() as patch:
        patch.setattr("trio._socket._SocketType.getpeername", gone)
        stream = await server.dial()
        await wait_end(stream)
    await server.check_goes_on()


async def test_connections_that_are_not_websockets_yet_are_bounded(
    monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(websocket, "MOST_UPGRADING_EACH", 2)
    async with open_server(nursery) as server:
        silent = [await server.dial() for _ in range(2)]
        await wait_end(await server.dial())
        reset(silent[0])
        await trio.sleep(0.01)
        await server.check_goes_on()


async def test_small_fragments_are_put_together(nursery: trio.Nursery) -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0))
    received = trio.Event()
    content = bytes(range(256)) * 20

    async def handler(link: Link) -> None:
        assert await link.receive() == content
        received.set()

    nursery.start_soon(listener.serve, handler)
    fragments = [frame(CONTINUATION, bytes([byte]), fin=False) for byte in content]
    with trio.fail_after(1):
        stream = await trio.open_tcp_stream("127.0.0.1", listener.address.port)
        await stream.send_all(UPGRADE + b"\r\n")
        await stream.receive_some()
        await stream.send_all(frame(BINARY, fin=False) + b"".join(fragments) + frame(CONTINUATION))
        await received.wait()
    await trio.aclose_forcefully(stream)


async def test_what_comes_with_the_handshake_is_the_first_message(nursery: trio.Nursery, open_link: OpenLink) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.receive_some()
        (key,) = re.findall(rb"sec-websocket-key: *(.*?)\r\n", request, re.IGNORECASE)
        answered = SWITCH % generate_accept_token(key) + frame(BINARY, b"first", mask=False)
        for byte in answered[:-1]:
            await stream.send_all(bytes([byte]))
        await stream.send_all(answered[-1:] + frame(BINARY, b"second", mask=False))
        await trio.sleep_forever()

    async with answering(answer) as url:
        link = await open_link(url)
        with trio.fail_after(1):
            assert [await link.receive() for _ in range(2)] == [b"first", b"second"]


async def test_a_ping_is_answered_while_messages_are_awaited(nursery: trio.Nursery, open_link: OpenLink) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        await stream.send_all(frame(WEB_PING, b"there?", mask=False))
        head_and_key = await stream.receive_some(6)
        assert head_and_key[:2] == bytes([0x80 | rfc6455.PONG, 0x80 | 6])
        assert rfc6455.apply_mask(await stream.receive_some(), head_and_key[2:]) == b"there?"
        await stream.send_all(frame(rfc6455.PONG, b"yes", mask=False) + frame(BINARY, b"well", mask=False))
        await trio.sleep_forever()

    async with answering(answer) as url:
        link = await open_link(url)
        with trio.fail_after(1):
            assert await link.receive() == b"well"


async def test_what_does_not_leave_at_once_is_sent_by_who_waits_and_nothing_gets_between(
    nursery: trio.Nursery, open_link: OpenLink
) -> None:
    listener, go_on = await listen(ListenAddress("127.0.0.1", 0)), trio.Event()
    received: list[bytes] = []

    async def handler(link: Link) -> None:
        await go_on.wait()
        while True:
            received.append(await link.receive())

    nursery.start_soon(listener.serve, lambda link: ended_by_peer(handler(link)))
    link = await open_link(listener.address.url)
    sent: list[bytes] = []
    while True:
        message = len(sent).to_bytes(2, "big") * (MOST_MESSAGE // 2)
        left = link.try_send(message)
        if left == "none":
            break
        sent.append(message)
        if left == "part":
            assert link.try_send(b"more") == "none", "a message began within another"
            break
    nursery.start_soon(link.flush)
    await trio.testing.wait_all_tasks_blocked()
    assert link.try_send(b"more") == "none"
    go_on.set()
    await link.send(b"last")
    await eventually(lambda: b"last" in received)
    assert received == [*sent, b"last"]


async def test_a_link_that_has_ended_sends_nothing_at_once(nursery: trio.Nursery, open_link: OpenLink) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        await trio.sleep_forever()

    async with answering(answer) as url:
        link, other = await open_link(url), await open_link(url)
        assert link.try_send(b"well") == "whole"
        await trio.aclose_forcefully(link._stream)
        # Whatever has the number of its socket now is none of its business.
        inside = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
        assert link.try_send(b"late") == "none"
        with pytest.raises(LinkBroken):
            await link.flush()
        assert link.try_send(b"late") == "none"
        await trio.aclose_forcefully(inside)
        assert other.try_send(b"well") == "whole"


async def test_a_handler_that_fails_ends_its_connection_and_is_told_in_the_log(
    nursery: trio.Nursery, open_link: OpenLink, log: list[MutableMapping[str, Any]]
) -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0))

    async def handler(link: Link) -> None:
        if await link.receive() == b"fail":
            raise ZeroDivisionError
        await link.send(b"well")

    nursery.start_soon(listener.serve, handler)
    failing, well = await open_link(listener.address.url), await open_link(listener.address.url)
    await failing.send(b"fail")
    with pytest.raises(LinkBroken):
        await failing.receive()
    await well.send(b"")
    assert await well.receive() == b"well"
    (error,) = [line for line in log if line["log_level"] == "error"]
    assert error["exc_info"]
    log.remove(error)


async def test_a_cancelled_send_ends_the_link_and_leaves_no_half_frame_for_later_sends(
    nursery: trio.Nursery, open_link: OpenLink
) -> None:
    received = bytearray()
    go_on = trio.Event()

    async def answer(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        await go_on.wait()
        while data := await stream.receive_some():
            received.extend(data)

    async with answering(answer) as url:
        link = await open_link(url)
        sent = 0
        while True:
            with trio.move_on_after(0.05) as scope:
                await link.send(bytes(MOST_MESSAGE))
            if scope.cancelled_caught:
                break
            sent += 1
        for _ in range(3):
            with pytest.raises(LinkBroken):
                await link.send(b"later")
        with pytest.raises(LinkBroken):
            await link.receive()
        go_on.set()
        await trio.sleep(0.05)
    whole, rest = divmod(len(received), MOST_MESSAGE + 14)
    assert whole == sent
    assert rest < MOST_MESSAGE + 14
    assert b"later" not in received


async def test_closing_against_a_silent_peer_takes_about_a_second(
    nursery: trio.Nursery, open_link: OpenLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert websocket.CLOSE_LIMIT == 1
    monkeypatch.setattr(websocket, "CLOSE_LIMIT", 0.1)

    async def answer(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        await trio.sleep_forever()

    async with answering(answer) as url:
        link = await open_link(url)
        began = trio.current_time()
        await link.aclose()
        assert 0.05 < trio.current_time() - began < 0.5


async def test_a_server_stops_in_about_a_second_though_its_peers_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_LIMIT", 0.1)
    with trio.fail_after(0.5):
        async with trio.open_nursery() as nursery, open_server(nursery) as server:
            for dial in (server.dial, server.dial_websocket, server.dial_websocket):
                await dial()
            nursery.cancel_scope.cancel()
    assert server.relay.statistics().connections == 0


SERVED_FRAMES: dict[str, bytes] = {
    "text": frame(TEXT, b"text", mask=False),
    "a frame with a mask": frame(BINARY, b"x"),
    "a large message": head(BINARY, 2**40, mask=False) + bytes(MOST_MESSAGE + 1),
    "fragments without content": frame(BINARY, fin=False, mask=False) + frame(CONTINUATION, fin=False, mask=False) * 17,
    "a close": frame(CLOSE, mask=False),
    "an end": b"",
}


@pytest.mark.parametrize("served", SERVED_FRAMES.values(), ids=SERVED_FRAMES.keys())
async def test_a_client_gives_up_a_server_that_breaks_the_rules(
    nursery: trio.Nursery, open_link: OpenLink, served: bytes
) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await upgrade(stream)
        await stream.send_all(served)
        if served:
            await wait_end(stream)

    async with answering(answer) as url:
        link = await open_link(url)
        with trio.fail_after(1), pytest.raises(LinkBroken):
            await link.receive()
        await link.aclose()


PAGE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\npage"
ENDLESS: Final = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10


@pytest.mark.parametrize(
    "answered",
    [
        PAGE,
        ENDLESS,
        b"HTTP/1.1 102 Processing\r\n\r\n",
        SWITCH % b"wrong",
        b"220 mail\r\n\r\n",
        b"\xff" * 100 + b"\r\n\r\n",
        b"",
    ],
    ids=["a page", "a page without end", "another 1xx", "a wrong token", "no HTTP", "garbage", "nothing"],
)
async def test_who_answers_and_speaks_no_websocket_is_unreachable(nursery: trio.Nursery, answered: bytes) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answered)
        if answered:
            await wait_end(stream)

    async with answering(answer) as url:
        with trio.fail_after(1), pytest.raises(RelayUnreachable) as raised:
            await connect(url, nursery)
    assert str(raised.value) == (
        f"{url} is no relay, for what answers there speaks no websocket: check the host and the port"
    )
    assert len(nursery.child_tasks) == 0


async def test_who_says_nothing_is_unreachable(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "UPGRADE_LIMIT", 0.1)
    async with answering(wait_end_slowly) as url:
        with pytest.raises(RelayUnreachable) as raised:
            await connect(url, nursery)
    assert str(raised.value) == f"{url} did not answer in 0.1 s: is a relay running there?"


async def wait_end_slowly(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def test_where_nothing_listens_is_unreachable(nursery: trio.Nursery) -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0))
    for each in listener._listeners:
        await each.aclose()
    with pytest.raises(RelayUnreachable) as raised:
        await connect(listener.address.url, nursery)
    assert str(raised.value) == (
        f"{listener.address.url} cannot be reached (connection refused): is a relay running there?"
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64, ".."])
async def test_a_name_that_nothing_has_is_unreachable(nursery: trio.Nursery, host: str) -> None:
    with pytest.raises(RelayUnreachable) as raised:
        await connect(f"ws://{host}:4000", nursery)
    assert str(raised.value) == (f"ws://{host}:4000 cannot be reached, for nothing has that name: is it spelt right?")


@asynccontextmanager
async def behind_tls(address: ListenAddress) -> AsyncGenerator[str]:
    """Put a door with TLS before a listener, as a proxy does; what is yielded is its URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)

    async def pour(source: trio.abc.Stream, target: trio.abc.Stream, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(65_536):
                await target.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()

    async def serve(outside: trio.SSLStream[trio.SocketStream]) -> None:
        inside = await trio.open_tcp_stream(address.host, address.port)
        async with inside, trio.open_nursery() as nursery:
            nursery.start_soon(pour, outside, inside, nursery.cancel_scope)
            nursery.start_soon(pour, inside, outside, nursery.cancel_scope)

    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"wss://localhost:{listeners[0].transport_listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_relay_behind_tls_is_reached_with_a_certificate_that_is_trusted(
    server: Server, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with behind_tls(server.address) as url:
        neighbour = Neighbour(await connect(url, nursery), Vault.in_memory())
        await neighbour.register()
        await neighbour.send(neighbour.id, bytes(100_000))
        assert await neighbour.hear() == Deliver(neighbour.id, bytes(100_000))
        await neighbour.link.aclose()


async def test_a_certificate_that_is_not_trusted_is_refused(server: Server, nursery: trio.Nursery) -> None:
    async with behind_tls(server.address) as url:
        with pytest.raises(RelayUnreachable) as raised:
            await connect(url, nursery)
    assert str(raised.value) == (
        f"{url} has no TLS to trust (self-signed certificate): mend its certificate, or write ws:// if it has none"
    )


async def test_a_relay_without_tls_is_told_from_one_with_it(server: Server, nursery: trio.Nursery) -> None:
    url = server.address.url.replace("ws://", "wss://")
    with pytest.raises(RelayUnreachable, match="speaks no TLS"):
        await connect(url, nursery)


async def test_an_address_in_use_says_so() -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0))
    with pytest.raises(ConfigurationError) as raised:
        await listen(listener.address)
    assert str(raised.value) == (
        f"cannot listen on {listener.address} (address already in use): choose another address with --listen"
    )
    for each in listener._listeners:
        await each.aclose()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64, "203.0.113.1"])
async def test_an_address_that_is_not_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="choose another address with --listen"):
        await listen(ListenAddress(host, 0))


class TwoAddresses(trio.abc.HostnameResolver):
    """Gives every name two addresses."""

    async def getaddrinfo(self, host: Any, port: Any, *_: Any) -> Any:  # noqa: ANN401 - as the standard library's
        await trio.lowlevel.checkpoint()
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in ("127.0.0.1", "127.0.0.2")
        ]

    async def getnameinfo(self, *_: Any) -> Any:  # noqa: ANN401
        raise NotImplementedError


async def test_a_free_port_is_one_port_though_the_name_has_several_addresses(nursery: trio.Nursery) -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    try:
        listener = await listen(ListenAddress("localhost", 0))
        assert len(listener._listeners) == 1
        relay = Relay(Vault.in_memory(), now=lambda: NOW)
        nursery.start_soon(relay.serve, listener)
        await Server(relay, listener.address).check_goes_on()
    finally:
        trio.socket.set_custom_hostname_resolver(None)


async def test_a_name_of_which_no_address_answers_is_unreachable(nursery: trio.Nursery) -> None:
    listener = await listen(ListenAddress("127.0.0.1", 0))
    for each in listener._listeners:
        await each.aclose()
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    try:
        with pytest.raises(RelayUnreachable, match="connection refused"):
            await connect(f"ws://localhost:{listener.address.port}", nursery)
    finally:
        trio.socket.set_custom_hostname_resolver(None)


@pytest.mark.parametrize("error", [OSError("no number"), ValueError("no error of the system")])
def test_a_failure_without_words_of_the_system_is_told_all_the_same(error: Exception) -> None:
    assert websocket._reason(error) == "the connection failed"


async def test_what_came_in_one_read_with_the_close_is_received(nursery: trio.Nursery, open_link: OpenLink) -> None:
    listener, received = await listen(ListenAddress("127.0.0.1", 0)), list[bytes]()
    ended = trio.Event()

    async def take(link: Link) -> None:
        await trio.sleep(0.1)  # by now the messages and the close are here
        try:
            while True:
                received.append(await link.receive())
        except LinkBroken:
            ended.set()

    nursery.start_soon(listener.serve, take)
    link = await open_link(listener.address.url)
    for number in range(3):
        await link.send(bytes([number]))
    await link.aclose()
    with trio.fail_after(10):
        await ended.wait()
    assert received == [b"\0", b"\1", b"\2"]
    nursery.cancel_scope.cancel()
