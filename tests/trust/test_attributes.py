from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.trust.attributes import (
    Attributes,
    AttributeValue,
    from_record,
    is_attribute_name,
    to_record,
    type_of,
)

VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=20)
    | st.frozensets(st.text(max_size=5), max_size=5)
)


def over_the_wire(attributes: dict[str, AttributeValue]) -> Mapping[str, AttributeValue]:
    return from_record(msgspec.msgpack.decode(msgspec.msgpack.encode(to_record(attributes)), type=Attributes))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,3}_[a-z0-9]{0,9}", fullmatch=True), VALUES, max_size=8))
def test_attributes_come_back_as_they_were_with_their_types(attributes: dict[str, AttributeValue]) -> None:
    back = over_the_wire(attributes)
    assert back == attributes
    assert {name: type(value) for name, value in back.items()} == {
        name: type(value) for name, value in attributes.items()
    }


def test_equal_attributes_have_equal_bytes() -> None:
    one = {"a": frozenset({"x", "y", "z"}), "b": 1}
    other = {"b": 1, "a": frozenset({"z", "y", "x"})}
    assert to_record(one) == to_record(other) == (("a", ("x", "y", "z")), ("b", 1))


@pytest.mark.parametrize("name", ["team", "_", "A9", "a" * 64, "principal"])
def test_a_cedar_identifier_names_an_attribute(name: str) -> None:
    assert is_attribute_name(name)


@pytest.mark.parametrize(
    "name", ["", "9a", "a-b", "a b", "a.b", "ä", "a\n", "a" * 65, "if", "true", "has", "__cedar", "id", "node"]
)
def test_nothing_else_names_an_attribute(name: str) -> None:
    assert not is_attribute_name(name)
    with pytest.raises(ValueError, match="cannot name an attribute: a name has letters"):
        to_record({name: 1})
    with pytest.raises(ValueError, match="cannot name an attribute"):
        from_record(((name, 1),))


def test_the_type_of_a_bool_is_not_long() -> None:
    assert [type_of(value) for value in (True, 1, "a", frozenset({"a"}))] == ["bool", "long", "string", "set"]


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**63) - 1,
        2**70,
        1.0,
        None,
        b"bytes",
        "x" * 513,
        "\ud800",
        frozenset({"x" * 513}),
        frozenset(map(str, range(65))),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match="the value of 'team' does not fit"):
        to_record({"team": value})


def test_a_name_or_a_string_of_a_set_that_is_repeated_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' is there twice"):
        from_record((("a", 1), ("a", 2)))
    with pytest.raises(ValueError, match="the set 'a' has a string twice"):
        from_record((("a", ("x", "x")),))
