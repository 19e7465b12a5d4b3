"""What policies may speak of: Cedar types of message fields, the schema made of them, and values on their way in.

Strings, integers, booleans, enums and literals of strings, sets and sequences of these, nested frozen attrs classes as
records, and any of these as an optional field have a Cedar type. Everything else (floats, bytes, maps) is left out, and
remembered by name, so that a policy which asks for it is told why.
"""

import enum
import types
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, Literal, TypeAlias, Union, cast, get_args, get_origin

import attrs
from attrs import frozen

from autonomy_trio.messages import is_message_class, message_fields
from autonomy_trio.trust.attributes import LONG_LEAST, LONG_MOST, OWN_NAMES, AttributeType, AttributeValue, type_of

PRINCIPAL: Final = "Principal"
"""The entity type of every sender; no agent class that a policy speaks of can have this name."""
SEND: Final = "Send"
"""The action of sending: its principal is the sender here, its resource the recipient, a `PRINCIPAL` as well."""


@frozen
class Scalar:
    """A type without parts, by Cedar's name: ``String``, ``Long`` or ``Boolean``."""

    name: str


@frozen
class SetOf:
    """A set; a sequence is one too, since Cedar has no order."""

    element: "CedarType"


@frozen
class Record:
    """The fields of a message or of an object in it.

    Attributes:
        fields: the type of each field that has one.
        optional: those that may be None, which is absent for a policy.
        left_out: how the annotation of each other field reads.
    """

    fields: Mapping[str, "CedarType"]
    optional: frozenset[str] = frozenset()
    left_out: Mapping[str, str] = attrs.field(factory=dict[str, str])

    def only(self, names: AbstractSet[str] | None) -> "Record":
        """Return the record of some of the fields, those that a policy reads; None is all of them."""
        if names is None:
            return self
        return attrs.evolve(self, fields={name: kind for name, kind in self.fields.items() if name in names})


CedarType: TypeAlias = Scalar | SetOf | Record

STRING: Final = Scalar("String")
LONG: Final = Scalar("Long")
BOOLEAN: Final = Scalar("Boolean")
ATTRIBUTE_TYPES: Final[Mapping[AttributeType, CedarType]] = {
    "string": STRING,
    "long": LONG,
    "bool": BOOLEAN,
    "set": SetOf(STRING),
}
_OWN_FIELDS: Final[Mapping[str, CedarType]] = {
    "time": LONG,
    "is_local": BOOLEAN,
    "relay": STRING,
    "sealed": BOOLEAN,
    "created": LONG,
}
_SOMETIMES: Final = frozenset({"relay", "created"})
"""Those that are there only for what came by a pinned relay, and for what was sealed."""
VOLATILE: Final = ("time", "relay", "created")
"""Those that differ from one message of a sender to the next: what is decided by them is not remembered."""
_SCALARS: Final[Mapping[type, Scalar]] = {str: STRING, int: LONG, bool: BOOLEAN}
_SEQUENCES: Final = (list, set, frozenset)


def message_record(cls: type) -> Record:
    """Return the Cedar type of a message class.

    Raises:
        DeclarationError: `cls` is no frozen attrs class, or an annotation cannot be resolved.
    """
    return _record(cls, ())


def _record(cls: type, outer: tuple[type, ...]) -> Record:
    fields: dict[str, CedarType] = {}
    optional: set[str] = set()
    left_out: dict[str, str] = {}
    for name, annotation in message_fields(cls).items():
        present, may_be_none = _split_optional(annotation)
        kind = _cedar_type(present, (*outer, cls))
        if kind is None:
            left_out[name] = getattr(annotation, "__name__", str(annotation))
            continue
        fields[name] = kind
        if may_be_none:
            optional.add(name)
    return Record(fields, frozenset(optional), left_out)


def _split_optional(annotation: object) -> tuple[object, bool]:
    if get_origin(annotation) not in {Union, types.UnionType}:
        return annotation, False
    present = [choice for choice in get_args(annotation) if choice is not types.NoneType]
    return (present[0], True) if len(present) == 1 else (annotation, False)


def _cedar_type(annotation: object, outer: tuple[type, ...]) -> CedarType | None:
    if isinstance(annotation, type):
        return _SCALARS.get(annotation) or _class_type(annotation, outer)
    match get_origin(annotation), get_args(annotation):
        case origin, (element,) if origin in _SEQUENCES:
            return _set_of(element, outer)
        case origin, (element, last) if origin is tuple and last is Ellipsis:
            return _set_of(element, outer)
        case origin, choices if origin is Literal and all(isinstance(choice, str) for choice in choices):
            return STRING
        case _:
            return None


def _set_of(element: object, outer: tuple[type, ...]) -> SetOf | None:
    kind = _cedar_type(element, outer)
    return None if kind is None else SetOf(kind)


def _class_type(cls: type[object], outer: tuple[type, ...]) -> CedarType | None:
    if issubclass(cls, enum.Enum):
        return STRING if all(isinstance(member.value, str) for member in cls) else None
    if cls in outer or not is_message_class(cls):
        return None
    return _record(cls, outer)


def principal_record(attributes: Mapping[str, AttributeType | None]) -> Record:
    """Return what a policy reads as ``principal``: what the session tells of it, and what it may have proven.

    Where any type will do for an attribute, it is a string here.
    """
    proven = {name: ATTRIBUTE_TYPES[kind or "string"] for name, kind in attributes.items()}
    return Record({**dict.fromkeys(OWN_NAMES, STRING), **proven}, frozenset(proven))


def context_record(message: Record) -> Record:
    """Return what a policy about that message reads as ``context``."""
    return Record({"message": message, **_OWN_FIELDS}, _SOMETIMES)


def sending_record() -> Record:
    """Return what a policy about sending reads as ``context``."""
    return Record(_OWN_FIELDS, _SOMETIMES)


def schema_json(
    records: Mapping[str, Record],
    receivers: Mapping[str, AbstractSet[str]],
    attributes: Mapping[str, AttributeType | None],
    entity_types: Iterable[str] = (),
    *,
    sending: bool = False,
) -> dict[str, Any]:
    """Return the Cedar schema, in JSON, that policies are validated with.

    Args:
        records: each action, which is a message's wire name, with the message's fields.
        receivers: each action with the agent classes that take it.
        attributes: what may be proven about a principal; None is any type.
        entity_types: further entity types that policies name.
        sending: whether policies may speak of sending too.
    """
    agents = {agent for taken_by in receivers.values() for agent in taken_by} | set(entity_types)
    shape = _type_json(principal_record(attributes))
    actions = {
        action: {
            "appliesTo": {
                "principalTypes": [PRINCIPAL],
                "resourceTypes": sorted(receivers[action]),
                "context": _type_json(context_record(record)),
            }
        }
        for action, record in records.items()
    }
    if sending:
        context = _type_json(sending_record())
        actions[SEND] = {"appliesTo": {"principalTypes": [PRINCIPAL], "resourceTypes": [PRINCIPAL], "context": context}}
    entities: dict[str, object] = {**{agent: {} for agent in sorted(agents)}, PRINCIPAL: {"shape": shape}}
    return {"": {"entityTypes": entities, "actions": actions}}


def _type_json(kind: CedarType) -> dict[str, Any]:
    if isinstance(kind, Scalar):
        return {"type": kind.name}
    if isinstance(kind, SetOf):
        return {"type": "Set", "element": _type_json(kind.element)}
    fields = {name: {**_type_json(each), "required": name not in kind.optional} for name, each in kind.fields.items()}
    return {"type": "Record", "attributes": fields}


def to_cedar(kind: CedarType, value: object, place: str) -> object:
    """Return a value as Cedar's JSON has it, with what its type leaves out left out.

    Args:
        kind: the type it must have.
        value: of a message's field, or the message itself or a mapping of its fields.
        place: its path, for the error.

    Raises:
        ValueError: the value is not of that type, or an integer does not fit in 64 bits; the text names the place.
    """
    plain = value.value if isinstance(value, enum.Enum) else value
    match kind, plain:
        case (Scalar("String"), str()) | (Scalar("Boolean"), bool()):
            return plain
        case Scalar("Long"), int() if not isinstance(plain, bool):
            if LONG_LEAST <= plain <= LONG_MOST:
                return plain
            raise ValueError(f"{place} does not fit in 64 bits")
        case SetOf(element), list() | tuple() | set() | frozenset():
            elements = cast("Iterable[object]", plain)
            return [to_cedar(element, each, f"{place}[]") for each in elements]
        case Record(), _:
            return _record_to_cedar(kind, plain, place)
        case _:
            raise ValueError(f"{place} is a {type(value).__name__}")


def _record_to_cedar(kind: Record, value: object, place: str) -> dict[str, object]:
    source = cast("Any", value)
    by_name = isinstance(value, Mapping)
    converted: dict[str, object] = {}
    for name, field in kind.fields.items():
        each = source.get(name) if by_name else getattr(source, name, None)
        if each is not None or name not in kind.optional:
            converted[name] = to_cedar(field, each, f"{place}.{name}")
    return converted


def proven_to_cedar(value: AttributeValue, kind: AttributeType | None) -> object:
    """Return a proven attribute as Cedar's JSON has it; None when it is not of that type, or no value Cedar can hold.

    Args:
        value: what a credential says.
        kind: the type policies read it as; None where any will do.
    """
    found = type_of(value)
    if kind not in (None, found):
        return None
    try:
        return to_cedar(ATTRIBUTE_TYPES[found], value, "")
    except ValueError:
        return None
