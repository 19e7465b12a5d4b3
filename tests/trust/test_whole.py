"""Files of whole policies: what is refused, with file, line and mend, and what hiding an attribute can evade."""

from pathlib import Path

import pytest
from attrs import frozen

from autonomy_trio.errors import PolicyError
from autonomy_trio.trust.attributes import AttributeType
from autonomy_trio.trust.grants import Grant, compile_grants
from autonomy_trio.trust.whole import (
    MOST_FILE,
    MOST_POLICIES,
    MOST_POLICY,
    evadable,
    load_policies,
    read_policies,
)


@frozen
class Add:
    amount: int
    note: str | None = None
    weight: float = 0.0


@frozen
class AddTwice(Add):
    times: int = 2


@frozen
class Get:
    pass


@frozen
class Send:
    pass


GRANTS = [
    Grant("Counter", "add", ("Add",), (Add,), "context.message.amount < 3"),
    Grant("Counter", "add_twice", ("AddTwice",), (AddTwice,), None),
    Grant("Counter", "get", ("Get",), (Get,), None),
    Grant("Store", "get", ("Get",), (Get,), 'principal.team == "x"'),
]
DECLARED: dict[str, AttributeType] = {"team": "string", "level": "long", "roles": "set", "cleared": "bool"}


def refusal(text: str, *grants: Grant, declared: dict[str, AttributeType] | None = None) -> str:
    with pytest.raises(PolicyError) as caught:
        compile_grants([*GRANTS, *grants], declared, read_policies(text, "p.cedar"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_read_policy_by_policy_each_with_its_line_and_name() -> None:
    text = """
// what everybody may; with a semicolon
permit(principal, action == Action::"Get", resource is Store);  permit (principal, action, resource == Counter::"; //");

@id("late") @note("any; thing")
forbid(principal, action, resource)
  when { principal.id == "a\\";b" }
  unless { principal.id == "c" };
"""
    first, second, third = read_policies(text, "p.cedar")
    assert [(each.id, each.place, each.effect) for each in (first, second, third)] == [
        ("p.cedar:3", "p.cedar:3", "permit"),
        ("p.cedar:3 (2)", "p.cedar:3 (2)", "permit"),
        ("late", "p.cedar:5", "forbid"),
    ]
    assert len(third.clauses) == 2
    assert third.at("unless") == "p.cedar:8"
    assert third.at("nothing") == "p.cedar:5"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "p.cedar has no policy: write one, as in permit(principal, action, resource);"),
        ("// nothing but words\n", "p.cedar has no policy"),
        ("\n\npermit(principal, action, resource)", "p.cedar:3: the policy that begins 'permit(principal, action"),
        ("permit(principal, action, resource)", "has no end: write ; after it"),
        ("permit(principal, actoin, resource);", "does not parse: found an invalid variable in the policy scope: acto"),
        ('\npermit(principal, action, resource) when { "a };', "p.cedar:2: "),
        ("perm(principal, action, resource);", "does not parse: invalid policy effect: perm"),
        (";", "does not parse"),
        ("permit(principal == ?principal, action, resource);", "p.cedar:1: this is a template: name whom it is about"),
        (f"permit(principal, action, resource) when {{ {'(' * 101}true{')' * 101} }};", "nested deeper than 100"),
        (f"permit(principal, action, resource); {' ' * 9}// x\n\n forbid" + "x" * MOST_POLICY + ";", "p.cedar:3: "),
        (
            f"permit(principal, action, resource) when {{ {'true || ' * 90} true }};",
            "nested too deeply: make two of it",
        ),
        (f"permit(principal, action, resource) when {{ {'true || ' * 1500} true }};", "is nested too deeply"),
        (f"permit(principal, action, resource) when {{ principal{'.a' * 4000} == 1 }};", "is nested too deeply"),
        (
            '@id("a") permit(principal, action, resource);\n@id("a") forbid(principal, action, resource);',
            "p.cedar:2: p.cedar:1 has the @id 'a' too: give one another",
        ),
        ("permit(principal, action, resource);\n" * (MOST_POLICIES + 1), "p.cedar has more than 1,000 policies"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_policies(text, "p.cedar")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "permit(principal, action, resource)\nwhen {\n  principal has taem };",
            "p.cedar:3: no anchor may assert 'taem': did you mean 'team'?",
        ),
        (
            'forbid(principal, action == Action::"Send", resource)\nunless { resource has taem };',
            "p.cedar:2: no anchor may assert 'taem': did you mean 'team'?",
        ),
        (
            '\npermit(principal,\n  action == Action::"Ad",\n  resource);',
            "p.cedar:3: there is no message 'Ad': did you mean 'Add'?",
        ),
        (
            'permit(principal, action in [Action::"Add", Action::"Gat"], resource);',
            "p.cedar:1: there is no message 'Gat': did you mean 'Get'?",
        ),
        (
            "permit(principal, action, resource is Conter);",
            "p.cedar:1: there is no agent class 'Conter': did you mean 'Counter'?",
        ),
        (
            'permit(principal, action, resource == Stroe::"a");',
            "p.cedar:1: there is no agent class 'Stroe': did you mean 'Store'?",
        ),
        (
            'permit(principal, action, resource)\nunless { resource in Stroe::"a" };',
            "p.cedar:2: there is no agent class 'Stroe': did you mean 'Store'?",
        ),
        (
            'permit(principal == Princpal::"a", action, resource);',
            "p.cedar:1: there is no agent class 'Princpal': did you mean 'Principal'?",
        ),
        (
            'permit(principal, action in [Action::"Add", Action::"Send"], resource is Store);',
            "p.cedar:1: this is about nothing: Store takes no Add and no Send",
        ),
        (
            'permit(principal, action == Action::"Add", resource) when {\n context.message.amont < 3 };',
            "p.cedar:2: context.message has no field 'amont': did you mean 'amount'?",
        ),
        (
            "permit(principal, action, resource is Counter) when { context.message has amont };",
            "p.cedar:1: context.message has no field 'amont': did you mean 'amount'?",
        ),
        (
            "forbid(principal, action, resource is Counter) when { context.message has weight };",
            "p.cedar:1: context.message.weight is a float, which Cedar has no type for: leave it out of the condition",
        ),
        (
            "permit(principal, action, resource is Counter) when { context.message.amount < 3 };",
            'p.cedar:1: attribute `message.amount` in context for Action::"Get" not found',
        ),
        (
            'forbid(principal, action, resource) unless { principal.team == "x" };',
            "p.cedar:1: team may not be proven: ask first, as in principal has team && …, or resource has …",
        ),
        (
            'permit(principal, action == Action::"Add", resource) when { context.message.amount == "3" };',
            "p.cedar:1: an integer and a string are compared: compare two of one type",
        ),
        (
            "permit(principal, action, resource) when { principal has team && principal.team == 3 };",
            (
                "p.cedar:1: principal.team is used as a long here and as a string by the anchors: an attribute has one"
                " type"
            ),
        ),
        (
            'permit(principal, action, resource) when { action == Action::"Foo" };',
            'p.cedar:1: unrecognized action `Action::"Foo"`',
        ),
        (
            '@id("Counter.add") permit(principal, action, resource);',
            "p.cedar:1: Counter.add is called 'Counter.add' too: give the policy another @id",
        ),
    ],
)
def test_what_does_not_exist_stops_the_start_with_place_and_suggestion(text: str, sentence: str) -> None:
    assert refusal(text, declared=DECLARED) == sentence


def test_the_types_of_attributes_are_those_of_both_forms_together() -> None:
    text = 'forbid(principal, action == Action::"Send", resource) unless { resource has team && resource.team == 3 };'
    assert refusal(text) == (
        "p.cedar:1: principal.team is used as a long here and as a string by Store.get:"
        " allow='principal.team == \"x\"': an attribute has one type"
    )
    policies = read_policies(
        'forbid(principal, action == Action::"Send", resource) unless { resource has hipaa && resource.hipaa };'
        "permit(principal, action, resource) when { if principal has level then principal.level > 1 else false };"
        "permit(principal, action, resource) when { principal has other && resource has none };"
        'permit(principal, action, resource) when { ip("10.0.0.1").isInRange(ip("10.0.0.0/8")) };'
        'permit(principal, action, resource) when { {a: 1}.a == 1 && {a: "x"} == {a: principal.id} };'
        "permit(principal, action, resource) when"
        " { principal has age && (if context.is_local then principal.age else 3) == (if true then 1 else 2) };",
        "p.cedar",
    )
    _, types = compile_grants(GRANTS, None, policies)
    assert types == {
        "team": "string",
        "hipaa": "bool",
        "level": "long",
        "other": None,
        "none": None,
        "age": "long",
    }


def test_a_message_that_is_called_as_sending_is_refused_beside_whole_policies() -> None:
    taken = Grant("Post", "send", ("Send",), (Send,), None)
    assert refusal("permit(principal, action, resource);", taken) == (
        "Post takes a message called 'Send', which policies cannot tell from sending: give it another name with"
        " @message(name=…)"
    )
    compile_grants([*GRANTS, taken], None)


def test_a_condition_on_a_field_that_some_messages_have_asks_first() -> None:
    condition = "context.message has times && context.message.times < 3"
    text = f"permit(principal, action, resource is Counter) when {{ {condition} }};"
    slices, _ = compile_grants(GRANTS, None, read_policies(text, "p.cedar"))
    assert slices.keys() == {("Counter", "Add"), ("Counter", "AddTwice"), ("Counter", "Get"), ("Store", "Get")}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('forbid(principal, action, resource) when { principal has team && principal.team == "x" };', "principal.team"),
        ('forbid(principal, action, resource) unless { principal has team && principal.team == "x" };', ""),
        ('forbid(principal, action, resource) when { !(principal has team && principal.team == "x") };', ""),
        ("forbid(principal, action, resource) unless { !(principal has team) };", "principal.team"),
        ("forbid(principal, action, resource) unless { principal has a || principal has b };", ""),
        ("forbid(principal, action, resource) when { principal has a || principal has b };", "principal.a principal.b"),
        ("forbid(principal, action, resource) unless { (principal has team) == false };", "principal.team"),
        ("forbid(principal, action, resource) unless { (principal has team) == true };", "principal.team"),
        ("forbid(principal, action, resource) when { principal.id == principal.node };", ""),
        (
            "forbid(principal, action, resource) unless { if principal has a then principal.a == 1 else false };",
            "",
        ),
        (
            "forbid(principal, action, resource) unless { if principal has a then principal.a == 1 else true };",
            "principal.a",
        ),
        ("permit(principal, action, resource) when { principal has team };", ""),
        ('permit(principal, action, resource) when { principal has team && !(principal.team == "x") };', ""),
        (
            'forbid(principal, action, resource) unless { principal has a && !["x"].contains(principal.a) };',
            "",
        ),
        (
            'forbid(principal, action, resource) when { principal has a && !["x"].contains(principal.a) };',
            "principal.a",
        ),
        ("permit(principal, action, resource) unless { principal has banned };", "principal.banned"),
        ('forbid(principal, action == Action::"Send", resource) when { resource has rival };', "resource.rival"),
        ('forbid(principal, action == Action::"Send", resource) unless { resource has hipaa };', ""),
    ],
)
def test_a_policy_that_hiding_an_attribute_evades_is_found(text: str, names: str) -> None:
    (policy,) = read_policies(text, "p.cedar")
    assert " ".join(evadable(policy)) == names


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.cedar"
    with pytest.raises(PolicyError, match=r"p\.cedar cannot be read: No such file or directory"):
        load_policies(path)
    path.write_bytes(b"\xff")
    with pytest.raises(PolicyError, match=r"p\.cedar is not text in UTF-8: save it as such"):
        load_policies(path)
    path.write_bytes(b" " * (MOST_FILE + 1))
    with pytest.raises(PolicyError, match=r"p\.cedar is larger than 1,048,576 bytes: shorten it"):
        load_policies(path)
    path.write_text("permit(principal, action, resource);")
    assert [policy.place for policy in load_policies(path)] == ["p.cedar:1"]
