"""Ctrl-C and SIGTERM: the first asks for a stop, the second stops at once."""

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def stoppable() -> AsyncGenerator[trio.Event]:
    """Hold back Ctrl-C and SIGTERM in a block: the first one sets the event, the second one cancels the block."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def watch(task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    if stop.is_set():
                        nursery.cancel_scope.cancel()
                    stop.set()

        await nursery.start(watch)
        yield stop
        nursery.cancel_scope.cancel()
