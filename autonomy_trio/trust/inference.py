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
    OPERATORS,
    ORDERINGS,
    Expression,
    Path,
    operands,
    operator_of,
    path_of,
    paths_in,
    proven_in,
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
    sending_record,
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
        sending: whether they are about sending too, so that the resource is somebody with attributes.
    """

    place: str
    conjuncts: tuple[Expression, ...]
    messages: tuple[Record, ...]
    sending: bool = False


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
    read = chain.from_iterable(_read(reading) for reading in readings)
    return {**dict.fromkeys(read), **{name: kind for name, (kind, _) in settled.items()}}


def _read(reading: Reading) -> Iterator[str]:
    """Yield the attributes that conditions read or ask for."""
    someone = {"principal", "resource"} if reading.sending else {"principal"}
    for path in chain.from_iterable(map(paths_in, reading.conjuncts)):
        if path[0] in someone and proven_in(path) is not None:
            yield path[1]


def _uses(reading: Reading, known: Mapping[str, AttributeType]) -> Iterator[tuple[str, AttributeType]]:
    someone = principal_record(known)
    contexts = [{"context": context_record(message)} for message in reading.messages]
    if reading.sending:
        contexts.append({"context": sending_record(), "resource": someone})
    for context in contexts:
        for conjunct in reading.conjuncts:
            yield from _Types(Record({"principal": someone, **context})).uses(conjunct, BOOLEAN)


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
        known = path[0] in self.variables.fields and proven_in(path) is not None
        if known and operator_of(expression) == "." and expected is not None:
            yield path[1], _attribute_type(expected)

    def _needed(
        self, expression: Expression, inner: Sequence[Expression], expected: CedarType | None
    ) -> Sequence[CedarType | None]:
        operator = operator_of(expression)
        if operator in _OPERANDS:
            return [_OPERANDS[operator]] * len(inner)
        if operator == "if-then-else":
            return BOOLEAN, expected, expected
        if operator in EQUALITIES:
            return [self._type_of(other) for other in reversed(inner)]
        if operator == "Set":
            return [expected.element if isinstance(expected, SetOf) else self._first(inner)] * len(inner)
        return self._members(operator, inner) if operator in MEMBERSHIPS else [None] * len(inner)

    def _members(self, operator: str, inner: Sequence[Expression]) -> Sequence[CedarType | None]:
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
        if operator == "if-then-else":
            _, *choices = operands(expression)
            return self._first(choices)
        return LONG if operator in ARITHMETIC else BOOLEAN if operator in OPERATORS else None

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
