"""Relays killed as by a crash lose nothing that was stored, in short; ``python -m benchmarks losses`` in full."""

from collections import Counter

import pytest

from benchmarks import losses
from benchmarks.measure import WrongResultError
from tests.support.redis import PROGRAM

SECONDS = 2.0
RATE = 100


def test_one_of_two_relays_of_a_cluster_killed_under_durable_sends_loses_nothing_and_repeats_nothing() -> None:
    if PROGRAM is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    found = losses.measure(RATE, SECONDS, PROGRAM)
    found.check()
    assert len(found.stored) + len(found.refused) == RATE * SECONDS
    assert max(found.stored) > RATE * SECONDS * 0.9, "the other relay stores what the dead one cannot"


def test_both_relays_with_sqlite_killed_and_started_again_lose_nothing_and_repeat_nothing() -> None:
    found = losses.measure(RATE, SECONDS, None)
    found.check()
    assert len(found.stored) + len(found.refused) == RATE * SECONDS
    assert max(found.stored) > RATE * SECONDS * 0.9, "what was sent meanwhile waits for a relay"


@pytest.mark.parametrize(
    ("handled", "words"), [({1: 1}, "stored and not handled: 1"), ({1: 1, 2: 2}, "handled twice: 1")]
)
def test_a_run_that_lost_or_repeated_something_is_caught(handled: dict[int, int], words: str) -> None:
    with pytest.raises(WrongResultError, match=words):
        losses.Losses(stored=[1, 2], handled=Counter(handled)).check()
