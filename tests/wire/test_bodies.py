"""Bytes of portals behind the body of an envelope."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import ProtocolError
from autonomy_trio.wire.bodies import LEAST_BEHIND, decode_body, encode_body
from autonomy_trio.wire.constants import LARGEST_NUMBER
from autonomy_trio.wire.entries import Entry, Piece, Tell, encode_entries
from autonomy_trio.wire.padding import frame, unframe_body

TELL = Tell("agent", "Message", b"payload", 0, 1)


def piece(payload: bytes, following: int = 0) -> Piece:
    return Piece(7, True, 0, payload, False, 0, 0, 0, False, following)  # noqa: FBT003 - its own fields


def carried(entries: list[Entry]) -> list[Entry]:
    body, behind = encode_body(entries)
    plaintext = frame(body, b"signature", behind)
    read, end = unframe_body(plaintext, len(b"signature"))
    assert read == body
    return decode_body(read, plaintext, end)


@given(
    st.lists(st.just(TELL), max_size=3),
    st.lists(
        st.builds(
            lambda size, byte: piece(bytes([byte]) * size), st.integers(0, 3 * LEAST_BEHIND), st.integers(0, 255)
        ),
        max_size=4,
    ),
)
def test_entries_come_as_they_left_whatever_bytes_follow_the_body(tells: list[Tell], pieces: list[Piece]) -> None:
    entries: list[Entry] = [*tells, *pieces]
    assert carried(entries) == entries
    assert sum(map(len, encode_body(entries)[1])) == sum(
        len(each.payload) for each in pieces if len(each.payload) >= LEAST_BEHIND and pieces
    )


def test_what_follows_the_body_is_no_part_of_what_is_hashed() -> None:
    one, other = encode_body([piece(bytes(5000))]), encode_body([piece(b"x" * 5000)])
    assert one[0] == other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize(
    ("entries", "behind"),
    [
        ([piece(b"", 100)], b"x" * 101),
        ([piece(b"", 100)], b""),
        ([piece(b"", LARGEST_NUMBER)], b"x" * 100),
        ([piece(b"both", 100)], b"x" * 100),
        ([piece(b"", 60), piece(b"", 60)], b"x" * 100),
        ([piece(b"", 50)], b"x" * 100),
        ([piece(b"inline")], b"x" * 100),
        ([TELL], b"x" * 100),
        ([], b"x"),
    ],
    ids=[
        *("one too many", "none", "far too few", "in both places", "too few for two", "half of them"),
        *("not said", "behind a message", "behind nothing"),
    ],
)
def test_bytes_that_are_not_where_the_pieces_say_are_refused(entries: list[Entry], behind: bytes) -> None:
    body = encode_entries(entries)
    plaintext = frame(body, behind=[behind])
    with pytest.raises(ProtocolError):
        decode_body(body, plaintext, unframe_body(plaintext)[1])


def test_a_body_longer_than_all_of_it_is_refused() -> None:
    with pytest.raises(ProtocolError, match="framed and padded"):
        unframe_body((100).to_bytes(4, "big") + bytes(60))


def test_a_padding_of_something_else_than_zeros_is_refused() -> None:
    body = encode_entries([TELL])
    plaintext = bytearray(frame(body))
    plaintext[-1] = 1
    with pytest.raises(ProtocolError, match="framed and padded"):
        decode_body(body, bytes(plaintext), unframe_body(bytes(plaintext))[1])


def test_a_piece_has_all_its_fields() -> None:
    raw = msgspec.msgpack.decode(encode_entries([piece(b"x")]))
    raw[0].pop()
    with pytest.raises(ProtocolError):
        decode_body(msgspec.msgpack.encode(raw), b"", 0)
