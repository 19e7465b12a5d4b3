"""What a node keeps for durable messages: bounded, and there again after a restart."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from autonomy_trio.fabric import memories
from autonomy_trio.fabric.memories import Memories, open_memories

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
