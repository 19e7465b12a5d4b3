"""Packets: the headers that every relay can read, and that every receiver checks before it does any work.

All numbers are big-endian. A header names the receiver's index and no identity; whose packet it is, only keys tell.
"""

import struct
from typing import Final

from attrs import frozen

from autonomy_trio.errors import ProtocolError
from autonomy_trio.wire.constants import (
    DATA,
    DATA_HEADER_BYTES,
    HANDSHAKE_BYTES,
    HANDSHAKE_HEADER_BYTES,
    KEY_BYTES,
    LEAST_PLAINTEXT_BYTES,
    PACKET_BYTES,
    REJECT,
    SEALED,
    SEALED_HEADER_BYTES,
    SUITE,
    TAG_BYTES,
    VERSION,
    XX1,
    XX2,
    XX3,
)

_HANDSHAKE: Final = struct.Struct(">BBBBII")
_DATA: Final = struct.Struct(">BBBBIQ")
_REJECT: Final = bytes((VERSION, REJECT, 0, 0))
_KINDS: Final = frozenset(bytes((kind,)) for kind in (XX1, XX2, XX3, DATA, SEALED, REJECT))
_XX1_BYTES: Final = HANDSHAKE_HEADER_BYTES + KEY_BYTES
_SEALED: Final = struct.Struct(">BBBBII")
_LEAST_SEALED_BYTES: Final = SEALED_HEADER_BYTES + KEY_BYTES + LEAST_PLAINTEXT_BYTES + 2 * TAG_BYTES
_LEAST_DATA_BYTES: Final = DATA_HEADER_BYTES + LEAST_PLAINTEXT_BYTES + TAG_BYTES


@frozen
class HandshakePacket:
    """A handshake packet: `01 | type | suite | flags 00 | sender index u32 | receiver index u32 | Noise message`."""

    kind: int
    sender: int
    receiver: int
    message: bytes

    def encode(self) -> bytes:
        """Return the packet's bytes."""
        return _HANDSHAKE.pack(VERSION, self.kind, SUITE, 0, self.sender, self.receiver) + self.message


@frozen
class DataHeader:
    """A data packet's header: `01 | 30 | flags | 00 | receiver index u32 | counter u64`, the AEAD's associated data."""

    receiver: int
    counter: int
    encoded: bytes


@frozen
class SealedPacket:
    """A sealed envelope: `01 | 40 | suite | flags 00 | prekey id u32 | length u32 | Noise message | sealed body`.

    Attributes:
        prekey: the recipient's number for the key it is for.
        message: the Noise message, whose length the header tells.
        body: the sealed body.
    """

    prekey: int
    message: bytes
    body: bytes

    @property
    def header(self) -> bytes:
        """The bytes before the Noise message, which are the associated data of the body."""
        return _SEALED.pack(VERSION, SEALED, SUITE, 0, self.prekey, len(self.message))

    def encode(self) -> bytes:
        """Return the packet's bytes."""
        return b"".join((self.header, self.message, self.body))


def packet_kind(packet: bytes) -> int:
    """Return the type of a packet of this version.

    Raises:
        ProtocolError: it is too long, or of another version or an unknown type.
    """
    if len(packet) > PACKET_BYTES:
        raise ProtocolError(f"a packet of {len(packet)} bytes is longer than {PACKET_BYTES}")
    version, kind = packet[:1], packet[1:2]
    if version != bytes((VERSION,)) or kind not in _KINDS:
        raise ProtocolError(f"this is no packet of version {VERSION} and a type known here")
    return kind[0]


def read_handshake(packet: bytes) -> HandshakePacket:
    """Read a handshake packet of whichever type it is.

    Raises:
        ProtocolError: too short, too long, or of an unknown type, suite or flag.
    """
    if not HANDSHAKE_HEADER_BYTES + KEY_BYTES <= len(packet) <= HANDSHAKE_BYTES:
        raise ProtocolError(f"a handshake packet does not have {len(packet)} bytes")
    version, kind, suite, flags, sender, receiver = _HANDSHAKE.unpack_from(packet)
    if (version, suite, flags) != (VERSION, SUITE, 0) or kind not in (XX1, XX2, XX3):
        raise ProtocolError(f"version {version}, type {kind}, suite {suite}, flags {flags} are no handshake known here")
    if kind == XX1 and (len(packet) != _XX1_BYTES or receiver):
        raise ProtocolError("a first handshake packet is one key, and is for no index")
    return HandshakePacket(kind, sender, receiver, packet[HANDSHAKE_HEADER_BYTES:])


def read_sealed(packet: bytes) -> SealedPacket:
    """Read a sealed envelope's packet.

    Raises:
        ProtocolError: too short, too long, of an unknown suite or flag, or its length does not fit.
    """
    if not _LEAST_SEALED_BYTES <= len(packet) <= PACKET_BYTES:
        raise ProtocolError(f"a sealed envelope does not have {len(packet)} bytes")
    version, kind, suite, flags, prekey, length = _SEALED.unpack_from(packet)
    if (version, kind, suite, flags) != (VERSION, SEALED, SUITE, 0):
        raise ProtocolError(f"version {version}, type {kind}, suite {suite}, flags {flags} are no sealed envelope here")
    end = SEALED_HEADER_BYTES + length
    if not KEY_BYTES + TAG_BYTES <= length <= len(packet) - SEALED_HEADER_BYTES - LEAST_PLAINTEXT_BYTES - TAG_BYTES:
        raise ProtocolError("a sealed envelope has no room for its parts")
    return SealedPacket(prekey, packet[SEALED_HEADER_BYTES:end], packet[end:])


def make_data_header(receiver: int, counter: int) -> DataHeader:
    """Make the header of a data packet."""
    return DataHeader(receiver, counter, _DATA.pack(VERSION, DATA, 0, 0, receiver, counter))


def read_data_header(packet: bytes) -> DataHeader:
    """Read the header of a data packet.

    Raises:
        ProtocolError: it is too short to hold an envelope, or has a flag that is not known here.
    """
    if len(packet) < _LEAST_DATA_BYTES:
        raise ProtocolError(f"a data packet of {len(packet)} bytes is shorter than {_LEAST_DATA_BYTES}")
    return _read_data_header(packet[:DATA_HEADER_BYTES])


def make_reject(header: DataHeader) -> bytes:
    """Make the answer to a data packet that no session here can open: its header, so that only who sent it believes."""
    return _REJECT + header.encoded


def read_reject(packet: bytes) -> DataHeader:
    """Read the data header that a REJECT echoes.

    Raises:
        ProtocolError: it is not that.
    """
    if len(packet) != len(_REJECT) + DATA_HEADER_BYTES or not packet.startswith(_REJECT):
        raise ProtocolError("a reject is four bytes and the header of a data packet")
    return _read_data_header(packet[len(_REJECT) :])


def _read_data_header(header: bytes) -> DataHeader:
    version, kind, flags, reserved, receiver, counter = _DATA.unpack(header)
    if (version, kind, flags, reserved) != (VERSION, DATA, 0, 0):
        raise ProtocolError(f"version {version}, type {kind}, flags {flags}, {reserved} are no data packet known here")
    return DataHeader(receiver, counter, header)
