import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autonomy_trio.errors import CredentialError, VaultError
from autonomy_trio.trust.anchors import DEFAULT_LONGEST_VALIDITY, Anchor, Anchors
from autonomy_trio.trust.attributes import AttributeType, AttributeValue
from autonomy_trio.trust.credentials import (
    PRESENTATION_BYTES_LIMIT,
    Credential,
    from_text,
    issue,
    read_presentation,
    renew_at,
    to_text,
    verify_presentations,
)
from autonomy_trio.trust.identity import History, derive_seed, make_history
from autonomy_trio.trust.lists import Revocations
from autonomy_trio.trust.records import SignatureContext, SigningKey, sign
from autonomy_trio.trust.vault import Vault

NOW = 1_700_000_000
RECOVERY = bytes(range(32))
AUTHORITY = Vault.in_memory()
STRANGER = Vault.in_memory()
ALICE, MALLORY = b"a" * 32, b"m" * 32
ANCHORS = Anchors.of_self(AUTHORITY.identifier)
ATTRIBUTES = {"team": "payments", "level": 3, "cleared": True, "roles": frozenset({"reader", "writer"})}


def make(vault: Vault = AUTHORITY, **changed: object) -> bytes:
    return issue(vault, **{"subject": ALICE, "attributes": ATTRIBUTES, "now": NOW} | changed)


def judge(encoded: bytes, **changed: object) -> Credential:
    fields = {"subject": ALICE, "subject_seq": 0, "anchors": ANCHORS, "revocations": Revocations(), "now": NOW}
    accepted, refused = verify_presentations([encoded], **fields | changed)
    for error in refused:
        raise error
    return accepted[0]


def listing(**attributes: AttributeType) -> Anchors:
    anchor = Anchor(AUTHORITY.identifier, attributes)
    return Anchors({anchor.identifier: anchor}, attributes)


def signed_by_hand(
    seed: bytes = RECOVERY,
    seq: int = 0,
    context: SignatureContext = "credential",
    history: History | None = None,
    revocations: object = None,
    **changed: object,
) -> bytes:
    """Present what `issue` would not: fields by position, signed by one key of an identity made from RECOVERY."""
    history = history or make_history(RECOVERY, seq)
    fields = {
        "version": 1,
        "issuer": history.identifier,
        "issuer_seq": seq,
        "subject": ALICE,
        "subject_seq": 0,
        "id": bytes(16),
        "attributes": [["team", "payments"]],
        "not_before": NOW,
        "expires": NOW + 3600,
    } | changed
    body = msgspec.msgpack.encode(list(fields.values()))
    signature = sign(derive_seed(seed, seq), context, body)
    return msgspec.msgpack.encode([[body, signature], history.changes, revocations])


OWN = Anchors.of_self(make_history(RECOVERY).identifier)


def test_a_credential_says_what_was_issued() -> None:
    credential = judge(make())
    assert credential.issuer == AUTHORITY.identifier
    assert (credential.issuer_seq, credential.subject, credential.subject_seq) == (0, ALICE, 0)
    assert credential.attributes == ATTRIBUTES
    assert credential.attributes["cleared"] is True
    assert (credential.not_before, credential.expires) == (NOW, NOW + 3600)
    assert len(credential.id) == 16


def test_two_credentials_have_two_ids() -> None:
    assert read_presentation(make()).credential.id != read_presentation(make()).credential.id
    assert read_presentation(make(random=lambda count: b"r" * count)).credential.id == b"r" * 16


def test_a_presentation_is_the_credential_the_issuers_history_and_a_place_for_its_list() -> None:
    credential, history, revocations = msgspec.msgpack.decode(make())
    assert len(credential) == 2
    assert [tuple(change) for change in history] == [(c.body, c.signature) for c in AUTHORITY.history.changes]
    assert revocations is None


# Forgeries


@pytest.mark.parametrize("encoded", [make(), signed_by_hand(seq=1)], ids=["born", "rotated"])
def test_a_presentation_with_any_bit_flipped_is_refused(encoded: bytes) -> None:
    read_presentation(encoded)
    for index in range(len(encoded)):
        for bit in range(8):
            with pytest.raises(CredentialError):
                read_presentation(encoded[:index] + bytes([encoded[index] ^ 1 << bit]) + encoded[index + 1 :])


def test_a_presentation_cut_off_anywhere_or_with_a_byte_too_many_is_refused() -> None:
    encoded = make()
    for wrong in [*(encoded[:length] for length in range(len(encoded))), encoded + b"\x00"]:
        with pytest.raises(CredentialError):
            read_presentation(wrong)


def test_a_stolen_credential_is_useless_to_another_subject() -> None:
    with pytest.raises(CredentialError, match="only its subject can use it"):
        judge(make(), subject=MALLORY)


def test_a_credential_of_an_issuer_that_is_no_anchor_is_refused() -> None:
    with pytest.raises(CredentialError, match=f"I{STRANGER.identifier.hex()} is no trust anchor here: list it"):
        judge(make(STRANGER))


def test_a_credential_that_names_an_anchor_and_is_signed_by_another_is_refused() -> None:
    theirs = msgspec.msgpack.decode(make(STRANGER))
    ours = msgspec.msgpack.decode(make())
    with pytest.raises(CredentialError, match="history that came with it does not show"):
        judge(msgspec.msgpack.encode([ours[0], theirs[1], None]))
    with pytest.raises(CredentialError, match="is not signed by"):
        judge(msgspec.msgpack.encode([[ours[0][0], theirs[0][1]], ours[1], None]))


def test_a_signature_for_another_purpose_issues_nothing() -> None:
    with pytest.raises(CredentialError, match="is not signed by"):
        read_presentation(signed_by_hand(context="attest"))


def test_a_credential_of_a_sequence_that_the_history_does_not_show_is_refused() -> None:
    with pytest.raises(CredentialError, match="at sequence 1 as its issuer, which the history"):
        read_presentation(signed_by_hand(issuer_seq=1))


def test_the_key_of_the_sequence_that_a_credential_names_verifies_it() -> None:
    rotated = make_history(RECOVERY, 2)
    credential = judge(signed_by_hand(seq=1, history=rotated), anchors=OWN)
    assert (credential.issuer, credential.issuer_seq) == (rotated.identifier, 1)
    with pytest.raises(CredentialError, match="is not signed by"):
        read_presentation(signed_by_hand(seq=1, history=rotated, issuer_seq=2))


def test_a_history_that_does_not_verify_is_refused() -> None:
    credential, history, _ = msgspec.msgpack.decode(make())
    history[0][1] = bytes(64)
    for changes in (history, []):
        with pytest.raises(CredentialError, match=r"cannot be accepted: .* history"):
            read_presentation(msgspec.msgpack.encode([credential, changes, None]))


# The anchor's limits


def test_an_attribute_outside_the_anchors_list_is_refused() -> None:
    with pytest.raises(CredentialError, match="asserts `level`, which its anchor does not allow it to"):
        judge(make(attributes={"team": "payments", "level": 3}), anchors=listing(team="string"))


@pytest.mark.parametrize(
    ("value", "allowed"),
    [(True, "long"), (1, "bool"), ("1", "long"), (1, "string"), ("a", "set"), (frozenset({"a"}), "string")],
)
def test_an_attribute_of_a_wrong_type_is_refused(value: AttributeValue, allowed: str) -> None:
    with pytest.raises(CredentialError, match=rf"asserts `x` as a \w+, and its anchor says {allowed}"):
        judge(make(attributes={"x": value}), anchors=listing(x=allowed))


def test_attributes_of_the_listed_types_are_accepted() -> None:
    kinds = {"team": "string", "level": "long", "cleared": "bool", "roles": "set", "more": "long"}
    assert judge(make(), anchors=listing(**kinds)).attributes == ATTRIBUTES


def test_a_validity_longer_than_the_anchor_allows_is_refused_however_little_is_left() -> None:
    judge(make(validity=DEFAULT_LONGEST_VALIDITY))
    long = make(validity=DEFAULT_LONGEST_VALIDITY + 1)
    for now in (NOW, NOW + DEFAULT_LONGEST_VALIDITY):
        with pytest.raises(CredentialError, match="valid for 86401 s, and its anchor allows 86400 s"):
            judge(long, now=now)


def test_an_anchor_that_requires_a_revocation_list_refuses_a_credential_without_one() -> None:
    anchor = Anchor(AUTHORITY.identifier, None, revocation_staleness=3600)
    with pytest.raises(CredentialError, match="requires a revocation list and none came"):
        judge(make(), anchors=Anchors({anchor.identifier: anchor}, None))


# Time and sequence


def test_an_expired_credential_is_refused_without_leeway() -> None:
    judge(make(), now=NOW + 3599.999)
    with pytest.raises(CredentialError, match="expired 0 s ago: ask its issuer for a new one"):
        judge(make(), now=NOW + 3600)


def test_a_credential_may_begin_59_seconds_from_now_and_not_61() -> None:
    for early in (59, 60):
        judge(make(), now=NOW - early)
    with pytest.raises(CredentialError, match="begins in 61 s: set the clocks"):
        judge(make(), now=NOW - 61)


def test_a_credential_that_ends_before_it_begins_is_neither_issued_nor_read() -> None:
    for validity in (0, -1):
        with pytest.raises(CredentialError, match="ends before it begins"):
            make(validity=validity)
        with pytest.raises(CredentialError, match="ends before it begins"):
            read_presentation(signed_by_hand(expires=NOW + validity))


def test_a_subject_past_the_sequence_that_its_credential_names_is_refused() -> None:
    judge(make(subject_seq=2), subject_seq=2)
    with pytest.raises(CredentialError, match=r"was issued to sequence 2 of .*, which is at 3 now"):
        judge(make(subject_seq=2), subject_seq=3)


def test_a_thief_of_a_subjects_older_key_cannot_use_what_was_issued_to_the_newer_one() -> None:
    with pytest.raises(CredentialError, match=r"was issued to sequence 2 of .*, which shows the older 1"):
        judge(make(subject_seq=2), subject_seq=1)


def test_a_credential_is_to_be_renewed_at_two_thirds_of_its_life() -> None:
    assert renew_at(read_presentation(make(validity=3600)).credential) == NOW + 2400
    assert renew_at(read_presentation(make(validity=1)).credential) == pytest.approx(NOW + 2 / 3)


# Records that are signed and wrong


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"issuer": bytes(31)},
        {"subject": bytes(33)},
        {"subject": "I" * 32},
        {"subject_seq": -1},
        {"subject_seq": 64},
        {"issuer_seq": 64},
        {"id": bytes(15)},
        {"not_before": -1},
        {"not_before": float(NOW)},
        {"expires": 253_402_300_800},
        {"expires": 2**64 - 1},
        {"attributes": {"team": "payments"}},
        {"attributes": [["team", 1.5]]},
        {"attributes": [["team", None]]},
        {"attributes": [["team", [1]]]},
        {"attributes": [["team", 2**63]]},
        {"attributes": [["team", "x" * 513]]},
        {"attributes": [["team", [str(number) for number in range(65)]]]},
        {"attributes": [["team"]]},
        {"attributes": [[f"a{number}", 1] for number in range(65)]},
        {"attributes": [["team", "a"], ["team", "b"]]},
        {"attributes": [["roles", ["a", "a"]]]},
        {"attributes": [["", 1]]},
        {"attributes": [["id", "I" + "0" * 64]]},
        {"attributes": [["node", "x"]]},
        {"attributes": [["a b", 1]]},
        {"attributes": [["if", 1]]},
        {"more": 1},
        {"revocations": []},
    ],
    ids=repr,
)
def test_a_malformed_credential_is_refused_though_its_issuer_signed_it(fields: dict[str, object]) -> None:
    assert judge(signed_by_hand(), anchors=OWN).attributes == {"team": "payments"}
    with pytest.raises(CredentialError):
        read_presentation(signed_by_hand(**fields))


def test_a_credential_past_its_size_is_refused() -> None:
    big = [[f"a{number}", "x" * 500] for number in range(9)]
    with pytest.raises(CredentialError, match="a credential may have 4096 bytes"):
        read_presentation(signed_by_hand(attributes=big))
    with pytest.raises(CredentialError, match="may have 23552 bytes"):
        read_presentation(bytes(PRESENTATION_BYTES_LIMIT + 1))


def test_a_full_credential_with_the_longest_history_and_a_full_list_fits() -> None:
    body = msgspec.msgpack.encode(
        [
            1,
            make_history(RECOVERY).identifier,
            63,
            2**63 - 1,
            NOW,
            NOW + 60,
            [bytes([number, *range(15)]) for number in range(256)],
            [[bytes([number, *range(31)]), 63] for number in range(64)],
        ]
    )
    revocations = [body, sign(derive_seed(RECOVERY, 63), "list", body)]
    full = [[f"a{number}", "x" * 480] for number in range(8)]
    encoded = signed_by_hand(seq=63, attributes=full, revocations=revocations)
    assert judge(encoded, anchors=OWN, subject_seq=0, now=NOW).issuer_seq == 63
    assert len(encoded) > 21_000


@given(st.binary(max_size=600))
def test_read_presentation_of_any_bytes_raises_its_one_error(data: bytes) -> None:
    with pytest.raises(CredentialError):
        read_presentation(data)


@settings(max_examples=200)
@given(st.lists(st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=40), max_size=9))
def test_a_credential_of_any_signed_fields_raises_its_one_error(fields: list[object]) -> None:
    try:
        body = msgspec.msgpack.encode(fields)
    except OverflowError:
        return
    signed = [body, SigningKey(derive_seed(RECOVERY, 0)).sign("credential", body)]
    with pytest.raises(CredentialError):
        read_presentation(msgspec.msgpack.encode([signed, make_history(RECOVERY).changes, None]))


# Issuing


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"attributes": {"if": 1}}, "'if' cannot name an attribute"),
        ({"attributes": {"node": "x"}}, "'node' cannot name an attribute"),
        ({"attributes": {"level": 2**63}}, "the value of 'level' does not fit"),
        ({"attributes": {"team": "\ud800"}}, "the value of 'team' does not fit"),
        ({"attributes": {f"a{number}": 1 for number in range(65)}}, "not a credential"),
        ({"attributes": {f"a{number}": "x" * 500 for number in range(9)}}, "may have 4096 bytes"),
        ({"subject": bytes(31)}, "not a credential"),
        ({"subject_seq": 64}, "not a credential"),
        ({"validity": 10**12}, "not a credential"),
    ],
)
def test_what_could_not_be_read_is_not_issued(changed: dict[str, object], why: str) -> None:
    with pytest.raises(CredentialError, match=why):
        make(**changed)


def test_a_closed_vault_issues_nothing() -> None:
    vault = Vault.in_memory()
    vault.close()
    with pytest.raises(VaultError, match="is closed"):
        make(vault)


# Files


def test_a_credential_is_written_as_text_and_read_back() -> None:
    encoded = make()
    text = to_text(encoded)
    assert text.startswith("-----BEGIN AUTONOMY CREDENTIAL-----\n")
    assert text.endswith("\n-----END AUTONOMY CREDENTIAL-----\n")
    assert from_text(text) == encoded


@given(st.text())
def test_from_text_of_any_text_raises_its_one_error(text: str) -> None:
    with pytest.raises(CredentialError):
        from_text(text)
