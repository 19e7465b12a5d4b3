"""The directory of a relay: what nodes let be found, kept until it expires, for whoever is registered to look up.

The relay verifies what is published, so that nobody lists another node, and vouches for nothing: whoever looks verifies
it again, and judges the credentials beside it. It may hide what it has, and cannot make anything up.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

import attrs
import trio

from autonomy_trio.errors import ProtocolError
from autonomy_trio.fabric.links.buckets import TokenBucket
from autonomy_trio.logs import get_log
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.wire.constants import RECORDS
from autonomy_trio.wire.directory import Found, verify_listing
from autonomy_trio.wire.frames import Listing, Lookup, Publish, Records, encode_frame

MOST_LISTED: Final = 4096
"""Nodes that are listed; one more is not, until another one's record has expired."""

MOST_BYTES: Final = 32 * 1024 * 1024
"""Bytes of their records and credentials."""

ANSWER_BYTES: Final = 192 * 1024
"""Bytes of one answer: it fits a message of the relay."""

PUBLISHING: Final = (0.2, 8.0)
"""Records a second from one node, and at once: each costs signature checks. More are ignored."""

LOOKING: Final = (4.0, 32.0)
"""Lookups a second from one node, and at once. More are answered with nothing, and the word that there is more."""

MOST_COUNTED: Final = 20_000
"""Nodes whose requests are counted."""

MOST_BUNDLES: Final = 20_000
"""Nodes whose bundles are kept; past them the one that registered longest ago goes."""

MOST_BUNDLE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of their bundles."""

_log = get_log()


@attrs.frozen
class _Listed:
    listing: Listing
    found: Found
    size: int
    agents: frozenset[str]
    messages: frozenset[str]

    def fits(self, asked: Lookup, now: float) -> bool:
        return (
            now < self.found.record.expires
            and asked.node in {None, self.found.record.node}
            and (asked.agent is None or asked.agent in self.agents)
            and (asked.message is None or asked.message in self.messages)
        )


@final
@attrs.define(eq=False)
class Directory:
    """The newest record of each node that has published one, and the bundle of each that has registered.

    A bundle is told to who asks for its node by its identifier, for as long as it counts, so that something can be
    sealed for a node that is away and was never met.
    """

    _now: Callable[[], float]
    """Unix seconds."""
    _on_listed: Callable[[Listing, Found], None] = lambda _, found: None  # noqa: ARG005 - the shape of the call
    """Takes what a node that is registered here has published."""
    _listed: dict[bytes, _Listed] = attrs.field(factory=dict[bytes, _Listed])
    _bytes: int = 0
    _bundles: OrderedDict[bytes, Bundle] = attrs.field(factory=OrderedDict[bytes, Bundle])
    _bundle_bytes: int = 0
    _buckets: dict[tuple[bytes, type], TokenBucket] = attrs.field(factory=dict[tuple[bytes, type], TokenBucket])

    def __len__(self) -> int:
        return len(self._listed)

    def note(self, bundle: Bundle) -> None:
        """Keep the bundle that a node has registered with."""
        self._drop_bundle(bundle.identifier)
        self._bundles[bundle.identifier] = bundle
        self._bundle_bytes += len(bundle.encoded)
        while len(self._bundles) > MOST_BUNDLES or self._bundle_bytes > MOST_BUNDLE_BYTES:
            self._drop_bundle(next(iter(self._bundles)))

    def _drop_bundle(self, node: bytes) -> None:
        gone = self._bundles.pop(node, None)
        self._bundle_bytes -= 0 if gone is None else len(gone.encoded)

    def knows(self, node: bytes) -> bool:
        """Tell whether a node's bundle is kept, and counts."""
        bundle = self._bundles.get(node)
        return bundle is not None and self._now() < bundle.expires

    def take(self, node: bytes, frame: Publish | Lookup) -> Records | None:
        """Do what a registered node asks for, and return the answer to a lookup."""
        is_allowed = self._may(node, type(frame))
        if isinstance(frame, Lookup):
            return self._look_up(frame) if is_allowed else Records(frame.request, (), more=True)
        if is_allowed and (found := self._verified(frame.listing, node)) is not None:
            self._list(frame.listing, found)
            self._on_listed(frame.listing, found)
        return None

    def learn(self, listing: Listing) -> None:
        """List what a node has published at another relay, if it holds."""
        found = self._verified(listing, None)
        if found is not None:
            self._list(listing, found)

    def _verified(self, listing: Listing, node: bytes | None) -> Found | None:
        """Return a record that holds and is new; None for another, or one of another node than `node`."""
        try:
            found = verify_listing(listing, self._now())
        except ProtocolError as error:
            # Nothing is ended for it: a clock that is wrong is no attack.
            _log.debug("record not listed", node=None if node is None else format_identifier(node), why=str(error))
            return None
        known = self._listed.get(found.record.node)
        if node not in {None, found.record.node} or (known is not None and not found.replaces(known.found)):
            name = format_identifier(found.record.node)
            _log.debug("record not listed: of another node, or older than the one that is", node=name)
            return None
        return found

    def _list(self, listing: Listing, found: Found) -> None:
        node, agents = found.record.node, found.record.agents
        listed = _Listed(
            listing,
            found,
            len(encode_frame(Publish(listing))),
            frozenset(each.name for each in agents),
            frozenset(message.name for each in agents for message in each.messages),
        )
        self._remove(node)
        if not self._has_room(listed):
            for each in [each for each, one in self._listed.items() if self._now() >= one.found.record.expires]:
                self._remove(each)
        if not self._has_room(listed):
            name = format_identifier(node)
            _log.warning("record not listed: the directory is full", node=name, listed=len(self._listed))
        elif agents:
            self._listed[node] = listed
            self._bytes += listed.size

    def _has_room(self, listed: _Listed) -> bool:
        return len(self._listed) < MOST_LISTED and self._bytes + listed.size <= MOST_BYTES

    def _remove(self, node: bytes) -> None:
        gone = self._listed.pop(node, None)
        self._bytes -= 0 if gone is None else gone.size

    def _look_up(self, asked: Lookup) -> Records:
        now, size = self._now(), 0
        listings: list[Listing] = []
        for each in self._listed.values():
            if not each.fits(asked, now):
                continue
            size += each.size
            if len(listings) >= RECORDS or size > ANSWER_BYTES:
                return Records(asked.request, tuple(listings), more=True)
            listings.append(each.listing)
        bundle = None if asked.node is None else self._bundles.get(asked.node)
        is_known = bundle is not None and now < bundle.expires
        return Records(
            asked.request, tuple(listings), more=False, bundle=bundle.encoded if bundle and is_known else None
        )

    def _may(self, node: bytes, kind: type) -> bool:
        ticks = trio.current_time()
        bucket = self._buckets.get((node, kind))
        if bucket is None:
            if len(self._buckets) >= MOST_COUNTED:
                self._buckets = {key: each for key, each in self._buckets.items() if not each.is_full(ticks)}
            if len(self._buckets) >= MOST_COUNTED:
                return False
            bucket = self._buckets[node, kind] = TokenBucket(*(PUBLISHING if kind is Publish else LOOKING))
        return bucket.try_take(1, ticks)
