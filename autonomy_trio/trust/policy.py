"""The policies of a node, compiled, and their decisions about messages from other nodes.

A decision falls in two steps, so that a stranger's payload is decoded only when who it is leaves the outcome open:

1. `Policies.attribute_part`: the top-level ``&&`` conjuncts that read no ``context.message``. It denies, or it is the
   whole decision where no policy reads the message, or it returns None: decode the payload and ask the second step.
2. `Policies.decide`: everything.

Whatever is not Allow with zero errors denies, in both.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

import cedarpy
from attrs import define, field, frozen

from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.attributes import AttributeType, AttributeValue
from autonomy_trio.trust.grants import Grant, Slice, compile_grants
from autonomy_trio.trust.schema import PRINCIPAL, proven_to_cedar, to_cedar

MOST_CACHED: Final = 10_000
"""Decisions kept; the least recently used goes first."""


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


@frozen
class Decision:
    """What was decided about a message, and why; for the log at home, never for the sender.

    Attributes:
        allowed: whether the handler may run.
        policies: the policies that decided: those that matched, and for a denial those that could have.
        errors: what could not be evaluated; any error denies.
        reason: the clause that decided, in words.
        credentials: those that the sender had shown.
        generation: of the policies.
    """

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...]
    reason: str
    credentials: frozenset[bytes]
    generation: int


@frozen
class PolicyStatistics:
    """How decisions came about.

    Attributes:
        evaluations: times Cedar was asked, explanations included.
        cached: decisions kept now.
    """

    evaluations: int
    cached: int


@frozen
class _Question:
    """Who asks whom for what, in which circumstances."""

    principal: Principal
    action: str
    agent: str
    resource: str
    context: Mapping[str, object]


@frozen
class _Answer:
    """What Cedar says about a question: the policies that matched, and the errors."""

    matched: tuple[str, ...]
    errors: tuple[str, ...]
    allowed: bool


_Key = tuple[str, str, str, str, frozenset[bytes], bool, str | None]
_Verdict = tuple[Decision | None, float]
"""An answer of the attribute part, and when it ceases to hold."""


@define
class Policies:
    """The compiled policies of a node, made by `compile`. No decision raises.

    Attributes:
        generation: their number; a change of policies, anchors or revocations makes new ones with another.
        attributes: those that policies read or anchors may assert, with their types; None where any will do.
    """

    generation: int
    attributes: Mapping[str, AttributeType | None]
    _grants: Sequence[Grant] = field(repr=False)
    _slices: Mapping[tuple[str, str], Slice] = field(repr=False)
    _most_cached: int
    _cache: OrderedDict[_Key, _Verdict] = field(factory=OrderedDict[_Key, _Verdict], init=False, repr=False)
    _evaluations: int = field(default=0, init=False)

    @classmethod
    def compile(
        cls, grants: Iterable[Grant], anchors: Anchors, *, generation: int = 1, most_cached: int = MOST_CACHED
    ) -> Self:
        """Check the policies of all handlers together, and compile them.

        Args:
            grants: every handler of every agent class; one that is there twice counts once.
            anchors: which attributes may be proven here, and their types.
            generation: the number that decisions carry.
            most_cached: the bound of the cache.

        Raises:
            PolicyError: a condition cannot be right; names handler, text and mend.
        """
        open_to_others = tuple(grant for grant in dict.fromkeys(grants) if grant.allow is not None)
        slices, types = compile_grants(open_to_others, anchors.attribute_types)
        return cls(generation, types, open_to_others, slices, most_cached)

    def reachable(self) -> list[tuple[str, str, str]]:
        """Return what other nodes can reach at all: agent class, action and condition, in order."""
        return sorted((grant.agent, action, grant.allow or "") for grant in self._grants for action in grant.actions)

    def reads_message(self, action: str, agent: str) -> bool:
        """Tell whether deciding about this action at this class of agents can take the message."""
        found = self._slices.get((agent, action))
        return found is not None and found.reads_message

    def statistics(self) -> PolicyStatistics:
        """Return the counters."""
        return PolicyStatistics(self._evaluations, len(self._cache))

    def attribute_part(  # noqa: PLR0913 - what a policy can ask about: who, what, whom, and the circumstances
        self,
        principal: Principal,
        action: str,
        agent: str,
        resource: str,
        *,
        now: float,
        is_local: bool = False,
        relay: str | None = None,
    ) -> Decision | None:
        """Decide as far as it goes without the message.

        Args:
            principal: the sender.
            action: the message's wire name.
            agent: the class of the receiving agent.
            resource: the identifier of the receiving agent.
            now: Unix seconds.
            is_local: whether the sender is of this node.
            relay: the pinned relay that brought it; None without one.

        Returns:
            the decision, or None where it depends on the message: ask `decide`.
        """
        principal = _at(now, principal)
        key = (agent, action, resource, principal.id, principal.credentials, is_local, relay)
        known = self._cache.get(key)
        if known is not None and now < known[1]:
            self._cache.move_to_end(key)
            return known[0]
        found = self._slices.get((agent, action))
        if found is None:
            return self._no_policy(principal, action, agent)
        question = _Question(principal, action, agent, resource, _circumstances(now, is_local=is_local, relay=relay))
        decision = self._evaluate(found, found.attribute_part, question)
        verdict = None if decision.allowed and found.reads_message else decision
        if not found.reads_time:
            self._keep(key, (verdict, principal.expires))
        return verdict

    def decide(  # noqa: PLR0913 - as `attribute_part`
        self,
        principal: Principal,
        action: str,
        agent: str,
        resource: str,
        message: object,
        *,
        now: float,
        is_local: bool = False,
        relay: str | None = None,
    ) -> Decision:
        """Decide with everything; never cached.

        Args:
            principal: the sender.
            action: the message's wire name.
            agent: the class of the receiving agent.
            resource: the identifier of the receiving agent.
            message: the decoded message, or a mapping of its fields.
            now: Unix seconds.
            is_local: whether the sender is of this node.
            relay: the pinned relay that brought it; None without one.
        """
        principal = _at(now, principal)
        found = self._slices.get((agent, action))
        if found is None:
            return self._no_policy(principal, action, agent)
        context = _circumstances(now, is_local=is_local, relay=relay)
        try:
            context["message"] = to_cedar(found.message, message, "context.message")
        except ValueError as error:
            return self._failed(principal, found, (str(error),))
        return self._evaluate(found, found.whole, _Question(principal, action, agent, resource, context))

    def _evaluate(self, found: Slice, policies: cedarpy.PolicySet, question: _Question) -> Decision:
        proven = self._proven(found, question.principal)
        answer = self._ask(policies, question, proven)
        if answer.errors:
            return self._failed(question.principal, found, answer.errors)
        allowed = answer.allowed
        reason = f"permitted by {found.policy}" if allowed else self._explain(found, question, proven)
        return self._decision(question.principal, allowed=allowed, policies=(found.policy,), reason=reason)

    def _ask(self, policies: cedarpy.PolicySet, question: _Question, proven: Mapping[str, object]) -> _Answer:
        self._evaluations += 1
        principal = question.principal
        # As types and identifiers apart, no name can be read as Cedar's syntax.
        uid = {"type": PRINCIPAL, "id": principal.id}
        request = {
            "principal": uid,
            "action": {"type": "Action", "id": question.action},
            "resource": {"type": question.agent, "id": question.resource},
            "context": question.context,
        }
        entity = {"uid": uid, "attrs": {**proven, "id": principal.id, "node": principal.node}, "parents": ()}
        try:
            result = cedarpy.is_authorized(request, policies, [entity])  # pyright: ignore[reportUnknownMemberType] - bare dicts
        except ValueError as error:
            return _Answer((), (str(error),), allowed=False)
        errors = tuple(result.diagnostics.errors)
        return _Answer(tuple(result.diagnostics.reasons), errors, allowed=result.allowed and not errors)

    def _proven(self, found: Slice, principal: Principal) -> dict[str, object]:
        """Return the attributes that the policy reads; one that is of another type than it reads counts as absent."""
        proven: dict[str, object] = {}
        for name in found.attributes & principal.attributes.keys():
            value = proven_to_cedar(principal.attributes[name], self.attributes.get(name))
            if value is not None:
                proven[name] = value
        return proven

    def _explain(self, found: Slice, question: _Question, proven: Mapping[str, object]) -> str:
        """Say which clause is not true, and what would have to be proven for it."""
        true = self._ask(found.each_clause, question, proven).matched
        asked = (clause for clause in found.clauses if "message" in question.context or not clause.reads_message)
        failed = next(clause for clause in asked if clause.id not in true)
        missing = ", ".join(f"principal.{name}" for name in sorted(failed.attributes - proven.keys()))
        return f"no permit: {found.policy} needs {failed.text}{'; not proven: ' if missing else ''}{missing}"

    def _failed(self, principal: Principal, found: Slice, errors: tuple[str, ...]) -> Decision:
        reason = f"{found.policy} could not be evaluated: {errors[0]}"
        return self._decision(principal, policies=(found.policy,), errors=errors, reason=reason)

    def _no_policy(self, principal: Principal, action: str, agent: str) -> Decision:
        reason = f"no permit: nothing lets others send {action[:80]!r} to {agent}"
        return self._decision(principal, policies=(), reason=reason)

    def _decision(
        self,
        principal: Principal,
        *,
        policies: tuple[str, ...],
        reason: str,
        allowed: bool = False,
        errors: tuple[str, ...] = (),
    ) -> Decision:
        return Decision(allowed, policies, errors, reason, principal.credentials, self.generation)

    def _keep(self, key: _Key, verdict: _Verdict) -> None:
        self._cache[key] = verdict
        self._cache.move_to_end(key)
        if len(self._cache) > self._most_cached:
            self._cache.popitem(last=False)


def _at(now: float, principal: Principal) -> Principal:
    """Return a sender as it stands at that time: without its attributes once a credential has expired."""
    return principal if now < principal.expires else Principal(principal.id, principal.node)


def _circumstances(now: float, *, is_local: bool, relay: str | None) -> dict[str, object]:
    circumstances: dict[str, object] = {"time": int(now), "is_local": is_local}
    if relay is not None:
        circumstances["relay"] = relay
    return circumstances


__all__ = ["MOST_CACHED", "Decision", "Grant", "Policies", "PolicyStatistics", "Principal"]
