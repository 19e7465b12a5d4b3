"""What the short form takes and refuses, and that no text is more than one condition."""

from contextlib import suppress

import cedarpy
import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from autonomy_trio.errors import PolicyError
from autonomy_trio.trust.allow import MOST_BRACKETS, MOST_TEXT, check_allow, parse_allow


@frozen
class Detail:
    code: int
    ratio: float = 1.0


@frozen
class Add:
    amount: int
    detail: Detail
    tags: frozenset[str] = frozenset()
    note: str | None = None
    weight: float = 0.0
    data: bytes = b""


@frozen
class Empty:
    pass


@pytest.mark.parametrize(
    "text",
    [
        'principal.team == "payments" && context.message.amount <= 100',
        "true",
        "false",
        'principal has team && principal["team"] like "pay*"',
        '!(principal has team) || principal.roles.contains("x")',
        "context.message has note && context.message.note == principal.name",
        "context.message.detail.code == 3",
        'context.message.tags.containsAll(["a"]) && !context.message.tags.isEmpty()',
        'context has relay && context.relay == "x" && context.time < principal.until && !context.is_local',
        "resource is Counter",
        'resource == Counter::"counter" || resource is Other in Third::"x"',
        'principal == Principal::"I5c"',
        'principal is Principal && action == Action::"Add"',
        "principal.a == principal.b",
        "principal.level * 2 - 1 > -3",
        "true // a comment, }; and all",
        "\n  true\n  &&\n  true\n",
        " && ".join(["principal.cleared"] * 80),
        f"{'(' * MOST_BRACKETS}true{')' * MOST_BRACKETS}",
        '"}; permit(principal, action, resource);" != "x"',
    ],
)
def test_a_condition_in_cedar_is_taken(text: str) -> None:
    check_allow(text, Add)


@pytest.mark.parametrize(
    "text",
    [
        "true }; permit(principal, action, resource) when { true",
        "true }; forbid(principal, action, resource) when { true",
        "true }; permit(principal == ?principal, action, resource) when { true",
        "true } when { true",
        "true } unless { false",
        'true };\n@id("x") permit(principal, action, resource) when { true',
    ],
)
def test_a_text_cannot_open_a_policy_or_a_clause_of_its_own(text: str) -> None:
    with pytest.raises(PolicyError, match="is more than one condition"):
        parse_allow(text)


WORDS = (
    "true permit forbid (principal,action,resource) when unless principal .a if then else == && || ! ( ) { } [ ] ; 1"
)
PIECES = st.sampled_from([*WORDS.split(), " ", "\n", "//", "/*", "*/", "'", '"', "\\", "@id", "?principal", "é"])


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=30))
def test_any_text_is_one_condition_or_refused(text: str) -> None:
    with suppress(PolicyError):
        condition = parse_allow(text)
        in_brackets = f"permit(principal, action, resource) when {{ true && (\n{condition.text}\n) }};"
        assert len(cedarpy.PolicySet.from_str(in_brackets)) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty: write a condition, or true to let every sender in"),
        (" \n", "is empty"),
        ('principal.team = "x"', "does not parse: '=' is not a valid operator in Cedar; write one condition in Cedar"),
        ("principal.team ==", "does not parse: it ends too early"),
        ("(true", "does not parse: it ends too early"),
        ("true)", "does not parse: unexpected token `)`"),
        ("true; true", "does not parse: unexpected token `;`"),
        ("true; permit(principal, action, resource)", "does not parse"),
        ("context.message.amount <= 1.5", "does not parse"),
        ("9223372036854775808 > 1", "is too large"),
        ("principal == ?principal", "does not parse"),
        ("\ud800", "does not parse"),
        ("if true then true else false", "`if` is not for the short form: write it with && and ||"),
        ("true && !(if principal.a then true else false)", "`if` is not for the short form"),
        ('ip("1.2.3.4").isLoopback()', "`isLoopback` is not for the short form"),
        ("{a: 1} == {a: 1}", "`Record` is not for the short form"),
        ('principal.hasTag("a")', "`hasTag` is not for the short form"),
        ("principal", "`principal` as a whole can only be compared"),
        ("[principal].contains(principal)", "`principal` as a whole can only be compared"),
        ("{a: principal}.a has team", "begin with principal, resource or context"),
        ('!(Principal::"I5c" has team)', "begin with principal, resource or context"),
        ('principal has "two words"', "'two words' is not a name for an attribute"),
        ("true || " * 200 + "true", "is nested too deeply: shorten it"),
        ("true||" * 300 + "true", "is nested too deeply: shorten it"),
        ("principal" + ".a" * 900, "is nested too deeply: shorten it"),
        ("(" * (MOST_BRACKETS + 1) + "true" + ")" * (MOST_BRACKETS + 1), "brackets: shorten it"),
        ("true" + " " * MOST_TEXT, "is longer than 2,048 characters"),
        ("context.message.amont == 1", "context.message has no field 'amont': did you mean 'amount'?"),
        ("context.message has amont", "context.message has no field 'amont': did you mean 'amount'?"),
        ("context.message.detail.cod == 1", "context.message.detail has no field 'cod': did you mean 'code'?"),
        ("context.message.zzz == 1", "there is amount, detail, note, tags"),
        ("context.tme == 1", "context has no field 'tme': did you mean 'time'?"),
        ("context.message.weight == 1", "context.message.weight is a float, which Cedar has no type for: leave it out"),
        ("context.message has data", "context.message.data is a bytes, which Cedar has no type for: leave it out"),
        ("context.message.detail.ratio == 1", "context.message.detail.ratio is a float"),
        ('context.message.amount == "x"', "an integer and a string are compared: compare two of one type"),
        ('context.message.amount < "x"', "there is a string where an integer is needed"),
        ("context.message.amount", "there is an integer where a boolean is needed"),
        ("context.message.detail", "there is a record where a boolean is needed"),
        ("context.message.tags", "there is a set where a boolean is needed"),
        ("context.message.tags.contains(3)", "an integer and a string are compared"),
        ("context.message.amount in resource", "there is an integer where an agent is needed"),
        ("context.message.tags == []", "empty set literals are forbidden in policies"),
        (
            'context.message.note == "x"',
            "context.message.note may be absent: ask first, as in context.message has note && …",
        ),
        ('context.relay == "x"', "context.relay may be absent: ask first, as in context has relay && …"),
        ('principal.a == 1 && principal.a == "x"', "principal.a is used as a string here and as a long"),
        ("resource.owner == 1", "attribute `owner` on entity type `Receiver` not found"),
        ('resource == a::b::"x"', "unrecognized entity type `a::b`"),
    ],
)
def test_a_text_that_cannot_be_right_is_refused_in_one_sentence_that_names_it(text: str, complaint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        check_allow(text, Add)
    sentence = str(caught.value)
    assert sentence.startswith(("allow='", 'allow="'))
    assert complaint in sentence
    assert "\n" not in sentence


def test_a_message_without_fields_is_said_to_have_none() -> None:
    with pytest.raises(PolicyError, match=r"context\.message has no field 'amount': there is none"):
        check_allow("context.message.amount == 1", Empty)


def test_a_rewrite_that_cedar_cannot_read_is_refused() -> None:
    text = f"[{', '.join(f'principal.a{number}' for number in range(70))}].contains(1)"
    with pytest.raises(PolicyError, match="is nested too deeply: shorten it"):
        check_allow(text, Add)


def test_an_error_names_the_handler_where_it_is_known_and_shows_the_beginning_of_a_long_text() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_allow("true  &&\n" * 40, "Counter.add")
    assert str(caught.value).startswith("Counter.add: allow='true && true && ")
    assert "…' does not parse" in str(caught.value)
