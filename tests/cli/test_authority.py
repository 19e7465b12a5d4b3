"""``authority init`` and ``authority issue``."""

from pathlib import Path

import pytest

from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.credentials import from_text, read_presentation
from tests.cli.conftest import Call

SUBJECT = f"I{'ab' * 32}"


def test_what_init_prints_is_an_anchors_file(call: Call, tmp_path: Path) -> None:
    printed = call("authority", "init", "--attribute", "team=string", "--attribute", "level=long")
    assert (printed.code, printed.err) == (0, "")
    (tmp_path / "anchors.toml").write_text(printed.out)
    anchors = Anchors.load(tmp_path / "anchors.toml")
    anchor = anchors.get(bytes.fromhex(call("identity", "show").out.strip()[1:]))
    assert anchor is not None
    assert anchor.attributes == {"team": "string", "level": "long"}


def test_init_without_attributes_says_that_it_may_assert_nothing(call: Call) -> None:
    assert "--attribute team=string" in call("authority", "init").err


@pytest.mark.parametrize(
    "attribute", ["team", "team=", "team=text", "=string", "1st=string", "node=string", "if=string"]
)
def test_init_refuses_what_is_no_attribute(call: Call, attribute: str) -> None:
    assert call("authority", "init", "--attribute", attribute).is_one_sentence(2)


def test_issue_prints_the_credential_alone_and_says_beside_it_how_long_it_holds(call: Call) -> None:
    issued = call("authority", "issue", "--subject", SUBJECT, "--attribute", "team=payments")
    credential = read_presentation(from_text(issued.out))
    assert credential.subject.hex() == SUBJECT[1:]
    assert credential.expires - credential.not_before == 3600
    assert issued.err.startswith("holds until ")


def test_issue_reads_each_type_of_value_as_it_is_written(call: Call) -> None:
    pairs = ["team=payments", "level=-3", "cleared=true", 'code="007"', "roles={auditor, clerk}", 'none=""', "empty={}"]
    options = [option for pair in pairs for option in ("--attribute", pair)]
    issued = call("authority", "issue", "--subject", SUBJECT, *options)
    assert read_presentation(from_text(issued.out)).attributes == {
        "team": "payments",
        "level": -3,
        "cleared": True,
        "code": "007",
        "roles": frozenset({"auditor", "clerk"}),
        "none": "",
        "empty": frozenset(),
    }


def test_issue_writes_to_a_file_and_makes_its_folder(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "new" / "credential"
    issued = call("authority", "issue", "--subject", SUBJECT, "--attribute", "team=x", "--out", out)
    assert (issued.code, issued.out) == (0, "")
    assert str(out) in issued.err
    assert read_presentation(from_text(out.read_text())).attributes == {"team": "x"}


def test_issue_says_when_no_anchor_accepts_so_long_a_credential_by_default(call: Call) -> None:
    issue = ("authority", "issue", "--subject", SUBJECT, "--attribute", "team=x", "--validity")
    assert "longest_validity" not in call(*issue, "1d").err
    assert "longest_validity = '8d'" in call(*issue, "8d").err


@pytest.mark.parametrize(
    "options",
    [
        ["--subject", "alice", "--attribute", "team=x"],
        ["--subject", "I12", "--attribute", "team=x"],
        ["--subject", SUBJECT.upper(), "--attribute", "team=x"],
        ["--subject", SUBJECT],
        ["--attribute", "team=x"],
        *(
            ["--subject", SUBJECT, "--attribute", attribute]
            for attribute in ("team", "team=", "=x", "1st=x", "id=x", "level=99999999999999999999", f"team={'x' * 513}")
        ),
        ["--subject", SUBJECT, "--attribute", "team=x", "--attribute", "team=y"],
        *(
            ["--subject", SUBJECT, "--attribute", "team=x", "--validity", validity]
            for validity in ("0h", "-1h", "1", "h", "1y", "999999999d", "3651d")
        ),
        ["--subject", SUBJECT, "--attribute", "team=x", "--out", "/dev/null/no/file"],
        ["--subject", SUBJECT, "--attribute", "team=x", "--out", "/tmp"],
    ],
)
def test_issue_refuses_what_cannot_be_issued_in_one_sentence(call: Call, options: list[str]) -> None:
    assert call("authority", "issue", *options).is_one_sentence(2)


def test_a_wrong_use_makes_no_home(call: Call, tmp_path: Path) -> None:
    call("authority", "issue", "--subject", "alice", "--attribute", "team=x")
    assert not (tmp_path / "default").exists()
