"""Cedar expressions in the language's JSON form: what they read, and the rewrite by which attributes only add rights.

An expression is a map with one key, its operator, as in ``{"==": {"left": {"Var": "principal"}, "right": …}}``.
Everything here is a pure function of such maps.

The theory of the rewrite: holders choose which of their credentials to show, so an attribute that is absent must never
help to allow. Only ``&&``, ``||`` and ``!`` stand between an *atom* and the whole. Under an even number of negations an
atom can only help by being true, under an odd one only by being false. So an atom that reads an absent attribute is
false in the first case and true in the second: the worst for its sender. Showing more attributes only moves atoms away
from their worst, and a sender that is allowed with some is allowed with more. An integer overflow, the one error that
a validated condition can meet, decides nothing: it denies.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Final, TypeAlias, cast

from autonomy_trio.trust.attributes import OWN_NAMES

Expression: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str, ...]
"""A variable and the fields that are read from it, one of another: ``("context", "message", "amount")``."""

CONNECTIVES: Final = frozenset({"&&", "||"})
EQUALITIES: Final = frozenset({"==", "!="})
ORDERINGS: Final = frozenset({"<", "<=", ">", ">="})
ARITHMETIC: Final = frozenset({"+", "-", "*", "neg"})
MEMBERSHIPS: Final = frozenset({"contains", "containsAll", "containsAny"})
SELECTIONS: Final = frozenset({".", "has"})
OPERATORS: Final = (
    CONNECTIVES
    | EQUALITIES
    | ORDERINGS
    | ARITHMETIC
    | MEMBERSHIPS
    | SELECTIONS
    | {"Value", "Var", "Set", "!", "like", "in", "is", "isEmpty"}
)
"""What the short form of a policy may use. Left out: ``if``, tags, record literals and extension types."""


def operator_of(expression: Expression) -> str:
    """Return the one key of an expression."""
    (operator,) = expression
    return operator


def operands(expression: Expression) -> list[Expression]:
    """Return the expressions directly inside one, in order of evaluation."""
    operator = operator_of(expression)
    inner = expression[operator]
    match operator:
        case "Value" | "Var":
            return []
        case "Record":
            return list(inner.values())
        case _ if isinstance(inner, list):  # a set, and what extension functions take
            return list(cast("list[Expression]", inner))
        case _:
            return [inner[key] for key in ("left", "right", "arg", "in", "if", "then", "else") if key in inner]


def path_of(expression: Expression) -> Path | None:
    """Return the path that an expression reads or, with ``has``, asks for; None when it is no path."""
    operator = operator_of(expression)
    if operator == "Var":
        return (expression["Var"],)
    if operator not in SELECTIONS:
        return None
    base = path_of(expression[operator]["left"])
    return None if base is None else (*base, expression[operator]["attr"])


def paths_in(expression: Expression) -> Iterator[Path]:
    """Yield every path that an expression reads, the longest of each chain."""
    path = path_of(expression)
    if path is not None:
        yield path
        return
    for operand in operands(expression):
        yield from paths_in(operand)


def conjuncts_of(expression: Expression) -> list[Expression]:
    """Split an expression at its top-level ``&&``, in order."""
    return _split(expression, "&&")


def disjuncts_of(expression: Expression) -> list[Expression]:
    """Split an expression at its top-level ``||``, in order."""
    return _split(expression, "||")


def _split(expression: Expression, connective: str) -> list[Expression]:
    last: list[Expression] = []
    pending = [expression]
    while pending:
        head = pending.pop()
        if operator_of(head) == connective:
            pending += (head[connective]["left"], head[connective]["right"])
        else:
            last.append(head)
    return last[::-1]


def attribute_in(path: Path) -> str | None:
    """Return the proven attribute that a path begins with; None for others, ``principal.id`` and ``.node`` too."""
    match path:
        case ("principal", name, *_) if name not in OWN_NAMES:
            return name
        case _:
            return None


def attributes_in(expression: Expression) -> frozenset[str]:
    """Return the proven attributes that an expression reads or asks for."""
    found = (attribute_in(path) for path in paths_in(expression))
    return frozenset(name for name in found if name is not None)


def proven_in(path: Path) -> str | None:
    """Return the attribute that somebody has to prove for a path to be there: the sender, or the recipient.

    Agents have no attributes in version 1, so one of the resource is that of the recipient of what is sent.
    """
    match path:
        case ("principal" | "resource", name, *_) if name not in OWN_NAMES:
            return f"{path[0]}.{name}"
        case _:
            return None


def proven_paths_in(expression: Expression) -> frozenset[str]:
    """Return what has to be proven for an expression, as ``principal.team`` or ``resource.team``."""
    return frozenset(name for name in map(proven_in, paths_in(expression)) if name is not None)


def reads_context(expression: Expression, field: str) -> bool:
    """Tell whether an expression reads that field of the context, or the context as a whole."""
    return any(path[:2] in {("context",), ("context", field)} for path in paths_in(expression))


def message_fields_in(expressions: Iterable[Expression]) -> frozenset[str] | None:
    """Return the fields of the message that expressions read; None for all, where the message is read as a whole."""
    fields: set[str] = set()
    for path in chain.from_iterable(map(paths_in, expressions)):
        match path:
            case ("context",) | ("context", "message"):
                return None
            case ("context", "message", name, *_):
                fields.add(name)
            case _:
                pass
    return frozenset(fields)


def add_rights_only(expression: Expression, *, negated: bool = False) -> Expression:
    """Rewrite an expression such that an absent attribute never helps it to be true.

    An atom that reads ``principal.a`` becomes ``if principal has a then atom else false``, and ``else true`` under an
    odd number of negations; one that reads several gets an ``if`` for each.

    Args:
        expression: the whole, or a part of it.
        negated: whether it stands under an odd number of ``!``.
    """
    operator = operator_of(expression)
    if operator in CONNECTIVES:
        sides = expression[operator]
        return {operator: {side: add_rights_only(sides[side], negated=negated) for side in ("left", "right")}}
    if operator == "!":
        return {"!": {"arg": add_rights_only(expression["!"]["arg"], negated=not negated)}}
    guarded = expression
    for name in sorted(attributes_in(expression), reverse=True):
        present = {"has": {"left": {"Var": "principal"}, "attr": name}}
        guarded = {"if-then-else": {"if": present, "then": guarded, "else": {"Value": negated}}}
    return guarded


def entity_types_in(expressions: Iterable[Expression]) -> frozenset[str]:
    """Return the classes of agents that expressions name."""
    found: set[str] = set()
    pending = list(expressions)
    while pending:
        expression = pending.pop()
        match expression:
            case {"is": {"entity_type": name}} | {"Value": {"__entity": {"type": name}}}:
                found.add(name)
            case _:
                pass
        pending += operands(expression)
    return frozenset(name for name in found if name != "Action" and "::" not in name)
