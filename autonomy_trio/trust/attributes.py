"""What can be proven about a subject: the names and values that credentials carry, anchors allow and policies read."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, get_args

import msgspec

AttributeValue = str | int | bool | frozenset[str]
"""A value in code."""
AttributeType = Literal["string", "long", "bool", "set"]
"""The names of the values' types, as Cedar and the anchors file have them; a set is one of strings."""

ATTRIBUTE_TYPES: Final[frozenset[AttributeType]] = frozenset(get_args(AttributeType))
ATTRIBUTES_LIMIT: Final = 64
"""Most attributes in a credential, and in an anchor's table."""
NAME_LIMIT: Final = 64
"""Most characters of an attribute's name."""
TEXT_LIMIT: Final = 512
"""Most characters of a string, alone or in a set."""
SET_LIMIT: Final = 64
"""Most strings in a set."""
LONG_LEAST: Final = -(2**63)
LONG_MOST: Final = 2**63 - 1
"""Cedar's integers have 64 bits."""
OWN_NAMES: Final = frozenset({"id", "node"})
"""What a policy knows of a principal from its session; a credential that could say it would let its holder lie."""
NAME_RULE: Final = "letters, digits and _, no digit first, no word of Cedar's own, and neither `id` nor `node`"
"""What `is_attribute_name` asks, in words."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CEDAR_WORDS: Final = frozenset({"else", "false", "has", "if", "in", "is", "like", "then", "true", "__cedar"})

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LIMIT)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_LIMIT)]
Value = (
    bool
    | Annotated[int, msgspec.Meta(ge=LONG_LEAST, le=LONG_MOST)]
    | Text
    | Annotated[tuple[Text, ...], msgspec.Meta(max_length=SET_LIMIT)]
)
"""A value in a record: a set is an array of its strings."""
Attributes = Annotated[tuple[tuple[Name, Value], ...], msgspec.Meta(max_length=ATTRIBUTES_LIMIT)]
"""Attributes in a record: pairs rather than a map, whose repeated keys two decoders may read differently."""


def is_attribute_name(text: str) -> bool:
    """Tell whether a credential may use this name: a Cedar identifier, at most 64 characters, not `id` or `node`."""
    return (
        len(text) <= NAME_LIMIT
        and _NAME.fullmatch(text) is not None
        and text not in _CEDAR_WORDS
        and text not in OWN_NAMES
    )


def type_of(value: AttributeValue) -> AttributeType:
    """Name the type of a value; a bool is no long, though Python's is an int."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "long"
    return "string" if isinstance(value, str) else "set"


def from_record(attributes: Attributes) -> dict[str, AttributeValue]:
    """Read decoded attributes.

    Raises:
        ValueError: a name is not allowed or is repeated, or a set repeats a string; the text says which.
    """
    values: dict[str, AttributeValue] = {}
    for name, value in attributes:
        _check_name(name)
        if name in values:
            raise ValueError(f"the attribute {name!r} is there twice")
        if isinstance(value, tuple):
            members = frozenset(value)
            if len(members) != len(value):
                raise ValueError(f"the set {name!r} has a string twice")
            values[name] = members
        else:
            values[name] = value
    return values


def to_record(attributes: Mapping[str, AttributeValue]) -> Attributes:
    """Write attributes for a record, names and the strings of sets in order, so that equal ones have equal bytes.

    Raises:
        ValueError: a name is not allowed, or a value does not fit; the text says which.
    """
    record: list[tuple[str, Value]] = []
    for name, value in sorted(attributes.items()):
        _check_name(name)
        written = tuple(sorted(value)) if isinstance(value, frozenset) else value
        try:
            msgspec.msgpack.decode(msgspec.msgpack.encode(written), type=Value)
        except (msgspec.ValidationError, UnicodeEncodeError, OverflowError) as exc:
            raise ValueError(f"the value of {name!r} does not fit: {exc}") from None
        record.append((name, written))
    return tuple(record)


def _check_name(name: str) -> None:
    if not is_attribute_name(name):
        raise ValueError(f"{name!r} cannot name an attribute: a name has {NAME_RULE}")
