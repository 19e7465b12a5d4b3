from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.trust.anchors import (
    DEFAULT_LONGEST_VALIDITY,
    Anchor,
    Anchors,
    format_duration,
    parse_duration,
    proven_attributes,
    to_toml,
)
from autonomy_trio.trust.credentials import AttributeValue, Credential

ONE, OTHER = bytes(range(32)), bytes(range(1, 33))
HEAD = f'[[anchor]]\nidentifier = "I{ONE.hex()}"\n'
SOUND = HEAD + 'attributes = { team = "string" }\n'


Load = Callable[[str | bytes], Anchors]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str | bytes) -> Anchors:
        path = tmp_path / "anchors.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Anchors.load(path)

    return load


def credential(issuer: bytes = ONE, **attributes: AttributeValue) -> Credential:
    return Credential(issuer, 0, OTHER, 0, bytes(16), attributes, 0, 1)


# The default


def test_without_a_file_one_trusts_oneself_for_any_attribute_and_nobody_else() -> None:
    anchors = Anchors.of_self(ONE)
    assert anchors.get(ONE) == Anchor(ONE, None, DEFAULT_LONGEST_VALIDITY, None)
    assert anchors.get(OTHER) is None
    assert anchors.attribute_types is None


# The file


def test_a_file_lists_authorities_and_what_each_may_assert(load: Load) -> None:
    anchors = load(
        HEAD
        + 'attributes = { team = "string", level = "long", cleared = "bool", roles = "set" }\n'
        + 'longest_validity = "12h"\nrevocation_staleness = "90s"\n'
        + f'[[anchor]]\nidentifier = "I{OTHER.hex()}"\n[anchor.attributes]\nteam = "string"\nsite = "string"\n'
    )
    kinds = {"team": "string", "level": "long", "cleared": "bool", "roles": "set"}
    assert anchors.get(ONE) == Anchor(ONE, kinds, 12 * 3600, 90)
    assert anchors.get(OTHER) == Anchor(OTHER, {"team": "string", "site": "string"}, DEFAULT_LONGEST_VALIDITY, None)
    assert anchors.get(bytes(32)) is None
    assert anchors.attribute_types == kinds | {"site": "string"}


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("2m", 120), ("3h", 10_800), ("30d", 2_592_000)])
def test_a_time_is_a_number_and_a_unit(load: Load, text: str, seconds: int) -> None:
    assert load(f'{SOUND}longest_validity = "{text}"').get(ONE).longest_validity == seconds


@pytest.mark.parametrize(
    "value", ['""', '"1"', '"h"', '"0h"', '"1w"', '"-1h"', '"1h "', '"1234567890s"', "3600", "true"]
)
@pytest.mark.parametrize("key", ["longest_validity", "revocation_staleness"])
def test_what_is_not_a_time_is_refused_with_the_place(load: Load, key: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf'anchors.toml, anchor 1, {key}: .* as in "1h"'):
        load(f"{SOUND}{key} = {value}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r"has no \[\[anchor\]\] table: add one"),
        ("anchor = 1", r"has no \[\[anchor\]\] table"),
        ("anchor = []", r"has no \[\[anchor\]\] table"),
        ("anchor = [1]", "anchor 1: this is not a table"),
        ("[anchor]", r"has no \[\[anchor\]\] table"),
        ("[[anchors]]", r"nothing called `anchors` here: write \[\[anchor\]\]"),
        (SOUND + "[other]", "nothing called `other`"),
        ("anchor = [", "is not TOML: "),
        (b"\xff", "is not text in UTF-8"),
        ("anchor = " + "1" * 5000, "is not TOML: "),
        ("anchor = " + "[" * 100_000, "is not TOML"),
        ("[[anchor]]", 'anchor 1: it needs identifier = "I…"'),
        ("[[anchor]]\nidentifier = 1", "anchor 1: it needs identifier"),
        ('[[anchor]]\nidentifier = "I5c"', "anchor 1, identifier: 'I5c' is not an identifier: write I and 64"),
        (HEAD, "anchor 1: it needs attributes, as in"),
        (HEAD + "attributes = 1", "anchor 1: it needs attributes"),
        (HEAD + 'attributes = { if = "string" }', "anchor 1, attributes: 'if' is not a name for one: letters"),
        (HEAD + 'attributes = { id = "string" }', "anchor 1, attributes: 'id' is not a name for one"),
        (HEAD + 'attributes = { "a b" = "string" }', "'a b' is not a name"),
        (HEAD + 'attributes = { team = "text" }', "anchor 1, attributes.team: 'text' is not a type: write \"string\""),
        (HEAD + "attributes = { team = 1 }", "anchor 1, attributes.team: 1 is not a type"),
        (HEAD + "attributes = { team = [] }", r"anchor 1, attributes.team: \[\] is not a type"),
        (HEAD + "[anchor.attributes]\n" + "".join(f'a{n} = "long"\n' for n in range(65)), "at most 64 attributes"),
        (SOUND * 65, "has more than 64 anchors"),
        (b"#" * (1024 * 1024 + 1), "has more than 1048576 bytes: shorten it"),
        (SOUND + "longest = 1", "anchor 1: there is no `longest`: an anchor has attributes, identifier, longest_v"),
        (SOUND + SOUND, f"anchor 2: I{ONE.hex()} is there twice"),
        (
            SOUND + f'[[anchor]]\nidentifier = "I{OTHER.hex()}"\nattributes = {{ team = "set" }}',
            "anchor 2: `team` is a set here and a string at another anchor",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_name_the_place_and_the_mend(
    load: Load, text: str | bytes, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s)anchors.toml.*{why}"):
        load(text)


@pytest.mark.parametrize(
    "anchor",
    [
        Anchor(ONE, {}),
        Anchor(ONE, {"team": "string", "level": "long"}, 5400),
        Anchor(ONE, {"roles": "set", "cleared": "bool"}, 61, 3600),
    ],
)
def test_an_anchor_that_is_written_is_read_back(load: Load, anchor: Anchor) -> None:
    assert load(to_toml(anchor)).get(ONE) == anchor


def test_an_anchor_for_any_attribute_is_not_written() -> None:
    with pytest.raises(ValueError, match="name its attributes"):
        to_toml(Anchor(ONE, None))


@given(st.integers(1, 999_999_999))
def test_a_time_that_is_written_is_read_back(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


def test_a_time_is_written_in_the_largest_unit_that_fits() -> None:
    assert [format_duration(seconds) for seconds in (59, 60, 61, 5400, 7200, 86_400)] == [
        "59s", "1m", "61s", "90m", "2h", "1d",
    ]  # fmt: skip


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml cannot be read: No such file"):
        Anchors.load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        Anchors.load(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text("[]{}=\"'\nanchor.attributes1", max_size=60).map(lambda text: SOUND + text))
def test_any_file_loads_or_raises_the_one_error(load: Load, text: str | bytes) -> None:
    with suppress(ConfigurationError):
        assert load(text).by_identifier


# What credentials prove together


def test_the_attributes_of_several_credentials_are_merged() -> None:
    merged, dropped = proven_attributes([credential(team="a", level=1), credential(OTHER, team="a", cleared=True)])
    assert merged == {"team": "a", "level": 1, "cleared": True}
    assert dropped == frozenset()


def test_a_name_on_which_two_anchors_disagree_is_dropped_and_named() -> None:
    merged, dropped = proven_attributes([credential(team="a", level=1), credential(OTHER, team="b")])
    assert merged == {"level": 1}
    assert dropped == {"team"}


def test_a_third_credential_does_not_bring_a_dropped_name_back() -> None:
    for third in ("a", "b"):
        merged, dropped = proven_attributes([credential(team=team) for team in ("a", "b", third)])
        assert (merged, dropped) == ({}, {"team"})


def test_an_agent_speaks_with_its_nodes_attributes_and_its_own() -> None:
    merged, dropped = proven_attributes([credential(role="clerk")], [credential(team="a"), credential(OTHER, level=1)])
    assert merged == {"role": "clerk", "team": "a", "level": 1}
    assert dropped == frozenset()


def test_a_name_on_which_an_agent_and_its_node_differ_is_dropped_and_named() -> None:
    merged, dropped = proven_attributes([credential(team="b", level=1)], [credential(team="a", level=1)])
    assert (merged, dropped) == ({"level": 1}, {"team"})


def test_an_agent_that_inherits_nothing_speaks_with_its_own_attributes_alone() -> None:
    assert proven_attributes([credential(team="b")]) == ({"team": "b"}, frozenset())


def test_true_and_one_are_not_the_same() -> None:
    merged, dropped = proven_attributes([credential(cleared=True), credential(OTHER, cleared=1)])
    assert (merged, dropped) == ({}, {"cleared"})


def test_no_credentials_prove_nothing() -> None:
    assert proven_attributes([]) == ({}, frozenset())
