"""The mailboxes of a relay: it stores sealed envelopes for nodes, and hands them over when these come for them.

STORED is said when the store has an envelope, and it is forgotten when its destination says ACK, or when it expires.
What was handed over and is not acknowledged comes again on the next connection.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, final

import attrs
import trio

from autonomy_trio.errors import ProtocolError
from autonomy_trio.fabric.links.link import Outbox
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.fabric.stores.store import Envelope, Store
from autonomy_trio.logs import get_log
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.wire import frames
from autonomy_trio.wire.constants import UNACKNOWLEDGED
from autonomy_trio.wire.frames import Ack, Deliver, Fetch, Stored, encode_frame, join_frames
from autonomy_trio.wire.mailbox import Connection, stored_id, verify_ack, verify_fetch
from autonomy_trio.wire.packets import read_sealed

MOST_UNSTORED_BYTES: Final = 4 * 1024 * 1024
"""Bytes of envelopes from one node that wait to be stored."""

MOST_UNFORGOTTEN: Final = 4 * UNACKNOWLEDGED
"""Acknowledged envelopes of one node that wait to be forgotten; what is acknowledged past them comes again."""

STORED_TOGETHER: Final = 256
"""Envelopes of one node that are stored together."""

HELD_UP: Final = 60.0
"""Seconds after which an envelope that is not acknowledged does not keep others back any more."""

STORE_PAUSE: Final = 1.0
"""Seconds before a store that failed is asked again."""

_log = get_log()


@final
@attrs.define(eq=False)
class Desk:
    """What one connected node stores for others, and fetches; its tasks begin with the first of each."""

    _node: Bundle
    _connection: Connection
    _outbox: Outbox
    _mailboxes: "Mailboxes"
    _nursery: trio.Nursery
    _sequence: int = -1
    """Of the last FETCH or ACK."""
    _unstored: deque[Envelope] = attrs.field(factory=deque[Envelope])
    _unstored_bytes: int = 0
    _stores: bool = False
    _unacknowledged: int = 0
    """How many envelopes the node takes at once; 0 before it fetches."""
    _handed: dict[bytes, float] = attrs.field(factory=dict[bytes, float])
    """What was handed over and is not acknowledged, and when that was on trio's clock, the oldest first."""
    _unforgotten: deque[bytes] = attrs.field(factory=deque[bytes])
    _came: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _fetched: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _after: int = 0
    """The place of the last envelope that was handed over."""
    _has_more: bool = True

    def take(self, frame: frames.Frame, encoded: bytes) -> None:
        """Take a frame of the node that is about mailboxes; never waits.

        Raises:
            ProtocolError: it is about something else, holds no sealed envelope, is not signed for this connection, or
                came again.
        """
        match frame:
            case frames.Store():
                self._store(frame)
            case Fetch():
                self._fetch(encoded)
            case Ack():
                self._acknowledge(encoded)
            case _:
                raise ProtocolError(f"a registered node sends no {type(frame).__name__.upper()}")

    def refuse(self, frame: frames.Store, why: str) -> None:
        """Say why an envelope is not stored."""
        self._say(Stored(stored_id(frame.packet), why))

    def notice(self) -> None:
        """Look for something new in the node's mailbox."""
        self._has_more = True
        self._fetched.unpark_all()

    def close(self) -> None:
        """Be gone, with the connection."""
        desks = self._mailboxes.desks
        if desks.get(self._node.identifier) is self:
            del desks[self._node.identifier]

    def _store(self, frame: frames.Store) -> None:
        read_sealed(frame.packet)
        identifier = stored_id(frame.packet)
        mailboxes = self._mailboxes
        if mailboxes.store is None:
            self._say(Stored(identifier, "no store"))
            return
        if self._unstored_bytes + len(frame.packet) > MOST_UNSTORED_BYTES:
            self._say(Stored(identifier, "overloaded"))
            return
        expires = int(mailboxes.now()) + frame.time_to_live
        self._unstored.append(Envelope(identifier, frame.destination, self._node.identifier, expires, frame.packet))
        self._unstored_bytes += len(frame.packet)
        if not self._stores:
            self._stores = True
            self._nursery.start_soon(self._keep_storing, mailboxes.store)
        self._came.unpark_all()

    def _fetch(self, encoded: bytes) -> None:
        """Begin to hand over what is stored for the node, from its beginning."""
        fetch: Fetch = verify_fetch(encoded, self._connection, self._node, self._sequence)
        self._sequence = fetch.sequence
        store = self._mailboxes.store
        if store is None:
            return
        begins, self._unacknowledged = not self._unacknowledged, fetch.unacknowledged
        self._handed.clear()
        self._after, self._has_more = 0, True
        if begins:
            self._nursery.start_soon(self._keep_handing_over, store)
            self._nursery.start_soon(self._keep_forgetting, store)
            self._mailboxes.desks[self._node.identifier] = self
        self._fetched.unpark_all()

    def _acknowledge(self, encoded: bytes) -> None:
        ack: Ack = verify_ack(encoded, self._connection, self._node, self._sequence)
        self._sequence = ack.sequence
        if not self._unacknowledged:
            return
        for identifier in ack.ids:
            self._handed.pop(identifier, None)
            if len(self._unforgotten) < MOST_UNFORGOTTEN:
                self._unforgotten.append(identifier)
        self._fetched.unpark_all()

    def _say(self, frame: Stored) -> None:
        self._mailboxes.count(frame.refusal)
        if not self._outbox.put(join_frames([encode_frame(frame)])):
            _log.debug("answer dropped: its reader is slow", node=format_identifier(self._node.identifier))

    async def _say_patiently(self, frame: Stored | Deliver) -> None:
        encoded = join_frames([encode_frame(frame)])
        while not self._outbox.put(encoded):
            await self._outbox.wait_room()

    async def _keep_storing(self, store: Store) -> None:
        while True:
            while not self._unstored:
                await self._came.park()
            batch = [self._unstored.popleft() for _ in range(min(len(self._unstored), STORED_TOGETHER))]
            self._unstored_bytes -= sum(len(envelope.packet) for envelope in batch)
            refusals = await store.put(batch)
            for envelope, refusal in zip(batch, refusals, strict=True):
                self._mailboxes.count(refusal)
                if refusal is None:
                    self._mailboxes.notice(envelope.destination)
                await self._say_patiently(Stored(envelope.id, refusal))

    async def _keep_handing_over(self, store: Store) -> None:
        while True:
            room = self._room()
            if not self._has_more or room <= 0:
                with trio.move_on_after(HELD_UP if self._has_more else float("inf")):
                    await self._fetched.park()
                continue
            self._has_more, after = False, self._after
            try:
                found = await store.read(self._node.identifier, after, room)
            except StoreFailed as error:
                _log.warning("mailbox not read", node=format_identifier(self._node.identifier), why=str(error))
                self._has_more = True
                await trio.sleep(STORE_PAUSE)
                continue
            for place, envelope in found:
                if self._after != after:
                    break  # the node has fetched anew meanwhile, from the beginning
                self._after = after = place
                self._handed[envelope.id] = trio.current_time()
                self._has_more = True
                await self._say_patiently(Deliver(envelope.source, envelope.packet))

    def _room(self) -> int:
        """Return how many envelopes the node takes now."""
        held_up = trio.current_time() - HELD_UP
        for identifier, since in list(self._handed.items()):
            if since > held_up:
                break
            del self._handed[identifier]
        return self._unacknowledged - len(self._handed)

    async def _keep_forgetting(self, store: Store) -> None:
        while True:
            while not self._unforgotten:
                await self._fetched.park()
            ids = [self._unforgotten.popleft() for _ in range(len(self._unforgotten))]
            try:
                await store.forget(self._node.identifier, ids)
            except StoreFailed as error:
                # They come again on the next connection, whose node knows them and acknowledges them anew.
                _log.warning("envelopes not forgotten", count=len(ids), why=str(error))


@final
@attrs.define(eq=False)
class Mailboxes:
    """All mailboxes of a relay; without a store there are none, and who wants one is told so."""

    store: Store | None
    now: Callable[[], float]
    """Unix seconds."""
    desks: dict[bytes, Desk] = attrs.field(factory=dict[bytes, Desk])
    """Of the nodes that fetch."""
    stored: int = 0
    """Envelopes of which STORED was said."""
    refused: int = 0
    """Envelopes of which was said why they are not stored."""

    def notice(self, node: bytes | None) -> None:
        """Look for something new in the mailbox of a node, or of all that fetch."""
        for each in self.desks if node is None else [node]:
            if (desk := self.desks.get(each)) is not None:
                desk.notice()

    def count(self, refusal: str | None) -> None:
        """Count an answer to an envelope that was to be stored."""
        if refusal is None:
            self.stored += 1
        else:
            self.refused += 1

    def open_desk(self, node: Bundle, connection: Connection, outbox: Outbox, nursery: trio.Nursery) -> Desk:
        """Begin to serve a connection; its tasks run in the nursery."""
        return Desk(node, connection, outbox, self, nursery)
