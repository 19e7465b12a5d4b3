"""Messages and replies as JSON, as `message_schema` describes it: bytes are base64, datetimes text, keys strings.

What JSON has no word for is brought into the form that messages have on the wire, by the type that is wanted in each
place; the rest, strictness and bounds, is that of the wire.
"""

import base64
import binascii
import datetime
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast, get_args

import attrs
import msgspec

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
    words,
)
from autonomy_trio.errors import MessageError
from autonomy_trio.messages import decode_payload
from autonomy_trio.payloads import Resolve, plain

_KEYS: Final[Mapping[Any, Callable[[str], Any]]] = {
    int: int,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    bytes: lambda text: base64.b64decode(text, validate=True),
    datetime.datetime: datetime.datetime.fromisoformat,
}


def to_json(value: object) -> Any:  # noqa: ANN401 - maps, lists and scalars
    """Return a message, a reply or an item as what `json.dumps` takes.

    Raises:
        MessageError: something in it is of a type that no message can carry.
    """
    try:
        return _in_json(plain(value, words(type(value))))
    except (MisfitError, RecursionError) as error:
        raise MessageError(f"{words(type(value))} cannot be written as JSON: {error}") from None


def from_json(value: object, kind: Any, resolve: Resolve | None = None) -> Any:  # noqa: ANN401 - the type is the caller's argument
    """Make a value of a type from what `json.loads` returns, strictly.

    Args:
        value: a stranger's.
        kind: a message class, or any type that a field may have.
        resolve: makes a ref of its address; without it, no message with a ref can be read.

    Raises:
        MessageError: it does not fit the type exactly, or is more than a message may be; the text names the place.
    """
    try:
        payload = msgspec.msgpack.encode(_on_wire(value, kind, words(kind)))
    except (MisfitError, TypeError, ValueError, OverflowError, RecursionError) as error:
        # What msgpack or Python cannot hold: an integer of 65 bits, half a surrogate pair, lists in lists without end.
        raise MessageError(str(error) if isinstance(error, MisfitError) else f"{words(kind)}: {error}") from None
    return decode_payload(payload, kind, resolve)


def _in_json(value: Any) -> Any:  # noqa: ANN401 - maps, lists and scalars
    match value:
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return {str(_in_json(key)): _in_json(each) for key, each in pairs}
        case list():
            return [_in_json(each) for each in cast("list[object]", value)]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime():
            return value.isoformat()
        case _:
            return value


def _on_wire(value: Any, kind: Any, place: str) -> Any:  # noqa: ANN401 - a stranger's, and any annotation
    """Return a value with bytes, datetimes and keys where they are meant; what does not fit stays, to be refused."""
    inside = kind.__origin__ if origin(kind) is typing.Annotated else meant(kind)
    if inside is not None and inside is not types.NoneType:
        return _on_wire(value, inside, place)
    outside = origin(kind)
    if outside in UNIONS:
        return _on_wire(value, _member(value, list(members(kind))), place)
    if is_choice(kind):
        return next((each for _, each in choices(kind) if _is_written(value, each)), value)
    if isinstance(value, dict) and (attrs.has(outside) or outside in MAPS):
        return _map_on_wire(cast("dict[str, object]", value), kind, place)
    if isinstance(value, list) and outside in LISTS:
        elements = cast("list[object]", value)
        kinds = enumerate(_element_kinds(kind, len(elements)))
        return [_on_wire(elements[index], each, f"{place}[{index}]") for index, each in kinds]
    return _scalar(value, kind, place)


def _map_on_wire(value: dict[str, object], kind: Any, place: str) -> dict[Any, Any]:  # noqa: ANN401 - any annotation
    if attrs.has(origin(kind)):
        known = field_types(kind)
        return {name: _on_wire(each, known.get(name, Any), f"{place}.{name}") for name, each in value.items()}
    key, element = get_args(kind) or ANYTHING[:1] * 2
    return {_key(name, key): _on_wire(each, element, f"{place}[{name!r:.40}]") for name, each in value.items()}


def _scalar(value: Any, kind: Any, place: str) -> Any:  # noqa: ANN401 - a stranger's
    match value:
        case str() if kind is bytes:
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise MisfitError(f"expected base64 @ {place}") from None
        case str() if kind is datetime.datetime:
            try:
                found = datetime.datetime.fromisoformat(value)
            except ValueError:
                raise MisfitError(f"expected a date and time, as in 2026-01-31T12:00:00Z @ {place}") from None
            if found.tzinfo is None:
                raise MisfitError(f"a datetime needs a time zone @ {place}")
            return found
        case float() if kind is int and value.is_integer():
            return int(value)  # JSON has one kind of number: 3.0 is an integer in it
        case _:
            return value


def _member(value: object, kinds: Iterable[Any]) -> Any:  # noqa: ANN401 - a union's
    """Return the member of a union that JSON is meant as; Any where that makes no difference, or nothing fits."""
    special = next((kind for kind in kinds if _looks_like(value, kind)), None)
    if special is not None:
        return special
    if isinstance(value, str):
        if any(kind is str or is_ref(kind) for kind in kinds):
            return str
        return next((kind for kind in (datetime.datetime, bytes) if kind in kinds and _reads(value, kind)), Any)
    return int if int in kinds and float not in kinds and isinstance(value, float) else Any


def _looks_like(value: Any, kind: Any) -> bool:  # noqa: ANN401 - a stranger's, and a member of a union
    outside = origin(kind)
    if attrs.has(outside):
        return isinstance(value, dict) and field_names(outside).fit(cast("dict[object, object]", value).keys())
    if is_choice(kind):
        return any(_is_written(value, each) for _, each in choices(kind))
    return (outside in LISTS and isinstance(value, list)) or (outside in MAPS and isinstance(value, dict))


def _reads(value: str, kind: type) -> bool:
    try:
        _scalar(value, kind, "")
    except MisfitError:
        return False
    return True


def _is_written(value: object, each: object) -> bool:
    """Tell whether JSON has a value of an enum or literal in it."""
    written = _in_json(each)
    return type(written) is type(value) and written == value


def _element_kinds(kind: Any, count: int) -> list[Any]:  # noqa: ANN401 - of any elements
    arguments = get_args(kind)
    if origin(kind) is tuple and arguments and arguments[1:] != (...,):
        return [*arguments, *[Any] * (count - len(arguments))]
    return [arguments[0] if arguments else Any] * count


def _key(name: str, kind: Any) -> Any:  # noqa: ANN401 - a key's
    """Return a map's key, which JSON writes as text; one that cannot be read stays, to be refused."""
    if is_choice(kind):
        return next((each for _, each in choices(kind) if str(_in_json(each)) == name), name)
    try:
        return _KEYS[kind](name)
    except (KeyError, ValueError):
        return name
