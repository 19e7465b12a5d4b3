"""Entries: what an envelope carries, each a msgpack array of its kind and its fields.

An entry's payload is opaque here; the fabric decodes it once the policy has let it pass. The types carry the bounds, so
that what decodes is small, and no entry can hold another.
"""

from collections import deque
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from autonomy_trio.errors import MessageError, ProtocolError
from autonomy_trio.wire.constants import (
    BATCH_BYTES,
    BATCH_ENTRIES,
    BODY_ENTRIES,
    CODE_CHARACTERS,
    LARGEST_NUMBER,
    MESSAGE_BYTES,
    NAME_CHARACTERS,
    PRESENTATIONS,
    PRESENTATIONS_BYTES,
    TEXT_CHARACTERS,
)

Number = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS)]
Code = Annotated[str, msgspec.Meta(max_length=CODE_CHARACTERS)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS)]
Payload = Annotated[bytes, msgspec.Meta(max_length=MESSAGE_BYTES)]
Presentation = Annotated[bytes, msgspec.Meta(max_length=PRESENTATIONS_BYTES)]
PresentationList = Annotated[tuple[Presentation, ...], msgspec.Meta(max_length=PRESENTATIONS)]


class Tell(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """A message to an agent, with no answer."""

    recipient: Name
    name: Name
    payload: Payload


class Ask(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """A message to an agent that wants one answer.

    Attributes:
        request: the asker's number for it, never used twice with one peer since the asker's boot.
        recipient: the agent's name.
        name: the message's wire name.
        payload: the encoded message.
        remaining: milliseconds until nobody waits any more; None for no limit.
    """

    request: Number
    recipient: Name
    name: Name
    payload: Payload
    remaining: Number | None


class Reply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """The answer to an ask."""

    request: Number
    payload: Payload


class Error(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """Why an ask has no answer: a code for programs and a coarse text for people."""

    request: Number
    code: Code
    text: Text


class Cancel(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """The asker no longer waits."""

    request: Number


class Presentations(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """All credentials the sender shows from here on, in place of those it showed before."""

    presentations: PresentationList


class Close(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """The sender ends its sessions with the receiver; what follows in the envelope does not count."""

    reason: Text


Entry = Tell | Ask | Reply | Error | Cancel | Presentations | Close

_ENTRIES: Final[msgspec.msgpack.Decoder[list[Entry]]] = msgspec.msgpack.Decoder(
    Annotated[list[Entry], msgspec.Meta(max_length=BODY_ENTRIES)]
)
_ENCODER: Final = msgspec.msgpack.Encoder()
_FRAMING_BYTES: Final = 48
"""More than msgpack adds to any entry: heads of its fields and array, three numbers."""
_UTF8_BYTES: Final = 4
"""The most bytes of a character."""


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Encode the body of an envelope; sizes are the business of `next_batch` and of who seals."""
    return _ENCODER.encode(entries)


def decode_entries(body: bytes) -> list[Entry]:
    """Decode the body of an envelope, as strictly as the types say.

    Args:
        body: the bytes, already bounded by the packet they came in.

    Raises:
        ProtocolError: it is malformed, too many, or of unknown kinds, types or sizes.
    """
    try:
        return _ENTRIES.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the body of an envelope is no list of entries: {error}") from None


def entry_size(entry: Entry) -> int:
    """Return a bound on the encoded bytes of an entry, without encoding it."""
    match entry:
        case Tell() | Ask():
            return _FRAMING_BYTES + len(entry.payload) + _UTF8_BYTES * (len(entry.recipient) + len(entry.name))
        case Reply():
            return _FRAMING_BYTES + len(entry.payload)
        case Error():
            return _FRAMING_BYTES + _UTF8_BYTES * (len(entry.code) + len(entry.text))
        case Cancel():
            return _FRAMING_BYTES
        case Presentations():
            return _FRAMING_BYTES + sum(_FRAMING_BYTES + len(encoded) for encoded in entry.presentations)
        case _:
            return _FRAMING_BYTES + _UTF8_BYTES * len(entry.reason)


def next_batch(waiting: deque[Entry]) -> list[Entry]:
    """Take from the left of a queue what travels in one envelope: as much as fits, or one large entry alone.

    Args:
        waiting: the entries that wait, oldest first; what is taken leaves it.

    Returns:
        At least one entry unless nothing waits; at most 256, together at most 64 KiB when more than one.

    Raises:
        MessageError: the oldest entry is larger than any envelope; it stays where it is.
    """
    batch: list[Entry] = []
    total = 0
    while waiting and len(batch) < BATCH_ENTRIES:
        size = entry_size(waiting[0])
        if batch and total + size > BATCH_BYTES:
            break
        check_size(waiting[0])
        batch.append(waiting.popleft())
        total += size
    return batch


def check_size(entry: Entry) -> None:
    """Refuse an entry that no envelope can carry, while its sender can still be told.

    Raises:
        MessageError: the entry is larger than 128 KiB.
    """
    size = entry_size(entry)
    if size > MESSAGE_BYTES:
        kind = type(entry).__name__.lower()
        raise MessageError(f"a {kind} of {size} bytes is larger than {MESSAGE_BYTES}: send it in parts")


def shown_presentations(presentations: Sequence[bytes]) -> Presentations:
    """Choose what is shown to a peer: the credentials that fit, in their order, at most 16 and 23 KiB together."""
    shown: list[bytes] = []
    total = 0
    for encoded in presentations:
        if total + len(encoded) <= PRESENTATIONS_BYTES and len(shown) < PRESENTATIONS:
            shown.append(encoded)
            total += len(encoded)
    return Presentations(tuple(shown))
