"""JSON-RPC as lines over two byte streams: MCP's stdio transport, for either side of it.

The SDK's own has no bound on a line, and its side for servers reads standard input in a thread that nothing can cancel.

Source: Model Context Protocol 2025-11-25, "Transports", stdio.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from autonomy_trio.errors import ProtocolError

MOST_LINE: Final = 64 * 1024 * 1024
"""Bytes of one line: what one answer of a server may have."""
READ_AT_ONCE: Final = 64 * 1024
"""Bytes that are read from a stream at a time."""

Messages = MemoryObjectReceiveStream[SessionMessage | Exception]
Replies = MemoryObjectSendStream[SessionMessage]


class Source(Protocol):
    """Where a transport's messages come from."""

    async def receive(self) -> SessionMessage | Exception:
        """Return the next one."""
        ...

    async def aclose(self) -> None:
        """Read no more."""
        ...


class Passing:
    """Messages of a transport, handed on one by one; what derives from it can wait before, and act at their end."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def before_next(self) -> None:
        """Return when another message may be read."""

    def took(self, message: SessionMessage | Exception) -> None:
        """Take note of a message that is handed on."""

    async def at_end(self) -> None:
        """Return when the end may be told."""

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message.

        Raises:
            anyio.EndOfStream: there are no more.
        """
        await self.before_next()
        try:
            message = await self._source.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            end = error
        else:
            self.took(message)
            return message
        await self.at_end()
        raise end

    async def aclose(self) -> None:
        """Read no more."""
        await self._source.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


@define(eq=False)
class Lines:
    """Cuts bytes into lines, and holds no more of one than it may have."""

    most: int
    _held: bytearray
    _seen: int = 0
    """How many of the held bytes have no end of line in them."""

    def feed(self, more: bytes | bytearray) -> list[bytes]:
        """Take bytes, and return the lines that they complete, without their ends.

        Raises:
            ProtocolError: a line is longer than any may be.
        """
        self._held += more
        end = self._held.rfind(b"\n", self._seen)
        if end < 0:
            found = []
        else:
            found = bytes(self._held[:end]).split(b"\n")
            del self._held[: end + 1]
        self._seen = len(self._held)
        if self._seen > self.most or any(len(line) > self.most for line in found):
            raise ProtocolError(f"a line has more than {self.most:,} bytes")
        return [line.removesuffix(b"\r") for line in found]


def _forget(message: SessionMessage) -> None:
    """Take no note of what was written."""


@asynccontextmanager
async def over_lines(
    source: trio.abc.ReceiveStream,
    sink: trio.abc.SendStream,
    strange: Callable[[bytes], None],
    written: Callable[[SessionMessage], None] = _forget,
) -> AsyncGenerator[tuple[Messages, Replies]]:
    """Carry JSON-RPC over two streams, which stay the caller's, for the length of a block.

    What is read ends with `source`, or when `sink` breaks.

    Args:
        source: where lines come from.
        sink: where lines go to.
        strange: is told each line that is no JSON-RPC, which is left out.
        written: is told each message that `sink` has taken, or never will.

    Raises:
        ProtocolError: a line is longer than any may be.
    """
    arrived, messages = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    replies, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    with messages, replies, arrived, leaving:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read, source, arrived, strange)
            nursery.start_soon(_write, sink, leaving, arrived, written)
            yield messages, replies
            nursery.cancel_scope.cancel()


async def _read(
    source: trio.abc.ReceiveStream,
    arrived: MemoryObjectSendStream[SessionMessage | Exception],
    strange: Callable[[bytes], None],
) -> None:
    lines = Lines(MOST_LINE, bytearray())
    with arrived:
        try:
            while more := await source.receive_some(READ_AT_ONCE):
                for line in lines.feed(more):
                    try:
                        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                    except ValueError:
                        strange(line)
                    else:
                        await arrived.send(SessionMessage(message))
        except (
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
        ):
            return  # the other side has gone, or who listens here: either way nothing more is read


async def _write(
    sink: trio.abc.SendStream,
    leaving: MemoryObjectReceiveStream[SessionMessage],
    arrived: MemoryObjectSendStream[SessionMessage | Exception],
    written: Callable[[SessionMessage], None],
) -> None:
    # A task of its own: whoever sends may be cancelled, and half a line would spoil all that follow.
    is_broken = False
    async for each in leaving:
        line = each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        if not is_broken:
            try:
                await sink.send_all(line)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                arrived.close()  # so that nobody waits for answers to what could not be sent
                is_broken = True
        written(each)
