"""``run --reload``: a process that runs the node, and this one, which starts it again with each change of its code.

Code is loaded once a process, so new code gets a new one. The two share a terminal, and Ctrl-C there is for this one,
which passes it on: a node that got it twice would stop at once. A node notices when this process has gone by a pipe
that nothing else holds open, its lifeline.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, final

import attrs
import trio
from watchfiles import Change, DefaultFilter, awatch

from autonomy_trio.cli.output import say
from autonomy_trio.cli.signals import Stop, stoppable

LONGEST_DRAIN: Final = 15.0
"""Seconds that a node may take to stop before new code: more than its grace and a slow ``on_stop``."""

LONGEST_END: Final = 3.0
"""Seconds that a process may take to end once it was told to do so at once."""

MOST_NAMED: Final = 3
"""Changed files that are named."""

LIFELINE: Final = "--lifeline"
"""The option of ``run`` that tells it the descriptor of its lifeline."""


async def run_reloading(arguments: Sequence[str], folder: Path) -> None:
    """Run ``python -m autonomy_trio run …`` until a signal, and again whenever a .py file below a folder changes.

    Args:
        arguments: what stands behind ``run``.
        folder: its own and its subfolders' files are watched, but not those of environments and caches.

    On cancellation, as by a second signal, the process is told to end at once, and killed if it does not.
    """
    async with stoppable() as stop, _watching(folder) as changes:
        stop.drains = True
        say(f"watching the .py files below {folder}")
        while not stop.asked.is_set():
            changes.heard = trio.Event()
            await _run_until_changed(arguments, changes, stop)
            if not stop.asked.is_set():
                say(f"{changes.words(folder)}: starting again")
    say("stopped")


@final
@attrs.define(eq=False)
class _Changes:
    """What has changed; whoever wants to hear of the next change replaces the event."""

    heard: trio.Event = attrs.field(factory=trio.Event)
    files: list[Path] = attrs.field(factory=list[Path])

    def words(self, folder: Path) -> str:
        """Say what has changed last."""
        names = [str(file.relative_to(folder)) for file in self.files[:MOST_NAMED]]
        rest = len(self.files) - len(names)
        return f"{', '.join(names)}{f' and {rest} more' if rest else ''} changed"


@asynccontextmanager
async def _watching(folder: Path) -> AsyncGenerator[_Changes]:
    changes, enough = _Changes(), trio.Event()

    async def watch() -> None:
        # A watch can be told to end but not be cancelled: it waits in a thread.
        async with aclosing(awatch(folder, watch_filter=_OnlyCode(), stop_event=enough)) as found:
            async for each in found:
                changes.files = sorted(Path(path) for _, path in each)
                changes.heard.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            yield changes
        finally:
            enough.set()


class _OnlyCode(DefaultFilter):
    """Lets through what is Python, outside of the folders that tools and environments fill."""

    def __call__(self, change: Change, path: str) -> bool:
        return path.endswith(".py") and super().__call__(change, path)


async def _run_until_changed(arguments: Sequence[str], changes: _Changes, stop: Stop) -> None:
    with _started(arguments) as process:

        async def ended() -> None:
            await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)

        try:
            await _first(ended, changes.heard.wait, stop.asked.wait)
            if process.poll() is not None and not stop.asked.is_set():
                say("it has ended: waiting for a change")
                await _first(changes.heard.wait, stop.asked.wait)
            elif stop.asked.is_set():
                say("stopping: the agents finish what they have; once more to stop at once")
            process.terminate()
            with trio.move_on_after(float("inf") if stop.asked.is_set() else LONGEST_DRAIN):
                await ended()
        finally:
            with trio.CancelScope(shield=True):
                await _end(process, ended)


async def _end(process: subprocess.Popen[bytes], ended: Callable[[], Awaitable[None]]) -> None:
    """End a process that was told to stop already, if it has not."""
    process.terminate()
    with trio.move_on_after(LONGEST_END):
        await ended()
    process.kill()
    await ended()


async def _first(*waits: Callable[[], Awaitable[None]]) -> None:
    """Return when the first of several waits is over."""
    async with trio.open_nursery() as nursery:

        async def one(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(one, wait)


@contextmanager
def _started(arguments: Sequence[str]) -> Generator[subprocess.Popen[bytes]]:
    """Start a node in a process that Ctrl-C at the terminal does not reach and that ends with this one."""
    theirs, ours = os.pipe()
    try:
        command = [sys.executable, "-m", "autonomy_trio", "run", LIFELINE, str(theirs), *arguments]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a process inherits
        try:
            process = subprocess.Popen(command, pass_fds=[theirs])  # noqa: S603 - this program, with the user's arguments
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(theirs)
        yield process
    finally:
        os.close(ours)
