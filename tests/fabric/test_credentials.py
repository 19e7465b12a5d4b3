"""What a node shows of the credentials it holds, and when it renews them."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from autonomy_trio.errors import CredentialError
from autonomy_trio.fabric.identity.credentials import Wallet
from autonomy_trio.trust.credentials import AttributeValue, Presentation, issue, read_presentation, to_text
from autonomy_trio.trust.lists import list_to_text, sign_list, verify_list
from autonomy_trio.trust.records import Signed
from autonomy_trio.trust.vault import Vault

NOW = 1_700_000_000
ALICE = b"a" * 32
OFFICE, OTHER = Vault.in_memory(), Vault.in_memory()


def credential(vault: Vault = OFFICE, now: float = NOW, validity: int = 3600, **attributes: AttributeValue) -> str:
    return to_text(issue(vault, subject=ALICE, attributes=attributes, now=now, validity=validity))


def signed_list(seq: int = 1, vault: Vault = OFFICE) -> Signed:
    return sign_list(vault, seq=seq, credentials=[], least={}, now=NOW)


def wallet(*texts: str, home: Path | None = None) -> Wallet:
    made = Wallet(ALICE, home)
    for text in texts:
        made.add(text, NOW)
    return made


def shown(by: Wallet, now: float = NOW) -> list[Presentation]:
    return [read_presentation(encoded) for encoded in by.shown(now)]


def said(by: Wallet, now: float = NOW) -> list[dict[str, AttributeValue]]:
    return [dict(each.credential.attributes) for each in shown(by, now)]


def test_the_latest_is_shown_first_and_what_has_expired_is_not() -> None:
    held = wallet(credential(team="a", validity=60), credential(level=1), credential(OTHER, cleared=True))
    assert said(held) == [{"cleared": True}, {"level": 1}, {"team": "a"}]
    assert said(held, NOW + 60) == [{"cleared": True}, {"level": 1}]


def test_a_credential_is_due_at_two_thirds_of_its_life_until_it_is_renewed() -> None:
    held = wallet(credential(team="a"), credential(level=1, validity=7200))
    assert list(held.due(NOW + 2399)) == []
    assert [each.attributes for each in held.due(NOW + 2400)] == [{"team": "a"}]
    assert [each.attributes for each in held.due(NOW + 3600)] == [{"team": "a"}]
    held.add(credential(team="a", now=NOW + 2400), NOW + 2400)
    assert list(held.due(NOW + 2400)) == []


def test_a_renewed_credential_is_shown_alone_though_it_says_something_else() -> None:
    held = wallet(credential(team="a"), credential(team="b", level=1, now=NOW + 1))
    assert said(held, NOW + 1) == [{"team": "b", "level": 1}]


def test_a_credential_that_outlives_the_one_that_renewed_it_is_shown_again() -> None:
    held = wallet(credential(team="a"), credential(team="b", now=NOW + 1, validity=60))
    assert said(held, NOW + 61) == [{"team": "a"}]


def test_a_later_credential_that_says_less_or_is_anothers_renews_nothing() -> None:
    held = wallet(
        credential(team="a", level=1), credential(team="a", now=NOW + 1), credential(OTHER, team="a", level=1)
    )
    assert len(said(held, NOW + 1)) == 3


def test_the_newest_list_goes_with_the_first_credential_of_its_issuer_alone() -> None:
    held = wallet(credential(team="a"), credential(OTHER, cleared=True), credential(level=1))
    for seq in (1, 3, 2):
        held.learn(verify_list(signed_list(seq), OFFICE.history), OFFICE.history)
    lists = [each.revocations for each in shown(held)]
    assert [each and each.seq for each in lists] == [3, None, None]
    assert [each.seq for each, _ in held.lists] == [3]


def test_a_list_that_came_with_a_credential_is_kept() -> None:
    listed = issue(OFFICE, subject=ALICE, attributes={"team": "a"}, now=NOW, revocations=signed_list(7))
    assert [each.revocations and each.revocations.seq for each in shown(wallet(to_text(listed)))] == [7]


def test_credentials_and_lists_in_the_home_are_there_again(tmp_path: Path) -> None:
    wallet(credential(team="a"), home=tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "office").write_text(list_to_text(signed_list(2), OFFICE.history.changes))
    again = wallet(home=tmp_path)
    again.load([], NOW)
    (found,) = shown(again)
    assert found.credential.attributes == {"team": "a"}
    assert found.revocations is not None
    assert found.revocations.seq == 2


def test_renewing_for_days_leaves_no_files_behind(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "mine").write_text(credential(team="a", validity=60))
    held = wallet(home=tmp_path)
    held.load([], NOW)
    for hour in range(1, 50):
        now = NOW + hour * 3600
        held.add(credential(team="a", now=now), now)
        if hour % 10 == 0:
            held = wallet(home=tmp_path)
            held.load([], now)
    files = [file.name for file in (tmp_path / "credentials").iterdir()]
    assert len(files) == 2
    assert "mine" in files


def test_a_wrong_file_in_the_home_is_named_in_the_log_and_the_others_count(tmp_path: Path) -> None:
    for folder, text in (("credentials", credential(team="a")), ("lists", list_to_text(signed_list(), ()))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1").write_text("nothing")
        (tmp_path / folder / "2").write_bytes(b"\xff")
        (tmp_path / folder / "3").write_text(text)
        (tmp_path / folder / "folder").mkdir()
    held = wallet(home=tmp_path)
    with capture_logs() as logs:
        held.load([], NOW)
    assert [(line["event"], line["why"].partition(": ")[0].partition(" is no")[0]) for line in logs] == [
        ("credential not shown", str(tmp_path / "credentials" / "1")),
        ("credential not shown", str(tmp_path / "credentials" / "2")),
        ("revocation list not obeyed", str(tmp_path / "lists" / "1")),
        ("revocation list not obeyed", str(tmp_path / "lists" / "2")),
        ("revocation list not obeyed", str(tmp_path / "lists" / "3")),
    ]
    assert said(held) == [{"team": "a"}]


def test_a_wallet_holds_only_so_many_and_expired_ones_make_room() -> None:
    held = wallet(*(credential(team="a", validity=60) for _ in range(256)))
    with pytest.raises(CredentialError, match="is one too many: this node holds 256"):
        held.add(credential(team="b"), NOW)
    held.add(credential(team="b", now=NOW + 60), NOW + 60)
    assert said(held, NOW + 60) == [{"team": "b"}]


def test_what_could_never_count_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    held = wallet(home=tmp_path)
    theirs = to_text(issue(OFFICE, subject=b"b" * 32, attributes={"team": "a"}, now=NOW))
    for text, why in (
        (theirs, f"the credential is about I{'62' * 32}, and this home is I{'61' * 32}"),
        (credential(team="a", now=NOW - 3600), "the credential expired 0 s ago"),
        ("nothing", "the credential: the text is not one block"),
    ):
        with pytest.raises(CredentialError, match=why):
            held.add(text, NOW)
    assert list(tmp_path.rglob("*")) == []
    with pytest.raises(CredentialError, match="cannot be read"):
        held.load([tmp_path / "nowhere"], NOW)
