"""How a message's values become maps, lists and scalars, and how cattrs reads a stranger's.

cattrs coerces by default; our converters are strict: no ``"5"`` for 5, no bool for an int, no unknown field, none
missing, no float that is not finite, and no type that has no hook here. The one widening is int to float, since JSON
writes ``3`` for 3.0.
"""

import datetime
import enum
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, cast, get_args, get_origin

import attrs
import cattrs.gen
from cattrs.cols import list_structure_factory

from autonomy_trio.annotations import (
    ANYTHING,
    LISTS,
    MAPS,
    SCALARS,
    UNIONS,
    Addressed,
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

MOST_PLACED: Final = 1024
"""Bytes of a payload in which the place of what does not fit is looked for."""
MOST_WORDS: Final = 200
"""Characters about what does not fit in one error, and again about its place."""
MOST_QUOTED: Final = 40
"""Characters of a key or name that an error quotes: what a stranger sends may be a secret."""

Resolve: typing.TypeAlias = Callable[[str], Addressed]
"""Finds what an address stands for, on the node that reads it; raises an error that says why it stands for nothing."""

_GENERATED: Final[Any] = cattrs.gen  # its types are known in part

_Hook: typing.TypeAlias = Callable[[Any, Any], Any]
_Register: typing.TypeAlias = Callable[[Callable[[Any], bool], Callable[[Any, cattrs.Converter], _Hook]], object]


_resolving: Final[ContextVar[Resolve | None]] = ContextVar("_resolving", default=None)
"""What the node that reads now resolves with; the converters are shared by all nodes of a process."""


def plain(value: object, name: str) -> Any:  # noqa: ANN401 - maps, lists and scalars
    """Turn a value, called `name` in an error, into maps, lists and scalars.

    Raises:
        MisfitError: something in it is of a type that no message can carry; the text names the place.
    """
    try:
        return _plain(value)
    except (MisfitError, cattrs.BaseValidationError) as error:
        raise MisfitError(_sentence(error, name)) from None


def read(value: object, kind: Any, size: int, resolve: Resolve | None = None) -> Any:  # noqa: ANN401 - the type is the caller's argument
    """Make a value of type `kind` from maps, lists and scalars that came as `size` bytes; `resolve` finds refs.

    The first thing that does not fit ends it, so that a stranger's values cost no more than finding it. A small payload
    is then read again for the places, which makes an exception of everything in it that does not fit.

    Raises:
        MisfitError: it does not fit exactly, or `kind` is no type that a message can carry.
    """
    why: Exception = MisfitError()
    before = _resolving.set(resolve)
    try:
        for converter in (_QUICK, _PLACING) if size <= MOST_PLACED else (_QUICK,):
            try:
                return converter.structure(value, kind)
            except Exception as error:  # noqa: BLE001 - fence: a program's validators and converters, at a stranger's values
                why = error
    finally:
        _resolving.reset(before)
    raise MisfitError(_sentence(why, words(kind)))


def _sentence(error: Exception, name: str) -> str:
    """Say what does not fit, and where in the value called `name`, as far as the error has its place."""
    place = name
    while isinstance(error, cattrs.BaseValidationError):
        error = error.exceptions[0]
        for note in getattr(error, "__notes__", ()):
            if isinstance(note, cattrs.AttributeValidationNote):
                place += f".{note.name}"
            elif isinstance(note, cattrs.IterableValidationNote):
                place += f"[{_quoted(note.index)}]"
    text = f"{_what(error)[:MOST_WORDS]} @ {place}"[: 2 * MOST_WORDS]
    return "".join(each if each.isprintable() else " " for each in text)


def _what(error: Exception) -> str:
    match error:
        case KeyError(args=[key]):
            return f"KeyError: {_quoted(key)}"  # a validator's: its text is the key alone
        case _:
            return error.args[0] if error.args and isinstance(error.args[0], str) else type(error).__name__


def _quoted(key: object) -> str:
    text = repr(key)
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}…"


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
    if kind in SCALARS:
        return _checked(value)
    if issubclass(kind, enum.Enum):
        return _plain(value.value)
    if issubclass(kind, list | tuple | set | frozenset):
        return [_at(index, _plain, each) for index, each in enumerate(value)]
    if issubclass(kind, Mapping):
        pairs = {_at(key, _plain_key, key): _at(key, _plain, each) for key, each in value.items()}
        if len(pairs) != len(value):
            raise MisfitError("two keys of a map are written as one")
        return pairs
    if issubclass(kind, Addressed):
        return value.address
    if attrs.has(kind):
        names = field_names(kind).all
        return {name: _at(name, _plain, getattr(value, name), note=cattrs.AttributeValidationNote) for name in names}
    raise uncarried(kind)


def _plain_key(key: object) -> object:
    name = key.value if isinstance(key, enum.Enum) else key
    if type(name) not in SCALARS:
        raise MisfitError(f"{words(type(key))} is no type that the key of a map can have")
    return _checked(name)


def _checked(value: Any) -> Any:  # noqa: ANN401 - perhaps a scalar
    if type(value) not in SCALARS:
        raise uncarried(cast("object", type(value)))
    if isinstance(value, float) and not math.isfinite(value):
        raise MisfitError(f"{value} is no finite number")
    if isinstance(value, datetime.datetime) and value.tzinfo is None:
        raise MisfitError("a datetime needs a time zone")
    return value


def _wrong(expected: str, value: object) -> MisfitError:
    return MisfitError(f"expected {expected}, got {type(value).__name__}")


def _expect(wanted: type, value: Any) -> Any:  # noqa: ANN401 - the value
    if type(value) is not wanted:
        raise _wrong("map" if wanted is dict else words(wanted), value)
    return value


def _read_one(value: Any, kind: Any) -> Any:  # noqa: ANN401 - of type `kind`
    """Read a scalar, or a member of an enum or literal."""
    if type(value) is kind:
        return _checked(value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in SCALARS:
        raise _wrong(words(kind), value)
    known = choices(kind)
    if not _fits(value, kind):
        raise MisfitError(f"expected one of {', '.join(repr(each) for _, each in known)}")
    return known[type(value), value]


def _list_hook(kind: Any, converter: cattrs.Converter) -> _Hook:  # noqa: ANN401 - of any elements
    arguments = get_args(kind)
    if get_origin(kind) is tuple and arguments[1:] != (...,):
        return _tuple_hook(arguments, converter)
    build: Any = LISTS[origin(kind)]
    elements = list_structure_factory(_alias(list, *(arguments[:1] or ANYTHING[:1])), converter)

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
    items = _GENERATED.make_mapping_structure_fn(_alias(dict, *(get_args(kind) or ANYTHING)), converter)
    return lambda value, _: items(_expect(dict, value), dict)


def _alias(outside: Any, *arguments: Any) -> Any:  # noqa: ANN401 - a list or dict of any annotations
    """Put arguments to a type, with object for Any: cattrs does not look at elements that are Any."""
    return outside[tuple(object if each is Any else each for each in arguments)]


def _object_hook(kind: Any, converter: cattrs.Converter) -> _Hook:  # noqa: ANN401 - an attrs class
    names = field_names(origin(kind))

    def read_object(value: Any, _: object) -> Any:  # noqa: ANN401 - of type `kind`
        if not names.fit(_expect(dict, value).keys()):
            # By cattrs it would be a KeyError, which a validator may raise as well.
            missing = [name for name in names.needed if name not in value]
            what = (
                f"{missing[0]!r} is missing"
                if missing
                else f"unknown {_quoted(min(value.keys() - names.known, key=repr))}"
            )
            raise MisfitError(what)
        return _object_reader(kind, converter)(value, kind)

    return read_object


def _ref_hook(kind: object, _: cattrs.Converter) -> _Hook:
    def read_ref(value: object, _: object) -> Addressed:
        address, resolve = _read_one(value, str), _resolving.get()
        if resolve is None:
            raise MisfitError(f"{words(kind)} can be read on a node only")
        return resolve(address)

    return read_ref


@functools.cache
def _object_reader(kind: Any, converter: cattrs.Converter) -> Any:  # noqa: ANN401 - an attrs class
    """Return what reads a class's fields; made at first use, for a class may hold itself."""
    cls, known = origin(kind), field_types(kind)
    # Annotated, or cattrs would put type arguments in the place of whatever goes by a type variable's name.
    fields = [field.evolve(type=typing.Annotated[known[field.name], "bound"]) for field in attrs.fields(cls)]
    variables = {each.__name__: Any for each in getattr(cls, "__parameters__", ())}
    return _GENERATED.make_dict_structure_fn_from_attrs(fields, cls, converter, variables)


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
    return lambda value, _: converter.structure(value, meant(kind))


def _refuse(kind: object, _: cattrs.Converter) -> _Hook:
    raise uncarried(kind)


def _union_hook(kind: object, converter: cattrs.Converter) -> _Hook:
    """Read by the one member that a value fits, an enum or literal rather than a plain type.

    The order of the members is of no account, as when unions are compared; an int is widened to float where nothing
    else takes it.
    """
    kinds = list(members(kind))
    plains: list[object] = [*SCALARS, *ANYTHING]
    special = [each for each in kinds if each not in plains]
    kinds.sort(key=lambda each: plains.index(each) if each in plains else -1)
    present = [each for each in kinds if each is not types.NoneType]
    hooks = [converter.get_structure_hook(each) for each in kinds]

    def read_union(value: object, _: object) -> Any:  # noqa: ANN401 - of type `kind`
        fitting = [each for each in kinds if _fits(value, each)]
        if value is not None and len(present) == 1:
            fitting = present
        if not fitting:
            raise _wrong(" or ".join(map(words, kinds)), value)
        if len(fitting) > 1 and fitting[1] in special:
            several = " or ".join(words(each) for each in fitting if each in special)
            raise MisfitError(f"could be {several}: a union's members need different fields")
        return hooks[kinds.index(fitting[0])](value, fitting[0])

    return read_union


def _fits(value: Any, kind: Any) -> bool:  # noqa: ANN401 - a stranger's, and a member of a union
    """Tell by a look at its outside whether a value is meant as one: to try each would double with every depth."""
    outside = origin(kind)
    if is_choice(kind):
        return type(value) in SCALARS and (type(value), value) in choices(kind)
    if attrs.has(outside):
        return type(value) is dict and field_names(outside).fit(cast("dict[object, object]", value).keys())
    if outside in LISTS or outside in MAPS:
        return type(value) is (list if outside in LISTS else dict)
    if is_ref(kind):
        return type(value) is str
    return kind in ANYTHING or type(value) is kind or (kind is float and type(value) is int)


def _make_converter(*, detailed: bool) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=detailed)
    register: _Register = cast("Any", converter).register_structure_hook_factory
    # The last that applies is taken: what none of ours is for is refused before cattrs' own are asked.
    register(lambda _: True, _refuse)
    register(lambda kind: origin(kind) in LISTS, _list_hook)
    register(lambda kind: origin(kind) in MAPS, _map_hook)
    register(lambda kind: origin(kind) in UNIONS, _union_hook)
    register(lambda kind: kind in ANYTHING, _anything_hook)
    register(lambda kind: attrs.has(origin(kind)), _object_hook)
    register(is_ref, _ref_hook)
    register(lambda kind: origin(kind) is typing.Annotated, _annotated_hook)
    register(lambda kind: meant(kind) is not None, _meant_hook)
    converter.register_structure_hook_func(lambda kind: kind in SCALARS or is_choice(kind), _read_one)
    # Before all these cattrs has hooks for some classes and what derives from them, an IntEnum say.
    for builtin in (int, float, str, bytes, enum.Enum, Path):
        converter.register_structure_hook(builtin, _read_one)
    return converter


_QUICK: Final = _make_converter(detailed=False)
_PLACING: Final = _make_converter(detailed=True)
