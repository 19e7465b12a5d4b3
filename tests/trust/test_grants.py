"""What stops a node's start: names and types that only the whole node can tell to be wrong."""

import pytest
from attrs import frozen

from autonomy_trio.errors import PolicyError
from autonomy_trio.messages import message
from autonomy_trio.trust.attributes import AttributeType
from autonomy_trio.trust.grants import Grant, compile_grants


@frozen
class Add:
    amount: int


@frozen
class AddTwice(Add):
    times: int


@message(name="Add")
@frozen
class OtherAdd:
    amount: str


DECLARED: dict[str, AttributeType] = {"team": "string", "level": "long", "roles": "set"}


def add(allow: str, agent: str = "Counter", handler: str = "add") -> Grant:
    return Grant(agent, handler, ("Add",), (Add,), allow)


def refusal(*grants: Grant, declared: dict[str, AttributeType] | None = None) -> str:
    with pytest.raises(PolicyError) as caught:
        compile_grants(grants, declared)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_misspelt_attribute_stops_the_start_with_a_suggestion() -> None:
    assert refusal(add('principal.taem == "x"'), declared=DECLARED) == (
        "Counter.add: allow='principal.taem == \"x\"': no anchor may assert 'taem': did you mean 'team'?"
    )
    assert "no anchor may assert 'xyz': there is level, roles, team" in refusal(
        add("principal has xyz"), declared=DECLARED
    )
    assert "no anchor may assert 'team': there is none" in refusal(add("principal has team"), declared={})


def test_without_an_anchors_file_any_attribute_may_be_read() -> None:
    _, types = compile_grants([add('principal.taem == "x" && principal has other')], None)
    assert types == {"taem": "string", "other": None}


def test_conflicting_literal_types_stop_the_start_with_both_places() -> None:
    sentence = refusal(add("principal.level == 3"), add('principal.level == "high"', "Store"))
    assert sentence == (
        "Store.add: allow='principal.level == \"high\"': principal.level is used as a string here and as a long by"
        " Counter.add: allow='principal.level == 3': an attribute has one type"
    )


def test_another_type_than_the_anchors_say_stops_the_start() -> None:
    sentence = refusal(add('principal.level == "high"'), declared=DECLARED)
    assert sentence.endswith("is used as a string here and as a long by the anchors: an attribute has one type")


def test_a_wrong_field_stops_the_start_with_the_handler() -> None:
    assert refusal(add("context.message.amont < 3")) == (
        "Counter.add: allow='context.message.amont < 3': context.message has no field 'amont': did you mean 'amount'?"
    )
    assert "an integer and a string are compared" in refusal(add('context.message.amount == "x"'))


def test_a_condition_must_fit_every_message_that_its_handler_takes() -> None:
    both = Grant("Counter", "add", ("Add", "AddTwice"), (Add, AddTwice), "context.message.times < 3")
    assert "context.message has no field 'times'" in refusal(both)
    fits = Grant("Counter", "add", ("Add", "AddTwice"), (Add, AddTwice), "context.message.amount < 3")
    slices, _ = compile_grants([fits], None)
    assert slices.keys() == {("Counter", "Add"), ("Counter", "AddTwice")}


def test_an_agent_class_that_does_not_exist_stops_the_start() -> None:
    assert "unrecognized entity type `Conter`" in refusal(add('resource == Conter::"x"'))
    compile_grants([add('resource == Counter::"x" && principal is Principal')], None)


def test_two_messages_with_one_wire_name_are_refused_with_both_classes() -> None:
    other = Grant("Store", "add", ("Add",), (OtherAdd,), "true")
    sentence = refusal(add("true"), other)
    assert "OtherAdd and" in sentence
    assert "are both 'Add' on the wire, so no policy can tell them apart: give one another name" in sentence


def test_one_message_class_in_two_agents_is_fine() -> None:
    slices, _ = compile_grants([add("true"), add("false", "Store")], None)
    assert slices.keys() == {("Counter", "Add"), ("Store", "Add")}


def test_two_agent_classes_with_one_name_are_refused() -> None:
    sentence = refusal(add("true"), add("false", handler="add_more"))
    assert sentence == (
        "Counter.add_more and Counter.add both take 'Add': of two agent classes with one name, give one another"
    )


def test_a_class_that_opens_nothing_is_not_opened_by_another_one_of_its_name() -> None:
    closed = Grant("Counter", "add_more", ("Add",), (Add,), None)
    for grants in ((add("true"), closed), (closed, add("true"))):
        assert "both take 'Add': of two agent classes with one name" in refusal(*grants)
    assert compile_grants([closed, add("true", "Store")], None)[0].keys() == {("Store", "Add")}


@pytest.mark.parametrize("name", ["Zähler", "like", "Principal", "Action", "__cedar"])
def test_an_agent_class_that_cedar_cannot_name_is_refused(name: str) -> None:
    assert f"{name}.add: a policy cannot speak of a class with this name" in refusal(add("true", name))


@pytest.mark.parametrize("name", ["Agent", "Set", "Long", "String", "Record", "Entity", "permit", "_Private"])
def test_an_agent_class_may_be_called_as_cedar_calls_its_types(name: str) -> None:
    slices, _ = compile_grants([add('principal.team == "x" && context.message.amount > 1', name)], None)
    assert slices.keys() == {(name, "Add")}


def test_no_grants_are_no_policies() -> None:
    assert compile_grants([], None) == ({}, {})


def test_clauses_read_as_they_were_written() -> None:
    texts = [
        'principal.team == "(x)"',
        "context.message.amount <= 100",
        'principal.roles.containsAny(["a", "b"])',
        "!(principal.level > 3)",
    ]
    slices, _ = compile_grants([add(" && ".join(texts))], None)
    clauses = slices["Counter", "Add"].permits[0].clauses
    assert [clause.text for clause in clauses] == [*texts[:3], "!(principal.level > 3)"]
    assert [clause.reads_message for clause in clauses] == [False, True, False, False]
    assert [sorted(clause.proven) for clause in clauses] == [
        ["principal.team"],
        [],
        ["principal.roles"],
        ["principal.level"],
    ]
