"""The vault: where a node keeps its secrets, and the doors through which the rest of the program uses them.

No secret leaves a vault. What signs or agrees calls a method here, so that a key service could stand in its place.

A home holds two files. `vault` has the identity's current seed, the purpose keys and the secret of the agents' keys.
`recovery` has the one secret that every key of the identity comes from; only a rotation needs it, so it can be moved
off the machine, and until it is, who takes the home takes the identity for good.

A vault restored from a copy does not know what happened since. It cannot fork the identity all the same: a rotation is
a pure function of the recovery secret, so what it makes again has the bytes it had. Shown a later history of its own,
a vault attests and signs nothing more until `rotate` has brought it there.
"""

from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import msgspec
import nacl.utils
from attrs import field, frozen
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from autonomy_trio.errors import HandshakeFailed, IdentityError, VaultError
from autonomy_trio.trust.delegates import Introduction, derive_agent_key, make_delegate
from autonomy_trio.trust.home import FILE_BYTES_LIMIT, Home
from autonomy_trio.trust.identity import (
    ATTESTATION_LIFE_LIMIT,
    CHANGES_LIMIT,
    Attestation,
    History,
    Prekey,
    derive_seed,
    encode_bundle,
    make_history,
)
from autonomy_trio.trust.key_service import KeyService
from autonomy_trio.trust.prekeys import attested, renewed, with_new
from autonomy_trio.trust.protection import FileKey, Random, is_protected
from autonomy_trio.trust.records import (
    KEY_BYTES,
    SignatureContext,
    SigningKey,
    format_identifier,
    sign_record,
)
from autonomy_trio.trust.vault_file import (
    RECOVERY_NAME,
    VAULT_NAME,
    Recovery,
    Secrets,
    decode_recovery,
    decode_vault,
    encode_vault,
    make_secrets,
    open_secrets,
    read_beside,
)
from autonomy_trio.trust.watcher import Mark

ATTESTATION_LIFE: Final = ATTESTATION_LIFE_LIMIT
"""Validity of the attestations made here, in seconds; one past half of it is renewed."""
MARKS_LIMIT: Final = 256
"""Most trust anchors whose marks a vault keeps; the mark that was set longest ago goes."""


@frozen
class _Keys:
    identity: SigningKey
    signing: SigningKey
    secrets: Secrets = field(repr=False)


@final
class Vault(KeyService):
    """The keys of one identity, in a locked home or in memory; made by `Vault.open` or `Vault.in_memory`.

    Closing it, or leaving its `with` block, drops the keys and frees the home; what is public stays readable. One task
    uses it at a time: what changes it writes to the disk, which takes some milliseconds.
    """

    def __init__(
        self, secrets: Secrets, history: History, file_key: FileKey | None, home: Home | None, random: Random
    ) -> None:
        self._home = home
        self._file_key = file_key
        self._random = random
        self._attested_at = 0
        self._bundle: bytes | None = None
        self._keys: _Keys | None = None
        self._take(secrets, history)

    @classmethod
    def open(
        cls, home: Path, *, create: bool = True, passphrase: str | None = None, random: Random = nacl.utils.random
    ) -> Self:
        """Open the vault in a home folder and lock the home; an identity is born there when it has none.

        With a passphrase it takes about half a second, and a vault that has none is under it from then on.

        Args:
            home: the folder; it and its parents are created when missing.
            create: whether an identity may be born; without, a missing folder or vault is an error.
            passphrase: what the home's secrets are encrypted with; None for a home without.
            random: the system's random source, unless a test replaces it.

        Raises:
            VaultError: the home is missing, open to others, reached through a link, not this user's, or in use, or a
                file in it is damaged or missing, or needs another passphrase; the text names the mend.
        """
        opened = Home(home, create=create)
        try:
            return cls(*open_secrets(opened, passphrase, random, create=create), opened, random)
        except BaseException:
            opened.close()
            raise

    @classmethod
    def open_beside(cls, home: Path, *, passphrase: str | None = None, random: Random = nacl.utils.random) -> Self:
        """Open the vault in a home folder that a running node may have locked: to read it and to sign, never to write.

        Where there is no identity yet one is born as `open` does it, and the home is locked until `close`.

        Raises:
            VaultError: as `open`, but for a home in use.
        """
        opened, data = read_beside(home)
        if opened is None or data is None:
            return cls.open(home, passphrase=passphrase, random=random)
        return cls(*decode_vault(home / VAULT_NAME, data, passphrase), opened, random)

    @classmethod
    def in_memory(cls, *, random: Random = nacl.utils.random) -> Self:
        """Make an identity that lives and ends with this object: for tests and for visitors without a home."""
        secrets, history = make_secrets(random(KEY_BYTES), random)
        return cls(secrets, history, file_key=None, home=None, random=random)

    @staticmethod
    def is_protected(home: Path) -> bool:
        """Tell whether the vault in a home is under a passphrase; one that is not there yet is not.

        Raises:
            VaultError: the home cannot be read.
        """
        _, data = read_beside(home)
        return data is not None and is_protected(data, FILE_BYTES_LIMIT)

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

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What is remembered of trust anchors, for a `Watcher`.

        Raises:
            VaultError: the vault is closed.
        """
        return self._open_keys().secrets.marks

    @property
    def later_seq(self) -> int | None:
        """The sequence number that this identity was seen at elsewhere; None unless that is past the one here.

        Raises:
            VaultError: the vault is closed.
        """
        later = self._open_keys().secrets.later
        return len(later) - 1 if later else None

    def renew(self, now: float) -> None:
        """Do what is due: a new prekey each day, the end of old ones, a new attestation; writes to the home.

        Call it when a node starts and every hour. Whatever an attestation names is on the disk before it is shown.

        Args:
            now: Unix seconds.

        Raises:
            VaultError: the vault is closed, cannot be written, or this identity was rotated elsewhere.
        """
        keys = self._current_keys()
        prekeys = renewed(keys.secrets.prekeys, now, self._random)
        if prekeys != keys.secrets.prekeys or not self._is_attested(now):
            secrets = msgspec.structs.replace(keys.secrets, prekeys=attested(prekeys, now))
            self._save(secrets)
            self._attest(now)

    def bundle(self, now: float) -> bytes:
        """Return the encoded bundle to show at `now` (Unix seconds), attested anew when past half of its life.

        A clock that was set back renews it too: what begins in the future would be refused.

        Raises:
            VaultError: the vault is closed, or this identity was rotated elsewhere.
        """
        keys = self._current_keys()
        if self._bundle is not None and self._is_attested(now):
            return self._bundle
        self._take(msgspec.structs.replace(keys.secrets, prekeys=attested(keys.secrets.prekeys, now)), self._history)
        return self._attest(now)

    def prekey(self, number: int) -> bytes | None:
        """Return the public half of a prekey; None when there is none of that number any more.

        Raises:
            VaultError: the vault is closed.
        """
        secret = self._secret_prekey(number)
        return None if secret is None else crypto_scalarmult_base(secret)

    def agree(self, public: bytes, prekey: int | None = None) -> bytes:
        """Agree on 32 secret bytes with the owner of an X25519 public key (RFC 7748).

        Args:
            public: that key.
            prekey: the number of the prekey to agree by; None for the session key.

        Raises:
            HandshakeFailed: the key is not 32 bytes, or a low-order point, which would make the secret public; or
                there is no such prekey any more.
            VaultError: the vault is closed.
        """
        secret = self._open_keys().secrets.session if prekey is None else self._secret_prekey(prekey)
        if secret is None:
            raise HandshakeFailed(f"there is no prekey {prekey} any more")
        # PyNaCl hands a short key to libsodium as it is, which would read past its end.
        if len(public) != KEY_BYTES:
            raise HandshakeFailed(f"an X25519 key has {KEY_BYTES} bytes, not {len(public)}")
        try:
            return crypto_scalarmult(secret, public)
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
            VaultError: the vault is closed, or this identity was rotated elsewhere.
        """
        return self._current_keys().identity.sign(context, data)

    def introduce(self, name: str, now: float) -> Introduction:
        """Make what this node shows of one of its agents, valid for a week; it costs some 0.1 ms and is not kept.

        Args:
            name: the agent's name.
            now: Unix seconds.

        Raises:
            VaultError: the vault is closed, or this identity was rotated elsewhere.
        """
        agent = derive_agent_key(self._current_keys().secrets.agents, name, self.identifier)
        return Introduction(agent.identifier, agent.change, make_delegate(agent, self.seq, now))

    def agent_identifier(self, name: str) -> bytes:
        """Return the 32-byte identifier of an agent of this node, which is the same for ever.

        Raises:
            VaultError: the vault is closed.
        """
        return derive_agent_key(self._open_keys().secrets.agents, name, self.identifier).identifier

    def learn(self, history: History) -> None:
        """Compare with a verified history of this very identity that somebody showed.

        A later one that goes on from here is written down, and nothing is attested or signed as this identity until
        `rotate` has made it again: this home is a copy from before.

        Args:
            history: the history, of this identity.

        Raises:
            IdentityError: it contradicts the history here, so another has the identity's key.
            VaultError: the vault is closed or cannot be written.
        """
        if history.identifier != self.identifier:
            raise ValueError("a vault learns of its own identity only")
        secrets = self._open_keys().secrets
        known = secrets.later or secrets.changes
        if any(own.body != shown.body for own, shown in zip(known, history.changes, strict=False)):
            name = format_identifier(self.identifier)
            raise IdentityError(
                f"somebody showed another history of {name}, this home's own identity, so its current key is in other"
                " hands: those who saw yours first keep to it; run `identity rotate` to take that key out of use"
            )
        if len(history.changes) > len(known):
            self._save(msgspec.structs.replace(secrets, later=history.changes))

    def rotate(self, recovery: Recovery, now: float) -> None:
        """Move to the next key of the identity, or to the one that was seen elsewhere, with new purpose keys.

        What it makes is a pure function of the recovery secret: made again from a copy, it is the same.

        Args:
            recovery: the recovery secret.
            now: Unix seconds.

        Raises:
            VaultError: the secret is of another identity, or the vault is closed or cannot be written.
            IdentityError: the history is at its longest, or was continued by another than the owner of the secret.
        """
        secrets = self._open_keys().secrets
        name = format_identifier(self.identifier)
        if recovery.identifier != self.identifier:
            raise VaultError(
                f"the recovery secret is that of {format_identifier(recovery.identifier)}, and this home is {name}:"
                " name the right one with --recovery"
            )
        target = max(self.seq + 1, len(secrets.later) - 1)
        if target >= CHANGES_LIMIT:
            raise IdentityError(f"{name} was rotated as often as an identity can be: start a new one in another home")
        history = make_history(recovery.secret, target)
        known = secrets.later or secrets.changes
        if history.changes[: len(known)] != known:
            raise IdentityError(f"the recovery secret does not make the history of {name} that is known here")
        prekeys = with_new(secrets.prekeys, now, self._random)
        _check_fits(history)
        self._save(
            msgspec.structs.replace(
                secrets,
                changes=history.changes,
                seed=derive_seed(recovery.secret, target),
                session=self._random(KEY_BYTES),
                signing=self._random(KEY_BYTES),
                prekeys=attested(prekeys, now),
                later=(),
            ),
            history,
        )
        self._attest(now)

    def read_recovery(self, file: Path | None = None, passphrase: str | None = None) -> Recovery:
        """Read the recovery secret from where it is kept, which no other method does.

        Args:
            file: the file; None for the one in the home.
            passphrase: what it is encrypted with, if it is.

        Raises:
            VaultError: it is not there, cannot be read, is damaged, or needs another passphrase.
        """
        if file is not None:
            try:
                with file.open("rb") as opened:
                    data = opened.read(FILE_BYTES_LIMIT)
            except OSError as exc:
                raise VaultError(f"{file} cannot be read: {exc.strerror or exc}") from None
            return decode_recovery(file, data, passphrase)
        found = None if self._home is None else self._home.read(RECOVERY_NAME)
        if self._home is None or found is None:
            raise VaultError(
                "the recovery secret is not in the home: name the file that it was moved to with --recovery FILE"
            )
        return decode_recovery(self._home.path / RECOVERY_NAME, found, passphrase)

    def remember(self, mark: Mark) -> None:
        """Write down what was seen of a trust anchor, for the next start.

        Raises:
            VaultError: the vault is closed or cannot be written.
        """
        secrets = self._open_keys().secrets
        others = [known for known in secrets.marks if known.identifier != mark.identifier]
        self._save(msgspec.structs.replace(secrets, marks=(*others, mark)[-MARKS_LIMIT:]))

    def forgive(self, identifier: bytes) -> Mark | None:
        """Let a trust anchor that was seen with two histories count again, by the one seen first.

        Args:
            identifier: the anchor's 32-byte identifier.

        Returns:
            what is remembered of it now; None when nothing was held against it.

        Raises:
            VaultError: the vault is closed or cannot be written.
        """
        for mark in self._open_keys().secrets.marks:
            if mark.identifier == identifier and mark.is_doubted:
                forgiven = msgspec.structs.replace(mark, is_forgiven=True)
                self.remember(forgiven)
                return forgiven
        return None

    def close(self) -> None:
        """Drop the keys and free the home; closing twice does nothing."""
        self._keys = None
        self._file_key = None
        if self._home is not None:
            self._home.close()

    def _take(self, secrets: Secrets, history: History) -> None:
        self._history = history
        signing = SigningKey(secrets.signing)
        self._keys = _Keys(SigningKey(secrets.seed), signing, secrets)
        self._signing_public = signing.public
        self._session_public = crypto_scalarmult_base(secrets.session)

    def _save(self, secrets: Secrets, history: History | None = None) -> None:
        """Write secrets down and only then use them."""
        if self._home is not None:
            self._home.write(VAULT_NAME, encode_vault(secrets, self._file_key, self._random))
        self._take(secrets, history or self._history)

    def _is_attested(self, now: float) -> bool:
        return self._bundle is not None and self._attested_at <= now <= self._attested_at + ATTESTATION_LIFE / 2

    def _attest(self, now: float) -> bytes:
        keys = self._current_keys()
        self._attested_at = int(now)
        attestation = Attestation(
            identifier=self.identifier,
            seq=self.seq,
            session_key=self._session_public,
            signing_key=self._signing_public,
            prekeys=tuple(
                Prekey(newest.id, crypto_scalarmult_base(newest.secret)) for newest in keys.secrets.prekeys[-1:]
            ),
            not_before=self._attested_at,
            expires=self._attested_at + ATTESTATION_LIFE,
        )
        self._bundle = encode_bundle(self._history, sign_record(keys.identity, "attest", attestation))
        return self._bundle

    def _secret_prekey(self, number: int) -> bytes | None:
        return next((prekey.secret for prekey in self._open_keys().secrets.prekeys if prekey.id == number), None)

    def _current_keys(self) -> _Keys:
        """Return the keys for what only an identity's newest key may do."""
        keys = self._open_keys()
        if keys.secrets.later:
            raise VaultError(
                f"{format_identifier(self.identifier)} was rotated to sequence {self.later_seq} elsewhere and is at"
                f" {self.seq} here, so this home is a copy from before: run `identity rotate` with its recovery secret,"
                " or restore the newer home"
            )
        return keys

    def _open_keys(self) -> _Keys:
        if self._keys is None:
            raise VaultError(
                f"the vault of {format_identifier(self.identifier)} is closed: open it again to use its keys"
            )
        return self._keys


def _check_fits(history: History) -> None:
    """Refuse a history with which no bundle could be shown any more.

    Raises:
        IdentityError: it is too long.
    """
    zeros = bytes(KEY_BYTES)
    attestation = Attestation(
        identifier=history.identifier,
        seq=history.seq,
        session_key=zeros,
        signing_key=zeros,
        prekeys=(Prekey(2**32 - 1, zeros),),
        not_before=2**32,
        expires=2**32,
    )
    encode_bundle(history, sign_record(SigningKey(zeros), "attest", attestation))
