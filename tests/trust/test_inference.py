import pytest

from autonomy_trio.errors import PolicyError
from autonomy_trio.trust.allow import parse_allow
from autonomy_trio.trust.inference import Reading, settle_types
from autonomy_trio.trust.schema import BOOLEAN, LONG, STRING, Record, SetOf

MESSAGE = Record({"amount": LONG, "name": STRING, "ok": BOOLEAN, "names": SetOf(STRING), "item": Record({"id": LONG})})


def reading(text: str) -> Reading:
    condition = parse_allow(text)
    return Reading(condition.place, condition.conjuncts, (MESSAGE,))


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("principal.a", {"a": "bool"}),
        ("!(principal.a || principal.b)", {"a": "bool", "b": "bool"}),
        ('principal.a == "x"', {"a": "string"}),
        ('"x" != principal.a', {"a": "string"}),
        ("principal.a == 1", {"a": "long"}),
        ("principal.a == true", {"a": "bool"}),
        ("principal.a == (1 < 2)", {"a": "bool"}),
        ("principal.a == (context has relay)", {"a": "bool"}),
        ("principal.a == context.message.amount", {"a": "long"}),
        ("principal.a == context.message.item.id", {"a": "long"}),
        ("principal.a == context.is_local", {"a": "bool"}),
        ("principal.a == principal.node", {"a": "string"}),
        ('principal.a == ["x"]', {"a": "set"}),
        ("principal.a == context.message.names", {"a": "set"}),
        ("principal.a < context.time", {"a": "long"}),
        ("principal.a + 1 == principal.b", {"a": "long", "b": "long"}),
        ("-principal.a * 2 > 1", {"a": "long"}),
        ('principal.a like "x*"', {"a": "string"}),
        ('principal.a.contains("x")', {"a": "set"}),
        ("principal.a.contains(principal.b)", {"a": "set", "b": "string"}),
        ("[1, 2].contains(principal.a)", {"a": "long"}),
        ('["x", principal.b].contains(principal.a)', {"a": "string", "b": "string"}),
        ("[principal.a] == context.message.names", {"a": "string"}),
        ("[principal.a, principal.b].contains(principal.c)", dict.fromkeys("abc", "string")),
        ("principal.a.containsAll(principal.b)", {"a": "set", "b": "set"}),
        ("principal.a.containsAny([1])", {"a": "set"}),
        ("context.message.names.containsAny([principal.a])", {"a": "string"}),
        ("principal.a.isEmpty()", {"a": "set"}),
        ("principal.a == principal.b && principal.b == principal.c && principal.c > 1", dict.fromkeys("abc", "long")),
        ("principal.a == principal.b", {"a": None, "b": None}),
        ("principal has a", {"a": None}),
        ('principal == Principal::"x"', {}),
        ("principal.a.b == 1", {"a": "long"}),
        ('(principal.a like "x") == true', {"a": "string"}),
        ("principal.a == resource", {"a": None}),
        ('principal.a == Principal::"x"', {"a": None}),
        ("principal.a in resource", {"a": None}),
    ],
)
def test_an_attribute_has_the_type_of_what_it_is_compared_with(text: str, types: dict[str, str | None]) -> None:
    assert settle_types([reading(text)], {}) == types


def test_the_anchors_types_come_first() -> None:
    assert settle_types([reading("principal.a == principal.b")], {"a": "long"}) == {"a": "long", "b": "long"}


def test_one_attribute_with_two_types_in_one_condition_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"principal\.a is used as a string here and as a long: an attribute has one"):
        settle_types([reading('principal.a == 1 || principal.a == "x"')], {})


def test_one_attribute_with_two_types_in_two_conditions_is_refused_with_both_places() -> None:
    with pytest.raises(PolicyError) as caught:
        settle_types([reading("principal.a == 1"), reading("principal.a")], {})
    assert str(caught.value) == (
        "allow='principal.a': principal.a is used as a bool here and as a long by allow='principal.a == 1':"
        " an attribute has one type"
    )


def test_another_type_than_the_anchors_is_refused() -> None:
    with pytest.raises(PolicyError, match="is used as a long here and as a set by the anchors"):
        settle_types([reading("principal.a == 1")], {"a": "set"})
