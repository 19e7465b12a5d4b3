"""Ctrl-C and SIGTERM: the first asks for a stop, the second stops at once, and one more ends even what hangs.

SIGHUP has files read again.
"""

import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, final

import attrs
import trio

from autonomy_trio.cli.output import say, say_error
from autonomy_trio.errors import AutonomyError

HANGING: Final = 1.0
"""Seconds in which a signal is taken up and a cancelled block ends, unless code of the user's lets nobody else run."""


@final
@attrs.define(eq=False)
class Stop:
    """What signals ask of a block; made by `stoppable`."""

    scope: trio.CancelScope
    asked: trio.Event = attrs.field(factory=trio.Event)
    drains: bool = False
    """Whether the block has work to finish by now, so that the first request does not cancel it."""
    _cancelled_at: float = float("inf")

    def ask(self) -> None:
        """Ask for a stop: the first time the event is set, the second time the block is cancelled."""
        if self.asked.is_set() or not self.drains:
            self.scope.cancel()
            self._cancelled_at = min(self._cancelled_at, time.monotonic())
        self.asked.set()

    def hangs(self) -> bool:
        """Tell whether the block was cancelled and has not ended since, as one that waits for a thread."""
        return time.monotonic() - self._cancelled_at > HANGING


@asynccontextmanager
async def stoppable() -> AsyncGenerator[Stop]:
    """Take Ctrl-C and SIGTERM in a block as requests to stop it.

    Until the block says that it `drains`, the first one cancels it; from then on the second one does. A signal that
    finds the one before not taken up, or a cancelled block that has not ended, ends the process as if nobody took it.
    """
    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:
        await trio.lowlevel.checkpoint()
        stop, sent_at = Stop(scope), float("inf")

        def receive(number: int, _: object) -> None:
            nonlocal sent_at
            if time.monotonic() - sent_at > HANGING or stop.hangs():
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            elif sent_at == float("inf"):  # else it is one request that came twice, from a terminal and a wrapper
                sent_at = time.monotonic()
                token.run_sync_soon(take_up)

        def take_up() -> None:
            nonlocal sent_at
            sent_at = float("inf")
            stop.ask()

        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def reload_at_hangup(
    read: Callable[[], None], stop: Stop, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Read anchors and policies again at each SIGHUP, until cancelled; what cannot be right changes nothing.

    Where the terminal has gone that the process was started at, SIGHUP is what it always was, a request to stop.
    """
    had_terminal = _has_terminal()
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        task_status.started()
        async for _ in hangups:
            if had_terminal and not _has_terminal():
                stop.ask()
                continue
            try:
                read()
            except (AutonomyError, OSError) as error:
                say_error(f"{error}; what was in force stays")
            else:
                say("anchors and policies were read again")


def _has_terminal() -> bool:
    with suppress(OSError):
        return os.isatty(0)
    return False
