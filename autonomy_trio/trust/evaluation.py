"""What Cedar says to a question about a slice of policies, and which clause it comes from."""

import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, TypeVar

import cedarpy
from attrs import Factory, define, field, frozen

from autonomy_trio.trust.attributes import AttributeType, AttributeValue, type_of
from autonomy_trio.trust.schema import PRINCIPAL, proven_to_cedar
from autonomy_trio.trust.slices import Rule, Slice, clause_id

_K = TypeVar("_K")
_V = TypeVar("_V")

MOST_NAMED: Final = 3
"""Permits that a denial explains, one clause each."""
MOST_TEXT: Final = 300
"""Characters of a policy that an explanation shows."""


@frozen
class Principal:
    """A sender, as its session and its verified credentials show it.

    Attributes:
        id: its address or identifier, as policies read it.
        node: the identifier of its node.
        attributes: what is proven about it.
        credentials: the identifiers of the credentials that prove it.
        expires: when the first of them does, in Unix seconds; from then on its attributes count as absent.
    """

    id: str
    node: str
    attributes: Mapping[str, AttributeValue] = field(factory=dict[str, AttributeValue])
    credentials: frozenset[bytes] = frozenset()
    expires: float = math.inf
    proven: frozenset[tuple[str, AttributeType, AttributeValue]] = field(
        init=False, repr=False, eq=False, default=Factory(lambda self: _hashable(self.attributes), takes_self=True)
    )
    """The attributes as a value that can stand in a cache's key: a credential's identifier is its issuer's choice, so
    it does not tell which attributes came with it."""


def _hashable(
    attributes: Mapping[str, AttributeValue],
) -> frozenset[tuple[str, AttributeType, AttributeValue]]:
    # True equals 1 in Python, so the types stand beside the values.
    return frozenset((name, type_of(value), value) for name, value in attributes.items())


@frozen
class Question:
    """Who asks whom for what, in which circumstances; sending alone has a recipient with attributes."""

    principal: Principal
    action: str
    resource_type: str
    resource: str
    context: Mapping[str, object]
    recipient: Principal | None = None


@frozen
class _Answer:
    """What Cedar says about a question: the rules that hold, and the errors."""

    matched: tuple[str, ...]
    errors: tuple[str, ...]


@frozen
class Verdict:
    """What was found out about a question.

    Attributes:
        allowed: whether it may be.
        policies: the policies that decided: those that held, and for a denial those that could have.
        errors: what could not be evaluated; any error denies.
        reason: the clause that decided, in words.
    """

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...]
    reason: str


@frozen
class _Involved:
    """The sender, or sender and recipient, as Cedar knows them; the attributes that none of them has proven."""

    entities: cedarpy.Entities | None
    hidden: frozenset[str]
    error: str = ""


@define
class Evaluator:
    """Asks Cedar.

    Attributes:
        types: of attributes, as policies read them; None where any will do.
        most_parsed: senders that are kept as Cedar knows them; the least recently asked about goes first.
        evaluations: times Cedar was asked.
    """

    types: Mapping[str, AttributeType | None]
    most_parsed: int
    evaluations: int = 0
    _parsed: OrderedDict[tuple[str, str, str], tuple[Principal, _Involved]] = field(
        factory=OrderedDict[tuple[str, str, str], tuple[Principal, _Involved]], repr=False
    )

    def judge(self, found: Slice, question: Question, *, early: bool) -> Verdict | None:
        """Answer a question by a slice, or `early` by its attribute part; None where that is too little."""
        involved = self._involved(found, question)
        answer = self._ask(found.attribute_part if early else found.whole, question, involved)
        if answer.errors:
            return failed(found, answer.errors)
        verdict = found.verdict(answer.matched, early=early)
        if verdict is None:
            return None
        matched = set(answer.matched)  # Cedar names them in no order; the first one there is, is the one to name
        rules = [rule for name, rule in found.rules.items() if name in matched]
        permits = [rule for rule in rules if rule.effect == "permit"]
        forbids = [rule for rule in rules if rule.effect == "forbid" and not (early and rule.reads_message)]
        if verdict:
            decided = [rule for rule in permits if not (early and rule.reads_message)]
            reason = f"permitted by {decided[0].id}"
        elif forbids:
            decided = forbids
            missing = _not_proven(forbids[0].proven & involved.hidden)
            reason = f"forbidden by {_named(forbids[0])}: {forbids[0].text[:MOST_TEXT]}{missing}"
        else:
            decided = list(found.permits)
            reason = self._why_none_permits(found, question, involved, early=early)
        return Verdict(verdict, tuple(sorted(rule.id for rule in decided)), (), reason)

    def _ask(self, policies: cedarpy.PolicySet, question: Question, involved: _Involved) -> _Answer:
        if involved.entities is None:
            return _Answer((), (involved.error,))
        self.evaluations += 1
        # As types and identifiers apart, no name can be read as Cedar's syntax.
        request = {
            "principal": {"type": PRINCIPAL, "id": question.principal.id},
            "action": {"type": "Action", "id": question.action},
            "resource": {"type": question.resource_type, "id": question.resource},
            "context": question.context,
        }
        try:
            result = cedarpy.is_authorized(request, policies, involved.entities)  # pyright: ignore[reportUnknownMemberType] - bare dicts
        except ValueError as error:
            return _Answer((), (str(error),))
        return _Answer(tuple(result.diagnostics.reasons), tuple(result.diagnostics.errors))

    def _involved(self, found: Slice, question: Question) -> _Involved:
        """Return who is involved, made once for each sender: parsing it costs a third of a decision."""
        principal = question.principal
        if question.recipient is not None:
            return self._parse(found, {"principal": principal, "resource": question.recipient})
        key = (question.resource_type, question.action, principal.id)
        known = self._parsed.get(key)
        # The same object, for a sender of that name may have shown other credentials by now.
        if known is None or known[0] is not principal:
            known = principal, self._parse(found, {"principal": principal})
            keep(self._parsed, key, known, self.most_parsed)
        return known[1]

    def _parse(self, found: Slice, involved: Mapping[str, Principal]) -> _Involved:
        """Return somebody as Cedar knows them, and what is not proven: an attribute of a wrong type is not either."""
        entities: list[dict[str, object]] = []
        hidden = set(found.proven)
        for variable, someone in involved.items():
            attributes: dict[str, object] = {}
            for name, value in someone.attributes.items():
                path = f"{variable}.{name}"
                known = proven_to_cedar(value, self.types.get(name)) if path in found.proven else None
                if known is not None:
                    attributes[name] = known
                    hidden.discard(path)
            attributes |= {"id": someone.id, "node": someone.node}
            entities.append({"uid": {"type": PRINCIPAL, "id": someone.id}, "attrs": attributes, "parents": ()})
        try:
            parsed = cedarpy.Entities.from_json_str(json.dumps(entities))  # pyright: ignore[reportUnknownMemberType] - bare dicts
        except ValueError as error:
            return _Involved(None, frozenset(hidden), str(error))
        return _Involved(parsed, frozenset(hidden))

    def _why_none_permits(self, found: Slice, question: Question, involved: _Involved, *, early: bool) -> str:
        """Say of the first permits which clause is not true, and what would have to be proven for it."""
        true = self._ask(found.each_clause, question, involved).matched
        needs: list[str] = []
        for rule in found.permits[:MOST_NAMED]:
            asked = rule.early if early else rule.clauses
            # A clause that fails by itself lacks a guard, which comes before it and is not true either.
            failed = next(clause for clause in asked if clause_id(rule, rule.clauses.index(clause)) not in true)
            needs.append(
                f"{_named(rule)} needs {failed.text[:MOST_TEXT]}{_not_proven(failed.proven & involved.hidden)}"
            )
        more = len(found.permits) - MOST_NAMED
        return f"no permit: {'; '.join(needs)}{f'; and {more} more' if more > 0 else ''}"


def failed(found: Slice, errors: tuple[str, ...]) -> Verdict:
    """Return what follows from errors: a policy that fails is skipped by Cedar, and a skipped forbid would allow."""
    names = tuple(sorted(found.rules))
    who = names[0] if len(names) == 1 else "a policy"
    return Verdict(
        allowed=False, policies=names, errors=errors, reason=f"{who} could not be evaluated: {errors[0][:MOST_TEXT]}"
    )


def keep(cache: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    """Keep something in a cache of bounded size, and let go what was not used for the longest time."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > most:
        cache.popitem(last=False)


def _named(rule: Rule) -> str:
    """Return what a rule is called, and where it stands if that is not its name."""
    return f"{rule.id} ({rule.place})" if rule.id != rule.place else rule.id


def _not_proven(names: frozenset[str]) -> str:
    return f"; not proven: {', '.join(sorted(names))}" if names else ""
