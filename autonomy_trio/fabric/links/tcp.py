"""Links over plain TCP, for hosts of one's own: ``length u32 | message``, and nothing to negotiate.

There is no reader task: who receives reads, so what nobody takes stays with the peer, and no more is held than one
message and what came with it.
"""

from collections.abc import Awaitable, Callable
from typing import Final, final
from urllib.parse import urlsplit

import attrs
import trio

from autonomy_trio.errors import LinkBroken
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.link import MOST_MESSAGE, Link
from autonomy_trio.fabric.links.listening import open_listeners, reaching
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log

CONNECT_LIMIT: Final = 5.0
"""Seconds a relay may take to answer."""

CLOSE_LIMIT: Final = 1.0
"""Seconds the other end has to close too."""

TAKEN_PER_CHECKPOINT: Final = 32
"""Of so many messages, taking one lets other tasks run."""

RECEIVE_BYTES: Final = 64 * 1024
"""Bytes asked of the stream at once."""

LENGTH_BYTES: Final = 4

_log = get_log()


@final
@attrs.define(eq=False)
class TcpLink:
    """A link over one TCP connection."""

    _stream: trio.SocketStream
    remote: str
    _received: bytearray = attrs.field(factory=bytearray)
    _taken: int = 0

    async def send(self, message: bytes) -> None:
        """See `Link.send`."""
        try:
            await self._stream.send_all(len(message).to_bytes(LENGTH_BYTES, "big") + message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LinkBroken(f"{self.remote} closed the connection") from None
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise

    async def receive(self) -> bytes:
        """See `Link.receive`; what had come of a message when it was cancelled is kept for the next call."""
        self._taken += 1
        if not self._taken % TAKEN_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint()
        while len(self._received) < LENGTH_BYTES or len(self._received) < LENGTH_BYTES + self._length():
            await self._read()
        end = LENGTH_BYTES + self._length()
        message = bytes(memoryview(self._received)[LENGTH_BYTES:end])
        del self._received[:end]
        return message

    def _length(self) -> int:
        """Return how long the message is that has begun to arrive, before any of it is waited for.

        Raises:
            LinkBroken: it would be empty, or larger than any may be.
        """
        length = int.from_bytes(self._received[:LENGTH_BYTES], "big")
        if not 0 < length <= MOST_MESSAGE:
            raise LinkBroken(f"{self.remote} sends a message of {length} bytes: is it a relay or node, and at tcp://?")
        return length

    async def _read(self) -> None:
        try:
            more = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            more = b""
        if not more:
            raise LinkBroken(f"{self.remote} closed the connection")
        self._received += more

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        # What came and was not read would make the system reset the connection, and the peer lose its last message.
        with trio.move_on_after(CLOSE_LIMIT, shield=True):
            try:
                await self._stream.send_eof()
                while await self._stream.receive_some(RECEIVE_BYTES):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass  # it is closed already, or another task sees it end
        await trio.aclose_forcefully(self._stream)


async def connect(url: str, nursery: trio.Nursery) -> TcpLink:
    """Open a link to a relay, which its owner closes.

    Args:
        url: ``tcp://host:port``.
        nursery: not used: there is no task.

    Raises:
        RelayUnreachable: nothing answers there in `CONNECT_LIMIT` seconds.
    """
    del nursery
    parts = urlsplit(url)
    with reaching(url, CONNECT_LIMIT), trio.fail_after(CONNECT_LIMIT):
        stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)
    return TcpLink(stream, parts.netloc)


@final
@attrs.frozen(eq=False)
class TcpListener:
    """Sockets that listen for links, from `listen`."""

    _listeners: list[trio.SocketListener]
    address: ListenAddress
    """Where they listen, with the port they really have."""

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        """Accept links until cancelled, each in a task of its own, which closes it when `handler` returns."""

        async def serve_one(stream: trio.SocketStream) -> None:
            try:
                address = str(stream.socket.getpeername()[0])
            except OSError:
                return  # its peer has reset it already
            link = TcpLink(stream, address)

            def failed(error: Exception) -> None:
                _log.error("connection failed", address=address, exc_info=error)

            try:
                # Fence: one connection; the server and the others go on.
                with fence(failed):
                    await handler(link)
            finally:
                await link.aclose()

        await trio.serve_listeners(serve_one, self._listeners)


async def listen(address: ListenAddress) -> TcpListener:
    """Open sockets to accept links on.

    Raises:
        ConfigurationError: the address cannot be listened on; the text says why.
    """
    return TcpListener(*await open_listeners(address, "--listen"))
