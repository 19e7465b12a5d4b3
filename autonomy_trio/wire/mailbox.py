"""The mailbox of a relay: what a node signs to have its sealed envelopes, and to have them forgotten.

The connection is its node's already. FETCH and ACK are signed all the same, because the relay that keeps the envelopes
may be another one of a cluster: it sees who asks, on which connection, and that nobody repeats an older request.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from attrs import frozen

from autonomy_trio.errors import ProtocolError
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.key_service import KeyService
from autonomy_trio.trust.records import digest, verify
from autonomy_trio.wire.constants import SIGNATURE_BYTES
from autonomy_trio.wire.frames import Ack, Fetch, decode_frame, encode_frame

_UNSIGNED: Final = bytes(SIGNATURE_BYTES)

_Request = TypeVar("_Request", Fetch, Ack)


@frozen
class Connection:
    """What a node's requests are tied to.

    Attributes:
        relay_nonce: of the relay's HELLO.
        node_nonce: of the node's REGISTER.
    """

    relay_nonce: bytes
    node_nonce: bytes


def stored_id(packet: bytes) -> bytes:
    """Return the 32 bytes by which relays and nodes name a stored packet: its hash, so nobody can take another's."""
    return digest("h-body", packet)


def make_fetch(vault: KeyService, connection: Connection, sequence: int, unacknowledged: int) -> bytes:
    """Ask for what is stored.

    Args:
        vault: the node's identity.
        connection: which one.
        sequence: higher than that of the connection's FETCH or ACK before.
        unacknowledged: how many envelopes to have at once, 1 to 256.
    """
    return _signed(vault, connection, Fetch(sequence, unacknowledged, _UNSIGNED))


def make_ack(vault: KeyService, connection: Connection, sequence: int, ids: Sequence[bytes]) -> bytes:
    """Say which envelopes were taken and are remembered.

    Args:
        vault: the node's identity.
        connection: which one.
        sequence: higher than that of the connection's FETCH or ACK before.
        ids: their `stored_id`, 1 to 256.
    """
    return _signed(vault, connection, Ack(sequence, tuple(ids), _UNSIGNED))


def verify_fetch(encoded: bytes, connection: Connection, node: Bundle, after: int) -> Fetch:
    """Verify a FETCH.

    Args:
        encoded: the frame as received.
        connection: which one.
        node: the bundle that the node registered with.
        after: the sequence of the connection's FETCH or ACK before, -1 for the first.

    Raises:
        ProtocolError: it is no FETCH, is not the node's, or came again.
    """
    return _verified(encoded, Fetch, connection, node, after)


def verify_ack(encoded: bytes, connection: Connection, node: Bundle, after: int) -> Ack:
    """Verify an ACK; as `verify_fetch`.

    Raises:
        ProtocolError: it is no ACK, is not the node's, or came again.
    """
    return _verified(encoded, Ack, connection, node, after)


def _signed(vault: KeyService, connection: Connection, unsigned: Fetch | Ack) -> bytes:
    before = encode_frame(unsigned)[:-SIGNATURE_BYTES]
    return before + vault.sign("relay-ack", connection.relay_nonce + connection.node_nonce + before)


def _verified(encoded: bytes, kind: type[_Request], connection: Connection, node: Bundle, after: int) -> _Request:
    frame = decode_frame(encoded)
    if not isinstance(frame, kind):
        raise ProtocolError(f"this is no {kind.__name__.upper()}")
    signed = connection.relay_nonce + connection.node_nonce + encoded[:-SIGNATURE_BYTES]
    if not verify(node.signing_key, "relay-ack", signed, frame.signature):
        raise ProtocolError("a request for a mailbox is not signed by its node, or not for this connection")
    if frame.sequence <= after:
        raise ProtocolError("a request for a mailbox came again")
    return frame
