"""What follows the end of a child, as OTP's supervisor documents it, as a table and against a model that counts."""

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio import agent, supervise
from autonomy_trio.actors.spec import Restart
from autonomy_trio.actors.supervision import Begin, History, Strategy, Supervise, decide, factories, pool
from autonomy_trio.errors import DeclarationError

RESTARTS = get_args(Restart)
STRATEGIES = get_args(Strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("restarts", list(itertools.product(RESTARTS, repeat=3)))
@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.parametrize("full", [True, False])
def test_the_truth_table_of_otp(
    strategy: Strategy, restarts: tuple[Restart, ...], index: int, failed: bool, full: bool
) -> None:
    """Strategy, restart of each child, who ended, how, and whether the intensity is used up."""
    times = (7.0, 8.0, 9.0) if full else (1.0, 2.0, 3.0)
    verdict, history = decide(Supervise((), strategy), restarts, index, failed=failed, history=History(times), now=10.0)
    if restarts[index] == "temporary" or (restarts[index] == "transient" and not failed):
        assert (verdict, history) == ("forget", History(times))
    elif full:
        assert verdict == "give up"
    else:
        affected = {"one_for_one": {index}, "one_for_all": {0, 1, 2}, "rest_for_one": set(range(index, 3))}[strategy]
        # A temporary child that its supervisor ends with a sibling is not started again.
        stop = {each for each in affected if restarts[each] == "temporary"}
        assert verdict == Begin(tuple(sorted(affected - stop)), tuple(sorted(stop)), 0.0)
        assert history.times == (10.0,)


def test_an_intensity_of_no_restarts_gives_up_at_once() -> None:
    verdict, _ = decide(Supervise((), max_restarts=0), ["permanent"], 0, failed=True, history=History(), now=0)
    assert verdict == "give up"


@given(
    st.sampled_from(RESTARTS),
    st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60),
    st.integers(0, 5),
    st.integers(1, 60),
)
def test_no_more_restarts_in_any_period_than_the_intensity_allows_and_none_too_few(
    restart: Restart, ends: list[tuple[bool, int]], most: int, within: int
) -> None:
    """The model keeps every restart for ever and counts those in the period, its bounds included."""
    declared, history, restarts, now = Supervise((), max_restarts=most, within=within), History(), list[int](), 0
    for failed, pause in ends:
        now += pause
        verdict, history = decide(declared, [restart], 0, failed=failed, history=history, now=now)
        wanted = restart == "permanent" or (restart == "transient" and failed)
        room = sum(now - moment <= within for moment in restarts) < most
        assert verdict == ("forget" if not wanted else Begin((0,), (), 0.0) if room else "give up")
        assert len(history.times) <= most
        if isinstance(verdict, Begin):
            restarts.append(now)


def test_the_pause_before_a_restart_doubles_up_to_the_longest_and_begins_anew_after_a_calm() -> None:
    declared = Supervise((), max_restarts=100, backoff=(1.0, 10.0))
    history, pauses = History(), list[float]()
    for now in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1000.0):
        verdict, history = decide(declared, ["permanent"], 0, failed=True, history=history, now=now, chance=0.5)
        assert isinstance(verdict, Begin)
        pauses.append(verdict.pause)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 0.5]


@agent
class Lamp:
    on: bool = False


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((), {}, r"supervise\(\) has no children: name at least one agent"),
        ((Lamp,), {"strategy": "some"}, "choose one of one_for_one, one_for_all, rest_for_one"),
        ((Lamp,), {"max_restarts": -1}, "give a number, 0 or more"),
        ((Lamp,), {"within": 0}, "give seconds, more than 0"),
        ((Lamp,), {"within": "5 s"}, r"supervise\(within='5 s'\): give seconds, more than 0"),
        ((Lamp,), {"backoff": 1}, r"supervise\(backoff=1\): give the first and the longest pause in seconds"),
        ((Lamp,), {"backoff": (1,)}, "give the first and the longest pause"),
        ((Lamp,), {"backoff": ("0.1", "30")}, "give the first and the longest pause"),
        ((Lamp,), {"backoff": (2, 1)}, "give the first and the longest pause"),
        ((Lamp,), {"backoff": (-1, 1)}, "give the first and the longest pause"),
    ],
)
def test_a_supervisor_that_cannot_be_right_is_refused(
    arguments: tuple[type, ...], options: dict, sentence: str
) -> None:
    with pytest.raises(DeclarationError, match=sentence):
        supervise(*arguments, **options)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_pool_without_agents_is_refused(size: int) -> None:
    with pytest.raises(DeclarationError, match="a pool has at least 1 agent"):
        pool(Lamp, size)


def test_the_agents_of_an_app_are_found_in_its_supervisors_and_pools() -> None:
    assert list(factories([Lamp, supervise(Lamp, supervise(pool(Lamp, 4)))])) == [Lamp] * 3
