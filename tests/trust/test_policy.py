"""Decisions: default deny, the two steps, and a cache that outlives nothing."""

import math
from collections.abc import Mapping

import pytest
from attrs import evolve, frozen

from autonomy_trio.trust.anchors import Anchor, Anchors
from autonomy_trio.trust.attributes import AttributeValue
from autonomy_trio.trust.grants import Grant
from autonomy_trio.trust.policy import Decision, Policies, PolicyStatistics, Principal, Reach

SELF = Anchors.of_self(bytes(32))
TEAM_AND_AMOUNT = 'principal.team == "payments" && context.message.amount <= 100'


@frozen
class Add:
    amount: int
    note: str | None = None
    weight: float = 0.5
    other: int = 0


@frozen
class Get:
    pass


def add(allow: str | None) -> Grant:
    return Grant("Counter", "add", ("Add",), (Add,), allow)


def get(allow: str | None) -> Grant:
    return Grant("Counter", "get", ("Get",), (Get,), allow)


def compiled(*grants: Grant, most_cached: int = 100) -> Policies:
    return Policies.compile(grants, SELF, generation=7, most_cached=most_cached)


def sender(expires: float = math.inf, credential: bytes = b"1", **attributes: AttributeValue) -> Principal:
    return Principal("Iaa/visitor", "Iaa", attributes, frozenset({credential} if attributes else ()), expires)


def first(
    policies: Policies,
    principal: Principal,
    action: str = "Get",
    *,
    now: float = 0.0,
    resource: str = "counter",
    is_local: bool = False,
    relay: str | None = None,
    created: int | None = None,
) -> Decision | None:
    return policies.attribute_part(
        principal, action, "Counter", resource, now=now, is_local=is_local, relay=relay, created=created
    )


def whole(policies: Policies, principal: Principal, message: object, action: str = "Add", now: float = 0.0) -> Decision:
    return policies.decide(principal, action, "Counter", "counter", message, now=now)


def test_default_deny() -> None:
    policies = compiled(add(None), get(TEAM_AND_AMOUNT.partition(" &&")[0]))
    everything = sender(team="payments")
    for action in ("Add", "Unknown", "", "Get\n" * 100):
        for decision in (first(policies, everything, action), whole(policies, everything, Add(1), action)):
            assert decision is not None
            assert not decision.allowed
            assert decision.policies == ()
            assert decision.reason.startswith(f"no permit: nothing lets others send {action[:80]!r} to Counter")
    assert not policies.reads_message("Add", "Counter")
    other_agent = policies.attribute_part(everything, "Get", "Store", "store", now=0)
    assert other_agent is not None
    assert not other_agent.allowed


def test_a_sender_that_proves_it_is_let_in_and_another_is_not() -> None:
    policies = compiled(get('principal.team == "payments"'))
    allowed, missing, wrong = (
        first(policies, each) for each in (sender(team="payments"), sender(), sender(team="x", credential=b"2"))
    )
    assert allowed == Decision(
        allowed=True,
        policies=("Counter.get",),
        errors=(),
        reason="permitted by Counter.get",
        credentials=frozenset({b"1"}),
        generation=7,
    )
    assert missing == Decision(
        allowed=False,
        policies=("Counter.get",),
        errors=(),
        reason='no permit: Counter.get needs principal.team == "payments"; not proven: principal.team',
        credentials=frozenset(),
        generation=7,
    )
    assert wrong is not None
    assert wrong.reason == 'no permit: Counter.get needs principal.team == "payments"'


def test_the_message_part_is_asked_only_after_the_attribute_part() -> None:
    policies = compiled(add(TEAM_AND_AMOUNT), get("true"))
    assert policies.reads_message("Add", "Counter")
    assert not policies.reads_message("Get", "Counter")
    denied = first(policies, sender(), "Add")
    assert denied is not None
    assert not denied.allowed
    assert first(policies, sender(team="payments"), "Add") is None
    assert whole(policies, sender(team="payments"), Add(100)).allowed
    assert whole(policies, sender(team="payments"), {"amount": 100}).allowed
    too_much = whole(policies, sender(team="payments"), Add(101))
    assert too_much.reason == "no permit: Counter.add needs context.message.amount <= 100"
    assert not whole(policies, sender(), Add(1)).allowed


def test_an_early_denial_looks_at_no_field_of_the_message() -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(name)

    policies = compiled(add(f"context.message.amount > 0 && {TEAM_AND_AMOUNT}"))
    denied = first(policies, sender(), "Add")
    assert denied is not None
    assert denied.reason == 'no permit: Counter.add needs principal.team == "payments"; not proven: principal.team'
    # One evaluation and one explanation, none of them of the message part.
    assert policies.statistics().evaluations == 2
    with pytest.raises(AssertionError, match="amount"):
        whole(policies, sender(team="payments"), Untouchable())


def test_a_policy_about_the_message_alone_leaves_all_to_the_second_step() -> None:
    policies = compiled(add("context.message.amount <= 100"))
    assert first(policies, sender(), "Add") is None
    assert whole(policies, sender(), Add(1)).allowed


def test_a_disjunction_with_the_message_belongs_to_the_second_step() -> None:
    policies = compiled(add('principal.team == "payments" || context.message.amount == 1'))
    assert first(policies, sender(), "Add") is None
    assert whole(policies, sender(), Add(1)).allowed
    decision = whole(policies, sender(), Add(2))
    assert not decision.allowed
    assert decision.reason.endswith("; not proven: principal.team")


@pytest.mark.parametrize(
    "amount", [2**63, -(2**63) - 1, 2**64, 1 << 20_000], ids=["2**63", "-2**63-1", "2**64", "huge"]
)
def test_an_integer_past_64_bits_denies(amount: int) -> None:
    policies = compiled(add("context.message.amount <= 100 || true"))
    decision = whole(policies, sender(), Add(amount))
    assert not decision.allowed
    assert decision.errors == ("context.message.amount does not fit in 64 bits",)
    assert decision.reason == "Counter.add could not be evaluated: context.message.amount does not fit in 64 bits"
    assert whole(policies, sender(), Add(2**63 - 1)).allowed


def test_fields_that_no_policy_reads_are_not_looked_at() -> None:
    policies = compiled(add("context.message.amount <= 100"))
    assert whole(policies, sender(), Add(1, other=2**70)).allowed


def test_optional_fields_are_absent_when_none() -> None:
    policies = compiled(add('context.message has note && context.message.note == "x"'))
    assert whole(policies, sender(), Add(1, note="x")).allowed
    assert not whole(policies, sender(), Add(1)).allowed


def test_an_evaluation_error_denies() -> None:
    policies = compiled(add("context.message.amount * 2 > 0 || true"), get("principal.level * 2 > 0 || true"))
    overflow = whole(policies, sender(), Add(2**62))
    assert not overflow.allowed
    assert "overflow" in overflow.errors[0]
    assert overflow.reason.startswith("Counter.add could not be evaluated: ")
    early = first(policies, sender(level=2**62))
    assert early is not None
    assert not early.allowed
    assert early.errors


@pytest.mark.parametrize("message", [None, {}, {"amount": "1"}, {"amount": None}, {"amount": True}, object()])
def test_a_message_that_is_none_denies(message: object) -> None:
    decision = whole(compiled(add("context.message.amount <= 100 || true")), sender(), message)
    assert not decision.allowed
    assert decision.errors


@pytest.mark.parametrize("name", ['"; permit', "a\nb\x00", '") || true //', "\ud800", "", 'Counter::"x"'])
def test_no_name_is_read_as_syntax(name: str) -> None:
    policies = compiled(get('principal.id == "Iaa/visitor" && resource == Counter::"counter"'))
    principal = evolve(sender(), id=name)
    for decision in (first(policies, principal), first(policies, sender(), resource=name)):
        assert decision is not None
        assert not decision.allowed


@pytest.mark.parametrize(
    "attributes",
    [{"team": 3}, {"team": True}, {"team": frozenset({"payments"})}, {"level": "3"}, {"level": True}, {"level": 2**63}],
)
def test_an_attribute_of_another_type_counts_as_absent(attributes: Mapping[str, AttributeValue]) -> None:
    policies = compiled(get('!(principal.team == "sales") || principal.level >= 3'))
    decision = first(policies, sender(**attributes))
    assert decision is not None
    assert not decision.allowed
    assert decision.errors == ()
    assert decision.reason.endswith("; not proven: principal.level, principal.team")


def test_any_type_will_do_where_only_presence_is_asked() -> None:
    policies = compiled(get("principal has badge"))
    values: list[AttributeValue] = [1, "x", False, frozenset({"a"})]
    for number, value in enumerate(values):
        decision = first(policies, sender(badge=value, credential=bytes([number])))
        assert decision is not None
        assert decision.allowed


def test_a_proven_attribute_cannot_stand_for_the_senders_own_names() -> None:
    policies = compiled(get('principal.id == "Ibb" || principal.node == "Ibb"'))
    decision = first(policies, evolve(sender(), attributes={"id": "Ibb", "node": "Ibb"}))
    assert decision is not None
    assert not decision.allowed


def test_the_circumstances_can_be_read_and_are_part_of_what_is_cached() -> None:
    policies = compiled(get('context.is_local || (context has relay && context.relay == "ws://r")'))
    verdicts = [
        first(policies, sender()),
        first(policies, sender(), is_local=True),
        first(policies, sender(), relay="ws://r"),
        first(policies, sender(), relay="ws://x"),
    ]
    assert [verdict.allowed for verdict in verdicts if verdict is not None] == [False, True, True, False]


def test_when_it_was_sealed_can_be_read_and_is_never_taken_from_what_was_cached() -> None:
    policies = compiled(get("context.sealed && context has created && context.time - context.created <= 60"))
    ages = (None, 0, 60, 61, 60)
    verdicts = [first(policies, sender(), now=100.0, created=None if age is None else 100 - age) for age in ages]
    assert [verdict.allowed for verdict in verdicts if verdict is not None] == [False, True, True, False, True]
    assert policies.is_volatile("Get", "Counter")


def test_a_policy_about_sealed_messages_is_cached_for_them_and_for_others_apart() -> None:
    policies = compiled(get("!context.sealed"))
    verdicts = [first(policies, sender(), created=created) for created in (None, 1, None, 2)]
    assert [verdict.allowed for verdict in verdicts if verdict is not None] == [True, False, True, False]
    assert policies.statistics().cached == 2
    assert not policies.is_volatile("Get", "Counter")
    assert not policies.is_volatile("Nothing", "Counter")


def test_a_cached_decision_is_the_same_and_asks_cedar_nothing() -> None:
    policies = compiled(add(TEAM_AND_AMOUNT), get('principal.team == "payments"'))
    for action in ("Get", "Add"):
        for principal in (sender(team="payments"), sender()):
            decision = first(policies, principal, action)
            before = policies.statistics()
            assert first(policies, principal, action) is decision
            assert policies.statistics() == before


def test_decisions_differ_by_sender_credentials_and_resource() -> None:
    policies = compiled(get('principal.team == "payments" && resource == Counter::"counter"'))
    assert first(policies, sender(team="payments")) != first(policies, sender())
    first(policies, evolve(sender(team="payments"), id="Ibb"))
    first(policies, sender(team="payments"), resource="other")
    assert policies.statistics().cached == 4


def test_a_credential_with_the_number_of_another_gains_nothing_from_what_was_cached() -> None:
    """An issuer chooses the identifiers of its credentials, and two issuers may choose one."""
    policies = compiled(get('principal.team == "payments"'))
    proven = sender(team="payments")
    for _ in range(2):
        assert first(policies, proven).allowed
        assert not first(policies, evolve(proven, attributes={"colour": "red"})).allowed


def test_a_number_is_no_truth_in_the_cache() -> None:
    policies = compiled(get("principal.cleared"))
    assert first(policies, sender(cleared=True)).allowed
    assert not first(policies, sender(cleared=1)).allowed


def test_the_cache_never_outlives_the_expiry_of_a_credential() -> None:
    policies = compiled(get('principal.team == "payments"'))
    principal = sender(expires=100.0, team="payments")
    for now, allowed in ((0.0, True), (99.9, True), (100.0, False), (1000.0, False)):
        decision = first(policies, principal, now=now)
        assert decision is not None
        assert decision.allowed is allowed
    assert decision.credentials == frozenset()
    assert not whole(policies, principal, Get(), "Get", now=100.0).allowed
    # Whatever the caller says of its expiry later, what was decided before holds no longer than it said then.
    evaluations = policies.statistics().evaluations
    renewed = first(policies, evolve(principal, expires=2000.0), now=150.0)
    assert renewed is not None
    assert renewed.allowed
    assert policies.statistics().evaluations == evaluations + 1


def test_an_expired_sender_keeps_what_everyone_may() -> None:
    policies = compiled(get("true"))
    decision = first(policies, sender(expires=1.0, team="x"), now=5.0)
    assert decision is not None
    assert decision.allowed


def test_a_policy_that_reads_the_time_is_not_cached() -> None:
    policies = compiled(
        get("context.time < 100"), add('context.message.amount < context.time && principal.team == "x"')
    )
    for now, allowed in ((99.9, True), (100.0, False)):
        decision = first(policies, sender(), now=now)
        assert decision is not None
        assert decision.allowed is allowed
    assert policies.statistics().cached == 0
    # The time in the message part alone leaves the attribute part as it is.
    assert first(policies, sender(team="x"), "Add") is None
    assert policies.statistics().cached == 1


def test_the_cache_is_bounded_and_the_least_recently_used_goes_first() -> None:
    policies = compiled(get("true"), most_cached=3)
    for resource in ("a", "b", "c", "a", "d"):
        first(policies, sender(), resource=resource)
    assert policies.statistics() == PolicyStatistics(evaluations=4, cached=3)
    first(policies, sender(), resource="a")
    assert policies.statistics().evaluations == 4
    first(policies, sender(), resource="b")
    assert policies.statistics().evaluations == 5


def test_what_no_policy_is_about_fills_no_cache() -> None:
    policies = compiled(get("true"))
    for number in range(10):
        first(policies, sender(), f"Unknown{number}")
    assert policies.statistics() == PolicyStatistics(0, 0)


def test_reachable_lists_what_others_can_reach() -> None:
    policies = compiled(
        get("true"), add(None), Grant("Agent", "both", ("Get", "Add"), (Get, Add), "principal has team")
    )
    assert [(each.agent, each.action, each.condition) for each in policies.reachable()] == [
        ("Agent", "Add", "principal has team"),
        ("Agent", "Get", "principal has team"),
        ("Counter", "Get", "true"),
    ]


def test_a_handler_that_is_there_twice_counts_once() -> None:
    assert compiled(get("true"), get("true")).reachable() == [Reach("Counter", "Get", ("true",), ())]


def test_attributes_that_anchors_may_assert_are_known_by_type() -> None:
    anchors = Anchors({bytes(32): Anchor(bytes(32), {"team": "string"})}, {"team": "string"})
    assert Policies.compile([get("true")], anchors).attributes == {"team": "string"}
    assert compiled(get("principal.level > 1 && principal has badge")).attributes == {"level": "long", "badge": None}


def test_a_principal_has_proven_nothing_unless_said() -> None:
    assert Principal("Iaa", "Iaa") == Principal("Iaa", "Iaa", {}, frozenset(), math.inf)
