"""The rewrite by which attributes only add rights, against a model that is too small to be wrong."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, combinations, product

import cedarpy
import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from autonomy_trio.trust.allow import parse_allow, permit, policy_set_json
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.attributes import AttributeValue
from autonomy_trio.trust.expression import (
    attributes_in,
    conjuncts_of,
    message_fields_in,
    paths_in,
    reads_context,
)
from autonomy_trio.trust.grants import Grant
from autonomy_trio.trust.policy import Policies, Principal

Shown = Mapping[str, AttributeValue]


@frozen
class Ping:
    pass


@frozen
class Atom:
    """A condition without connectives: its text, what it reads, and what it says when all of that is there."""

    text: str
    reads: frozenset[str]
    holds: Callable[[Shown], bool]

    def allows(self, shown: Shown, negated: bool) -> bool:
        return self.holds(shown) if self.reads <= shown.keys() else negated


@frozen
class Not:
    inner: "Tree"

    @property
    def text(self) -> str:
        return f"!({self.inner.text})"

    def allows(self, shown: Shown, negated: bool) -> bool:
        return not self.inner.allows(shown, not negated)


@frozen
class Both:
    operator: str
    left: "Tree"
    right: "Tree"

    @property
    def text(self) -> str:
        return f"({self.left.text}) {self.operator} ({self.right.text})"

    def allows(self, shown: Shown, negated: bool) -> bool:
        combine = all if self.operator == "&&" else any
        return combine((self.left.allows(shown, negated), self.right.allows(shown, negated)))


Tree = Atom | Not | Both


def atom(text: str, reads: str, holds: Callable[[Shown], object]) -> Atom:
    return Atom(text, frozenset(reads.split()), lambda shown: bool(holds(shown)))


ATOMS = [
    atom('principal.team == "x"', "team", lambda p: p["team"] == "x"),
    atom('principal.team != "x"', "team", lambda p: p["team"] != "x"),
    atom('principal["team"] like "x*"', "team", lambda p: p["team"].startswith("x")),
    atom('["x", "z"].contains(principal.team)', "team", lambda p: p["team"] in {"x", "z"}),
    atom("principal has team", "team", lambda p: True),
    atom("principal.cleared", "cleared", lambda p: p["cleared"]),
    atom("principal.level > 1", "level", lambda p: p["level"] > 1),
    atom("principal.level * 2 - 1 <= 1", "level", lambda p: p["level"] * 2 - 1 <= 1),
    atom('principal.roles.contains("a")', "roles", lambda p: "a" in p["roles"]),
    atom('principal.roles.containsAny(["a", "b"])', "roles", lambda p: p["roles"] & {"a", "b"}),
    atom('["a"].containsAll(principal.roles)', "roles", lambda p: p["roles"] <= {"a"}),
    atom("principal.roles.isEmpty()", "roles", lambda p: not p["roles"]),
    atom("principal.roles.contains(principal.team)", "roles team", lambda p: p["team"] in p["roles"]),
    atom('(principal.team == "x") == principal.cleared', "team cleared", lambda p: (p["team"] == "x") == p["cleared"]),
    atom('(principal has level && principal.team == "x") == false', "level team", lambda p: p["team"] != "x"),
    atom('principal.id == "I1"', "", lambda p: True),
    atom('principal == Principal::"I2"', "", lambda p: False),
    atom("principal is Principal", "", lambda p: True),
    atom("context.is_local", "", lambda p: False),
    atom("context.time == 5", "", lambda p: True),
    atom("true", "", lambda p: True),
]
TREES = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.builds(Not, inner) | st.builds(Both, st.sampled_from(["&&", "||"]), inner, inner),
    max_leaves=8,
)
ATTRIBUTES = st.fixed_dictionaries(
    {
        "team": st.sampled_from(["x", "y", "a"]),
        "cleared": st.booleans(),
        "level": st.integers(0, 3),
        "roles": st.frozensets(st.sampled_from(["a", "b", "x"])),
    }
)


def subsets(names: Shown) -> Iterator[Shown]:
    for some in chain.from_iterable(combinations(names, size) for size in range(len(names) + 1)):
        yield {name: names[name] for name in some}


def decider(text: str) -> Callable[[Shown], bool]:
    policies = Policies.compile([Grant("Echo", "ping", ("Ping",), (Ping,), text)], Anchors.of_self(bytes(32)))

    def allowed(shown: Shown) -> bool:
        decision = policies.decide(Principal("I1", "I1", shown), "Ping", "Echo", "echo", Ping(), now=5.0)
        assert decision.errors == ()
        return decision.allowed

    return allowed


def as_written(text: str, shown: Shown) -> bool:
    """What Cedar says to a text that was not rewritten."""
    attributes = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in shown.items()}
    principal = {"type": "Principal", "id": "I1"}
    request = {
        "principal": principal,
        "action": {"type": "Action", "id": "Ping"},
        "resource": {"type": "Echo", "id": "echo"},
        "context": {"time": 5, "is_local": False},
    }
    entities = [{"uid": principal, "attrs": {**attributes, "id": "I1", "node": "I1"}, "parents": []}]
    return cedarpy.is_authorized(request, f"permit(principal, action, resource) when {{ {text} }};", entities).allowed


@settings(max_examples=150)
@given(TREES, ATTRIBUTES)
def test_a_missing_attribute_never_helps_to_allow(tree: Tree, attributes: Shown) -> None:
    allowed = decider(tree.text)
    verdicts = [(shown.keys(), allowed(shown)) for shown in subsets(attributes)]
    for fewer, with_fewer in verdicts:
        for more, with_more in verdicts:
            if fewer <= more:
                assert with_more or not with_fewer, f"showing {more - fewer} as well took a right away"


@settings(max_examples=150)
@given(TREES, ATTRIBUTES)
def test_the_rewrite_says_what_the_model_says(tree: Tree, attributes: Shown) -> None:
    allowed = decider(tree.text)
    for shown in subsets(attributes):
        assert allowed(shown) is tree.allows(shown, negated=False)


@settings(max_examples=100)
@given(TREES, ATTRIBUTES)
def test_with_every_attribute_shown_the_rewrite_changes_nothing(tree: Tree, attributes: Shown) -> None:
    assert decider(tree.text)(attributes) is as_written(tree.text, attributes)


def test_truth_tables_of_every_nesting_of_two_atoms() -> None:
    leaves: list[Tree] = [ATOMS[0], ATOMS[5]]
    trees = leaves
    for _ in range(2):
        pairs = [Both(operator, *sides) for operator in ("&&", "||") for sides in product(trees, repeat=2)]
        trees = [*leaves, *map(Not, trees), *pairs]
    assert len(trees) == 2 + 12 + 2 * 12**2
    teams: list[Shown] = [{}, {"team": "x"}, {"team": "y"}]
    clearances: list[Shown] = [{}, {"cleared": True}, {"cleared": False}]
    for tree in trees:
        allowed = decider(tree.text)
        for team, clearance in product(teams, clearances):
            shown = {**team, **clearance}
            assert allowed(shown) is tree.allows(shown, negated=False), (tree.text, shown)


def rewritten(text: str) -> str:
    """The rewrite as Cedar writes it, without its many brackets."""
    (conjunct,) = parse_allow(text).conjuncts
    policy = permit([conjunct], ["Ping"], "Echo")
    written = cedarpy.policies_from_json_str(policy_set_json({"policy": policy}))
    return written.partition("when { ")[2].removesuffix(" };").replace("(", "").replace(")", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("principal.a", "if principal has a then principal.a else false"),
        ("!principal.a", "!if principal has a then principal.a else true"),
        ("!!principal.a", "!!if principal has a then principal.a else false"),
        (
            "principal.a == principal.b",
            "if principal has a then if principal has b then principal.a == principal.b else false else false",
        ),
        ("principal.id == principal.node", "principal.id == principal.node"),
        (
            "principal.a || !principal.b",
            "if principal has a then principal.a else false || !if principal has b then principal.b else true",
        ),
    ],
)
def test_each_atom_asks_first_whether_its_attributes_are_there(text: str, expected: str) -> None:
    assert rewritten(text) == expected


def test_conjuncts_keep_their_order_however_they_are_bracketed() -> None:
    texts = ["a && b && c && d", "a && (b && (c && d))", "(a && b) && (c && d)"]
    for text in texts:
        whole = parse_allow(text.translate({ord(name): f"principal.{name}" for name in "abcd"}))
        assert [sorted(attributes_in(conjunct)) for conjunct in whole.conjuncts] == [["a"], ["b"], ["c"], ["d"]]
    assert [dict(each) for each in conjuncts_of({"Value": True})] == [{"Value": True}]


def test_what_is_read_is_found_wherever_it_stands() -> None:
    text = '[principal.a, "x"].contains(context.message.b.c) && principal has d || (resource is Echo in Echo::"e")'
    (conjunct,) = parse_allow(text).conjuncts
    assert list(paths_in(conjunct)) == [
        ("principal", "a"),
        ("context", "message", "b", "c"),
        ("principal", "d"),
        ("resource",),
    ]
    assert attributes_in(conjunct) == {"a", "d"}
    assert message_fields_in([conjunct]) == {"b"}
    assert reads_context(conjunct, "message")
    assert not reads_context(conjunct, "time")


def test_the_message_as_a_whole_is_all_of_its_fields() -> None:
    (conjunct,) = parse_allow("context.message == context.message").conjuncts
    assert message_fields_in([conjunct]) is None
    (conjunct,) = parse_allow("context == context").conjuncts
    assert message_fields_in([conjunct]) is None
    assert reads_context(conjunct, "message")
    assert reads_context(conjunct, "time")
