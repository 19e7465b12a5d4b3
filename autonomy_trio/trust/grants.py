"""The policies of all handlers of a node, checked together and compiled for each action at each agent class."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

import cedarpy
from attrs import frozen

from autonomy_trio.errors import PolicyError
from autonomy_trio.trust.allow import (
    Condition,
    check_fields,
    check_permit,
    parse_allow,
    permit,
    policy_set_json,
    suggest,
)
from autonomy_trio.trust.attributes import AttributeType, is_attribute_name
from autonomy_trio.trust.expression import Expression, attributes_in, message_fields_in, reads_context
from autonomy_trio.trust.inference import Reading, settle_types
from autonomy_trio.trust.schema import PRINCIPAL, Record, message_record, schema_json


@frozen
class Grant:
    """A handler, and who may reach it from another node.

    Attributes:
        agent: the name of the agent's class, which is its Cedar entity type.
        handler: the name of the method.
        actions: the wire names of the messages that are dispatched to it.
        messages: their classes, in the same order.
        allow: the condition in its short form; None lets nobody in.
    """

    agent: str
    handler: str
    actions: tuple[str, ...]
    messages: tuple[type, ...]
    allow: str | None


@frozen
class Clause:
    """One conjunct of a condition, to explain denials with.

    Attributes:
        id: its own, as a policy of `Slice.each_clause`.
        text: as Cedar writes it.
        attributes: the proven attributes that it reads.
        reads_message: whether it belongs to the message part.
    """

    id: str
    text: str
    attributes: frozenset[str]
    reads_message: bool


@frozen
class Slice:
    """What decides about one action at one class of agents.

    Attributes:
        policy: the identifier of the policy, ``Class.handler``.
        attribute_part: the policy without the clauses that read the message.
        whole: the policy.
        each_clause: every clause as a policy of its own.
        clauses: what is known of them, in order.
        attributes: the proven attributes that the policy reads.
        reads_message: whether there is a message part.
        reads_time: whether the attribute part depends on the time.
        message: the message's fields that are read, with their types.
    """

    policy: str
    attribute_part: cedarpy.PolicySet
    whole: cedarpy.PolicySet
    each_clause: cedarpy.PolicySet
    clauses: tuple[Clause, ...]
    attributes: frozenset[str]
    reads_message: bool
    reads_time: bool
    message: Record


def compile_grants(
    grants: Sequence[Grant], declared: Mapping[str, AttributeType] | None
) -> tuple[Mapping[tuple[str, str], Slice], Mapping[str, AttributeType | None]]:
    """Check the conditions of all grants together, and compile them.

    Args:
        grants: those with a condition, each once.
        declared: the attributes that anchors may assert; None for any.

    Returns:
        the slices by agent class and action, and the types of attributes, None where any will do.

    Raises:
        PolicyError: a condition cannot be right; names handler, text and mend.
    """
    records = _records(grants)
    receivers = _receivers(grants)
    conditions = {grant: _condition(grant, records, declared) for grant in grants}
    readings = [
        Reading(condition.place, condition.conjuncts, tuple(records[action] for action in grant.actions))
        for grant, condition in conditions.items()
    ]
    types = settle_types(readings, declared or {})
    schema = cedarpy.Schema.from_json_str(json.dumps(schema_json(records, receivers, types)))
    slices: dict[tuple[str, str], Slice] = {}
    for grant, condition in conditions.items():
        check_permit(condition, permit(condition.conjuncts, grant.actions, grant.agent), schema)
        for action in grant.actions:
            slices[grant.agent, action] = _slice(grant, action, condition, records[action])
    return slices, types


def _records(grants: Iterable[Grant]) -> dict[str, Record]:
    """Return the type of each action's message."""
    classes: dict[str, type] = {}
    for grant in grants:
        for action, message in zip(grant.actions, grant.messages, strict=True):
            known = classes.setdefault(action, message)
            if known is not message:
                raise PolicyError(
                    f"{grant.agent}.{grant.handler}: {message.__module__}.{message.__qualname__} and"
                    f" {known.__module__}.{known.__qualname__} are both {action!r} on the wire, so no policy can tell"
                    " them apart: give one another name with @message(name=…)"
                )
    return {action: message_record(message) for action, message in classes.items()}


def _receivers(grants: Iterable[Grant]) -> dict[str, set[str]]:
    """Return the agent classes that take each action."""
    taken: dict[tuple[str, str], Grant] = {}
    receivers: dict[str, set[str]] = {}
    for grant in grants:
        if not is_attribute_name(grant.agent) or grant.agent in {PRINCIPAL, "Action"}:
            raise PolicyError(
                f"{grant.agent}.{grant.handler}: a policy cannot speak of a class with this name: choose another, of"
                " letters from A to Z, digits and _, that is no word of Cedar's own"
            )
        for action in grant.actions:
            other = taken.setdefault((grant.agent, action), grant)
            if other is not grant:
                raise PolicyError(
                    f"{grant.agent}.{grant.handler} and {other.agent}.{other.handler} both take {action!r}: of two"
                    " agent classes with one name, give one another"
                )
            receivers.setdefault(action, set()).add(grant.agent)
    return receivers


def _condition(grant: Grant, records: Mapping[str, Record], declared: Mapping[str, AttributeType] | None) -> Condition:
    """Parse a grant's condition and check the names in it."""
    condition = parse_allow(grant.allow or "", f"{grant.agent}.{grant.handler}")
    check_fields(condition, [records[action] for action in grant.actions])
    if declared is not None:
        for name in sorted(_attributes(condition.conjuncts) - declared.keys()):
            raise PolicyError(f"{condition.place}: no anchor may assert {name!r}: {suggest(name, declared)}")
    return condition


def _slice(grant: Grant, action: str, condition: Condition, record: Record) -> Slice:
    def policy_set(policies: Mapping[str, Sequence[Expression]]) -> cedarpy.PolicySet:
        permits = {name: permit(conjuncts, [action], grant.agent) for name, conjuncts in policies.items()}
        return cedarpy.PolicySet.from_json_str(policy_set_json(permits))

    name = f"{grant.agent}.{grant.handler}"
    clauses = tuple(
        Clause(f"{name} clause {number}", _text_of(each), attributes_in(each), reads_context(each, "message"))
        for number, each in enumerate(condition.conjuncts, start=1)
    )
    early = [each for each, clause in zip(condition.conjuncts, clauses, strict=True) if not clause.reads_message]
    return Slice(
        policy=name,
        attribute_part=policy_set({name: early}),
        whole=policy_set({name: condition.conjuncts}),
        each_clause=policy_set({clause.id: [each] for each, clause in zip(condition.conjuncts, clauses, strict=True)}),
        clauses=clauses,
        attributes=_attributes(condition.conjuncts),
        reads_message=len(early) < len(clauses),
        reads_time=any(reads_context(each, "time") for each in early),
        message=record.only(message_fields_in(condition.conjuncts)),
    )


def _attributes(conjuncts: Iterable[Expression]) -> frozenset[str]:
    return frozenset(chain.from_iterable(map(attributes_in, conjuncts)))


_NEEDLESS_BRACKETS: Final = re.compile(r'("(?:[^"\\]|\\.)*")|(?<!\w)\(([\w.]+)\)')
"""Strings, to leave alone, and the brackets that Cedar puts around each path."""


def _text_of(conjunct: Expression) -> str:
    """Return a condition as Cedar writes it, for the log."""
    policy = {**permit([], [], ""), "resource": {"op": "All"}, "conditions": [{"kind": "when", "body": conjunct}]}
    text = cedarpy.policies_from_json_str(policy_set_json({"text": policy}))
    _, _, inner = text.removesuffix(" };").partition("when { ")
    while (shorter := _NEEDLESS_BRACKETS.sub(lambda found: found[1] or found[2], inner)) != inner:
        inner = shorter
    return inner
