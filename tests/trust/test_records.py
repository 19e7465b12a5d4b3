import base64
import hashlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey as NaClSigningKey

from autonomy_trio.errors import AddressError, CredentialError, IdentityError
from autonomy_trio.trust.records import (
    Signed,
    SigningKey,
    decode_record,
    digest,
    format_identifier,
    from_block,
    parse_identifier,
    sign,
    to_block,
    verify,
)

SEED = bytes(range(32))
LABEL = "AUTONOMY THING"


def test_a_signature_is_ed25519_over_the_domain_separated_bytes() -> None:
    expected = NaClSigningKey(SEED).sign(b"autonomy/1/hs\x00data").signature
    assert sign(SEED, "hs", b"data") == expected
    assert SigningKey(SEED).public == bytes(NaClSigningKey(SEED).verify_key)


def test_a_digest_is_blake2b_256_over_the_domain_separated_bytes() -> None:
    assert digest("h-id", b"data") == hashlib.blake2b(b"autonomy/1/h-id\x00data", digest_size=32).digest()


def test_a_signature_for_one_purpose_is_worth_nothing_for_another() -> None:
    public = SigningKey(SEED).public
    signature = sign(SEED, "attest", b"data")
    assert verify(public, "attest", b"data", signature)
    assert not verify(public, "credential", b"data", signature)
    assert not verify(public, "attest", b"date", signature)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)])
def test_a_key_that_is_none_or_of_low_order_verifies_nothing(public: bytes) -> None:
    assert not verify(public, "hs", b"data", sign(SEED, "hs", b"data"))


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65), bytes(64)])
def test_a_signature_that_is_none_does_not_verify(signature: bytes) -> None:
    assert not verify(SigningKey(SEED).public, "hs", b"data", signature)


def test_a_signature_has_one_encoding() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = sign(SEED, "hs", b"data")
    other = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not verify(SigningKey(SEED).public, "hs", b"data", other)


def test_an_unknown_context_is_an_error_of_the_program() -> None:
    with pytest.raises(KeyError):
        sign(SEED, "nonsense", b"data")  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        verify(bytes(32), "h-id", b"data", bytes(64))  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        digest("hs", b"data")  # type: ignore[arg-type]


def test_a_seed_of_a_wrong_length_makes_no_key() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        SigningKey(bytes(31))


def test_a_signing_key_shows_no_secret() -> None:
    text = repr(SigningKey(SEED)) + str(SigningKey(SEED))
    assert SEED.hex() not in text
    assert repr(SEED)[2:-1] not in text


def test_an_identifier_is_written_as_i_and_64_hex_digits_and_read_back() -> None:
    text = format_identifier(SEED)
    assert text == "I" + SEED.hex()
    assert parse_identifier(text) == SEED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I",
        "I" + "0" * 63,
        "I" + "0" * 65,
        "i" + "0" * 64,
        "I" + "A" * 64,
        "I" + "0" * 64 + "\n",
        "I" + "\u0660" * 64,
    ],
)
def test_a_text_that_is_no_identifier_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="write I and 64 lower-case hex digits"):
        parse_identifier(text)


def test_the_error_about_a_long_text_is_short() -> None:
    with pytest.raises(AddressError) as caught:
        parse_identifier("x" * 10_000)
    assert len(str(caught.value)) < 250


@given(st.text())
def test_parse_identifier_returns_32_bytes_or_raises_its_one_error(text: str) -> None:
    with suppress(AddressError):
        assert format_identifier(parse_identifier(text)) == text


SIGNED = msgspec.msgpack.Decoder(Signed)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xdd\xff\xff\xff\xff",  # an array that claims four thousand million members
        b"\x91" * 100,
        b"\x92\xc4\x00\xc4\x40" + bytes(63),  # cut off
        b"\x92\xc4\x00\xc4\x3f" + bytes(63),  # a short signature
        b"\x93\xc4\x00\xc4\x40" + bytes(64) + b"\xc0",  # an unknown field
        b"\x92\xc4\x00\xc4\x40" + bytes(64) + b"\xc0",  # a trailing byte
        b"\x92\xa0\xc4\x40" + bytes(64),  # text for bytes
    ],
)
def test_bytes_that_are_no_record_raise_the_error_that_was_asked_for(data: bytes) -> None:
    with pytest.raises(IdentityError, match="this is not a thing"):
        decode_record(SIGNED, data, 200, "a thing", IdentityError)


def test_nesting_and_bad_text_raise_the_error_that_was_asked_for() -> None:
    with pytest.raises(CredentialError):
        decode_record(msgspec.msgpack.Decoder(object), b"\x91" * 100_000 + b"\xc0", 200_000, "a thing", CredentialError)
    with pytest.raises(CredentialError):
        decode_record(msgspec.msgpack.Decoder(str), b"\xa1\xff", 200, "a thing", CredentialError)


def test_a_record_past_its_limit_is_not_looked_at() -> None:
    data = msgspec.msgpack.encode(Signed(bytes(10), bytes(64)))
    assert decode_record(SIGNED, data, len(data), "a thing", IdentityError).body == bytes(10)
    with pytest.raises(IdentityError, match=f"may have {len(data) - 1} bytes and this one has {len(data)}"):
        decode_record(SIGNED, data, len(data) - 1, "a thing", IdentityError)


@given(st.binary(max_size=300))
def test_decode_record_returns_a_record_or_raises_the_one_error(data: bytes) -> None:
    with suppress(IdentityError):
        decode_record(SIGNED, data, 300, "a thing", IdentityError)


@given(st.binary(max_size=200))
def test_a_block_is_read_back_with_any_line_ends(data: bytes) -> None:
    text = to_block(LABEL, data)
    assert max(map(len, text.splitlines())) <= 64
    for variant in (text, text.replace("\n", "\r\n"), f"\n  {text}\n\n", text.strip()):
        assert from_block(LABEL, variant, 200, CredentialError) == data


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not one block"),
        ("-----BEGIN AUTONOMY THING-----", "not one block"),
        ("-----END AUTONOMY THING-----", "not one block"),
        ("-----BEGIN AUTONOMY THING----------END AUTONOMY", "not one block"),
        (to_block("OTHER", b"data"), "not one block"),
        ("before " + to_block(LABEL, b"data"), "not one block"),
        (to_block(LABEL, b"data") * 2, "more than one"),
        (to_block(LABEL, b"data").replace("Z", "*"), "damaged"),
        (to_block(LABEL, b"data").replace("=", ""), "damaged"),
        (to_block(LABEL, b"data").replace("Z", "é"), "damaged"),
        (to_block(LABEL, bytes(101)), "more than the 100"),
        (to_block(LABEL, bytes(10_000)), "too long"),
    ],
)
def test_a_text_that_is_not_one_whole_block_is_refused(text: str, why: str) -> None:
    with pytest.raises(CredentialError, match=why):
        from_block(LABEL, text, 100, CredentialError)


@given(st.text() | st.text("-BEGIN AUTOMYHD\nQ=").map(lambda inner: to_block(LABEL, b"").replace("\n", inner)))
def test_from_block_returns_bytes_or_raises_its_one_error(text: str) -> None:
    with suppress(CredentialError):
        assert len(from_block(LABEL, text, 100, CredentialError)) <= 100


def test_the_lines_of_a_block_are_plain_base64() -> None:
    assert base64.b64decode("".join(to_block(LABEL, SEED * 4).splitlines()[1:-1])) == SEED * 4
