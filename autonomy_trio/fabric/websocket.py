"""Links over websockets: the one module that knows trio-websocket and its traps.

* A cancelled ``send_message`` may leave half a frame, and later sends would vanish: the stream is closed then.
* The size limit does not see fragments without content: a run of them ends the link.
* An exception in a server's handler would end the whole server: each connection is served behind a fence.
* Closing waits for the peer, for ever if it is silent: a second, then the stream is closed.
* Text messages are not part of the protocol and end the link.
"""

from collections.abc import Awaitable, Callable
from typing import Final, final
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket
import wsproto.events
from wsproto import ConnectionType, WSConnection

from autonomy_trio.errors import ConfigurationError, LinkBroken, RelayUnreachable
from autonomy_trio.fabric.addresses import ListenAddress
from autonomy_trio.fabric.links import MOST_MESSAGE, Link
from autonomy_trio.logs import get_log

MOST_EMPTY_FRAGMENTS: Final = 16
"""Fragments without content in a row that one message may have."""

UPGRADE_LIMIT: Final = 5.0
"""Seconds a connection may take to become a websocket."""

CLOSE_LIMIT: Final = 1.0
"""Seconds the other end has to answer a close."""

RECEIVE_BYTES: Final = 64 * 1024
"""Bytes asked of the stream at once."""

_log = get_log()


class _Connection(trio_websocket.WebSocketConnection):
    """A websocket that refuses text, and messages in endless empty fragments."""

    _empty_fragments = 0

    async def _handle_message_event(self, event: wsproto.events.BytesMessage | wsproto.events.TextMessage) -> None:
        if isinstance(event, wsproto.events.TextMessage):
            await self._stop_reading()
        elif event.data or event.message_finished:
            self._empty_fragments = 0
            await super()._handle_message_event(event)
        else:
            self._empty_fragments += 1
            if self._empty_fragments > MOST_EMPTY_FRAGMENTS:
                await self._stop_reading()

    async def _stop_reading(self) -> None:
        await trio.aclose_forcefully(self._stream)
        await self._abort_web_socket()


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
        except trio_websocket.ConnectionClosed:
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
    port = parts.port or (443 if secure else 80)
    try:
        with trio.fail_after(UPGRADE_LIMIT):
            if secure:
                stream: trio.abc.Stream = await trio.open_ssl_over_tcp_stream(host, port)
            else:
                stream = await trio.open_tcp_stream(host, port)
            try:
                return await _upgrade(stream, parts.netloc, nursery)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
    except trio.TooSlowError:
        raise RelayUnreachable(f"{url} did not answer in {UPGRADE_LIMIT:g} s: is a relay running there?") from None
    except OSError as error:
        reason = error.strerror or "the connection failed"
        raise RelayUnreachable(f"{url} cannot be reached ({reason.lower()}): is a relay running there?") from None
    except (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed, trio.BrokenResourceError):
        raise RelayUnreachable(f"{url} is no relay: what answers there speaks no websocket") from None


async def _upgrade(stream: trio.abc.Stream, host: str, nursery: trio.Nursery) -> WebSocketLink:
    connection = _Connection(
        stream,
        WSConnection(ConnectionType.CLIENT),
        host=host,
        path="/",
        message_queue_size=1,
        max_message_size=MOST_MESSAGE,
        receive_buffer_size=RECEIVE_BYTES,
    )
    nursery.start_soon(_read, connection)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as waiting:
            waiting.start_soon(_cancel_when, connection._close_handshake, scope)  # noqa: SLF001 - see the class
            await connection._open_handshake.wait()  # noqa: SLF001
            waiting.cancel_scope.cancel()
    if scope.cancelled_caught or connection.closed:
        raise trio_websocket.HandshakeError
    return WebSocketLink(connection, stream, host)


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _read(connection: _Connection) -> None:
    """Run a connection's reader. Fence: what a peer makes wsproto raise ends this connection and nothing else."""
    try:
        await connection._reader_task()  # noqa: SLF001 - how trio-websocket itself starts it
    except Exception as error:  # noqa: BLE001
        _log.debug("websocket ended", error=str(error))
    finally:
        with trio.CancelScope(shield=True):
            await connection._abort_web_socket()  # noqa: SLF001 - whoever waits for it is woken


@final
@attrs.frozen(eq=False)
class WebSocketListener:
    """Sockets that listen for links, from `listen`."""

    _listeners: list[trio.SocketListener]
    address: ListenAddress
    """Where they listen, with the port they really have."""

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        """Accept links until cancelled, each in a task of its own."""

        async def fenced(stream: trio.SocketStream) -> None:
            try:
                await self._serve_one(stream, handler)
            except Exception as error:  # noqa: BLE001 - fence: one connection; the server goes on
                _log.error("connection failed", error=repr(error))

        await trio.serve_listeners(fenced, self._listeners)

    async def _serve_one(self, stream: trio.SocketStream, handler: Callable[[Link], Awaitable[None]]) -> None:
        peer = stream.socket.getpeername()
        async with trio.open_nursery() as nursery:
            connection = _Connection(
                stream,
                WSConnection(ConnectionType.SERVER),
                message_queue_size=1,
                max_message_size=MOST_MESSAGE,
                receive_buffer_size=RECEIVE_BYTES,
            )
            nursery.start_soon(_read, connection)
            link = WebSocketLink(connection, stream, str(peer[0]))
            try:
                with trio.move_on_after(UPGRADE_LIMIT) as scope:
                    request = await connection._get_request()  # noqa: SLF001 - as trio-websocket's server does
                    await request.accept()
                if not scope.cancelled_caught:
                    await handler(link)
            except trio_websocket.ConnectionClosed:
                pass
            finally:
                await link.aclose()
                nursery.cancel_scope.cancel()


async def listen(address: ListenAddress) -> WebSocketListener:
    """Open sockets to accept links on.

    Raises:
        ConfigurationError: the address cannot be listened on; the text says why.
    """
    try:
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        msg = f"cannot listen on {address} ({reason}): choose another address with --listen"
        raise ConfigurationError(msg) from None
    port = int(listeners[0].socket.getsockname()[1])
    return WebSocketListener(listeners, ListenAddress(address.host, port))
