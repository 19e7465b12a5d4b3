"""What decides about one action at one class of agents: the few policies that can, compiled for two steps.

Both forms of a policy become a `Rule`, a conjunction of clauses. Its *attribute part* is the clauses that read no
message. A slice evaluates all of its rules as permits, so that Cedar tells which hold and which fail, forbids among
them; what follows from that is Cedar's one rule, in `Slice.verdict`: a permit holds, no forbid does, nothing failed.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

import cedarpy
from attrs import evolve, frozen

from autonomy_trio.trust.allow import Condition, policy_set_json
from autonomy_trio.trust.expression import (
    Expression,
    add_rights_only,
    message_fields_in,
    operator_of,
    proven_paths_in,
    reads_context,
)
from autonomy_trio.trust.schema import VOLATILE, Record
from autonomy_trio.trust.whole import Effect, WholePolicy, named_actions, type_in_scope

_ALL: Final = {"op": "All"}


@frozen
class Clause:
    """One conjunct of a rule.

    Attributes:
        text: as it was written, in Cedar's own spacing.
        joined: the same as it stands between two ``&&``.
        expression: what is evaluated.
        proven: what it reads that somebody has to prove, as ``principal.team``.
        reads_message: whether it waits for the second step.
        is_volatile: whether what it says may differ from one message of a sender to the next.
    """

    text: str
    joined: str
    expression: Expression
    proven: frozenset[str]
    reads_message: bool
    is_volatile: bool


@frozen
class Rule:
    """A policy of either form.

    Attributes:
        id: its ``@id``, else its handler or its place.
        place: its handler, or file and line.
        effect: what it does where it holds.
        actions: those it is about; None for all.
        resource_type: what it is about; None for all.
        clauses: what must hold together, in order.
        early: its attribute part.
    """

    id: str
    place: str
    effect: Effect
    actions: tuple[str, ...] | None
    resource_type: str | None
    clauses: tuple[Clause, ...]
    early: tuple[Clause, ...]

    def covers(self, action: str, resource_type: str) -> bool:
        """Tell whether it is about an action at a type of resource."""
        return (self.actions is None or action in self.actions) and self.resource_type in {None, resource_type}

    @property
    def reads_message(self) -> bool:
        """Whether it has clauses beyond its attribute part."""
        return len(self.early) < len(self.clauses)

    @property
    def proven(self) -> frozenset[str]:
        """What its clauses read that somebody has to prove."""
        return frozenset(chain.from_iterable(clause.proven for clause in self.clauses))

    @property
    def text(self) -> str:
        """Its clauses, in order."""
        bracketed = [clause.text if len(self.clauses) == 1 else clause.joined for clause in self.clauses]
        return " && ".join(bracketed) or "true"


SENDING_PERMITTED: Final = Rule("sending", "the rule that sending is permitted", "permit", None, None, (), ())
"""What leaves is permitted unless forbidden."""


@frozen
class Slice:
    """The rules about one action at one class of agents.

    Attributes:
        rules: by their ids.
        permits: those of them that permit.
        attribute_part: every rule's attribute part.
        whole: every rule.
        each_clause: every clause as a policy of its own, named by `clause_id`, to explain denials with.
        proven: what the rules read that has to be proven.
        reads_message: whether a rule has clauses beyond its attribute part.
        is_volatile: whether a clause of the attribute part is.
        message: the message's fields that are read, with their types.
    """

    rules: Mapping[str, Rule]
    permits: tuple[Rule, ...]
    attribute_part: cedarpy.PolicySet
    whole: cedarpy.PolicySet
    each_clause: cedarpy.PolicySet
    proven: frozenset[str]
    reads_message: bool
    is_volatile: bool
    message: Record

    def verdict(self, matched: Collection[str], *, early: bool) -> bool | None:
        """Return what follows from the rules that hold, or whose attribute parts do; None where the message decides."""
        holding = [self.rules[name] for name in matched]
        forbids = [rule for rule in holding if rule.effect == "forbid"]
        permits = [rule for rule in holding if rule.effect == "permit"]
        if not permits or any(not (early and rule.reads_message) for rule in forbids):
            return False
        if early and (forbids or all(rule.reads_message for rule in permits)):
            return None
        return True


def clause_id(rule: Rule, number: int) -> str:
    """Return the name of a rule's clause in `Slice.each_clause`."""
    return f"{rule.id} clause {number}"


def make_slice(rules: Sequence[Rule], message: Record) -> Slice:
    """Compile the rules about one action at one class of agents.

    Args:
        rules: all that cover it.
        message: the message's fields.
    """
    clauses = list(chain.from_iterable(rule.clauses for rule in rules))
    return Slice(
        rules={rule.id: rule for rule in rules},
        permits=tuple(rule for rule in rules if rule.effect == "permit"),
        attribute_part=_policy_set({rule.id: rule.early for rule in rules}),
        whole=_policy_set({rule.id: rule.clauses for rule in rules}),
        each_clause=_policy_set(
            {clause_id(rule, number): [clause] for rule in rules for number, clause in enumerate(rule.clauses)}
        ),
        proven=frozenset(chain.from_iterable(clause.proven for clause in clauses)),
        reads_message=any(rule.reads_message for rule in rules),
        is_volatile=any(clause.is_volatile for rule in rules for clause in rule.early),
        message=message.only(message_fields_in([clause.expression for clause in clauses])),
    )


def rule_of_grant(agent: str, handler: str, actions: tuple[str, ...], condition: Condition) -> Rule:
    """Return what a handler's condition stands for: a permit on its actions, rewritten such that hiding never helps."""
    clauses = tuple(evolve(_clause(conjunct), expression=add_rights_only(conjunct)) for conjunct in condition.conjuncts)
    early = tuple(clause for clause in clauses if not clause.reads_message)
    name = f"{agent}.{handler}"
    return Rule(name, name, "permit", actions, agent, clauses, early)


def rule_of_whole(policy: WholePolicy, schema: cedarpy.Schema) -> Rule:
    """Return a whole policy as a rule.

    Taken out of their order, its clauses may lack a guard that reads the message; Cedar's validation tells, and then
    only those in front of the first one that reads it are the attribute part.
    """
    clauses = tuple(map(_clause, policy.clauses))
    early = tuple(clause for clause in clauses if not clause.reads_message)
    first = next((number for number, clause in enumerate(clauses) if clause.reads_message), len(clauses))
    head = {"effect": policy.effect, "principal": _ALL, "action": policy.action, "resource": policy.resource}
    alone = cedarpy.policies_from_json_str(policy_set_json({"part": {**head, "conditions": _conditions(early)}}))
    result = cedarpy.validate_policies(alone, schema)  # pyright: ignore[reportUnknownMemberType] - takes bare dicts too
    return Rule(
        id=policy.id,
        place=policy.place,
        effect=policy.effect,
        actions=named_actions(policy.action),
        resource_type=type_in_scope(policy.resource),
        clauses=clauses,
        early=early if result.validation_passed else clauses[:first],
    )


def _clause(expression: Expression) -> Clause:
    text = _text_of(expression)
    return Clause(
        text=text,
        joined=f"({text})" if operator_of(expression) in {"||", "if-then-else"} else text,
        expression=expression,
        proven=proven_paths_in(expression),
        reads_message=reads_context(expression, "message"),
        is_volatile=any(reads_context(expression, name) for name in VOLATILE),
    )


def _policy_set(policies: Mapping[str, Iterable[Clause]]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_json_str(
        policy_set_json({name: _permit(_conditions(clauses)) for name, clauses in policies.items()})
    )


def _permit(conditions: Sequence[Expression]) -> Expression:
    return {"effect": "permit", "principal": _ALL, "action": _ALL, "resource": _ALL, "conditions": conditions}


def _conditions(clauses: Iterable[Clause]) -> list[Expression]:
    return [{"kind": "when", "body": clause.expression} for clause in clauses]


_NEEDLESS_BRACKETS: Final = re.compile(r'("(?:[^"\\]|\\.)*")|(?<!\w)\(([\w.]+)\)')
"""Strings, to leave alone, and the brackets that Cedar puts around each path."""


def _text_of(conjunct: Expression) -> str:
    """Return a condition as Cedar writes it, for the log."""
    text = cedarpy.policies_from_json_str(policy_set_json({"text": _permit([{"kind": "when", "body": conjunct}])}))
    _, _, inner = text.removesuffix(" };").partition("when { ")
    while (shorter := _NEEDLESS_BRACKETS.sub(lambda found: found[1] or found[2], inner)) != inner:
        inner = shorter
    return inner
