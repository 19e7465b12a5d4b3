"""What a message can carry, and that a stranger's bytes are a value of exactly that type or a `MessageError`."""

import datetime
import enum
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, Literal, NewType, TypeVar

import attrs
import msgspec
import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import DeclarationError, MessageError
from autonomy_trio.messages import (
    MOST_PAYLOAD,
    Request,
    Untyped,
    decode_payload,
    encode_payload,
    is_message_class,
    message,
    message_fields,
    message_schema,
    reply_type,
    wire_name,
)

T = TypeVar("T")
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"


class Odd(enum.Enum):
    LIST = [1]  # noqa: RUF012 - a member, not a class attribute
    ONE = 1


@frozen
class Total:
    value: int


@frozen
class Missing:
    reason: str
    hint: str = ""


@frozen
class Tree:
    value: int
    children: "tuple[Tree, ...]" = ()


@frozen
class Chain:
    next: "Chain | None" = None


@frozen
class Page(Generic[T]):
    items: list[T]
    first: T | None = None


@frozen
class NumberedPage(Page[int], Generic[T]):
    extra: T = field(kw_only=True)


@frozen
class Even:
    value: int = field()
    _secret: int = 0
    made: bool = field(init=False, default=True)

    @value.validator
    def _even(self, _: object, value: int) -> None:
        if value == 13:
            raise KeyError
        if value % 2:
            msg = f"{value} is odd"
            raise ValueError(msg)


@frozen
class Keyed:
    value: str = field()

    @value.validator
    def _known(self, _: object, value: str) -> None:
        error = KeyError(value)
        error.add_note("a note of the program's own")
        raise error


class Dict(dict[str, int]):
    pass


class Name(str):
    __slots__ = ()


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def read(kind: object, value: object) -> object:
    """Decode a stranger's value as the field ``x`` of a message ``Box``."""
    return decode_payload(packed({"x": value}), boxed(kind)).x


def boxed(kind: object) -> type:
    """Return a message class ``Box`` with a field ``x``."""
    return frozen(type("Box", (), {"__annotations__": {"x": kind}, "__module__": __name__}))


NOW = datetime.datetime(2026, 5, 4, 3, 2, 1, 999999, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (int, 3, 3),
        (int, -(2**63), -(2**63)),
        (int, 2**64 - 1, 2**64 - 1),
        (str, "ü", "ü"),
        (bool, True, True),
        (bytes, b"\xff", b"\xff"),
        (None, None, None),
        (float, 1.5, 1.5),
        (datetime.datetime, NOW, NOW),
        (Colour, "r", Colour.RED),
        (Level, 2, Level.HIGH),
        (Mode, "fast", Mode.FAST),
        (Odd, 1, Odd.ONE),
        (Literal["a", 1], 1, 1),
        (Literal[Colour.RED], "r", Colour.RED),
        (UserId, 7, 7),
        (list[int], [1, 2], [1, 2]),
        (list, [1, "a", None], [1, "a", None]),
        (tuple, [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[()], [], ()),
        (list[None], [None], [None]),
        (set[int], [1, 2], {1, 2}),
        (frozenset[str], ["a"], frozenset("a")),
        (Sequence[int], [1], (1,)),
        (AbstractSet[int], [1], frozenset({1})),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {1: "a"}, {1: "a"}),
        (dict[Colour, int], {"r": 1}, {Colour.RED: 1}),
        (Mapping[str, bool], {"a": True}, {"a": True}),
        (dict, {"a": [1]}, {"a": [1]}),
        (Total, {"value": 1}, Total(1)),
        (list[Total], [{"value": 1}], [Total(1)]),
        (Missing, {"reason": "gone"}, Missing("gone")),
        (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, (Tree(2),))),
        (Page[Total], {"items": [{"value": 1}]}, Page([Total(1)])),
        (Page, {"items": [1, "any"]}, Page([1, "any"])),
        (NumberedPage[str], {"items": [1], "extra": "a"}, NumberedPage([1], extra="a")),
        (int | None, None, None),
        (Total | None, {"value": 1}, Total(1)),
        (Colour | None, "g", Colour.GREEN),
        (UserId | None, 4, 4),
        (int | str, "a", "a"),
        (NewType("Key", int | str) | bytes, "a", "a"),  # type: ignore[valid-newtype]
        (int | list[int], [1], [1]),
        (int | None | str, None, None),
        (Total | Missing, {"value": 1}, Total(1)),
        (Total | Missing, {"reason": "gone", "hint": "look"}, Missing("gone", "look")),
        (str | Colour, "g", Colour.GREEN),
        (int | (Total | None), {"value": 1}, Total(1)),
        (list[int | Colour], [1, "r"], [1, Colour.RED]),
        (Colour | str, "r", Colour.RED),
        (Colour | str, "other", "other"),
        (list[str | float], ["a", 2], ["a", 2.0]),
        (Page[int] | Literal["none"], "none", "none"),
        (object, {"a": [1, None]}, {"a": [1, None]}),
        (Any, b"x", b"x"),
        (Even, {"value": 2, "_secret": 1}, Even(2, 1)),
    ],
)
def test_a_value_of_the_fields_type_is_read(kind: object, value: object, result: object) -> None:
    found = read(kind, value)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (int, "5", "expected int, got str @ Box.x"),
        (int, True, "expected int, got bool @ Box.x"),
        (int, 5.0, "expected int, got float @ Box.x"),
        (int, None, "expected int, got NoneType @ Box.x"),
        (bool, 1, "expected bool, got int @ Box.x"),
        (str, b"a", "expected str, got bytes @ Box.x"),
        (bytes, "a", "expected bytes, got str @ Box.x"),
        (bytes, [1], "expected bytes, got list @ Box.x"),
        (None, 0, "expected NoneType, got int @ Box.x"),
        (float, "1.5", "expected float, got str @ Box.x"),
        (float, True, "expected float, got bool @ Box.x"),
        (float, float("nan"), "nan is no finite number @ Box.x"),
        (float | None, float("inf"), "inf is no finite number @ Box.x"),
        (Any, [float("-inf")], "-inf is no finite number @ Box.x[0]"),
        (datetime.datetime, "2026-05-04T03:02:01Z", "expected datetime, got str @ Box.x"),
        (datetime.datetime, 1, "expected datetime, got int @ Box.x"),
        (Colour, "RED", "expected one of 'r', 'g' @ Box.x"),
        (Colour, ["r"], "expected one of 'r', 'g' @ Box.x"),
        (Level, True, "expected one of 1, 2 @ Box.x"),
        (Level, 3, "expected one of 1, 2 @ Box.x"),
        (Mode, "slow", "expected one of 'fast' @ Box.x"),
        (Odd, [1], "expected one of 1 @ Box.x"),
        (Literal[1], True, "expected one of 1 @ Box.x"),
        (Literal["a"], "b", "expected one of 'a' @ Box.x"),
        (UserId, "7", "expected int, got str @ Box.x"),
        (list[int], "abc", "expected list, got str @ Box.x"),
        (Sequence[str], "abc", "expected list, got str @ Box.x"),
        (list[int], {"0": 1}, "expected list, got dict @ Box.x"),
        (list[int], [1, "2"], "expected int, got str @ Box.x[1]"),
        (set[int], [1, 1], "a set has each element once @ Box.x"),
        (AbstractSet[object], [[1]], "a set has no lists, maps or sets in it @ Box.x"),
        (tuple[int, str], [1], "expected 2 elements, got 1 @ Box.x"),
        (tuple[int, str], ["1", "a"], "expected int, got str @ Box.x[0]"),
        (tuple[int, str], {}, "expected list, got dict @ Box.x"),
        (dict[str, int], [["a", 1]], "expected map, got list @ Box.x"),
        (dict[str, int], {1: 1}, "expected str, got int @ Box.x[1]"),
        (dict[str, int], {"a": None}, "expected int, got NoneType @ Box.x['a']"),
        (Total, [1], "expected map, got list @ Box.x"),
        (Total, {"value": "1"}, "expected int, got str @ Box.x.value"),
        (Total, {}, "'value' is missing @ Box.x"),
        (Total, {"value": 1, "values": 2}, "unknown 'values' @ Box.x"),
        (Total, {"value": 1, 5: 2}, "unknown 5 @ Box.x"),
        (list[Total], [{"value": 1}, {"value": True}], "expected int, got bool @ Box.x[1].value"),
        (Tree, {"value": 1, "children": [{"value": "2"}]}, "expected int, got str @ Box.x.children[0].value"),
        (Page[Total], {"items": [1]}, "expected map, got int @ Box.x.items[0]"),
        (NumberedPage[str], {"items": [1], "extra": 1}, "expected str, got int @ Box.x.extra"),
        (NumberedPage[str], {"items": ["a"], "extra": "a"}, "expected int, got str @ Box.x.items[0]"),
        (Total | None, {"value": None}, "expected int, got NoneType @ Box.x.value"),
        (int | str | None, 1.5, "expected int or str or NoneType, got float @ Box.x"),
        (int | str, True, "expected int or str, got bool @ Box.x"),
        (Total | Missing, {"other": 1}, "expected Total or Missing, got dict @ Box.x"),
        (Total | Even, {"value": 2}, "could be Total or Even: a union's members need different fields @ Box.x"),
        (
            Colour | Literal["r"],
            "r",
            "could be Colour or Literal: a union's members need different fields @ Box.x",
        ),
        (list[int] | list[str], [1], "could be list or list: a union's members need different fields @ Box.x"),
        (Even, {"value": 3}, "3 is odd @ Box.x"),
        (Even, {"value": 13}, "KeyError @ Box.x"),
        (Keyed, {"value": "value"}, "KeyError: 'value' @ Box.x"),
        (dict[str, int], {"s" * 100: "a"}, f"expected int, got str @ Box.x['{'s' * 39}…]"),
        (Total, {"value": 1, "s" * 100: 2}, f"unknown '{'s' * 39}… @ Box.x"),
        (Even, {"value": 2, "made": False}, "unknown 'made' @ Box.x"),
        (Decimal, "1", "Decimal is no type a message can carry @ Box"),
        (complex, 1, "complex is no type a message can carry @ Box"),
        (type[int], "int", "type is no type a message can carry @ Box"),
        (Dict, {"a": 1}, "Dict is no type a message can carry @ Box"),
        (Name, "a", "Name is no type a message can carry @ Box.x"),
        (Path, "a", "Path is no type a message can carry @ Box.x"),
        (object, msgspec.msgpack.Ext(5, b"x"), "Ext is no type a message can carry @ Box.x"),
        (Any, {(1, 2): 3}, "tuple is no type a message can carry @ Box.x[(1, 2)]"),
    ],
)
def test_any_other_value_is_refused_with_its_place(kind: object, value: object, sentence: str) -> None:
    with pytest.raises(MessageError) as refused:
        read(kind, value)
    assert str(refused.value) == sentence


def test_an_int_becomes_a_float_where_a_float_is_wanted_and_stays_one_where_either_will_do() -> None:
    assert type(read(float, 3)) is float
    assert type(read(float | None, 3)) is float
    assert type(read(float | int, 3)) is int


def test_a_class_that_is_called_as_a_type_variable_is_not_taken_for_it() -> None:
    @frozen
    class Item:
        value: int

    item = TypeVar("Item")  # noqa: PLC0132 - that is what it is about

    class Basket(Generic[item]):
        __annotations__ = {"cl": list[Item], "converter": item}

    kind = frozen(Basket)[str]
    assert read(kind, {"cl": [{"value": 1}], "converter": "a"}) == kind([Item(1)], "a")
    with pytest.raises(MessageError, match=r"expected map, got str @ Box\.x\.cl\[0\]"):
        read(kind, {"cl": ["a"], "converter": "a"})


def test_only_a_small_payload_is_read_again_for_the_place() -> None:
    assert refusal(packed({"x": ["a"] * 500}), boxed(list[int])).startswith("expected int, got str @ Box.x[0]")
    assert refusal(packed({"x": ["a"] * 600}), boxed(list[int])) == "expected int, got str @ Box"


def test_an_annotation_that_cannot_be_found_is_told() -> None:
    with pytest.raises(MessageError, match=r"name 'Nowhere' is not defined @ Box"):
        read("Nowhere", 1)
    with pytest.raises(DeclarationError, match=r"Box: name 'Nowhere' is not defined: annotations must name types"):
        message_fields(boxed("Nowhere"))


def test_a_type_statement_means_its_value() -> None:
    class Alias:  # what `type Size = int | None` makes from Python 3.12 on, which 3.11 cannot parse
        __value__ = int | None

    assert read(Alias(), None) is None
    with pytest.raises(MessageError, match="expected int, got str"):
        read(Alias(), "a")


def refusal(payload: bytes, kind: object) -> str:
    """Return why a payload is refused, in a bounded sentence; nothing where it is not."""
    try:
        decode_payload(payload, kind)
    except MessageError as error:
        return str(error)
    return ""


def nested(depth: int, kind: bytes = b"\x91") -> bytes:
    return kind * depth + b"\x90"


HOSTILE = {
    "depth 10,000": nested(10_000),
    "depth 100,000": nested(100_000),
    "maps 10,000 deep": b"\x81\xa1x" * 10_000 + b"\xc0",
    "a list said to have 2**32 elements": b"\xdd\xff\xff\xff\xff",
    "a map said to have 2**32 pairs": b"\xdf\xff\xff\xff\xff",
    "a string said to have 2**32 bytes": b"\xdb\xff\xff\xff\xff",
    "bytes said to be 2**32": b"\xc6\xff\xff\xff\xff",
    "an extension said to have 2**32 bytes": b"\xc9\xff\xff\xff\xff\x01",
    "trailing bytes": packed({"x": 1}) + b"\x00",
    "nothing": b"",
    "cut off": packed({"x": "abc"})[:-1],
    "text that is no UTF-8": b"\x81\xa1x\xa2\xff\xfe",
    "a map as the key of a map": b"\x81\x81\x01\x02\x03",
    "a time no calendar has": b"\xd7\xff" + b"\xff" * 8,
    "a byte that means nothing": b"\xc1",
    "an unknown extension": b"\x81\xa1x\xd4\x05\x00",
    "a million items": packed([0] * 1_000_000),
    "most items that fit": b"\xdd\x00\x01\xff\x00" + b"\x00" * 0x1FF00,
    "most pairs that fit": packed({"x": {str(number): "" for number in range(15_000)}}),
    "most wrong elements that fit": packed({"x": ["a"] * 65_000}),
    "a long unknown name": packed({"x" * 100_000: 1}),
}


def test_a_payload_costs_at_most_10_mib_to_refuse() -> None:
    heaviest = {
        **HOSTILE,
        "maps of a map": b"\xdd" + (43_000).to_bytes(4, "big") + b"\x81\x00\x80" * 43_000,
        "as many maps as may be": b"\xdc\x3f\xff" + b"\x81\x00\xa2ab" * 16_383,
    }
    for name, payload in heaviest.items():
        tracemalloc.start()
        refusal(payload, boxed(list[int]))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 10 * 2**20, name


@pytest.mark.parametrize("kind", [list[int], dict[str, list[Total]], Total, Tree, Chain, None, boxed(list[int])])
@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_refused_quickly_and_in_few_words(payload: bytes, kind: object) -> None:
    start = time.process_time()
    why = refusal(payload, kind)
    assert time.process_time() - start < 0.5
    assert why.isprintable()
    assert len(why) < 600
    assert why or kind in (None, list[int]), "what does not fit passed"


def test_what_is_nested_deeper_than_python_goes_is_refused() -> None:
    chain = Chain()
    for _ in range(5_000):
        chain = Chain(chain)
    with pytest.raises(MessageError, match="Chain cannot be sent"):
        encode_payload(chain)
    with pytest.raises(MessageError, match="Chain"):
        decode_payload(b"\x81\xa4next" * 900 + b"\xc0", Chain)
    inside: list[object] = []
    inside.append(inside)
    with pytest.raises(MessageError, match="list cannot be sent"):
        encode_payload(inside)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"\x82\xa5value\x01\xa5value\x02", Total),
        (b"\x82\x01\x00\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\x00", dict[float, int]),  # 1 and 1.0
        (b"\x82\x01\x00\xc3\x00", None),  # 1 and True
        (b"\x81\xd9\x05value\x01", Total),  # a name with a longer head than it needs
        (b"\x81\xa5value\xcd\x00\x01", Total),
        (b"\xca\x3f\x80\x00\x00", float),  # 32 bits
        (b"\xc7\x0c\xff" + (1).to_bytes(4, "big") + (5).to_bytes(8, "big"), datetime.datetime),  # a nanosecond
    ],
)
def test_a_value_has_one_form_so_two_readers_find_the_same_in_it(payload: bytes, kind: object) -> None:
    with pytest.raises(MessageError, match=r"has a key twice, or a value that is not in its shortest form$"):
        decode_payload(payload, kind)


def test_the_largest_payload_passes_and_one_byte_more_does_not() -> None:
    overhead = len(packed(b"x" * MOST_PAYLOAD)) - MOST_PAYLOAD
    largest = encode_payload(b"x" * (MOST_PAYLOAD - overhead))
    assert len(largest) == MOST_PAYLOAD
    assert len(decode_payload(largest, bytes)) == MOST_PAYLOAD - overhead
    with pytest.raises(MessageError, match="bytes has 131,073 bytes; a message has at most 131,072: send it in parts"):
        encode_payload(b"x" * (MOST_PAYLOAD - overhead + 1))
    with pytest.raises(MessageError, match="bytes has 131,073 bytes; a message has at most 131,072"):
        decode_payload(largest + b"x", bytes)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), "Box cannot be sent: nan is no finite number @ Box.x"),
        ([1.0, float("inf")], "Box cannot be sent: inf is no finite number @ Box.x[1]"),
        (datetime.datetime(2026, 1, 1), "Box cannot be sent: a datetime needs a time zone @ Box.x"),  # noqa: DTZ001
        (Decimal(1), "Box cannot be sent: Decimal is no type a message can carry @ Box.x"),
        ({"a": object()}, "Box cannot be sent: object is no type a message can carry @ Box.x['a']"),
        ({(1, 2): 3}, "Box cannot be sent: tuple is no type that the key of a map can have @ Box.x[(1, 2)]"),
        ({Colour.RED: 1, "r": 2}, "Box cannot be sent: two keys of a map are written as one @ Box.x"),
        (2**64, "Box cannot be sent: "),
        ("\ud800", "Box cannot be sent: "),
    ],
)
def test_what_cannot_be_read_back_is_not_sent(value: object, sentence: str) -> None:
    with pytest.raises(MessageError) as refused:
        encode_payload(boxed(Any)(value))
    assert str(refused.value).startswith(sentence)


def test_a_derived_object_keeps_all_its_fields() -> None:
    """It is refused where its base is wanted, and never cut to it in silence."""

    @frozen
    class Detailed(Total):
        detail: str

    payload = encode_payload(boxed(Total)(Detailed(1, "a")))
    with pytest.raises(MessageError, match=r"unknown 'detail' @ Box\.x"):
        decode_payload(payload, boxed(Total))


@frozen
class Everything:
    number: int
    real: float
    text: str
    raw: bytes
    yes: bool
    when: datetime.datetime
    colour: Colour
    level: Level
    choice: Literal["a", "b", 3]
    maybe: int | None
    either: int | str | None
    outcome: Total | Missing
    numbers: list[int]
    pair: tuple[int, str]
    many: tuple[Total, ...]
    unique: frozenset[int]
    names: set[str]
    table: dict[str, list[Total | None]]
    by_level: Mapping[Level, bool]
    page: Page[bytes]
    tree: Tree


integers = st.integers(-(2**63), 2**64 - 1)
totals = st.builds(Total, integers)
everything = st.builds(
    Everything,
    number=integers,
    real=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(),
    raw=st.binary(),
    yes=st.booleans(),
    when=st.datetimes(timezones=st.just(datetime.UTC)),
    colour=st.sampled_from(Colour),
    level=st.sampled_from(Level),
    choice=st.sampled_from(["a", "b", 3]),
    maybe=st.none() | integers,
    either=st.none() | integers | st.text(),
    outcome=totals | st.builds(Missing, st.text(), st.text()),
    numbers=st.lists(integers),
    pair=st.tuples(integers, st.text()),
    many=st.lists(totals).map(tuple),
    unique=st.frozensets(integers),
    names=st.sets(st.text()),
    table=st.dictionaries(st.text(), st.lists(totals | st.none())),
    by_level=st.dictionaries(st.sampled_from(Level), st.booleans()),
    page=st.builds(Page[bytes], st.lists(st.binary()), st.none() | st.binary()),
    tree=st.recursive(
        st.builds(Tree, integers), lambda trees: st.builds(Tree, integers, st.lists(trees, max_size=3).map(tuple))
    ),
)


_keys = st.sampled_from([(int, integers), (str, st.text()), (Colour, st.sampled_from(Colour))])
_scalars = st.sampled_from(
    [
        (int, integers),
        (float, st.floats(allow_nan=False, allow_infinity=False)),
        (bool, st.booleans()),
        (str, st.text()),
        (bytes, st.binary()),
        (None, st.none()),
        (datetime.datetime, st.datetimes(timezones=st.just(datetime.UTC))),
        (Colour, st.sampled_from(Colour)),
        (Literal["a", 3, True], st.sampled_from(["a", 3, True])),
        (UserId, integers),
    ]
)


def _generated(fields: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Return a message class with these fields, and the strategy of its objects."""
    names = {f"field_{number}": kind for number, (kind, _) in enumerate(fields)}
    cls = frozen(type("Generated", (), {"__annotations__": names, "__module__": __name__}))
    return cls, st.builds(cls, *(values for _, values in fields))


def _around(inside: Any) -> Any:  # noqa: ANN401 - a strategy of pairs of a type and its values' strategy
    return st.one_of(
        inside.map(lambda each: (list[each[0]], st.lists(each[1], max_size=3))),
        inside.map(lambda each: (tuple[each[0], ...], st.lists(each[1], max_size=3).map(tuple))),
        inside.map(lambda each: (Page[each[0]], st.builds(Page, st.lists(each[1], max_size=2)))),
        inside.map(lambda each: (each[0] | None if each[0] else None, st.none() | each[1])),
        st.tuples(inside, inside).map(
            lambda pair: (tuple[pair[0][0], pair[1][0]], st.tuples(pair[0][1], pair[1][1]))  # type: ignore[name-defined]
        ),
        st.tuples(_keys, inside).map(
            lambda pair: (dict[pair[0][0], pair[1][0]], st.dictionaries(pair[0][1], pair[1][1], max_size=3))
        ),
        _keys.map(lambda key: (frozenset[key[0]], st.frozensets(key[1], max_size=3))),
        st.lists(inside, max_size=3).map(_generated),
    )


kinds = st.recursive(_scalars, _around, max_leaves=6)


@given(st.lists(kinds, max_size=4).map(_generated), st.data())
def test_a_message_of_any_class_is_read_back_the_same(generated: tuple[Any, Any], data: st.DataObject) -> None:
    cls, values = generated
    value = data.draw(values)
    assert decode_payload(encode_payload(value), cls) == value
    assert message_schema(cls)["type"] == "object"


@given(st.lists(kinds, max_size=4).map(_generated), st.binary(max_size=60))
def test_to_a_message_of_any_class_random_bytes_are_a_message_or_refused(
    generated: tuple[Any, Any], payload: bytes
) -> None:
    for each in (payload, packed({"field_0": payload}), b"\x81\xa7field_0" + payload):
        refusal(each, generated[0])


@given(everything)
def test_what_was_encoded_is_read_back_the_same(value: Everything) -> None:
    found = decode_payload(encode_payload(value), Everything)
    assert found == value
    assert type(found.level) is Level
    assert type(found.real) is float


plain_values = st.recursive(
    st.none() | st.booleans() | integers | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9) | st.none(), inner),
    max_leaves=10,
)
field_names = st.sampled_from([each.name for each in attrs.fields(Everything)])


@given(st.binary() | st.dictionaries(field_names, plain_values).map(packed) | plain_values.map(packed))
def test_random_bytes_only_ever_raise_message_error(payload: bytes) -> None:
    for kind in (Everything, Tree, Page[int], Untyped, None):
        if not refusal(payload, kind):
            value = decode_payload(payload, kind)
            assert decode_payload(encode_payload(value), kind) == value


@given(everything, st.data())
def test_a_message_with_one_byte_changed_is_a_message_or_refused(value: Everything, data: st.DataObject) -> None:
    payload = bytearray(encode_payload(value))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    if not refusal(bytes(payload), Everything):
        assert isinstance(decode_payload(bytes(payload), Everything), Everything)


def test_a_wire_name_is_the_classs_own_and_not_inherited() -> None:
    @message(name="billing.Add.v2")
    @frozen
    class Add:
        amount: int

    @frozen
    class BigAdd(Add):
        pass

    @frozen
    @message(name="under.frozen")
    class Under:
        pass

    assert wire_name(Total) == "Total"
    assert wire_name(Add) == "billing.Add.v2"
    assert wire_name(BigAdd) == "BigAdd"
    assert wire_name(Under) == "under.frozen"
    with pytest.raises(MessageError, match=r"billing\.Add\.v2 cannot be sent"):
        encode_payload(Add(object()))  # type: ignore[arg-type]


def test_only_frozen_attrs_classes_are_message_classes() -> None:
    @attrs.define
    class Loose:
        value: int

    class Undecorated(Total):
        pass

    assert is_message_class(Total)
    for other in (Loose, Undecorated, int, Total(1), None):
        assert not is_message_class(other)
    with pytest.raises(DeclarationError, match=r"Loose is not a frozen attrs class: decorate it with @attrs\.frozen"):
        message_fields(Loose)


def test_message_fields_are_in_order_and_resolved() -> None:
    assert list(message_fields(Tree).items()) == [("value", int), ("children", tuple[Tree, ...])]
    assert message_fields(NumberedPage) == {"items": list[int], "first": int | None, "extra": Any}
    assert message_fields(attrs.make_class("Bare", ["x"], frozen=True)) == {"x": Any}


class Paged(Request[Page[T]], Generic[T]):
    pass


class Totals(Paged[Total]):
    pass


class MoreTotals(Totals):
    pass


@pytest.mark.parametrize(
    ("request_class", "reply"),
    [
        (attrs.make_class("Add", [], bases=(Request[Total],)), Total),
        (attrs.make_class("Reset", [], bases=(Request[None],)), type(None)),
        (attrs.make_class("Find", [], bases=(Request[Total | None],)), Total | None),
        (Totals, Page[Total]),
        (MoreTotals, Page[Total]),
        (Paged, Page[Any]),
        (Untyped, Any),
        (Total, None),
        (Request, None),
    ],
)
def test_the_type_of_the_reply_is_found_through_inheritance(request_class: type, reply: object) -> None:
    assert reply_type(request_class) == reply


def test_a_reply_type_in_quotes_is_refused() -> None:
    class Ask(Request["Total"]):
        pass

    with pytest.raises(DeclarationError, match=r"Ask: write Request\[Total\] without quotes, after that class"):
        reply_type(Ask)


def test_untyped_is_its_fields_under_its_own_name() -> None:
    assert decode_payload(encode_payload(Untyped("Add", {"value": 3})), Total) == Total(3)
    with pytest.raises(MessageError, match="Add cannot be sent: object is no type"):
        encode_payload(Untyped("Add", {"value": object()}))
    assert decode_payload(encode_payload([Total(1), None]), None) == [{"value": 1}, None]
    assert decode_payload(packed(NOW), None) == NOW


def test_the_error_of_a_payload_without_a_type_says_so() -> None:
    with pytest.raises(MessageError, match="the payload is not well-formed msgpack"):
        decode_payload(b"\xc1", None)
