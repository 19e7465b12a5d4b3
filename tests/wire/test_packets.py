import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import ProtocolError
from autonomy_trio.wire.constants import HANDSHAKE_BYTES, PACKET_BYTES, XX1, XX2, XX3
from autonomy_trio.wire.packets import (
    HandshakePacket,
    make_data_header,
    make_reject,
    packet_kind,
    read_data_header,
    read_handshake,
    read_reject,
)

ENVELOPE = bytes(64 + 16)


def test_layouts_are_those_of_the_contract() -> None:
    first = HandshakePacket(XX1, 0x01020304, 0, bytes(32)).encode()
    assert first == bytes.fromhex("01010100 01020304 00000000") + bytes(32)
    second = HandshakePacket(XX2, 0x01020304, 0x0A0B0C0D, b"x" * 40).encode()
    assert second == bytes.fromhex("01020100 01020304 0a0b0c0d") + b"x" * 40
    header = make_data_header(0x01020304, 0x1122334455667788)
    assert header.encoded == bytes.fromhex("01300000 01020304 1122334455667788")
    assert make_reject(header) == bytes.fromhex("01500000") + header.encoded


@pytest.mark.parametrize("kind", [XX2, XX3])
@given(sender=st.integers(0, 2**32 - 1), receiver=st.integers(0, 2**32 - 1), message=st.binary(min_size=32))
def test_handshake_packet_reads_as_written(kind: int, sender: int, receiver: int, message: bytes) -> None:
    packet = HandshakePacket(kind, sender, receiver, message)
    assert read_handshake(packet.encode()) == packet


@given(receiver=st.integers(0, 2**32 - 1), counter=st.integers(0, 2**64 - 1))
def test_data_header_and_reject_read_as_written(receiver: int, counter: int) -> None:
    header = make_data_header(receiver, counter)
    assert read_data_header(header.encoded + ENVELOPE) == header
    assert read_reject(make_reject(header)) == header


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x01",
        b"\x02\x30" + bytes(100),
        b"\x01\x31" + bytes(100),
        b"\x01\x41" + bytes(100),
        b"\x01\x30" + bytes(PACKET_BYTES),
    ],
)
def test_packets_of_other_versions_types_and_sizes_are_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        packet_kind(packet)


@pytest.mark.parametrize(
    "packet",
    [
        HandshakePacket(XX2, 1, 2, bytes(31)).encode(),
        HandshakePacket(XX2, 1, 2, bytes(HANDSHAKE_BYTES - 11)).encode(),
        HandshakePacket(XX1, 1, 2, bytes(32)).encode(),
        HandshakePacket(XX1, 1, 0, bytes(33)).encode(),
        HandshakePacket(0x04, 1, 2, bytes(32)).encode(),
        bytes.fromhex("02020100") + bytes(40),
        bytes.fromhex("01020200") + bytes(40),
        bytes.fromhex("01020101") + bytes(40),
    ],
)
def test_handshake_packets_out_of_shape_are_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_handshake(packet)


@pytest.mark.parametrize(
    "packet",
    [
        make_data_header(1, 2).encoded + ENVELOPE[1:],
        b"\x01\x30\x01\x00" + bytes(12) + ENVELOPE,
        b"\x01\x30\x00\x01" + bytes(12) + ENVELOPE,
        b"\x01\x31\x00\x00" + bytes(12) + ENVELOPE,
    ],
)
def test_data_packets_out_of_shape_are_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_data_header(packet)


@pytest.mark.parametrize(
    "packet",
    [
        b"\x01\x50\x00\x00",
        make_reject(make_data_header(1, 2)) + b"\x00",
        make_reject(make_data_header(1, 2))[:-1],
        b"\x01\x50\x00\x01" + make_data_header(1, 2).encoded,
        b"\x01\x50\x00\x00\x01\x50\x00\x00" + bytes(12),
    ],
)
def test_rejects_out_of_shape_are_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_reject(packet)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"\x01\x30\x00\x00" + tail))
def test_random_bytes_are_read_or_refused(packet: bytes) -> None:
    for read in (packet_kind, read_handshake, read_data_header, read_reject):
        try:
            read(packet)
        except ProtocolError:
            continue
