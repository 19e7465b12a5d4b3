"""Application messages: a frozen attrs class, its wire name, and its bytes.

A message is encoded as one msgpack value: an attrs object as a map of its fields by name, an enum's member as its
value, sets and tuples as arrays, a ref as its address, everything else as itself. Decoding is strict, because the bytes
are a stranger's: `bounds` has how much they may be and `payloads` what they may say, and they have one form, the
shortest, in which no key can stand twice. There is no global registry of names: a request is decoded with the class in
its recipient's handler table, a reply with the type its request declares.
"""

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar, get_args, get_origin

import attrs
import msgspec

from autonomy_trio import flat
from autonomy_trio.annotations import MisfitError, ancestors, field_types, words
from autonomy_trio.bounds import excess
from autonomy_trio.errors import DeclarationError, MessageError
from autonomy_trio.payloads import Resolve, plain, read
from autonomy_trio.schemas import schema_of

MOST_PAYLOAD: Final = 128 * 1024
"""Bytes one encoded message may have."""

R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C", bound=type)

_class: Final[Callable[[object], Any]] = type

_WIRE_NAME: Final = "__wire_name__"


class Request(Generic[R_co]):
    """Generic base of a message that is answered: ``class Add(Request[Total])`` is replied to with a `Total`.

    The parameter is the type of the reply, any type that a message's field may have; ``None`` where only the completion
    counts.
    """

    __slots__ = ()


class Stream(Generic[T_co]):
    """Generic base of a message that is answered by any number of items: ``class Watch(Stream[Quote])`` yields Quotes.

    Its handler is an async generator; ``async with ref.stream(Watch()) as quotes`` iterates what that yields.
    """

    __slots__ = ()


@attrs.frozen
class Untyped(Request[Any], Stream[Any]):
    """A message of any kind known only by its wire name and plain fields, as the command line sends it.

    Its reply, or each of its items, is decoded without a type: maps, lists and scalars.
    """

    name: str
    fields: Mapping[str, object]


def message(*, name: str) -> Callable[[C], C]:
    """Give a message class another wire name than its own, say ``billing.Add.v2``."""

    def decorate(cls: C) -> C:
        setattr(cls, _WIRE_NAME, name)
        return cls

    return decorate


def wire_name(cls: type) -> str:
    """Return the name a message class goes by between nodes; an own name is not inherited."""
    name = cls.__dict__.get(_WIRE_NAME)
    return name if isinstance(name, str) else cls.__name__


def is_message_class(cls: object) -> bool:
    """Tell whether `cls` is a frozen attrs class, as every message must be."""
    # By its own dictionary, for `attrs.has` is true of a derived class that has no decorator of its own.
    return isinstance(cls, type) and "__attrs_attrs__" in vars(cls) and attrs.inspect(cls).is_frozen


def message_fields(cls: type) -> Mapping[str, object]:
    """Return a message class's fields in order: name to resolved type annotation.

    Raises:
        DeclarationError: `cls` is no frozen attrs class, or an annotation names something that cannot be found.
    """
    if not is_message_class(cls):
        msg = f"{cls.__qualname__} is not a frozen attrs class: decorate it with @attrs.frozen"
        raise DeclarationError(msg)
    try:
        return field_types(cls)
    except NameError as error:
        msg = f"{cls.__qualname__}: {error}: annotations must name types that its module can see"
        raise DeclarationError(msg) from None


def message_schema(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a class or any annotation
    """Return the JSON schema, draft 2020-12, of a message class, or of a reply's type.

    It is that of JSON as people write it: bytes are base64, datetimes text, and the keys of a map strings.

    Raises:
        DeclarationError: a type in it cannot be sent, or not be told from another one of its union; the sentence names
            the field.
    """
    try:
        return schema_of(kind, words(kind))
    except (MisfitError, NameError, RecursionError) as error:
        raise DeclarationError(f"{words(kind)} cannot be sent: {error}") from None


def check_sendable(cls: type) -> None:
    """Refuse a message class whose fields, reply or items cannot travel between nodes.

    Raises:
        DeclarationError: some type in it cannot be sent, or not be told from another one of its union, or not be found.
    """
    reply, item = reply_type(cls), item_type(cls)
    try:
        schema_of(cls, words(cls))
        if reply is not None:
            schema_of(reply, f"the reply of {words(cls)}")
        if item is not None:
            schema_of(item, f"an item of {words(cls)}")
    except (MisfitError, NameError, RecursionError) as error:
        raise DeclarationError(f"{words(cls)} cannot be sent: {error}") from None


def reply_type(cls: type) -> object | None:
    """Return R of a ``Request[R]`` class (`types.NoneType` for ``Request[None]``), or None where it is no request.

    Raises:
        DeclarationError: R is a name in quotes, which says nothing once the module has been read.
    """
    return _argument(cls, Request)


def item_type(cls: type) -> object | None:
    """Return T of a ``Stream[T]`` class, or None where it is no stream.

    Raises:
        DeclarationError: as `reply_type`.
    """
    return _argument(cls, Stream)


def _argument(cls: type, base: type) -> object | None:
    generic = next((each for each in ancestors(cls) if get_origin(each) is base), None)
    if generic is None:
        return None
    (argument,) = get_args(generic)
    if isinstance(argument, typing.ForwardRef):
        written = f"{base.__name__}[{argument.__forward_arg__}]"
        msg = f"{cls.__qualname__}: write {written} without quotes, after that class"
        raise DeclarationError(msg)
    return types.NoneType if argument is None else argument


def encode_payload(value: object) -> bytes:
    """Encode a message or a reply.

    Raises:
        MessageError: a field has no encoding, or the result is larger than `MOST_PAYLOAD` bytes.
    """
    write = flat.writer(_class(value))
    if write is not None and (quick := write(value)) is not None and len(quick) <= MOST_PAYLOAD:
        return quick
    name = value.name if isinstance(value, Untyped) else wire_name(type(value))
    try:
        payload = msgspec.msgpack.encode(plain(value.fields if isinstance(value, Untyped) else value, name))
    except (MisfitError, TypeError, ValueError, OverflowError, RecursionError) as error:
        # What msgpack or Python cannot hold: an integer of 65 bits, half a surrogate pair, a value inside itself.
        msg = f"{name} cannot be sent: {error}"
        raise MessageError(msg) from None
    if (why := _too_much(payload)) is not None:
        msg = f"{name} {why}: send it in parts"
        raise MessageError(msg)
    return payload


def decode_payload(payload: bytes, expected: object | None, resolve: Resolve | None = None) -> Any:  # noqa: ANN401 - the type is the caller's argument
    """Decode what `encode_payload` made into `expected`, or into maps, lists and scalars where that is None.

    Args:
        payload: a stranger's bytes.
        expected: a message class, or any type that a field may have.
        resolve: makes a ref of its address; without it, no message with a ref can be read.

    Raises:
        MessageError: the bytes are no msgpack in its one form, or more than a payload may be, or do not fit `expected`
            exactly; the text names the place.
    """
    if len(payload) <= MOST_PAYLOAD and isinstance(expected, type):
        quick: Any = expected
        read_quickly = flat.reader(quick)
        if read_quickly is not None and (quick := read_quickly(payload)) is not None:
            return quick
    name = "the payload" if expected is None else words(expected)
    if (why := _too_much(payload)) is not None:
        msg = f"{name} {why}"
        raise MessageError(msg)
    try:
        decoded = msgspec.msgpack.decode(payload)
        written = msgspec.msgpack.encode(decoded)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
        # ValueError: text that is no UTF-8; TypeError: a map's key that cannot be one.
        msg = f"{name} is not well-formed msgpack"
        raise MessageError(msg) from None
    if written != payload:
        msg = f"{name} has a key twice, or a value that is not in its shortest form"
        raise MessageError(msg)
    try:
        return read(decoded, Any if expected is None else expected, len(payload), resolve)
    except MisfitError as misfit:
        raise MessageError(str(misfit)) from None


def _too_much(payload: bytes) -> str | None:
    if len(payload) > MOST_PAYLOAD:
        return f"has {len(payload):,} bytes; a message has at most {MOST_PAYLOAD:,}"
    return excess(payload)


__all__ = [
    "MOST_PAYLOAD",
    "Request",
    "Stream",
    "Untyped",
    "check_sendable",
    "decode_payload",
    "encode_payload",
    "is_message_class",
    "item_type",
    "message",
    "message_fields",
    "message_schema",
    "reply_type",
    "wire_name",
]
