"""The handshake: Noise XX with who is who inside it, signed, so that both sides know whom they agreed on keys with.

    XX1   the initiator's ephemeral key; its payload is empty, and nothing tells who asks
    XX2   who the responder is; shows no credentials, for a stranger asked
    XX3   who the initiator is, and its credentials

The prologue names the responder, so an answer of any other node does not decrypt. A payload's signature covers the
handshake hash as it stands before the payload, the signer's role, and both identities as far as the signer knows them;
so it is worth nothing in another handshake, in the other role, or towards another peer. The Noise static key must be
the session key that the identity attests: neither the signature nor the key agreement stands alone.

Everything that is wrong is one error, `HandshakeFailed`, and nothing is said to the peer. A failed message changes
nothing, so a forgery cannot spoil a handshake. A finished handshake is consumed: what it becomes is a `Session`.
"""

from collections.abc import Callable
from typing import Annotated, Final, final

import msgspec
from attrs import field, frozen

from autonomy_trio.errors import HandshakeFailed, IdentityError, TrustError
from autonomy_trio.trust.identity import Bundle, History, verify_bundle
from autonomy_trio.trust.key_service import KeyService
from autonomy_trio.trust.records import Seconds, Signature, digest, verify
from autonomy_trio.wire.constants import (
    BATCH_ENTRIES,
    BOOT_BYTES,
    BUNDLE_BYTES,
    CLOCK_TOLERANCE,
    INITIATOR,
    KEY_BYTES,
    MESSAGE_BYTES,
    PACKET_BYTES,
    PROLOGUE,
    RESPONDER,
    SIGNATURE_BYTES,
    SUITE,
    XX1,
    XX2,
    XX3,
)
from autonomy_trio.wire.entries import Number, PresentationList
from autonomy_trio.wire.noise import XX, HandshakeState, Random
from autonomy_trio.wire.packets import HandshakePacket
from autonomy_trio.wire.session import Keys, Remote, Session

_NOBODY: Final = bytes(KEY_BYTES)
"""Stands for the initiator in XX2's signature: the responder does not know it yet."""


class Limits(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a node takes: bytes of a packet, bytes of a message, messages of a batch; not less than version 1 says."""

    packet: Annotated[int, msgspec.Meta(ge=PACKET_BYTES)]
    message: Annotated[int, msgspec.Meta(ge=MESSAGE_BYTES)]
    entries: Annotated[int, msgspec.Meta(ge=BATCH_ENTRIES)]


class Payload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The payload of XX2 and XX3; the signature is its last 64 bytes and covers all before them."""

    bundle: Annotated[bytes, msgspec.Meta(max_length=BUNDLE_BYTES)]
    boot: Annotated[bytes, msgspec.Meta(min_length=BOOT_BYTES, max_length=BOOT_BYTES)]
    index: Number
    time: Seconds
    limits: Limits
    presentations: PresentationList
    signature: Signature


_PAYLOAD: Final = msgspec.msgpack.Decoder(Payload)
_ENCODER: Final = msgspec.msgpack.Encoder()
_LIMITS: Final = Limits(PACKET_BYTES, MESSAGE_BYTES, BATCH_ENTRIES)


@frozen
class Own:
    """What a handshake needs of its own node.

    Attributes:
        vault: agrees with the session key and signs with the signing key.
        boot: 16 bytes that are new each time the node starts.
        random: a source of secret bytes.
        see: called with the history that a peer has proven to be its own; raises `TrustError` for one that may not
            count.
    """

    vault: KeyService
    boot: bytes
    random: Random = field(repr=False)
    see: Callable[[History], None] = field(default=lambda _: None, repr=False)


@frozen
class _SessionKey:
    """The vault's session key as Noise knows a key."""

    _vault: KeyService

    @property
    def public(self) -> bytes:
        return self._vault.session_public

    def agree(self, public: bytes) -> bytes:
        return self._vault.agree(public)


@frozen
class _Binding:
    """What a payload's signature ties it to, apart from the payload and its signer's identity.

    Attributes:
        h: the handshake hash before the payload.
        signer: the signer's role.
        recipient: the identity the payload is for, as far as the signer knows it.
    """

    h: bytes
    signer: int
    recipient: bytes

    def covered(self, identifier: bytes, before: bytes) -> bytes:
        """Return what is signed by the owner of an identity, of a payload's bytes before the signature."""
        return b"".join((self.h, bytes((self.signer,)), identifier, self.recipient, digest("h-body", before)))


@final
class Initiator:
    """A handshake begun here, until XX2 comes.

    Args:
        own: this node.
        peer: the identifier of the node to reach.
        index: the index that packets to this side of the session shall name.

    Attributes:
        packet: XX1, to be sent until it is answered.
    """

    __slots__ = ("_index", "_own", "_peer", "_state", "packet")

    def __init__(self, own: Own, peer: bytes, index: int) -> None:
        self._own = own
        self._peer = peer
        self._index = index
        state = _start(own, peer, is_initiator=True)
        message = state.write_tokens() + state.write_payload(b"")
        self._state: HandshakeState | None = state
        self.packet: bytes = HandshakePacket(XX1, index, 0, message).encode()

    def finish(self, second: HandshakePacket, presentations: tuple[bytes, ...], now: float) -> tuple[Session, bytes]:
        """Read XX2, and become a session.

        Args:
            second: XX2.
            presentations: the credentials to show.
            now: Unix seconds.

        Returns:
            The session, which receives at once and sends when the responder has confirmed it; and XX3.

        Raises:
            HandshakeFailed: XX2 is refused; this handshake stands as it was.
        """
        state = _unfinished(self._state).copy()
        sealed = state.read_tokens(second.message)
        remote = _read(state, second, sealed, _Binding(state.hash, RESPONDER, _NOBODY), now)
        if remote.bundle.identifier != self._peer:
            raise HandshakeFailed("another node answered than the one that was asked for")
        if remote.presentations:
            raise HandshakeFailed("a responder shows no credentials before it knows to whom")
        _see(self._own, remote.bundle.history)
        message = state.write_tokens()
        binding = _Binding(state.hash, INITIATOR, self._peer)
        message += state.write_payload(_make(self._own, binding, self._index, presentations, now))
        self._state = None
        session = _become(self._own, state, remote, self._index, is_initiator=True)
        return session, HandshakePacket(XX3, self._index, second.sender, message).encode()


@final
class Responder:
    """A handshake that a stranger began, until XX3 comes.

    Args:
        own: this node.
        first: XX1.
        index: the index that packets to this side of the session shall name.
        now: Unix seconds.

    Attributes:
        packet: XX2, the answer to XX1 however often it comes.

    Raises:
        HandshakeFailed: XX1 is refused.
    """

    __slots__ = ("_index", "_own", "_remote_index", "_state", "packet")

    def __init__(self, own: Own, first: HandshakePacket, index: int, now: float) -> None:
        self._own = own
        self._index = index
        self._remote_index = first.sender
        state = _start(own, own.vault.identifier, is_initiator=False)
        state.read_payload(state.read_tokens(first.message))
        message = state.write_tokens()
        message += state.write_payload(_make(own, _Binding(state.hash, RESPONDER, _NOBODY), index, (), now))
        self._state: HandshakeState | None = state
        self.packet: bytes = HandshakePacket(XX2, index, first.sender, message).encode()

    def finish(self, third: HandshakePacket, now: float) -> Session:
        """Read XX3, and become a session that may send at once.

        Args:
            third: XX3.
            now: Unix seconds.

        Raises:
            HandshakeFailed: XX3 is refused; this handshake stands as it was.
        """
        state = _unfinished(self._state).copy()
        if third.sender != self._remote_index:
            raise HandshakeFailed("the initiator's index changed within the handshake")
        sealed = state.read_tokens(third.message)
        own = self._own.vault.identifier
        remote = _read(state, third, sealed, _Binding(state.hash, INITIATOR, own), now)
        _see(self._own, remote.bundle.history)
        if remote.bundle.identifier == own:
            raise HandshakeFailed("the peer has this node's own identity: is a copy of its home in use elsewhere?")
        self._state = None
        return _become(self._own, state, remote, self._index, is_initiator=False)


def _start(own: Own, responder: bytes, *, is_initiator: bool) -> HandshakeState:
    prologue = PROLOGUE + bytes((SUITE,)) + responder
    static = _SessionKey(own.vault)
    return HandshakeState.start(XX, is_initiator=is_initiator, prologue=prologue, random=own.random, static=static)


def _unfinished(state: HandshakeState | None) -> HandshakeState:
    # The same keys in two sessions would seal two messages under one nonce.
    if state is None:
        raise ValueError("this handshake has become a session and cannot become another")
    return state


def _become(own: Own, state: HandshakeState, remote: Remote, index: int, *, is_initiator: bool) -> Session:
    sending, receiving = state.split()
    return Session(own.vault, Keys(state.hash, sending, receiving), remote, index=index, is_initiator=is_initiator)


def _make(own: Own, binding: _Binding, index: int, presentations: tuple[bytes, ...], now: float) -> bytes:
    bundle = own.vault.bundle(now)
    unsigned = Payload(bundle, own.boot, index, int(now), _LIMITS, presentations, bytes(SIGNATURE_BYTES))
    before = _ENCODER.encode(unsigned)[:-SIGNATURE_BYTES]
    return before + own.vault.sign("hs", binding.covered(own.vault.identifier, before))


def _read(state: HandshakeState, packet: HandshakePacket, sealed: bytes, binding: _Binding, now: float) -> Remote:
    encoded = state.read_payload(sealed)
    try:
        payload = _PAYLOAD.decode(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HandshakeFailed(f"the payload is not of this version: {error}") from None
    difference = payload.time - now
    bundle = _verify_bundle(payload.bundle, difference, now)
    if bundle.session_key != state.remote_static:
        raise HandshakeFailed("the peer's key is not the session key that its identity attests")
    if payload.index != packet.sender:
        raise HandshakeFailed("the peer's index is not the one it signed")
    covered = binding.covered(bundle.identifier, encoded[:-SIGNATURE_BYTES])
    if not verify(bundle.signing_key, "hs", covered, payload.signature):
        raise HandshakeFailed("the signature is not that of the identity's signing key over this handshake")
    return Remote(bundle, payload.boot, payload.index, payload.presentations, difference)


def _see(own: Own, history: History) -> None:
    try:
        own.see(history)
    except TrustError as error:
        raise HandshakeFailed(str(error)) from None


def _verify_bundle(encoded: bytes, difference: float, now: float) -> Bundle:
    try:
        return verify_bundle(encoded, now)
    except IdentityError as error:
        # The commonest cause of an attestation out of its time, and one that only the two clocks together show.
        clocks = f"; clocks differ by {abs(difference):,.0f} s" if abs(difference) > CLOCK_TOLERANCE else ""
        raise HandshakeFailed(f"{error}{clocks}") from None
