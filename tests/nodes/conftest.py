"""Fixtures of tests between nodes: all in memory and in virtual time."""

from collections.abc import AsyncGenerator

import pytest

from tests.support.net import Net, World, open_net, open_world


@pytest.fixture
async def net() -> AsyncGenerator[Net]:
    async with open_net() as net:
        yield net


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    async with open_world() as world:
        yield world
