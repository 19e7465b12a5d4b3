"""The policies of a node, compiled, and their decisions about messages from and to other nodes.

A decision falls in two steps, so that a stranger's payload is decoded only when who it is leaves the outcome open:

1. `Policies.attribute_part`: the top-level ``&&`` conjuncts that read no ``context.message``. It denies, or it is the
   whole decision where no policy reads the message, or it returns None: decode the payload and ask the second step.
2. `Policies.decide`: everything.

Whatever is not Allow with zero errors denies, in both. `Policies.sending` decides about what leaves.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

from attrs import Factory, define, field, frozen

from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.attributes import AttributeType
from autonomy_trio.trust.evaluation import Evaluator, Principal, Question, Verdict, failed, keep
from autonomy_trio.trust.grants import Grant, compile_grants
from autonomy_trio.trust.schema import PRINCIPAL, SEND, to_cedar
from autonomy_trio.trust.slices import Slice
from autonomy_trio.trust.whole import WholePolicy, evadable

MOST_CACHED: Final = 10_000
"""Decisions kept, and senders as Cedar knows them; the least recently used goes first."""


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
class Reach:
    """What other nodes can reach at all, and what it takes.

    Attributes:
        agent: the class of agents.
        action: the message's wire name.
        permits: the conditions of the permits, one of which must hold.
        forbids: the conditions of the forbids, none of which may.
    """

    agent: str
    action: str
    permits: tuple[str, ...]
    forbids: tuple[str, ...]

    @property
    def condition(self) -> str:
        """All of it in one line."""
        permits = "true" if "true" in self.permits else " or if ".join(self.permits)
        return f"{permits}{''.join(f', but never if {each}' for each in self.forbids)}"


_Shown = tuple[frozenset[bytes], frozenset[object]]
_Key = tuple[str, str, str, str, _Shown, bool, bool, _Shown]
_Verdict = tuple[Decision | None, float]
"""An answer of the attribute part, and when it ceases to hold."""
_NOBODY: Final[_Shown] = (frozenset(), frozenset())


@define
class Policies:
    """The compiled policies of a node, made by `compile`. No decision raises.

    Attributes:
        generation: their number; a change of policies, anchors or revocations makes new ones with another.
        attributes: those that policies read or anchors may assert, with their types; None where any will do.
        evadable: the whole policies that somebody gets more out of by hiding an attribute, by place, with those.
    """

    generation: int
    attributes: Mapping[str, AttributeType | None]
    evadable: Mapping[str, tuple[str, ...]] = field(repr=False)
    _slices: Mapping[tuple[str, str], Slice] = field(repr=False)
    _most_cached: int
    _cache: OrderedDict[_Key, _Verdict] = field(factory=OrderedDict[_Key, _Verdict], init=False, repr=False)
    _evaluator: Evaluator = field(
        init=False,
        default=Factory(lambda self: Evaluator(self.attributes, self._most_cached), takes_self=True),
        repr=False,
    )

    @classmethod
    def compile(
        cls,
        grants: Iterable[Grant],
        anchors: Anchors,
        whole: Sequence[WholePolicy] = (),
        *,
        generation: int = 1,
        most_cached: int = MOST_CACHED,
    ) -> Self:
        """Check the policies of all handlers together, and compile them.

        Args:
            grants: every handler of every agent class; one that is there twice counts once.
            anchors: which attributes may be proven here, and their types.
            whole: policies besides, as `load_policies` reads them.
            generation: the number that decisions carry.
            most_cached: the bound of the cache.

        Raises:
            PolicyError: a policy cannot be right; names handler or line, text and mend.
        """
        slices, types = compile_grants(grants, anchors.attribute_types, whole)
        found = {policy.place: names for policy in whole if (names := evadable(policy))}
        return cls(generation, types, found, slices, most_cached)

    def reachable(self) -> list[Reach]:
        """Return what other nodes can reach at all, in order."""
        return [
            Reach(
                agent,
                action,
                tuple(rule.text for rule in found.permits),
                _forbids(found),
            )
            for (agent, action), found in sorted(self._slices.items())
            if agent != PRINCIPAL
        ]

    def reads_message(self, action: str, agent: str) -> bool:
        """Tell whether deciding about this action at this class of agents can take the message."""
        found = self._slices.get((agent, action))
        return found is not None and found.reads_message

    def is_volatile(self, action: str, agent: str) -> bool:
        """Tell whether the attribute part can decide differently about two such messages of one sender.

        It does where it reads the time, the relay that brought a message, or when that was sealed.
        """
        found = self._slices.get((agent, action))
        return found is not None and found.is_volatile

    @property
    def restricts_sending(self) -> bool:
        """Whether a policy could forbid to send something to another node."""
        return (PRINCIPAL, SEND) in self._slices

    def sending_forbidden(self) -> tuple[str, ...]:
        """Return the conditions that forbid to send something to another node."""
        found = self._slices.get((PRINCIPAL, SEND))
        return () if found is None else _forbids(found)

    def statistics(self) -> PolicyStatistics:
        """Return the counters."""
        return PolicyStatistics(self._evaluator.evaluations, len(self._cache))

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
        created: int | None = None,
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
            created: Unix seconds when it was sealed; None for what came in a session.

        Returns:
            the decision, or None where it depends on the message: ask `decide`.
        """
        principal = _at(now, principal)
        key = (agent, action, resource, principal.id, _shown(principal), is_local, created is not None, _NOBODY)
        known = self._cache.get(key)
        if known is not None and now < known[1]:
            self._cache.move_to_end(key)
            return known[0]
        found = self._slices.get((agent, action))
        if found is None:
            return self._no_policy(principal, action, agent)
        circumstances = _circumstances(now, is_local=is_local, relay=relay, created=created)
        question = Question(principal, action, agent, resource, circumstances)
        verdict = self._evaluator.judge(found, question, early=True)
        decision = None if verdict is None else self._decision(principal, verdict)
        if not found.is_volatile:
            keep(self._cache, key, (decision, principal.expires), self._most_cached)
        return decision

    def sending(
        self, sender: Principal, recipient: Principal, *, now: float, relay: str | None = None, sealed: bool = False
    ) -> Decision:
        """Decide whether something may be sent to somebody: permitted unless a policy about `SEND` forbids it.

        Args:
            sender: who sends, of this node.
            recipient: to whom, with what that has proven.
            now: Unix seconds.
            relay: the pinned relay that is to take it; None without one.
            sealed: whether it is to be sealed, for a node that may be away.
        """
        found = self._slices.get((PRINCIPAL, SEND))
        if found is None:
            return self._decision(
                recipient, Verdict(allowed=True, policies=(), errors=(), reason="permitted: nothing forbids sending")
            )
        sender, recipient = _at(now, sender), _at(now, recipient)
        key = (PRINCIPAL, SEND, recipient.id, sender.id, _shown(sender), False, sealed, _shown(recipient))
        known = self._cache.get(key)
        if known is not None and known[0] is not None and now < known[1]:
            self._cache.move_to_end(key)
            return known[0]
        context = _circumstances(now, is_local=False, relay=relay, created=int(now) if sealed else None)
        question = Question(sender, SEND, PRINCIPAL, recipient.id, context, recipient)
        verdict = self._evaluator.judge(found, question, early=False)
        assert verdict is not None  # noqa: S101 - with everything there is nothing left open
        decision = self._decision(recipient, verdict)
        if not found.is_volatile:
            keep(self._cache, key, (decision, min(sender.expires, recipient.expires)), self._most_cached)
        return decision

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
        created: int | None = None,
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
            created: Unix seconds when it was sealed; None for what came in a session.
        """
        principal = _at(now, principal)
        found = self._slices.get((agent, action))
        if found is None:
            return self._no_policy(principal, action, agent)
        context = _circumstances(now, is_local=is_local, relay=relay, created=created)
        try:
            context["message"] = to_cedar(found.message, message, "context.message")
        except ValueError as error:
            return self._decision(principal, failed(found, (str(error),)))
        verdict = self._evaluator.judge(found, Question(principal, action, agent, resource, context), early=False)
        assert verdict is not None  # noqa: S101 - with the message there is nothing left open
        return self._decision(principal, verdict)

    def left_open(self, action: str, agent: str) -> tuple[str, ...]:
        """Return the clauses that wait for the message, each with its policy, for whom the attribute part lets pass."""
        found = self._slices.get((agent, action))
        rules = () if found is None else found.rules.values()
        return tuple(
            f"{rule.id} {rule.effect}s if {clause.text}"
            for rule in rules
            for clause in rule.clauses
            if clause not in rule.early
        )

    def _no_policy(self, principal: Principal, action: str, agent: str) -> Decision:
        reason = f"no permit: nothing lets others send {action[:80]!r} to {agent}"
        return self._decision(principal, Verdict(allowed=False, policies=(), errors=(), reason=reason))

    def _decision(self, principal: Principal, verdict: Verdict) -> Decision:
        return Decision(
            verdict.allowed,
            verdict.policies,
            verdict.errors,
            verdict.reason,
            principal.credentials,
            self.generation,
        )


def _shown(principal: Principal) -> _Shown:
    return principal.credentials, principal.proven


def _at(now: float, principal: Principal) -> Principal:
    """Return a sender as it stands at that time: without its attributes once a credential has expired."""
    return principal if now < principal.expires else Principal(principal.id, principal.node)


def _forbids(found: Slice) -> tuple[str, ...]:
    return tuple(rule.text for rule in found.rules.values() if rule.effect == "forbid")


def _circumstances(now: float, *, is_local: bool, relay: str | None, created: int | None) -> dict[str, object]:
    circumstances: dict[str, object] = {"time": int(now), "is_local": is_local, "sealed": created is not None}
    if created is not None:
        circumstances["created"] = created
    if relay is not None:
        circumstances["relay"] = relay
    return circumstances


__all__ = ["MOST_CACHED", "Decision", "Grant", "Policies", "PolicyStatistics", "Principal", "Reach"]
