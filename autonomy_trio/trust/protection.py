"""How a file of secrets is written: under a passphrase, or as it is.

A file is a header and a body. The header says what the file is and how the body is protected, and is bound to it: as
the associated data of XChaCha20-Poly1305 under a key that argon2id (RFC 9106) makes of the passphrase, or else by a
checksum, which tells a damaged file from a sound one and keeps nobody out.
"""

import hmac
import unicodedata
from collections.abc import Callable
from hashlib import blake2b
from typing import Annotated, Final, Literal

import msgspec
from attrs import field, frozen
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_ABYTES,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_KEYBYTES,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from autonomy_trio.errors import VaultError
from autonomy_trio.trust.records import decode_record

Random = Callable[[int], bytes]
"""Makes that many random bytes."""

SALT_BYTES: Final = 16
NONCE_BYTES: Final = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
OPERATIONS: Final = 3
"""Passes of argon2id over its memory; with `MEMORY` about half a second, as libsodium's MODERATE."""
MEMORY: Final = 256 * 1024
"""Memory of argon2id in KiB."""
OPERATIONS_LIMIT: Final = 16
MEMORY_LIMIT: Final = 1024 * 1024
"""What a file may ask for in KiB, so that a damaged one cannot ask for all there is."""

Kind = Literal["vault", "recovery"]

_CHECKSUM_BYTES: Final = 32
_TAG_BYTES: Final = crypto_aead_xchacha20poly1305_ietf_ABYTES
_CHECKSUM_PURPOSE: Final = b"autonomy/1 vault"


class Derivation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a passphrase becomes a key."""

    salt: Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    operations: Annotated[int, msgspec.Meta(ge=1, le=OPERATIONS_LIMIT)]
    memory: Annotated[int, msgspec.Meta(ge=8, le=MEMORY_LIMIT)]


class _Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    kind: Kind
    derivation: Derivation | None
    """None where there is no passphrase."""
    nonce: Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    """Zeros where there is no passphrase."""


class _File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    header: bytes
    body: Annotated[bytes, msgspec.Meta(min_length=_TAG_BYTES)]
    """The checksum and the secrets, or the secrets encrypted; libsodium's binding wants a whole tag."""

    def __repr__(self) -> str:
        return "_File(…)"


_HEADER: Final = msgspec.msgpack.Decoder(_Header)
_FILE: Final = msgspec.msgpack.Decoder(_File)


@frozen
class FileKey:
    """A key made of a passphrase, and how it was made.

    Attributes:
        derivation: what makes the same key of the same passphrase.
        secret: the 32 bytes of the key.
    """

    derivation: Derivation
    secret: bytes = field(repr=False)


def make_file_key(passphrase: str, random: Random) -> FileKey:
    """Make the key of a new file from a passphrase, which takes about half a second.

    Raises:
        VaultError: the passphrase is empty, or there is not enough memory.
    """
    return _derive(passphrase, Derivation(random(SALT_BYTES), OPERATIONS, MEMORY))


def is_protected(data: bytes, limit: int) -> bool:
    """Tell whether a file of secrets is under a passphrase; a damaged one is not, so that opening it says so.

    Args:
        data: the file.
        limit: the most bytes of a file.
    """
    try:
        return _read_header(data, limit)[1].derivation is not None
    except VaultError:
        return False


def encode_file(kind: Kind, content: bytes, key: FileKey | None, random: Random) -> bytes:
    """Encode a file of secrets.

    Args:
        kind: what it is.
        content: the secrets.
        key: the key to encrypt them with; None writes them as they are.
        random: the system's random source, unless a test replaces it.
    """
    if key is None:
        header = msgspec.msgpack.encode(_Header(1, kind, None, bytes(NONCE_BYTES)))
        return msgspec.msgpack.encode(_File(header, _checksum(header, content) + content))
    nonce = random(NONCE_BYTES)
    header = msgspec.msgpack.encode(_Header(1, kind, key.derivation, nonce))
    body = crypto_aead_xchacha20poly1305_ietf_encrypt(content, header, nonce, key.secret)
    return msgspec.msgpack.encode(_File(header, body))


def decode_file(
    kind: Kind, data: bytes, limit: int, passphrase: str | None, place: str
) -> tuple[bytes, FileKey | None]:
    """Decode a file of secrets; under a passphrase it takes about half a second.

    Args:
        kind: what it should be.
        data: the file.
        limit: the most bytes of a file.
        passphrase: the passphrase; one that the file does not need is not looked at.
        place: what names the file in an error.

    Returns:
        the secrets, and the key to encrypt them with when they are written again.

    Raises:
        VaultError: the file is damaged, is of another kind, or needs another passphrase.
    """
    damaged = VaultError(f"{place} is damaged: restore it from a copy")
    try:
        file, header = _read_header(data, limit)
    except VaultError:
        raise damaged from None
    if header.kind != kind:
        raise VaultError(f"{place} is a file of the kind {header.kind!r} and not {kind!r}: put the right one there")
    if header.derivation is None:
        checksum, content = file.body[:_CHECKSUM_BYTES], file.body[_CHECKSUM_BYTES:]
        if not hmac.compare_digest(checksum, _checksum(file.header, content)):
            raise damaged
        return content, None
    if passphrase is None:
        raise VaultError(
            f"{place} is under a passphrase: set $AUTONOMY_PASSPHRASE, name a file with --passphrase-file, or run it at"
            " a terminal and be asked"
        )
    key = _derive(passphrase, header.derivation)
    try:
        content = crypto_aead_xchacha20poly1305_ietf_decrypt(file.body, file.header, header.nonce, key.secret)
    except CryptoError:
        raise VaultError(f"{place} does not open: the passphrase is another, or the file is damaged") from None
    return content, key


def _read_header(data: bytes, limit: int) -> tuple[_File, _Header]:
    file = decode_record(_FILE, data, limit, "a file of secrets", VaultError)
    return file, decode_record(_HEADER, file.header, limit, "the header of a file of secrets", VaultError)


def _derive(passphrase: str, derivation: Derivation) -> FileKey:
    if not passphrase:
        raise VaultError("the passphrase is empty, which protects nothing: give one, or none at all")
    # One passphrase, however the keyboard composes its letters; what is no text in the environment stays as it is.
    typed = unicodedata.normalize("NFC", passphrase).encode(errors="surrogateescape")
    try:
        secret = argon2id.kdf(
            crypto_aead_xchacha20poly1305_ietf_KEYBYTES,
            typed,
            derivation.salt,
            opslimit=derivation.operations,
            memlimit=derivation.memory * 1024,
        )
    except CryptoError:
        raise VaultError(
            f"a passphrase needs {derivation.memory // 1024} MiB of memory, which are not there: make room"
        ) from None
    return FileKey(derivation, secret)


def _checksum(header: bytes, content: bytes) -> bytes:
    return blake2b(header + content, digest_size=_CHECKSUM_BYTES, person=_CHECKSUM_PURPOSE).digest()
