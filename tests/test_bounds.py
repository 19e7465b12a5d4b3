"""How deep a payload may be and of how many parts, whatever else is in it."""

import datetime
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.bounds import MOST_DEPTH, MOST_PARTS, excess

NOW = datetime.datetime(2026, 5, 4, tzinfo=datetime.UTC)
# Bytes that could begin a list or map, so that every payload here is walked.
SUSPECT = b"\x90" * (MOST_DEPTH + 1)
DEEP = f"is nested more than {MOST_DEPTH} deep"
MANY = "has more than 16,384 objects, lists and maps in it"

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from([300, 70_000]).map(lambda size: "x" * size)
    | st.sampled_from([300, 70_000]).map(lambda size: b"x" * size)
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 100), st.sampled_from([1, 2, 3, 300, 70_000]).map(bytes))
    | st.just(NOW),
    lambda inside: st.lists(inside) | st.dictionaries(st.text() | st.integers(-9, 9), inside),
)


def depth(value: object) -> int:
    match value:
        case list():
            return 1 + max(map(depth, value), default=0)
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
        case _:
            return 0


@given(values, st.integers(MOST_DEPTH - 6, MOST_DEPTH + 1))
def test_the_depth_of_any_value_is_found(value: object, around: int) -> None:
    for _ in range(around - 1):
        value = [value]
    # What follows the nested value shows that its end was found too.
    payload = msgspec.msgpack.encode([SUSPECT, value, SUSPECT])
    assert excess(payload) == (DEEP if depth(value) + 1 > MOST_DEPTH else None)


@pytest.mark.parametrize("count", [15, 16, 65_535, 65_536])
def test_short_and_long_lists_and_maps_end_where_they_say(count: int) -> None:
    deep: object = 0
    for _ in range(MOST_DEPTH):
        deep = [deep]
    for wide in ([0] * count, dict.fromkeys(range(count), 0)):
        assert excess(msgspec.msgpack.encode([SUSPECT, wide, SUSPECT])) is None
        assert excess(msgspec.msgpack.encode([SUSPECT, wide, deep])) == DEEP


def test_the_last_part_that_may_be_passes_and_one_more_does_not() -> None:
    parts = [[] for _ in range(MOST_PARTS - 1)]
    assert excess(msgspec.msgpack.encode(parts)) is None
    assert excess(msgspec.msgpack.encode([*parts, {}])) == MANY


@given(st.binary(max_size=200))
def test_what_is_no_msgpack_ends_too(payload: bytes) -> None:
    assert excess(payload) in (None, DEEP)
    assert excess(SUSPECT + payload) is None, "what follows the first value is not its part"
    assert excess(b"\x91" * 60 + payload) in (None, DEEP)


def test_what_a_payload_declares_is_not_made() -> None:
    for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
        assert excess(b"\x92" + b"\xc4\x41" + SUSPECT + head + b"\xff" * 4) is None
    assert sys.getrecursionlimit() > MOST_DEPTH
