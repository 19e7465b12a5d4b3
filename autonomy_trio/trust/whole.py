"""Whole policies: files of Cedar text, ``forbid`` included, beside the short form of `allow=`.

A file is cut at the semicolons that end its policies, and each piece is accepted only when Cedar reads it as exactly
one policy; so every error can name a line, of which Cedar itself says nothing. A policy is validated as it is written.
For evaluation it is taken apart into *clauses*, whose conjunction it is: the parts of its scope, the ``&&`` conjuncts
of each ``when``, and of each ``unless`` the negations of its ``||`` disjuncts.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path as FilePath
from typing import Any, Final, Literal

import cedarpy
from attrs import frozen

from autonomy_trio.errors import PolicyError
from autonomy_trio.trust.allow import MOST_BRACKETS, MOST_DEPTH, depth_of, in_words, missing_field, suggest
from autonomy_trio.trust.attributes import AttributeType
from autonomy_trio.trust.expression import (
    CONNECTIVES,
    Expression,
    conjuncts_of,
    disjuncts_of,
    entity_types_in,
    operands,
    operator_of,
    path_of,
    paths_in,
    proven_in,
    proven_paths_in,
)
from autonomy_trio.trust.schema import PRINCIPAL, SEND, Record, context_record

MOST_FILE: Final = 1024 * 1024
"""Bytes of a file of policies."""
MOST_POLICIES: Final = 1000
"""Policies in a file."""
MOST_POLICY: Final = 16 * 1024
"""Characters of a policy."""

Effect = Literal["permit", "forbid"]

_TOKENS: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|[;()\[\]{}]|\s+|[^\s;()\[\]{}"/]+|.', re.DOTALL)
_SHOWN: Final = 80
"""Characters of a policy's beginning that an error shows."""


@frozen
class WholePolicy:
    """One policy of a file, parsed.

    Attributes:
        id: its ``@id``, else its place.
        place: file and line, and which policy of that line from the second on.
        text: as it is written.
        line: where it begins.
        effect: what it does where it holds.
        action: its action scope, in Cedar's JSON.
        resource: its resource scope, in Cedar's JSON.
        clauses: what must hold together.
    """

    id: str
    place: str
    text: str
    line: int
    effect: Effect
    action: Expression
    resource: Expression
    clauses: tuple[Expression, ...]

    def covers(self, action: str, entity_type: str) -> bool:
        """Tell whether its scope can fit an action at a class of agents; for sending the type is the recipient's."""
        actions = named_actions(self.action)
        return (actions is None or action in actions) and type_in_scope(self.resource) in {None, entity_type}

    def at(self, name: str) -> str:
        """Return the place where a name stands in it, or where it begins."""
        found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", self.text)
        line = self.line + (self.text.count("\n", 0, found.start()) if found else 0)
        return f"{self.place.rpartition(':')[0]}:{line}"


def load_policies(path: FilePath) -> tuple[WholePolicy, ...]:
    """Read a file of policies.

    Raises:
        PolicyError: the file cannot be read, or a policy does not parse; the text names file, line and mend.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_FILE + 1)
    except OSError as error:
        raise PolicyError(f"the policy file {path} cannot be read: {error.strerror or error}") from None
    if len(content) > MOST_FILE:
        raise PolicyError(f"the policy file {path} is larger than {MOST_FILE:,} bytes: shorten it")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise PolicyError(f"the policy file {path} is not text in UTF-8: save it as such") from None
    return read_policies(text, path.name)


def read_policies(text: str, file: str) -> tuple[WholePolicy, ...]:
    """Read policies.

    Args:
        text: in Cedar's language; templates are refused.
        file: the name of the file, to start errors with.

    Raises:
        PolicyError: a policy does not parse, or two have one ``@id``.
    """
    policies: dict[str, WholePolicy] = {}
    lines: dict[int, int] = {}
    for line, piece, depth in _pieces(text):
        lines[line] = lines.get(line, 0) + 1
        place = f"{file}:{line}{f' ({lines[line]})' if lines[line] > 1 else ''}"
        policy = _read_policy(piece, place, line, depth)
        known = policies.setdefault(policy.id, policy)
        if known is not policy:
            raise PolicyError(f"{policy.place}: {known.place} has the @id {policy.id!r} too: give one another")
        if len(policies) > MOST_POLICIES:
            raise PolicyError(f"{file} has more than {MOST_POLICIES:,} policies: join those that are alike")
    if not policies:
        raise PolicyError(f"{file} has no policy: write one, as in permit(principal, action, resource);")
    return tuple(policies.values())


def _pieces(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield each policy's first line, its text and how deeply its brackets are nested."""
    start: int | None = None
    depth = deepest = 0
    for token in _TOKENS.finditer(text):
        first = token[0]
        if first.isspace() or first.startswith("//"):
            continue
        if start is None:
            start, depth, deepest = token.start(), 0, 0
        depth += (first in "([{") - (first in ")]}")
        deepest = max(deepest, depth)
        if first == ";":
            yield 1 + text.count("\n", 0, start), text[start : token.end()], deepest
            start = None
    if start is not None:
        yield 1 + text.count("\n", 0, start), text[start:], deepest


def _read_policy(text: str, place: str, line: int, depth: int) -> WholePolicy:
    shown = " ".join(text[:_SHOWN].split())
    if len(text) > MOST_POLICY or depth > MOST_BRACKETS:
        raise PolicyError(
            f"{place}: the policy that begins {shown!r} is longer than {MOST_POLICY:,} characters or its brackets are"
            f" nested deeper than {MOST_BRACKETS}: shorten it"
        )
    if not text.endswith(";"):
        raise PolicyError(f"{place}: the policy that begins {shown!r} has no end: write ; after it")
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except RecursionError:
        raise PolicyError(f"{place}: this policy is nested too deeply: shorten it") from None
    except ValueError as error:
        raise PolicyError(f"{place}: the policy that begins {shown!r} does not parse: {error}") from None
    if parsed["templates"]:
        raise PolicyError(f"{place}: this is a template: name whom it is about in place of ?principal and ?resource")
    (policy,) = parsed["staticPolicies"].values()
    clauses = tuple(_clauses(policy))
    if any(depth_of(clause) > MOST_DEPTH for clause in clauses):
        raise PolicyError(f"{place}: this policy is nested too deeply: make two of it")
    name = policy.get("annotations", {}).get("id") or place
    return WholePolicy(name, place, text, line, policy["effect"], policy["action"], policy["resource"], clauses)


def _clauses(policy: Mapping[str, Any]) -> Iterator[Expression]:
    for variable in ("principal", "resource"):
        clause = _scope_clause(variable, policy[variable])
        if clause is not None:
            yield clause
    for condition in policy["conditions"]:
        if condition["kind"] == "when":
            yield from conjuncts_of(condition["body"])
        else:
            yield from ({"!": {"arg": each}} for each in disjuncts_of(condition["body"]))


def _scope_clause(variable: str, scope: Mapping[str, Any]) -> Expression | None:
    """Return what a scope asks of the principal or the resource, as a condition; None where it asks nothing."""
    left = {"Var": variable}
    match scope:
        case {"op": "==" | "in" as operator, "entity": entity}:
            return {operator: {"left": left, "right": {"Value": {"__entity": entity}}}}
        case {"op": "is", "entity_type": name, "in": {"entity": entity}}:
            return {"is": {"left": left, "entity_type": name, "in": {"Value": {"__entity": entity}}}}
        case {"op": "is", "entity_type": name} if variable == "principal":
            return {"is": {"left": left, "entity_type": name}}
        case _:
            return None  # of the resource, `type_in_scope` tells which class it is


def named_actions(scope: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the actions that a scope names; None for all."""
    match scope:
        case {"entity": {"id": name}}:
            return (name,)
        case {"entities": entities}:
            return tuple(entity["id"] for entity in entities)
        case _:
            return None


def type_in_scope(scope: Mapping[str, Any]) -> str | None:
    """Return the entity type that a scope names; None for all."""
    match scope:
        case {"entity_type": str(name)} | {"entity": {"type": str(name)}}:
            return name
        case _:
            return None


def check_names(
    policy: WholePolicy,
    records: Mapping[str, Record],
    receivers: Mapping[str, Iterable[str]],
    declared: Mapping[str, AttributeType] | None,
) -> None:
    """Refuse names that do not exist, each with what it may have been meant to be.

    Args:
        policy: what to check.
        records: each action with its message's fields.
        receivers: each action with the agent classes that take it.
        declared: the attributes that anchors may assert; None for any.

    Raises:
        PolicyError: names file, line and mend.
    """
    agents = {PRINCIPAL, *chain(*receivers.values())}
    for kind, names, known in (
        ("message", named_actions(policy.action) or (), {*records, SEND}),
        ("agent class", _types_named(policy), agents),
    ):
        for name in names:
            if name not in known:
                raise PolicyError(f"{policy.at(name)}: there is no {kind} {name!r}: {suggest(name, known)}")
    covered = covered_actions(policy, receivers)
    if not covered:
        actions = " and no ".join(named_actions(policy.action) or ())
        raise PolicyError(f"{policy.place}: this is about nothing: {type_in_scope(policy.resource)} takes no {actions}")
    if declared is not None:
        for path in sorted(chain.from_iterable(map(proven_paths_in, policy.clauses))):
            name = path.partition(".")[2]
            if name not in declared:
                raise PolicyError(f"{policy.at(name)}: no anchor may assert {name!r}: {suggest(name, declared)}")
    _check_fields(policy, [context_record(records[action]) for action in covered if action != SEND])


def _types_named(policy: WholePolicy) -> list[str]:
    scope = type_in_scope(policy.resource)
    return sorted({*entity_types_in(policy.clauses), *filter(None, [scope])})


def covered_actions(policy: WholePolicy, receivers: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return the actions that a policy is about, sending among them."""
    taken = [action for action, agents in receivers.items() if any(policy.covers(action, agent) for agent in agents)]
    return (*taken, SEND) if policy.covers(SEND, PRINCIPAL) else tuple(taken)


def _check_fields(policy: WholePolicy, contexts: Iterable[Record]) -> None:
    """Refuse a field that no message has, and one without a Cedar type: a ``forbid`` on it would never hold."""
    contexts = list(contexts)
    paths = {path[1:] for clause in policy.clauses for path in paths_in(clause) if path[0] == "context"}
    for path in sorted(paths):
        complaints = [missing_field(path, context, "context") for context in contexts]
        untyped = next((each for each in complaints if each and "no type for" in each), None)
        if untyped or (complaints and all(complaints)):
            raise PolicyError(f"{policy.at(path[-1])}: {untyped or complaints[0]}")


def check_types(policy: WholePolicy, schema: cedarpy.Schema) -> None:
    """Validate a policy as it is written.

    Raises:
        PolicyError: Cedar finds it wrong.
    """
    result = cedarpy.validate_policies(policy.text, schema)  # pyright: ignore[reportUnknownMemberType] - takes bare dicts too
    for error in result.errors:
        raise PolicyError(f"{policy.place}: {in_words(error.error)}")


def evadable(policy: WholePolicy) -> tuple[str, ...]:
    """Return the attributes by hiding which somebody gets more out of a policy, as ``principal.team``.

    In a ``forbid`` those are the ones its ``when`` asks for, since what is hidden is not there; under ``unless``
    hiding only hurts. In a ``permit`` it is the other way round.
    """
    helps = policy.effect == "forbid"
    found = chain.from_iterable(_moved_by(clause, rising=True) for clause in policy.clauses)
    return tuple(sorted({name for name, rising in found if rising is helps}))


def _moved_by(expression: Expression, *, rising: bool) -> Iterator[tuple[str, bool]]:
    """Yield each attribute whose being shown can move the whole: up with True, down with False, perhaps both.

    `rising` tells whether the expression's being true makes the whole true. Only ``has`` counts: Cedar's validation
    lets an attribute be read only on the right of an ``&&``, or in the branch of an ``if``, that asks for it on the
    left, so where it is hidden that side alone is evaluated. Below another operator either way is possible.
    """
    operator = operator_of(expression)
    inner = operands(expression)
    if operator in CONNECTIVES:
        for operand in inner:
            yield from _moved_by(operand, rising=rising)
    elif operator == "!":
        yield from _moved_by(inner[0], rising=not rising)
    elif operator == "if-then-else":
        condition, then, otherwise = inner
        yield from _moved_by(condition, rising=rising)
        if otherwise != {"Value": False}:
            yield from _moved_by(condition, rising=not rising)
        yield from chain(_moved_by(then, rising=rising), _moved_by(otherwise, rising=rising))
    else:
        for name in _asked_for(expression):
            yield name, rising
            if operator != "has":
                yield name, not rising


def _asked_for(expression: Expression) -> Iterator[str]:
    """Yield the attributes that ``has`` asks for anywhere in an expression."""
    path = path_of(expression)
    if path is not None:
        name = proven_in(path)
        if operator_of(expression) == "has" and name is not None:
            yield name
        return
    for operand in operands(expression):
        yield from _asked_for(operand)
