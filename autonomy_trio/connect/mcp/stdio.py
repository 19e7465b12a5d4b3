"""A process's standard input and output as MCP wants them: nobody else reads or writes there.

The SDK's own reads in threads that cannot be told to stop, so a signal would wait for the client's next line.
"""

import os
import stat
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio

from autonomy_trio.connect.mcp.servers.lines import over_lines
from autonomy_trio.connect.mcp.servers.watching import Replying, Watched
from autonomy_trio.logs import get_log

CHUNK: Final = 64 * 1024
"""Bytes that are read of a file at once, unless less is asked for."""

INPUT: Final = 0
OUTPUT: Final = 1
ERRORS: Final = 2

_log = get_log()


@asynccontextmanager
async def standard_streams(
    stdin: int = INPUT, stdout: int = OUTPUT
) -> AsyncGenerator[tuple[trio.abc.Stream, trio.abc.Stream]]:
    """Take two descriptors for the length of a block, and give them back.

    In the block the descriptors themselves lead elsewhere: what handlers print goes to standard error, and what they
    read is empty.

    Args:
        stdin: what the first stream reads.
        stdout: what the second stream writes.
    """
    with _private(stdin, os.O_RDONLY) as source, _private(stdout, os.O_WRONLY) as target:
        async with _opened(source) as reading, _opened(target) as writing:
            yield reading, writing


@asynccontextmanager
async def stdio_messages(stdin: int = INPUT, stdout: int = OUTPUT) -> AsyncGenerator[tuple[Watched, Replying]]:
    """Carry messages over `standard_streams` for the length of a block.

    The input's end closes the stream of messages. A client that does not read is read no further.

    Args:
        stdin: where the client's messages come from.
        stdout: where ours go to.

    Raises:
        ProtocolError: a line is longer than any may be.
    """
    async with (
        standard_streams(stdin, stdout) as (source, sink),
        over_lines(source, sink, _strange) as (reading, writing),
    ):
        replying = Replying(writing)
        yield Watched(reading, trio.Event(), replying), replying


def _strange(line: bytes) -> None:
    if line.strip():
        _log.warning("an MCP client sent what is no message", bytes=len(line))


class _File(trio.abc.Stream):
    """A file on a disk, which never makes a thread wait for long; it cannot be waited for as pipes can."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await trio.to_thread.run_sync(os.read, self._descriptor, max_bytes or CHUNK)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        while left:
            left = left[await trio.to_thread.run_sync(os.write, self._descriptor, left) :]

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def _opened(descriptor: int) -> AsyncGenerator[trio.abc.Stream]:
    """Open a descriptor for as long as the block; it is not closed."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        yield _File(descriptor)
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
