"""The way of packets from one relay of a cluster to another.

A packet for a node that is not attached here is looked for: the server knows at which relays a node is, and what was
found is remembered for `ROUTE_LIFE` seconds. The packet then waits in the lane to that relay, bounded in bytes, and is
published on the relay's own channel: live, kept nowhere. A relay that has died has no listener there, which shows with
the first packet; what it was to get is looked for once more.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, final

import attrs
import trio

from autonomy_trio.fabric.links.link import FRAME_COST
from autonomy_trio.fabric.relays.cluster_words import Passed, Returned, channel_of, read_token, sign_of, write_letter
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.fabric.stores.redis import Redis
from autonomy_trio.fabric.stores.redis_store import PREFIX
from autonomy_trio.logs import get_log

NODE_LIFE: Final = 30.0
"""Seconds for which a node counts as attached after its relay's last word of it."""

ROUTE_LIFE: Final = 5.0
"""Seconds for which it is remembered at which relay a node was found."""

MOST_ROUTES: Final = 65_536
"""Nodes of which that is remembered."""

LANE_BYTES: Final = 4 * 1024 * 1024
"""Bytes that wait for one other relay, `FRAME_COST` for each packet among them; then NACK ``overloaded``."""

MOST_LANES: Final = 256
"""Other relays that something waits for."""

SEEKING_BYTES: Final = 4 * 1024 * 1024
"""Bytes of packets whose destinations are being looked for, counted in the same way."""

SOUGHT_TOGETHER: Final = 256
"""Nodes that are looked for in one step."""

MOST_PUBLISHED: Final = 64 * 1024
"""Bytes up to which packets for one relay travel together."""

AWAY: Final = "other relays away"
"""Why a packet is not forwarded while the server is away."""

UNKNOWN: Final = "unknown"
OVERLOADED: Final = "overloaded"
"""Why else."""

_log = get_log()

# Where a node was said to be last comes first; later than it could be said is said by no relay.
_FIND: Final = f"""
local now, found = tonumber(redis.call('TIME')[1]), {{}}
for i = 2, #ARGV do
  found[i - 1] = ''
  local said = redis.call('ZREVRANGEBYSCORE', '{PREFIX}at:' .. ARGV[i], now + {int(NODE_LIFE)}, now)
  for _, relay in ipairs(said) do
    if relay ~= ARGV[1] and redis.call('EXISTS', '{PREFIX}relay:' .. relay) == 1 then
      found[i - 1] = relay
      break
    end
  end
end
return found
"""


@attrs.frozen
class _Parcel:
    """A packet on its way to another relay."""

    source: bytes
    destination: bytes
    packet: bytes = attrs.field(repr=False)
    again: bool = False
    """Whether its first way led to a relay that was gone."""

    @property
    def size(self) -> int:
        return len(self.packet) + FRAME_COST


@final
@attrs.define(eq=False)
class _Lane:
    """What waits for one other relay."""

    relay: bytes
    _waiting: deque[_Parcel | Returned] = attrs.field(factory=deque[_Parcel | Returned])
    _bytes: int = 0

    def put(self, word: _Parcel | Returned) -> bool:
        """Add something; False where there is no room."""
        size = _size(word)
        if self._bytes + size > LANE_BYTES:
            return False
        self._waiting.append(word)
        self._bytes += size
        return True

    def take(self) -> list[_Parcel | Returned]:
        """Take what travels together, at least one."""
        taken: list[_Parcel | Returned] = []
        total = 0
        while self._waiting and (not taken or total + _size(self._waiting[0]) <= MOST_PUBLISHED):
            taken.append(self._waiting.popleft())
            total += _size(taken[-1])
        self._bytes -= total
        return taken

    @property
    def is_empty(self) -> bool:
        return not self._waiting


@final
@attrs.define(eq=False)
class Passing:
    """What is on its way from this relay to others."""

    redis: Redis
    relay: bytes
    """This one's token."""
    _deliver: Callable[[bytes, bytes, bytes], str | None]
    """Hands a packet (source, destination, packet) to a node that is attached here; in a word why not, or None."""
    _returned: Callable[[bytes, bytes, str], None]
    """Tells a node (source, destination, reason) that packets of its were not taken."""
    passed: int = 0
    """Packets that went to other relays."""
    _routes: dict[bytes, tuple[bytes, float]] = attrs.field(factory=dict[bytes, tuple[bytes, float]])
    """At which relay a node is, and until when on trio's clock that counts."""
    _seeking: dict[bytes, list[_Parcel]] = attrs.field(factory=dict[bytes, list[_Parcel]])
    _seeking_bytes: int = 0
    _lanes: dict[bytes, _Lane] = attrs.field(factory=dict[bytes, _Lane])
    _sought: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _waits: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def forward(self, source: bytes, destination: bytes, packet: bytes) -> str | None:
        """Take a packet for a node that is not attached here; in a word why not, or None. Never waits."""
        if not self.redis.is_there:
            return AWAY
        parcel = _Parcel(source, destination, packet)
        relay = None if destination in self._seeking else self._route(destination)
        return self._seek(parcel) if relay is None else self._put(relay, parcel)

    def refuse(self, relay: bytes, word: Returned) -> None:
        """Tell another relay that a packet of its was not taken; where there is no room, nothing is told."""
        self._put(relay, word)

    def moved(self, node: bytes, relay: bytes) -> None:
        """Take note that a node is now at another relay, if it is asked for here."""
        if node in self._routes:
            self._remember(node, relay)

    def gone(self, node: bytes, relay: bytes) -> None:
        """Take note that a node is not at a relay any more."""
        if self._route(node) == relay:
            del self._routes[node]

    async def run(self) -> None:
        """Find and send, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_seeking)
            nursery.start_soon(self._keep_sending)

    def _route(self, node: bytes) -> bytes | None:
        route = self._routes.get(node)
        return None if route is None or trio.current_time() >= route[1] else route[0]

    def _remember(self, node: bytes, relay: bytes) -> None:
        if len(self._routes) >= MOST_ROUTES:
            now = trio.current_time()
            self._routes = {each: route for each, route in self._routes.items() if now < route[1]}
        if len(self._routes) < MOST_ROUTES:
            self._routes[node] = relay, trio.current_time() + ROUTE_LIFE

    def _seek(self, parcel: _Parcel) -> str | None:
        if self._seeking_bytes + parcel.size > SEEKING_BYTES:
            return OVERLOADED
        self._seeking.setdefault(parcel.destination, []).append(parcel)
        self._seeking_bytes += parcel.size
        self._sought.unpark_all()
        return None

    def _put(self, relay: bytes, word: _Parcel | Returned) -> str | None:
        lane = self._lanes.get(relay)
        if lane is None:
            if len(self._lanes) >= MOST_LANES:
                return OVERLOADED
            lane = self._lanes[relay] = _Lane(relay)
        self._waits.unpark_all()
        return None if lane.put(word) else OVERLOADED

    def _return(self, parcel: _Parcel, reason: str) -> None:
        self._returned(parcel.source, parcel.destination, reason)

    async def _keep_seeking(self) -> None:
        while True:
            while not self._seeking:
                await self._sought.park()
            nodes = list(itertools.islice(self._seeking, SOUGHT_TOGETHER))
            reason, found = UNKNOWN, [b""] * len(nodes)
            try:
                (found,) = await self.redis.do(("EVAL", _FIND, 0, self.relay.hex(), *(node.hex() for node in nodes)))
            except StoreFailed as error:
                _log.debug("nodes not looked for", count=len(nodes), why=str(error))
                reason = AWAY
            for node, relay in zip(nodes, found, strict=True):
                parcels = self._seeking.pop(node)
                self._seeking_bytes -= sum(parcel.size for parcel in parcels)
                self._found(node, relay, parcels, reason)

    def _found(self, node: bytes, relay: bytes, parcels: Sequence[_Parcel], reason: str) -> None:
        token = read_token(relay)
        if token is not None:
            self._remember(node, token)
        for parcel in parcels:
            # A node that was found nowhere else may have come here meanwhile.
            refusal = self._put(token, parcel) if token else self._deliver(parcel.source, node, parcel.packet)
            if refusal is not None:
                self._return(parcel, reason if refusal == UNKNOWN else refusal)

    async def _keep_sending(self) -> None:
        while True:
            self._lanes = {relay: lane for relay, lane in self._lanes.items() if not lane.is_empty}
            if not self._lanes:
                await self._waits.park()
                continue
            sent = [(relay, lane.take()) for relay, lane in self._lanes.items()]
            try:
                listeners = await self.redis.do(
                    *(("PUBLISH", channel_of(relay), _letter(self.relay, words)) for relay, words in sent)
                )
            except StoreFailed as error:
                _log.debug("packets not passed on", why=str(error))
                for _, words in sent:
                    for parcel in _parcels(words):
                        self._return(parcel, AWAY)
                continue
            for (relay, words), count in zip(sent, listeners, strict=True):
                if count:
                    self.passed += len(_parcels(words))
                else:
                    await self._lose(relay, words)

    async def _lose(self, relay: bytes, words: Sequence[_Parcel | Returned]) -> None:
        """See that nothing goes to a relay that is gone, and look once more for where its nodes are."""
        _log.info("relay of the cluster gone", relay=relay.hex())
        with suppress(StoreFailed):
            await self.redis.do(("DEL", sign_of(relay)))
        self._routes = {node: route for node, route in self._routes.items() if route[0] != relay}
        lane = self._lanes[relay]
        rest: list[_Parcel | Returned] = []
        while not lane.is_empty:
            rest += lane.take()
        for parcel in _parcels((*words, *rest)):
            refusal = UNKNOWN if parcel.again else self._seek(attrs.evolve(parcel, again=True))
            if refusal is not None:
                self._return(parcel, refusal)


def _size(word: _Parcel | Returned) -> int:
    return word.size if isinstance(word, _Parcel) else FRAME_COST


def _parcels(words: Sequence[_Parcel | Returned]) -> list[_Parcel]:
    return [word for word in words if isinstance(word, _Parcel)]


def _letter(relay: bytes, words: Sequence[_Parcel | Returned]) -> bytes:
    return write_letter(
        relay,
        (Passed(word.source, word.destination, word.packet) if isinstance(word, _Parcel) else word for word in words),
    )
