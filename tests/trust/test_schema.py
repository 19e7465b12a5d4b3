import enum
import json
from typing import Literal

import cedarpy
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.trust.schema import (
    BOOLEAN,
    LONG,
    STRING,
    Record,
    SetOf,
    context_record,
    message_record,
    principal_record,
    proven_to_cedar,
    schema_json,
    to_cedar,
)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    ONE = 1
    RED = "red"


@frozen
class Item:
    name: str
    price: float
    count: int | None = None


@frozen
class Tree:
    label: str
    children: "list[Tree]"


class Plain:
    pass


@frozen
class Order:
    customer: str
    amount: int
    urgent: bool
    color: Color
    size: Literal["s", "m"]
    tags: list[str]
    ids: tuple[int, ...]
    flags: set[bool]
    names: frozenset[str]
    item: Item
    items: list[Item]
    note: str | None
    weight: float
    data: bytes
    extra: dict[str, str]
    either: str | int
    pair: tuple[int, str]
    bare: list  # type: ignore[type-arg]
    weights: list[float]
    mixed: Mixed
    digits: Literal[1, 2]
    tree: Tree
    plain: Plain


ITEM = Record({"name": STRING, "count": LONG}, frozenset({"count"}), {"price": "float"})


def test_every_field_with_a_cedar_type_has_it_and_every_other_is_left_out_by_name() -> None:
    record = message_record(Order)
    assert dict(record.fields) == {
        "customer": STRING,
        "amount": LONG,
        "urgent": BOOLEAN,
        "color": STRING,
        "size": STRING,
        "tags": SetOf(STRING),
        "ids": SetOf(LONG),
        "flags": SetOf(BOOLEAN),
        "names": SetOf(STRING),
        "item": ITEM,
        "items": SetOf(ITEM),
        "note": STRING,
        "tree": message_record(Tree),
    }
    assert record.optional == {"note"}
    left_out = {"weight", "data", "extra", "either", "pair", "bare", "weights", "mixed", "digits", "plain"}
    assert record.left_out.keys() == left_out
    assert record.left_out["weight"] == "float"


def test_a_class_that_contains_itself_ends_there() -> None:
    record = message_record(Tree)
    assert record.fields == {"label": STRING}
    assert record.left_out.keys() == {"children"}


def test_the_schema_is_one_that_cedar_takes() -> None:
    schema = schema_json(
        {"Order": message_record(Order)}, {"Order": {"Shop"}}, {"team": "string", "roles": "set"}, ["Other"]
    )
    text = str(cedarpy.Schema.from_json_str(json.dumps(schema)))
    for part in ("entity Shop", "entity Other", "team?: __cedar::String", 'action "Order"'):
        assert part in text


def test_a_principal_has_its_names_always_and_its_attributes_perhaps() -> None:
    record = principal_record({"team": "string", "level": "long", "cleared": "bool", "roles": "set"})
    assert record.fields.keys() == {"id", "node", "team", "level", "cleared", "roles"}
    assert record.optional == {"team", "level", "cleared", "roles"}


def test_the_relay_alone_may_be_absent_from_the_context() -> None:
    record = context_record(Record({}))
    assert record.fields.keys() == {"message", "time", "is_local", "relay", "sealed", "created"}
    assert record.optional == {"relay", "created"}


def test_values_are_taken_field_by_field_and_the_rest_is_left_out() -> None:
    record = message_record(Order).only({"customer", "color", "tags", "item", "items", "note", "names", "ids"})
    order = {
        "customer": "ann",
        "color": Color.RED,
        "tags": ["a"],
        "ids": (1, 2),
        "names": frozenset({"n"}),
        "item": Item("x", 1.5),
        "items": [Item("y", 2.5, 3)],
        "note": None,
        "weight": float("nan"),
    }
    assert to_cedar(record, order, "context.message") == {
        "customer": "ann",
        "color": "red",
        "tags": ["a"],
        "ids": [1, 2],
        "names": ["n"],
        "item": {"name": "x"},
        "items": [{"name": "y", "count": 3}],
    }


def test_all_fields_are_kept_where_all_are_read() -> None:
    assert ITEM.only(None) is ITEM


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (STRING, 1),
        (LONG, "1"),
        (LONG, True),
        (LONG, 1.0),
        (LONG, None),
        (BOOLEAN, 1),
        (SetOf(LONG), "12"),
        (SetOf(LONG), {"a": 1}),
        (SetOf(LONG), [1, "2"]),
        (ITEM, None),
        (ITEM, 5),
    ],
)
def test_a_value_of_another_type_is_refused_by_place(kind: Record, value: object) -> None:
    with pytest.raises(ValueError, match=r"^context\.message\.x"):
        to_cedar(kind, value, "context.message.x")


@given(st.integers())
def test_an_integer_past_64_bits_is_refused(value: int) -> None:
    if -(2**63) <= value < 2**63:
        assert to_cedar(SetOf(LONG), [value], "x") == [value]
    else:
        with pytest.raises(ValueError, match="does not fit in 64 bits"):
            to_cedar(SetOf(LONG), [value], "x")


def test_the_bounds_of_64_bits() -> None:
    assert to_cedar(LONG, 2**63 - 1, "x") == 2**63 - 1
    assert to_cedar(LONG, -(2**63), "x") == -(2**63)
    for value in (2**63, -(2**63) - 1, 10**5000):
        with pytest.raises(ValueError, match="x does not fit in 64 bits"):
            to_cedar(LONG, value, "x")


def test_a_proven_attribute_of_another_type_than_policies_read_is_none() -> None:
    assert proven_to_cedar("a", "string") == "a"
    assert proven_to_cedar("a", "long") is None
    yes = True
    assert proven_to_cedar(yes, "long") is None
    assert proven_to_cedar(yes, "bool") is True
    assert proven_to_cedar(yes, None) is True
    assert proven_to_cedar(frozenset({"a"}), "set") == ["a"]
    assert proven_to_cedar(2**63, "long") is None
