"""Relay frames: what a node and a relay say to each other, each a msgpack array of its kind and its fields.

One websocket message is one or more of `length u32 | frame`. A signature is the last 64 bytes of its frame and covers
all before them, as they were sent.

    HELLO →   ← REGISTER   WELCOME →                          who is who: `wire.registration`
    ← SEND   DELIVER →   NACK →   PING ↔ PONG                 packets between nodes that are there
    ← STORE   STORED →   ← FETCH   DELIVER →   ← ACK          sealed envelopes for nodes that are away: `wire.mailbox`
    ← PUBLISH   ← LOOKUP   RECORDS →                          who offers what: `wire.directory`
    ← SHOW                                                    credentials in place of those of REGISTER
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from autonomy_trio.errors import ProtocolError
from autonomy_trio.trust.records import Digest, Identifier, Key, Signature, Signed
from autonomy_trio.wire.constants import (
    BUNDLE_BYTES,
    LINK_GONE_AFTER,
    LONGEST_TIME_TO_LIVE,
    PACKET_BYTES,
    PING_AFTER,
    RECORDS,
    REGISTER_WITHIN,
    RELAY_ISSUERS,
    RELAY_MESSAGE_BYTES,
    SEALED_LIFE,
    UNACKNOWLEDGED,
)
from autonomy_trio.wire.entries import Code, Name, Number, PresentationList

_LENGTH_BYTES: Final = 4

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

    reason: Code
    destination: Identifier


class Ping(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """Either way: are you there?"""


class Pong(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """Either way: I am."""


class Store(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9):
    """Node to relay: keep a sealed envelope for a node, for so many seconds, or until that node has acknowledged it."""

    destination: Identifier
    time_to_live: Annotated[int, msgspec.Meta(ge=1, le=SEALED_LIFE)]
    packet: Packet


class Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=10):
    """Relay to node: an envelope is on the disk, or why it is not.

    Attributes:
        id: `stored_id` of the packet, so that storing the same bytes twice stores them once.
        refusal: a coarse word; None when it is stored.
    """

    id: Digest
    refusal: Code | None


class Fetch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=11):
    """Node to relay: deliver what is stored for this node, and what will be, with so many unacknowledged at most."""

    sequence: Number
    unacknowledged: Annotated[int, msgspec.Meta(ge=1, le=UNACKNOWLEDGED)]
    signature: Signature


class Ack(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=12):
    """Node to relay: these envelopes were taken, and are remembered; forget them."""

    sequence: Number
    ids: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=UNACKNOWLEDGED)]
    signature: Signature


class Listing(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A record of the directory with what proves it.

    Attributes:
        bundle: of the node whose record it is.
        record: an encoded `wire.directory.Record`, signed by the node's signing key.
        presentations: the credentials that the node shows to whoever looks.
    """

    bundle: BundleBytes
    record: Signed
    presentations: PresentationList


class Publish(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=13):
    """Node to relay: list this, in place of what this node had listed."""

    listing: Listing


class Lookup(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=14):
    """Node to relay: which records fit? The relay may leave out and proves nothing: whoever asks verifies.

    Attributes:
        request: the asker's number for it.
        node: the node whose record it is; None for any.
        agent: a name that one of its agents has; None for any.
        message: a wire name that one of its agents takes; None for any.
    """

    request: Number
    node: Identifier | None
    agent: Name | None
    message: Name | None


class Records(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=15):
    """Relay to node: records that fit, and whether there are more than were sent.

    Attributes:
        request: the asker's number.
        listings: the records.
        more: whether there are more.
        bundle: with which the node that was asked for registered last, so that something can be sealed for it; None
            where the relay does not know it, or no node was asked for.
    """

    request: Number
    listings: Annotated[tuple[Listing, ...], msgspec.Meta(max_length=RECORDS)]
    more: bool
    bundle: BundleBytes | None = None


class Show(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=16):
    """Node to relay: the credentials it shows from here on. Each has its own signature, and is about this node."""

    presentations: PresentationList


Frame = (
    Hello
    | Register
    | Welcome
    | Send
    | Deliver
    | Nack
    | Ping
    | Pong
    | Store
    | Stored
    | Fetch
    | Ack
    | Publish
    | Lookup
    | Records
    | Show
)

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
