"""All policies of a node, those of its handlers and whole ones, checked together and compiled into slices."""

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain

import cedarpy
from attrs import frozen

from autonomy_trio.errors import PolicyError
from autonomy_trio.trust.allow import Condition, check_fields, check_permit, parse_allow, permit, suggest
from autonomy_trio.trust.attributes import AttributeType, is_attribute_name
from autonomy_trio.trust.expression import Expression, attributes_in
from autonomy_trio.trust.inference import Reading, settle_types
from autonomy_trio.trust.schema import PRINCIPAL, SEND, Record, message_record, schema_json
from autonomy_trio.trust.slices import SENDING_PERMITTED, Rule, Slice, make_slice, rule_of_grant, rule_of_whole
from autonomy_trio.trust.whole import WholePolicy, check_names, check_types, covered_actions


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


def compile_grants(
    grants: Iterable[Grant], declared: Mapping[str, AttributeType] | None, whole: Sequence[WholePolicy] = ()
) -> tuple[Mapping[tuple[str, str], Slice], Mapping[str, AttributeType | None]]:
    """Check the conditions of all grants and all whole policies together, and compile them.

    Args:
        grants: every handler of every agent class; one that is there twice counts once.
        declared: the attributes that anchors may assert; None for any.
        whole: policies that speak of any of the handlers, those without a condition too.

    Returns:
        what decides, by agent class and action, where something permits, with sending as `PRINCIPAL` and `SEND`;
        and the types of attributes, None where any will do.

    Raises:
        PolicyError: one cannot be right; names handler or line, text and mend.
    """
    every = tuple(dict.fromkeys(grants))
    # A handler that nobody else can speak of need not be one that Cedar can.
    known = tuple(grant for grant in every if whole or grant.allow is not None)
    _check_taken_once(every, known)
    records = _records(known)
    receivers = _receivers(known)
    if whole and SEND in records:
        taken_by = min(receivers[SEND])
        raise PolicyError(
            f"{taken_by} takes a message called {SEND!r}, which policies cannot tell from sending: give it another name"
            " with @message(name=…)"
        )
    for policy in whole:
        check_names(policy, records, receivers, declared)
    conditions = {grant: _condition(grant, records, declared) for grant in known if grant.allow is not None}
    readings = [
        Reading(condition.place, condition.conjuncts, tuple(records[action] for action in grant.actions))
        for grant, condition in conditions.items()
    ]
    types = settle_types([*readings, *(_reading(policy, records, receivers) for policy in whole)], declared or {})
    schema = cedarpy.Schema.from_json_str(json.dumps(schema_json(records, receivers, types, sending=bool(whole))))
    rules: list[Rule] = []
    for grant, condition in conditions.items():
        check_permit(condition, permit(condition.conjuncts, grant.actions, grant.agent), schema)
        rules.append(rule_of_grant(grant.agent, grant.handler, grant.actions, condition))
    for policy in whole:
        check_types(policy, schema)
        rules.append(rule_of_whole(policy, schema))
    _check_ids(rules)
    slices = {
        (agent, action): make_slice([rule for rule in rules if rule.covers(action, agent)], record)
        for action, record in records.items()
        for agent in receivers[action]
    }
    permitted = {key: found for key, found in slices.items() if found.permits}
    forbidden = [rule for rule in rules if rule.effect == "forbid" and rule.covers(SEND, PRINCIPAL)]
    if forbidden:
        permitted[PRINCIPAL, SEND] = make_slice([SENDING_PERMITTED, *forbidden], Record({}))
    return permitted, types


def _reading(policy: WholePolicy, records: Mapping[str, Record], receivers: Mapping[str, AbstractSet[str]]) -> Reading:
    covered = covered_actions(policy, receivers)
    messages = tuple(records[action] for action in covered if action != SEND)
    return Reading(policy.place, policy.clauses, messages, sending=SEND in covered)


def _check_ids(rules: Iterable[Rule]) -> None:
    places: dict[str, str] = {}
    for rule in rules:
        known = places.setdefault(rule.id, rule.place)
        if known != rule.place:
            raise PolicyError(f"{rule.place}: {known} is called {rule.id!r} too: give the policy another @id")


def _check_taken_once(grants: Iterable[Grant], known: Iterable[Grant]) -> None:
    """Refuse two classes of one name where one is opened to a message that the other takes too: policies know names."""
    opened: dict[tuple[str, str], Grant] = {}
    for grant in known:
        for action in grant.actions:
            opened.setdefault((grant.agent, action), grant)
    for grant in grants:
        for action in grant.actions:
            other = opened.get((grant.agent, action), grant)
            if other is not grant:
                raise PolicyError(
                    f"{grant.agent}.{grant.handler} and {other.agent}.{other.handler} both take {action!r}: of two"
                    " agent classes with one name, give one another"
                )


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
    receivers: dict[str, set[str]] = {}
    for grant in grants:
        if not is_attribute_name(grant.agent) or grant.agent in {PRINCIPAL, "Action"}:
            raise PolicyError(
                f"{grant.agent}.{grant.handler}: a policy cannot speak of a class with this name: choose another, of"
                " letters from A to Z, digits and _, that is no word of Cedar's own"
            )
        for action in grant.actions:
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


def _attributes(conjuncts: Iterable[Expression]) -> frozenset[str]:
    return frozenset(chain.from_iterable(map(attributes_in, conjuncts)))
