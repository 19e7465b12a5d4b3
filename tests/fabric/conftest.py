"""A relay with neighbours, and a log that a test can look at."""

import logging
from collections.abc import Generator, MutableMapping
from typing import Any

import pytest
import structlog
import trio

from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.trust.vault import Vault
from tests.support.neighbours import NOW, Neighbourhood


@pytest.fixture
def neighbourhood(nursery: trio.Nursery) -> Neighbourhood:
    return Neighbourhood(Relay(Vault.in_memory(), now=lambda: NOW), nursery)


@pytest.fixture
def log() -> Generator[list[MutableMapping[str, Any]]]:
    """Every line that is logged, debug ones among them."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def calm(log: list[MutableMapping[str, Any]], caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """Fail the test when something was logged as an error, here or in a library."""
    yield
    assert [line for line in log if line["log_level"] in {"error", "critical"}] == []
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []
