"""MCP over a process's standard input and output: a line of JSON a message, and nothing else on them.

The SDK's own reads in threads that cannot be told to stop, so a signal would wait for the client's next line.
"""

import os
import stat
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Final

import anyio
import mcp_types as types
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from autonomy_trio.connect.mcp.servers.watching import Replying, Watched
from autonomy_trio.logs import get_log

MOST_LINE: Final = 4 * 1024 * 1024
"""Bytes of one message; a longer one is skipped."""

CHUNK: Final = 64 * 1024
"""Bytes that are read at once."""

INPUT: Final = 0
OUTPUT: Final = 1
ERRORS: Final = 2

_log = get_log()


@asynccontextmanager
async def stdio_messages(stdin: int = INPUT, stdout: int = OUTPUT) -> AsyncGenerator[tuple[Watched, Replying]]:
    """Carry messages over two descriptors for the length of a block.

    In the block the descriptors themselves lead elsewhere: what handlers print goes to standard error, and what they
    read is empty. The input's end closes the stream of messages. A client that does not read is read no further.

    Args:
        stdin: where the client's messages come from.
        stdout: where ours go to.
    """
    with _private(stdin, os.O_RDONLY) as source, _private(stdout, os.O_WRONLY) as target:
        received, reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        writing, sent = anyio.create_memory_object_stream[SessionMessage](0)
        async with _opened(source) as lines, _opened(target) as out, trio.open_nursery() as nursery:
            nursery.start_soon(_receive, lines, received)
            nursery.start_soon(_send, sent, out)
            with received, reading, writing, sent:
                replying = Replying(writing)
                yield Watched(reading, trio.Event(), replying), replying
                nursery.cancel_scope.cancel()


class _Threaded:
    """A file on a disk, which never makes a thread wait for long; it cannot be waited for as pipes can."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def receive_some(self, most: int) -> bytes:
        return await trio.to_thread.run_sync(os.read, self._descriptor, most)

    async def send_all(self, data: bytes) -> None:
        while data:
            written = await trio.to_thread.run_sync(os.write, self._descriptor, data)
            data = data[written:]


@asynccontextmanager
async def _opened(descriptor: int) -> AsyncGenerator["trio.lowlevel.FdStream | _Threaded"]:
    """Open a descriptor for as long as the block; it is not closed."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        yield _Threaded(descriptor)
        return
    stream = trio.lowlevel.FdStream(_own(descriptor))
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


def _own(descriptor: int) -> int:
    """Return a descriptor that can be made not to block, which a terminal's would be for all who have it."""
    if os.isatty(descriptor):
        return os.open(os.ttyname(descriptor), os.O_RDWR | os.O_NOCTTY)
    return os.dup(descriptor)


@contextmanager
def _private(descriptor: int, flags: int) -> Generator[int]:
    """Take a standard descriptor away from everybody else in the process, and give it back."""
    private = os.dup(descriptor)
    elsewhere = os.open(os.devnull, flags) if flags == os.O_RDONLY else os.dup(ERRORS)
    try:
        os.dup2(elsewhere, descriptor)
        yield private
    finally:
        os.dup2(private, descriptor)
        os.close(elsewhere)
        os.close(private)


async def _receive(
    lines: "trio.lowlevel.FdStream | _Threaded", received: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    """Read messages until the client closes its end; what is no message is skipped, for it has no answer."""
    with received:
        async with aclosing(_lines(lines)) as found:
            async for line in found:
                try:
                    message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValidationError as error:
                    _log.warning("an MCP client sent what is no message", bytes=len(line))
                    await received.send(error)
                    continue
                await received.send(SessionMessage(message))


async def _lines(source: "trio.lowlevel.FdStream | _Threaded") -> AsyncGenerator[bytes]:
    """Yield lines that are not empty, and of one that is too long nothing."""
    pending, too_long = bytearray(), False
    while chunk := await source.receive_some(CHUNK):
        pending += chunk
        *complete, rest = pending.split(b"\n")
        pending = bytearray(rest)
        for line in complete:
            if line.strip() and not too_long:
                yield bytes(line)
            too_long = False
        if len(pending) > MOST_LINE:
            _log.warning("an MCP client's message was skipped: it is too long", most=MOST_LINE)
            pending, too_long = bytearray(), True


async def _send(sent: MemoryObjectReceiveStream[SessionMessage], out: "trio.lowlevel.FdStream | _Threaded") -> None:
    """Write messages, each a line, until there can be no more; a client that has gone needs none."""
    with sent:
        try:
            async for each in sent:
                await out.send_all(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        except trio.BrokenResourceError:
            _log.info("the MCP client has closed its end")
