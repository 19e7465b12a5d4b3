"""``authority init``, ``issue``, ``revoke`` and ``list``."""

import re
import time
from pathlib import Path

import pytest

from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.authority import open_authority
from autonomy_trio.trust.credentials import from_text, issue, read_presentation, to_text
from autonomy_trio.trust.lists import list_from_text
from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call

SUBJECT, OTHER = f"I{'ab' * 32}", f"I{'cd' * 32}"


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
    credential = read_presentation(from_text(issued.out)).credential
    assert credential.subject.hex() == SUBJECT[1:]
    assert credential.expires - credential.not_before == 3600
    assert issued.err.startswith("holds until ")


def test_issue_reads_each_type_of_value_as_it_is_written(call: Call) -> None:
    pairs = ["team=payments", "level=-3", "cleared=true", 'code="007"', "roles={auditor, clerk}", 'none=""', "empty={}"]
    options = [option for pair in pairs for option in ("--attribute", pair)]
    issued = call("authority", "issue", "--subject", SUBJECT, *options)
    assert read_presentation(from_text(issued.out)).credential.attributes == {
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
    assert read_presentation(from_text(out.read_text())).credential.attributes == {"team": "x"}


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
        *(["--subject", SUBJECT, "--attribute", "team=x", "--sequence", seq] for seq in ("-1", "64", "x")),
    ],
)
def test_issue_refuses_what_cannot_be_issued_in_one_sentence(call: Call, options: list[str]) -> None:
    assert call("authority", "issue", *options).is_one_sentence(2)


def test_a_wrong_use_makes_no_home(call: Call, tmp_path: Path) -> None:
    call("authority", "issue", "--subject", "alice", "--attribute", "team=x")
    assert not (tmp_path / "default").exists()


def issued(call: Call, *attributes: str, subject: str = SUBJECT) -> str:
    """Issue a credential and return its id."""
    options = [option for pair in attributes or ["team=x"] for option in ("--attribute", pair)]
    text = call("authority", "issue", "--subject", subject, *options).out
    return read_presentation(from_text(text)).credential.id.hex()


def listed(call: Call) -> list[str]:
    return call("authority", "list").out.splitlines()


def test_list_prints_what_was_issued_as_issue_would_read_it(call: Call) -> None:
    pairs = ["team=a", "level=-3", "cleared=true", 'code="007"', "roles={b, a}", 'none=""', 'flag="true"', 'text="a b"']
    first, second = issued(call, *pairs), issued(call, subject=OTHER)
    found = listed(call)
    assert [line.split()[:3] for line in found] == [[first, SUBJECT, "0"], [second, OTHER, "0"]]
    said = 'cleared=true code="007" flag="true" level=-3 none="" roles={a,b} team=a text="a b"'
    assert re.fullmatch(rf"\w+ \w+ 0 until \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC holds {re.escape(said)}", found[0])


def test_list_shows_a_terminal_nothing_that_it_would_obey(call: Call) -> None:
    issued(call, "team=a\x1b[31mb\nc", "roles={\x07}")
    (line,) = listed(call)
    assert line.isprintable()


def test_list_of_a_home_that_issued_nothing_says_so(call: Call) -> None:
    found = call("authority", "list")
    assert (found.code, found.out, found.err) == (0, "", "nothing was issued from this home\n")


def test_list_tells_what_has_expired(call: Call, tmp_path: Path) -> None:
    home = tmp_path / "default"
    with Vault.open(home) as vault, open_authority(vault, home) as authority:
        authority.issue(subject=bytes(32), attributes={"team": "x"}, now=1_700_000_000)
    assert listed(call) == [
        f"{next(iter(authority.ledger.issued)).hex()} I{'00' * 32} 0 until 2023-11-14 23:13:20 UTC expired team=x"
    ]


def test_revoke_takes_back_by_id_and_prints_the_list(call: Call) -> None:
    first, second = issued(call), issued(call)
    revoked = call("authority", "revoke", first)
    revocations, history = list_from_text(revoked.out)
    assert [each.hex() for each in revocations.credentials] == [first]
    assert f"I{history.identifier.hex()}" == call("identity", "show").out.strip()
    assert re.match(r"list 1 names 1 credential; sign the next one by \d{4}-", revoked.err)
    assert [(line.split()[0], "revoked" in line) for line in listed(call)] == [(first, True), (second, False)]


def test_what_is_issued_after_a_revocation_carries_the_list(call: Call) -> None:
    call("authority", "revoke", issued(call))
    text = call("authority", "issue", "--subject", SUBJECT, "--attribute", "team=x").out
    found = read_presentation(from_text(text)).revocations
    assert found is not None
    assert found.seq == 1


def test_revoke_takes_back_by_file_what_was_never_written_down(call: Call, tmp_path: Path) -> None:
    with Vault.open(tmp_path / "default") as vault:
        encoded = issue(vault, subject=bytes(32), attributes={"team": "x"}, now=time.time())
    (tmp_path / "credential").write_text(to_text(encoded))
    revocations, _ = list_from_text(call("authority", "revoke", tmp_path / "credential").out)
    assert revocations.credentials == {read_presentation(encoded).credential.id}


def test_revoke_takes_back_all_that_a_subject_holds(call: Call) -> None:
    first, second, other = issued(call), issued(call), issued(call, subject=OTHER)
    call("authority", "revoke", first)
    revocations, _ = list_from_text(call("authority", "revoke", "--subject", SUBJECT).out)
    assert {each.hex() for each in revocations.credentials} == {first, second}
    assert other not in {each.hex() for each in revocations.credentials}
    again = call("authority", "revoke", "--subject", SUBJECT)
    assert again.is_one_sentence(2)
    assert "holds nothing that this home has written down" in again.err


def test_revoke_takes_back_what_was_issued_to_a_subjects_older_keys(call: Call) -> None:
    revocations, _ = list_from_text(call("authority", "revoke", "--subject", SUBJECT, "--least-sequence", "2").out)
    assert {whom.hex(): seq for whom, seq in revocations.least.items()} == {SUBJECT[1:]: 2}
    found = call("authority", "list")
    assert found.out == f"{SUBJECT} counts from sequence 2 on\n"
    assert "list 1 names 0 credentials" in found.err


def test_revoke_of_nothing_signs_the_list_anew_for_as_long_as_it_is_told(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "new" / "list"
    said = call("authority", "revoke", "--next-update", "2h", "--out", out)
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith("list 1 names 0 credentials")
    assert said.err.endswith(f", written to {out}\n")
    revocations, _ = list_from_text(out.read_text())
    assert revocations.next_update - revocations.issued == 7200
    assert list_from_text(call("authority", "revoke").out)[0].seq == 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["00" * 16], 1),
        (["00" * 15], 2),
        (["nowhere"], 2),
        (["/tmp"], 2),
        ([__file__], 1),
        (["/usr/bin/env"], 2),
        (["--subject", "alice"], 2),
        (["--subject", SUBJECT], 2),
        (["--least-sequence", "1"], 2),
        (["--subject", SUBJECT, "--least-sequence", "0"], 2),
        (["--subject", SUBJECT, "--least-sequence", "64"], 2),
        (["--next-update", "1"], 2),
        (["--next-update", "3651d"], 2),
        (["--out", "/dev/null/no/file"], 2),
    ],
)
def test_revoke_refuses_what_it_cannot_take_back_in_one_sentence(call: Call, options: list[str], code: int) -> None:
    assert call("authority", "revoke", *options).is_one_sentence(code)


def test_two_commands_at_once_do_not_lose_what_either_wrote(call: Call, tmp_path: Path) -> None:
    home = tmp_path / "default"
    with Vault.open(home) as vault, open_authority(vault, home):
        refused = call("authority", "issue", "--subject", SUBJECT, "--attribute", "team=x")
        assert refused.is_one_sentence(1)
        assert "ledger.lock is held by another process: try again when that has ended" in refused.err
