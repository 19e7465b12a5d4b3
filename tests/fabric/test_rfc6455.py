"""The frames of websockets: as wsproto makes and reads them, in whatever pieces they come."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection
from wsproto.events import Ping as PingEvent
from wsproto.events import Pong as PongEvent

from autonomy_trio.errors import ProtocolError
from autonomy_trio.fabric.links.rfc6455 import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MOST_EMPTY,
    PING,
    PONG,
    Close,
    Event,
    Noise,
    Ping,
    Reader,
    apply_mask,
    encode,
)

MOST: Final = 100_000
SIZES: Final = st.sampled_from([0, 1, 3, 124, 125, 126, 127, 300, 65_535, 65_536, MOST])


def read(data: bytes, *, masked: bool = True) -> list[Event]:
    """Read all of it at once."""
    reader = Reader(masked=masked, most=MOST)
    reader.take(data)
    return list(iter(reader.next, None))


@given(SIZES, st.booleans(), st.data())
def test_wsproto_reads_what_is_written(size: int, masked: bool, data: st.DataObject) -> None:
    seed = data.draw(st.binary(min_size=1, max_size=7))
    payload = (seed * (size // len(seed) + 1))[:size]
    theirs = Connection(ConnectionType.SERVER if masked else ConnectionType.CLIENT)
    theirs.receive_data(encode(BINARY, payload, masked=masked) + encode(PING, payload[:125], masked=masked))
    message, ping = b"", None
    for event in theirs.events():
        match event:
            case BytesMessage(data=part):
                message += part
            case PingEvent(payload=asked):
                ping = asked
            case _:
                pytest.fail(f"{event} was not sent")
    assert (message, ping) == (payload, payload[:125])


@given(st.lists(st.tuples(SIZES, st.sampled_from(["whole", "parts", "ping", "pong"]))), st.booleans(), st.data())
def test_what_wsproto_writes_is_read_in_whatever_pieces_it_comes(
    messages: list[tuple[int, str]],
    masked: bool,
    data: st.DataObject,
) -> None:
    theirs = Connection(ConnectionType.CLIENT if masked else ConnectionType.SERVER)
    written, expected = b"", list[Event]()
    for number, (size, kind) in enumerate(messages):
        payload = bytes([number % 251]) * size
        if kind in ("ping", "pong"):
            event = PingEvent(payload[:125]) if kind == "ping" else PongEvent(payload[:125])
            written += theirs.send(event)
            expected += [Ping(payload[:125])] if kind == "ping" else []
            continue
        half = size // 2 if kind == "parts" else size
        if kind == "parts":
            written += theirs.send(BytesMessage(payload[:half], message_finished=False))
            written += theirs.send(PingEvent(b"between"))
            expected.append(Ping(b"between"))
        written += theirs.send(BytesMessage(payload[half:] if kind == "parts" else payload))
        expected.append(payload)
    written += theirs.send(CloseConnection(1000))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    reader, found = Reader(masked=masked, most=MOST), list[Event]()
    for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True):
        reader.take(written[start:end])
        found += iter(reader.next, None)
    assert [each for each in found if not isinstance(each, Noise)] == [*expected, Close()]


@given(st.binary(max_size=40), st.booleans())
def test_noise_is_refused_or_read_alike_in_one_piece_and_byte_by_byte(data: bytes, masked: bool) -> None:
    outcomes: list[tuple[list[Event], bool]] = []
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        reader, found, refused = Reader(masked=masked, most=MOST), list[Event](), False
        try:
            for piece in pieces:
                reader.take(piece)
                found += iter(reader.next, None)
        except ProtocolError:
            refused = True
        outcomes.append((found, refused))
    assert outcomes[0] == outcomes[1]


def head(first: int, second: int, more: bytes = b"") -> bytes:
    return bytes((first, second)) + more


@pytest.mark.parametrize(
    "data",
    [
        encode(BINARY, b"x", masked=False),
        head(0x81, 0x80),
        head(0xC2, 0x80),
        head(0x83, 0x80),
        head(0x8B, 0x80),
        head(0x09, 0x80),
        head(0x89, 0xFE, bytes(2)),
        head(0x82, 0xFE, b"\x00\x7d"),
        head(0x82, 0xFF, (65_535).to_bytes(8, "big")),
        head(0x82, 0xFF, (MOST + 1).to_bytes(8, "big")),
        head(0x82, 0xFF, b"\xff" * 8),
        head(0x80, 0x80, bytes(4)),
        head(0x02, 0x80, bytes(4)) + head(0x82, 0x80, bytes(4)),
        head(0x02, 0x80, bytes(4)) + head(0x02, 0x80, bytes(4)),
        head(0x02, 0x80, bytes(4)) + head(0x00, 0x80, bytes(4)) * MOST_EMPTY,
    ],
    ids=[
        "no mask", "text", "an extension", "an unknown kind", "an unknown control", "half a ping", "a long ping",
        "two bytes too many", "eight bytes too many", "too large", "impossible", "a continuation of nothing",
        "a message in a message", "a part in a message", "empty fragments",
    ],
)  # fmt: skip
def test_who_breaks_the_rules_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


def test_a_masked_frame_of_a_server_is_refused() -> None:
    with pytest.raises(ProtocolError, match="masks"):
        read(encode(BINARY, b"x", masked=True), masked=False)


def test_a_message_in_fragments_is_as_large_as_one_that_is_whole() -> None:
    half = bytes(MOST // 2)
    first, rest = encode(BINARY, half, masked=False), encode(CONTINUATION, half, masked=False)
    begun = bytes([BINARY]) + first[1:]
    *noise, message = read(begun + rest, masked=False)
    assert [*map(type, noise)] == [Noise]
    assert message == bytes(MOST)
    with pytest.raises(ProtocolError, match="at most"):
        read(begun + bytes([CONTINUATION]) + rest[1:] + encode(CONTINUATION, b"x", masked=False), masked=False)


def test_content_between_empty_fragments_is_no_flood() -> None:
    empty, one = bytes((CONTINUATION, 0)), bytes((CONTINUATION, 1, 7))
    *_, message = read(bytes((BINARY, 0)) + (empty * (MOST_EMPTY - 1) + one) * 5 + bytes((0x80, 0)), masked=False)
    assert message == b"\7" * 5


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_a_mask_is_taken_off_as_it_is_put_on(payload: bytes, key: bytes) -> None:
    masked = apply_mask(payload, key)
    assert masked == bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    assert apply_mask(masked, key) == payload


def test_each_frame_has_a_mask_of_its_own() -> None:
    assert len({encode(CLOSE, b"", masked=True) for _ in range(100)}) > 90
    assert encode(PONG, b"", masked=False) == b"\x8a\0"
