"""Relay frames: what a node and a relay say to each other, each a msgpack array of its kind and its fields.

One websocket message is one or more of `length u32 | frame`. Registration proves to the relay who the node is, and to
the node which relay answers, each by a signature over what the other sent; both nonces are in it, so neither can be
replayed. A signature is the last 64 bytes of its frame and covers all before them, as they were sent.

    HELLO →   ← REGISTER   WELCOME →   then SEND, DELIVER, NACK, PING and PONG
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal

import msgspec

from autonomy_trio.errors import IdentityError, ProtocolError
from autonomy_trio.trust.identity import Bundle, verify_bundle
from autonomy_trio.trust.records import Identifier, Key, Signature, digest, verify
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import (
    BUNDLE_BYTES,
    CODE_CHARACTERS,
    LINK_GONE_AFTER,
    LONGEST_TIME_TO_LIVE,
    PACKET_BYTES,
    PING_AFTER,
    REGISTER_WITHIN,
    RELAY_ISSUERS,
    RELAY_MESSAGE_BYTES,
    SIGNATURE_BYTES,
    VERSION,
)
from autonomy_trio.wire.entries import Number, PresentationList

_LENGTH_BYTES: Final = 4
_UNSIGNED: Final = bytes(SIGNATURE_BYTES)

BundleBytes = Annotated[bytes, msgspec.Meta(max_length=BUNDLE_BYTES)]
Packet = Annotated[bytes, msgspec.Meta(max_length=PACKET_BYTES)]


class RelayLimits(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a relay takes: bytes of a websocket message, bytes of a packet, seconds a node has to register."""

    message: Number = RELAY_MESSAGE_BYTES
    packet: Number = PACKET_BYTES
    register_within: Number = REGISTER_WITHIN


class Parameters(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a node must keep to: seconds of silence after which it pings, and after which the relay gives it up."""

    ping_after: Number = PING_AFTER
    gone_after: Number = LINK_GONE_AFTER


class Hello(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Relay to node, first: who the relay is, and which issuers' credentials it asks for."""

    version: Literal[1]
    bundle: BundleBytes
    nonce: Key
    limits: RelayLimits
    issuers: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=RELAY_ISSUERS)]


class Register(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Node to relay: who the node is, and the credentials it was asked for."""

    bundle: BundleBytes
    presentations: PresentationList
    nonce: Key
    signature: Signature


class Welcome(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Relay to node: it is registered, in place of any earlier registration of its identity."""

    parameters: Parameters
    signature: Signature


class Send(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """Node to relay: a packet for another node, worth delivering for so many seconds."""

    destination: Identifier
    flags: Literal[0]
    time_to_live: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_TIME_TO_LIVE)]
    packet: Packet


class Deliver(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """Relay to node: a packet, and whom the relay had it from: a hint where to answer, never trusted."""

    source: Identifier
    packet: Packet


class Nack(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """Relay to node: packets for a destination are not delivered."""

    reason: Annotated[str, msgspec.Meta(max_length=CODE_CHARACTERS)]
    destination: Identifier


class Ping(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """Either way: are you there?"""


class Pong(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """Either way: I am."""


Frame = Hello | Register | Welcome | Send | Deliver | Nack | Ping | Pong

_FRAME: Final[msgspec.msgpack.Decoder[Frame]] = msgspec.msgpack.Decoder(Frame)
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode_frame(frame: Frame) -> bytes:
    """Encode one frame."""
    return _ENCODER.encode(frame)


def decode_frame(encoded: bytes) -> Frame:
    """Decode one frame, as strictly as the types say.

    Raises:
        ProtocolError: it is malformed, or of an unknown kind, type or size.
    """
    try:
        return _FRAME.decode(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"this is no frame of a relay: {error}") from None


def join_frames(frames: Iterable[bytes]) -> bytes:
    """Make one websocket message of encoded frames; who joins sees to the message's limit of 256 KiB."""
    return b"".join(part for frame in frames for part in (len(frame).to_bytes(_LENGTH_BYTES, "big"), frame))


def frame_size(frame: bytes) -> int:
    """Return the bytes an encoded frame takes in a message."""
    return _LENGTH_BYTES + len(frame)


def split_frames(message: bytes) -> list[bytes]:
    """Take a websocket message apart into encoded frames.

    Raises:
        ProtocolError: the message is empty or too long, or its lengths do not add up.
    """
    if len(message) > RELAY_MESSAGE_BYTES:
        raise ProtocolError(f"a relay's message of {len(message)} bytes is longer than {RELAY_MESSAGE_BYTES}")
    frames: list[bytes] = []
    at = 0
    while at < len(message) or not frames:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(message[at:start], "big")
        if not start < at <= len(message):
            raise ProtocolError("a relay's message is not made of whole frames")
        frames.append(message[start:at])
    return frames


def make_hello(vault: Vault, nonce: bytes, issuers: Sequence[bytes], now: float) -> bytes:
    """Make a relay's first frame.

    Args:
        vault: the relay's identity.
        nonce: 32 random bytes, new for each connection.
        issuers: the identifiers of the authorities whose credentials admit a node; none when any node may register.
        now: Unix seconds.
    """
    return encode_frame(Hello(VERSION, vault.bundle(now), nonce, RelayLimits(), tuple(issuers)))


def verify_hello(encoded: bytes, now: float) -> tuple[Hello, Bundle]:
    """Read a relay's first frame. Who it is, is proven by WELCOME only.

    Raises:
        ProtocolError: it is no HELLO, or its identity does not verify.
    """
    hello = decode_frame(encoded)
    if not isinstance(hello, Hello):
        raise ProtocolError("a relay begins with HELLO")
    return hello, _verify_bundle(hello.bundle, now)


def make_register(vault: Vault, hello: bytes, presentations: Sequence[bytes], nonce: bytes, now: float) -> bytes:
    """Make a node's answer to HELLO.

    Args:
        vault: the node's identity.
        hello: the HELLO frame as received.
        presentations: the credentials the relay asked for.
        nonce: 32 random bytes, new for each connection.
        now: Unix seconds.
    """
    register = Register(vault.bundle(now), tuple(presentations), nonce, _UNSIGNED)
    before = encode_frame(register)[:-SIGNATURE_BYTES]
    return before + vault.sign("relay-reg", digest("h-body", hello) + before)


def verify_register(encoded: bytes, hello: bytes, now: float) -> tuple[Register, Bundle]:
    """Verify a node's answer to HELLO: whoever sent it holds the node's signing key, and saw this HELLO.

    Args:
        encoded: the REGISTER frame as received.
        hello: the HELLO frame as sent.
        now: Unix seconds.

    Raises:
        ProtocolError: it is no REGISTER, or does not verify.
    """
    register = decode_frame(encoded)
    if not isinstance(register, Register):
        raise ProtocolError("a node answers HELLO with REGISTER")
    bundle = _verify_bundle(register.bundle, now)
    signed = digest("h-body", hello) + encoded[:-SIGNATURE_BYTES]
    if not verify(bundle.signing_key, "relay-reg", signed, register.signature):
        raise ProtocolError("the registration is not signed by the node it names, or not for this connection")
    return register, bundle


def make_welcome(vault: Vault, hello: bytes, register: bytes, parameters: Parameters) -> bytes:
    """Make a relay's answer to REGISTER.

    Args:
        vault: the relay's identity.
        hello: the HELLO frame as sent.
        register: the REGISTER frame as received.
        parameters: what the node must keep to.
    """
    before = encode_frame(Welcome(parameters, _UNSIGNED))[:-SIGNATURE_BYTES]
    return before + vault.sign("relay-welcome", _transcript(hello, register) + before)


def verify_welcome(encoded: bytes, hello: bytes, register: bytes, relay: Bundle) -> Welcome:
    """Verify a relay's answer to REGISTER: whoever sent it holds the signing key of the relay that HELLO named.

    Args:
        encoded: the WELCOME frame as received.
        hello: the HELLO frame as received.
        register: the REGISTER frame as sent.
        relay: what `verify_hello` returned.

    Raises:
        ProtocolError: it is no WELCOME, or does not verify.
    """
    welcome = decode_frame(encoded)
    if not isinstance(welcome, Welcome):
        raise ProtocolError("a relay answers REGISTER with WELCOME")
    signed = _transcript(hello, register) + encoded[:-SIGNATURE_BYTES]
    if not verify(relay.signing_key, "relay-welcome", signed, welcome.signature):
        raise ProtocolError("the welcome is not signed by the relay that HELLO named, or not for this connection")
    return welcome


def _transcript(hello: bytes, register: bytes) -> bytes:
    return digest("h-body", hello) + digest("h-body", register)


def _verify_bundle(encoded: bytes, now: float) -> Bundle:
    try:
        return verify_bundle(encoded, now)
    except IdentityError as error:
        raise ProtocolError(str(error)) from None
