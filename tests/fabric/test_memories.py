"""What a node keeps for durable messages: bounded, and there again after a restart."""

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from autonomy_trio.fabric import memories
from autonomy_trio.fabric.memories import Memories, open_memories
from autonomy_trio.trust.identity import Bundle, verify_bundle
from autonomy_trio.trust.vault import Vault

NOW, LATER = 1_800_000_000, 1_800_000_600
SENDER, ONE, TWO = b"s" * 32, b"1" * 16, b"2" * 16


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_sync(function: Callable[..., object], *args: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@asynccontextmanager
async def opened(home: Path, now: float = NOW) -> AsyncGenerator[Memories]:
    async with open_memories(home, now) as found:
        yield found


async def test_tries_are_counted_over_restarts_until_the_envelope_is_settled(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with opened(tmp_path) as kept:
        assert kept.tries(SENDER, ONE) == 0
        for each in (ONE, ONE, TWO):
            await kept.begin(SENDER, each, LATER)
    async with opened(tmp_path) as kept:
        assert [kept.tries(SENDER, each) for each in (ONE, TWO)] == [2, 1]
        await kept.take_back(SENDER, ONE)
        await kept.take_back(SENDER, TWO)
        await kept.take_back(SENDER, TWO)
    async with opened(tmp_path) as kept:
        assert [kept.tries(SENDER, each) for each in (ONE, TWO)] == [1, 0]
        await kept.remember(SENDER, ONE, LATER)
        assert kept.tries(SENDER, ONE) == 0
    async with opened(tmp_path) as kept:
        assert kept.tries(SENDER, ONE) == 0
        assert kept.has(SENDER, ONE)


async def test_tries_are_forgotten_when_the_envelope_expires(tmp_path: Path, autojump_clock: object) -> None:
    async with opened(tmp_path) as kept:
        await kept.begin(SENDER, ONE, LATER)
        await kept.begin(SENDER, TWO, LATER + 60)
        await kept.expire(LATER)
        assert [kept.tries(SENDER, each) for each in (ONE, TWO)] == [0, 1]
    async with opened(tmp_path, LATER + 60) as kept:
        assert kept.tries(SENDER, TWO) == 0


async def test_the_tries_that_are_counted_are_bounded(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memories, "MOST_TRIED", 1)
    async with opened(tmp_path) as kept:
        for _ in range(2):
            await kept.begin(SENDER, ONE, LATER)
            await kept.begin(SENDER, TWO, LATER)
        assert [kept.tries(SENDER, each) for each in (ONE, TWO)] == [2, 0]


async def test_without_a_home_tries_are_counted_while_the_process_lives(autojump_clock: object) -> None:
    async with open_memories(None, NOW) as kept:
        await kept.begin(SENDER, ONE, LATER)
        assert kept.tries(SENDER, ONE) == 1
        await kept.take_back(SENDER, ONE)
        assert kept.tries(SENDER, ONE) == 0


async def test_the_bundles_that_are_kept_are_bounded_on_the_disk_too(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memories, "MOST_MET", 2)
    bundles = list[Bundle]()
    for number in range(5):
        with Vault.in_memory() as vault:
            vault.renew(NOW + number)
            bundles.append(verify_bundle(vault.bundle(NOW + number), NOW + number))
    async with opened(tmp_path) as kept:
        for bundle in bundles:
            await kept.meet(bundle)
        assert [kept.bundle(each.identifier, LATER) is not None for each in bundles] == [False] * 3 + [True] * 2
    with closing(sqlite3.connect(tmp_path / memories.FILE)) as file:
        found = {node for (node,) in file.execute("SELECT node FROM met")}
    assert found == {each.identifier for each in bundles[3:]}, "strangers fill the disk"
