"""Which type a proven attribute has, where no anchor says: that of what conditions compare it with."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from attrs import frozen

from autonomy_trio.errors import PolicyError
from autonomy_trio.trust.attributes import AttributeType
from autonomy_trio.trust.expression import (
    ARITHMETIC,
    CONNECTIVES,
    EQUALITIES,
    MEMBERSHIPS,
    ORDERINGS,
    Expression,
    Path,
    attribute_in,
    attributes_in,
    operands,
    operator_of,
    path_of,
)
from autonomy_trio.trust.schema import (
    BOOLEAN,
    LONG,
    STRING,
    CedarType,
    Record,
    Scalar,
    SetOf,
    context_record,
    principal_record,
)

_OPERANDS: Final[Mapping[str, CedarType]] = {
    **dict.fromkeys(CONNECTIVES | {"!"}, BOOLEAN),
    **dict.fromkeys(ORDERINGS | ARITHMETIC, LONG),
    "like": STRING,
    "isEmpty": SetOf(STRING),
}
"""The operators whose operands are of one type, whatever they are."""
_LITERALS: Final[Mapping[type, CedarType]] = {bool: BOOLEAN, int: LONG, str: STRING}


@frozen
class Reading:
    """Conditions to infer from.

    Attributes:
        place: where they stand, for errors.
        conjuncts: the conditions.
        messages: the types of the messages they are about.
    """

    place: str
    conjuncts: tuple[Expression, ...]
    messages: tuple[Record, ...]


def settle_types(readings: Sequence[Reading], declared: Mapping[str, AttributeType]) -> dict[str, AttributeType | None]:
    """Return the type of each proven attribute: as declared, else as it is used; None where any will do.

    Any will do for one that is only asked for with ``has``, or compared with nothing whose type is known.

    Args:
        readings: all conditions there are.
        declared: what the anchors say.

    Raises:
        PolicyError: an attribute is used with two types.
    """
    settled: dict[str, tuple[AttributeType, str]] = {name: (kind, "the anchors") for name, kind in declared.items()}
    before = -1
    while len(settled) != before:
        # Once more when something was learned: `principal.a == principal.b` tells one from the other.
        before = len(settled)
        for reading in readings:
            for name, kind in _uses(reading, {name: kind for name, (kind, _) in settled.items()}):
                known, place = settled.setdefault(name, (kind, reading.place))
                if known != kind:
                    by = "" if place == reading.place else f" by {place}"
                    raise PolicyError(
                        f"{reading.place}: principal.{name} is used as a {kind} here and as a {known}{by}:"
                        " an attribute has one type"
                    )
    conjuncts = chain.from_iterable(reading.conjuncts for reading in readings)
    read = chain.from_iterable(map(attributes_in, conjuncts))
    return {**dict.fromkeys(read), **{name: kind for name, (kind, _) in settled.items()}}


def _uses(reading: Reading, known: Mapping[str, AttributeType]) -> Iterator[tuple[str, AttributeType]]:
    for message in reading.messages:
        variables = Record({"context": context_record(message), "principal": principal_record(known)})
        for conjunct in reading.conjuncts:
            yield from _Types(variables).uses(conjunct, BOOLEAN)


@frozen
class _Types:
    """The types of expressions, given those of the variables; as far as it takes to tell those of attributes."""

    variables: Record

    def uses(self, expression: Expression, expected: CedarType | None) -> Iterator[tuple[str, AttributeType]]:
        """Yield the attributes in an expression that must be of the type `expected`, each with its own type."""
        path = path_of(expression)
        if path is None:
            inner = operands(expression)
            for operand, kind in zip(inner, self._needed(expression, inner, expected), strict=True):
                yield from self.uses(operand, kind)
            return
        name = attribute_in(path)
        if name is not None and operator_of(expression) == "." and expected is not None:
            yield name, _attribute_type(expected)

    def _needed(
        self, expression: Expression, inner: Sequence[Expression], expected: CedarType | None
    ) -> Sequence[CedarType | None]:
        operator = operator_of(expression)
        if operator in _OPERANDS:
            return [_OPERANDS[operator]] * len(inner)
        if operator in EQUALITIES:
            return [self._type_of(other) for other in reversed(inner)]
        if operator == "Set":
            return [expected.element if isinstance(expected, SetOf) else self._first(inner)] * len(inner)
        if operator not in MEMBERSHIPS:
            return [None] * len(inner)
        # What is not known is taken for strings, since those are what an attribute's set is of.
        left, right = (self._type_of(operand) for operand in inner)
        if operator == "contains":
            return SetOf(right or STRING), left.element if isinstance(left, SetOf) else STRING
        return right or SetOf(STRING), left or SetOf(STRING)

    def _first(self, expressions: Iterable[Expression]) -> CedarType | None:
        return next((kind for kind in map(self._type_of, expressions) if kind is not None), None)

    def _type_of(self, expression: Expression) -> CedarType | None:
        """Return the type of an expression; None where it is not known yet, and for agents."""
        operator = operator_of(expression)
        if operator in {".", "Var"}:
            return self._type_at(path_of(expression) or ())
        if operator == "Value":
            value: object = expression["Value"]
            return _LITERALS.get(type(value))
        if operator == "Set":
            element = self._first(expression["Set"])
            return None if element is None else SetOf(element)
        return LONG if operator in ARITHMETIC else BOOLEAN

    def _type_at(self, path: Path) -> CedarType | None:
        kind: CedarType | None = self.variables
        for name in path:
            kind = kind.fields.get(name) if isinstance(kind, Record) else None
        return kind


def _attribute_type(kind: CedarType) -> AttributeType:
    match kind:
        case Scalar("String"):
            return "string"
        case Scalar("Long"):
            return "long"
        case Scalar():
            return "bool"
        case _:
            return "set"
