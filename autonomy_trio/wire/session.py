"""Sessions: envelopes between two nodes, encrypted under the keys of one handshake and signed by who sends them.

Packets carry explicit counters, so that what is lost or late disturbs nothing else, and each direction has its own key.
A counter is never used twice under a key: it starts at the sender's number for the session, which rises from session to
session since the sender's boot, times 2^32. So one comparison tells whether a packet was sent before another, even when
the two came through different sessions.

A session signs although its AEAD authenticates, so that stolen session keys are not enough to speak for a node. The
bytes of portals' streams alone, which follow what is signed, have only the AEAD.

Opening has two steps, because they fail differently. What does not decrypt is a stranger's, and changes nothing. What
decrypts and then breaks a rule is the peer's, or a thief's of its keys, and ends the session.
"""

from collections.abc import Sequence
from typing import Final, final

from attrs import field, frozen

from autonomy_trio.errors import MessageError, ProtocolError
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.key_service import KeyService
from autonomy_trio.trust.records import digest, verify
from autonomy_trio.wire.bodies import decode_body, encode_body
from autonomy_trio.wire.constants import (
    DATA_HEADER_BYTES,
    INITIATOR,
    LARGEST_COUNTER,
    PACKET_BYTES,
    RESPONDER,
    SESSION_PACKET_BITS,
    SIGNATURE_BYTES,
    TAG_BYTES,
)
from autonomy_trio.wire.entries import Entry
from autonomy_trio.wire.noise import decrypt, encrypt
from autonomy_trio.wire.packets import DataHeader, make_data_header
from autonomy_trio.wire.padding import frame, padded_length, unframe_body
from autonomy_trio.wire.window import ReplayWindow

_FRAMING_BYTES: Final = SIGNATURE_BYTES + 4
"""The signature and the body's length, ahead of it."""


@frozen
class Remote:
    """What a peer proved of itself in a handshake.

    Attributes:
        bundle: its verified identity and purpose keys.
        boot: 16 bytes that change when its process does.
        index: the index it wants to see in packets to it.
        presentations: the credentials it showed, not yet judged.
        clock_difference: its clock minus ours, in seconds, as it said.
    """

    bundle: Bundle
    boot: bytes
    index: int
    presentations: tuple[bytes, ...]
    clock_difference: float


@frozen
class Keys:
    """What a handshake makes, 32 bytes each: the session's id, which is its final hash, and the two AEAD keys."""

    id: bytes
    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)


@final
class Session:
    """One side of a session; only a handshake makes one.

    Attributes:
        index: the index that packets to this side name.
        is_initiator: whether this side began the handshake.
        remote: who is on the other side.
    """

    __slots__ = ("_first", "_keys", "_next", "_vault", "_window", "index", "is_initiator", "remote")

    def __init__(self, vault: KeyService, keys: Keys, remote: Remote, *, index: int, is_initiator: bool) -> None:
        self.index: int = index
        self.is_initiator: bool = is_initiator
        self.remote: Remote = remote
        self._vault = vault
        self._keys = keys
        self._window = ReplayWindow()
        self._first = self._next = 0

    @property
    def highest(self) -> int:
        """The highest counter received, -1 before the first."""
        return self._window.highest

    def begin(self, number: int) -> None:
        """Say which of this node's sessions this is since its boot, before anything is sent."""
        self._first = self._next = number << SESSION_PACKET_BITS

    def has_sent(self, counter: int) -> bool:
        """Tell whether a packet with this counter was sent: what a REJECT must know to be believed."""
        return self._first <= counter < self._next

    def seal(self, entries: Sequence[Entry]) -> bytes:
        """Make the next packet, with these entries or none.

        Raises:
            MessageError: the packet would be larger than 160 KiB.
        """
        body, behind = encode_body(entries)
        size = len(body) + sum(map(len, behind))
        if DATA_HEADER_BYTES + padded_length(_FRAMING_BYTES + size) + TAG_BYTES > PACKET_BYTES:
            raise MessageError(f"an envelope of {size} bytes does not fit a packet of {PACKET_BYTES}: send less")
        if self._next > LARGEST_COUNTER:
            raise MessageError("the session has used all its counters: open another")
        header = make_data_header(self.remote.index, self._next)
        self._next += 1
        signature = self._vault.sign("env", self._signed(header, body, is_sending=True))
        return header.encoded + encrypt(
            self._keys.sending, header.counter, header.encoded, frame(body, signature, behind)
        )

    def decrypt(self, header: DataHeader, packet: bytes) -> bytes:
        """Open a packet's encryption and return its plaintext; nothing has changed until `accept`.

        Raises:
            ProtocolError: the counter was seen or is too old, or the packet was not sealed in this session.
        """
        if not self._window.is_fresh(header.counter):
            raise ProtocolError("a packet came again, or far too late")
        plaintext = decrypt(self._keys.receiving, header.counter, header.encoded, packet[DATA_HEADER_BYTES:])
        if plaintext is None:
            raise ProtocolError("a packet was not sealed in the session it names")
        return plaintext

    def accept(self, header: DataHeader, plaintext: bytes) -> list[Entry]:
        """Check the signature and the framing of what was decrypted, count it as received and return its entries.

        Raises:
            ProtocolError: who holds the session's keys broke a rule; the session must end.
        """
        body, end = unframe_body(plaintext, before=SIGNATURE_BYTES)
        signed = self._signed(header, body, is_sending=False)
        if not verify(self.remote.bundle.signing_key, "env", signed, plaintext[:SIGNATURE_BYTES]):
            raise ProtocolError("an envelope is not signed by the node it comes from")
        entries = decode_body(body, plaintext, end)
        self._window.mark(header.counter)
        return entries

    def _signed(self, header: DataHeader, body: bytes, *, is_sending: bool) -> bytes:
        own, other = self._vault.identifier, self.remote.bundle.identifier
        sender, recipient = (own, other) if is_sending else (other, own)
        direction = INITIATOR if is_sending == self.is_initiator else RESPONDER
        return b"".join((self._keys.id, sender, recipient, bytes((direction,)), header.encoded, digest("h-body", body)))
