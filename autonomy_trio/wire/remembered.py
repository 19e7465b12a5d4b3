"""Which sealed envelopes came already: remembered until they expire, through restarts, and never forgotten before.

The memory is a value: it does no I/O, and whoever owns it stores what `encode` returns, or the rows that `remember`
was called with, before it acknowledges an envelope to whom it had it from. Full, it refuses: an envelope that is not
acknowledged comes again later, and one that was forgotten would count twice.
"""

from typing import Annotated, Final, Literal, Self, final

import msgspec

from autonomy_trio.errors import Overloaded, ProtocolError
from autonomy_trio.trust.records import Identifier, Seconds
from autonomy_trio.wire.constants import MESSAGE_ID_BYTES, SEALED_PER_SENDER, SEALED_REMEMBERED

MessageId = Annotated[bytes, msgspec.Meta(min_length=MESSAGE_ID_BYTES, max_length=MESSAGE_ID_BYTES)]


class _Memory(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    senders: dict[Identifier, dict[MessageId, Seconds]]


_MEMORY: Final = msgspec.msgpack.Decoder(_Memory)


@final
class Remembered:
    """The sender and id of each sealed envelope that was taken, until it expires.

    There is room for 100,000 of one sender, and 400,000 in all.
    """

    def __init__(self) -> None:
        self._senders: dict[bytes, dict[bytes, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: tuple[bytes, bytes]) -> bool:
        sender, identifier = key
        return identifier in self._senders.get(sender, ())

    def check_room(self, sender: bytes) -> None:
        """Refuse an envelope that could not be remembered, before anything is done with it.

        Raises:
            Overloaded: as many as allowed are remembered, of this sender or in all; do not acknowledge it.
        """
        if len(self._senders.get(sender, ())) >= SEALED_PER_SENDER or self._count >= SEALED_REMEMBERED:
            raise Overloaded("too many sealed envelopes wait to expire: this one is left where it is")

    def remember(self, sender: bytes, identifier: bytes, expires: int) -> None:
        """Remember an envelope, once the policy has let it pass or denied it.

        Args:
            sender: the identifier of the node that wrote it.
            identifier: the envelope's id.
            expires: its last moment, Unix seconds.

        Raises:
            Overloaded: there is no room.
        """
        if (sender, identifier) in self:
            return
        self.check_room(sender)
        self._senders.setdefault(sender, {})[identifier] = expires
        self._count += 1

    def expire(self, now: float) -> None:
        """Forget what has expired by `now` (Unix seconds): a copy that comes later is refused for its age."""
        for sender, ids in list(self._senders.items()):
            kept = {identifier: expires for identifier, expires in ids.items() if expires > now}
            self._count -= len(ids) - len(kept)
            if kept:
                self._senders[sender] = kept
            else:
                del self._senders[sender]

    def encode(self) -> bytes:
        """Return all that is remembered, as bytes to be stored."""
        return msgspec.msgpack.encode(_Memory(1, self._senders))

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Return the memory that `encode` stored.

        Raises:
            ProtocolError: it is damaged; to begin with an empty one would let a week of envelopes count again.
        """
        try:
            senders = _MEMORY.decode(stored).senders
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"this is no memory of sealed envelopes: {error}") from None
        memory = cls()
        memory._senders = {sender: ids for sender, ids in senders.items() if ids}
        memory._count = sum(len(ids) for ids in senders.values())
        return memory
