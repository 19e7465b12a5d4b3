"""The directory: what a node says of itself to whoever looks, signed, for an hour at most.

A record proves which node wrote it and no more: a name is free for anyone to take. What a node can prove of itself it
shows beside the record, and whoever looks judges that with anchors of its own. A relay keeps the record with the
highest serial of each node; it can hide records, and cannot make one up or bring an older one back to whom knows newer.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from attrs import field, frozen

from autonomy_trio.errors import IdentityError, ProtocolError, UsageError
from autonomy_trio.trust.identity import CHANGES_LIMIT, Bundle, verify_bundle
from autonomy_trio.trust.key_service import KeyService
from autonomy_trio.trust.records import Identifier, Seconds, Signed, decode_record, verify
from autonomy_trio.wire.constants import (
    CLOCK_LEEWAY,
    RECORD_AGENTS,
    RECORD_BYTES,
    RECORD_LIFE,
    RECORD_MESSAGES,
    RECORD_RELAYS,
)
from autonomy_trio.wire.entries import Name, Number, Text, shown_presentations
from autonomy_trio.wire.frames import Listing


class ListedMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message that an agent takes: its wire name, and its JSON schema as bytes; empty for none."""

    name: Name
    schema: Annotated[bytes, msgspec.Meta(max_length=RECORD_BYTES)]


class ListedAgent(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An agent that a node lets be found."""

    name: Name
    description: Text
    messages: Annotated[tuple[ListedMessage, ...], msgspec.Meta(max_length=RECORD_MESSAGES)]


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a node says of itself.

    Attributes:
        version: of this format.
        node: the node's identifier.
        seq: its sequence number when it wrote this.
        serial: rises from record to record of one node.
        created: Unix seconds.
        expires: Unix seconds from which it counts no more.
        relays: URLs of the relays where the node can be reached.
        agents: what can be found there.
    """

    version: Literal[1]
    node: Identifier
    seq: Annotated[int, msgspec.Meta(ge=0, lt=CHANGES_LIMIT)]
    serial: Number
    created: Seconds
    expires: Seconds
    relays: Annotated[tuple[Name, ...], msgspec.Meta(max_length=RECORD_RELAYS)]
    agents: Annotated[tuple[ListedAgent, ...], msgspec.Meta(max_length=RECORD_AGENTS)]


@frozen
class Found:
    """A record that was verified, its writer, and the credentials beside it, which are not yet judged."""

    record: Record
    bundle: Bundle
    presentations: tuple[bytes, ...] = field(repr=False)

    def replaces(self, other: "Found") -> bool:
        """Tell whether this record takes the place of another one of the same node."""
        return (self.record.seq, self.record.serial) > (other.record.seq, other.record.serial)


_RECORD: Final = msgspec.msgpack.Decoder(Record)
_ENCODER: Final = msgspec.msgpack.Encoder()


def make_listing(vault: KeyService, record: Record, presentations: Sequence[bytes]) -> Listing:
    """Sign a record as its node.

    Args:
        vault: the node's identity.
        record: what to say.
        presentations: the credentials to show to everyone; those that fit are taken.

    Raises:
        UsageError: the record is larger than 24 KiB.
    """
    body = _ENCODER.encode(record)
    if len(body) > RECORD_BYTES:
        raise UsageError(f"a record of {len(body)} bytes is larger than {RECORD_BYTES}: list fewer agents, or shorter")
    signed = Signed(body, vault.sign("record", body))
    return Listing(vault.bundle(record.created), signed, shown_presentations(presentations).presentations)


def verify_listing(listing: Listing, now: float) -> Found:
    """Verify a record from the directory, or from a node that publishes it.

    Args:
        listing: it.
        now: Unix seconds.

    Raises:
        ProtocolError: it is malformed, is not signed by the node it is of, or is out of its time.
    """
    try:
        bundle = verify_bundle(listing.bundle, now)
        record = decode_record(_RECORD, listing.record.body, RECORD_BYTES, "a record of the directory", IdentityError)
    except IdentityError as error:
        raise ProtocolError(str(error)) from None
    if (record.node, record.seq) != (bundle.identifier, bundle.seq):
        raise ProtocolError("a record of the directory is of another node than the one that shows it, or of its past")
    if not 0 < record.expires - record.created <= RECORD_LIFE:
        raise ProtocolError(f"a record of the directory is valid for 1 to {RECORD_LIFE} s")
    if not record.created - CLOCK_LEEWAY <= now < record.expires:
        raise ProtocolError("a record of the directory is out of its time")
    if not verify(bundle.signing_key, "record", listing.record.body, listing.record.signature):
        raise ProtocolError("a record of the directory is not signed by the node it is of")
    return Found(record, bundle, listing.presentations)
