"""The types a message can carry: how their values become maps, lists and scalars, and are read back from a stranger's.

Reading is exact: no ``"5"`` for 5, no bool for an int, no unknown field, none missing, no float that is not finite, and
no type that `_reader` does not name. The one widening is int to float, since JSON writes ``3`` for 3.0. The first thing
that does not fit ends it, so that a stranger's values cost no more than finding it.
"""

import datetime
import enum
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, Union, cast, get_args, get_origin

import attrs

MOST_WORDS: Final = 200
"""Characters of a value's own text, or of its place, in one error."""

_SCALARS: Final[tuple[type, ...]] = (bool, int, str, bytes, types.NoneType)
_CHOICES: Final = (*_SCALARS, float)
_ITEM: Final = "[{!r:.50}]"
_FIELD: Final = ".{}"


class MisfitError(Exception):
    """A value that does not fit, and where: the place grows on the way out. It never leaves `encode` and `decode`."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.place = ""

    def sentence(self, name: str) -> str:
        """Say what does not fit in the value called `name`."""
        return f"{self.what[:MOST_WORDS]} @ {name}{self.place[:MOST_WORDS]}"


def plain(value: Any) -> Any:  # noqa: ANN401 - whatever a program sends, or a stranger sent
    """Turn a value into maps, lists and scalars.

    Raises:
        MisfitError: something in it is of a type that no message can carry.
    """
    if type(value) in _SCALARS:
        return value
    match value:
        case enum.Enum():
            return plain(value.value)
        case float() | datetime.datetime():
            return _checked(value)
        case list() | tuple() | set() | frozenset():
            elements = cast("Iterable[object]", value)
            return [_at(index, plain, element) for index, element in enumerate(elements)]
        case Mapping():
            pairs = cast("Mapping[object, object]", value)
            return {_at(key, _plain_key, key): _at(key, plain, each) for key, each in pairs.items()}
        case _:
            return _plain_object(value)


def read(value: object, kind: object) -> Any:  # noqa: ANN401 - the type is the caller's argument
    """Make a value of type `kind` from maps, lists and scalars.

    Raises:
        MisfitError: it does not fit exactly, or `kind` is no type that a message can carry.
        NameError: an annotation in `kind` names something that its module cannot see.
    """
    return _reader(kind).read(value)


def words(kind: object) -> str:
    """Return what a type is called in an error."""
    return getattr(kind, "__name__", str(kind))


def field_types(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - an attrs class, perhaps with type arguments
    """Return the resolved type of each field of an attrs class, type arguments in the place of type variables.

    Raises:
        NameError: an annotation names something that its module cannot see.
    """
    cls = get_origin(kind) or kind
    scopes = {get_origin(each) or each: _type_arguments(each) for each in ancestors(kind)}
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        hints = typing.get_type_hints(base)
        found |= {name: _bind(hints[name], scopes[base]) for name in inspect.get_annotations(base)}
    return {field.name: found.get(field.name, field.type or Any) for field in attrs.fields(cls)}


def ancestors(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - a class, perhaps with type arguments
    """Yield a class and all it derives from as written, type arguments in the place of type variables."""
    yield kind
    cls, bound = get_origin(kind) or kind, _type_arguments(kind)
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        if get_origin(base) not in {Generic, Protocol}:
            yield from ancestors(_bind(base, bound))


def _type_arguments(kind: Any) -> dict[Any, Any]:  # noqa: ANN401 - a class, perhaps with type arguments
    parameters = getattr(get_origin(kind) or kind, "__parameters__", ())
    return dict(zip(parameters, get_args(kind), strict=False))


def _bind(annotation: Any, bound: Mapping[Any, Any]) -> Any:  # noqa: ANN401 - any annotation
    """Put types in the place of an annotation's type variables; one that stands for nothing is Any."""
    if isinstance(annotation, TypeVar):
        return bound.get(annotation, Any)
    if isinstance(annotation, type):
        return cast("Any", annotation)
    parameters = getattr(annotation, "__parameters__", ())
    return annotation[tuple(bound.get(each, Any) for each in parameters)] if parameters else annotation


def _wrong(expected: str, value: object) -> MisfitError:
    return MisfitError(f"expected {expected}, got {type(value).__name__}")


def _at(key: object, function: Callable[[Any], Any], value: object, form: str = _ITEM) -> Any:  # noqa: ANN401 - its result
    """Call a function on a part of a value; what does not fit is told with the part's place."""
    try:
        return function(value)
    except MisfitError as misfit:
        misfit.place = form.format(key) + misfit.place
        raise


def _checked(value: float | datetime.datetime) -> float | datetime.datetime:
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            msg = "a datetime needs a time zone"
            raise MisfitError(msg)
    elif not math.isfinite(value):
        msg = f"{value} is no finite number"
        raise MisfitError(msg)
    return value


def _plain_key(key: object) -> object:
    name = plain(key)
    if isinstance(name, list | dict):
        msg = f"{type(key).__name__} is no type that the key of a map can have"
        raise MisfitError(msg)
    return name


def _plain_object(value: object) -> dict[str, Any]:
    cls: Any = type(value)
    if not attrs.has(cls):
        msg = f"{cls.__name__} is no type a message can carry"
        raise MisfitError(msg)
    names = [field.name for field in attrs.fields(cls) if field.init]
    return {name: _at(name, plain, getattr(value, name), _FIELD) for name in names}


@attrs.frozen
class _Reader:
    """How values of one type are read."""

    words: str
    fits: Callable[[Any], bool]
    """Tell by a look at its outside whether a value is meant as one, where a union leaves the choice."""
    read: Callable[[Any], Any]
    """Make one, or raise `MisfitError`."""


@functools.cache
def _reader(kind: Any) -> _Reader:  # noqa: ANN401 - any annotation
    """Return the reader of a type."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    meant = getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)
    if meant is not None:  # a NewType, a `type` statement
        return _reader(meant)
    origin = get_origin(kind) or kind
    if origin in _COMPOUND:
        return _COMPOUND[origin](kind)
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return _reads_one_of(list(origin), words(origin))
    if attrs.has(cast("Any", origin)):
        return _reads_object(kind)
    msg = f"{words(kind)} is no type a message can carry"
    raise MisfitError(msg)


def _reads_exactly(kind: type) -> _Reader:
    def fits(value: object) -> bool:
        return type(value) is kind

    def read_exactly(value: object) -> object:
        if not fits(value):
            raise _wrong(words(kind), value)
        return value

    return _Reader(words(kind), fits, read_exactly)


def _is_number(value: object) -> bool:
    return type(value) is float or type(value) is int


def _read_float(value: Any) -> Any:  # noqa: ANN401 - a stranger's
    if not _is_number(value):
        raise _wrong("float", value)
    return _checked(float(value))


def _reads_one_of(choices: Sequence[object], name: str) -> _Reader:
    """Return the reader of an enum or a literal: by value and its type, for True is not 1."""
    values: list[object] = [choice.value if isinstance(choice, enum.Enum) else choice for choice in choices]
    pairs = zip(values, choices, strict=True)
    exact = {(type(value), value): choice for value, choice in pairs if type(value) in _CHOICES}

    def fits(value: object) -> bool:
        return type(value) in _CHOICES and (type(value), value) in exact

    def read_one(value: object) -> object:
        if not fits(value):
            msg = f"expected one of {', '.join(map(repr, values))}"
            raise MisfitError(msg)
        return exact[type(value), value]

    return _Reader(name, fits, read_one)


def _reads_literal(kind: object) -> _Reader:
    return _reads_one_of(get_args(kind), str(kind))


def _is_list(value: object) -> bool:
    return type(value) is list


def _is_map(value: object) -> bool:
    return type(value) is dict


def _reads_list(build: Callable[[list[Any]], Any]) -> Callable[[object], _Reader]:
    """Return what makes the reader of ``list[T]``, ``tuple[T, ...]``, ``set[T]`` and the like; sets have no repeats."""

    def make(kind: object) -> _Reader:
        element = _reader(get_args(kind)[0] if get_args(kind) else Any)

        def read_list(value: Any) -> Any:  # noqa: ANN401 - a stranger's
            if not _is_list(value):
                raise _wrong("list", value)
            elements = [_at(index, element.read, each) for index, each in enumerate(value)]
            try:
                built = build(elements)
            except TypeError:
                msg = "a set has no lists, maps or sets in it"
                raise MisfitError(msg) from None
            if len(built) != len(elements):
                msg = "a set has each element once"
                raise MisfitError(msg)
            return built

        return _Reader(words(kind), _is_list, read_list)

    return make


def _reads_tuple(kind: object) -> _Reader:
    arguments = get_args(kind)
    if kind is tuple or arguments[1:] == (...,):
        return _reads_list(tuple)(kind)
    readers = [_reader(each) for each in arguments]

    def read_tuple(value: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a stranger's
        if not _is_list(value):
            raise _wrong("list", value)
        if len(value) != len(readers):
            msg = f"expected {len(readers)} elements, got {len(value)}"
            raise MisfitError(msg)
        pairs = enumerate(zip(readers, value, strict=True))
        return tuple(_at(index, reader.read, each) for index, (reader, each) in pairs)

    return _Reader(words(kind), _is_list, read_tuple)


def _reads_map(kind: object) -> _Reader:
    key, item = map(_reader, get_args(kind) or (Any, Any))

    def read_map(value: Any) -> dict[Any, Any]:  # noqa: ANN401 - a stranger's
        if not _is_map(value):
            raise _wrong("map", value)
        return {_at(name, key.read, name): _at(name, item.read, each) for name, each in value.items()}

    return _Reader(words(kind), _is_map, read_map)


def _reads_object(kind: Any) -> _Reader:  # noqa: ANN401 - an attrs class, perhaps with type arguments
    cls: Any = get_origin(kind) or kind

    @functools.cache
    def fields() -> tuple[dict[str, tuple[str, _Reader]], list[str]]:
        """Return each field's argument and reader, and who must be there; at first use, for a class may hold itself."""
        known = field_types(kind)
        own = [field for field in attrs.fields(cls) if field.init]
        readers = {field.name: (cast("str", field.alias), _reader(known[field.name])) for field in own}
        return readers, [field.name for field in own if field.default is attrs.NOTHING]

    def fits(value: Any) -> bool:  # noqa: ANN401 - a stranger's
        readers, required = fields()
        return _is_map(value) and value.keys() <= readers.keys() and all(name in value for name in required)

    def read_object(value: Any) -> object:  # noqa: ANN401 - a stranger's
        if not _is_map(value):
            raise _wrong("map", value)
        readers, required = fields()
        for name in required:
            if name not in value:
                msg = f"{name!r} is missing"
                raise MisfitError(msg)
        arguments: dict[str, Any] = {}
        for name, each in value.items():
            if name not in readers:
                msg = f"unknown {name!r:.50}"
                raise MisfitError(msg)
            alias, reader = readers[name]
            arguments[alias] = _at(name, reader.read, each, _FIELD)
        try:
            return cls(**arguments)
        except Exception as error:  # noqa: BLE001 - fence: a program's validators and converters, at a stranger's values
            msg = str(error.args[0]) if error.args else type(error).__name__
            raise MisfitError(msg) from None

    return _Reader(words(kind), fits, read_object)


def _reads_union(kind: object) -> _Reader:
    """Return the reader of a union: by the one member that a value fits, an enum or literal rather than a plain type.

    The order of the members is of no account, as when unions are compared; an int is widened to float where nothing
    else takes it.
    """
    choices = get_args(kind)
    special = [_reader(choice) for choice in choices if choice not in _SIMPLE]
    simple = [reader for choice, reader in _SIMPLE.items() if choice in choices]
    present = [reader for reader in (*special, *simple) if reader is not _NONE]
    name = " or ".join(reader.words for reader in (*special, *simple))

    def fits(value: object) -> bool:
        return any(reader.fits(value) for reader in (*special, *simple))

    def read_choice(value: object) -> object:
        if value is None and types.NoneType in choices:
            return None
        if len(present) == 1:
            return present[0].read(value)
        fitting = [reader for reader in special if reader.fits(value)]
        if len(fitting) > 1:
            several = " or ".join(reader.words for reader in fitting)
            msg = f"could be {several}: a union's members need different fields"
            raise MisfitError(msg)
        fitting += [reader for reader in simple if reader.fits(value)]
        if not fitting:
            raise _wrong(name, value)
        return fitting[0].read(value)

    return _Reader(name, fits, read_choice)


_ANYTHING: Final = _Reader("any value", lambda _: True, plain)
_NONE: Final = _reads_exactly(types.NoneType)
_SIMPLE: Final[Mapping[object, _Reader]] = {
    **{scalar: _reads_exactly(scalar) for scalar in (bool, int, str, bytes, datetime.datetime)},
    types.NoneType: _NONE,
    None: _NONE,
    float: _Reader("float", _is_number, _read_float),
    Any: _ANYTHING,
    object: _ANYTHING,
}
_COMPOUND: Final[Mapping[object, Callable[[object], _Reader]]] = {
    Literal: _reads_literal,
    Union: _reads_union,
    types.UnionType: _reads_union,
    tuple: _reads_tuple,
    list: _reads_list(list),
    Sequence: _reads_list(tuple),
    set: _reads_list(set),
    frozenset: _reads_list(frozenset),
    AbstractSet: _reads_list(frozenset),
    dict: _reads_map,
    Mapping: _reads_map,
}
