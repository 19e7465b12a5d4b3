"""A disk that is full under a relay's store, as a process meets it: no file may grow past a limit of the system."""

import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
from attrs import field, frozen

from autonomy_trio import Node, Request, agent, on, open_node
from autonomy_trio.errors import NotStored
from tests.support.processes import PATIENCE, ROOT, environment, free_port

DISK: Final = 1024
"""KiB that a file may have."""
MOST: Final = 200
"""Messages that cannot all fit."""


@frozen
class Parcel:
    number: int
    content: bytes


@frozen
class Ping(Request[int]):
    number: int


@agent
class Shelf:
    numbers: list[int] = field(factory=list)

    @on(Parcel, allow="true")
    def keep(self, message: Parcel) -> None:
        self.numbers.append(message.number)

    @on(Ping, allow="true")
    def ping(self, message: Ping) -> int:
        return message.number


@asynccontextmanager
async def relay(folder: Path, port: int, *, limit: int | None) -> AsyncGenerator[str]:
    """A relay with a store, as a process whose files may grow to so many KiB."""
    command = [sys.executable, "-m", "autonomy_trio", "relay", "--listen", f"127.0.0.1:{port}"]
    command += ["--home", str(folder / "relay"), "--store", f"sqlite:{folder / 'store'}"]
    script = f"{'' if limit is None else f'ulimit -f {limit}; '}exec {shlex.join(command)}"
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                ["bash", "-c", script],
                cwd=ROOT,
                env=environment(folder),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        )
        with trio.fail_after(PATIENCE):
            assert (await process.stdout.receive_some()).startswith(b"relay")
        yield f"ws://127.0.0.1:{port}"
        process.terminate()


async def fill(sender: Node, address: str) -> list[int]:
    """Send parcels until one is refused; return which were stored."""
    stored: list[int] = []
    for number in range(MOST):
        try:
            await sender.ref(address, Shelf).tell(Parcel(number, bytes(32 * 1024)), durable=True)
        except NotStored:
            return stored
        stored.append(number)
    pytest.fail("nothing was refused: was the disk ever full?")


async def test_a_full_disk_under_the_store_refuses_what_is_new_loses_nothing_and_stops_nothing_else(
    tmp_path: Path,
) -> None:
    shelf = Shelf()
    port = free_port()
    async with open_node(home=tmp_path / "sender") as sender:
        async with relay(tmp_path, port, limit=DISK) as url:
            await sender.attach(url)
            async with open_node([lambda: shelf], home=tmp_path / "shelf", relay=url) as node:
                address = node.address("shelf")
                assert await sender.ref(address, Shelf).ask(Ping(1)) == 1
            with trio.fail_after(2 * PATIENCE):
                stored = await fill(sender, address)
            assert len(stored) > 3
            async with open_node([Shelf], relay=url) as other, open_node(relay=url) as near:
                assert await near.ref(other.address("shelf"), Shelf).ask(Ping(2)) == 2
        async with (
            relay(tmp_path, port, limit=None) as url,
            open_node([lambda: shelf], home=tmp_path / "shelf", relay=url),
        ):
            with trio.fail_after(PATIENCE):
                while len(shelf.numbers) < len(stored):  # noqa: ASYNC110 - another node hands them over
                    await trio.sleep(0.01)
    # One that was refused may have been stored all the same, and none comes twice.
    assert set(stored) <= set(shelf.numbers)
    assert len(set(shelf.numbers)) == len(shelf.numbers) <= len(stored) + 1
