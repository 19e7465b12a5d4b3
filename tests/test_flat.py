"""Flat values: what the short way makes is what the walk makes, or the short way leaves it to the walk."""

import math
from typing import Any, cast
from unittest.mock import patch

import attrs
import msgspec
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio import flat
from autonomy_trio.errors import MessageError
from autonomy_trio.messages import decode_payload, encode_payload


@frozen
class Flat:
    """What most messages are like."""

    number: int
    text: str
    data: bytes
    yes: bool
    ratio: float
    perhaps: str | None = None


@frozen
class Single:
    """One field."""

    data: bytes


@frozen
class Picky:
    """Has a validator."""

    number: int = attrs.field(validator=attrs.validators.ge(0))


@frozen
class Hidden:
    """A field whose constructor calls it otherwise."""

    _number: int


@frozen(kw_only=True)
class Named:
    """A class that is made by names alone."""

    number: int


@frozen
class Deep:
    """Not flat."""

    numbers: tuple[int, ...]


@frozen(init=False)
class Own:
    """Makes itself."""

    number: int

    def __init__(self, number: int) -> None:
        self.__attrs_init__(number + 1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=9) | st.binary()
flats = st.builds(
    Flat,
    st.integers(-(2**63), 2**64 - 1),
    st.text(),
    st.binary(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.text(),
)


def nothing(*_: object) -> None:
    """Leave everything to the walk."""


def walked(payload: bytes, kind: object) -> Any:  # noqa: ANN401 - of that type
    """Decode without the short way."""
    with patch.object(flat, "reader", nothing):
        return decode_payload(payload, kind)


def write(value: object) -> bytes | None:
    """Encode by the short way."""
    writer = flat.writer(cast("Any", type(value)))
    return None if writer is None else writer(value)


def read(payload: bytes, kind: Any) -> Any:  # noqa: ANN401 - of that type
    """Decode by the short way."""
    reader = flat.reader(kind)
    return None if reader is None else reader(payload)


@given(st.builds(Flat, *[scalars] * 6) | st.builds(Single, scalars) | scalars)
def test_the_short_way_writes_what_the_walk_writes(value: object) -> None:
    with patch.object(flat, "writer", nothing):
        try:
            expected = encode_payload(value)
        except MessageError:
            expected = None
    assert write(value) in (expected, None)
    if expected is None:
        with pytest.raises(MessageError):
            encode_payload(value)


@given(flats)
def test_the_short_way_reads_what_it_wrote(value: Flat) -> None:
    payload = encode_payload(value)
    assert read(payload, Flat) == value == walked(payload, Flat)


@given(st.dictionaries(st.sampled_from(["number", "text", "data", "yes", "ratio", "perhaps", "more"]), scalars))
def test_the_short_way_reads_nothing_that_the_walk_refuses(fields: dict[str, object]) -> None:
    try:
        payload = msgspec.msgpack.encode(fields)
    except OverflowError:
        return
    found = read(payload, Flat)
    if found is not None:
        again = walked(payload, Flat)
        assert found == again
        assert [*map(type, attrs.astuple(found))] == [*map(type, attrs.astuple(again))]


@given(st.binary(max_size=64))
def test_the_short_way_reads_no_noise(payload: bytes) -> None:
    for kind in (Single, bytes, int, str, bool):
        found = read(payload, kind)
        assert found is None or encode_payload(found) == payload


@pytest.mark.parametrize(
    "payload",
    [
        b"\x82\xa4data\xc4\x00\xa4data\xc4\x00",  # a key twice
        b"\x81\xd9\x04data\xc4\x00",  # a longer form of the key
        b"\x81\xa4data\xc5\x00\x00",  # a longer form of the value
        b"\x81\xa4data\xa0",  # text for bytes
        b"\x81\xa4data\x91\xc4\x00",
        b"\x82\xa4data\xc4\x00\xa4more\xc0",
        b"\x80",
        b"\x91" * 60_000,
    ],
)
def test_what_is_not_exactly_one_form_is_left_to_the_walk(payload: bytes) -> None:
    assert read(payload, Single) is None
    with pytest.raises(MessageError):
        decode_payload(payload, Single)


def test_a_number_that_is_none_is_left_to_the_walk() -> None:
    for ratio in (math.nan, math.inf):
        value = Flat(1, "", b"", yes=True, ratio=ratio)
        assert write(value) is None
        assert read(msgspec.msgpack.encode(attrs.asdict(value)), Flat) is None


@pytest.mark.parametrize("value", [Named(number=1), Deep((1,)), Own(1)])
def test_a_class_that_is_not_flat_is_left_to_the_walk(value: object) -> None:
    payload = encode_payload(value)
    assert read(payload, type(value)) is None
    assert type(decode_payload(payload, type(value))) is type(value)


def test_a_field_by_another_name_is_read() -> None:
    assert decode_payload(encode_payload(Hidden(1)), Hidden) == Hidden(1)
    assert read(encode_payload(Hidden(1)), Hidden) == Hidden(1)


def test_what_a_validator_refuses_is_told_by_the_walk() -> None:
    payload = msgspec.msgpack.encode({"number": -1})
    assert read(payload, Picky) is None
    with pytest.raises(MessageError, match="number"):
        decode_payload(payload, Picky)


def test_what_has_no_bytes_is_told_by_the_walk() -> None:
    for value in ("\ud800", 2**70, Single("\ud800"), Picky(2**70)):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert write(value) is None
        with pytest.raises(MessageError):
            encode_payload(value)


def test_a_class_whose_annotations_cannot_be_found_is_left_to_the_walk() -> None:
    cls: Any = attrs.make_class("Lost", {"field": attrs.field(type="Nowhere")}, frozen=True)
    cls.__annotations__ = {"field": "Nowhere"}
    assert read(b"\x81\xa5field\x01", cls) is None
