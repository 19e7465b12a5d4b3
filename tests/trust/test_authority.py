from collections.abc import Generator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autonomy_trio.errors import CredentialError, VaultError
from autonomy_trio.trust import ledger as ledgers
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.authority import Authority, open_authority, read_ledger
from autonomy_trio.trust.credentials import Credential, issue, read_presentation, verify_presentations
from autonomy_trio.trust.ledger import Ledger, decode_ledger, encode_ledger, new_ledger
from autonomy_trio.trust.lists import RevocationList, Revocations, verify_list
from autonomy_trio.trust.tickets import make_ticket
from autonomy_trio.trust.vault import Vault

NOW = 1_700_000_000
ALICE, BOB = b"a" * 32, b"b" * 32
TEAM = {"team": "payments"}
VAULT = Vault.in_memory()


class Disk:
    """Keeps what an authority writes, unless it is full."""

    def __init__(self) -> None:
        self.ledgers: list[Ledger] = []
        self.is_full = False

    def keep(self, ledger: Ledger) -> None:
        if self.is_full:
            raise VaultError("no space left on device")
        self.ledgers.append(decode_ledger(encode_ledger(ledger)))


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def authority(disk: Disk) -> Authority:
    return Authority(VAULT, new_ledger(VAULT.identifier), disk.keep)


def issued(authority: Authority, subject: bytes = ALICE, **changed: object) -> Credential:
    encoded = authority.issue(**{"subject": subject, "attributes": TEAM, "now": NOW} | changed)
    return read_presentation(encoded).credential


def newest(authority: Authority) -> RevocationList:
    assert authority.ledger.newest_list is not None
    return verify_list(authority.ledger.newest_list, VAULT.history)


def counts(*shown: bytes, subject: bytes = ALICE, now: float = NOW) -> Sequence[Credential]:
    anchors = Anchors.of_self(VAULT.identifier)
    accepted, _ = verify_presentations(
        shown, subject=subject, subject_seq=0, anchors=anchors, revocations=Revocations(), now=now
    )
    return accepted


# Issuing


def test_what_is_issued_is_on_the_disk(authority: Authority, disk: Disk) -> None:
    first, second = issued(authority), issued(authority, BOB, subject_seq=3, validity=60)
    kept = disk.ledgers[-1]
    assert kept == authority.ledger
    assert list(kept.issued) == [first.id, second.id]
    entry = kept.issued[second.id]
    assert (entry.subject, entry.subject_seq, entry.values) == (BOB, 3, TEAM)
    assert (entry.not_before, entry.expires, entry.revoked) == (NOW, NOW + 60, False)


def test_a_disk_that_refuses_issues_and_revokes_and_redeems_nothing(authority: Authority, disk: Disk) -> None:
    credential, ticket = issued(authority), make_ticket(VAULT, relay="ws://r", attributes=TEAM, now=NOW)
    before, disk.is_full = authority.ledger, True
    with pytest.raises(VaultError, match="no space"):
        issued(authority)
    with pytest.raises(VaultError, match="no space"):
        authority.revoke([credential.id], now=NOW)
    with pytest.raises(VaultError, match="no space"):
        authority.redeem(ticket, subject=ALICE, subject_seq=0, now=NOW)
    assert authority.ledger is before
    disk.is_full = False
    assert counts(authority.redeem(ticket, subject=BOB, subject_seq=0, now=NOW), subject=BOB)


def test_what_expired_makes_room_the_earliest_first(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "ISSUED_LIMIT", 2)
    later, sooner = issued(authority, validity=120), issued(authority, validity=60)
    with pytest.raises(CredentialError, match="has 2 credentials that hold, and room for no more"):
        issued(authority, now=NOW + 60 + 3599)
    third = issued(authority, now=NOW + 60 + 3600)
    assert sooner.id not in authority.ledger.issued
    assert list(authority.ledger.issued) == [later.id, third.id]


def test_a_ledger_past_the_size_of_a_file_is_refused() -> None:
    attributes = {f"a{number}": "x" * 500 for number in range(7)}
    credential = read_presentation(issue(VAULT, subject=ALICE, attributes=attributes, now=NOW)).credential
    ledger = new_ledger(VAULT.identifier).with_issued(credential, NOW)
    entry = ledger.issued[credential.id]
    copies = {number.to_bytes(16, "big"): entry for number in range(ledgers.FILE_BYTES_LIMIT // 3500 + 1)}
    with pytest.raises(CredentialError, match=r"takes more than .* bytes"):
        encode_ledger(Ledger(ledger.issuer, copies, {}, 0, None, {}))


# Revoking


def test_a_revoked_credential_stands_in_the_next_list_which_goes_with_what_is_issued_then(authority: Authority) -> None:
    credential, other = issued(authority), issued(authority)
    signed = authority.revoke([credential.id], now=NOW, next_update=60)
    listed = newest(authority)
    assert (listed.signed, listed.seq, listed.next_update) == (signed, 1, NOW + 60)
    assert listed.credentials == {credential.id}
    assert [each.revoked for each in authority.ledger.issued.values()] == [True, False]
    presentation = read_presentation(authority.issue(subject=ALICE, attributes=TEAM, now=NOW))
    assert presentation.revocations == listed
    authority.revoke([other.id, credential.id], now=NOW)
    assert (newest(authority).seq, newest(authority).credentials) == (2, {credential.id, other.id})


def test_a_list_is_signed_anew_with_nothing_to_take_back(authority: Authority) -> None:
    authority.revoke([issued(authority).id], now=NOW)
    before = newest(authority)
    authority.revoke(now=NOW + 60)
    after = newest(authority)
    assert (after.seq, after.issued, after.credentials) == (before.seq + 1, NOW + 60, before.credentials)


def test_a_credential_that_expired_an_hour_ago_leaves_the_list(authority: Authority) -> None:
    credential = issued(authority, validity=60)
    authority.revoke([credential.id], now=NOW)
    authority.revoke(now=NOW + 60 + 3599)
    assert newest(authority).credentials == {credential.id}
    authority.revoke(now=NOW + 60 + 3600)
    assert newest(authority).credentials == frozenset()


def test_a_credential_that_is_not_written_down_is_revoked_by_showing_it(authority: Authority) -> None:
    presentation = read_presentation(issue(VAULT, subject=ALICE, attributes=TEAM, now=NOW))
    with pytest.raises(CredentialError, match=f"no credential {presentation.credential.id.hex()} is written down"):
        authority.revoke([presentation.credential.id], now=NOW)
    authority.revoke([presentation], now=NOW)
    authority.revoke([presentation], now=NOW)
    assert newest(authority).credentials == {presentation.credential.id}
    theirs = read_presentation(issue(Vault.in_memory(), subject=ALICE, attributes=TEAM, now=NOW))
    with pytest.raises(CredentialError, match="and only that can revoke it"):
        authority.revoke([theirs], now=NOW)


def test_a_least_sequence_only_grows_and_stays(authority: Authority) -> None:
    authority.revoke(least={ALICE: 2}, now=NOW)
    authority.revoke(now=NOW + 10**8)
    assert newest(authority).least == {ALICE: 2}
    for seq in (0, 1, 2, 64):
        with pytest.raises(CredentialError, match=f"cannot become {seq}: it is 2, only grows, and ends at 63"):
            authority.revoke(least={ALICE: seq}, now=NOW)


def test_an_authority_does_not_revoke_its_current_key(authority: Authority) -> None:
    with pytest.raises(CredentialError, match="is at sequence 0, and with 1 as the least nothing it says would count"):
        authority.revoke(least={VAULT.identifier: 1}, now=NOW)


def test_a_list_that_is_full_changes_nothing(authority: Authority) -> None:
    for number in range(64):
        authority = Authority(VAULT, authority.ledger.with_least(bytes([number]) * 32, 1), lambda _: None)
    before = authority.ledger
    with pytest.raises(CredentialError, match="names at most 64 least sequences"):
        authority.revoke(least={ALICE: 1}, now=NOW)
    assert authority.ledger is before


# Redeeming


def ticket(vault: Vault = VAULT, now: float = NOW) -> str:
    return make_ticket(vault, relay="ws://relay.example.com", attributes=TEAM, now=now)


def test_a_ticket_is_redeemed_and_on_the_disk_before_the_answer(authority: Authority, disk: Disk) -> None:
    answer = authority.redeem(ticket(), subject=ALICE, subject_seq=2, now=NOW)
    credential = read_presentation(answer).credential
    assert (credential.subject, credential.subject_seq, credential.attributes) == (ALICE, 2, TEAM)
    assert credential.expires == NOW + 3600
    kept = disk.ledgers[-1]
    assert list(kept.issued) == [credential.id]
    assert [each.subject for each in kept.redeemed.values()] == [ALICE]


def test_the_same_subject_gets_the_same_answer_again_after_a_restart_too(authority: Authority, disk: Disk) -> None:
    text = ticket()
    answer = authority.redeem(text, subject=ALICE, subject_seq=0, now=NOW)
    again = Authority(VAULT, disk.ledgers[-1], disk.keep)
    assert again.redeem(text, subject=ALICE, subject_seq=0, now=NOW + 599) == answer
    assert len(again.ledger.issued) == 1


def test_another_subject_is_refused_and_both_are_named(authority: Authority) -> None:
    text = ticket()
    authority.redeem(text, subject=ALICE, subject_seq=0, now=NOW)
    before = authority.ledger
    with pytest.raises(CredentialError, match=f"I{BOB.hex()} shows a ticket that I{ALICE.hex()} has redeemed"):
        authority.redeem(text, subject=BOB, subject_seq=0, now=NOW)
    assert authority.ledger is before


def test_a_ticket_of_another_authority_or_an_expired_one_is_not_redeemed(authority: Authority, disk: Disk) -> None:
    with pytest.raises(CredentialError, match="redeem it where it was made"):
        authority.redeem(ticket(Vault.in_memory()), subject=ALICE, subject_seq=0, now=NOW)
    with pytest.raises(CredentialError, match="expired"):
        authority.redeem(ticket(), subject=ALICE, subject_seq=0, now=NOW + 600)
    assert disk.ledgers == []


def test_redeemed_tickets_are_forgotten_when_they_expire(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "REDEEMED_LIMIT", 2)
    for _ in range(2):
        authority.redeem(ticket(), subject=ALICE, subject_seq=0, now=NOW)
    with pytest.raises(CredentialError, match="2 tickets were redeemed in the last minutes"):
        authority.redeem(ticket(), subject=ALICE, subject_seq=0, now=NOW)
    later = NOW + 600
    authority.redeem(ticket(now=later), subject=ALICE, subject_seq=0, now=later)
    assert len(authority.ledger.redeemed) == 1


def test_a_redeemed_ticket_is_not_shown_by_its_repr(authority: Authority) -> None:
    authority.redeem(ticket(), subject=ALICE, subject_seq=0, now=NOW)
    (redeemed,) = authority.ledger.redeemed.values()
    assert repr(redeemed) == f"Redeemed(subject=I{ALICE.hex()})"


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([ALICE, BOB]), st.booleans()), max_size=12))
def test_whoever_comes_in_whatever_order_each_ticket_is_one_subjects(
    shown: list[tuple[int, bytes, bool]],
) -> None:
    """Invariant: over crashes before and after the answer, each ticket has answered one subject with one credential."""
    disk = Disk()
    texts = [ticket() for _ in range(3)]
    authority = Authority(VAULT, new_ledger(VAULT.identifier), disk.keep)
    answered: dict[int, tuple[bytes, bytes]] = {}
    for number, subject, disk.is_full in shown:
        try:
            answer = authority.redeem(texts[number], subject=subject, subject_seq=0, now=NOW)
        except (CredentialError, VaultError):
            kept = disk.ledgers[-1] if disk.ledgers else new_ledger(VAULT.identifier)
            authority = Authority(VAULT, kept, disk.keep)
        else:
            assert answered.setdefault(number, (subject, answer)) == (subject, answer)
    assert len(authority.ledger.issued) == len(authority.ledger.redeemed) == len(answered)


# The file


@pytest.fixture
def home(tmp_path: Path) -> Generator[Path]:
    Vault.open(tmp_path / "home").close()
    return tmp_path / "home"


def test_the_ledger_is_there_again_when_the_home_is_opened_again(home: Path) -> None:
    with Vault.open_beside(home) as vault:
        with open_authority(vault, home) as authority:
            credential = issued(authority)
            authority.revoke([credential.id], now=NOW)
            before = authority.ledger
        with open_authority(vault, home) as authority:
            assert authority.ledger == before
        assert read_ledger(vault, home) == before
    assert (home / "ledger").stat().st_mode & 0o777 == 0o600


def test_an_authority_works_beside_a_node_and_not_beside_another(home: Path) -> None:
    with Vault.open(home) as vault, open_authority(vault, home) as authority:
        issued(authority)
        with (
            pytest.raises(VaultError, match=r"ledger\.lock is held by another process: try again"),
            open_authority(vault, home),
        ):
            pass
        assert read_ledger(vault, home) == authority.ledger


def test_a_home_without_a_ledger_has_issued_nothing(home: Path) -> None:
    with Vault.open_beside(home) as vault:
        assert read_ledger(vault, home) == new_ledger(vault.identifier)
    assert not (home / "ledger").exists()


def test_a_ledger_that_is_damaged_or_another_identitys_is_refused(home: Path) -> None:
    with Vault.open_beside(home) as vault:
        for data, why in (
            (b"", "is damaged: restore it from a copy"),
            (msgspec.msgpack.encode([2, vault.identifier, [], [], 0, None, []]), "is damaged"),
            (encode_ledger(new_ledger(ALICE)), f"belongs to I{ALICE.hex()}, and this home is"),
        ):
            (home / "ledger").write_bytes(data)
            (home / "ledger").chmod(0o600)
            with pytest.raises(VaultError, match=why), open_authority(vault, home):
                pass


@given(st.binary(max_size=400))
def test_any_bytes_are_a_ledger_or_raise_the_one_error(data: bytes) -> None:
    with pytest.raises(VaultError):
        decode_ledger(data)


# Renewing


def renewed(authority: Authority, credential: Credential, seq: int = 0, now: float = NOW + 2400) -> Credential:
    encoded = authority.renew(credential.id, subject=ALICE, subject_seq=seq, now=now)
    return read_presentation(encoded).credential


def test_a_renewed_credential_says_the_same_for_as_long_and_is_on_the_disk_first(
    authority: Authority, disk: Disk
) -> None:
    first = issued(authority, validity=60, attributes={"team": "a", "roles": frozenset({"x", "y"})})
    second = renewed(authority, first)
    assert (second.attributes, second.not_before, second.expires) == (first.attributes, NOW + 2400, NOW + 2460)
    assert list(disk.ledgers[-1].issued) == [first.id, second.id]
    assert renewed(authority, second, seq=3).subject_seq == 3


def test_only_its_subject_has_a_credential_renewed(authority: Authority) -> None:
    credential = issued(authority)
    for asked, subject in ((credential.id, BOB), (bytes(16), ALICE)):
        with pytest.raises(CredentialError, match="has not issued to it"):
            authority.renew(asked, subject=subject, subject_seq=0, now=NOW)


def test_what_was_taken_back_is_not_renewed(authority: Authority) -> None:
    first, second = issued(authority, subject_seq=1), issued(authority, subject_seq=1)
    with pytest.raises(CredentialError, match="was taken back"):
        renewed(authority, first, seq=0)
    authority.revoke([first.id], now=NOW)
    with pytest.raises(CredentialError, match="was taken back"):
        renewed(authority, first, seq=1)
    authority.revoke(least={ALICE: 2}, now=NOW)
    for seq in (1, 2):
        with pytest.raises(CredentialError, match="was taken back"):
            renewed(authority, second, seq=seq)


def test_a_subject_cannot_fill_the_ledger_with_renewals(authority: Authority) -> None:
    credential = issued(authority)
    for _ in range(7):
        renewed(authority, credential)
    with pytest.raises(CredentialError, match="holds 8 credentials that say the same"):
        renewed(authority, credential)
    assert renewed(authority, credential, now=NOW + 10_000).expires == NOW + 13_600
