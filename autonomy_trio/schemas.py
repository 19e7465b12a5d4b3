"""The JSON schema of what a message's fields may hold, and with it whether each of their types can be carried at all.

Source: JSON Schema, draft 2020-12.
"""

import base64
import datetime
import inspect
import itertools
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs

from autonomy_trio.annotations import (
    ANYTHING,
    LISTS,
    MAPS,
    UNIONS,
    MisfitError,
    choices,
    field_names,
    field_types,
    is_choice,
    is_ref,
    meant,
    members,
    origin,
    uncarried,
    words,
)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SCALARS: Final[Mapping[Any, Mapping[str, Any]]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    types.NoneType: {"type": "null"},
}
_Shape: TypeAlias = Literal["scalar", "anything", "choice", "ref", "object", "list", "map", "union"]
_REF: Final = {"type": "string", "description": "an agent's address"}
_WRAP: Final = "make one of them the field of a frozen attrs class"
_INTEGER: Final = "^(0|-?[1-9][0-9]*)$"


def schema_of(kind: object, place: str) -> dict[str, Any]:
    """Return the JSON schema of a type; the class itself stands at the top, and what else it is made of in ``$defs``.

    Args:
        kind: a message class, or any type that a field may have.
        place: what it is called in an error.

    Raises:
        MisfitError: some type in it cannot be carried, or could not be told from another; the text names the place.
        NameError: an annotation names something that its module cannot see.
    """
    schemas = _Schemas()
    if attrs.has(origin(kind)):
        schemas.places[kind] = "#"
        found = schemas.fields(kind, place)
    else:
        found = schemas.of(kind, place)
    return {"$schema": DIALECT, **found, **({"$defs": schemas.definitions} if schemas.definitions else {})}


@attrs.define(eq=False)
class _Schemas:
    places: dict[Any, str] = attrs.field(factory=dict[Any, str])
    """Where the schema of each class stands, also while it is being made: a class may hold itself."""
    definitions: dict[str, Any] = attrs.field(factory=dict[str, Any])

    def of(self, kind: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - any annotation
        """Return the schema of a type that stands in a place of the message."""
        inside = kind.__origin__ if origin(kind) is typing.Annotated else meant(kind)
        if inside is not None:
            return self.of(inside, place)
        match _shape_of(kind):
            case "scalar":
                return dict(_SCALARS[kind])
            case "anything":
                return {}
            case "choice":
                return {"enum": [_in_json(value) for _, value in choices(kind)]}
            case "ref":
                return dict(_REF)
            case None:
                raise MisfitError(f"{uncarried(kind)} @ {place}")
            case outside:
                makers = {"union": self._union, "list": self._list, "map": self._map, "object": self._object}
                return makers[outside](kind, place)

    def fields(self, kind: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - an attrs class
        """Return the schema of a class's objects."""
        cls, known = origin(kind), field_types(kind)
        names, properties = field_names(cls), dict[str, Any]()
        for name in names.all:
            default = getattr(attrs.fields(cls), name).default
            is_plain = type(default) in (bool, int, float, str, types.NoneType)
            properties[name] = self.of(known[name], f"{place}.{name}") | ({"default": default} if is_plain else {})
        about = _about(cls)
        return {
            "title": words(cls),
            **({"description": about} if about else {}),
            "type": "object",
            "properties": properties,
            "required": list(names.needed),
            "additionalProperties": False,
        }

    def _object(self, kind: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - an attrs class
        if kind not in self.places:
            numbered = (f"{words(kind)}{number}" for number in itertools.count(2))
            name = next(name for name in itertools.chain([words(kind)], numbered) if name not in self.definitions)
            self.places[kind] = f"#/$defs/{name}"
            self.definitions[name] = {}
            self.definitions[name] = self.fields(kind, place)
        return {"$ref": self.places[kind]}

    def _list(self, kind: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - of any elements
        arguments, outside = get_args(kind), origin(kind)
        if outside is tuple and arguments[1:] != (...,) and kind is not tuple:
            prefix = [self.of(each, f"{place}[{index}]") for index, each in enumerate(arguments)]
            exact = {"type": "array", "items": False, "minItems": len(prefix), "maxItems": len(prefix)}
            return {**exact, "prefixItems": prefix} if prefix else exact
        element = arguments[0] if arguments else Any
        found = {"type": "array", "items": self.of(element, f"{place}[]")}
        return {**found, "uniqueItems": True} if LISTS[outside] in (set, frozenset) else found

    def _map(self, kind: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - of any keys and values
        key, value = get_args(kind) or ANYTHING[:1] * 2
        names: dict[str, Any] = {}
        keys = list(members(key))
        for each in keys:
            if not (each in _SCALARS or each in ANYTHING or is_choice(each)):
                raise MisfitError(f"{words(each)} is no type that the key of a map can have @ {place}")
        if keys == [int]:
            names = {"propertyNames": {"pattern": _INTEGER}}
        elif len(keys) == 1 and is_choice(keys[0]):
            names = {"propertyNames": {"enum": [str(_in_json(value)) for _, value in choices(keys[0])]}}
        return {"type": "object", **names, "additionalProperties": self.of(value, f"{place}[…]")}

    def _union(self, kind: object, place: str) -> dict[str, Any]:
        kinds = list(members(kind))
        found = [self.of(each, place) for each in kinds]
        for one, other in itertools.combinations(kinds, 2):
            if _look_alike(one, other):
                are_objects = _shape_of(one) == _shape_of(other) == "object"
                mend = "give one a required field that the other does not have" if are_objects else _WRAP
                raise MisfitError(f"{words(one)} and {words(other)} look the same when they are sent @ {place}: {mend}")
        return {"anyOf": found}


def _look_alike(one: Any, other: Any) -> bool:  # noqa: ANN401 - members of a union
    """Tell whether what is written of one type could be read as the other; a choice goes before a plain type."""
    shapes = {_shape_of(one), _shape_of(other)}
    if shapes == {"object"}:
        first, second = field_names(origin(one)), field_names(origin(other))
        return first.fit(second.known) or second.fit(first.known)
    if shapes == {"choice"}:
        return bool(choices(one).keys() & choices(other).keys())
    if shapes == {"choice", "ref"}:
        return any(kind is str for each in (one, other) if is_choice(each) for kind, _ in choices(each))
    if shapes == {"ref", "scalar"}:
        return str in (one, other)
    return shapes in ({"list"}, {"map"}, {"ref"}, {"object", "map"})


def _shape_of(kind: Any) -> _Shape | None:  # noqa: ANN401 - any annotation
    """Return what a type looks like from outside; None for one that no message can carry."""
    outside = origin(kind)
    shapes: dict[_Shape, bool] = {
        "scalar": kind in _SCALARS,
        "anything": kind in ANYTHING,
        "choice": is_choice(kind),
        "ref": is_ref(kind),
        "object": attrs.has(outside),
        "list": outside in LISTS,
        "map": outside in MAPS,
        "union": outside in UNIONS,
    }
    return next((shape for shape, has in shapes.items() if has), None)


def _about(cls: type) -> str:
    """Return the first paragraph of a class's docstring, on one line."""
    written = cls.__doc__ if "__doc__" in vars(cls) else None
    return " ".join(inspect.cleandoc(written or "").partition("\n\n")[0].split())


def _in_json(value: Any) -> Any:  # noqa: ANN401 - a scalar
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime():
            return value.isoformat()
        case _:
            return value
