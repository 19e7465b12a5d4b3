"""Application messages: a frozen attrs class, its wire name, and its bytes.

A message is encoded as one msgpack value: an attrs object as a map of its fields by name, everything else as itself. Decoding
is strict, because the bytes are a stranger's: exact types (no ``"5"`` for 5, no bool for an int), no unknown fields, no missing
ones. The one widening is int to float, since JSON writes ``3`` for 3.0. There is no global registry of names: a request is
decoded with the class in its recipient's handler table, a reply with the type its request declares.
"""

import datetime
import enum
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
import msgspec
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_union_passthrough

from autonomy_trio.errors import DeclarationError, MessageError

MOST_PAYLOAD: Final = 128 * 1024
"""Bytes one encoded message may have."""

R_co = TypeVar("R_co", covariant=True)
C = TypeVar("C", bound=type)


class Request(Generic[R_co]):
    """Generic base of a message that is answered: ``class Add(Request[Total])`` is replied to with a `Total`.

    The parameter is the type of the reply, any type that a message's field may have; ``None`` where only the completion counts.
    """

    __slots__ = ()


@attrs.frozen
class Untyped(Request[Any]):
    """A request or message known only by its wire name and plain fields, as the command line sends it.

    Its reply is decoded without a type: maps, lists and scalars.
    """

    name: str
    fields: Mapping[str, object]


def message(*, name: str) -> Callable[[C], C]:
    """Give a message class another wire name than its own, say ``billing.Add.v2``."""

    def decorate(cls: C) -> C:
        cls.__wire_name__ = name  # type: ignore[attr-defined]
        return cls

    return decorate


def wire_name(cls: type) -> str:
    """Return the name a message class goes by between nodes; an own name is not inherited."""
    name = cls.__dict__.get("__wire_name__")
    return name if isinstance(name, str) else cls.__name__


def is_message_class(cls: object) -> bool:
    """Tell whether `cls` is a frozen attrs class, as every message must be."""
    return isinstance(cls, type) and attrs.has(cls) and attrs.inspect(cls).is_frozen


def message_fields(cls: type) -> Mapping[str, object]:
    """Return a message class's fields in order: name to resolved type annotation.

    Raises:
        DeclarationError: `cls` is no frozen attrs class, or an annotation names something that cannot be found.
    """
    if not is_message_class(cls):
        msg = f"{cls.__qualname__} is not a frozen attrs class: decorate it with @attrs.frozen"
        raise DeclarationError(msg)
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        msg = f"{cls.__qualname__}: {error}: annotations must name types that its module can see"
        raise DeclarationError(msg) from None
    return {field.name: hints.get(field.name, Any) for field in attrs.fields(cls)}


def reply_type(cls: type) -> object | None:
    """Return R of a ``Request[R]`` class (`types.NoneType` for ``Request[None]``), or None where it is no request."""
    for base in cls.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            if get_origin(generic) is Request:
                (argument,) = get_args(generic)
                return type(None) if argument is None else argument
    return None


def encode_payload(value: object) -> bytes:
    """Encode a message or a reply.

    Raises:
        MessageError: a field has no encoding, or the result is larger than `MOST_PAYLOAD` bytes.
    """
    plain = value.fields if isinstance(value, Untyped) else value
    try:
        payload = _encoder.encode(_converter.unstructure(plain))
    except (TypeError, ValueError, OverflowError, RecursionError, cattrs.StructureHandlerNotFoundError) as error:
        msg = f"{_name_of(value)} cannot be sent: {error}"
        raise MessageError(msg) from None
    if len(payload) > MOST_PAYLOAD:
        msg = f"{_name_of(value)} has {len(payload):,} bytes; a message has at most {MOST_PAYLOAD:,}: send it in parts"
        raise MessageError(msg)
    return payload


def decode_payload(payload: bytes, expected: object | None) -> Any:  # noqa: ANN401 - the type is the caller's argument
    """Decode what `encode_payload` made into `expected`, or into maps, lists and scalars where that is None.

    Raises:
        MessageError: the bytes are no msgpack, or do not fit `expected` exactly; the text names each field that does not.
    """
    name = getattr(expected, "__name__", "the payload")
    if len(payload) > MOST_PAYLOAD:
        msg = f"{name} has {len(payload):,} bytes; a message has at most {MOST_PAYLOAD:,}"
        raise MessageError(msg)
    try:
        plain = msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError, OverflowError):
        msg = f"{name} is not well-formed msgpack"
        raise MessageError(msg) from None
    return plain if expected is None else structure(plain, expected)


def structure(plain: object, expected: object) -> Any:  # noqa: ANN401 - the type is the caller's argument
    """Build `expected` from maps, lists and scalars.

    Raises:
        MessageError: something does not fit exactly; the text names each place.
    """
    name = getattr(expected, "__name__", str(expected))
    try:
        return _converter.structure(plain, cast("Any", expected))
    except cattrs.BaseValidationError as error:
        places = cattrs.transform_error(error, path=name, format_exception=_in_words)
        raise MessageError("; ".join(places[:5])) from None
    except (TypeError, ValueError, RecursionError, NameError, cattrs.StructureHandlerNotFoundError) as error:
        raise MessageError(f"{name}: {_in_words(error, None)}") from None


def _name_of(value: object) -> str:
    return value.name if isinstance(value, Untyped) else wire_name(type(value))


def _in_words(error: BaseException, _: object) -> str:
    match error:
        case KeyError():
            return f"{error.args[0]!r} is missing"
        case cattrs.ForbiddenExtraKeysError():
            return f"unknown {', '.join(sorted(repr(str(field)) for field in error.extra_fields))}"
        case _:
            return str(error)


def _wrong(expected: str, value: object) -> TypeError:
    return TypeError(f"expected {expected}, got {type(value).__name__}")


def _exactly(expected: type) -> Callable[[object, object], Any]:
    def structure_exactly(value: object, _: object) -> object:
        if type(value) is not expected:
            raise _wrong(expected.__name__, value)
        return value

    return structure_exactly


def _float(value: object, _: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise _wrong("float", value)
    return float(value)


def _enum(value: object, cls: type[enum.Enum]) -> enum.Enum:
    for member in cls:
        if type(member.value) is type(value) and member.value == value:
            return member
    choices = ", ".join(repr(member.value) for member in cls)
    msg = f"expected one of {choices}"
    raise ValueError(msg)


def _literal(value: object, cls: object) -> object:
    for choice in get_args(cls):
        if type(choice) is type(value) and choice == value:
            return choice
    msg = f"expected one of {', '.join(map(repr, get_args(cls)))}"
    raise ValueError(msg)


def _from_list(cls: Any, converter: cattrs.Converter) -> Callable[[object, object], Any]:  # noqa: ANN401 - any generic alias
    """Return the hook for ``list[T]``, ``set[T]``, ``frozenset[T]`` and ``tuple[T, ...]``: from a list, sets without repeats."""
    build = cast("type", get_origin(cls) or cls)
    arguments = get_args(cls)
    elements = list_structure_factory(cast("Any", list[arguments[0] if arguments else Any]), converter)

    def structure_list(value: object, _: object) -> object:
        if type(value) is not list:
            raise _wrong("list", value)
        built = build(elements(value, list))
        if len(built) != len(value):
            msg = "a set has each element once"
            raise ValueError(msg)
        return built

    return structure_list


def _fixed_tuple(cls: Any, converter: cattrs.Converter) -> Callable[[object, object], Any]:  # noqa: ANN401 - any generic alias
    kinds = get_args(cls)
    hooks = [converter.get_structure_hook(kind) for kind in kinds]

    def structure_tuple(value: object, _: object) -> object:
        if type(value) is not list:
            raise _wrong("list", value)
        if len(value) != len(hooks):
            msg = f"expected {len(hooks)} elements, got {len(value)}"
            raise ValueError(msg)
        return tuple(hook(element, kind) for hook, element, kind in zip(hooks, value, kinds, strict=True))

    return structure_tuple


def _from_map(factory: Callable[..., Callable[[Any, Any], Any]]) -> Callable[[Any, cattrs.Converter], Any]:
    def make(cls: Any, converter: cattrs.Converter) -> Callable[[object, object], Any]:  # noqa: ANN401 - any generic alias
        inner = factory(cls, converter)

        def structure_map(value: object, kind: object) -> object:
            if type(value) is not dict:
                raise _wrong("map", value)
            return inner(value, kind)

        return structure_map

    return make


def _attrs_fields(cls: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:  # noqa: ANN401 - any attrs class
    return make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda cls: (get_origin(cls) or cls) in kinds


def _is_fixed_tuple(cls: object) -> bool:
    arguments = get_args(cls)
    return get_origin(cls) is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis)  # noqa: PLR2004 - (T, ...)


def _is_enum(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, enum.Enum)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for primitive in (int, str, bool, bytes, type(None), datetime.datetime):
        converter.register_structure_hook(primitive, _exactly(primitive))
        converter.register_unstructure_hook(primitive, lambda value: value)
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook_factory(_is(list, set, frozenset, tuple), _from_list)
    converter.register_structure_hook_factory(_is_fixed_tuple, _fixed_tuple)
    converter.register_structure_hook_factory(_is(dict, cast("type", Mapping)), _from_map(mapping_structure_factory))
    converter.register_structure_hook_factory(attrs.has, _from_map(_attrs_fields))
    converter.register_structure_hook_func(_is_enum, _enum)
    converter.register_structure_hook_func(_is(cast("type", typing.Literal)), _literal)
    converter.register_structure_hook_func(lambda cls: cls is object, lambda value, _: value)
    passthrough = bool | int | float | str | bytes | None
    configure_union_passthrough(passthrough, converter)
    return converter


_converter = _make_converter()
_encoder = msgspec.msgpack.Encoder()

__all__ = [
    "MOST_PAYLOAD",
    "Request",
    "Untyped",
    "decode_payload",
    "encode_payload",
    "is_message_class",
    "message",
    "message_fields",
    "reply_type",
    "structure",
    "wire_name",
]
