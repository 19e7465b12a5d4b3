from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autonomy_trio.errors import IdentityError
from autonomy_trio.trust.identity import (
    ATTESTATION_LIFE_LIMIT,
    BUNDLE_BYTES_LIMIT,
    CHANGES_LIMIT,
    Attestation,
    Change,
    History,
    Prekey,
    derive_seed,
    encode_bundle,
    make_change,
    make_history,
    verify_bundle,
    verify_history,
)
from autonomy_trio.trust.records import Signed, SigningKey, digest, sign_record

RECOVERY = bytes(range(32))
OTHER = bytes(range(1, 33))
NOW = 1_700_000_000
WEEK = 7 * 24 * 3600


def changes(count: int, recovery: bytes = RECOVERY) -> list[Signed]:
    return list(make_history(recovery, count - 1).changes)


def change_by(signer: SigningKey, **fields: object) -> Signed:
    values = {"version": 1, "seq": 0, "previous": None, "key": signer.public, "next_key_hash": bytes(32)} | fields
    return sign_record(signer, "change", Change(**values))


def bundle(history: History | None = None, signer: SigningKey | None = None, **fields: object) -> bytes:
    history = history or make_history(RECOVERY)
    values = {
        "identifier": history.identifier,
        "seq": history.seq,
        "session_key": b"s" * 32,
        "signing_key": b"g" * 32,
        "prekeys": (),
        "not_before": NOW,
        "expires": NOW + WEEK,
    }
    signer = signer or SigningKey(derive_seed(RECOVERY, history.seq))
    return encode_bundle(history, sign_record(signer, "attest", Attestation(**values | fields)))


BUNDLE = bundle()
ROTATED_BUNDLE = bundle(make_history(RECOVERY, 2))


def refused(data: bytes) -> bool:
    try:
        verify_bundle(data, NOW)
    except IdentityError:
        return True
    return False


# The history


def test_a_change_made_again_has_the_same_bytes() -> None:
    assert changes(3) == changes(3)
    assert make_change(RECOVERY, 1, changes(1)[0]) == changes(2)[1]


def test_the_bytes_of_an_identity_are_these_for_good() -> None:
    history = make_history(RECOVERY, 1)
    assert history.identifier.hex() == "c9f1121b66cbd8011b16288517f9a9fa9ffcae91a065aa4a4a5fd00476d8a6ab"
    assert (
        digest("h-body", b"".join(change.body for change in history.changes)).hex()
        == "244c680e249a9837425fccbae7a847c5d3702459cc2c4ec1584bc1336b0cd5ef"
    )


def test_the_identifier_is_the_hash_of_the_first_change_and_never_changes() -> None:
    first = changes(1)[0]
    for count in range(1, 6):
        history = verify_history(changes(count))
        assert history.identifier == digest("h-id", first.body)
        assert history.seq == count - 1
        assert history.key == history.keys[-1] == SigningKey(derive_seed(RECOVERY, count - 1)).public


def test_a_history_of_64_changes_verifies_and_one_of_65_or_none_does_not() -> None:
    longest = changes(CHANGES_LIMIT)
    assert verify_history(longest).seq == 63
    for wrong in ([*longest, longest[-1]], []):
        with pytest.raises(IdentityError, match="1 to 64 changes"):
            verify_history(wrong)


def test_no_change_is_made_that_could_not_be_verified() -> None:
    first = changes(1)[0]
    for seq, previous in [(CHANGES_LIMIT, first), (-1, first), (1, None), (0, first)]:
        with pytest.raises(ValueError, match="cannot be made"):
            make_change(RECOVERY, seq, previous)


def test_a_recovery_secret_of_a_wrong_length_makes_nothing() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        derive_seed(bytes(31), 0)


def test_a_thief_with_the_current_key_cannot_rotate_while_the_owner_can() -> None:
    history = make_history(RECOVERY)
    current, own = SigningKey(derive_seed(RECOVERY, 0)), SigningKey(derive_seed(OTHER, 7))
    previous = digest("h-prev", history.changes[0].body)
    for thief in (current, own):
        forged = change_by(thief, seq=1, previous=previous)
        with pytest.raises(IdentityError, match="did not promise"):
            verify_history([*history.changes, forged])
    rotated = verify_history([*history.changes, make_change(RECOVERY, 1, history.changes[0])])
    assert rotated.identifier == history.identifier
    assert rotated.key != history.key


def test_a_thief_who_knows_the_next_public_key_cannot_sign_for_it() -> None:
    history = make_history(RECOVERY)
    current, following = SigningKey(derive_seed(RECOVERY, 0)), SigningKey(derive_seed(RECOVERY, 1))
    forged = change_by(current, key=following.public, seq=1, previous=digest("h-prev", history.changes[0].body))
    with pytest.raises(IdentityError, match="not signed by the key it names"):
        verify_history([*history.changes, forged])


def test_a_history_with_a_change_left_out_doubled_or_swapped_is_refused() -> None:
    first, second, third = changes(3)
    for wrong in ([second], [first, third], [first, first], [first, third, second], [second, first]):
        with pytest.raises(IdentityError, match="does not follow"):
            verify_history(wrong)


def test_a_change_of_another_identity_does_not_follow() -> None:
    with pytest.raises(IdentityError, match="does not follow"):
        verify_history([changes(1)[0], changes(2, OTHER)[1]])


def test_a_first_change_names_no_previous_one() -> None:
    with pytest.raises(IdentityError, match="does not follow"):
        verify_history([change_by(SigningKey(RECOVERY), previous=bytes(32))])


@pytest.mark.parametrize(
    "fields",
    [{"version": 2}, {"seq": -1}, {"seq": 64}, {"key": bytes(31)}, {"next_key_hash": bytes(33)}, {"seq": "0"}],
)
def test_a_change_that_is_malformed_is_refused_though_it_is_signed(fields: dict[str, object]) -> None:
    with pytest.raises(IdentityError, match="not a change of an identity"):
        verify_history([change_by(SigningKey(RECOVERY), **fields)])


def test_a_history_shows_which_key_spoke_at_each_sequence() -> None:
    assert make_history(RECOVERY, 2).keys == tuple(SigningKey(derive_seed(RECOVERY, seq)).public for seq in range(3))


# The bundle


def test_a_bundle_says_who_it_is_and_which_keys_it_attests() -> None:
    read = verify_bundle(ROTATED_BUNDLE, NOW)
    history = make_history(RECOVERY, 2)
    assert (read.identifier, read.seq, read.key) == (history.identifier, 2, history.key)
    assert (read.session_key, read.signing_key, read.prekeys) == (b"s" * 32, b"g" * 32, ())
    assert (read.not_before, read.expires) == (NOW, NOW + WEEK)
    assert read.history == history
    assert read.encoded == ROTATED_BUNDLE


@pytest.mark.parametrize("data", [BUNDLE, ROTATED_BUNDLE], ids=["born", "rotated"])
def test_a_bundle_with_any_bit_flipped_is_refused(data: bytes) -> None:
    for index in range(len(data)):
        for bit in range(8):
            assert refused(data[:index] + bytes([data[index] ^ 1 << bit]) + data[index + 1 :]), (index, bit)


def test_a_bundle_cut_off_anywhere_or_with_a_byte_too_many_is_refused() -> None:
    for length in range(len(ROTATED_BUNDLE)):
        assert refused(ROTATED_BUNDLE[:length])
    assert refused(ROTATED_BUNDLE + b"\x00")


def test_a_bundle_without_a_history_is_refused() -> None:
    assert refused(msgspec.msgpack.encode([[], Signed(b"", bytes(64))]))


def test_an_attestation_by_a_key_that_was_rotated_away_is_refused() -> None:
    history = make_history(RECOVERY, 1)
    with pytest.raises(IdentityError, match="not signed by its current key"):
        verify_bundle(bundle(history, SigningKey(derive_seed(RECOVERY, 0))), NOW)


def test_an_attestation_of_another_identity_or_sequence_is_refused() -> None:
    for fields in ({"identifier": make_history(OTHER).identifier}, {"seq": 1}):
        with pytest.raises(IdentityError, match="another identity or of another of its keys"):
            verify_bundle(bundle(**fields), NOW)


def test_the_attestation_of_another_bundle_is_refused() -> None:
    theirs = msgspec.msgpack.decode(bundle(make_history(OTHER), SigningKey(derive_seed(OTHER, 0))))
    ours = msgspec.msgpack.decode(BUNDLE)
    assert refused(msgspec.msgpack.encode([ours[0], theirs[1]]))


def test_a_signature_for_another_purpose_attests_nothing() -> None:
    history = make_history(RECOVERY)
    content = msgspec.msgpack.decode(msgspec.msgpack.decode(BUNDLE)[1][0], type=Attestation)
    signed = sign_record(SigningKey(derive_seed(RECOVERY, 0)), "credential", content)
    assert refused(encode_bundle(history, signed))


@pytest.mark.parametrize("life", [ATTESTATION_LIFE_LIMIT + 1, 0, -1])
def test_an_attestation_may_be_valid_for_one_second_to_seven_days(life: int) -> None:
    assert verify_bundle(bundle(expires=NOW + 1), NOW).expires == NOW + 1
    with pytest.raises(IdentityError, match="1 to 604800 s are allowed"):
        verify_bundle(bundle(expires=NOW + life), NOW)


def test_an_attestation_is_refused_from_the_moment_it_expires() -> None:
    verify_bundle(BUNDLE, NOW + WEEK - 0.001)
    with pytest.raises(IdentityError, match="expired 3,600 s ago"):
        verify_bundle(BUNDLE, NOW + WEEK + 3600)
    with pytest.raises(IdentityError, match="expired 0 s ago"):
        verify_bundle(BUNDLE, NOW + WEEK)


def test_an_attestation_may_begin_59_seconds_from_now_and_not_61() -> None:
    verify_bundle(BUNDLE, NOW - 59)
    verify_bundle(BUNDLE, NOW - 60)
    with pytest.raises(IdentityError, match="begins in 61 s"):
        verify_bundle(BUNDLE, NOW - 61)


def test_a_bundle_holds_sixteen_prekeys_and_no_more() -> None:
    keys = tuple(Prekey(number, bytes([number]) * 32) for number in range(17))
    assert verify_bundle(bundle(prekeys=keys[:16]), NOW).prekeys == keys[:16]
    with pytest.raises(IdentityError, match="not an identity's attestation"):
        verify_bundle(bundle(prekeys=keys), NOW)


def test_a_bundle_past_8_kib_is_neither_made_nor_read() -> None:
    assert BUNDLE_BYTES_LIMIT == 8192
    with pytest.raises(IdentityError, match="too many for a bundle of 8192 bytes"):
        bundle(make_history(RECOVERY, 60))
    with pytest.raises(IdentityError, match="may have 8192 bytes"):
        verify_bundle(bytes(8193), NOW)


def test_a_bundle_of_forty_changes_fits_with_all_its_prekeys() -> None:
    data = bundle(
        make_history(RECOVERY, 39),
        prekeys=tuple(Prekey(2**32 - 1 - number, bytes([number]) * 32) for number in range(16)),
    )
    assert verify_bundle(data, NOW).seq == 39


def test_the_repr_of_a_bundle_is_short() -> None:
    assert len(repr(verify_bundle(BUNDLE, NOW))) < 1000


@given(st.binary(max_size=400), st.floats(min_value=0, max_value=1e11))
def test_verify_bundle_of_any_bytes_raises_its_one_error(data: bytes, now: float) -> None:
    with pytest.raises(IdentityError):
        verify_bundle(data, now)


@settings(max_examples=300)
@given(st.data())
def test_verify_bundle_of_spliced_bytes_raises_its_one_error(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(ROTATED_BUNDLE)))
    end = data.draw(st.integers(start, len(ROTATED_BUNDLE)))
    inner = data.draw(st.binary(max_size=40))
    spliced = ROTATED_BUNDLE[:start] + inner + ROTATED_BUNDLE[end:]
    if spliced != ROTATED_BUNDLE:
        # Another way to write the same array would be the same bundle, and is the only thing that may pass.
        with suppress(IdentityError):
            assert verify_bundle(spliced, NOW).history == make_history(RECOVERY, 2)


@given(st.lists(st.builds(Signed, st.binary(max_size=200), st.binary(min_size=64, max_size=64)), max_size=70))
def test_verify_history_of_any_records_raises_its_one_error(records: list[Signed]) -> None:
    with pytest.raises(IdentityError):
        verify_history(records)
