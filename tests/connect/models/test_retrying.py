"""When a request is tried again."""

import email.utils

import pytest

from autonomy_trio.connect.models.retrying import FIRST_PAUSE, MOST_PAUSE, pause, retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("1.5", 1.5),
        ("-3", 0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0),
        ("Fri, 99 Foo 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_pauses_double_and_are_spread_up_to_the_most() -> None:
    assert [pause(tries, None, 1.0) for tries in (1, 2, 3)] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pause(1, None, 0.0) == FIRST_PAUSE / 2
    assert pause(50, None, 1.0) == MOST_PAUSE


def test_a_pause_is_no_shorter_than_what_the_vendor_asks_for_and_no_longer_than_the_most() -> None:
    assert pause(1, 7, 0.0) == 7
    assert pause(1, 7, 1.0) == 7 + FIRST_PAUSE
    assert pause(1, 1e9, 1.0) == MOST_PAUSE
