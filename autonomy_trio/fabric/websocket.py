"""Links over websockets: the one module that knows trio-websocket and its traps.

* A cancelled ``send_message`` may leave half a frame, and later sends would vanish: the stream is closed then.
* The size limit does not see fragments without content: a run of them ends the link. Small ones cost more than they
  hold: they are joined now and then.
* An exception in a server's handler would end the whole server: each connection is served behind a fence.
* A peer that gives up the upgrade, or never meant one, would be waited for: the end of its reader ends the wait.
* A server that refuses the upgrade may send a body without end: it is not read.
* Closing waits for the peer, for ever if it is silent: a second, then the stream is closed.
* Text messages are not part of the protocol and end the link.
"""

import os
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, cast, final
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket
import wsproto.events
from wsproto import ConnectionType, WSConnection
from wsproto.utilities import LocalProtocolError

from autonomy_trio.errors import LinkBroken, RelayUnreachable
from autonomy_trio.fabric.addresses import ListenAddress
from autonomy_trio.fabric.buckets import Places
from autonomy_trio.fabric.links import FRAME_COST, MOST_MESSAGE, Link
from autonomy_trio.fabric.listening import open_listeners
from autonomy_trio.logs import get_log

MOST_EMPTY_FRAGMENTS: Final = 16
"""Fragments without content in a row that one message may have."""

MOST_PARTS: Final = 1024
"""Fragments of one message that are kept apart; each costs some 40 bytes more than it holds."""

MOST_UPGRADING: Final = 1024
"""Connections at once that are not websockets yet."""

MOST_UPGRADING_EACH: Final = 256
"""Of these, from one address."""

UPGRADE_LIMIT: Final = 5.0
"""Seconds a connection may take to become a websocket."""

CLOSE_LIMIT: Final = 1.0
"""Seconds the other end has to answer a close."""

MOST_UNTAKEN: Final = 64 * 1024
"""Bytes in messages that were read and not taken, `FRAME_COST` for each among them, from which on no more is read."""

TAKEN_PER_CHECKPOINT: Final = 32
"""Of so many messages, taking one lets other tasks run."""

EVENTS_PER_CHECKPOINT: Final = 16
"""Of so many fragments, reading one lets other tasks run."""

RECEIVE_BYTES: Final = 64 * 1024
"""Bytes asked of the stream at once."""

_log = get_log()


class _Inbox:
    """Both ends of the channel from a websocket's reader to its taker, bounded in bytes.

    Whatever one read has brought is taken without a switch of tasks in between, so that what the taker passes on leaves
    together.
    """

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._size = 0
        self._taken = 0
        self._ended = False
        self._closed = False
        self._reader = trio.lowlevel.ParkingLot()
        self._taker = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        self._taker.unpark_all()

    async def send(self, message: bytes) -> None:
        """Put a message in, and wait while there is more than enough; after `aclose` it is thrown away."""
        if self._closed:
            return
        self._messages.append(message)
        self._size += len(message) + FRAME_COST
        self._taker.unpark_all()
        while self._size > MOST_UNTAKEN and not self._closed:
            await self._reader.park()

    async def receive(self) -> bytes:
        """Take the next message; a checkpoint where it waits, and now and then."""
        self._taken += 1
        if not self._taken % TAKEN_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._ended or self._closed:
                raise trio.EndOfChannel
            await self._taker.park()
        message = self._messages.popleft()
        self._size -= len(message) + FRAME_COST
        self._reader.unpark_all()
        return message

    async def aclose(self) -> None:
        """Keep what still comes no more; what came before, say beside the peer's word that it closes, can be taken."""
        self._closed = True
        self._taker.unpark_all()
        self._reader.unpark_all()


class _Connection(trio_websocket.WebSocketConnection):
    """A websocket that refuses text, and messages in endless fragments."""

    _empty_fragments = 0
    _events = 0

    def __init__(self, stream: trio.abc.Stream, kind: ConnectionType, host: str | None = None) -> None:
        super().__init__(
            stream,
            WSConnection(kind),
            host=host,
            path="/",
            message_queue_size=1,
            max_message_size=MOST_MESSAGE,
            receive_buffer_size=RECEIVE_BYTES,
        )
        inbox = _Inbox()
        self._send_channel, self._recv_channel = cast("Any", inbox), cast("Any", inbox)

    @property
    def is_open(self) -> bool:
        """Whether it has become a websocket."""
        return self._open_handshake.is_set()

    async def accept(self) -> None:
        """Become a websocket, as a server, if the peer asks for it; runs beside `read`."""
        request = await self._get_request()
        await request.accept()

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
            with trio.CancelScope(shield=True):
                await self._abort_web_socket()  # whoever waits for it is woken

    async def _handle_message_event(self, event: wsproto.events.BytesMessage | wsproto.events.TextMessage) -> None:
        if isinstance(event, wsproto.events.TextMessage):
            await self._stop_reading()
        if event.data or event.message_finished:
            self._empty_fragments = 0
            await super()._handle_message_event(event)
            if len(self._message_parts) > MOST_PARTS:
                self._message_parts = [b"".join(part for part in self._message_parts if isinstance(part, bytes))]
        else:
            self._empty_fragments += 1
            if self._empty_fragments > MOST_EMPTY_FRAGMENTS:
                await self._stop_reading()
        self._events += 1
        if not self._events % EVENTS_PER_CHECKPOINT:
            # A read may hold thousands of fragments: other connections have their turn between them.
            await trio.lowlevel.checkpoint()

    async def _handle_reject_connection_event(
        self,
        event: wsproto.events.RejectConnection,  # noqa: ARG002 - the caller is trio-websocket
    ) -> None:
        await self._stop_reading()

    async def _stop_reading(self) -> NoReturn:
        """End the connection, and the reader that calls this; what it has read already is not looked at."""
        await trio.aclose_forcefully(self._stream)
        await self._abort_web_socket()
        raise trio_websocket.ConnectionClosed(self.closed)


@final
@attrs.frozen(eq=False)
class WebSocketLink:
    """A link over one websocket."""

    _connection: _Connection
    _stream: trio.abc.Stream
    remote: str

    async def send(self, message: bytes) -> None:
        """See `Link.send`."""
        try:
            await self._connection.send_message(message)
        except (trio_websocket.ConnectionClosed, LocalProtocolError):
            raise LinkBroken(f"{self.remote} closed the connection") from None
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise

    async def receive(self) -> bytes:
        """See `Link.receive`."""
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed:
            raise LinkBroken(f"{self.remote} closed the connection") from None
        assert isinstance(message, bytes)  # noqa: S101 - text ends the link before it gets here
        return message

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        with trio.move_on_after(CLOSE_LIMIT, shield=True):
            await self._connection.aclose()
        await trio.aclose_forcefully(self._stream)


async def connect(url: str, nursery: trio.Nursery) -> WebSocketLink:
    """Open a link to a relay; its reader runs in `nursery`, whose owner closes the link.

    Args:
        url: ``ws://host[:port]`` or ``wss://host[:port]``; the latter verifies the certificate of the host.
        nursery: lives longer than the link.

    Raises:
        RelayUnreachable: nothing answers there, or no websocket does, in `UPGRADE_LIMIT` seconds.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "wss"
    try:
        with trio.fail_after(UPGRADE_LIMIT):
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, parts.port or (443 if secure else 80))
            try:
                if secure:
                    stream = await _secure(stream, host)
                return await _upgrade(stream, parts.netloc, nursery)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except trio.TooSlowError:
        raise RelayUnreachable(f"{url} did not answer in {UPGRADE_LIMIT:g} s: is a relay running there?") from None
    except (socket.gaierror, UnicodeError):
        raise RelayUnreachable(f"{url} cannot be reached, for nothing has that name: is it spelt right?") from None
    except OSError as error:
        raise RelayUnreachable(f"{url} cannot be reached ({_reason(error)}): is a relay running there?") from None
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
    """Return the system's words for why a connection failed, of the first attempt where there were several."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cast("BaseExceptionGroup[BaseException]", cause).exceptions[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLError):
        return "what answers there speaks no TLS"
    number = cause.errno if isinstance(cause, OSError) else None
    return os.strerror(number).lower() if number else "the connection failed"


async def _upgrade(stream: trio.abc.Stream, host: str, nursery: trio.Nursery) -> WebSocketLink:
    connection = _Connection(stream, ConnectionType.CLIENT, host)
    with trio.CancelScope() as opening:
        nursery.start_soon(connection.read, opening)
        await connection.wait_open()
    if not connection.is_open:
        raise trio_websocket.HandshakeError
    return WebSocketLink(connection, stream, host)


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
            async with trio.open_nursery() as nursery:
                try:
                    link = await _accept(stream, address, nursery)
                finally:
                    upgrading.free(address)
                if link is not None:
                    await _handle(link, handler)
                nursery.cancel_scope.cancel()

        await trio.serve_listeners(serve_one, self._listeners)


async def _accept(stream: trio.SocketStream, address: str, nursery: trio.Nursery) -> WebSocketLink | None:
    """Make a websocket of a connection; None where its peer wants something else, or does not ask in time."""
    connection = _Connection(stream, ConnectionType.SERVER)
    with trio.move_on_after(UPGRADE_LIMIT) as opening:
        nursery.start_soon(connection.read, opening)
        try:
            await connection.accept()
        except Exception as error:  # noqa: BLE001 - fence: a request that wsproto or h11 can read but not answer
            _log.debug("connection ended before it was a websocket", address=address, error=repr(error))
    return WebSocketLink(connection, stream, address) if connection.is_open else None


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
