"""Nodes in memory joined by a relay in memory, over links that err from a seed."""

import heapq
import random
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final, final

import attrs
import trio

from autonomy_trio.actors.interceptors import Interceptor
from autonomy_trio.errors import LinkBroken, RelayUnreachable, UsageError
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.links.memory import MemoryLink, open_memory_links
from autonomy_trio.fabric.opening import Entry, open_node
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.fabric.stores.store import MemoryStore, Store
from autonomy_trio.testing.injections import Injections, check_chance
from autonomy_trio.testing.node import Errors, TestNode, virtual_now, watch
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import Send, decode_frame, encode_frame, join_frames, split_frames

URL: Final = "ws://memory:1"
"""Where the relay of a test fabric is, for the nodes of that fabric alone."""

HELD_BACK: Final = 0.1
"""Seconds that a packet may be held back for others to overtake it."""

MOST_UNDER_WAY: Final = 10_000
"""Packets that a link holds back; one more is lost."""


@attrs.frozen
class Faults:
    """How links err: the chance, from 0 to 1, that it happens to a packet.

    Packets are what nodes say to each other, encrypted; what a node says to its relay is left alone.

    Raises:
        UsageError: a chance is not from 0 to 1, or the delay is negative.
    """

    drop: float = 0.0
    """It is lost."""
    duplicate: float = 0.0
    """It arrives twice."""
    tamper: float = 0.0
    """One of its bits is changed."""
    reorder: float = 0.0
    """It is held back for up to 0.1 s, and others overtake it."""
    delay: float = 0.0
    """No chance: the most seconds that a packet is under way; all stay in order."""

    def __attrs_post_init__(self) -> None:
        for name in ("drop", "duplicate", "tamper", "reorder"):
            check_chance(name, getattr(self, name))
        if not 0 <= self.delay < float("inf"):
            msg = f"delay={self.delay!r}: give seconds, 0 or more"
            raise UsageError(msg)


FLAWLESS: Final = Faults()
"""Links that lose and change nothing."""


@final
@attrs.define(eq=False)
class TestFabric:
    """A relay in memory and the nodes that are attached to it; made by `open_test_fabric`."""

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for one of tests

    faults: Faults
    """How its links err; to be set anew at any time."""
    _seed: int
    _nursery: trio.Nursery
    _store: Store | None = attrs.field(factory=lambda: MemoryStore(virtual_now))
    _links: int = 0
    _relay: Relay | None = None
    _serving: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope])

    @property
    def url(self) -> str:
        """The URL of its relay, which its nodes alone can reach."""
        return URL

    def start_relay(self) -> None:
        """Start a relay in place of one that was stopped: another identity, and of what was before only its store."""
        self.stop_relay()
        self._relay = Relay(Vault.in_memory(), now=virtual_now, store=self._store)

    def stop_relay(self) -> None:
        """End the relay as a crash would: every link breaks, and none can be made until `start_relay`."""
        self._relay = None
        for serving in self._serving:
            serving.cancel()

    @asynccontextmanager
    async def open_node(  # noqa: PLR0913 - those of `open_node` that mean something here
        self,
        agents: Iterable[Entry] = (),
        *,
        expected: Errors = (),
        home: str | Path | None = None,
        anchors: str | Path | None = None,
        credentials: Iterable[str | Path] = (),
        ask_limit: float = 30.0,
        grace: float = 5.0,
        interceptors: Sequence[Interceptor] = (),
    ) -> AsyncGenerator[TestNode]:
        """Host agents for the length of a block, attached to the relay of this fabric.

        Args:
            agents: what to spawn, as for `open_node`.
            expected: the classes of errors that agents may fail with, as for `open_test_node`.
            home: as for `open_node`, as are those that follow; without one, keys live in memory.
            anchors: as for `open_node`.
            credentials: as for `open_node`.
            ask_limit: seconds an ask may take that has no deadline of its own, and `Probe.receive` too.
            grace: seconds agents get to finish what they have when the block ends.
            interceptors: as for `open_node`.

        Raises:
            RelayUnreachable: the relay is stopped.
            ExceptionGroup: as `open_test_node`.
            VaultError, ConfigurationError, CredentialError, PolicyError, DeclarationError: as `open_node`.

        When the block ends the node is drained, and other nodes are told. Nothing is left running.
        """
        injections = Injections()
        opening = open_node(
            agents,
            relay=self.url,
            home=home,
            anchors=anchors,
            credentials=credentials,
            ask_limit=ask_limit,
            grace=grace,
            interceptors=(*interceptors, injections),
            now=virtual_now,
            connect=self.connect,
        )
        async with watch(opening, injections, expected) as node:
            yield node

    async def connect(self, url: str, nursery: trio.Nursery) -> Link:
        """Open a link to the relay; what `open_node` takes as `connect`.

        Raises:
            RelayUnreachable: the relay is stopped, or `url` is another one's.
        """
        await trio.lowlevel.checkpoint()
        if self._relay is None or url != self.url:
            msg = f"{url} cannot be reached"
            raise RelayUnreachable(msg)
        near, far = open_memory_links()
        self._nursery.start_soon(self._serve, self._relay, far)
        self._links += 1
        link = FaultyLink(near, self, random.Random(f"{self._seed} {self._links}"))  # noqa: S311 - for the same draw
        nursery.start_soon(link.run)
        return link

    async def _serve(self, relay: Relay, link: MemoryLink) -> None:
        with trio.CancelScope() as serving:
            self._serving.add(serving)
            await relay.serve_link(link)
        self._serving.discard(serving)
        await link.aclose()


@final
@attrs.define(eq=False)
class FaultyLink:
    """A node's end of a link, on which the packets it sends may suffer."""

    _link: MemoryLink
    _fabric: TestFabric
    _chance: random.Random
    _under_way: list[tuple[float, int, bytes]] = attrs.field(factory=list[tuple[float, int, bytes]])
    """A heap of packets that leave later: when, their number, and the packet in its frame."""
    _number: int = 0
    _last: float = float("-inf")
    """When the last packet leaves of those that stay in order."""
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def remote(self) -> str:
        """See `Link.remote`."""
        return self._link.remote

    async def send(self, message: bytes) -> None:
        """See `Link.send`."""
        now, kept = trio.current_time(), list[bytes]()
        for encoded in split_frames(message):
            frame = decode_frame(encoded)
            if not isinstance(frame, Send):
                kept.append(encode_frame(frame))
                continue
            for packet, due in self._suffer(frame.packet, now):
                encoded_frame = encode_frame(Send(frame.destination, frame.flags, frame.time_to_live, packet))
                if due <= now:
                    kept.append(encoded_frame)
                elif len(self._under_way) < MOST_UNDER_WAY:
                    self._number += 1
                    heapq.heappush(self._under_way, (due, self._number, encoded_frame))
                    self._changed.unpark_all()
        if kept:
            await self._link.send(join_frames(kept))
        else:
            await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        """See `Link.receive`."""
        return await self._link.receive()

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        await self._link.aclose()

    async def run(self) -> None:
        """Send what was held back, when it is time, until the link has ended."""
        try:
            while True:
                while not self._under_way:
                    await self._changed.park()
                due, _, frame = self._under_way[0]
                if due <= trio.current_time():
                    heapq.heappop(self._under_way)
                    await self._link.send(join_frames([frame]))
                else:
                    with trio.move_on_at(due):
                        await self._changed.park()
        except LinkBroken:
            return

    def _suffer(self, packet: bytes, now: float) -> list[tuple[bytes, float]]:
        """Return what becomes of a packet: the copies that arrive, and when each leaves."""
        faults, chance = self._fabric.faults, self._chance
        dropped, doubled, changed, overtaken, held = (chance.random() for _ in range(5))
        if dropped < faults.drop:
            return []
        if changed < faults.tamper and packet:
            place = chance.randrange(len(packet) * 8)
            spoilt = packet[place // 8] ^ 1 << place % 8
            packet = packet[: place // 8] + bytes([spoilt]) + packet[place // 8 + 1 :]
        if overtaken < faults.reorder:
            due = now + held * HELD_BACK
        else:
            due = self._last = max(self._last, now + held * faults.delay)
        return [(packet, due)] * (2 if doubled < faults.duplicate else 1)


@asynccontextmanager
async def open_test_fabric(faults: Faults = FLAWLESS, *, seed: int = 0) -> AsyncGenerator[TestFabric]:
    """Join nodes by a relay in memory for the length of a block: no home, no socket, links that err from a seed.

    ``async with open_test_fabric() as fabric, fabric.open_node([Counter]) as server, fabric.open_node() as visitor:``
    and then ``visitor.ref(server.address("counter"), Counter)``. Nodes are what they are elsewhere, with identities,
    sessions and policies; best in virtual time, as `open_test_node`.

    Args:
        faults: how links err from the beginning; `TestFabric.faults` changes it.
        seed: of all that is drawn: the n-th packet of a link suffers the same for the same seed.

    Leaving the block breaks what is still linked. Nothing is left running.
    """
    async with trio.open_nursery() as nursery:
        fabric = TestFabric(faults, seed, nursery)
        fabric.start_relay()
        yield fabric
        nursery.cancel_scope.cancel()
