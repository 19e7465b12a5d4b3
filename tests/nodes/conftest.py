"""Fixtures of tests between nodes: all in memory and in virtual time."""

from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import Entry
from tests.support.net import Lose, Net, World, open_net, open_world


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

    def send_some(self: Endpoint, peer: bytes, entries: Sequence[Entry], *given: object) -> None:
        send(self, peer, [entry for entry in entries if not lost[0](entry)], *given)

    def choose(which: Callable[[Entry], bool]) -> None:
        lost[0] = which

    monkeypatch.setattr(Endpoint, "send", send_some)
    return choose
