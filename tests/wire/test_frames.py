import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import ProtocolError
from autonomy_trio.trust.records import Signed
from autonomy_trio.wire.constants import (
    LARGEST_NUMBER,
    PACKET_BYTES,
    RECORDS,
    RELAY_MESSAGE_BYTES,
    SEALED_LIFE,
    UNACKNOWLEDGED,
)
from autonomy_trio.wire.frames import (
    Ack,
    Deliver,
    Fetch,
    Frame,
    Hello,
    Listing,
    Lookup,
    Nack,
    Parameters,
    Ping,
    Pong,
    Publish,
    Records,
    Register,
    RelayLimits,
    Send,
    Show,
    Store,
    Stored,
    Welcome,
    decode_frame,
    encode_frame,
    frame_size,
    join_frames,
    split_frames,
)

keys = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
numbers = st.integers(0, LARGEST_NUMBER)
listings = st.builds(
    Listing,
    st.binary(max_size=100),
    st.builds(Signed, st.binary(max_size=100), signatures),
    st.lists(st.binary(max_size=9), max_size=16).map(tuple),
)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Hello,
        st.just(1),
        st.binary(max_size=100),
        keys,
        st.just(RelayLimits()),
        st.lists(keys, max_size=3).map(tuple),
    ),
    st.builds(Register, st.binary(max_size=100), st.lists(st.binary(max_size=9)).map(tuple), keys, signatures),
    st.builds(Welcome, st.just(Parameters()), signatures),
    st.builds(Send, keys, st.just(0), st.integers(0, 65_535), st.binary(max_size=500)),
    st.builds(Deliver, keys, st.binary(max_size=500)),
    st.builds(Nack, st.text(max_size=64), keys),
    st.just(Ping()),
    st.just(Pong()),
    st.builds(Store, keys, st.integers(1, SEALED_LIFE), st.binary(max_size=500)),
    st.builds(Stored, keys, st.none() | st.text(max_size=64)),
    st.builds(Fetch, numbers, st.integers(1, UNACKNOWLEDGED), signatures),
    st.builds(Ack, numbers, st.lists(keys, min_size=1, max_size=5).map(tuple), signatures),
    st.builds(Publish, listings),
    st.builds(Show, st.lists(st.binary(max_size=9), max_size=16).map(tuple)),
    st.builds(Lookup, numbers, st.none() | keys, st.none() | st.text(max_size=255), st.none() | st.text(max_size=255)),
    st.builds(Records, numbers, st.lists(listings, max_size=3).map(tuple), st.booleans()),
)


@given(st.lists(frames.filter(lambda frame: not isinstance(frame, Register)), min_size=1, max_size=20))
def test_frames_joined_in_a_message_come_out_as_they_went_in(sent: list[Frame]) -> None:
    encoded = [encode_frame(frame) for frame in sent]
    message = join_frames(encoded)
    assert len(message) == sum(map(frame_size, encoded))
    assert split_frames(message) == encoded
    assert [decode_frame(frame) for frame in split_frames(message)] == sent


@given(st.binary(max_size=300))
def test_random_bytes_are_frames_or_refused(message: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert join_frames(split_frames(message)) == message
    with contextlib.suppress(ProtocolError):
        decode_frame(message)


@given(frames, st.data())
def test_damaged_frames_are_frames_or_refused(frame: Frame, data: st.DataObject) -> None:
    encoded = bytearray(encode_frame(frame))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode_frame(bytes(encoded))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x02x",
        b"\x00\x00\x00\x01x\x00",
        b"\x00\x00\x00\x01x\x00\x00\x00\x00",
        b"\xff\xff\xff\xffx",
        join_frames([bytes(RELAY_MESSAGE_BYTES)]),
    ],
)
def test_messages_not_made_of_whole_frames_are_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        split_frames(message)


def test_the_largest_message_is_taken_whole() -> None:
    frame = bytes(RELAY_MESSAGE_BYTES - 4)
    assert split_frames(join_frames([frame])) == [frame]


@pytest.mark.parametrize(
    "raw",
    [
        [0],
        [16],
        [7, 1],
        [4, bytes(31), 0, 5, b""],
        [4, bytes(32), 1, 5, b""],
        [4, bytes(32), 0, 65_536, b""],
        [4, bytes(32), 0, -1, b""],
        [4, bytes(32), 0, 5, bytes(PACKET_BYTES + 1)],
        [5, bytes(33), b""],
        [6, "r" * 65, bytes(32)],
        [1, 2, b"", bytes(32), [1, 1, 1], []],
        [1, 1, b"", bytes(32), [1, 1, 1], [bytes(32)] * 65],
        [1, 1, bytes(8193), bytes(32), [1, 1, 1], []],
        [2, b"", [], bytes(32), bytes(63)],
        [3, [1, 2, 3], bytes(64)],
        [9, bytes(32), 0, b""],
        [9, bytes(32), SEALED_LIFE + 1, b""],
        [9, bytes(32), 5, bytes(PACKET_BYTES + 1)],
        [10, bytes(31), None],
        [10, bytes(32), "r" * 65],
        [11, 1, 0, bytes(64)],
        [11, 1, UNACKNOWLEDGED + 1, bytes(64)],
        [12, 1, [], bytes(64)],
        [12, 1, [bytes(32)] * (UNACKNOWLEDGED + 1), bytes(64)],
        [13, [b"", [b"", bytes(63)], []]],
        [13, [b"", [b"", bytes(64)], [b""] * 17]],
        [14, -1, None, None, None],
        [14, 1, bytes(31), None, None],
        [14, 1, None, "n" * 256, None],
        [15, 1, [[b"", [b"", bytes(64)], []]] * (RECORDS + 1), False],
        [15, 1, [], 0],
        [16, [b""] * 17],
    ],
)
def test_what_the_types_do_not_say_is_refused(raw: object) -> None:
    with pytest.raises(ProtocolError):
        decode_frame(msgspec.msgpack.encode(raw))
