"""The tables of an endpoint: sessions and handshakes by index, strangers' handshakes with their bounds, and timers."""

import heapq
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import final

from attrs import define

from autonomy_trio.errors import HandshakeFailed
from autonomy_trio.wire.constants import HANDSHAKE_LIFE, PENDING_HANDSHAKES, PENDING_PER_PATH
from autonomy_trio.wire.handshake import Responder
from autonomy_trio.wire.peers import NEVER, Channel, Peer


@final
@define(eq=False)
class Pending:
    """A stranger's handshake that waits for XX3.

    Attributes:
        handshake: the handshake.
        index: the index it was given.
        first: the XX1 that began it, whole: the same one again gets the same answer.
        path: where it came from.
        began: when XX1 came.
    """

    handshake: Responder
    index: int
    first: bytes
    path: Hashable
    began: float

    @property
    def expires_at(self) -> float:
        """When it is forgotten."""
        return self.began + HANDSHAKE_LIFE


@final
class PendingHandshakes:
    """Strangers' handshakes: at most 256, at most 4 from one path, 5 s each."""

    def __init__(self) -> None:
        self._by_first: dict[bytes, Pending] = {}
        self._by_index: dict[int, Pending] = {}
        self._per_path: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._by_first)

    def __contains__(self, index: int) -> bool:
        return index in self._by_index

    def begun_by(self, first: bytes) -> Pending | None:
        """Return the handshake that these bytes began."""
        return self._by_first.get(first)

    def at(self, index: int) -> Pending | None:
        """Return the handshake that was given an index."""
        return self._by_index.get(index)

    def check_room(self, path: Hashable) -> None:
        """Refuse a handshake for which there is no room, before any work is done for it.

        Raises:
            HandshakeFailed: too many wait, in all or of this path.
        """
        if len(self._by_first) >= PENDING_HANDSHAKES or self._per_path[path] >= PENDING_PER_PATH:
            raise HandshakeFailed("too many handshakes wait for their initiators")

    def add(self, pending: Pending) -> None:
        """Keep a handshake until it expires."""
        self._by_first[pending.first] = pending
        self._by_index[pending.index] = pending
        self._per_path[pending.path] += 1

    def remove(self, pending: Pending) -> None:
        """Forget a handshake."""
        del self._by_first[pending.first]
        del self._by_index[pending.index]
        self._per_path[pending.path] -= 1
        if not self._per_path[pending.path]:
            del self._per_path[pending.path]

    def next_expiry(self) -> float:
        """Return when the oldest is forgotten: all live equally long, and dicts keep their order."""
        for pending in self._by_first.values():
            return pending.expires_at
        return NEVER

    def expire(self, ticks: float) -> None:
        """Forget what is due."""
        for pending in list(self._by_first.values()):
            if ticks < pending.expires_at:
                break
            self.remove(pending)


@final
class Channels:
    """All sessions of a node, by its own index and by the peer's."""

    def __init__(self) -> None:
        self._by_index: dict[int, Channel] = {}
        self._towards: dict[int, list[Channel]] = {}

    def __len__(self) -> int:
        return len(self._by_index)

    def __contains__(self, index: int) -> bool:
        return index in self._by_index

    def at(self, index: int) -> Channel | None:
        """Return the session whose packets to this node name an index."""
        return self._by_index.get(index)

    def towards(self, index: int) -> Sequence[Channel]:
        """Return the sessions whose packets from this node name an index; peers choose theirs alone, so may agree."""
        return self._towards.get(index, ())

    def add(self, channel: Channel) -> None:
        """Receive on a session from now on."""
        self._by_index[channel.session.index] = channel
        self._towards.setdefault(channel.session.remote.index, []).append(channel)

    def remove(self, channel: Channel) -> None:
        """Receive nothing more on a session."""
        del self._by_index[channel.session.index]
        towards = self._towards[channel.session.remote.index]
        towards.remove(channel)
        if not towards:
            del self._towards[channel.session.remote.index]


@final
class Timers:
    """When which peer must be looked at. One that an earlier time has overtaken comes all the same, and is ignored."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, peer: Peer) -> None:
        """Have a peer looked at by its deadline."""
        deadline = peer.deadline()
        if deadline < peer.scheduled:
            peer.scheduled = deadline
            heapq.heappush(self._heap, (deadline, peer.identifier))

    def next_deadline(self) -> float:
        """Return the earliest time set."""
        return self._heap[0][0] if self._heap else NEVER

    def take_due(self, ticks: float) -> list[tuple[float, bytes]]:
        """Return the peers to look at now, each with the time it was set for, and forget those times."""
        due: list[tuple[float, bytes]] = []
        while self._heap and self._heap[0][0] <= ticks:
            due.append(heapq.heappop(self._heap))
        return due
