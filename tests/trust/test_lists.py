from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autonomy_trio.errors import CredentialError, VaultError
from autonomy_trio.trust.anchors import Anchor, Anchors
from autonomy_trio.trust.credentials import (
    Credential,
    encode_presentation,
    read_presentation,
    verify_presentations,
)
from autonomy_trio.trust.credentials import judge as judge_again
from autonomy_trio.trust.identity import History, derive_seed, make_change, make_history, verify_history
from autonomy_trio.trust.lists import (
    LIST_BYTES_LIMIT,
    RevocationList,
    Revocations,
    list_from_text,
    list_to_text,
    sign_list,
    verify_list,
)
from autonomy_trio.trust.records import SignatureContext, Signed, SigningKey, digest, sign
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.watcher import Mark, Watcher

NOW = 1_700_000_000
DAY = 86_400
RECOVERY, THIEF = bytes(range(32)), bytes(range(1, 33))
BORN, ROTATED, TWICE = (make_history(RECOVERY, seq) for seq in range(3))
ISSUER = BORN.identifier
ALICE, BOB = b"a" * 32, b"b" * 32
ID, OTHER_ID = b"1" * 16, b"2" * 16
VAULT = Vault.in_memory()


def trusting(staleness: int | None = None, longest: int = DAY, issuer: bytes = ISSUER) -> Anchors:
    return Anchors({issuer: Anchor(issuer, None, longest, staleness)}, None)


ANCHORS = trusting()
STRICT = trusting(3600)


def credential(history: History = BORN, issuer_seq: int = 0, **changed: object) -> bytes:
    """Present a credential of the issuer, signed with its key of a sequence, with a list beside it."""
    revocations = changed.pop("revocations", None)
    fields = {
        "version": 1,
        "issuer": ISSUER,
        "issuer_seq": issuer_seq,
        "subject": ALICE,
        "subject_seq": 0,
        "id": ID,
        "attributes": [["team", "payments"]],
        "not_before": NOW,
        "expires": NOW + DAY,
    } | changed
    body = msgspec.msgpack.encode(list(fields.values()))
    signed = Signed(body, sign(derive_seed(RECOVERY, issuer_seq), "credential", body))
    return encode_presentation(signed, history, revocations)


def signed_list(issuer_seq: int = 0, context: SignatureContext = "list", **changed: object) -> Signed:
    fields = {
        "version": 1,
        "issuer": ISSUER,
        "issuer_seq": issuer_seq,
        "seq": 1,
        "issued": NOW,
        "next_update": NOW + DAY,
        "credentials": [],
        "least": [],
    } | changed
    body = msgspec.msgpack.encode(list(fields.values()))
    return Signed(body, sign(derive_seed(RECOVERY, fields["issuer_seq"]), context, body))


def listing(history: History = BORN, **changed: object) -> RevocationList:
    return verify_list(signed_list(**changed), history)


def judge(encoded: bytes, revocations: Revocations, **changed: object) -> Credential:
    fields = {"subject": ALICE, "subject_seq": 0, "anchors": ANCHORS, "now": NOW} | changed
    accepted, refused = verify_presentations([encoded], revocations=revocations, **fields)
    for error in refused:
        raise error
    return accepted[0]


def told(*lists: RevocationList, history: History = BORN, anchors: Anchors = ANCHORS, now: float = NOW) -> Revocations:
    revocations = Revocations()
    revocations.learn(history, None, anchors=anchors, now=now)
    for each in lists:
        revocations.learn(history, each, anchors=anchors, now=now)
    return revocations


def forked(seq: int = 1) -> History:
    """The issuer's history as a thief of its key 1 would continue it: the promised key, and promises of its own."""
    changes = [make_change(RECOVERY, 0, None)]
    for number in range(1, seq + 1):
        content = msgspec.msgpack.decode(make_change(RECOVERY, number, changes[-1]).body)
        key = SigningKey(derive_seed(RECOVERY if number == 1 else THIEF, number))
        content[3:] = [key.public, digest("h-next", SigningKey(derive_seed(THIEF, number + 1)).public)]
        body = msgspec.msgpack.encode(content)
        changes.append(Signed(body, key.sign("change", body)))
    return verify_history(changes)


# What a list says


def test_a_list_says_what_was_signed() -> None:
    signed = sign_list(VAULT, seq=3, credentials={OTHER_ID, ID}, least={ALICE: 2}, now=NOW + 0.9, next_update=60)
    found = verify_list(signed, VAULT.history)
    assert (found.issuer, found.issuer_seq, found.seq) == (VAULT.identifier, 0, 3)
    assert (found.issued, found.next_update) == (NOW, NOW + 60)
    assert found.credentials == {ID, OTHER_ID}
    assert found.least == {ALICE: 2}


def test_a_list_is_written_as_text_with_its_issuers_history_and_read_back() -> None:
    signed = sign_list(VAULT, seq=1, credentials=[], least={}, now=NOW)
    text = list_to_text(signed, VAULT.history.changes)
    assert text.startswith("-----BEGIN AUTONOMY REVOCATION LIST-----\n")
    found, history = list_from_text(text)
    assert (found.signed, history) == (signed, VAULT.history)
    assert found.next_update == NOW + DAY


def test_a_full_list_fits_and_one_line_more_is_refused() -> None:
    ids = [number.to_bytes(16, "big") for number in range(257)]
    least = {number.to_bytes(32, "big"): 63 for number in range(65)}
    full = {"credentials": ids[:256], "least": dict(list(least.items())[:64])}
    signed = sign_list(VAULT, seq=2**63 - 1, now=NOW, **full)
    assert 6900 < len(signed.body) <= LIST_BYTES_LIMIT
    with pytest.raises(CredentialError, match="names at most 256 credentials and this one would name 257"):
        sign_list(VAULT, seq=1, now=NOW, **full | {"credentials": ids})
    with pytest.raises(CredentialError, match="names at most 64 least sequences and this one would name 65"):
        sign_list(VAULT, seq=1, now=NOW, **full | {"least": least})


def test_a_closed_vault_signs_no_list() -> None:
    vault = Vault.in_memory()
    vault.close()
    with pytest.raises(VaultError, match="is closed"):
        sign_list(vault, seq=1, credentials=[], least={}, now=NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"issuer": bytes(31)},
        {"issuer": ALICE},
        {"seq": 0},
        {"seq": 2**63},
        {"issued": -1},
        {"issued": float(NOW)},
        {"next_update": NOW},
        {"next_update": 2**62},
        {"credentials": None},
        {"credentials": [bytes(15)]},
        {"credentials": [ID, ID]},
        {"credentials": [number.to_bytes(16, "big") for number in range(257)]},
        {"least": {ALICE: 1}},
        {"least": [[ALICE, 64]]},
        {"least": [[ALICE, -1]]},
        {"least": [[ALICE, 1], [ALICE, 2]]},
        {"least": [[number.to_bytes(32, "big"), 1] for number in range(65)]},
        {"more": 1},
    ],
    ids=repr,
)
def test_a_malformed_list_is_refused_though_its_issuer_signed_it(fields: dict[str, object]) -> None:
    assert listing().credentials == frozenset()
    with pytest.raises(CredentialError):
        listing(**fields)


def test_a_list_of_another_signer_purpose_or_sequence_is_refused() -> None:
    with pytest.raises(CredentialError, match="is not signed by"):
        listing(context="credential")
    with pytest.raises(CredentialError, match="which the history that came with it does not show"):
        listing(issuer_seq=1)
    mine = sign_list(VAULT, seq=1, credentials=[], least={}, now=NOW)
    with pytest.raises(CredentialError, match="as its issuer, which the history"):
        verify_list(mine, BORN)


def test_a_list_with_any_bit_flipped_or_cut_off_is_refused() -> None:
    signed = signed_list(credentials=[ID], least=[[ALICE, 1]])
    for index in range(len(signed.body)):
        with pytest.raises(CredentialError):
            verify_list(Signed(signed.body[:index], signed.signature), BORN)
        for bit in range(8):
            body = signed.body[:index] + bytes([signed.body[index] ^ 1 << bit]) + signed.body[index + 1 :]
            with pytest.raises(CredentialError):
                verify_list(Signed(body, signed.signature), BORN)
    with pytest.raises(CredentialError, match="may have 7168 bytes"):
        verify_list(Signed(bytes(7169), signed.signature), BORN)


@settings(max_examples=200)
@given(
    st.lists(
        st.none() | st.integers(-1, 3) | st.binary(max_size=33) | st.lists(st.binary(max_size=16), max_size=3),
        max_size=9,
    )
)
def test_a_list_of_any_signed_fields_raises_its_one_error(fields: list[object]) -> None:
    body = msgspec.msgpack.encode(fields)
    with pytest.raises(CredentialError):
        verify_list(Signed(body, SigningKey(derive_seed(RECOVERY, 0)).sign("list", body)), BORN)


@given(st.text() | st.binary(max_size=200).map(lambda data: list_to_text(Signed(data, bytes(64)), BORN.changes)))
def test_list_from_text_of_any_text_raises_its_one_error(text: str) -> None:
    with pytest.raises(CredentialError):
        list_from_text(text)


def test_a_list_with_a_history_that_does_not_verify_is_refused() -> None:
    with pytest.raises(CredentialError, match=r"the revocation list cannot be accepted: .* history"):
        list_from_text(list_to_text(signed_list(), []))


# What is taken back counts no more


def test_a_revoked_credential_is_refused_and_another_is_not() -> None:
    revocations = told(listing(credentials=[OTHER_ID]))
    judge(credential(), revocations)
    with pytest.raises(CredentialError, match=f"{OTHER_ID.hex()} was revoked by I"):
        judge(credential(id=OTHER_ID), revocations)


def test_a_subject_past_its_least_sequence_is_refused_and_another_is_not() -> None:
    revocations = told(listing(least=[[ALICE, 2]]))
    with pytest.raises(CredentialError, match="counts from its sequence 2 on, and the credential names 1"):
        judge(credential(subject_seq=1), revocations, subject_seq=1)
    judge(credential(subject_seq=2), revocations, subject_seq=2)
    judge(credential(subject=BOB), revocations, subject=BOB)


def test_a_list_that_comes_with_the_credential_it_revokes_counts() -> None:
    with pytest.raises(CredentialError, match="was revoked"):
        judge(credential(revocations=signed_list(credentials=[ID])), Revocations())


def test_a_list_that_comes_with_one_credential_speaks_of_those_before_it_too() -> None:
    shown = [credential(), credential(id=OTHER_ID, revocations=signed_list(credentials=[ID]))]
    accepted, refused = verify_presentations(
        shown, subject=ALICE, subject_seq=0, anchors=ANCHORS, revocations=Revocations(), now=NOW
    )
    assert [each.id for each in accepted] == [OTHER_ID]
    assert [str(error) for error in refused] == [
        f"the credential {ID.hex()} was revoked by I{ISSUER.hex()}: ask it for a new one"
    ]


def test_a_credential_that_counted_is_revoked_in_the_next_generation() -> None:
    revocations = told()
    counted = judge(credential(), revocations)
    before = revocations.generation
    revocations.learn(BORN, listing(credentials=[ID]), anchors=ANCHORS, now=NOW)
    assert revocations.generation > before
    with pytest.raises(CredentialError, match="was revoked"):
        judge_again(counted, subject=ALICE, subject_seq=0, anchors=ANCHORS, revocations=revocations, now=NOW)


def test_a_list_is_obeyed_whatever_its_age_where_the_anchor_requires_none() -> None:
    revocations = told(listing(credentials=[ID]))
    with pytest.raises(CredentialError, match="was revoked"):
        judge(credential(expires=NOW + 9 * DAY), revocations, anchors=trusting(longest=9 * DAY), now=NOW + 8 * DAY)


# The newest list is kept


def test_an_older_list_does_not_take_the_place_of_a_newer_one() -> None:
    revocations = told(listing(seq=2, credentials=[ID]))
    generation = revocations.generation
    with pytest.raises(CredentialError, match="was revoked"):
        judge(credential(revocations=signed_list(seq=1)), revocations)
    assert revocations.generation == generation
    kept = revocations.newest(ISSUER)
    assert kept is not None
    assert kept.seq == 2


def test_a_newer_list_that_no_longer_names_a_credential_gives_it_back() -> None:
    judge(credential(revocations=signed_list(seq=3)), told(listing(seq=2, credentials=[ID])))


def test_of_two_lists_with_one_number_the_first_stays_and_the_second_is_reported() -> None:
    revocations = told(listing(credentials=[ID]))
    with pytest.raises(CredentialError, match=r"two revocation lists of .* have the number 1, and the one seen first"):
        judge(credential(revocations=signed_list()), revocations)
    with pytest.raises(CredentialError, match="was revoked"):
        judge(credential(), revocations)


def test_the_same_list_again_changes_nothing() -> None:
    revocations = told(listing())
    generation = revocations.generation
    judge(credential(revocations=signed_list()), revocations)
    assert revocations.generation == generation


def test_a_list_from_more_than_a_minute_ahead_is_refused() -> None:
    judge(credential(revocations=signed_list(issued=NOW + 60)), Revocations())
    with pytest.raises(CredentialError, match="was signed 61 s from now: set the clocks"):
        judge(credential(revocations=signed_list(issued=NOW + 61)), Revocations())


def test_a_newer_key_that_comes_with_a_wrong_list_is_remembered_all_the_same() -> None:
    revocations = told()
    with pytest.raises(CredentialError, match="set the clocks"):
        judge(credential(ROTATED, revocations=signed_list(issued=NOW + 61)), revocations)
    judge(credential(revocations=signed_list()), revocations)
    assert revocations.newest(ISSUER) is None, "a list of an older key was taken"


def test_who_is_no_anchor_leaves_nothing_behind() -> None:
    revocations = Revocations()
    with pytest.raises(CredentialError, match="is no trust anchor here"):
        judge(credential(revocations=signed_list()), revocations, anchors=trusting(issuer=BOB))
    assert (revocations.newest(ISSUER), revocations.generation) == (None, 0)


# Where the anchor requires a list


def test_a_required_list_that_did_not_come_fails_closed() -> None:
    with pytest.raises(CredentialError, match="requires a revocation list and none came"):
        judge(credential(), Revocations(), anchors=STRICT)


def test_a_list_that_was_seen_before_need_not_come_again() -> None:
    judge(credential(), told(listing(), anchors=STRICT), anchors=STRICT)


def test_a_stale_list_fails_closed_at_the_second_that_the_anchor_says() -> None:
    revocations = told(listing(), anchors=STRICT)
    assert judge(credential(), revocations, anchors=STRICT, now=NOW + 3599).counts_until == NOW + 3600
    with pytest.raises(CredentialError, match="is stale since 0 s, and its anchor requires a fresh one"):
        judge(credential(), revocations, anchors=STRICT, now=NOW + 3600)


def test_a_list_past_the_next_update_that_it_promised_is_stale() -> None:
    revocations = told(listing(next_update=NOW + 60), anchors=STRICT)
    assert judge(credential(), revocations, anchors=STRICT, now=NOW + 59).counts_until == NOW + 60
    with pytest.raises(CredentialError, match="is stale"):
        judge(credential(), revocations, anchors=STRICT, now=NOW + 60)


def test_a_fresh_list_makes_its_issuers_credentials_count_again() -> None:
    revocations = told(listing(), anchors=STRICT)
    later = NOW + 7200
    judge(credential(revocations=signed_list(seq=2, issued=later)), revocations, anchors=STRICT, now=later)


# After an issuer's rotation


def test_an_issuers_older_key_counts_for_the_longest_validity_after_its_rotation_was_seen() -> None:
    anchors, revocations = trusting(longest=3600), Revocations()
    old = credential(expires=NOW + 3600)
    assert judge(old, revocations, anchors=anchors).counts_until == NOW + 3600
    seen = NOW + 100
    revocations.learn(ROTATED, None, anchors=anchors, now=seen)
    judge(old, revocations, anchors=anchors, now=NOW + 3599)
    # Whoever stole the older key can say any time it likes, and gains no more than that hour.
    backdated = credential(not_before=seen + 3000, expires=seen + 6600)
    assert judge(backdated, revocations, anchors=anchors, now=seen + 3599).counts_until == seen + 3600
    with pytest.raises(CredentialError, match=r"was signed by key 0 of .*, which is at 1 for longer than its anchor"):
        judge(backdated, revocations, anchors=anchors, now=seen + 3600)


def test_an_issuers_newer_key_counts_at_once() -> None:
    revocations = told()
    assert judge(credential(ROTATED, 1), revocations).issuer_seq == 1
    assert revocations.generation == 2


def test_each_older_key_ends_by_when_it_was_seen_to_be_past() -> None:
    anchors, revocations = trusting(longest=1000), told(now=NOW)
    revocations.learn(ROTATED, None, anchors=anchors, now=NOW + 100)
    revocations.learn(TWICE, None, anchors=anchors, now=NOW + 200)
    late, life = NOW + 900, {"not_before": NOW + 900, "expires": NOW + 1900}
    shown = [credential(TWICE, seq, **life) for seq in range(3)]
    ends = [judge(each, revocations, anchors=anchors, now=late).counts_until for each in shown]
    assert ends == [NOW + 1100, NOW + 1200, NOW + 1900]


def test_a_list_ends_its_issuers_older_keys_at_once() -> None:
    revocations = told(listing(ROTATED, issuer_seq=1, least=[[ISSUER, 1]]), history=ROTATED)
    with pytest.raises(
        CredentialError, match=f"I{ISSUER.hex()} counts from its sequence 1 on, and the credential names 0"
    ):
        judge(credential(), revocations)
    judge(credential(ROTATED, 1), revocations)


def test_a_list_by_a_newer_key_comes_after_every_list_by_an_older_one() -> None:
    revocations = told(listing(seq=2**63 - 1))
    with pytest.raises(CredentialError, match="was revoked"):
        judge(credential(ROTATED, revocations=signed_list(1, seq=1, credentials=[ID])), revocations)


def test_a_thief_of_an_issuers_older_key_cannot_give_back_what_was_revoked() -> None:
    revocations = told(listing(credentials=[ID]))
    revocations.learn(ROTATED, None, anchors=ANCHORS, now=NOW)
    with pytest.raises(CredentialError, match="was revoked"):
        judge(credential(revocations=signed_list(seq=9)), revocations)


def test_a_history_that_contradicts_the_one_seen_first_is_refused() -> None:
    revocations = told(history=ROTATED)
    with pytest.raises(CredentialError, match="has two changes of sequence 1: the one seen first stays"):
        judge(credential(forked(), 1), revocations)
    judge(credential(ROTATED, 1), revocations)


def started_again(remembered: list[Mark]) -> Revocations:
    return Revocations(Watcher([ISSUER], remembered[-1:], remember=remembered.append))


def test_a_key_that_was_rotated_away_gains_no_time_by_a_restart_of_the_verifier() -> None:
    """Its thief shows the history of before, and nobody has shown the longer one since the start."""
    remembered: list[Mark] = []
    started_again(remembered).learn(ROTATED, None, anchors=ANCHORS, now=NOW)
    again = started_again(remembered)
    late = NOW + DAY
    judge(credential(not_before=late - 10, expires=late + 10), again, now=late - 1)
    again = started_again(remembered)
    with pytest.raises(CredentialError, match=r"was signed by key 0 of .*, which is at 1 for longer than its anchor"):
        judge(credential(not_before=late - 10, expires=late + 10), again, now=late)


def test_a_key_that_was_rotated_away_signs_no_list_after_a_restart_of_the_verifier() -> None:
    remembered: list[Mark] = []
    started_again(remembered).learn(ROTATED, None, anchors=STRICT, now=NOW)
    with pytest.raises(CredentialError, match="requires a revocation list"):
        judge(credential(revocations=signed_list(seq=9)), started_again(remembered), anchors=STRICT)


def test_a_shorter_history_that_left_the_known_one_earlier_is_refused() -> None:
    """A thief of key 1 goes on from it on its own; its owner had gone further by then."""
    revocations = told(history=make_history(RECOVERY, 3))
    body = msgspec.msgpack.decode(read_presentation(credential(TWICE, 2)).signed.body)
    encoded = msgspec.msgpack.encode(body)
    signed = Signed(encoded, sign(derive_seed(THIEF, 2), "credential", encoded))
    with pytest.raises(CredentialError, match="two changes of sequence 1"):
        judge(encode_presentation(signed, forked(2), None), revocations)
    judge(credential(TWICE, 2), revocations)


def test_an_anchor_that_was_caught_with_two_histories_counts_for_nothing_until_it_is_forgiven() -> None:
    watcher = Watcher([ISSUER])
    revocations = Revocations(watcher)
    counted = judge(credential(ROTATED, 1), revocations)
    before = revocations.generation
    with pytest.raises(CredentialError, match="has two changes of sequence 1"):
        judge(credential(forked(), 1), revocations)
    assert revocations.generation > before
    with pytest.raises(CredentialError, match="was seen with two histories and counts for nothing"):
        judge_again(counted, subject=ALICE, subject_seq=0, anchors=ANCHORS, revocations=revocations, now=NOW)
    mark = watcher.get(ISSUER)
    assert mark is not None
    forgiving = Watcher([ISSUER], [msgspec.structs.replace(mark, is_forgiven=True)])
    judge(credential(ROTATED, 1), Revocations(forgiving))


def test_an_older_history_of_an_issuer_still_shows_what_it_signed() -> None:
    revocations = told(history=ROTATED)
    generation = revocations.generation
    judge(credential(BORN, 0), revocations)
    assert revocations.generation == generation


def test_a_presentation_takes_a_newer_list_and_the_longer_history() -> None:
    shown = read_presentation(credential(BORN))
    renewed = shown.with_list(listing(ROTATED, issuer_seq=1, credentials=[OTHER_ID]), ROTATED)
    again = read_presentation(renewed.encode())
    assert again.credential == shown.credential
    assert again.history == ROTATED
    assert again.revocations is not None
    assert again.revocations.credentials == {OTHER_ID}
    assert read_presentation(again.with_list(None, BORN).encode()) == shown.with_list(None, ROTATED)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans(), st.sampled_from([0, 30, 4000])), max_size=8)
)
def test_whatever_lists_come_in_whatever_order_the_last_in_order_is_obeyed(
    shown: list[tuple[int, int, bool, int]],
) -> None:
    """A model of the rule: the highest place among those that were not older than the newest sequence then seen."""
    revocations, highest, newest_seq = Revocations(), None, 0
    histories = (BORN, ROTATED, TWICE)
    for issuer_seq, seq, takes_back, later in shown:
        history = histories[issuer_seq]
        new = listing(history, issuer_seq=issuer_seq, seq=seq, credentials=[ID] if takes_back else [])
        with suppress(CredentialError):
            revocations.learn(history, new, anchors=ANCHORS, now=NOW + later)
        if issuer_seq >= newest_seq and (highest is None or new.place > highest.place):
            highest, newest_seq = new, issuer_seq
    kept = revocations.newest(ISSUER)
    assert kept == highest
