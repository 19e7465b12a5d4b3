"""Virtual time in which a disk takes none."""

from collections.abc import Callable

import pytest
import trio


def run_threads_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in place what is for a thread: virtual time does not wait for one, and hours pass while it opens a file."""

    async def run_in_place(work: Callable[..., object], *args: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_in_place)
