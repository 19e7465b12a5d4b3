"""What a relay keeps for nodes that are away: sealed envelopes, each in the mailbox of its destination."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

import attrs
import trio

MAILBOX_ENVELOPES: Final = 100_000
"""Envelopes in one mailbox; of one sender, half as many, so that one stranger does not keep out the others."""

MAILBOX_BYTES: Final = 64 * 1024 * 1024
"""Bytes in one mailbox; of one sender, half as many."""

STORE_BYTES: Final = 1024 * 1024 * 1024
"""Bytes in all mailboxes."""

ENVELOPE_COST: Final = 256
"""Bytes an envelope is counted for beside its own: its identifiers, and its places in the indexes."""


@attrs.frozen
class Envelope:
    """A sealed envelope, as a relay knows it.

    Attributes:
        id: its `stored_id`.
        destination: the identifier of the node it is for.
        source: the identifier of the node that had it stored: a hint, and whom its quota is counted for.
        expires: Unix seconds from which it is of no use to anybody.
        packet: it.
    """

    id: bytes
    destination: bytes
    source: bytes
    expires: int
    packet: bytes = attrs.field(repr=False)

    @property
    def cost(self) -> int:
        """The bytes it counts for."""
        return len(self.packet) + ENVELOPE_COST


@attrs.frozen
class Usage:
    """How much a store holds, of all relays that keep there."""

    envelopes: int = 0
    """Envelopes that are kept."""
    bytes: int = 0
    """Bytes they count for."""
    oldest: float | None = None
    """Unix seconds when the oldest of them came; None where there is none."""


Place = int
"""Where an envelope stands in its mailbox: those that came later stand higher."""


class Store(Protocol):
    """Keeps envelopes until they are forgotten or expire, whatever happens to the process."""

    async def put(self, envelopes: Sequence[Envelope]) -> Sequence[str | None]:
        """Keep envelopes, and return when they are safe.

        Returns:
            for each of them None, also where it was kept already, or in a word why it is not kept.
        """
        ...

    async def read(self, destination: bytes, after: Place, most: int) -> Sequence[tuple[Place, Envelope]]:
        """Return the first envelopes of a mailbox that stand higher than `after`, in order, at most so many.

        Raises:
            StoreFailed: they cannot be read now.
        """
        ...

    async def forget(self, destination: bytes, ids: Sequence[bytes]) -> None:
        """Forget envelopes of a mailbox, since their destination has them.

        Raises:
            StoreFailed: they are kept for now.
        """
        ...

    def usage(self) -> Usage:
        """Return how much there is, which may be some seconds old; never waits."""
        ...


@attrs.define
class Quota:
    """How much a store holds, and may hold, in all, for each node and of each sender to it."""

    mailbox_envelopes: int = MAILBOX_ENVELOPES
    mailbox_bytes: int = MAILBOX_BYTES
    store_bytes: int = STORE_BYTES
    held: int = 0
    """Bytes in all."""
    envelopes: int = 0
    """Envelopes in all."""
    _boxes: dict[tuple[bytes, bytes | None], tuple[int, int]] = attrs.field(
        factory=lambda: defaultdict[tuple[bytes, bytes | None], tuple[int, int]](lambda: (0, 0))
    )

    def take(self, envelope: Envelope) -> str | None:
        """Take room for an envelope; where there is none, say in a word what is full."""
        if self.held + envelope.cost > self.store_bytes:
            return "store full"
        for key, share in self._keys(envelope.destination, envelope.source):
            count, size = self._boxes.get(key, (0, 0))
            if (count + 1) * share > self.mailbox_envelopes or (size + envelope.cost) * share > self.mailbox_bytes:
                return "mailbox full"
        self.add(envelope.destination, envelope.source, 1, envelope.cost)
        return None

    def add(self, destination: bytes, source: bytes, count: int, size: int) -> None:
        """Note that so many envelopes of so many bytes came, or went where both are negative."""
        self.held += size
        self.envelopes += count
        for key, _ in self._keys(destination, source):
            held_count, held_size = self._boxes[key]
            self._boxes[key] = held_count + count, held_size + size
            if not held_count + count:
                del self._boxes[key]

    @staticmethod
    def _keys(destination: bytes, source: bytes) -> tuple[tuple[tuple[bytes, bytes | None], int], ...]:
        """Return what counts an envelope, each with the share of a mailbox that it may fill: 2 for a half."""
        return ((destination, None), 1), ((destination, source), 2)


@final
@attrs.define(eq=False)
class MemoryStore:
    """Envelopes in memory, for tests: they end with the process."""

    now: Callable[[], float]
    """Unix seconds."""
    quota: Quota = attrs.field(factory=Quota)
    _envelopes: dict[tuple[bytes, bytes], tuple[Place, Envelope]] = attrs.field(
        factory=dict[tuple[bytes, bytes], tuple[Place, Envelope]]
    )
    _since: dict[Place, float] = attrs.field(factory=dict[Place, float])
    _last: Place = 0

    async def put(self, envelopes: Sequence[Envelope]) -> Sequence[str | None]:
        """See `Store.put`."""
        await trio.lowlevel.checkpoint()
        refusals: list[str | None] = []
        for envelope in envelopes:
            key, refusal = (envelope.destination, envelope.id), None
            if key not in self._envelopes and (refusal := self.quota.take(envelope)) is None:
                self._last += 1
                self._since[self._last] = self.now()
                self._envelopes[key] = self._last, envelope
            refusals.append(refusal)
        return refusals

    async def read(self, destination: bytes, after: Place, most: int) -> Sequence[tuple[Place, Envelope]]:
        """See `Store.read`."""
        await trio.lowlevel.checkpoint()
        self._expire()
        found = [each for (node, _), each in self._envelopes.items() if node == destination and each[0] > after]
        return found[:most]

    async def forget(self, destination: bytes, ids: Sequence[bytes]) -> None:
        """See `Store.forget`."""
        await trio.lowlevel.checkpoint()
        for identifier in ids:
            self._drop((destination, identifier))

    def usage(self) -> Usage:
        """See `Store.usage`."""
        return Usage(len(self._envelopes), self.quota.held, min(self._since.values(), default=None))

    def _expire(self) -> None:
        for key, (_, envelope) in list(self._envelopes.items()):
            if envelope.expires <= self.now():
                self._drop(key)

    def _drop(self, key: tuple[bytes, bytes]) -> None:
        if (found := self._envelopes.pop(key, None)) is not None:
            del self._since[found[0]]
            self.quota.add(found[1].destination, found[1].source, -1, -found[1].cost)
