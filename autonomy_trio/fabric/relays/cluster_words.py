"""What relays of one cluster say to each other through Redis: words, each a msgpack array, joined into letters.

A letter begins with the 16 bytes by which its relay is known since it was started. Whoever writes to the server can
write letters: a word is bounded as what a stranger says, and proves nothing.
"""

import secrets
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from autonomy_trio.errors import ProtocolError
from autonomy_trio.fabric.stores.redis_store import PREFIX
from autonomy_trio.trust.records import Identifier
from autonomy_trio.wire.entries import Code
from autonomy_trio.wire.frames import Listing, Packet, join_frames, split_frames

MOST_MOVED: Final = 500
"""Nodes in one word."""

EVERYBODY: Final = f"{PREFIX}relays"
"""The channel of all relays."""

_TOKEN_BYTES: Final = 16


class Passed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """A packet for a node that is attached to the relay this goes to."""

    source: Identifier
    destination: Identifier
    packet: Packet


class Returned(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Packets for a destination were not taken, and why: for the relay their source is attached to."""

    source: Identifier
    destination: Identifier
    reason: Code


class Moved(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Nodes that are now attached to the relay that says so."""

    nodes: Annotated[tuple[Identifier, ...], msgspec.Meta(max_length=MOST_MOVED)]


class Listed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """A node has published this in the directory."""

    listing: Listing


Word = Passed | Returned | Moved | Listed

_WORD: Final[msgspec.msgpack.Decoder[Word]] = msgspec.msgpack.Decoder(Word)
_ENCODER: Final = msgspec.msgpack.Encoder()


def new_token() -> bytes:
    """Return what a relay is known by from its start to its end."""
    return secrets.token_bytes(_TOKEN_BYTES)


def read_token(text: bytes) -> bytes | None:
    """Read what names a relay, in hex; None where it is no name."""
    try:
        token = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return None
    return token if len(token) == _TOKEN_BYTES else None


def channel_of(relay: bytes) -> str:
    """Return the channel of one relay."""
    return f"{PREFIX}to:{relay.hex()}"


def sign_of(relay: bytes) -> str:
    """Return the key that is there as long as a relay is."""
    return f"{PREFIX}relay:{relay.hex()}"


def write_letter(relay: bytes, words: Iterable[Word]) -> bytes:
    """Return what a relay publishes."""
    return relay + join_frames(map(_ENCODER.encode, words))


def read_letter(letter: bytes) -> tuple[bytes, list[Word]]:
    """Read what was published: by which relay, and its words.

    Raises:
        ProtocolError: it is no letter.
    """
    try:
        words = [_WORD.decode(encoded) for encoded in split_frames(letter[_TOKEN_BYTES:])]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"this is no letter of a relay: {error}") from None
    return letter[:_TOKEN_BYTES], words
