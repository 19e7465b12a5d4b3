import datetime
import enum
import json
from collections.abc import Mapping
from types import GenericAlias
from typing import Any, Literal

import pytest
from attrs import frozen

from autonomy_trio.connect.values import from_json, to_json
from autonomy_trio.errors import MessageError

NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


class Colour(enum.Enum):
    RED = "red"
    RAW = b"\x00"


@frozen
class Inner:
    data: bytes
    when: datetime.datetime | None = None


@frozen
class Other:
    name: str


@frozen
class Everything:
    number: int
    ratio: float
    flag: bool
    text: str
    raw: bytes
    when: datetime.datetime
    colour: Colour
    word: Literal["a", "b"]
    several: tuple[Inner, ...]
    pair: tuple[int, bytes]
    by_number: dict[int, bytes]
    by_colour: Mapping[Colour, int]
    one_of: Inner | Other | list[bytes] | None
    either: bytes | int
    anything: Any


THING = Everything(
    1,
    2.5,
    True,  # noqa: FBT003 - a message's field
    "é",
    b"\xff",
    NOON,
    Colour.RAW,
    "a",
    (Inner(b"x", NOON), Inner(b"")),
    (3, b"y"),
    {-4: b"z"},
    {Colour.RED: 5},
    Inner(b"i"),
    b"e",
    [{"k": None}],
)


def test_what_is_written_as_json_is_read_as_it_was() -> None:
    assert from_json(json.loads(json.dumps(to_json(THING))), Everything) == THING


@pytest.mark.parametrize("one_of", [Other("n"), [b"l"], None])
def test_a_union_is_read_by_what_fits(one_of: object) -> None:
    thing = Everything(**{each: getattr(THING, each) for each in Everything.__slots__[:-1]} | {"one_of": one_of})
    assert from_json(json.loads(json.dumps(to_json(thing))), Everything).one_of == one_of


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (Other, {"name": 1}, "expected str, got int @ Other.name"),
        (Other, {}, "'name' is missing @ Other"),
        (Other, {"name": "n", "x": 1}, "unknown 'x' @ Other"),
        (Other, [], "expected map, got list @ Other"),
        (Inner, {"data": "?"}, "expected base64 @ Inner.data"),
        (Inner, {"data": 1}, "expected bytes, got int @ Inner.data"),
        (datetime.datetime, "today", "expected a date and time, as in 2026-01-31T12:00:00Z @ datetime"),
        (datetime.datetime, "2026-01-31T12:00:00", "a datetime needs a time zone @ datetime"),
        (list[bytes], ["YQ==", "?"], "expected base64 @ list[1]"),
        (dict[int, int], {"a": 1}, "expected int, got str"),
        (dict[Literal["a"], int], {"b": 1}, "expected one of 'a'"),
        (int, 2**70, "int: can't serialize ints < -2**63"),
        (int, 3.5, "expected int, got float"),
        (float, float("nan"), "nan is no finite number"),
        (tuple[int, bytes], [1, "YQ==", 2], "expected 2 elements, got 3"),
        (bytes | int, "?", "expected int or bytes, got str"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(kind: object, value: object, said: str) -> None:
    with pytest.raises(MessageError) as raised:
        from_json(value, kind)
    assert said in str(raised.value)


def test_a_number_without_a_fraction_is_an_integer_as_json_schema_has_it() -> None:
    assert from_json(3.0, int) == 3
    assert from_json(3.0, int | None) == 3
    assert from_json(3, float) == 3.0


@pytest.mark.parametrize(("kind", "name", "key"), [(float, "1.5", 1.5), (bool, "True", True), (bytes, "YQ==", b"a")])
def test_the_keys_of_a_map_are_read_from_text(kind: type, name: str, key: object) -> None:
    assert from_json({name: 1}, GenericAlias(dict, (kind, int))) == {key: 1}


def test_lists_in_lists_without_end_are_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(MessageError):
        from_json(value, list[Any])


def test_what_no_message_can_carry_is_not_written() -> None:
    with pytest.raises(MessageError, match="object cannot be written as JSON"):
        to_json(object())
