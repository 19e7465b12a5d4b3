"""The short form of a policy: the text of ``allow=``, one Cedar condition that stands for one ``permit``.

A text is accepted only when Cedar reads it, in its place, as exactly one policy with exactly one ``when`` clause, so no
text can close the clause and open a policy of its own. What is refused is refused in one sentence that names text and
mend.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final, cast

import cedarpy
from attrs import frozen

from autonomy_trio.errors import PolicyError
from autonomy_trio.messages import wire_name
from autonomy_trio.trust.attributes import NAME_RULE, is_attribute_name
from autonomy_trio.trust.expression import (
    EQUALITIES,
    OPERATORS,
    SELECTIONS,
    Expression,
    Path,
    add_rights_only,
    attribute_in,
    conjuncts_of,
    entity_types_in,
    operands,
    operator_of,
    path_of,
    paths_in,
)
from autonomy_trio.trust.inference import Reading, settle_types
from autonomy_trio.trust.schema import CedarType, Record, context_record, message_record, schema_json

MOST_TEXT: Final = 2048
"""Characters of a text. This and the next bound are what Cedar's recursive parser is known to take."""
MOST_BRACKETS: Final = 100
"""Opening brackets in a text."""
MOST_DEPTH: Final = 100
"""Levels of JSON in a conjunct; Cedar reads 128, and a policy's head and the rewrite take some."""
MOST_SHOWN: Final = 100
"""Characters of a text that an error shows."""

_COMPARABLE: Final = EQUALITIES | {"in", "is"}
_HEAD: Final = {"effect": "permit", "principal": {"op": "All"}, "action": {"op": "All"}, "resource": {"op": "All"}}


@frozen
class Condition:
    """A text that was parsed, and refused nothing that can be seen in it alone.

    Attributes:
        place: where it stands and how it begins, to start an error with.
        text: as it was written.
        conjuncts: its top-level ``&&`` conjuncts, as they were written, before the rewrite.
    """

    place: str
    text: str
    conjuncts: tuple[Expression, ...]


def check_allow(text: str, message: type) -> None:
    """Check what can be checked of an ``allow=`` text before a node starts: all but the principal's attributes.

    Args:
        text: the condition.
        message: the class of the messages it is about.

    Raises:
        PolicyError: the text does not parse, or reads a field that `message` does not have, or not with such a type.
    """
    condition = parse_allow(text)
    records = {wire_name(message): message_record(message)}
    check_fields(condition, records.values())
    types = settle_types([Reading(condition.place, condition.conjuncts, tuple(records.values()))], {})
    # Which agents there are is known when the node starts; until then every type that the text names counts as one.
    receivers = {action: {"Receiver"} for action in records}
    schema = cedarpy.Schema.from_json_str(
        json.dumps(schema_json(records, receivers, types, entity_types_in(condition.conjuncts)))
    )
    check_permit(condition, permit(condition.conjuncts, records, "Receiver"), schema)


def parse_allow(text: str, where: str = "") -> Condition:
    """Parse a text and refuse what the short form has no room for.

    Args:
        text: the condition.
        where: the handler it belongs to, to start errors with.

    Raises:
        PolicyError: in one sentence that names text and mend.
    """
    line = " ".join(text.split())
    shown = line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]}…"
    place = f"{where}: allow={shown!r}" if where else f"allow={shown!r}"
    if not line:
        raise PolicyError(f"{place} is empty: write a condition, or true to let every sender in")
    if len(text) > MOST_TEXT or sum(map(text.count, "([{")) > MOST_BRACKETS:
        raise PolicyError(f"{place} is longer than {MOST_TEXT:,} characters or {MOST_BRACKETS} brackets: shorten it")
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(f"permit(principal, action, resource) when {{\n{text}\n}};"))
    except RecursionError:
        raise PolicyError(f"{place} is nested too deeply: shorten it") from None
    except ValueError as error:
        raise PolicyError(f"{place} does not parse: {_syntax(text, str(error))}") from None
    conjuncts = tuple(conjuncts_of(_only_condition(place, parsed)))
    if any(depth_of(conjunct) > MOST_DEPTH for conjunct in conjuncts):
        raise PolicyError(f"{place} is nested too deeply: shorten it")
    for conjunct in conjuncts:
        complaint = _complaint(conjunct, "&&")
        if complaint is not None:
            raise PolicyError(f"{place}: {complaint}")
    return Condition(place, text, conjuncts)


def _only_condition(place: str, parsed: Mapping[str, Any]) -> Expression:
    policies = list(parsed["staticPolicies"].values())
    if len(policies) == 1 and not parsed["templates"] and not parsed["templateLinks"]:
        conditions = policies[0].pop("conditions")
        if policies[0] == _HEAD and [condition["kind"] for condition in conditions] == ["when"]:
            return cast("Expression", conditions[0]["body"])
    raise PolicyError(f"{place} is more than one condition: join them with && or ||")


def depth_of(conjunct: Expression) -> int:
    """Return the levels of JSON in an expression."""
    deepest = 0
    pending: list[tuple[object, int]] = [(conjunct, 1)]
    while pending:
        value, depth = pending.pop()
        deepest = max(deepest, depth)
        if isinstance(value, dict):
            pending += [(each, depth + 1) for each in cast("dict[str, object]", value).values()]
        elif isinstance(value, list):
            pending += [(each, depth + 1) for each in cast("list[object]", value)]
    return deepest


def _syntax(text: str, error: str) -> str:
    if any(f"`{closing}`" in error and closing not in text for closing in "};"):
        return "it ends too early"
    return f'{error}; write one condition in Cedar, such as principal.team == "payments"'


def _complaint(expression: Expression, parent: str) -> str | None:
    """Return what the short form refuses in an expression, `parent` being the operator it is an operand of."""
    operator = operator_of(expression)
    if operator not in OPERATORS:
        return (
            f"`{'if' if operator == 'if-then-else' else operator}` is not for the short form: write it with && and ||"
        )
    path = path_of(expression)
    if path is None and operator in SELECTIONS:
        return "a field is read of something that has none: begin with principal, resource or context"
    if path == ("principal",) and parent not in _COMPARABLE:
        return "`principal` as a whole can only be compared: read an attribute of it, as in principal.team"
    name = attribute_in(path or ())
    if name is not None and not is_attribute_name(name):
        return f"{name!r} is not a name for an attribute: {NAME_RULE}"
    inner = operands(expression) if path is None else []
    return next(filter(None, (_complaint(operand, operator) for operand in inner)), None)


def check_fields(condition: Condition, records: Iterable[Record]) -> None:
    """Refuse a field of the context or of a message that does not exist, or has no Cedar type.

    Raises:
        PolicyError: with what it may have been meant to be.
    """
    for record in records:
        context = context_record(record)
        for path in chain.from_iterable(map(paths_in, condition.conjuncts)):
            complaint = missing_field(path[1:], context, "context") if path[0] == "context" else None
            if complaint is not None:
                raise PolicyError(f"{condition.place}: {complaint}")


def missing_field(path: Path, kind: CedarType, place: str) -> str | None:
    """Say what is wrong with a path into a record; None where it is there."""
    if not path or not isinstance(kind, Record):
        return None
    name = path[0]
    if name in kind.left_out:
        return f"{place}.{name} is a {kind.left_out[name]}, which Cedar has no type for: leave it out of the condition"
    if name not in kind.fields:
        return f"{place} has no field {name!r}: {suggest(name, kind.fields)}"
    return missing_field(path[1:], kind.fields[name], f"{place}.{name}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the mend of a name that does not exist: the closest that does, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there is {', '.join(names) or 'none'}"


def permit(conjuncts: Iterable[Expression], actions: Iterable[str], agent: str) -> Expression:
    """Return the policy, in Cedar's JSON, that some conjuncts stand for: rewritten, each as a clause of its own."""
    return {
        "effect": "permit",
        "principal": {"op": "All"},
        "action": {"op": "in", "entities": [{"type": "Action", "id": action} for action in actions]},
        "resource": {"op": "is", "entity_type": agent},
        "conditions": [{"kind": "when", "body": add_rights_only(conjunct)} for conjunct in conjuncts],
    }


def policy_set_json(policies: Mapping[str, Expression]) -> str:
    """Return policies by their identifiers as Cedar reads a set of them."""
    return json.dumps({"staticPolicies": policies, "templates": {}, "templateLinks": []})


def check_permit(condition: Condition, policy: Expression, schema: cedarpy.Schema) -> None:
    """Validate what a condition stands for.

    Raises:
        PolicyError: Cedar finds it wrong, or nested too deeply to be read.
    """
    try:
        text = cedarpy.policies_from_json_str(policy_set_json({"allow": policy}))
    except (ValueError, RecursionError):
        raise PolicyError(f"{condition.place} is nested too deeply: shorten it") from None
    result = cedarpy.validate_policies(text, schema)  # pyright: ignore[reportUnknownMemberType] - takes bare dicts too
    for error in result.errors:
        raise PolicyError(f"{condition.place}: {in_words(error.error)}")


_PREFIX: Final = re.compile(r"^for policy `[^`]*`, ")
_NOT_COMPATIBLE: Final = re.compile(r"the types (.+) and (.+) are not compatible")
_UNEXPECTED: Final = re.compile(r"unexpected type: expected (.+) but saw (.+)")
_UNSAFE: Final = re.compile(r".* access to optional attribute `(.+)` on entity type `Principal`")
_OPTIONAL: Final = re.compile(r".* access to optional attribute `(?:(.+)\.)?(.+)` in context for .*")
_WORDS: Final = (
    (re.compile(r"Long"), "an integer"),
    (re.compile(r"String"), "a string"),
    (re.compile(r"Bool|__cedar::internal::(True|False)"), "a boolean"),
    (re.compile(r"Set<.*>"), "a set"),
    (re.compile(r"\{.*"), "a record"),
)


def in_words(error: str) -> str:
    """Say in words what Cedar's validation found."""
    text = _PREFIX.sub("", error)
    if found := _NOT_COMPATIBLE.fullmatch(text):
        first, second = map(_type_in_words, found.groups())
        return f"{first} and {second} are compared: compare two of one type"
    if found := _UNEXPECTED.fullmatch(text):
        expected, seen = map(_type_in_words, found.groups())
        return f"there is {seen} where {expected} is needed"
    if found := _OPTIONAL.fullmatch(text):
        outer = ".".join(["context", *filter(None, found.groups()[:1])])
        return f"{outer}.{found[2]} may be absent: ask first, as in {outer} has {found[2]} && …"
    if found := _UNSAFE.fullmatch(text):
        return f"{found[1]} may not be proven: ask first, as in principal has {found[1]} && …, or resource has …"
    return text


def _type_in_words(name: str) -> str:
    return next((words for pattern, words in _WORDS if pattern.fullmatch(name)), "an agent")
