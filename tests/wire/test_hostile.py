"""Bytes made to cost a parser dear: each is refused, soon and in little memory."""

import time
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from autonomy_trio.errors import AutonomyError, ProtocolError
from autonomy_trio.trust.records import Signed
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import RELAY_MESSAGE_BYTES
from autonomy_trio.wire.directory import verify_listing
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import decode_entries
from autonomy_trio.wire.events import Refused
from autonomy_trio.wire.frames import Listing, decode_frame, split_frames
from autonomy_trio.wire.packets import packet_kind, read_data_header, read_handshake, read_reject, read_sealed
from autonomy_trio.wire.registration import verify_hello, verify_register
from autonomy_trio.wire.remembered import Remembered

NOW = 1_800_000_000.0
SECONDS = 0.05
BYTES = 10 * 1024 * 1024
VAULT = Vault.in_memory()

NESTED = [
    ("depth 10,000 of arrays", b"\x91" * 10_000),
    ("depth 10,000 of arrays, closed", b"\x91" * 10_000 + b"\xc0"),
    ("depth 10,000 of maps", b"\x81\xa1a" * 10_000),
    ("depth 10,000 of arrays inside an entry", b"\x91\x95\x01" + b"\x91" * 10_000 + b"\xc0"),
]
DECLARED = [
    ("2^32 items of an array", b"\xdd\xff\xff\xff\xff"),
    ("2^32 items of a map", b"\xdf\xff\xff\xff\xff"),
    ("2^32 bytes", b"\xc6\xff\xff\xff\xff"),
    ("2^32 characters", b"\xdb\xff\xff\xff\xff"),
    ("2^32 bytes of an extension", b"\xc9\xff\xff\xff\xff\x01"),
    ("2^32 items inside an entry", b"\x91\x92\x06\xdd\xff\xff\xff\xff"),
    ("2^32 bytes inside an entry", b"\x91\x95\x01\xa1a\xa1m\xc6\xff\xff\xff\xff"),
    ("2^32 credentials inside a frame", b"\x95\x02\xc4\x00\xdd\xff\xff\xff\xff"),
]
MANY = [
    ("a million items", b"\xdd" + (1_000_000).to_bytes(4, "big") + b"\xc0" * 1_000_000),
    ("a million entries", b"\xdd" + (1_000_000).to_bytes(4, "big") + b"\x92\x05\x01" * 1_000_000),
    ("a million keys", b"\xdf" + (1_000_000).to_bytes(4, "big") + b"\xa1a\xc0" * 1_000_000),
    ("a million indices", b"\x91\x92\x09\xdd" + (1_000_000).to_bytes(4, "big") + b"\x01" * 1_000_000),
]
ODD = [
    ("duplicate keys", b"\x82\xa1a\x01\xa1a\x02"),
    ("duplicate keys in an entry", b"\x91\x82\xa4type\x05\xa4type\x01"),
    ("NaN for a number", b"\x91\x92\x05\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    ("infinity for a number", b"\x91\x92\x05\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"),
    ("a float for a number", b"\x91\x92\x05\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
    ("2^64 - 1 for a number", b"\x91\x92\x05\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("a bool for a number", b"\x91\x92\x05\xc3"),
    ("text that is no UTF-8", b"\x91\x92\x07\xa2\xff\xfe"),
    ("trailing bytes", b"\x90\x00"),
    ("a second value", b"\x91\x92\x05\x01\x91\x92\x05\x01"),
    ("an extension", b"\xd4\x01\x00"),
    ("a timestamp", b"\xd6\xff\x00\x00\x00\x00"),
    ("the byte that is never used", b"\xc1"),
    ("nothing", b""),
]
HOSTILE = dict(NESTED + DECLARED + MANY + ODD)


def no_handshake(data: bytes) -> None:
    """Give an endpoint the bytes as each kind of packet; it refuses with an event and raises nothing."""
    endpoint = Endpoint(VAULT, boot=bytes(16), presentations=list)
    for header in (
        b"",
        b"\x01\x02\x01\x00" + bytes(8),
        b"\x01\x03\x01\x00" + bytes(8),
        b"\x01\x30\x00\x00",
        b"\x01\x40\x01\x00",
        b"\x01\x50\x00\x00",
    ):
        endpoint.receive(header + data, "path", NOW, 0.0)
    events = endpoint.take()
    assert len([event for event in events if isinstance(event, Refused)]) == 6
    raise ProtocolError("refused")


PARSERS: dict[str, Callable[[bytes], object]] = {
    "entries": decode_entries,
    "frame": decode_frame,
    "relay's message": split_frames,
    "HELLO": lambda data: verify_hello(data, NOW),
    "REGISTER": lambda data: verify_register(data, b"hello", NOW),
    "bundle in a frame": lambda data: verify_hello(
        msgspec.msgpack.encode([1, 1, data[:8192], bytes(32), [1, 1, 1], []]), NOW
    ),
    "record": lambda data: verify_listing(
        Listing(VAULT.bundle(NOW), Signed(data, VAULT.sign("record", data)), ()), NOW
    ),
    "handshake packet": read_handshake,
    "data packet": lambda data: read_data_header(b"\x00" + data),
    "sealed packet": read_sealed,
    "reject": read_reject,
    "packet": packet_kind,
    "endpoint": no_handshake,
    "memory of sealed envelopes": Remembered.decode,
}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused_with_one_error(parser: str, name: str) -> None:
    with pytest.raises(ProtocolError):
        PARSERS[parser](HOSTILE[name])


@pytest.mark.parametrize("parser", PARSERS)
def test_hostile_bytes_are_refused_in_bounded_time_and_memory(parser: str) -> None:
    parse = PARSERS[parser]
    for name, data in HOSTILE.items():
        assert cheapest(parse, data) < SECONDS, name
        assert memory(parse, data) < BYTES, name


def cheapest(parse: Callable[[bytes], object], data: bytes) -> float:
    """Return the least of some CPU times: a machine that is busy elsewhere only adds to them."""
    times = []
    for _ in range(3):
        start = time.process_time()
        refuse(parse, data)
        times.append(time.process_time() - start)
    return min(times)


def memory(parse: Callable[[bytes], object], data: bytes) -> int:
    tracemalloc.start()
    try:
        refuse(parse, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refuse(parse: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(AutonomyError):
        parse(data)


def test_a_message_of_the_tiniest_frames_is_split_in_bounded_time() -> None:
    message = b"\x00\x00\x00\x01\xc0" * (RELAY_MESSAGE_BYTES // 5)
    start = time.process_time()
    assert len(split_frames(message)) == RELAY_MESSAGE_BYTES // 5
    assert time.process_time() - start < 10 * SECONDS
