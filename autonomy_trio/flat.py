"""Values without lists, maps and objects in them, and objects of only such values: to bytes and back without a walk.

Most messages are of this kind, and a walk costs more than all else that is done for them. What comes back is what the
walk would give, byte for byte and type for type; where that is not certain at a glance, the answer is None: walk.
"""

import functools
import math
import operator
import types
from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec

from autonomy_trio.annotations import UNIONS, field_names, field_types, members, origin

_PLAIN: Final = frozenset({bool, int, str, bytes, types.NoneType})
"""Scalars of which any value can be sent."""
_READ: Final = frozenset({*_PLAIN, float})

_ENCODER: Final = msgspec.msgpack.Encoder()

Writer = Callable[[Any], bytes | None]
Reader = Callable[[bytes], Any]


@functools.cache
def writer(cls: Any) -> Writer | None:  # noqa: ANN401 - any class
    """Return what encodes an object of a class: an attrs object as the map of its fields, a scalar as itself."""
    encode = _ENCODER.encode
    if cls in _PLAIN:
        return _write_scalar
    if not attrs.has(cls) or not (names := field_names(cls).all):
        return None
    twin = _twin(cls, dict.fromkeys(names, Any))
    get, single = operator.attrgetter(*names), len(names) == 1

    def write(value: Any) -> bytes | None:  # noqa: ANN401 - an object of the class
        found: tuple[Any, ...] = (get(value),) if single else get(value)
        for each in found:
            if type(each) not in _PLAIN and not (type(each) is float and math.isfinite(each)):
                return None
        try:
            return encode(twin(*found))
        except (ValueError, OverflowError):
            return None  # half a character, or an integer of 65 bits

    return write


@functools.cache
def reader(cls: Any) -> Reader | None:  # noqa: ANN401 - any class
    """Return what decodes what `writer` made of an object of a class, or of a scalar; it gives None for all else.

    The types bound what is read, so that nothing needs to be counted first. That the bytes have the one form that a
    value has, is told by encoding it again.
    """
    if cls in _PLAIN:
        return _scalar_reader(msgspec.msgpack.Decoder(cls))
    if not attrs.has(cls) or bool(getattr(cls, "__parameters__", None)) or not attrs.inspect(cls).added_init:
        return None
    try:
        known = field_types(cls)
    except NameError:
        return None
    fields = [field for field in attrs.fields(cls) if field.init]
    if not fields or any(field.kw_only or not _is_plain(known[field.name]) for field in fields):
        return None
    return _object_reader(cls, {field.name: known[field.name] for field in fields})


def _write_scalar(value: Any) -> bytes | None:  # noqa: ANN401 - a scalar
    try:
        return _ENCODER.encode(value)
    except (ValueError, OverflowError):
        return None  # as above


def _scalar_reader(decoder: msgspec.msgpack.Decoder[Any]) -> Reader:
    def read(payload: bytes) -> Any:  # noqa: ANN401 - a scalar
        try:
            found = decoder.decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        return found if _ENCODER.encode(found) == payload else None

    return read


def _object_reader(cls: Any, kinds: dict[str, Any]) -> Reader:  # noqa: ANN401 - any class
    decode, encode = msgspec.msgpack.Decoder(_twin(cls, kinds)).decode, _ENCODER.encode
    get = msgspec.structs.astuple
    has_floats = any(float in members(each) for each in kinds.values())

    def read(payload: bytes) -> Any:  # noqa: ANN401 - an object of the class
        try:
            found = decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        if encode(found) != payload:
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


def _is_plain(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    """Tell a scalar, also one that may be None, from all else: which of two others is meant takes a closer look."""
    if origin(kind) not in UNIONS:
        return kind in _READ
    parts = set(members(kind))
    return len(parts) == 2 and types.NoneType in parts and parts <= _READ  # noqa: PLR2004 - it and None
