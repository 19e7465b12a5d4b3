"""The portals of one node: who opens a stream to where, and which end of it is whose."""

from collections.abc import Callable
from typing import Any, Final, final

import attrs
import trio

from autonomy_trio.actors.delivery import Sender
from autonomy_trio.errors import NotDelivered, Overloaded, TargetUnreachable
from autonomy_trio.fabric.links.addresses import Address, is_address
from autonomy_trio.fabric.peers.peers import Peers
from autonomy_trio.fabric.portals.connecting import Connect, Full, Outlet, Unreachable
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.wire.constants import LARGEST_NUMBER
from autonomy_trio.wire.lanes import ENVELOPE_ROOM, Lane
from autonomy_trio.wire.portals import PortalEnd

MOST_STREAMS: Final = 2048
"""Ends of portals' streams at one node, opened by it and by others; each holds some 512 KiB at most.

Windows that have grown add at most 16 MiB each way for all streams with one other node.
"""

MOST_WITH_ONE: Final = 1024
"""Of these, with one other node."""

MOST_PIECES: Final = 256
"""Pieces that one end hands to another of the same node at once."""


@final
@attrs.define(eq=False)
class Loop:
    """The two lanes of streams whose outlet is at the node that opens them."""

    near: Lane = attrs.field(init=False)
    """Where they are opened."""
    far: Lane = attrs.field(init=False)
    """Where they are accepted."""
    _is_running: bool = False

    def run(self) -> None:
        """Carry what waits from one end to the other."""
        if self._is_running:
            return
        self._is_running = True
        try:
            while self.near.has_work or self.far.has_work:
                for here, there in ((self.near, self.far), (self.far, self.near)):
                    now = trio.current_time()
                    for entry in here.take(ENVELOPE_ROOM, MOST_PIECES, now):
                        there.receive(entry, now)
        finally:
            self._is_running = False


@final
@attrs.define(eq=False)
class Portals:
    """All streams of portals at one node."""

    _peers: Peers
    _identifier: bytes
    _ref: Callable[[str, Any], Any]
    """Makes a ref of a name or an address."""
    _loop: Loop | None = None

    def __len__(self) -> int:
        """Return how many ends there are."""
        return len(self._peers.sessions.lanes)

    @property
    def resent(self) -> int:
        """How often what had left was sent again."""
        return self._peers.sessions.lanes.resent_so_far()

    async def open(self, to: str) -> PortalEnd:
        """Open a stream to an outlet, by its name here or its address.

        Raises:
            AddressError: `to` is neither.
            Denied, NotDelivered, Overloaded, OutcomeUnknown, TargetUnreachable: there is no stream.
            trio.TooSlowError: the outlet did not answer in time.
        """
        ref = self._ref(to, Outlet)
        lane = self._lane_to(to)
        self._check_room(lane)
        end = lane.open(self._peers.new_request())
        end.is_opening = True
        try:
            await ref.ask(Connect(end.number))
            end.is_opening = False
        except Full as error:
            raise Overloaded(f"{to}: {error.why}") from None
        except Unreachable as error:
            raise TargetUnreachable(f"{to}: {error.why}") from None
        finally:
            if end.is_opening:
                end.reset()
        if end.lost is not None:
            raise NotDelivered(f"{to}: {end.lost}")
        return end

    def accept(self, sender: Sender, number: int) -> PortalEnd | None:
        """Return this end of a stream that was opened elsewhere, or here; None where its opener has gone.

        Raises:
            Full: there are too many, or it can have no such number.
        """
        if not 0 <= number <= LARGEST_NUMBER:
            raise Full("that is no number of a stream")
        if sender.is_local:
            lane = self._own_loop().far
        else:
            peer = self._peers.sessions.peers.get(parse_identifier(sender.node))
            if peer is None:
                return None
            lane = self._peers.sessions.lane(peer)
        try:
            self._check_room(lane)
        except Overloaded as error:
            raise Full(str(error)) from None
        end = lane.accept(number)
        if end is None:
            raise Full("a stream of that number is open already")
        return end

    def _lane_to(self, to: str) -> Lane:
        node = Address.parse(to).node if is_address(to) else self._identifier
        if node == self._identifier:
            return self._own_loop().near
        return self._peers.sessions.lane(self._peers.sessions.peer(node))

    def _check_room(self, lane: Lane) -> None:
        if len(self) >= MOST_STREAMS:
            raise Overloaded(f"{MOST_STREAMS} streams of portals are open at the node already")
        if len(lane) >= MOST_WITH_ONE:
            raise Overloaded(f"{MOST_WITH_ONE} streams of portals are open between the two nodes already")

    def _own_loop(self) -> Loop:
        if self._loop is None:
            loop, lanes = Loop(), self._peers.sessions.lanes
            loop.near, loop.far = lanes.open(loop.run), lanes.open(loop.run)
            self._loop = loop
        return self._loop
