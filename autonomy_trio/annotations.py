"""What the annotations of a message's fields mean: aliases, unions, type arguments, and the values of enums.

Here too stands which types a message can carry: scalars, enums and literals of them, lists, maps, frozen attrs classes,
and what marks itself as `Addressed`.
"""

import datetime
import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Generic, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs

SCALARS: Final = (bool, int, str, bytes, datetime.datetime, float, types.NoneType)
ANYTHING: Final = (Any, object)
LISTS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    **{kind: kind for kind in (list, tuple, set, frozenset)},
    Sequence: tuple,
    AbstractSet: frozenset,
}
"""What an array is read as, and what makes that of a list."""
MAPS: Final = (dict, Mapping)
UNIONS: Final = (Union, types.UnionType)


class MisfitError(Exception):
    """A value that does not fit, or a type that no message can carry. It never leaves `messages`."""


class Addressed:
    """Marks what travels as the address in its `address`, and is found again by that: a ref to an agent."""

    __slots__ = ()


@attrs.frozen
class FieldNames:
    """The fields that an attrs class has on the wire."""

    all: tuple[str, ...]
    needed: tuple[str, ...]
    known: frozenset[str]

    def fit(self, names: AbstractSet[object]) -> bool:
        """Tell whether a map with these keys can be an object of the class."""
        return names <= self.known and all(name in names for name in self.needed)


@functools.cache
def field_names(cls: Any) -> FieldNames:  # noqa: ANN401 - an attrs class
    """Return the fields of an attrs class that its constructor takes."""
    fields = [field for field in attrs.fields(cls) if field.init]
    names = tuple(field.name for field in fields)
    return FieldNames(names, tuple(each.name for each in fields if each.default is attrs.NOTHING), frozenset(names))


def words(kind: object) -> str:
    """Return what a type is called in an error."""
    return getattr(kind, "__name__", str(kind))


def uncarried(kind: object) -> MisfitError:
    """Return what is raised for a type that no message can carry."""
    return MisfitError(f"{words(kind)} is no type a message can carry")


def field_types(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - an attrs class, perhaps with type arguments
    """Return the resolved type of each field of an attrs class, type arguments in the place of type variables.

    cattrs has one table of type variables by their names, in which a ``T`` of a class hides the ``T`` of its base.

    Raises:
        NameError: an annotation names something that its module cannot see.
    """
    cls = origin(kind)
    scopes = {origin(each): _type_arguments(each) for each in ancestors(kind)}
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        hints = typing.get_type_hints(base)
        found |= {name: _bind(hints[name], scopes[base]) for name in inspect.get_annotations(base)}
    return {field.name: found.get(field.name, field.type or Any) for field in attrs.fields(cls)}


def ancestors(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - a class, perhaps with type arguments
    """Yield a class and all it derives from as written, type arguments in the place of type variables."""
    yield kind
    cls, bound = origin(kind), _type_arguments(kind)
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        if get_origin(base) not in {Generic, typing.Protocol}:
            yield from ancestors(_bind(base, bound))


def origin(kind: Any) -> Any:  # noqa: ANN401 - any annotation
    """Return a type without its arguments."""
    return get_origin(kind) or kind


def _type_arguments(kind: Any) -> dict[Any, Any]:  # noqa: ANN401 - a class, perhaps with type arguments
    parameters = getattr(origin(kind), "__parameters__", ())
    return dict(zip(parameters, get_args(kind), strict=False))


def _bind(annotation: Any, bound: Mapping[Any, Any]) -> Any:  # noqa: ANN401 - any annotation
    """Put types in the place of an annotation's type variables; one that stands for nothing is Any."""
    if isinstance(annotation, TypeVar):
        return bound.get(annotation, Any)
    if isinstance(annotation, type):
        return cast("Any", annotation)
    parameters = getattr(annotation, "__parameters__", ())
    return annotation[tuple(bound.get(each, Any) for each in parameters)] if parameters else annotation


def is_choice(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    """Tell an enum or literal from all else."""
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum))


@functools.cache
def choices(kind: Any) -> dict[tuple[type, Any], Any]:  # noqa: ANN401 - an enum or a literal
    """Return the members of an enum or literal by value and the value's type, for True is not 1."""
    if not is_choice(kind):
        raise uncarried(kind)
    pairs = [(each.value if isinstance(each, enum.Enum) else each, each) for each in get_args(kind) or kind]
    return {(type(value), value): each for value, each in pairs if type(value) in SCALARS}


def members(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - any annotation
    """Yield the members of a union, and of those that go by another name in it."""
    other = meant(kind)
    parts = get_args(kind) if origin(kind) in UNIONS else () if other is None else (other,)
    if not parts:
        yield kind
    for each in parts:
        yield from members(each)


def meant(kind: Any) -> Any:  # noqa: ANN401 - any annotation
    """Return what None, a NewType or a `type` statement stands for; None where it is none of them."""
    if kind is None:
        return types.NoneType
    other = getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)
    return None if other is None else _bind(other, _type_arguments(kind))


def is_ref(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    """Tell what travels as an address from all else."""
    cls = origin(kind)
    return isinstance(cls, type) and issubclass(cls, Addressed)
