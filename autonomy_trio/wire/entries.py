"""Entries: what an envelope carries, each a msgpack array of its kind and its fields.

An entry's payload is opaque here; the fabric decodes it once the policy has let it pass. The types carry the bounds, so
that what decodes is small, and no entry can hold another.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec

from autonomy_trio.errors import MessageError, ProtocolError
from autonomy_trio.trust.records import SIGNATURE_BYTES, Signed
from autonomy_trio.wire.constants import (
    AWAITED,
    BATCH_BYTES,
    BATCH_ENTRIES,
    BODY_ENTRIES,
    CODE_CHARACTERS,
    LARGEST_INDEX,
    LARGEST_NUMBER,
    MESSAGE_BYTES,
    NAME_CHARACTERS,
    PRESENTATIONS,
    PRESENTATIONS_BYTES,
    TEXT_CHARACTERS,
)

Number = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
Index = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INDEX)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS)]
Code = Annotated[str, msgspec.Meta(max_length=CODE_CHARACTERS)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS)]
Payload = Annotated[bytes, msgspec.Meta(max_length=MESSAGE_BYTES)]
Presentation = Annotated[bytes, msgspec.Meta(max_length=PRESENTATIONS_BYTES)]
Indices = Annotated[tuple[Index, ...], msgspec.Meta(min_length=1, max_length=BODY_ENTRIES)]
PresentationList = Annotated[tuple[Presentation, ...], msgspec.Meta(max_length=PRESENTATIONS)]


class Tell(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=1):
    """A message to an agent, with no answer.

    Attributes:
        recipient: the agent's name.
        name: the message's wire name.
        payload: the encoded message.
        sender: the index by which the sending agent was introduced; 0 for the node itself.
        number: rises from message to message that its node sends to the recipient; 0 in a sealed envelope.
    """

    recipient: Name
    name: Name
    payload: Payload
    sender: Index
    number: Number


class Ask(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=2):
    """A message to an agent that wants one answer.

    Attributes:
        request: the asker's number for it, never used twice with one peer since the asker's boot.
        recipient: the agent's name.
        name: the message's wire name.
        payload: the encoded message.
        remaining: milliseconds until nobody waits any more; None for no limit.
        sender: the index by which the asking agent was introduced; 0 for the node itself.
        number: as a tell's.
    """

    request: Number
    recipient: Name
    name: Name
    payload: Payload
    remaining: Number | None
    sender: Index
    number: Number


class Reply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=3):
    """The answer to an ask."""

    request: Number
    payload: Payload


class Error(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=4):
    """Why an ask has no answer: a code for programs and a coarse text for people."""

    request: Number
    code: Code
    text: Text


class Cancel(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=5):
    """The asker no longer waits."""

    request: Number


class Presentations(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=6):
    """All credentials the sender shows from here on, in place of those it showed before."""

    presentations: PresentationList


class Close(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=7):
    """The sender ends its sessions with the receiver; what follows in the envelope does not count."""

    reason: Text


class Introduce(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=8):
    """An agent of the sending node, for which entries of this session use an index from here on.

    Attributes:
        index: never 0, and never used twice in a session.
        change: the agent's change, which makes its identifier.
        delegate: by which the agent lets its node speak for it.
        inherits: whether it speaks with what its node has proven besides its own.
        presentations: the agent's own credentials.
    """

    index: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_INDEX)]
    change: Signed
    delegate: Signed
    inherits: bool
    presentations: PresentationList


class Introduced(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=9):
    """The receiver knows these agents: their introductions need not ride along any more."""

    indices: Indices


class Forgotten(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=10):
    """The receiver does not know these agents: entries that named them were refused; introduce them again."""

    indices: Indices


class Foreseen(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=11):
    """A protocol error, which answers in place of a reply.

    Attributes:
        request: the asker's number.
        name: the error's wire name.
        payload: its encoded fields.
    """

    request: Number
    name: Name
    payload: Payload


class Open(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=12):
    """A message to an agent that wants any number of answers: the opening of a stream.

    Attributes:
        request: the reader's number for it, of the same kind as an ask's.
        recipient: the agent's name.
        name: the message's wire name.
        payload: the encoded message.
        allowed: how many items may be sent before there is word of more.
        sender: the index by which the reading agent was introduced; 0 for the node itself.
        number: as a tell's.
    """

    request: Number
    recipient: Name
    name: Name
    payload: Payload
    allowed: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_NUMBER)]
    sender: Index
    number: Number


class Item(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=13):
    """One answer of a stream.

    Attributes:
        request: the reader's number.
        index: how many items of the stream came before it.
        payload: the encoded item.
    """

    request: Number
    index: Number
    payload: Payload


class Progress(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=14):
    """How many items of a stream were sent.

    Attributes:
        request: the reader's number.
        count: the items sent so far.
        is_over: whether these were all.
    """

    request: Number
    count: Number
    is_over: bool


class Credit(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=15):
    """The reader is there, and how many items of the stream may be sent in all.

    It is repeated as long as the stream is open; one that allows no more than those before it is answered by a
    progress, so that what was lost shows.
    """

    request: Number
    allowed: Number


class Watch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=16):
    """The sender wants to be told when an agent ends. It is repeated, with the same number, as long as it wants that.

    Attributes:
        request: the watcher's number for it, of the same kind as an ask's.
        recipient: the agent's name.
        sender: the index by which the watching agent was introduced; 0 for the node itself.
    """

    request: Number
    recipient: Name
    sender: Index


class Down(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=17):
    """A watched agent has ended, or is not there: repeated for each watch of that number, until there is an unwatch.

    Attributes:
        request: the watcher's number.
        reason: how it ended.
    """

    request: Number
    reason: Code


class Unwatch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=18):
    """The watcher was told, or does not want to be any more."""

    request: Number


class Awaited(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=19):
    """The sender waits for the answers to these asks; those that the receiver does not know are answered by an error.

    An ask that comes after it, though it was sent before, is late and never run, so that its outcome is known to both.

    Attributes:
        requests: the asker's numbers.
    """

    requests: Annotated[tuple[Number, ...], msgspec.Meta(min_length=1, max_length=AWAITED)]


class Accepted(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=20):
    """How far the messages to an agent have come: what was numbered up to here takes no credit any more.

    Attributes:
        recipient: the agent's name.
        through: the number through which each message is in its mailbox, or was denied, dropped or lost.
        window: how many bytes of messages past it may be under way.
    """

    recipient: Name
    through: Number
    window: Number


class Blocked(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=21):
    """The sender waits for credit; repeated as long as it does, and answered with `Accepted`.

    Attributes:
        recipient: the agent's name.
        sent: the number of the last message to it that has left.
    """

    recipient: Name
    sent: Number


class Subscribe(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=22):
    """An agent of the sender's wants what is published to a topic, as tells. It is repeated as a watch is.

    Attributes:
        request: the subscriber's number for it, of the same kind as an ask's.
        topic: the topic's name.
        recipient: the name of the sender's agent that is told.
        sender: the index by which the subscribing agent was introduced; 0 for the node itself.
    """

    request: Number
    topic: Name
    recipient: Name
    sender: Index


class Piece(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=23):
    """Bytes of a portal's stream, or none, and how far the sender's end of it is.

    Everything is absolute, so that each may be lost, come twice or late. A direction has a place for each byte, and
    one more for its end.

    Attributes:
        number: the opener's number for the stream, of the same kind as an ask's.
        opened: whether the sender of this has opened the stream.
        offset: how many bytes of this direction come before these.
        payload: the bytes; on the way none, where they follow the body (`bodies`).
        is_last: whether the direction ends behind them.
        through: how many places of the other direction have come, without a gap.
        taken: how many of these were taken by their reader.
        window: how many bytes past them may be sent.
        asks: whether the sender wants to hear at once how far the streams between the two nodes are.
        following: how many of its bytes follow the body of the envelope, on the way.
    """

    number: Number
    opened: bool
    offset: Number
    payload: Payload
    is_last: bool
    through: Number
    taken: Number
    window: Number
    asks: bool
    following: Number


class Missing(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=25):
    """Bytes of a portal's stream have come behind a gap.

    Attributes:
        number: the opener's number for it.
        opened: whether the sender of this has opened it.
        through: how many places have come without a gap.
    """

    number: Number
    opened: bool
    through: Number


class Reset(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag=24):
    """A portal's stream is not there, or not any more: what has not been taken of it is lost.

    Attributes:
        number: the opener's number for it.
        opened: whether the sender of this has opened it.
    """

    number: Number
    opened: bool


Message = Tell | Ask | Open
"""What agents handle, by policy."""

Standing = Watch | Subscribe
"""What is repeated as long as it is wanted."""

Spoken = Message | Standing
"""What an agent says."""

Answer = Reply | Error | Foreseen | Item | Progress | Down
"""What goes to who asked."""

Asking = Spoken | Cancel | Credit | Unwatch | Awaited | Blocked
"""What goes to who answers."""

Portal = Piece | Missing | Reset
"""What the ends of a portal's stream say to each other."""

Entry = Asking | Answer | Accepted | Portal | Presentations | Close | Introduce | Introduced | Forgotten

_ENTRIES: Final[msgspec.msgpack.Decoder[list[Entry]]] = msgspec.msgpack.Decoder(
    Annotated[list[Entry], msgspec.Meta(max_length=BODY_ENTRIES)]
)
_ENCODER: Final = msgspec.msgpack.Encoder()
FRAMING_BYTES: Final = 48
"""More than msgpack adds to any entry: heads of its fields and array, three numbers."""
_INDEX_BYTES: Final = 5
_NUMBER_BYTES: Final = 9
PIECE_FRAMING_BYTES: Final = FRAMING_BYTES + 2 * _NUMBER_BYTES
"""The same of a piece, which has six."""
UTF8_BYTES: Final = 4
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
    if isinstance(entry, _MESSAGES):
        return FRAMING_BYTES + len(entry.payload) + UTF8_BYTES * (len(entry.recipient) + len(entry.name))
    size = _SIZES.get(type(entry))
    return FRAMING_BYTES if size is None else FRAMING_BYTES + size(entry)


def _payload_size(entry: Reply | Item) -> int:
    return len(entry.payload)


def _piece_size(entry: Piece) -> int:
    return PIECE_FRAMING_BYTES - FRAMING_BYTES + len(entry.payload)


def _foreseen_size(entry: Foreseen) -> int:
    return len(entry.payload) + UTF8_BYTES * len(entry.name)


def _error_size(entry: Error) -> int:
    return UTF8_BYTES * (len(entry.code) + len(entry.text))


def _introduce_size(entry: Introduce) -> int:
    records = len(entry.change.body) + len(entry.delegate.body) + 2 * SIGNATURE_BYTES
    return records + _presentations_size(entry.presentations)


def _indices_size(entry: Introduced | Forgotten) -> int:
    return _INDEX_BYTES * len(entry.indices)


def _presentations_size(presentations: Sequence[bytes]) -> int:
    return sum(FRAMING_BYTES + len(encoded) for encoded in presentations)


_MESSAGES: Final = (Tell, Ask, Open)
_SIZES: Final[dict[type, Callable[[Any], int]]] = {
    **dict.fromkeys((Reply, Item), _payload_size),
    Piece: _piece_size,
    Foreseen: _foreseen_size,
    Error: _error_size,
    Presentations: lambda entry: _presentations_size(entry.presentations),
    Introduce: _introduce_size,
    **dict.fromkeys((Introduced, Forgotten), _indices_size),
    Awaited: lambda entry: _NUMBER_BYTES * len(entry.requests),
    **dict.fromkeys((Down, Close), lambda entry: UTF8_BYTES * len(entry.reason)),
    Subscribe: lambda entry: UTF8_BYTES * (len(entry.topic) + len(entry.recipient)),
    **dict.fromkeys((Watch, Accepted, Blocked), lambda entry: UTF8_BYTES * len(entry.recipient)),
}
"""What an entry of a kind takes besides its framing; by its class, for this is asked of every message."""


def next_batch(waiting: deque[Entry], total: int | None = None) -> list[Entry]:
    """Take from the left of a queue what travels in one envelope: as much as fits, or one large entry alone.

    Args:
        waiting: the entries that wait, oldest first; what is taken leaves it.
        total: the sum of their sizes, where that is known.

    Returns:
        At least one entry unless nothing waits; at most 256, together at most 64 KiB when more than one.

    Raises:
        MessageError: the oldest entry is larger than any envelope; it stays where it is.
    """
    if total is not None and total <= BATCH_BYTES and len(waiting) <= BATCH_ENTRIES:
        everything = list(waiting)
        waiting.clear()
        return everything
    batch: list[Entry] = []
    taken = 0
    while waiting and len(batch) < BATCH_ENTRIES:
        size = entry_size(waiting[0])
        if batch and taken + size > BATCH_BYTES:
            break
        if size > MESSAGE_BYTES:
            raise _too_large(waiting[0], size)
        batch.append(waiting.popleft())
        taken += size
    return batch


def check_size(entry: Entry) -> int:
    """Refuse an entry that no envelope can carry, while its sender can still be told.

    Returns:
        its `entry_size`.

    Raises:
        MessageError: the entry is larger than 128 KiB.
    """
    size = entry_size(entry)
    if size > MESSAGE_BYTES:
        raise _too_large(entry, size)
    return size


def _too_large(entry: Entry, size: int) -> MessageError:
    kind = type(entry).__name__.lower()
    return MessageError(f"a {kind} of {size} bytes is larger than {MESSAGE_BYTES}: send it in parts")


def shown_presentations(presentations: Sequence[bytes]) -> Presentations:
    """Choose what is shown to a peer: the credentials that fit, in their order, at most 16 and 23 KiB together."""
    shown: list[bytes] = []
    total = 0
    for encoded in presentations:
        if total + len(encoded) <= PRESENTATIONS_BYTES and len(shown) < PRESENTATIONS:
            shown.append(encoded)
            total += len(encoded)
    return Presentations(tuple(shown))
