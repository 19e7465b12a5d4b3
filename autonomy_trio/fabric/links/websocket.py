"""Links over websockets: the one module that knows trio-websocket and its traps.

trio-websocket makes a websocket of a connection; what follows are frames (`rfc6455`), which whoever takes and sends
messages reads and writes itself. So between the network and who wants a message there is no task and no queue, and
what is not taken is not read.

* What can leave at once is written past trio, which has no call for that: the socket does not block. No task waits for
  its turn then, which takes longer than the write. Over TLS, and not on POSIX, all is left to the writer's task.
* A send that was cancelled may leave half a frame, and later ones would be taken for its rest: the stream is closed.
* An exception in a server's handler would end the whole server: each connection is served behind a fence.
* A peer that gives up the upgrade, or never meant one, would be waited for: the end of its reader ends the wait.
* A server that refuses the upgrade may send a body without end: it is not read.
* Closing waits for the peer, for ever if it is silent: a second, then the stream is closed.
* Text messages are not part of the protocol and end the link.
"""

import os
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Literal, final
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket
import wsproto.events
from wsproto import ConnectionType, WSConnection

from autonomy_trio.errors import LinkBroken, ProtocolError, RelayUnreachable
from autonomy_trio.fabric.links import rfc6455
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.buckets import Places
from autonomy_trio.fabric.links.link import MOST_MESSAGE, Link
from autonomy_trio.fabric.links.listening import first_cause, open_listeners, reaching, system_reason
from autonomy_trio.logs import get_log

MOST_UPGRADING: Final = 1024
"""Connections at once that are not websockets yet."""

MOST_UPGRADING_EACH: Final = 256
"""Of these, from one address."""

UPGRADE_LIMIT: Final = 5.0
"""Seconds a connection may take to become a websocket."""

CLOSE_LIMIT: Final = 1.0
"""Seconds the other end has to answer a close."""

FRAMES_PER_CHECKPOINT: Final = 32
"""Of so many frames, taking one lets other tasks run, for a read may hold thousands of small ones."""

RECEIVE_BYTES: Final = 64 * 1024
"""Bytes asked of the stream at once."""

RECEIVE_MORE: Final = 126 * 1024
"""Bytes asked of it after a message of `RECEIVE_BYTES` or more, for the next is likely to be as large.

Above 128 KiB the system's allocator would map and clear memory for each.
"""

NORMALLY: Final = b"\x03\xe8"
"""What a link that ends says: 1000."""

_HEAD_END: Final = re.compile(rb"\n\r?\n")
"""Where the head of a request or an answer ends; h11 takes lines without a carriage return too."""

_log = get_log()


class _Head(trio.abc.Stream):
    """A stream of which the reader of the handshake gets no more than that: what follows are frames."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._tail = b""
        self._closed = trio.Event()
        self.rest: bytes | None = None
        """What came after the head, once that is there."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.rest is not None:
            await self._closed.wait()
            raise trio.ClosedResourceError
        data = bytes(await self._stream.receive_some(max_bytes))
        end = _HEAD_END.search(self._tail + data)
        if end is None:
            self._tail = (self._tail + data)[-2:]
            return data
        head = data[: end.end() - len(self._tail)]
        self.rest = data[len(head) :]
        return head

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._closed.set()
        await self._stream.aclose()


class _Connection(trio_websocket.WebSocketConnection):
    """A connection that becomes a websocket."""

    def __init__(self, stream: _Head, kind: ConnectionType, host: str | None = None) -> None:
        super().__init__(stream, WSConnection(kind), host=host, path="/", receive_buffer_size=RECEIVE_BYTES)

    @property
    def is_open(self) -> bool:
        """Whether it has become a websocket."""
        return self._open_handshake.is_set()

    async def accept(self) -> None:
        """Become a websocket, as a server, if the peer asks for it; runs beside `read`.

        Fence: a request that wsproto or h11 can read but not answer.
        """
        try:
            request = await self._get_request()
            await request.accept()
        except Exception as error:  # noqa: BLE001
            _log.debug("connection ended before it was a websocket", error=repr(error))

    async def wait_open(self) -> None:
        """Become a websocket, as a client; runs beside `read`."""
        await self._open_handshake.wait()

    async def read(self, opening: trio.CancelScope) -> None:
        """Run the reader to its end, which also ends `opening`, where somebody waits to become a websocket.

        Fence: what a peer makes wsproto raise ends this connection and nothing else.
        """
        try:
            await self._reader_task()
        except Exception as error:  # noqa: BLE001
            _log.debug("websocket ended", error=repr(error))
        finally:
            opening.cancel()

    async def _handle_reject_connection_event(
        self,
        event: wsproto.events.RejectConnection,  # noqa: ARG002 - the caller is trio-websocket
    ) -> None:
        await trio.aclose_forcefully(self._stream)
        raise trio_websocket.ConnectionClosed(self.closed)


async def _open(
    stream: trio.abc.Stream, kind: ConnectionType, open_: Callable[[_Connection], Awaitable[None]], host: str | None
) -> bytes | None:
    """Make a websocket of a stream; return what came after the handshake, or None where there was none."""
    head = _Head(stream)
    connection = _Connection(head, kind, host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.read, nursery.cancel_scope)
        await open_(connection)
        nursery.cancel_scope.cancel()
    return head.rest if connection.is_open else None


@final
class WebSocketLink:
    """A link over one websocket."""

    __slots__ = (
        "_frames",
        "_is_closing",
        "_masks",
        "_receive",
        "_sending",
        "_socket",
        "_stream",
        "_taken",
        "_unsent",
        "_was_closed",
        "remote",
    )

    def __init__(self, stream: trio.abc.Stream, remote: str, came: bytes, *, is_client: bool) -> None:
        self.remote: str = remote
        self._stream = stream
        self._masks = is_client
        self._frames = rfc6455.Reader(masked=not is_client, most=MOST_MESSAGE)
        self._frames.take(came)
        self._receive = RECEIVE_BYTES
        self._taken = 0
        self._sending = trio.Lock()
        self._unsent = b""
        """The rest of what `try_send` began: it goes ahead of everything else."""
        self._socket = stream.socket if os.name == "posix" and isinstance(stream, trio.SocketStream) else None
        self._is_closing = False
        """Whether nothing more is sent and taken."""
        self._was_closed = False
        """Whether the other end has said that it sends nothing more."""

    async def send(self, message: bytes) -> None:
        """See `Link.send`."""
        if self._is_closing:
            raise self._broken()
        await self._send(rfc6455.BINARY, message)

    def try_send(self, message: bytes) -> Literal["whole", "part", "none"]:
        """See `PromptLink.try_send`."""
        if self._socket is None or self._is_closing or self._unsent or self._sending.locked():
            return "none"
        frame = rfc6455.encode(rfc6455.BINARY, message, masked=self._masks)
        try:
            sent = os.write(self._socket.fileno(), frame)  # of a socket that was closed it is -1
        except OSError:
            return "none"  # there is no room, or `send` will say what is wrong
        self._unsent = frame[sent:]
        return "part" if self._unsent else "whole"

    async def flush(self) -> None:
        """See `PromptLink.flush`."""
        await self._write(b"")

    async def receive(self) -> bytes:
        """See `Link.receive`."""
        while not self._is_closing:
            event = await self._next()
            if isinstance(event, bytes):
                self._receive = RECEIVE_BYTES if len(event) < RECEIVE_BYTES else RECEIVE_MORE
                return event
            await self._answer(event)
        raise self._broken()

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        with trio.move_on_after(CLOSE_LIMIT, shield=True):
            try:
                if not self._is_closing:
                    self._is_closing = True
                    await self._send(rfc6455.CLOSE, NORMALLY)
                while not self._was_closed:
                    self._was_closed = isinstance(await self._next(), rfc6455.Close)
            except (LinkBroken, trio.BusyResourceError):
                pass  # it has ended, or another task sees it end
        await trio.aclose_forcefully(self._stream)

    async def _next(self) -> rfc6455.Event:
        """Return what the next frame says."""
        self._taken += 1
        if not self._taken % FRAMES_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint()
        try:
            while (event := self._frames.next()) is None:
                data = await self._stream.receive_some(self._receive)
                if not data:
                    raise self._broken()
                self._frames.take(bytes(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._broken() from None
        except ProtocolError as error:
            _log.debug("websocket ended", error=str(error))
            await trio.aclose_forcefully(self._stream)
            raise self._broken() from None
        return event

    async def _answer(self, event: rfc6455.Event) -> None:
        """Do what a frame asks for that is no message."""
        match event:
            case rfc6455.Ping(payload):
                await self._send(rfc6455.PONG, payload)
            case rfc6455.Close():
                self._is_closing = self._was_closed = True
                await self._send(rfc6455.CLOSE, NORMALLY)
            case _:
                pass

    async def _send(self, opcode: int, payload: bytes) -> None:
        await self._write(rfc6455.encode(opcode, payload, masked=self._masks))

    async def _write(self, frame: bytes) -> None:
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            rest, self._unsent = self._unsent, b""
            await self._stream.send_all(rest + frame if rest else frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._broken() from None
        except BaseException:
            self._is_closing = True
            await trio.aclose_forcefully(self._stream)
            raise
        finally:
            self._sending.release()

    def _broken(self) -> LinkBroken:
        self._is_closing = True
        return LinkBroken(f"{self.remote} closed the connection")


async def connect(url: str, nursery: trio.Nursery) -> WebSocketLink:  # noqa: ARG001 - other links have tasks
    """Open a link to a relay; whoever opens it closes it.

    Args:
        url: ``ws://host[:port]`` or ``wss://host[:port]``; the latter verifies the certificate of the host.
        nursery: not used here, for this link has no task.

    Raises:
        RelayUnreachable: nothing answers there, or no websocket does, in `UPGRADE_LIMIT` seconds.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "wss"
    try:
        with reaching(url, UPGRADE_LIMIT), trio.fail_after(UPGRADE_LIMIT):
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, parts.port or (443 if secure else 80))
            try:
                if secure:
                    stream = await _secure(stream, host)
                return await _upgrade(stream, parts.netloc)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except trio.BrokenResourceError as error:
        raise RelayUnreachable(
            f"{url} has no TLS to trust ({_reason(error)}): mend its certificate, or write ws:// if it has none"
        ) from None
    except trio_websocket.HandshakeError:
        raise RelayUnreachable(
            f"{url} is no relay, for what answers there speaks no websocket: check the host and the port"
        ) from None


async def _secure(stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
    secured = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host, https_compatible=True)
    await secured.do_handshake()
    return secured


def _reason(error: BaseException) -> str:
    """Return why a connection failed, in the words of the system or of TLS."""
    cause = first_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError):
        return "what answers there speaks no TLS"
    return system_reason(cause)


async def _upgrade(stream: trio.abc.Stream, host: str) -> WebSocketLink:
    came = await _open(stream, ConnectionType.CLIENT, _Connection.wait_open, host)
    if came is None:
        raise trio_websocket.HandshakeError
    return WebSocketLink(stream, host, came, is_client=True)


@final
@attrs.frozen(eq=False)
class WebSocketListener:
    """Sockets that listen for links, from `listen`."""

    _listeners: list[trio.SocketListener]
    address: ListenAddress
    """Where they listen, with the port they really have."""

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        """Accept links until cancelled, each in a task of its own, which closes it when `handler` returns."""
        upgrading = Places(MOST_UPGRADING, MOST_UPGRADING_EACH)

        async def serve_one(stream: trio.SocketStream) -> None:
            try:
                address = str(stream.socket.getpeername()[0])
            except OSError:
                return  # its peer has reset it already
            if not upgrading.try_take(address):
                _log.debug("connection refused: too many that are not websockets yet", address=address)
                return
            try:
                link = await _accept(stream, address)
            finally:
                upgrading.free(address)
            if link is not None:
                await _handle(link, handler)

        await trio.serve_listeners(serve_one, self._listeners)


async def _accept(stream: trio.SocketStream, address: str) -> WebSocketLink | None:
    """Make a websocket of a connection; None where its peer wants something else, or does not ask in time."""
    came = None
    with trio.move_on_after(UPGRADE_LIMIT):
        came = await _open(stream, ConnectionType.SERVER, _Connection.accept, None)
    return None if came is None else WebSocketLink(stream, address, came, is_client=False)


async def _handle(link: WebSocketLink, handler: Callable[[Link], Awaitable[None]]) -> None:
    try:
        await handler(link)
    except Exception:  # noqa: BLE001 - fence: one connection; the server and the others go on
        _log.exception("connection failed", address=link.remote)
    finally:
        await link.aclose()


async def listen(address: ListenAddress) -> WebSocketListener:
    """Open sockets to accept links on.

    Raises:
        ConfigurationError: the address cannot be listened on; the text says why.
    """
    return WebSocketListener(*await open_listeners(address, "--listen"))
