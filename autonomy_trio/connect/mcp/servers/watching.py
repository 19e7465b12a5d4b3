"""The messages of a server, or of a client, and the answers to it, so that they do not fill this process's memory."""

from types import TracebackType
from typing import Final, Protocol, Self

import trio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse

from autonomy_trio.connect.mcp.servers.lines import Passing, Source

MOST_UNREAD: Final = 64
"""Answers that the other side has not read; nothing more of it is read meanwhile."""


class Sink(Protocol):
    """Where a transport's messages go to."""

    async def send(self, item: SessionMessage, /) -> None:
        """Send one."""
        ...

    async def aclose(self) -> None:
        """Send no more."""
        ...


class Replying:
    """The way to the other side, which knows how many answers to its requests wait to be sent."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._unread = 0
        self._changed = trio.Event()

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message."""
        if not isinstance(item.message, JSONRPCResponse | JSONRPCError):
            await self._sink.send(item)
            return
        self._unread += 1
        try:
            await self._sink.send(item)
        finally:
            self._unread -= 1
            self._changed.set()

    async def room(self) -> None:
        """Return when the other side has read enough to be heard again."""
        while self._unread >= MOST_UNREAD:
            self._changed = trio.Event()
            await self._changed.wait()

    async def aclose(self) -> None:
        """Send no more."""
        await self._sink.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class Watched(Passing):
    """Messages of the other side; tells when there are no more."""

    def __init__(self, source: Source, ended: trio.Event, replying: Replying) -> None:
        super().__init__(source)
        self._ended = ended
        self._replying = replying

    async def before_next(self) -> None:
        """Wait until it has read the answers to what it has asked."""
        await self._replying.room()

    async def at_end(self) -> None:
        """Tell that it has ended."""
        self._ended.set()
