"""Identities: a history of keys under one identifier that never changes, and the keys an identity attests.

The theory, after KERI (Smith, 2019, arXiv:1907.02143), reduced to one key and no witnesses:

* A *change* names a public key and the hash of the next one, and is signed by the key it names. The identifier is the
  hash of the first change, so whoever holds the identifier can check all that follows from it.
* A change counts only if its key hashes to what the change before it promised. A thief of the current key does not have
  the next one, so cannot take the identity; its owner can rotate away from the thief.
* Every key comes from one recovery secret and its sequence number. A change has no time and nothing random: made again,
  it has the same bytes, and an owner who lost everything but the secret has the whole identity.
* The identity's key signs little: it *attests* the keys that sign and agree day by day, for at most a week.

A *history* is every change from the first to the current; a *bundle* is a history and an attestation by its last key.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Final, Literal

import msgspec
from attrs import field, frozen

from autonomy_trio.errors import IdentityError
from autonomy_trio.trust.records import (
    KEY_BYTES,
    Digest,
    Identifier,
    Key,
    Seconds,
    Signed,
    SigningKey,
    decode_record,
    digest,
    format_identifier,
    sign_record,
    verify,
)

CHANGES_LIMIT: Final = 64
"""Most changes in a history."""
CHANGE_BYTES_LIMIT: Final = 128
"""Most bytes of one change without its signature; a change has three fields of 32 bytes and little else."""
BUNDLE_BYTES_LIMIT: Final = 8 * 1024
"""Most bytes of a bundle. Where a long history meets this limit before `CHANGES_LIMIT`, this one holds."""
ATTESTATION_LIFE_LIMIT: Final = 7 * 24 * 3600
"""Longest validity of an attestation, in seconds."""
NOT_BEFORE_LEEWAY: Final = 60
"""Seconds by which a peer's clock may run ahead of ours; there is no leeway on *expires*."""
PREKEYS_LIMIT: Final = 16
"""Most sealed-envelope keys in an attestation; a sender takes the last, so a vault names the newest alone."""

PrekeyNumber = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]

_SEED_PURPOSE: Final = b"autonomy/1 seed"
_LAST_SEQ: Final = CHANGES_LIMIT - 1


class Change(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One step of a history: the key from now on, and the hash of the only key that may follow it."""

    version: Literal[1]
    seq: Annotated[int, msgspec.Meta(ge=0, le=_LAST_SEQ)]
    previous: Digest | None
    key: Key
    next_key_hash: Digest


class Prekey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A public key that sealed envelopes are made for while the identity is away.

    Attributes:
        id: the owner's number for it, by which the owner finds the secret key; it says nothing to others.
        key: the X25519 public key.
    """

    id: PrekeyNumber
    key: Key


class Attestation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What an identity says of its purpose keys, each made on its own and never converted from the identity's key."""

    identifier: Identifier
    seq: Annotated[int, msgspec.Meta(ge=0, le=_LAST_SEQ)]
    session_key: Key
    signing_key: Key
    prekeys: Annotated[tuple[Prekey, ...], msgspec.Meta(max_length=PREKEYS_LIMIT)]
    not_before: Seconds
    expires: Seconds


class _BundleRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    changes: tuple[Signed, ...]
    attestation: Signed


_CHANGE: Final = msgspec.msgpack.Decoder(Change)
_ATTESTATION: Final = msgspec.msgpack.Decoder(Attestation)
_BUNDLE: Final = msgspec.msgpack.Decoder(_BundleRecord)


@frozen
class History:
    """A verified history: who it is, and which key speaks for it at each sequence number.

    Attributes:
        identifier: the 32 bytes that never change.
        keys: the Ed25519 public key at each sequence number, from 0; the last one is the current.
        next_key_hash: the hash that the next change's key must have.
        changes: the signed changes as received.
    """

    identifier: bytes
    keys: tuple[bytes, ...]
    next_key_hash: bytes
    changes: tuple[Signed, ...] = field(repr=False)

    @property
    def seq(self) -> int:
        """The current sequence number: 0 until the first rotation."""
        return len(self.keys) - 1

    @property
    def key(self) -> bytes:
        """The current Ed25519 public key."""
        return self.keys[-1]


@frozen
class Bundle:
    """A verified bundle: an identity's history, and the purpose keys that its current key attests.

    Attributes:
        session_key: X25519 public key that agrees on sessions.
        signing_key: Ed25519 public key that signs handshakes and envelopes.
        prekeys: X25519 public keys for sealed envelopes, the newest last.
        not_before: Unix seconds from which the attestation holds.
        expires: Unix seconds from which it no longer holds.
        history: the history it came with.
        encoded: the bundle's bytes as received.
    """

    session_key: bytes
    signing_key: bytes
    prekeys: tuple[Prekey, ...]
    not_before: int
    expires: int
    history: History
    encoded: bytes = field(repr=False)

    @property
    def identifier(self) -> bytes:
        """The 32 bytes of the identity."""
        return self.history.identifier

    @property
    def seq(self) -> int:
        """The current sequence number of the identity, which made the attestation."""
        return self.history.seq

    @property
    def key(self) -> bytes:
        """The identity's current Ed25519 public key."""
        return self.history.key


def derive_seed(recovery: bytes, seq: int) -> bytes:
    """Derive the 32-byte Ed25519 seed of one sequence number from the recovery secret: keyed BLAKE2b (RFC 7693)."""
    if len(recovery) != KEY_BYTES:
        raise ValueError(f"a recovery secret has {KEY_BYTES} bytes, not {len(recovery)}")
    return blake2b(seq.to_bytes(8, "big"), digest_size=KEY_BYTES, key=recovery, person=_SEED_PURPOSE).digest()


def make_change(recovery: bytes, seq: int, previous: Signed | None) -> Signed:
    """Make the change of one sequence number: a pure function of the recovery secret, so it can be made again.

    Args:
        recovery: the 32-byte recovery secret.
        seq: the sequence number, 0 for the first.
        previous: the change before it; None for the first and only for it.
    """
    if not 0 <= seq <= _LAST_SEQ or (previous is None) != (seq == 0):
        raise ValueError(f"change {seq} cannot be made: it is 0 and the first, or 1 to {_LAST_SEQ} and follows another")
    key = SigningKey(derive_seed(recovery, seq))
    following = SigningKey(derive_seed(recovery, seq + 1))
    change = Change(
        version=1,
        seq=seq,
        previous=None if previous is None else digest("h-prev", previous.body),
        key=key.public,
        next_key_hash=digest("h-next", following.public),
    )
    return sign_record(key, "change", change)


def make_history(recovery: bytes, seq: int = 0) -> History:
    """Make the whole history up to a sequence number from the recovery secret alone."""
    changes: list[Signed] = []
    for number in range(seq + 1):
        changes.append(make_change(recovery, number, changes[-1] if changes else None))
    return verify_history(changes)


def verify_history(changes: Sequence[Signed]) -> History:
    """Verify a chain of changes from the first to the current one.

    Args:
        changes: 1 to 64 signed changes, in order.

    Raises:
        IdentityError: the chain is empty or too long, or a change does not follow from the one before it.
    """
    if not 0 < len(changes) <= CHANGES_LIMIT:
        raise IdentityError(f"a history has 1 to {CHANGES_LIMIT} changes and this one has {len(changes)}")
    verified: list[Change] = []
    for seq, signed in enumerate(changes):
        change = decode_record(_CHANGE, signed.body, CHANGE_BYTES_LIMIT, "a change of an identity", IdentityError)
        if change.seq != seq or change.previous != (digest("h-prev", changes[seq - 1].body) if seq else None):
            raise IdentityError(f"change {seq} of the history does not follow the change before it")
        if seq and digest("h-next", change.key) != verified[-1].next_key_hash:
            raise IdentityError(f"change {seq} of the history has a key that the change before it did not promise")
        if not verify(change.key, "change", signed.body, signed.signature):
            raise IdentityError(f"change {seq} of the history is not signed by the key it names")
        verified.append(change)
    return History(
        identifier=digest("h-id", changes[0].body),
        keys=tuple(change.key for change in verified),
        next_key_hash=verified[-1].next_key_hash,
        changes=tuple(changes),
    )


def encode_bundle(history: History, attestation: Signed) -> bytes:
    """Encode a bundle.

    Raises:
        IdentityError: the history is too long for a bundle.
    """
    encoded = msgspec.msgpack.encode(_BundleRecord(history.changes, attestation))
    if len(encoded) > BUNDLE_BYTES_LIMIT:
        raise IdentityError(
            f"{format_identifier(history.identifier)} has {len(history.changes)} changes, too many for a bundle of"
            f" {BUNDLE_BYTES_LIMIT} bytes: start a new identity"
        )
    return encoded


def verify_bundle(encoded: bytes, now: float) -> Bundle:
    """Verify a bundle from a stranger: the history, the attestation by its last key, and the time.

    Args:
        encoded: the bytes as received, at most 8 KiB.
        now: Unix seconds.

    Raises:
        IdentityError: the bundle is malformed, does not verify, is not valid yet, or has expired.
    """
    record = decode_record(_BUNDLE, encoded, BUNDLE_BYTES_LIMIT, "an identity's bundle", IdentityError)
    history = verify_history(record.changes)
    name = format_identifier(history.identifier)
    signed = record.attestation
    attestation = decode_record(
        _ATTESTATION, signed.body, BUNDLE_BYTES_LIMIT, "an identity's attestation", IdentityError
    )
    if attestation.identifier != history.identifier or attestation.seq != history.seq:
        raise IdentityError(f"the attestation in the bundle of {name} is of another identity or of another of its keys")
    if not verify(history.key, "attest", signed.body, signed.signature):
        raise IdentityError(f"the attestation of {name} is not signed by its current key")
    check_life(f"the attestation of {name}", attestation.not_before, attestation.expires, now)
    return Bundle(
        session_key=attestation.session_key,
        signing_key=attestation.signing_key,
        prekeys=attestation.prekeys,
        not_before=attestation.not_before,
        expires=attestation.expires,
        history=history,
        encoded=encoded,
    )


def check_life(what: str, not_before: int, expires: int, now: float) -> None:
    """Judge the life of an attestation or a delegate: at most a week, begun but for a minute's leeway, and not over.

    Args:
        what: what is judged, with its article, for the error's text.
        not_before: Unix seconds from which it holds.
        expires: Unix seconds from which it no longer holds.
        now: Unix seconds.

    Raises:
        IdentityError: it does not hold at `now`, or would hold for too long.
    """
    life = expires - not_before
    if not 0 < life <= ATTESTATION_LIFE_LIMIT:
        raise IdentityError(f"{what} is valid for {life} s; 1 to {ATTESTATION_LIFE_LIMIT} s are allowed")
    if not_before > now + NOT_BEFORE_LEEWAY:
        raise IdentityError(f"{what} begins in {not_before - now:,.0f} s: set the clocks")
    if expires <= now:
        raise IdentityError(f"{what} expired {now - expires:,.0f} s ago: set the clocks, or renew")
