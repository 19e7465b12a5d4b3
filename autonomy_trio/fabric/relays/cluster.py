"""The relays that keep their mailboxes in one Redis: they say which nodes are attached to them, and what these publish.

A relay, and each node that it has, counts as there for some seconds after it was said, so what a relay that died has
left behind is soon forgotten. How packets travel between them is in `fabric.passing`.

Whoever writes to the server can lead packets astray, drop them and name sources as he likes, as any relay can. He can
read and forge none: that is between the nodes.
"""

import itertools
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol, TypeVar, final

import attrs
import trio

from autonomy_trio.errors import ProtocolError
from autonomy_trio.fabric.relays.cluster_words import (
    EVERYBODY,
    MOST_MOVED,
    Listed,
    Moved,
    Passed,
    Returned,
    Word,
    channel_of,
    new_token,
    read_letter,
    sign_of,
    write_letter,
)
from autonomy_trio.fabric.relays.directory import MOST_BUNDLES, MOST_LISTED
from autonomy_trio.fabric.relays.passing import AWAY, NODE_LIFE, UNKNOWN, Passing
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.fabric.stores.redis import RETRY_EVERY, Redis, listen
from autonomy_trio.fabric.stores.redis_store import MAIL, PREFIX
from autonomy_trio.fabric.stores.redis_wire import Command
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.wire.directory import Found
from autonomy_trio.wire.frames import Listing, Publish, decode_frame, encode_frame

RELAY_LIFE: Final = 10.0
"""Seconds for which a relay counts as there after its last word."""

SAY_EVERY: Final = 3.0
"""Seconds between two words of a relay that it is there."""

NODES_EVERY: Final = 10.0
"""Seconds between two words about each node."""

ANNOUNCE_LIMIT: Final = 1.0
"""Seconds a node that registers waits for the other relays to be able to find it."""

MOST_WANTED: Final = 256
"""Nodes whose bundle is looked for, and askers for each; one more is told that it is not known."""

FETCHED_TOGETHER: Final = 16
"""Bundles that are asked for in one step: each costs signature checks."""

LEAVE_LIMIT: Final = 1.0
"""Seconds in which a relay that ends says so."""

_HEX_BYTES: Final = 64
_RECORDS: Final = f"{PREFIX}records"

_log = get_log()

_K = TypeVar("_K")
_V = TypeVar("_V")


_ORDER_BYTES: Final = 40
"""In front of each record: digits that tell which of a node's is newer, however the server's locale sorts text."""

_SAY: Final = f"""
local now, life, relay = tonumber(redis.call('TIME')[1]), tonumber(ARGV[1]), ARGV[2]
for i = 3, #ARGV, 2 do
  local key = '{PREFIX}at:' .. ARGV[i]
  if ARGV[i + 1] == '1' then
    redis.call('ZADD', key, now + life, relay)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. now)
    redis.call('EXPIRE', key, life)
  else
    redis.call('ZREM', key, relay)
  end
end
return 1
"""

_KEEP: Final = f"""
local now = redis.call('TIME')[1]
for i = 2, #ARGV, 3 do
  redis.call('SET', '{PREFIX}bundle:' .. ARGV[i], ARGV[i + 1], 'EXAT', ARGV[i + 2])
  redis.call('ZADD', '{PREFIX}bundles', now, ARGV[i])
end
local most = redis.call('ZCARD', '{PREFIX}bundles') - tonumber(ARGV[1])
if most > 0 then
  local gone = redis.call('ZPOPMIN', '{PREFIX}bundles', most)
  for i = 1, #gone, 2 do redis.call('DEL', '{PREFIX}bundle:' .. gone[i]) end
end
return 1
"""

_LIST: Final = f"""
local records, ends = '{_RECORDS}', '{_RECORDS}:expiry'
local node, order, expires, most, record = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local old = redis.call('HGET', records, node)
if old and old:sub(1, {_ORDER_BYTES}) >= order then return 0 end
if record == '' then
  redis.call('HDEL', records, node)
  redis.call('ZREM', ends, node)
  return 1
end
if not old and redis.call('HLEN', records) >= most then
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', redis.call('TIME')[1])) do
    redis.call('HDEL', records, gone)
    redis.call('ZREM', ends, gone)
  end
  if redis.call('HLEN', records) >= most then return 0 end
end
redis.call('HSET', records, node, order .. record)
redis.call('ZADD', ends, expires, node)
return 1
"""


class Here(Protocol):
    """The relay of this process, as its cluster sees it."""

    @property
    def attached(self) -> Collection[bytes]:
        """The nodes that are attached here."""
        ...

    def deliver(self, source: bytes, destination: bytes, packet: bytes) -> str | None:
        """Hand a packet to a node that is attached here; in a word why not, or None."""
        ...

    def returned(self, source: bytes, destination: bytes, reason: str) -> None:
        """Tell a node that packets of its were not taken."""
        ...

    def learn(self, listing: Listing) -> None:
        """Take a record that was published elsewhere, if it holds."""
        ...

    def meet(self, encoded: bytes) -> None:
        """Take the bundle of a node that has registered elsewhere, if it holds."""
        ...

    def notice(self, node: bytes | None) -> None:
        """Look for something new in the mailbox of a node, or of all that fetch."""
        ...


@final
@attrs.define(eq=False)
class Cluster:
    """The other relays, for the one of this process; made by `open_cluster`."""

    redis: Redis
    _token: bytes = attrs.field(factory=new_token)
    """What this relay is known by."""
    _passing: Passing | None = None
    _joined: trio.Event = attrs.field(factory=trio.Event)
    _here: Here | None = None
    _unsaid: dict[bytes, Bundle | None] = attrs.field(factory=dict[bytes, Bundle | None])
    """Nodes that have come, or gone."""
    _wanted: dict[bytes, list[Callable[[], None]]] = attrs.field(factory=dict[bytes, list[Callable[[], None]]])
    """Nodes whose bundle is looked for, and whom that is told."""
    _unlisted: dict[bytes, tuple[Listing, Found]] = attrs.field(factory=dict[bytes, tuple[Listing, Found]])
    _listens: bool = False
    _times_deaf: int = 1
    """How often something may have been said while this relay did not listen."""
    _caught_up: int = 0
    """For how many of these times it has learned what was said."""
    _listens_again: trio.Event = attrs.field(factory=trio.Event)
    _came: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    """Where the tasks wait for something to do."""
    _said: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def join(self, here: Here) -> None:
        """Be the cluster of a relay."""
        self._here = here
        self._passing = Passing(self.redis, self._token, here.deliver, here.returned)
        self._joined.set()

    @property
    def passed(self) -> int:
        """How many packets went to other relays."""
        return 0 if self._passing is None else self._passing.passed

    def forward(self, source: bytes, destination: bytes, packet: bytes) -> str | None:
        """Take a packet for a node that is not attached here; in a word why not, or None. Never waits."""
        return AWAY if self._passing is None else self._passing.forward(source, destination, packet)

    def attach(self, bundle: Bundle) -> None:
        """Let the other relays know that a node is attached here, and what it has proven."""
        self._unsaid[bundle.identifier] = bundle
        self._came.unpark_all()

    def detach(self, node: bytes) -> None:
        """Let the other relays know that a node is not attached here any more."""
        self._unsaid[node] = None
        self._came.unpark_all()

    async def announced(self, node: bytes) -> None:
        """Return when others can find a node that was attached, or `ANNOUNCE_LIMIT` seconds have passed."""
        with trio.move_on_after(ANNOUNCE_LIMIT):
            while self.redis.is_there and node in self._unsaid:
                await self._said.park()

    def fetch_bundle(self, node: bytes, then: Callable[[], None]) -> None:
        """Look for the bundle of a node that has registered elsewhere, and call `then` when it is there, or is not."""
        if len(self._wanted) >= MOST_WANTED or len(self._wanted.get(node, ())) >= MOST_WANTED:
            then()
            return
        self._wanted.setdefault(node, []).append(then)
        self._came.unpark_all()

    def publish(self, listing: Listing, found: Found) -> None:
        """Let the other relays list what a node has published here."""
        self._unlisted[found.record.node] = listing, found
        self._came.unpark_all()

    async def run(self) -> None:
        """Do what a cluster does, from when a relay has joined until cancelled."""
        await self._joined.wait()
        here, passing = self._here, self._passing
        assert here is not None and passing is not None  # noqa: S101, PT018 - it has joined
        channels = (channel_of(self._token), EVERYBODY, MAIL)

        def take(channel: bytes, data: bytes) -> None:
            # Fence: whoever may write to the server may publish anything.
            with fence(_not_understood):
                if channel == MAIL.encode():
                    for start in range(0, len(data), _HEX_BYTES):
                        here.notice(bytes.fromhex(data[start : start + _HEX_BYTES].decode("ascii")))
                else:
                    relay, words = read_letter(data)
                    for word in words if relay != self._token else ():
                        _take(here, passing, relay, word)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, self.redis.address, channels, take, self._listening)
            nursery.start_soon(self._keep_saying_there, here)
            nursery.start_soon(self._keep_saying)
            nursery.start_soon(self._keep_fetching, here)
            nursery.start_soon(passing.run)

    async def leave(self) -> None:
        """Tell the other relays that this one ends."""
        with suppress(StoreFailed):
            await self.redis.do(("DEL", sign_of(self._token)))

    async def _keep_saying_there(self, here: Here) -> None:
        """Say again and again that this relay is there, while it listens, and which nodes are attached to it."""
        nodes_at = trio.current_time()
        while True:
            deaf = self._times_deaf
            try:
                if self._listens:
                    await self.redis.do(("SET", sign_of(self._token), 1, "PX", int(RELAY_LIFE * 1000)))
                    if deaf > self._caught_up or trio.current_time() >= nodes_at:
                        nodes_at = trio.current_time() + NODES_EVERY
                        await self._say_nodes(here)
                    if deaf > self._caught_up:
                        await self._load_records(here)
                        here.notice(None)
                        self._caught_up = deaf
            except StoreFailed as error:
                _log.debug("other relays not told", why=str(error))
            with trio.move_on_after(SAY_EVERY if self._caught_up == self._times_deaf else RETRY_EVERY):
                await self._listens_again.wait()
            self._listens_again = trio.Event()

    async def _say_nodes(self, here: Here) -> None:
        nodes = list(here.attached)
        for start in range(0, len(nodes), MOST_MOVED):
            await self.redis.do(self._say(dict.fromkeys(nodes[start : start + MOST_MOVED], 1)))

    async def _load_records(self, here: Here) -> None:
        """Learn what was published while this relay did not listen."""
        cursor = b"0"
        while True:
            ((cursor, pairs),) = await self.redis.do(("HSCAN", _RECORDS, cursor, "COUNT", 100))
            for record in pairs[1::2]:
                with suppress(ProtocolError):
                    frame = decode_frame(record[_ORDER_BYTES:])
                    if isinstance(frame, Publish):
                        here.learn(frame.listing)
                await trio.lowlevel.checkpoint()  # each costs signature checks
            if cursor == b"0":
                return

    async def _keep_saying(self) -> None:
        """Say which nodes have come and gone, and what they have published."""
        while True:
            while not self._unsaid and not self._unlisted:
                await self._came.park()
            said = dict(itertools.islice(self._unsaid.items(), MOST_MOVED))
            listed = dict(itertools.islice(self._unlisted.items(), 1))
            try:
                await self.redis.do(*self._words_about(said), *itertools.chain(*map(self._list, listed.values())))
            except StoreFailed as error:
                # What is attached is said again soon; what has gone expires, and what was published is published again.
                _log.debug("other relays not told", why=str(error))
            _take_away(self._unsaid, said)
            _take_away(self._unlisted, listed)
            self._said.unpark_all()

    async def _keep_fetching(self, here: Here) -> None:
        """Look for the bundles of nodes that have registered elsewhere."""
        while True:
            while not self._wanted:
                await self._came.park()
            nodes = list(itertools.islice(self._wanted, FETCHED_TOGETHER))
            found: list[bytes | None] = []
            try:
                (found,) = await self.redis.do(("MGET", *map(_bundle_of, nodes)))
            except StoreFailed as error:
                _log.debug("bundles not looked for", count=len(nodes), why=str(error))
            for encoded in found:
                if encoded is not None:
                    here.meet(encoded)
            for node in nodes:
                for then in self._wanted.pop(node):
                    then()

    def _words_about(self, nodes: dict[bytes, Bundle | None]) -> list[Command]:
        if not nodes:
            return []
        come = [bundle for bundle in nodes.values() if bundle is not None]
        words: list[Command] = [self._say({node: int(bundle is not None) for node, bundle in nodes.items()})]
        if come:
            moved = Moved(tuple(bundle.identifier for bundle in come))
            words.append(("PUBLISH", EVERYBODY, write_letter(self._token, [moved])))
            words.append(_keep(come))
        return words

    def _say(self, nodes: dict[bytes, int]) -> Command:
        pairs: list[str | int] = []
        for node, is_here in nodes.items():
            pairs += [node.hex(), is_here]
        return "EVAL", _SAY, 0, int(NODE_LIFE), self._token.hex(), *pairs

    def _listening(self, listens: bool) -> None:
        self._listens = listens
        if listens:
            self._times_deaf += 1
            self._listens_again.set()

    def _list(self, published: tuple[Listing, Found]) -> list[Command]:
        """Return what tells of a record now, and keeps it for relays that come later, if it lists any agents."""
        listing, found = published
        record = found.record
        kept = encode_frame(Publish(listing)) if record.agents else b""
        order = f"{record.seq:020}{record.serial:020}".encode()
        return [
            ("EVAL", _LIST, 0, record.node.hex(), order, record.expires, MOST_LISTED, kept),
            ("PUBLISH", EVERYBODY, write_letter(self._token, [Listed(listing)])),
        ]


def _take(here: Here, passing: Passing, relay: bytes, word: Word) -> None:
    """Do what another relay says."""
    match word:
        case Passed():
            reason = here.deliver(word.source, word.destination, word.packet)
            if reason is not None:
                passing.refuse(relay, Returned(word.source, word.destination, reason))
        case Returned():
            if word.reason == UNKNOWN:
                passing.gone(word.destination, relay)
            here.returned(word.source, word.destination, word.reason)
        case Moved():
            for node in word.nodes:
                passing.moved(node, relay)
        case Listed():
            here.learn(word.listing)


def _keep(bundles: Sequence[Bundle]) -> Command:
    """Return what keeps the bundles of nodes that have come, and lets those go that came longest ago."""
    kept: list[str | int | bytes] = []
    for each in bundles:
        kept += [each.identifier.hex(), each.encoded, each.expires]
    return "EVAL", _KEEP, 0, MOST_BUNDLES, *kept


def _bundle_of(node: bytes) -> str:
    return f"{PREFIX}bundle:{node.hex()}"


def _not_understood(error: Exception) -> None:
    shown = {} if isinstance(error, (ProtocolError, ValueError)) else {"exc_info": error}
    _log.warning("word of another relay not understood", why=type(error).__name__, **shown)


def _take_away(waiting: dict[_K, _V], done: dict[_K, _V]) -> None:
    """Take away what was done, and leave what has changed meanwhile."""
    for key, value in done.items():
        if waiting.get(key) is value:
            del waiting[key]


@asynccontextmanager
async def open_cluster(redis: Redis) -> AsyncGenerator[Cluster]:
    """Be one of the relays that share a server, for the length of a block."""
    cluster = Cluster(redis)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run)
        try:
            yield cluster
        finally:
            with trio.move_on_after(LEAVE_LIMIT, shield=True):
                await cluster.leave()
        nursery.cancel_scope.cancel()
