"""Decisions by whole policies, against Cedar asked directly; and a cache that outlives nothing."""

import math
from collections.abc import Iterable

import cedarpy
import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.attributes import AttributeValue
from autonomy_trio.trust.grants import Grant
from autonomy_trio.trust.policy import Decision, Policies, Principal
from autonomy_trio.trust.whole import evadable, read_policies

SELF = Anchors.of_self(bytes(32))


@frozen
class Add:
    amount: int
    note: str | None = None


@frozen
class AddTwice(Add):
    pass


@frozen
class Get:
    pass


GRANTS = (
    Grant("Counter", "add", ("Add",), (Add,), 'principal.team == "x"'),
    Grant("Counter", "add_twice", ("AddTwice",), (AddTwice,), None),
    Grant("Counter", "get", ("Get",), (Get,), None),
    Grant("Store", "get", ("Get",), (Get,), None),
)
# What gives every attribute its type, where no anchor does.
TYPED = (
    'forbid(principal, action, resource) when { false && principal has team && principal.team == "x"'
    " && principal has level && principal.level == 1 };"
)


def compiled(text: str, grants: Iterable[Grant] = GRANTS, *, generation: int = 1, most_cached: int = 100) -> Policies:
    whole = read_policies(text, "p.cedar")
    return Policies.compile(grants, SELF, whole, generation=generation, most_cached=most_cached)


def sender(expires: float = math.inf, **attributes: AttributeValue) -> Principal:
    """Somebody who proves this with one credential, whose identifier is its content."""
    return Principal("I1", "I1", attributes, frozenset({repr(attributes).encode()} if attributes else ()), expires)


def decide(
    policies: Policies, principal: Principal, message: object, agent: str = "Counter", now: float = 5.0
) -> Decision:
    action = type(message).__name__
    early = policies.attribute_part(principal, action, agent, "a", now=now)
    return policies.decide(principal, action, agent, "a", message, now=now) if early is None else early


def ask_cedar(text: str, principal: Principal, message: object, agent: str, now: float) -> bool:
    """What Cedar says to the text as it is written: allowed, and nothing failed."""
    attributes = principal.attributes if now < principal.expires else {}
    fields = {name: getattr(message, name) for name in ("amount", "note") if getattr(message, name, None) is not None}
    who = {"type": "Principal", "id": principal.id}
    request = {
        "principal": who,
        "action": {"type": "Action", "id": type(message).__name__},
        "resource": {"type": agent, "id": "a"},
        "context": {"time": int(now), "is_local": False, "message": fields},
    }
    entities = [{"uid": who, "attrs": {**attributes, "id": principal.id, "node": principal.node}, "parents": []}]
    found = cedarpy.is_authorized(request, text, entities)
    return found.allowed and not found.diagnostics.errors


SCOPES = st.sampled_from(
    [
        'principal, action == Action::"Add", resource',
        'principal, action in [Action::"Add", Action::"AddTwice"], resource is Counter',
        'principal == Principal::"I1", action == Action::"Add", resource == Counter::"a"',
        'principal in Principal::"I1", action == Action::"Add", resource in Counter::"a"',
        'principal is Principal, action == Action::"Add", resource is Counter in Counter::"a"',
        'principal is Principal in Principal::"I2", action == Action::"AddTwice", resource',
        'principal == Principal::"I2", action == Action::"Add", resource == Counter::"b"',
    ]
)
ATOMS = st.sampled_from(
    [
        'principal has team && principal.team == "x"',
        "principal has level && principal.level > 2",
        "principal has team",
        'principal.id == "I1"',
        "context.message.amount > 5",
        'context.message has note && context.message.note == "x"',
        "if principal has level then principal.level > 2 else context.message.amount < 3",
        "(principal has level && context.message.amount > 5 || principal has level) && principal.level > 2",
        "(context.message.amount > 5 && principal has level || principal has level) && principal.level > 2",
        "context.time > 50",
        "context.is_local",
        'resource == Counter::"a"',
        "true",
    ]
)
TREES = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("!({})".format, inner) | st.builds("({}) {} ({})".format, inner, st.sampled_from(["&&", "||"]), inner)
    ),
    max_leaves=4,
)
CONDITIONS = st.builds("{} {{ {} }}".format, st.sampled_from(["when", "unless"]), TREES)
POLICIES = st.builds(
    "{}({}) {};".format,
    st.sampled_from(["permit", "permit", "forbid"]),
    SCOPES,
    st.lists(CONDITIONS, max_size=2).map(" ".join),
)
SAFE = POLICIES.filter(lambda text: not evadable(*read_policies(text, "p.cedar")))
TEXTS = st.lists(POLICIES, min_size=1, max_size=5).map("\n".join)
ATTRIBUTES = st.fixed_dictionaries({}, optional={"team": st.sampled_from("xy"), "level": st.integers(1, 4)})
MESSAGES = st.builds(
    lambda cls, amount, note: cls(amount, note),
    st.sampled_from([Add, AddTwice]),
    st.integers(0, 9),
    st.sampled_from([None, "x", "y"]),
)
PERMIT_OF_ADD = (
    'permit(principal, action == Action::"Add", resource is Counter)'
    ' when { principal has team && principal.team == "x" };'
)


@settings(max_examples=150)
@given(TEXTS, ATTRIBUTES, MESSAGES, st.sampled_from([5.0, 60.0]))
def test_the_two_steps_decide_as_cedar_does_in_one(
    text: str, attributes: dict[str, AttributeValue], message: Add, now: float
) -> None:
    policies = compiled(text + TYPED)
    principal = sender(**attributes)
    expected = ask_cedar(text + PERMIT_OF_ADD, principal, message, "Counter", now)
    decision = decide(policies, principal, message, now=now)
    assert decision.errors == ()
    assert decision.allowed is expected, decision.reason
    # Asking for everything at once comes to the same, so no early denial takes away what the whole would give.
    action = type(message).__name__
    assert policies.decide(principal, action, "Counter", "a", message, now=now).allowed is expected


@settings(max_examples=150)
@given(st.lists(SAFE, min_size=1, max_size=3).map("\n".join), ATTRIBUTES, MESSAGES)
def test_hiding_an_attribute_helps_nobody_where_no_policy_can_be_evaded(
    text: str, attributes: dict[str, AttributeValue], message: Add
) -> None:
    policies = compiled(text + TYPED)
    with_all = decide(policies, sender(**attributes), message).allowed
    for hidden in attributes:
        fewer = {name: value for name, value in attributes.items() if name != hidden}
        assert with_all or not decide(policies, sender(**fewer), message).allowed


# Policies that tell senders apart by what a cache could confuse: who, with what credentials, and when.
TELLING = st.builds(
    '{}(principal, action in [Action::"Add", Action::"AddTwice"], resource is Counter) when {{ {} }};'.format,
    st.sampled_from(["permit", "permit", "forbid"]),
    st.sampled_from(
        [
            'principal has team && principal.team == "x"',
            "principal has level && principal.level > 1",
            "principal has level && principal.level + context.message.amount > 3",
            "principal has team",
            'principal.id == "I1"',
            "context.time > 10",
        ]
    ),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "wait", "rotate", "rotate", "renew", "change"]),
        st.integers(0, 2),
        st.sampled_from([Add(1), AddTwice(2)]),
    ),
    min_size=10,
    max_size=25,
)


@settings(max_examples=60)
@given(st.lists(st.lists(TELLING, min_size=1, max_size=3).map("\n".join), min_size=2, max_size=3), STEPS)
def test_the_cache_never_outlives_a_generation_or_an_expiry(
    texts: list[str], steps: list[tuple[str, int, Add]]
) -> None:
    now, generation, shown = 0.0, 1, 0
    text = texts[0]
    policies = compiled(text + TYPED, most_cached=3)
    senders = [Principal(f"I{number}", "I1") for number in range(3)]
    for step, number, message in steps:
        if step == "wait":
            now += 13.0
        elif step == "rotate":  # shows other credentials, for a time
            shown += 1
            attributes: dict[str, AttributeValue] = {"team": "xy"[shown % 2], "level": shown % 4}
            credential = frozenset({str(shown).encode()})
            senders[number] = Principal(f"I{number}", "I1", attributes, credential, now + 20.0)
        elif step == "renew":
            policies = evolve(policies, generation=generation + 1)
            generation += 1
        elif step == "change":
            generation += 1
            text = texts[number % len(texts)]
            policies = compiled(text + TYPED, generation=generation, most_cached=3)
        else:
            for each in senders:
                decision = decide(policies, each, message, now=now)
                assert decision.allowed is ask_cedar(text + PERMIT_OF_ADD, each, message, "Counter", now)
                assert decision.generation == generation
            assert policies.statistics().cached <= 3


def test_a_whole_permit_opens_what_its_handler_does_not() -> None:
    policies = compiled('permit(principal, action == Action::"Get", resource is Counter);')
    assert decide(policies, sender(), Get()).allowed
    assert decide(policies, sender(), Get()).reason == "permitted by p.cedar:1"
    assert not decide(policies, sender(), Get(), "Store").allowed


def test_a_subclass_does_not_enter_through_its_bases_permit() -> None:
    policies = compiled('permit(principal, action == Action::"Add", resource);')
    assert decide(policies, sender(team="x"), Add(1)).allowed
    denied = decide(policies, sender(team="x"), AddTwice(1))
    assert not denied.allowed
    assert denied.reason == "no permit: nothing lets others send 'AddTwice' to Counter"


def test_a_forbid_counts_more_than_any_permit_and_is_named() -> None:
    policies = compiled(
        'permit(principal, action, resource);\n@id("not-them")\n'
        "forbid(principal, action, resource is Counter)\nunless { principal has level && principal.level > 2 };"
    )
    assert decide(policies, sender(level=3), Get()).allowed
    denied = decide(policies, sender(team="x"), Add(1))
    assert denied == Decision(
        allowed=False,
        policies=("not-them",),
        errors=(),
        reason="forbidden by not-them (p.cedar:2): !((principal has level) && (principal.level > 2));"
        " not proven: principal.level",
        credentials=frozenset({b"{'team': 'x'}"}),
        generation=1,
    )
    assert decide(policies, sender(), Get(), "Store").allowed


def test_hiding_an_attribute_helps_nobody_past_a_forbid_under_unless() -> None:
    text = "forbid(principal, action, resource is Counter) unless { principal has level && principal.level > 2 };"
    policies = compiled(text)
    for attributes in ({}, {"level": 1}, {"level": "9"}):
        assert not decide(policies, sender(team="x", **attributes), Add(1)).allowed
    assert decide(policies, sender(team="x", level=3), Add(1)).allowed


@pytest.mark.parametrize(
    "text",
    [
        'forbid(principal, action == Action::"Add", resource) when { context.message.amount * 4 > 9 };',
        (
            'forbid(principal, action == Action::"Add", resource) when'
            " { principal has level && principal.level * 9223372036854775807 > context.message.amount };"
        ),
        "forbid(principal, action, resource is Counter) when { principal has level && principal.level + 9 > 9 };",
    ],
)
def test_a_forbid_that_fails_and_that_cedar_would_skip_denies(text: str) -> None:
    policies, principal, message = compiled(text), sender(team="x", level=2**63 - 1), Add(2**62)
    who = {"type": "Principal", "id": "I1"}
    request = {
        "principal": who,
        "action": {"type": "Action", "id": "Add"},
        "resource": {"type": "Counter", "id": "a"},
        "context": {"message": {"amount": 2**62}},
    }
    attributes = {"team": "x", "level": 2**63 - 1}
    direct = cedarpy.is_authorized(request, text + PERMIT_OF_ADD, [{"uid": who, "attrs": attributes, "parents": []}])
    assert direct.allowed, "Cedar alone lets it in"
    denied = decide(policies, principal, message)
    assert not denied.allowed
    assert "overflow" in denied.errors[0]
    assert denied.policies == ("Counter.add", "p.cedar:1")
    assert denied.reason.startswith("a policy could not be evaluated: ")


def test_an_early_denial_looks_at_no_message() -> None:
    policies = compiled(
        "forbid(principal, action, resource is Counter) unless { principal has level };"
        'permit(principal, action == Action::"AddTwice", resource)'
        " when { context.message.amount < 3 && principal has team };"
    )
    for principal in (sender(team="x"), sender(level=3)):
        found = policies.attribute_part(principal, "AddTwice", "Counter", "a", now=5.0)
        assert found is not None
        assert not found.allowed
    assert policies.attribute_part(sender(team="x", level=3), "AddTwice", "Counter", "a", now=5.0) is None


def test_a_forbid_about_the_message_leaves_it_to_the_second_step() -> None:
    policies = compiled('forbid(principal, action == Action::"Add", resource) when { context.message.amount > 5 };')
    assert policies.attribute_part(sender(team="x"), "Add", "Counter", "a", now=5.0) is None
    assert policies.attribute_part(sender(), "Add", "Counter", "a", now=5.0) is not None
    assert decide(policies, sender(team="x"), Add(5)).allowed
    denied = decide(policies, sender(team="x"), Add(6))
    assert denied.reason == "forbidden by p.cedar:1: context.message.amount > 5"
    assert policies.left_open("Add", "Counter") == ("p.cedar:1 forbids if context.message.amount > 5",)
    assert policies.left_open("Nothing", "Counter") == ()


def test_a_denial_explains_the_first_permits_and_counts_the_others() -> None:
    text = "\n".join(
        f"permit(principal, action, resource is Store) when {{ principal has level && principal.level > {number} }};"
        for number in range(5)
    )
    denied = decide(compiled(text), sender(level=0), Get(), "Store")
    assert denied.reason == (
        "no permit: p.cedar:1 needs principal.level > 0; p.cedar:2 needs principal.level > 1;"
        " p.cedar:3 needs principal.level > 2; and 2 more"
    )
    assert denied.policies == tuple(f"p.cedar:{number}" for number in range(1, 6))


def test_what_can_be_reached_is_told_with_what_forbids_it() -> None:
    policies = compiled(
        "permit(principal, action, resource is Counter)\nwhen { principal has level || context.is_local };"
        'permit(principal == Principal::"I7", action == Action::"Get", resource is Counter) when { context.is_local };'
        "permit(principal, action, resource is Store);"
        "permit(principal, action, resource is Store) when { principal has level };"
        "forbid(principal, action, resource is Store) unless { principal has level || context.is_local };"
    )
    found = {(each.agent, each.action): each.condition for each in policies.reachable()}
    assert found == {
        ("Counter", "Add"): 'principal.team == "x" or if (principal has level) || context.is_local',
        ("Counter", "AddTwice"): "(principal has level) || context.is_local",
        ("Counter", "Get"): "(principal has level) || context.is_local"
        ' or if principal == Principal::"I7" && context.is_local',
        ("Store", "Get"): "true, but never if !(principal has level) && !context.is_local",
    }


def test_sending_is_permitted_unless_forbidden() -> None:
    assert not compiled("permit(principal, action, resource);").restricts_sending
    free = compiled("forbid(principal, action, resource is Counter);")
    assert free.sending(sender(), sender(), now=5.0).allowed
    assert free.sending_forbidden() == ()
    policies = compiled(
        'forbid(principal, action == Action::"Send", resource)\nunless { resource has hipaa && resource.hipaa };'
        'permit(principal, action == Action::"Send", resource);'
    )
    assert policies.restricts_sending
    assert policies.sending_forbidden() == ("!((resource has hipaa) && resource.hipaa)",)
    here = Principal("I9", "I9")
    allowed = policies.sending(here, sender(expires=50.0, hipaa=True), now=5.0)
    assert (allowed.allowed, allowed.credentials, allowed.reason) == (
        True,
        {b"{'hipaa': True}"},
        "permitted by sending",
    )
    for number, recipient in enumerate((sender(), sender(hipaa=False), sender(team="x"))):
        denied = policies.sending(here, recipient, now=5.0)
        assert not denied.allowed
        assert denied.policies == ("p.cedar:1",)
        missing = "" if number == 1 else "; not proven: resource.hipaa"
        assert denied.reason == f"forbidden by p.cedar:1: !((resource has hipaa) && resource.hipaa){missing}"


def test_what_was_decided_about_sending_is_kept_until_the_first_expiry() -> None:
    text = 'forbid(principal, action == Action::"Send", resource) unless { resource has hipaa && resource.hipaa };'
    policies = compiled(text)
    here, there = Principal("I9", "I9"), sender(expires=50.0, hipaa=True)
    for now, allowed, evaluations in ((5.0, True, 1), (49.0, True, 1), (50.0, False, 2), (51.0, False, 2)):
        assert policies.sending(here, there, now=now).allowed is allowed
        assert policies.statistics().evaluations == evaluations
    timed = compiled('forbid(principal, action == Action::"Send", resource) when { context.time > 9 };')
    assert [timed.sending(here, there, now=now).allowed for now in (5.0, 15.0)] == [True, False]
    pinned = compiled(
        'forbid(principal, action == Action::"Send", resource) unless { context has relay && context.relay == "r" };'
    )
    assert [pinned.sending(here, there, now=5.0, relay=relay).allowed for relay in (None, "r")] == [False, True]


def test_a_policy_about_everything_is_about_sending_too() -> None:
    policies = compiled('forbid(principal, action, resource) unless { principal has team && principal.team == "x" };')
    assert not policies.sending(Principal("I9", "I9"), sender(), now=5.0).allowed
    assert policies.sending(evolve(sender(team="x"), id="I9"), sender(), now=5.0).allowed


def test_a_recipient_that_cedar_cannot_hold_is_sent_nothing() -> None:
    policies = compiled('forbid(principal, action == Action::"Send", resource) when { false };')
    denied = policies.sending(sender(), evolve(sender(), id="\ud800"), now=5.0)
    assert not denied.allowed
    assert denied.errors
