"""What an envelope between two nodes carries: its entries, which are signed, and behind them bytes of portals.

A piece of a portal's stream with `LEAST_BEHIND` bytes or more leaves them behind the body, and says how many they are.
The session's AEAD authenticates them as all of the packet, but they are no part of what is hashed and signed: that
would take longer than all else that is done with them.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from autonomy_trio.errors import ProtocolError
from autonomy_trio.wire.entries import Entry, Piece, decode_entries, encode_entries
from autonomy_trio.wire.padding import check_padding

LEAST_BEHIND: Final = 1024
"""Bytes of a piece from which on they follow the body."""


def encode_body(entries: Sequence[Entry]) -> tuple[bytes, list[bytes]]:
    """Encode the body of an envelope, pieces last, and return it with the bytes that follow it."""
    if not entries or type(entries[-1]) is not Piece:
        return encode_entries(entries), []
    behind: list[bytes] = []
    kept: list[Entry] = []
    for entry in entries:
        if type(entry) is Piece and len(entry.payload) >= LEAST_BEHIND:
            behind.append(entry.payload)
            kept.append(replace(entry, payload=b"", following=len(entry.payload)))
        else:
            kept.append(entry)
    return encode_entries(kept), behind


def decode_body(body: bytes, plaintext: bytes, end: int) -> list[Entry]:
    """Decode the body of an envelope, and give its pieces the bytes that follow it.

    Args:
        body: the encoded entries.
        plaintext: all of what was decrypted.
        end: where in it the body ends.

    Raises:
        ProtocolError: the body is malformed, or what follows is not what its pieces say, padded as it must be.
    """
    entries = decode_entries(body)
    for position, entry in enumerate(entries):
        if type(entry) is Piece and entry.following:
            start, end = end, end + entry.following
            if entry.payload or end > len(plaintext):
                raise ProtocolError("bytes of a portal are not where their piece says")
            entries[position] = replace(entry, payload=plaintext[start:end], following=0)
    check_padding(plaintext, end)
    return entries
