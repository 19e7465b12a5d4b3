"""Values without lists, maps and objects in them, and objects of only such values: to bytes and back without a walk.

Most messages are of this kind, and a walk costs more than all else that is done for them. What comes back is what the
walk would give, byte for byte and type for type; where that is not certain at a glance, the answer is None: walk.
"""

import functools
import math
import operator
import types
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import attrs
import msgspec

from autonomy_trio.annotations import UNIONS, field_names, field_types, members, origin

_PLAIN: Final = frozenset({bool, int, str, bytes, types.NoneType})
"""Scalars of which any value can be sent."""
_READ: Final = frozenset({*_PLAIN, float})

_ENCODER: Final = msgspec.msgpack.Encoder()

_T = TypeVar("_T")


def encode(value: object) -> bytes | None:
    """Encode a scalar, or an attrs object of scalars as the map of its fields."""
    kind: Any = type(value)
    if kind in _PLAIN:
        return _encode(value)
    writer = _writer(kind)
    return None if writer is None else writer(value)


def decode(payload: bytes, kind: type[_T]) -> _T | None:
    """Decode what `encode` made of an object of class `kind`, or of a scalar; None for all else, and for None.

    The types bound what is read, so that nothing needs to be counted first. That the bytes have the one form that a
    value has, is told by encoding it again.
    """
    reader = _reader(cast("Any", kind))
    return None if reader is None else reader(payload)


def _encode(value: object) -> bytes | None:
    try:
        return _ENCODER.encode(value)
    except (ValueError, OverflowError):
        return None  # half a character, or an integer of 65 bits


@functools.cache
def _writer(cls: Any) -> Callable[[Any], bytes | None] | None:  # noqa: ANN401 - any class
    if not attrs.has(cls) or not (names := field_names(cls).all):
        return None
    twin = _twin(cls, dict.fromkeys(names, Any))
    get, single = operator.attrgetter(*names), len(names) == 1

    def write(value: Any) -> bytes | None:  # noqa: ANN401 - an object of the class
        found: tuple[Any, ...] = (get(value),) if single else get(value)
        for each in found:
            kind = cast("Any", type(each))
            if kind not in _PLAIN and not (kind is float and math.isfinite(each)):
                return None
        return _encode(twin(*found))

    return write


@functools.cache
def _reader(kind: Any) -> Callable[[bytes], Any] | None:  # noqa: ANN401 - any class
    if kind in _PLAIN:
        decoder = msgspec.msgpack.Decoder(kind)
        return lambda payload: _same(decoder, payload)
    if not attrs.has(kind) or bool(getattr(kind, "__parameters__", None)) or not attrs.inspect(kind).added_init:
        return None
    try:
        known = field_types(kind)
    except NameError:
        return None
    fields = [field for field in attrs.fields(kind) if field.init]
    if not fields or any(field.kw_only or not _is_plain(known[field.name]) for field in fields):
        return None
    return _object_reader(kind, {field.name: known[field.name] for field in fields})


def _object_reader(cls: Any, kinds: dict[str, Any]) -> Callable[[bytes], Any]:  # noqa: ANN401 - any class
    decoder = msgspec.msgpack.Decoder(_twin(cls, kinds))
    get = msgspec.structs.astuple
    has_floats = any(float in members(each) for each in kinds.values())

    def read(payload: bytes) -> Any:  # noqa: ANN401 - an object of the class
        found = _same(decoder, payload)
        if found is None:
            return None
        values = get(found)
        if has_floats and not all(math.isfinite(each) for each in values if type(each) is float):
            return None
        try:
            return cls(*values)
        except Exception:  # noqa: BLE001 - fence: a program's validators and converters; the walk tells what is wrong
            return None

    return read


def _twin(cls: Any, kinds: dict[str, Any]) -> type[msgspec.Struct]:  # noqa: ANN401 - any class
    """Make a struct of the same fields, which msgspec writes and strictly reads at once."""
    return msgspec.defstruct(cls.__name__, list(kinds.items()), forbid_unknown_fields=True, gc=False)


def _same(decoder: msgspec.msgpack.Decoder[_T], payload: bytes) -> _T | None:
    try:
        found = decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found if _ENCODER.encode(found) == payload else None


def _is_plain(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    """Tell a scalar, also one that may be None, from all else: which of two others is meant takes a closer look."""
    if origin(kind) not in UNIONS:
        return kind in _READ
    parts = set(members(kind))
    return len(parts) == 2 and types.NoneType in parts and parts <= _READ  # noqa: PLR2004 - it and None
