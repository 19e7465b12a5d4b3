r"""Sealed envelopes: for a node that is away, opened days later and by it alone.

    packet   = 01 | 40 | suite 01 | flags 00 | prekey id u32 | length u32 | Noise message of that length | sealed body
    prologue = "autonomy/1\0" | suite | recipient identifier

The Noise message is N to a prekey that the recipient attests. Its payload says who sends, by a bundle, when, until when
and under which id, and ends with a signature. The body is sealed under the key that N splits off for its initiator,
with counter 0 and the packet's header as associated data. Noise N authenticates nobody, so the signature does: it
covers both identities, the prekey and the ephemeral key, so an envelope is worth nothing to another recipient, under
another prekey or with another body.

A session refuses a packet that comes again by its window; here nothing but memory can: see `wire.remembered`.

The sender is judged as of when it says it wrote, within a week. So a sender whose keys were stolen, and who has not
revoked them, can be made to have written in the past.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import nacl.utils
from attrs import field, frozen

from autonomy_trio.errors import HandshakeFailed, IdentityError, MessageError, NotDelivered, ProtocolError
from autonomy_trio.trust.identity import Bundle, verify_bundle
from autonomy_trio.trust.key_service import KeyService
from autonomy_trio.trust.records import Seconds, Signature, digest, format_identifier, verify
from autonomy_trio.wire.constants import (
    BUNDLE_BYTES,
    CLOCK_LEEWAY,
    KEY_BYTES,
    MESSAGE_ID_BYTES,
    PACKET_BYTES,
    PROLOGUE,
    SEALED_LIFE,
    SIGNATURE_BYTES,
    SUITE,
)
from autonomy_trio.wire.entries import Entry, Introduce, Presentations, Tell, decode_entries, encode_entries
from autonomy_trio.wire.noise import AgreementKey, HandshakeState, N, Random, decrypt, encrypt
from autonomy_trio.wire.packets import SealedPacket
from autonomy_trio.wire.padding import frame, unframe

SealedEntry = Presentations | Introduce | Tell
"""What may travel sealed: nothing that wants an answer."""


class SealedHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The payload of the Noise message; the signature is its last 64 bytes."""

    id: Annotated[bytes, msgspec.Meta(min_length=MESSAGE_ID_BYTES, max_length=MESSAGE_ID_BYTES)]
    created: Seconds
    expires: Seconds
    bundle: Annotated[bytes, msgspec.Meta(max_length=BUNDLE_BYTES)]
    signature: Signature


@frozen
class Stamp:
    """What tells one sealed envelope from every other of its sender, and how long it counts.

    Attributes:
        id: 16 random bytes; the same message sealed again keeps them, so that it counts once.
        created: Unix seconds when its sender says it was written; the sender's credentials are judged as of then.
        expires: Unix seconds from which it counts no more, at most 7 days later.
    """

    id: bytes
    created: int
    expires: int


@frozen
class Sealed:
    """A sealed envelope that was opened and verified.

    Attributes:
        sender: who wrote it, as it was when it says it wrote.
        stamp: what to remember it by, and until when.
        entries: what it says.
    """

    sender: Bundle
    stamp: Stamp
    entries: tuple[SealedEntry, ...] = field(repr=False)


@frozen
class _Prekey:
    """One of the vault's prekeys as Noise knows a key."""

    _vault: KeyService
    _number: int
    public: bytes

    def agree(self, public: bytes) -> bytes:
        return self._vault.agree(public, self._number)


@frozen
class _Binding:
    """What the signature ties an envelope to: to whom, for which key, under which ephemeral key."""

    recipient: bytes
    prekey: bytes
    ephemeral: bytes

    def covered(self, header: SealedHeader, sender: bytes, body: bytes) -> bytes:
        times = (moment.to_bytes(_TIME_BYTES, "big") for moment in (header.created, header.expires))
        hashes = digest("h-bundle", header.bundle), digest("h-body", body)
        return b"".join((header.id, sender, self.recipient, self.prekey, self.ephemeral, *times, *hashes))


_HEADER: Final = msgspec.msgpack.Decoder(SealedHeader)
_ENCODER: Final = msgspec.msgpack.Encoder()
_TIME_BYTES: Final = 8


def seal(vault: KeyService, recipient: Bundle, entries: Sequence[SealedEntry], stamp: Stamp, random: Random) -> bytes:
    """Make a sealed envelope, as of `stamp.created`.

    Args:
        vault: the sender's identity and keys.
        recipient: the verified bundle of the node it is for; its last prekey is used, the newest.
        entries: what to say.
        stamp: its id and its times.
        random: a source of secret bytes.

    Raises:
        NotDelivered: the recipient has been away for longer than its attestation, or attests no prekeys.
        MessageError: it would be larger than 160 KiB.
    """
    if len(stamp.id) != MESSAGE_ID_BYTES or not 0 < stamp.expires - stamp.created <= SEALED_LIFE:
        raise ValueError(f"a sealed envelope has an id of {MESSAGE_ID_BYTES} bytes and lives 1 to {SEALED_LIFE} s")
    if stamp.created >= recipient.expires or not recipient.prekeys:
        name = format_identifier(recipient.identifier)
        raise NotDelivered(f"{name} has no key that is valid now for what waits until it is back")
    body = encode_entries(entries)
    prekey = recipient.prekeys[-1]
    state = _start(recipient.identifier, random, is_initiator=True, remote_static=prekey.key)
    try:
        message = state.write_tokens()
    except HandshakeFailed as error:
        raise NotDelivered(f"{format_identifier(recipient.identifier)} attests a bad key: {error.why}") from None
    binding = _Binding(recipient.identifier, prekey.key, message)
    bundle = vault.bundle(stamp.created)
    unsigned = SealedHeader(stamp.id, stamp.created, stamp.expires, bundle, bytes(SIGNATURE_BYTES))
    signature = vault.sign("sealed", binding.covered(unsigned, vault.identifier, body))
    message += state.write_payload(_ENCODER.encode(unsigned)[:-SIGNATURE_BYTES] + signature)
    key, _ = state.split()
    header = SealedPacket(prekey.id, message, b"").header
    packet = header + message + encrypt(key, 0, header, frame(body))
    if len(packet) > PACKET_BYTES:
        raise MessageError(f"a sealed envelope of {len(packet)} bytes is larger than {PACKET_BYTES}: send less")
    return packet


def open_sealed(packet: SealedPacket, vault: KeyService, now: float) -> Sealed:
    """Open a sealed envelope and verify who wrote it; whether it came before is for the memory to say.

    Args:
        packet: it.
        vault: the identity and the prekeys of this node.
        now: Unix seconds.

    Raises:
        ProtocolError: it is not for this node, was changed, is not signed by the node it names, or is out of its time.
    """
    own, public = vault.identifier, vault.prekey(packet.prekey)
    if public is None:
        raise ProtocolError("a sealed envelope is for a key that this node does not have, or has no more")
    prekey = _Prekey(vault, packet.prekey, public)
    state = _start(own, nacl.utils.random, is_initiator=False, static=prekey)
    try:
        encoded = state.read_payload(state.read_tokens(packet.message))
    except HandshakeFailed as error:
        raise ProtocolError(f"a sealed envelope does not open: {error.why}") from None
    try:
        header = _HEADER.decode(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the header of a sealed envelope is not of this version: {error}") from None
    _, key = state.split()
    plaintext = decrypt(key, 0, packet.header, packet.body)
    if plaintext is None:
        raise ProtocolError("the body of a sealed envelope does not belong to its header")
    _check_times(header, now)
    try:
        sender = verify_bundle(header.bundle, header.created)
    except IdentityError as error:
        raise ProtocolError(str(error)) from None
    body = unframe(plaintext)
    binding = _Binding(own, public, packet.message[:KEY_BYTES])
    if not verify(sender.signing_key, "sealed", binding.covered(header, sender.identifier, body), header.signature):
        raise ProtocolError("a sealed envelope is not signed by the node that it says wrote it")
    stamp = Stamp(header.id, header.created, header.expires)
    return Sealed(sender, stamp, _checked(decode_entries(body)))


def _start(
    recipient: bytes,
    random: Random,
    *,
    is_initiator: bool,
    static: AgreementKey | None = None,
    remote_static: bytes | None = None,
) -> HandshakeState:
    prologue = PROLOGUE + bytes((SUITE,)) + recipient
    return HandshakeState.start(
        N, is_initiator=is_initiator, prologue=prologue, random=random, static=static, remote_static=remote_static
    )


def _check_times(header: SealedHeader, now: float) -> None:
    if not 0 < header.expires - header.created <= SEALED_LIFE:
        raise ProtocolError(f"a sealed envelope is valid for 1 to {SEALED_LIFE} s")
    if header.created > now + CLOCK_LEEWAY:
        raise ProtocolError(f"a sealed envelope was written in {header.created - now:,.0f} s: set the clocks")
    if header.expires <= now:
        raise ProtocolError(f"a sealed envelope expired {now - header.expires:,.0f} s ago")


def _checked(entries: Sequence[Entry]) -> tuple[SealedEntry, ...]:
    checked = tuple(entry for entry in entries if isinstance(entry, SealedEntry))
    if len(checked) < len(entries):
        raise ProtocolError("a sealed envelope says something that only a session can")
    return checked
