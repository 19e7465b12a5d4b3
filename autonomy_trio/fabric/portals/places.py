"""Where the clients of an inlet connect, and what an outlet connects to: TCP, or a Unix socket."""

import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from autonomy_trio.errors import AddressError, ConfigurationError
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.listening import open_listeners, system_reason

UNIX: Final = "unix:"
"""What stands in front of the path of a Unix socket."""

BACKLOG: Final = 128
"""Clients that wait at a Unix socket until they are accepted."""

OWNER_ONLY: Final = 0o600
"""The mode of a Unix socket that is listened on: its user alone connects."""

_ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 seconds: to close is to reset."""


@attrs.frozen
class Place:
    """An end of a portal outside of the fabric."""

    address: ListenAddress | Path

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:PATH``.

        Raises:
            AddressError: it is something else.
        """
        if text.startswith(UNIX):
            path = text.removeprefix(UNIX)
            if not path or "\0" in path:
                raise AddressError(f"{text!r} names no Unix socket: write unix:/path/of/the/socket")
            return cls(Path(path))
        try:
            return cls(ListenAddress.parse(text))
        except AddressError:
            raise AddressError(
                f"{text!r} is no place to connect: write HOST:PORT, say 127.0.0.1:5432, or unix:/path/of/the/socket"
            ) from None

    @classmethod
    def parse_target(cls, text: str) -> "Place":
        """Read what `parse` reads, where something can be connected to.

        Raises:
            AddressError: it is something else, or has no host or port.
        """
        place = cls.parse(text)
        if isinstance(place.address, ListenAddress) and (text.startswith(":") or not place.address.port):
            raise AddressError(f"{text!r} is nothing to connect to: write its host and its port, say 127.0.0.1:5432")
        return place

    async def connect(self) -> trio.SocketStream:
        """Connect to it.

        Raises:
            OSError: nothing answers there.
        """
        if isinstance(self.address, Path):
            return await trio.open_unix_socket(str(self.address))
        return await trio.open_tcp_stream(self.address.host, self.address.port)

    async def listen(self) -> "tuple[list[trio.SocketListener], Place]":
        """Open sockets to accept clients on.

        Returns:
            the sockets, which their taker closes with `close_all`, and where they listen, with the port they have.

        Raises:
            ConfigurationError: it cannot be listened on; the text says why.
        """
        if isinstance(self.address, Path):
            return [await _listen_at(self.address)], self
        listeners, address = await open_listeners(self.address, "--listen")
        return listeners, Place(address)

    async def close_all(self, listeners: list[trio.SocketListener]) -> None:
        """Close what `listen` opened; the file of a Unix socket goes with it."""
        for listener in listeners:
            await listener.aclose()
        if isinstance(self.address, Path):
            with suppress(OSError):
                self.address.unlink()

    def __str__(self) -> str:
        return f"{UNIX}{self.address}" if isinstance(self.address, Path) else str(self.address)


async def _listen_at(path: Path) -> trio.SocketListener:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(f"cannot listen on {UNIX}{path}: this system has no Unix sockets")
    await trio.lowlevel.checkpoint()
    _remove_stale(path)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.bind(str(path))
        os.chmod(path, OWNER_ONLY)  # noqa: PTH101 - a socket's file, before anybody can connect
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        reason = "its folder is not there" if isinstance(error, FileNotFoundError) else system_reason(error)
        if error.errno is None:  # Python's own: the system was not asked
            reason = f"its path has {len(os.fsencode(path))} bytes, and a Unix socket's may have a hundred or so"
        raise ConfigurationError(
            f"cannot listen on {UNIX}{path} ({reason}): choose another path with --listen"
        ) from None
    return trio.SocketListener(sock)


def _remove_stale(path: Path) -> None:
    """Remove the file of a socket that nobody listens on any more, as a process leaves it that was killed."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if stat.S_ISSOCK(path.lstat().st_mode):
            probe.settimeout(0)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def abort(stream: trio.SocketStream) -> None:
    """Close a connection so that its other end sees an error, and no end in good order.

    A Unix socket has no such thing: its other end sees an error only where what it had sent was not read.
    """
    with suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    stream.socket.close()
