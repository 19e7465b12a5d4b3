"""The vault: where a node keeps its secrets, and the doors through which the rest of the program uses them.

No secret leaves a vault. What signs or agrees calls a method here, so that a key service could stand in its place.

A home holds two files. `vault` has the identity's current seed, the purpose keys and the secret of the agents' keys.
`recovery` has the one secret that every key of the identity comes from; only a rotation needs it, so it can be moved
off the machine, and until it is, who takes the home takes the identity for good.

Being born takes three steps, each whole or not at all: the recovery secret is written under another name, the vault is
written, the recovery secret gets its name. Interrupted before the second, a home is unborn and the next opening begins
afresh; after it, the next opening finishes.
"""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, Self, final

import msgspec
import nacl.utils
from attrs import field, frozen
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from autonomy_trio.errors import HandshakeFailed, IdentityError, VaultError
from autonomy_trio.trust.home import FILE_BYTES_LIMIT, Home
from autonomy_trio.trust.identity import (
    ATTESTATION_LIFE_LIMIT,
    Attestation,
    History,
    derive_seed,
    encode_bundle,
    make_history,
    verify_history,
)
from autonomy_trio.trust.records import (
    KEY_BYTES,
    Digest,
    Identifier,
    Key,
    SignatureContext,
    Signed,
    SigningKey,
    decode_record,
    format_identifier,
    sign_record,
    to_block,
)

VAULT_NAME: Final = "vault"
RECOVERY_NAME: Final = "recovery"
UNBORN_RECOVERY_NAME: Final = "recovery.unborn"
"""The recovery secret's name until the vault that belongs to it is written."""
RECOVERY_LABEL: Final = "AUTONOMY RECOVERY SECRET"
ATTESTATION_LIFE: Final = ATTESTATION_LIFE_LIMIT
"""Validity of the attestations made here, in seconds; one past half of it is renewed."""

Random = Callable[[int], bytes]
"""Makes that many random bytes."""

_CHECKSUM_PURPOSE: Final = b"autonomy/1 vault"


class Recovery(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the recovery file holds, as a text block: whose secret it is, and the secret."""

    version: Literal[1]
    identifier: Identifier
    secret: Key

    def __repr__(self) -> str:
        return f"Recovery({format_identifier(self.identifier)})"


class _Secrets(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    changes: tuple[Signed, ...]
    seed: Key
    agents: Key
    session: Key
    signing: Key
    sequences: dict[Identifier, Annotated[int, msgspec.Meta(ge=0)]]
    """The highest sequence seen of each trust anchor."""

    def __repr__(self) -> str:
        return "_Secrets(…)"


class _VaultFile(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    protection: None
    """How the body is encrypted; nil means that it is not."""
    body: bytes
    checksum: Digest
    """Tells a damaged file from a sound one; it keeps nobody out."""

    def __repr__(self) -> str:
        return "_VaultFile(…)"


@frozen
class _Keys:
    identity: SigningKey
    signing: SigningKey
    session: bytes = field(repr=False)


_SECRETS: Final = msgspec.msgpack.Decoder(_Secrets)
_VAULT_FILE: Final = msgspec.msgpack.Decoder(_VaultFile)


@final
class Vault:
    """The keys of one identity, in a locked home or in memory; made by `Vault.open` or `Vault.in_memory`.

    Closing it, or leaving its `with` block, drops the keys and frees the home; what is public stays readable.
    """

    def __init__(self, secrets: _Secrets, history: History, home: Home | None) -> None:
        self._history = history
        self._home = home
        self._keys: _Keys | None = _Keys(SigningKey(secrets.seed), SigningKey(secrets.signing), secrets.session)
        self._signing_public = self._keys.signing.public
        self._session_public = crypto_scalarmult_base(secrets.session)
        self._attested_at = 0
        self._bundle: bytes | None = None

    @classmethod
    def open(cls, home: Path, *, create: bool = True, random: Random = nacl.utils.random) -> Self:
        """Open the vault in a home folder and lock the home; an identity is born there when it has none.

        Args:
            home: the folder; it and its parents are created when missing.
            create: whether an identity may be born; without, a missing folder or vault is an error.
            random: the system's random source, unless a test replaces it.

        Raises:
            VaultError: the home is missing, open to others, reached through a link, not this user's, or in use, or a
                file in it is damaged or missing; the text names the mend.
        """
        opened = Home(home, create=create)
        try:
            data = opened.read(VAULT_NAME)
            if data is None:
                secrets, history = _give_birth(opened, random, create=create)
            else:
                secrets, history = _decode_vault(home / VAULT_NAME, data)
                if opened.holds(UNBORN_RECOVERY_NAME):
                    opened.rename(UNBORN_RECOVERY_NAME, RECOVERY_NAME)
                opened.holds(RECOVERY_NAME)
            return cls(secrets, history, opened)
        except BaseException:
            opened.close()
            raise

    @classmethod
    def open_beside(cls, home: Path, *, random: Random = nacl.utils.random) -> Self:
        """Open the vault in a home folder that a running node may have locked: to read it and to sign, never to write.

        Where there is no identity yet one is born as `open` does it, and the home is locked until `close`.

        Raises:
            VaultError: as `open`, but for a home in use.
        """
        if (home / VAULT_NAME).exists():
            opened = Home(home, create=False, lock=False)
            try:
                data = opened.read(VAULT_NAME)
            finally:
                opened.close()
            if data is not None:
                return cls(*_decode_vault(home / VAULT_NAME, data), None)
        return cls.open(home, random=random)

    @classmethod
    def in_memory(cls, *, random: Random = nacl.utils.random) -> Self:
        """Make an identity that lives and ends with this object: for tests and for visitors without a home."""
        secrets, history = _make_secrets(random(KEY_BYTES), random)
        return cls(secrets, history, None)

    def __repr__(self) -> str:
        place = "in memory" if self._home is None else f"in {self._home.path}"
        return f"<Vault of {format_identifier(self.identifier)} {place}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def identifier(self) -> bytes:
        """The 32 bytes of the identity."""
        return self._history.identifier

    @property
    def seq(self) -> int:
        """The identity's current sequence number."""
        return self._history.seq

    @property
    def history(self) -> History:
        """The identity's whole history."""
        return self._history

    @property
    def session_public(self) -> bytes:
        """The attested X25519 public key, 32 bytes."""
        return self._session_public

    @property
    def signing_public(self) -> bytes:
        """The attested Ed25519 public key, 32 bytes."""
        return self._signing_public

    def bundle(self, now: float) -> bytes:
        """Return the encoded bundle to show at `now` (Unix seconds), attested anew when past half of its life.

        A clock that was set back renews it too: what begins in the future would be refused.

        Raises:
            VaultError: the vault is closed.
        """
        keys = self._open_keys()
        if self._bundle is None or not self._attested_at <= now <= self._attested_at + ATTESTATION_LIFE / 2:
            self._attested_at = int(now)
            attestation = Attestation(
                identifier=self.identifier,
                seq=self.seq,
                session_key=self._session_public,
                signing_key=self._signing_public,
                prekeys=(),
                not_before=self._attested_at,
                expires=self._attested_at + ATTESTATION_LIFE,
            )
            self._bundle = encode_bundle(self._history, sign_record(keys.identity, "attest", attestation))
        return self._bundle

    def agree(self, public: bytes) -> bytes:
        """Agree on 32 secret bytes with the owner of an X25519 public key (RFC 7748), by the session key.

        Raises:
            HandshakeFailed: the key is not 32 bytes, or a low-order point, which would make the secret public.
            VaultError: the vault is closed.
        """
        session = self._open_keys().session
        # PyNaCl hands a short key to libsodium as it is, which would read past its end.
        if len(public) != KEY_BYTES:
            raise HandshakeFailed(f"an X25519 key has {KEY_BYTES} bytes, not {len(public)}")
        try:
            return crypto_scalarmult(session, public)
        except RuntimeError:
            raise HandshakeFailed("the peer sent a low-order point for a key") from None

    def sign(self, context: SignatureContext, data: bytes) -> bytes:
        """Sign with the attested signing key; the result is the 64-byte signature.

        Raises:
            VaultError: the vault is closed.
        """
        return self._open_keys().signing.sign(context, data)

    def sign_as_identity(self, context: SignatureContext, data: bytes) -> bytes:
        """Sign with the identity's current key, which attests, issues credentials and signs lists.

        Raises:
            VaultError: the vault is closed.
        """
        return self._open_keys().identity.sign(context, data)

    def close(self) -> None:
        """Drop the keys and free the home; closing twice does nothing."""
        self._keys = None
        if self._home is not None:
            self._home.close()

    def _open_keys(self) -> _Keys:
        if self._keys is None:
            raise VaultError(
                f"the vault of {format_identifier(self.identifier)} is closed: open it again to use its keys"
            )
        return self._keys


def _make_secrets(recovery: bytes, random: Random) -> tuple[_Secrets, History]:
    history = make_history(recovery)
    secrets = _Secrets(
        changes=history.changes,
        seed=derive_seed(recovery, history.seq),
        agents=random(KEY_BYTES),
        session=random(KEY_BYTES),
        signing=random(KEY_BYTES),
        sequences={},
    )
    return secrets, history


def _give_birth(home: Home, random: Random, *, create: bool) -> tuple[_Secrets, History]:
    if home.holds(RECOVERY_NAME):
        raise VaultError(
            f"{home.path} has a recovery secret and no vault: restore {home.path / VAULT_NAME} from a copy, or move"
            f" {home.path / RECOVERY_NAME} to a safe place to begin a new identity here"
        )
    if not create:
        raise VaultError(f"there is no identity in {home.path} yet: name another home, or run an agent with it once")
    recovery = random(KEY_BYTES)
    secrets, history = _make_secrets(recovery, random)
    record = msgspec.msgpack.encode(Recovery(1, history.identifier, recovery))
    home.write(UNBORN_RECOVERY_NAME, to_block(RECOVERY_LABEL, record).encode())
    home.write(VAULT_NAME, _encode_vault(secrets))
    home.rename(UNBORN_RECOVERY_NAME, RECOVERY_NAME)
    return secrets, history


def _encode_vault(secrets: _Secrets) -> bytes:
    body = msgspec.msgpack.encode(secrets)
    return msgspec.msgpack.encode(_VaultFile(1, None, body, _checksum(body)))


def _decode_vault(place: Path, data: bytes) -> tuple[_Secrets, History]:
    damaged = VaultError(f"{place} is damaged: restore it from a copy")
    try:
        file = decode_record(_VAULT_FILE, data, FILE_BYTES_LIMIT, "a vault", VaultError)
        secrets = decode_record(_SECRETS, file.body, FILE_BYTES_LIMIT, "a vault", VaultError)
        history = verify_history(secrets.changes)
    except (VaultError, IdentityError):
        raise damaged from None
    if file.checksum != _checksum(file.body) or history.key != SigningKey(secrets.seed).public:
        raise damaged
    return secrets, history


def _checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=32, person=_CHECKSUM_PURPOSE).digest()
