"""The types a message can carry: how their values become maps, lists and scalars, and how cattrs reads a stranger's.

cattrs coerces by default; our converters are strict: no ``"5"`` for 5, no bool for an int, no unknown field, none
missing, no float that is not finite, and no type that has no hook here. The one widening is int to float, since JSON
writes ``3`` for 3.0.
"""

import datetime
import enum
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
import cattrs.gen
from cattrs.cols import list_structure_factory

MOST_PLACED: Final = 1024
"""Bytes of a payload in which the place of what does not fit is looked for."""
MOST_WORDS: Final = 200
"""Characters about what does not fit in one error, and again about its place."""

_SCALARS: Final = (bool, int, str, bytes, datetime.datetime, float, types.NoneType)
_ANYTHING: Final = (Any, object)
_LISTS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    **{kind: kind for kind in (list, tuple, set, frozenset)},
    Sequence: tuple,
    AbstractSet: frozenset,
}
_MAPS: Final = (dict, Mapping)
_GENERATED: Final[Any] = cattrs.gen  # its types are known in part
_UNIONS: Final = (Union, types.UnionType)

_Hook: typing.TypeAlias = Callable[[Any, Any], Any]
_Register: typing.TypeAlias = Callable[[Callable[[Any], bool], Callable[[Any, cattrs.Converter], _Hook]], object]


class MisfitError(Exception):
    """A value that does not fit. It never leaves `encode_payload` and `decode_payload`."""


def plain(value: object, name: str) -> Any:  # noqa: ANN401 - maps, lists and scalars
    """Turn a value, called `name` in an error, into maps, lists and scalars.

    Raises:
        MisfitError: something in it is of a type that no message can carry; the text names the place.
    """
    try:
        return _plain(value)
    except (MisfitError, cattrs.BaseValidationError) as error:
        raise MisfitError(_sentence(error, name)) from None


def read(value: object, kind: Any, size: int) -> Any:  # noqa: ANN401 - the type is the caller's argument
    """Make a value of type `kind` from maps, lists and scalars that came as `size` bytes.

    The first thing that does not fit ends it, so that a stranger's values cost no more than finding it. A small payload
    is then read again for the places, which makes an exception of everything in it that does not fit.

    Raises:
        MisfitError: it does not fit exactly, or `kind` is no type that a message can carry.
    """
    why: Exception = MisfitError()
    for converter in (_QUICK, _PLACING) if size <= MOST_PLACED else (_QUICK,):
        try:
            return converter.structure(value, kind)
        except RecursionError:
            raise MisfitError(f"{words(kind)} is nested too deep") from None
        except Exception as error:  # noqa: BLE001 - fence: a program's validators and converters, at a stranger's values
            why = error
    raise MisfitError(_sentence(why, words(kind)))


def words(kind: object) -> str:
    """Return what a type is called in an error."""
    return getattr(kind, "__name__", str(kind))


def field_types(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - an attrs class, perhaps with type arguments
    """Return the resolved type of each field of an attrs class, type arguments in the place of type variables.

    cattrs has one table of type variables by their names, in which a ``T`` of a class hides the ``T`` of its base.

    Raises:
        NameError: an annotation names something that its module cannot see.
    """
    cls = _origin(kind)
    scopes = {_origin(each): _type_arguments(each) for each in ancestors(kind)}
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        hints = typing.get_type_hints(base)
        found |= {name: _bind(hints[name], scopes[base]) for name in inspect.get_annotations(base)}
    return {field.name: found.get(field.name, field.type or Any) for field in attrs.fields(cls)}


def ancestors(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - a class, perhaps with type arguments
    """Yield a class and all it derives from as written, type arguments in the place of type variables."""
    yield kind
    cls, bound = _origin(kind), _type_arguments(kind)
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        if get_origin(base) not in {Generic, typing.Protocol}:
            yield from ancestors(_bind(base, bound))


def _origin(kind: Any) -> Any:  # noqa: ANN401 - any annotation
    return get_origin(kind) or kind


def _type_arguments(kind: Any) -> dict[Any, Any]:  # noqa: ANN401 - a class, perhaps with type arguments
    parameters = getattr(_origin(kind), "__parameters__", ())
    return dict(zip(parameters, get_args(kind), strict=False))


def _bind(annotation: Any, bound: Mapping[Any, Any]) -> Any:  # noqa: ANN401 - any annotation
    """Put types in the place of an annotation's type variables; one that stands for nothing is Any."""
    if isinstance(annotation, TypeVar):
        return bound.get(annotation, Any)
    if isinstance(annotation, type):
        return cast("Any", annotation)
    parameters = getattr(annotation, "__parameters__", ())
    return annotation[tuple(bound.get(each, Any) for each in parameters)] if parameters else annotation


def _sentence(error: Exception, name: str) -> str:
    """Say what does not fit, and where in the value called `name`, as far as the error has its place."""
    first = cattrs.transform_error(error, path=name, format_exception=_what)[0]
    return "".join(each if each.isprintable() else " " for each in first[: 2 * MOST_WORDS])


def _what(error: BaseException, _: object) -> str:
    match error:
        case KeyError(args=[str() as key]):
            text = f"{key!r} is missing"
        case cattrs.ForbiddenExtraKeysError():
            text = f"unknown {min(map(repr, error.extra_fields)):.50}"
        case _:
            text = error.args[0] if error.args and isinstance(error.args[0], str) else type(error).__name__
    return text[:MOST_WORDS]


def _at(key: object, convert: Callable[..., Any], *parts: object, note: Any = cattrs.IterableValidationNote) -> Any:  # noqa: ANN401 - a part
    """Convert a part of a value; what does not fit is told with the part's place, as cattrs does it."""
    try:
        return convert(*parts)
    except (MisfitError, cattrs.BaseValidationError) as error:
        error.add_note(note("", key, object))
        in_class = note is cattrs.AttributeValidationNote
        group: Any = cattrs.ClassValidationError if in_class else cattrs.IterableValidationError
        raise group("", [error], object) from None


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a program sends
    """Write by what a value is: cattrs goes by how its field is declared, and cuts a derived object to its base."""
    kind = cast("Any", type(value))
    if kind in _SCALARS:
        return _checked(value)
    if issubclass(kind, enum.Enum):
        return _plain(value.value)
    if issubclass(kind, list | tuple | set | frozenset):
        return [_at(index, _plain, each) for index, each in enumerate(value)]
    if issubclass(kind, Mapping):
        return {_at(key, _plain_key, key): _at(key, _plain, each) for key, each in value.items()}
    if attrs.has(kind):
        names = [field.name for field in attrs.fields(kind) if field.init]
        return {name: _at(name, _plain, getattr(value, name), note=cattrs.AttributeValidationNote) for name in names}
    raise _uncarried(kind)


def _plain_key(key: object) -> object:
    name = key.value if isinstance(key, enum.Enum) else key
    if type(name) not in _SCALARS:
        raise MisfitError(f"{words(type(key))} is no type that the key of a map can have")
    return _checked(name)


def _checked(value: Any) -> Any:  # noqa: ANN401 - perhaps a scalar
    if type(value) not in _SCALARS:
        raise _uncarried(cast("object", type(value)))
    if isinstance(value, float) and not math.isfinite(value):
        raise MisfitError(f"{value} is no finite number")
    if isinstance(value, datetime.datetime) and value.tzinfo is None:
        raise MisfitError("a datetime needs a time zone")
    return value


def _uncarried(kind: object) -> MisfitError:
    return MisfitError(f"{words(kind)} is no type a message can carry")


def _wrong(expected: str, value: object) -> MisfitError:
    return MisfitError(f"expected {expected}, got {type(value).__name__}")


def _expect(outside: type, value: Any) -> Any:  # noqa: ANN401 - the value
    if type(value) is not outside:
        raise _wrong("map" if outside is dict else words(outside), value)
    return value


def _read_one(value: Any, kind: Any) -> Any:  # noqa: ANN401 - of type `kind`
    """Read a scalar, or a member of an enum or literal."""
    if type(value) is kind:
        return _checked(value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in _SCALARS:
        raise _wrong(words(kind), value)
    choices = _choices(kind)
    if not _fits(value, kind):
        raise MisfitError(f"expected one of {', '.join(repr(each) for _, each in choices)}")
    return choices[type(value), value]


def _is_choice(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum))


@functools.cache
def _choices(kind: Any) -> dict[tuple[type, Any], Any]:  # noqa: ANN401 - an enum or a literal
    """Return the members of an enum or literal by value and the value's type, for True is not 1."""
    if not _is_choice(kind):
        raise _uncarried(kind)
    pairs = [(each.value if isinstance(each, enum.Enum) else each, each) for each in get_args(kind) or kind]
    return {(type(value), value): each for value, each in pairs if type(value) in _SCALARS}


def _list_hook(kind: Any, converter: cattrs.Converter) -> _Hook:  # noqa: ANN401 - of any elements
    arguments = get_args(kind)
    if get_origin(kind) is tuple and arguments[1:] != (...,):
        return _tuple_hook(arguments, converter)
    build: Any = _LISTS[_origin(kind)]
    elements = list_structure_factory(_alias(list, *(arguments[:1] or _ANYTHING[:1])), converter)

    def read_list(value: object, _: object) -> Any:  # noqa: ANN401 - of type `kind`
        found = elements(_expect(list, value), list)
        try:
            built = build(found)
        except TypeError:
            raise MisfitError("a set has no lists, maps or sets in it") from None
        if len(built) != len(found):
            raise MisfitError("a set has each element once")
        return built

    return read_list


def _tuple_hook(kinds: Sequence[Any], converter: cattrs.Converter) -> _Hook:
    hooks = [converter.get_structure_hook(each) for each in kinds]

    def read_tuple(value: object, _: object) -> tuple[Any, ...]:
        elements = _expect(list, value)
        if len(elements) != len(hooks):
            raise MisfitError(f"expected {len(hooks)} elements, got {len(elements)}")
        return tuple(_at(index, *part) for index, part in enumerate(zip(hooks, elements, kinds, strict=True)))

    return read_tuple


def _map_hook(kind: object, converter: cattrs.Converter) -> _Hook:
    items = _GENERATED.make_mapping_structure_fn(_alias(dict, *(get_args(kind) or _ANYTHING)), converter)
    return lambda value, _: items(_expect(dict, value), dict)


def _alias(outside: Any, *arguments: Any) -> Any:  # noqa: ANN401 - a list or dict of any annotations
    """Put arguments to a type, with object for Any: cattrs does not look at elements that are Any."""
    return outside[tuple(object if each is Any else each for each in arguments)]


def _object_hook(kind: Any, converter: cattrs.Converter) -> _Hook:  # noqa: ANN401 - an attrs class
    return lambda value, _: _object_reader(kind, converter)(_expect(dict, value), kind)


@functools.cache
def _object_reader(kind: Any, converter: cattrs.Converter) -> Any:  # noqa: ANN401 - an attrs class
    """Return what reads a class's fields; made at first use, for a class may hold itself."""
    cls, known = _origin(kind), field_types(kind)
    # Annotated, or cattrs would put type arguments in the place of whatever goes by a type variable's name.
    fields = [field.evolve(type=typing.Annotated[known[field.name], "bound"]) for field in attrs.fields(cls)]
    variables = {each.__name__: Any for each in getattr(cls, "__parameters__", ())}
    return _GENERATED.make_dict_structure_fn_from_attrs(
        fields, cls, converter, variables, _cattrs_forbid_extra_keys=True
    )


def _anything_hook(_: object, converter: cattrs.Converter) -> _Hook:
    insides: dict[type, Any] = {list: list[object], dict: dict[object, object]}

    def read_anything(value: object, _: object) -> Any:  # noqa: ANN401 - maps, lists and scalars
        inside = insides.get(type(value))
        return converter.structure(value, inside) if inside else _checked(value)

    return read_anything


def _annotated_hook(kind: Any, converter: cattrs.Converter) -> _Hook:  # noqa: ANN401 - any annotation
    inside = kind.__origin__
    hook: _Hook = converter.get_structure_hook(inside)
    return lambda value, _: hook(value, inside)


def _meant_hook(kind: object, converter: cattrs.Converter) -> _Hook:
    return lambda value, _: converter.structure(value, _meant(kind))


def _refuse(kind: object, _: cattrs.Converter) -> _Hook:
    raise _uncarried(kind)


def _union_hook(kind: object, converter: cattrs.Converter) -> _Hook:
    """Read by the one member that a value fits, an enum or literal rather than a plain type.

    The order of the members is of no account, as when unions are compared; an int is widened to float where nothing
    else takes it.
    """
    plains: list[object] = [*_SCALARS, *_ANYTHING]
    special = [each for each in _members(kind) if each not in plains]
    members = sorted(_members(kind), key=lambda each: plains.index(each) if each in plains else -1)
    present = [each for each in members if each is not types.NoneType]
    hooks = [converter.get_structure_hook(each) for each in members]

    def read_union(value: object, _: object) -> Any:  # noqa: ANN401 - of type `kind`
        fitting = [each for each in members if _fits(value, each)]
        if value is not None and len(present) == 1:
            fitting = present
        if not fitting:
            raise _wrong(" or ".join(map(words, members)), value)
        if len(fitting) > 1 and fitting[1] in special:
            several = " or ".join(words(each) for each in fitting if each in special)
            raise MisfitError(f"could be {several}: a union's members need different fields")
        return hooks[members.index(fitting[0])](value, fitting[0])

    return read_union


def _members(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - any annotation
    """Yield the members of a union, and of those that go by another name in it."""
    meant = _meant(kind)
    parts = get_args(kind) if _origin(kind) in _UNIONS else () if meant is None else (meant,)
    if not parts:
        yield kind
    for each in parts:
        yield from _members(each)


def _meant(kind: Any) -> Any:  # noqa: ANN401 - any annotation
    """Return what None, a NewType or a `type` statement stands for; None where it is none of them."""
    if kind is None:
        return types.NoneType
    meant = getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)
    return None if meant is None else _bind(meant, _type_arguments(kind))


def _fits(value: Any, kind: Any) -> bool:  # noqa: ANN401 - a stranger's, and a member of a union
    """Tell by a look at its outside whether a value is meant as one: to try each would double with every depth."""
    origin = _origin(kind)
    if _is_choice(kind):
        return type(value) in _SCALARS and (type(value), value) in _choices(kind)
    if attrs.has(origin):
        required = {field.name: field.default is attrs.NOTHING for field in attrs.fields(origin) if field.init}
        needed = {name for name in required if required[name]}
        return type(value) is dict and needed <= value.keys() <= required.keys()
    if origin in _LISTS or origin in _MAPS:
        return type(value) is (list if origin in _LISTS else dict)
    return kind in _ANYTHING or type(value) is kind or (kind is float and type(value) is int)


def _make_converter(*, detailed: bool) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=detailed)
    register: _Register = cast("Any", converter).register_structure_hook_factory
    # The last that applies is taken: what none of ours is for is refused before cattrs' own are asked.
    register(lambda _: True, _refuse)
    register(lambda kind: _origin(kind) in _LISTS, _list_hook)
    register(lambda kind: _origin(kind) in _MAPS, _map_hook)
    register(lambda kind: _origin(kind) in _UNIONS, _union_hook)
    register(lambda kind: kind in _ANYTHING, _anything_hook)
    register(lambda kind: attrs.has(_origin(kind)), _object_hook)
    register(lambda kind: _origin(kind) is typing.Annotated, _annotated_hook)
    register(lambda kind: _meant(kind) is not None, _meant_hook)
    converter.register_structure_hook_func(lambda kind: kind in _SCALARS or _is_choice(kind), _read_one)
    # Before all these cattrs has hooks for some classes and what derives from them, an IntEnum say.
    for builtin in (int, float, str, bytes, enum.Enum, Path):
        converter.register_structure_hook(builtin, _read_one)
    return converter


_QUICK: Final = _make_converter(detailed=False)
_PLACING: Final = _make_converter(detailed=True)
