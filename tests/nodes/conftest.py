"""Fixtures of tests between nodes: all in memory and in virtual time."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import pytest

from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import Entry
from autonomy_trio.wire.introductions import Speaker
from tests.support.net import Lose, Net, World, open_net, open_world
from tests.support.virtual import run_threads_in_place


@pytest.fixture(autouse=True)
def no_time_passes_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    run_threads_in_place(monkeypatch)


@pytest.fixture
async def net() -> AsyncGenerator[Net]:
    async with open_net() as net:
        yield net


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    async with open_world() as world:
        yield world


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Lose:
    """Let entries be lost on the way."""
    lost: list[Callable[[Entry], bool]] = [lambda _: False]
    send = Endpoint.send

    def send_some(  # noqa: PLR0917 - as what it stands for
        self: Endpoint, peer: bytes, entries: Sequence[Entry], now: float, ticks: float, speakers: Mapping[int, Speaker]
    ) -> None:
        kept = [position for position, entry in enumerate(entries) if not lost[0](entry)]
        speaking = {index: speakers[position] for index, position in enumerate(kept) if position in speakers}
        send(self, peer, [entries[position] for position in kept], now, ticks, speaking)

    def choose(which: Callable[[Entry], bool]) -> None:
        lost[0] = which

    monkeypatch.setattr(Endpoint, "send", send_some)
    return choose
