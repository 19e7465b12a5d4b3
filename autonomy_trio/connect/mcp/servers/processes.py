"""An MCP server as a process of this machine: started, its standard error logged, and ended with all it has started."""

import os
import shlex
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final, final

import trio
from attrs import define, field

from autonomy_trio.connect.mcp.servers.lines import READ_AT_ONCE, Lines
from autonomy_trio.errors import ConfigurationError, ProtocolError

STOP_ASKED: Final = 2.0
"""Seconds that a server has to end after its standard input has: what MCP asks it to do."""
STOP_TERMINATED: Final = 1.0
"""Seconds that it has after SIGTERM, before SIGKILL."""
MOST_SAID: Final = 100
"""Lines of a server's that are logged in so many seconds; the next line then says how many were left out."""
SAID_WITHIN: Final = 10.0
MOST_SAID_LINE: Final = 2000
"""Characters of a line that are logged."""
MOST_STDERR_LINE: Final = 1024 * 1024
"""Bytes of a line of standard error; behind more than that nothing of it is logged."""

INHERITED: Final = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
"""The variables of the node's environment that a server gets, so that no secret of the node is among them."""


@final
@define(eq=False)
class Sayings:
    """Log lines of a server, of which there may be any number: few are written."""

    log: Any
    _since: float = float("-inf")
    _written: int = 0
    _left_out: int = 0

    def say(self, event: str, text: str) -> None:
        """Write a line, or count it."""
        now = trio.current_time()
        if now >= self._since + SAID_WITHIN:
            self._since, self._written = now, 0
        if self._written == MOST_SAID:
            self._left_out += 1
            return
        self._written += 1
        more = {"left_out": self._left_out} if self._left_out else {}
        self._left_out = 0
        self.log.info(event, text=text[:MOST_SAID_LINE], **more)


@final
@define(eq=False)
class Child:
    """A server's process, while it runs."""

    process: trio.Process
    sayings: Sayings
    ended: trio.Event = field(factory=trio.Event)

    def how(self) -> str:
        """Say how it ended, as the end of a sentence."""
        code = self.process.returncode
        if code is None:
            return "no longer answers"
        if code >= 0:
            return f"ended with exit code {code}"
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"


@asynccontextmanager
async def running(
    command: Sequence[str], env: Mapping[str, str], cwd: str | Path | None, sayings: Sayings
) -> AsyncGenerator[Child]:
    """Run a server for the length of a block, in a process group of its own, so that Ctrl-C here is not its affair.

    Behind the block, also a cancelled one, its standard input is closed; in 2 s it gets SIGTERM, in another one
    SIGKILL, with all of its group.

    Raises:
        ConfigurationError: there is no such command or folder, or it cannot be run.
    """
    process = await _start(command, env, cwd)
    child = Child(process, sayings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_log_stderr, process, sayings)
        nursery.start_soon(_wait, child)
        try:
            yield child
        finally:
            with trio.CancelScope(shield=True):
                await _end(process)
            nursery.cancel_scope.cancel()


async def _start(command: Sequence[str], env: Mapping[str, str], cwd: str | Path | None) -> trio.Process:
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(env)
    if cwd is not None and not await trio.Path(cwd).is_dir():
        raise ConfigurationError(f"the folder {cwd} for {shlex.quote(command[0])} is not there")
    try:
        return await trio.lowlevel.open_process(
            list(command), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, cwd=cwd, start_new_session=True
        )
    except FileNotFoundError:
        msg = f"there is no command {command[0]!r} on this machine: install it, or mend command="
        raise ConfigurationError(msg) from None
    except OSError as error:
        raise ConfigurationError(f"the command {command[0]!r} cannot be run: {error.strerror}") from None


async def _wait(child: Child) -> None:
    await child.process.wait()
    child.ended.set()


async def _end(process: trio.Process) -> None:
    """End a process and its group, in a bounded time."""
    assert process.stdin is not None  # noqa: S101 - it was started with pipes
    await process.stdin.aclose()
    for patience, number in ((STOP_ASKED, signal.SIGTERM), (STOP_TERMINATED, signal.SIGKILL)):
        with trio.move_on_after(patience):
            await process.wait()
            break
        _signal_group(process, number)
    await process.wait()
    # What it has started may live on; while it does, no other group has this number.
    _signal_group(process, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        assert stream is not None  # noqa: S101 - as above
        await stream.aclose()


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _log_stderr(process: trio.Process, sayings: Sayings) -> None:
    """Log what a server writes to standard error; what is too much for a line is read, and not logged."""
    assert process.stderr is not None  # noqa: S101 - it was started with pipes
    lines = Lines(MOST_STDERR_LINE, bytearray())
    with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
        while more := await process.stderr.receive_some(READ_AT_ONCE):
            try:
                complete = lines.feed(more)
            except ProtocolError as error:
                sayings.say("the MCP server's standard error is not logged any more", str(error))
                break
            for line in complete:
                if line.strip():
                    sayings.say("the MCP server says", line.decode(errors="replace"))
        while await process.stderr.receive_some(READ_AT_ONCE):
            pass
