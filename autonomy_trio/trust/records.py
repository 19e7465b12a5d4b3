"""How records are hashed, signed, parsed and written as text: the rules that every kind of record shares.

A record travels as `Signed`: its unsigned bytes as they were received, and a signature over them. Those bytes are what
is hashed and verified; nothing is ever re-encoded to be checked, so two encoders need not agree on anything.

Every input of a hash or a signature starts with its own context, so that bytes signed for one purpose are worth nothing
for another. The contexts are closed sets: one that is not in them is an error of the program, not of a peer.
"""

import base64
import re
from hashlib import blake2b
from typing import Annotated, Final, Literal, TypeVar, final, get_args

import msgspec
from nacl.bindings import (
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_open,
    crypto_sign_PUBLICKEYBYTES,
    crypto_sign_seed_keypair,
    crypto_sign_SEEDBYTES,
)
from nacl.exceptions import BadSignatureError

from autonomy_trio.errors import AddressError, TrustError

IDENTIFIER_BYTES: Final = 32
KEY_BYTES: Final = 32
"""Length of every public key and every seed: Ed25519 and X25519 alike."""
DIGEST_BYTES: Final = 32
SIGNATURE_BYTES: Final = crypto_sign_BYTES
LATEST_TIME: Final = 253_402_300_799
"""Unix seconds of the last moment of the year 9999: every time in a record can be printed as a date."""
BLOCK_COLUMNS: Final = 64
"""Width of the base64 lines of a text block, as in RFC 7468."""

SignatureContext = Literal[
    "change", "attest", "delegate", "credential", "list", "hs", "env", "sealed",
    "relay-reg", "relay-welcome", "relay-ack", "record", "ticket",
]  # fmt: skip
HashContext = Literal["h-id", "h-prev", "h-next", "h-body", "h-bundle"]

Identifier = Annotated[bytes, msgspec.Meta(min_length=IDENTIFIER_BYTES, max_length=IDENTIFIER_BYTES)]
Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=LATEST_TIME)]
"""A moment in whole Unix seconds."""

_Record = TypeVar("_Record")

_SIGNATURE_PREFIXES: Final = {name: b"autonomy/1/" + name.encode() + b"\x00" for name in get_args(SignatureContext)}
_HASH_PREFIXES: Final = {name: b"autonomy/1/" + name.encode() + b"\x00" for name in get_args(HashContext)}
_IDENTIFIER_TEXT: Final = re.compile(r"I([0-9a-f]{64})")


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A record as it travels: its unsigned bytes as received, and the signature over them."""

    body: bytes
    signature: Signature


@final
class SigningKey:
    """An Ed25519 secret key, expanded once so that a signature costs one operation; its repr shows no secret.

    Args:
        seed: the 32-byte seed of RFC 8032.
    """

    __slots__ = ("_secret", "public")

    public: bytes
    """The 32-byte public key."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != crypto_sign_SEEDBYTES:
            raise ValueError(f"an Ed25519 seed has {crypto_sign_SEEDBYTES} bytes, not {len(seed)}")
        self.public, self._secret = crypto_sign_seed_keypair(seed)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"

    def sign(self, context: SignatureContext, data: bytes) -> bytes:
        """Sign `data` for one purpose; the result is the 64-byte signature alone."""
        signed = crypto_sign(_SIGNATURE_PREFIXES[context] + data, self._secret)
        return signed[:SIGNATURE_BYTES]


def sign(seed: bytes, context: SignatureContext, data: bytes) -> bytes:
    """Sign `data` for one purpose with the Ed25519 key of a 32-byte seed; for many signatures keep a `SigningKey`."""
    return SigningKey(seed).sign(context, data)


def verify(public: bytes, context: SignatureContext, data: bytes, signature: bytes) -> bool:
    """Tell whether `signature` over `data`, for this purpose, was made with the secret of the Ed25519 key `public`.

    Keys and signatures of a wrong length do not verify. libsodium refuses low-order keys and signatures that are not
    in canonical form, so a signature has one encoding.
    """
    prefix = _SIGNATURE_PREFIXES[context]
    if len(public) != crypto_sign_PUBLICKEYBYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + prefix + data, public)
    except BadSignatureError:
        return False
    return True


def digest(context: HashContext, data: bytes) -> bytes:
    """Hash `data` for one purpose: BLAKE2b with a 32-byte result (RFC 7693)."""
    hashed = blake2b(_HASH_PREFIXES[context], digest_size=DIGEST_BYTES)
    hashed.update(data)
    return hashed.digest()


def sign_record(key: SigningKey, context: SignatureContext, record: msgspec.Struct) -> Signed:
    """Encode a record once and sign those bytes."""
    body = msgspec.msgpack.encode(record)
    return Signed(body, key.sign(context, body))


def decode_record(
    decoder: msgspec.msgpack.Decoder[_Record], data: bytes, limit: int, what: str, error: type[TrustError]
) -> _Record:
    """Decode a stranger's bytes, or raise the one error their parser promises.

    Args:
        decoder: a typed msgpack decoder; the types carry the bounds of what they hold.
        data: the bytes.
        limit: the most bytes to look at; the work is bounded by it.
        what: what the bytes should be, with its article, for the error's text.
        error: the class to raise.

    Raises:
        TrustError: of class `error`: too long, malformed, or not of the type.
    """
    if len(data) > limit:
        raise error(f"{what} may have {limit} bytes and this one has {len(data)}")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        # msgspec says where and which type was met, and repeats no value but a wrong version: its text is safe to show.
        raise error(f"this is not {what}: {exc}") from None


def format_identifier(identifier: bytes) -> str:
    """Write a 32-byte identifier as people see it: `I` and 64 lower-case hex digits."""
    return f"I{identifier.hex()}"


def parse_identifier(text: str) -> bytes:
    """Read the 32 bytes of an identifier written as `I` and 64 lower-case hex digits.

    Raises:
        AddressError: the text is not of that form.
    """
    match = _IDENTIFIER_TEXT.fullmatch(text)
    if match is None:
        shown = text if len(text) <= 80 else f"{text[:80]}…"  # noqa: PLR2004  what fits on a line of a terminal
        raise AddressError(
            f"{shown!r} is not an identifier: write I and 64 lower-case hex digits, as `identity show` prints it"
        )
    return bytes.fromhex(match[1])


def to_block(label: str, data: bytes) -> str:
    """Write bytes as a text block between BEGIN and END lines (the strict form of RFC 7468)."""
    digits = base64.b64encode(data).decode("ascii")
    lines = [digits[start : start + BLOCK_COLUMNS] for start in range(0, len(digits), BLOCK_COLUMNS)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def from_block(label: str, text: str, limit: int, error: type[TrustError]) -> bytes:
    """Read the bytes of the one block that `text` holds; white space around the block and its lines is ignored.

    Args:
        label: the block's label, in capitals.
        text: the block, with nothing but white space around it.
        limit: the most bytes the block may hold.
        error: the class to raise.

    Raises:
        TrustError: of class `error`: no such block, more than one, too long, or damaged.
    """
    begin, end = f"-----BEGIN {label}-----", f"-----END {label}-----"
    # Base64 makes 4 characters of 3 bytes; the rest of 2 for 1 is room for line ends of any kind.
    if len(text) > 2 * limit + len(begin) + len(end):
        raise error(f"the text is too long for a block {begin!r} of at most {limit} bytes")
    inner = text.strip().removeprefix(begin).removesuffix(end)
    if len(inner) != len(text.strip()) - len(begin) - len(end):
        raise error(f"the text is not one block from {begin!r} to {end!r}: copy it again with both lines")
    try:
        data = base64.b64decode("".join(inner.split()), validate=True)
    except ValueError:
        raise error(
            f"the block {begin!r} is damaged, or there is more than one: copy it again, one block to a file"
        ) from None
    if len(data) > limit:
        raise error(f"the block {begin!r} holds {len(data)} bytes, more than the {limit} it may have")
    return data
