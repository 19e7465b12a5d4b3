"""What follows the end of an agent, as a table, and against a model that counts."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.actors.declare import Restart
from autonomy_trio.actors.supervision import Intensity, Verdict, decide

FULL = (7.0, 8.0, 9.0)


@pytest.mark.parametrize(
    ("restart", "failed", "history", "verdict", "remembered"),
    [
        ("permanent", True, (), "restart", (10.0,)),
        ("permanent", False, (), "restart", (10.0,)),
        ("transient", True, (), "restart", (10.0,)),
        ("transient", False, (), "stop", ()),
        ("temporary", True, (), "stop", ()),
        ("temporary", False, (), "stop", ()),
        ("transient", True, (8.0, 9.0), "restart", (8.0, 9.0, 10.0)),
        ("transient", True, FULL, "give up", FULL),
        ("permanent", False, FULL, "give up", FULL),
        ("transient", False, FULL, "stop", FULL),
        ("temporary", True, FULL, "stop", FULL),
        ("transient", True, (5.0, 8.0, 9.0), "restart", (8.0, 9.0, 10.0)),  # 5 s ago is not within 5 s
        ("transient", True, (10.0, 10.0, 10.0), "give up", (10.0, 10.0, 10.0)),
        ("transient", True, (1.0, 2.0, 3.0), "restart", (10.0,)),
    ],
)
def test_the_verdict(
    restart: Restart, failed: bool, history: tuple[float, ...], verdict: Verdict, remembered: tuple[float, ...]
) -> None:
    assert decide(restart, failed=failed, history=history, now=10.0) == (verdict, remembered)


def test_an_intensity_of_no_restarts_gives_up_at_once() -> None:
    assert decide("permanent", failed=True, history=(), now=0, intensity=Intensity(0, 5))[0] == "give up"


@given(
    st.sampled_from(get_args(Restart)),
    st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60),
    st.integers(0, 5),
    st.integers(1, 60),
)
def test_no_more_restarts_in_any_period_than_the_intensity_allows_and_none_too_few(
    restart: Restart, ends: list[tuple[bool, int]], most: int, within: int
) -> None:
    """The model keeps every restart for ever and counts those in the period."""
    intensity, history, restarts, now = Intensity(most, within), (), list[int](), 0
    for failed, pause in ends:
        now += pause
        verdict, history = decide(restart, failed=failed, history=history, now=now, intensity=intensity)
        wanted = restart == "permanent" or (restart == "transient" and failed)
        room = sum(now - moment < within for moment in restarts) < most
        assert verdict == ("stop" if not wanted else "restart" if room else "give up")
        assert len(history) <= most
        if verdict == "restart":
            restarts.append(now)
