import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.fabric.links.buckets import Places, TokenBucket


def test_a_bucket_gives_its_burst_at_once_and_then_delays() -> None:
    bucket = TokenBucket(rate=10, burst=100)
    assert bucket.take(100, now=0) == 0
    assert bucket.take(5, now=0) == pytest.approx(0.5)
    assert bucket.take(5, now=0) == pytest.approx(1.0)
    assert bucket.take(5, now=2) == 0


def test_a_bucket_refuses_what_it_does_not_hold_and_takes_nothing_then() -> None:
    bucket = TokenBucket(rate=1, burst=2)
    assert [bucket.try_take(1, now=0) for _ in range(4)] == [True, True, False, False]
    assert bucket.try_take(1, now=1)


def test_a_bucket_can_be_forgotten_when_it_is_full_again() -> None:
    bucket = TokenBucket(rate=1, burst=2)
    assert bucket.is_full(now=7)
    assert bucket.try_take(2, now=7)
    assert not bucket.is_full(now=8)
    assert bucket.is_full(now=9)


@given(
    st.floats(0.1, 1e6),
    st.floats(0.1, 1e6),
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 100)), max_size=50),
)
def test_who_waits_as_told_never_gets_more_than_burst_and_rate(
    rate: float, burst: float, takes: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst)
    now = taken = 0.0
    for tokens, pause in takes:
        now += bucket.take(tokens, now)
        taken += tokens
        assert taken <= (burst + rate * now) * (1 + 1e-6) + 1e-6
        now += pause


def test_places_are_bounded_in_all_and_for_one_address() -> None:
    places = Places(most=3, most_each=2)
    assert [places.try_take("a"), places.try_take("a"), places.try_take("a")] == [True, True, False]
    assert [places.try_take("b"), places.try_take("b")] == [True, False]
    places.free("a")
    assert places.try_take("b")
    assert places.taken == 3


def test_places_forget_addresses_that_left() -> None:
    places = Places(most=1, most_each=1)
    for number in range(1000):
        assert places.try_take(str(number))
        assert not places.try_take("another")
        places.free(str(number))
    assert len(places._by_address) == 0
