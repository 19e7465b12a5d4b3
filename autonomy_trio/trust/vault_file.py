"""What a home's two files of secrets hold, the vault and the recovery secret apart from it, and how they come to be.

Being born takes three steps, each whole or not at all: the recovery secret is written under another name, the vault is
written, the recovery secret gets its name. Interrupted before the second, a home is unborn and the next opening begins
afresh; after it, the next opening finishes.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from autonomy_trio.errors import IdentityError, VaultError
from autonomy_trio.trust.home import FILE_BYTES_LIMIT, Home
from autonomy_trio.trust.identity import PREKEYS_LIMIT, History, derive_seed, make_history, verify_history
from autonomy_trio.trust.prekeys import SecretPrekey
from autonomy_trio.trust.protection import FileKey, Random, decode_file, encode_file, is_protected, make_file_key
from autonomy_trio.trust.records import (
    KEY_BYTES,
    Identifier,
    Key,
    Signed,
    SigningKey,
    decode_record,
    format_identifier,
    from_block,
    to_block,
)
from autonomy_trio.trust.watcher import Mark

VAULT_NAME: Final = "vault"
RECOVERY_NAME: Final = "recovery"
UNBORN_RECOVERY_NAME: Final = "recovery.unborn"
"""The recovery secret's name until the vault that belongs to it is written."""
RECOVERY_LABEL: Final = "AUTONOMY RECOVERY SECRET"
RECOVERY_BYTES_LIMIT: Final = 512
"""Most bytes of a recovery secret's file before it is written as text."""


class Recovery(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The one secret that every key of an identity comes from, and whose it is."""

    version: Literal[1]
    identifier: Identifier
    secret: Key

    def __repr__(self) -> str:
        return f"Recovery({format_identifier(self.identifier)})"


class Secrets(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a vault keeps.

    Attributes:
        changes: the identity's history.
        seed: the seed of its current key.
        agents: the secret that agents' keys come from.
        session: the X25519 secret key that agrees on sessions.
        signing: the seed of the key that signs handshakes and envelopes.
        prekeys: the secret halves of prekeys, the newest last.
        marks: what is remembered of trust anchors.
        later: a history of this identity that goes on where `changes` ends, when one was shown; else empty.
    """

    changes: tuple[Signed, ...]
    seed: Key
    agents: Key
    session: Key
    signing: Key
    prekeys: Annotated[tuple[SecretPrekey, ...], msgspec.Meta(max_length=PREKEYS_LIMIT)] = ()
    marks: tuple[Mark, ...] = ()
    later: tuple[Signed, ...] = ()

    def __repr__(self) -> str:
        return "Secrets(…)"


_SECRETS: Final = msgspec.msgpack.Decoder(Secrets)
_RECOVERY: Final = msgspec.msgpack.Decoder(Recovery)


def make_secrets(recovery: bytes, random: Random) -> tuple[Secrets, History]:
    """Make the secrets of a new identity: one key from the recovery secret, every other on its own."""
    history = make_history(recovery)
    secrets = Secrets(
        changes=history.changes,
        seed=derive_seed(recovery, history.seq),
        agents=random(KEY_BYTES),
        session=random(KEY_BYTES),
        signing=random(KEY_BYTES),
    )
    return secrets, history


def encode_vault(secrets: Secrets, key: FileKey | None, random: Random) -> bytes:
    """Encode the vault's file."""
    return encode_file("vault", msgspec.msgpack.encode(secrets), key, random)


def decode_vault(place: Path, data: bytes, passphrase: str | None) -> tuple[Secrets, History, FileKey | None]:
    """Decode the vault's file, and verify that its parts belong together.

    Raises:
        VaultError: it is damaged, or needs another passphrase.
    """
    content, key = decode_file("vault", data, FILE_BYTES_LIMIT, passphrase, str(place))
    try:
        secrets = decode_record(_SECRETS, content, FILE_BYTES_LIMIT, "a vault", VaultError)
        history = verify_history(secrets.changes)
        if secrets.later:
            verify_history(secrets.later)
    except (VaultError, IdentityError):
        raise VaultError(f"{place} is damaged: restore it from a copy") from None
    if history.key != SigningKey(secrets.seed).public:
        raise VaultError(f"{place} is damaged: restore it from a copy")
    return secrets, history, key


def encode_recovery(recovery: Recovery, key: FileKey | None, random: Random) -> bytes:
    """Encode the recovery secret's file: a block of text, which can be printed and typed in again."""
    return to_block(RECOVERY_LABEL, encode_file("recovery", msgspec.msgpack.encode(recovery), key, random)).encode()


def decode_recovery(place: Path, data: bytes, passphrase: str | None) -> Recovery:
    """Decode the recovery secret's file.

    Raises:
        VaultError: it is damaged, is something else, or needs another passphrase.
    """
    content, _ = decode_file("recovery", _unwrap(place, data), RECOVERY_BYTES_LIMIT, passphrase, str(place))
    return decode_record(_RECOVERY, content, RECOVERY_BYTES_LIMIT, f"a recovery secret, in {place}", VaultError)


def open_secrets(
    home: Home, passphrase: str | None, random: Random, *, create: bool
) -> tuple[Secrets, History, FileKey | None]:
    """Read the vault in a locked home, or make one; finish what was interrupted, and protect it when it is to be.

    Args:
        home: the home.
        passphrase: what its secrets are, or are to be, encrypted with; None for nothing.
        random: the system's random source, unless a test replaces it.
        create: whether an identity may be born.

    Raises:
        VaultError: a file is damaged or missing, is open to others, or needs another passphrase.
    """
    data = home.read(VAULT_NAME)
    if data is None:
        return _give_birth(home, passphrase, random, create=create)
    secrets, history, key = decode_vault(home.path / VAULT_NAME, data, passphrase)
    if home.holds(UNBORN_RECOVERY_NAME):
        home.rename(UNBORN_RECOVERY_NAME, RECOVERY_NAME)
    home.holds(RECOVERY_NAME)
    if key is None and passphrase is not None:
        key = _protect(home, secrets, passphrase, random)
    return secrets, history, key


def read_beside(home: Path) -> tuple[Home | None, bytes | None]:
    """Read the vault's file in a home that another process may have locked.

    Returns:
        the home, closed and only to be read, and the file; None and None where there is no vault.

    Raises:
        VaultError: the home cannot be read.
    """
    if not (home / VAULT_NAME).exists():
        return None, None
    opened = Home(home, create=False, lock=False)
    try:
        return opened, opened.read(VAULT_NAME)
    finally:
        opened.close()


def _give_birth(
    home: Home, passphrase: str | None, random: Random, *, create: bool
) -> tuple[Secrets, History, FileKey | None]:
    if home.holds(RECOVERY_NAME):
        raise VaultError(
            f"{home.path} has a recovery secret and no vault: restore {home.path / VAULT_NAME} from a copy, or move"
            f" {home.path / RECOVERY_NAME} to a safe place to begin a new identity here"
        )
    if not create:
        raise VaultError(f"there is no identity in {home.path} yet: name another home, or run an agent with it once")
    key = None if passphrase is None else make_file_key(passphrase, random)
    recovery = random(KEY_BYTES)
    secrets, history = make_secrets(recovery, random)
    home.write(UNBORN_RECOVERY_NAME, encode_recovery(Recovery(1, history.identifier, recovery), key, random))
    home.write(VAULT_NAME, encode_vault(secrets, key, random))
    home.rename(UNBORN_RECOVERY_NAME, RECOVERY_NAME)
    return secrets, history, key


def _protect(home: Home, secrets: Secrets, passphrase: str, random: Random) -> FileKey:
    """Put a home's secrets under a passphrase; interrupted, the next opening with one goes on."""
    key = make_file_key(passphrase, random)
    place = home.path / RECOVERY_NAME
    recovery = home.read(RECOVERY_NAME)
    if recovery is not None and not is_protected(_unwrap(place, recovery), RECOVERY_BYTES_LIMIT):
        home.write(RECOVERY_NAME, encode_recovery(decode_recovery(place, recovery, None), key, random))
    home.write(VAULT_NAME, encode_vault(secrets, key, random))
    return key


def _unwrap(place: Path, data: bytes) -> bytes:
    try:
        return from_block(RECOVERY_LABEL, data.decode("ascii"), RECOVERY_BYTES_LIMIT, VaultError)
    except (VaultError, UnicodeDecodeError) as exc:
        why = "it is not text" if isinstance(exc, UnicodeDecodeError) else str(exc)
        raise VaultError(f"{place} holds no recovery secret: {why}") from None
