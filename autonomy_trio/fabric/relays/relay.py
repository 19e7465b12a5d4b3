"""The relay: authenticates nodes, forwards packets between them by identifier, and understands nothing else.

It keeps no message of a session: what its destination does not take is refused or dropped, and said so to the sender.
With a store it keeps sealed envelopes for nodes that are away. One slow node never slows another: each has an outbox of
its own, bounded in bytes.
"""

import secrets
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, final

import attrs
import trio

from autonomy_trio.errors import IdentityError, LinkBroken, ProtocolError
from autonomy_trio.fabric.links.buckets import Places, TokenBucket
from autonomy_trio.fabric.links.link import FRAME_COST, PONG, Link, Listener, Outbox, attend, send_patiently
from autonomy_trio.fabric.relays.cluster import Cluster
from autonomy_trio.fabric.relays.directory import Directory
from autonomy_trio.fabric.relays.gate import Gate, Stay
from autonomy_trio.fabric.relays.mailboxes import Desk, Mailboxes
from autonomy_trio.fabric.relays.passing import OVERLOADED, UNKNOWN
from autonomy_trio.fabric.relays.policy import Guest, RelayPolicy
from autonomy_trio.fabric.stores.store import Store as EnvelopeStore
from autonomy_trio.fabric.stores.store import Usage
from autonomy_trio.logs import get_log
from autonomy_trio.trust.identity import Bundle, verify_bundle
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.watcher import Watcher
from autonomy_trio.wire.constants import KEY_BYTES
from autonomy_trio.wire.frames import (
    Deliver,
    Frame,
    Listing,
    Lookup,
    Nack,
    Parameters,
    Ping,
    Pong,
    Publish,
    RelayLimits,
    Send,
    Show,
    Store,
    decode_frame,
    encode_frame,
    join_frames,
    split_frames,
)
from autonomy_trio.wire.mailbox import Connection
from autonomy_trio.wire.registration import (
    make_hello,
    make_welcome,
    verify_register,
)

OUTBOX_BYTES: Final = 4 * 1024 * 1024
"""Bytes that wait for one node."""

DRAIN_LIMIT: Final = 1.0
"""Seconds in which what waits may leave before a relay ends with its node."""

MOST_CONNECTIONS: Final = 10_000
"""Connections at once."""

MOST_UNREGISTERED: Final = 1024
"""Connections at once that have not proven who they are yet."""

MOST_UNREGISTERED_EACH: Final = 256
"""Of these, from one address."""

REGISTRATIONS: Final = (50.0, 500.0)
"""Connections a second from one address, and at once."""

TRAFFIC: Final = (256e6, 256e6)
"""Bytes a second from one node, and at once, `FRAME_COST` for each frame among them; who sends more is read slower."""

MOST_ADDRESSES: Final = 10_000
"""Addresses whose connections are counted."""

_log = get_log()


@attrs.frozen
class RelayStatistics:
    """What a relay has done and holds."""

    nodes: int
    """Nodes that are registered now."""
    connections: int
    """Connections open now."""
    forwarded: int
    """Packets put into a destination's outbox."""
    refused: int
    """Packets whose destination was away or full."""
    turned_away: int
    """Connections refused because there were too many, in all or from their address."""
    waiting_bytes: int
    """Bytes in all outboxes, `FRAME_COST` for each frame among them."""
    draining: bool
    """Whether it lets nobody in any more."""
    passed: int
    """Packets that went to other relays of the cluster."""
    stored: int
    """Sealed envelopes of which STORED was said."""
    not_stored: int
    """Sealed envelopes of which was said why they are not stored."""
    kept: int
    """Sealed envelopes in the store, of all relays of a cluster; this and what follows may be some seconds old."""
    kept_bytes: int
    """Bytes they count for."""
    oldest_age: float
    """Seconds for which the oldest of them has waited; 0 where there is none."""


@attrs.frozen
class _Registration:
    """What a node has proven, and is to be told."""

    bundle: Bundle
    connection: Connection
    welcome: bytes
    guest: Guest


@attrs.define(eq=False)
class _Member:
    """A registered node's connection."""

    identifier: bytes
    link: Link
    outbox: Outbox
    scope: trio.CancelScope
    desk: Desk
    stay: Stay


@final
@attrs.define(eq=False)
class Relay:
    """Forwards packets between the nodes that are registered with it.

    Args:
        vault: the relay's identity, which `serve` proves to the nodes.
        outbox_bytes: bytes that may wait for one node.
        now: Unix seconds.
        store: where sealed envelopes are kept for nodes that are away; without one they are refused.
        cluster: the other relays that keep theirs there.
        policy: who may register; without one, any node.
    """

    _vault: Vault
    _outbox_bytes: int = OUTBOX_BYTES
    _now: Callable[[], float] = attrs.field(default=time.time, alias="now")
    _store: EnvelopeStore | None = attrs.field(default=None, alias="store")
    _cluster: Cluster | None = attrs.field(default=None, alias="cluster")
    _policy: RelayPolicy | None = attrs.field(default=None, alias="policy")
    _limits: RelayLimits = attrs.field(factory=RelayLimits)
    _parameters: Parameters = attrs.field(factory=Parameters)
    _gate: Gate = attrs.field(init=False)
    _mailboxes: Mailboxes = attrs.field(init=False)
    _members: dict[bytes, _Member] = attrs.field(factory=dict[bytes, _Member], init=False)
    _arrivals: dict[str, TokenBucket] = attrs.field(factory=dict[str, TokenBucket], init=False)
    _unregistered: Places = attrs.field(factory=lambda: Places(MOST_UNREGISTERED, MOST_UNREGISTERED_EACH), init=False)
    _watcher: Watcher = attrs.field(factory=Watcher, init=False)
    _directory: Directory = attrs.field(init=False)
    _connections: int = attrs.field(default=0, init=False)
    _turned_away: int = attrs.field(default=0, init=False)
    _forwarded: int = attrs.field(default=0, init=False)
    _refused: int = attrs.field(default=0, init=False)
    _draining: bool = attrs.field(default=False, init=False)
    _unflushed: set[Outbox] = attrs.field(factory=set[Outbox], init=False)
    """To where something was put since the message that is taken began."""
    _left: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self._gate = Gate(self._policy, self._vault.identifier, self._now)
        self._mailboxes = Mailboxes(self._store, self._now)
        if self._cluster is None:
            self._directory = Directory(self._now)
        else:
            self._directory = Directory(self._now, self._cluster.publish)
            self._cluster.join(self)

    async def obey_lists(self, folder: Path) -> None:
        """Obey the revocation lists in a folder, and those that come into it, until cancelled."""
        await self._gate.obey_lists(folder)

    async def serve(self, listener: Listener) -> None:
        """Serve every link that a listener accepts, until cancelled."""
        await listener.serve(self.serve_link)

    def statistics(self) -> RelayStatistics:
        """Return what this relay has done and holds."""
        kept = Usage() if self._store is None else self._store.usage()
        return RelayStatistics(
            nodes=len(self._members),
            connections=self._connections,
            forwarded=self._forwarded,
            refused=self._refused,
            turned_away=self._turned_away,
            waiting_bytes=sum(member.outbox.size for member in self._members.values()),
            draining=self._draining,
            passed=0 if self._cluster is None else self._cluster.passed,
            stored=self._mailboxes.stored,
            not_stored=self._mailboxes.refused,
            kept=kept.envelopes,
            kept_bytes=kept.bytes,
            oldest_age=0.0 if kept.oldest is None else max(0.0, self._now() - kept.oldest),
        )

    @property
    def attached(self) -> Collection[bytes]:
        """See `cluster.Here.attached`."""
        return self._members.keys()

    def deliver(self, source: bytes, destination: bytes, packet: bytes) -> str | None:
        """See `cluster.Here.deliver`."""
        member = self._members.get(destination)
        if member is None:
            return UNKNOWN
        if not member.outbox.put(join_frames([encode_frame(Deliver(source, packet))])):
            return OVERLOADED
        self._forwarded += 1
        return None

    def returned(self, source: bytes, destination: bytes, reason: str) -> None:
        """See `cluster.Here.returned`."""
        self._refused += 1
        member = self._members.get(source)
        if member is not None:
            member.outbox.put(join_frames([encode_frame(Nack(reason, destination))]))

    def learn(self, listing: Listing) -> None:
        """See `cluster.Here.learn`."""
        self._directory.learn(listing)

    def meet(self, encoded: bytes) -> None:
        """See `cluster.Here.meet`."""
        with suppress(IdentityError):
            self._directory.note(verify_bundle(encoded, self._now()))

    def notice(self, node: bytes | None) -> None:
        """See `cluster.Here.notice`."""
        self._mailboxes.notice(node)

    def register_anew(self) -> None:
        """Have every node register again, since its policy has changed; sessions between nodes go on."""
        for member in list(self._members.values()):
            member.scope.cancel()

    async def drain(self, last: bytes | None = None) -> None:
        """Let nobody in any more; return when what waits is sent, or `DRAIN_LIMIT` seconds have passed.

        Args:
            last: a node that is waited for to leave first.
        """
        self._draining = True
        with trio.move_on_after(DRAIN_LIMIT):
            while last is not None and last in self._members:
                await self._left.park()
            for member in list(self._members.values()):
                await member.outbox.wait_empty()

    async def serve_link(self, link: Link) -> None:
        """Serve one connection until it ends, and its listener closes it; what its peer does wrong ends no other."""
        if self._draining or not self._admit(link.remote):
            self._turned_away += 1
            _log.debug("connection refused: too many, or too late", address=link.remote, connections=self._connections)
            return
        self._connections += 1
        try:
            registration = await self._register(link)
            await self._attend(link, registration)
        except LinkBroken as error:
            _log.debug("connection ended", address=link.remote, reason=str(error))
        except ProtocolError as error:
            _log.warning("connection ended: it broke the protocol", address=link.remote, reason=str(error))
        finally:
            self._connections -= 1

    def _admit(self, address: str) -> bool:
        if self._connections >= MOST_CONNECTIONS:
            return False
        ticks = trio.current_time()
        bucket = self._arrivals.get(address)
        if bucket is None:
            if len(self._arrivals) >= MOST_ADDRESSES:
                self._arrivals = {known: each for known, each in self._arrivals.items() if not each.is_full(ticks)}
            if len(self._arrivals) >= MOST_ADDRESSES:
                return False
            bucket = self._arrivals[address] = TokenBucket(*REGISTRATIONS)
        return bucket.try_take(1, ticks) and self._unregistered.try_take(address)

    async def _register(self, link: Link) -> _Registration:
        """Let a node prove who it is; return that, and the welcome it is to get.

        Raises:
            LinkBroken, ProtocolError: it left, took too long, or did not prove what it must.
        """
        try:
            with trio.move_on_after(self._limits.register_within):
                nonce = secrets.token_bytes(KEY_BYTES)
                hello = make_hello(self._vault, nonce, self._gate.issuers, self._now())
                await link.send(join_frames([hello]))
                register = _only(split_frames(await link.receive()))
                answer, bundle = verify_register(register, hello, self._now())
                # A key that was rotated away must not take the place of the one that followed it.
                try:
                    self._watcher.see(bundle.history)
                except IdentityError as error:
                    raise ProtocolError(str(error)) from None
                guest = self._gate.admit(bundle, answer.presentations)
                welcome = make_welcome(self._vault, hello, register, self._parameters)
                return _Registration(bundle, Connection(nonce, answer.nonce), welcome, guest)
        finally:
            self._unregistered.free(link.remote)
        raise LinkBroken(f"it did not register in {self._limits.register_within} s")

    async def _attend(self, link: Link, registration: _Registration) -> None:
        """Forward for one node until its connection ends, or a newer one registers its identity.

        Raises:
            LinkBroken, ProtocolError: how the connection ended.
        """
        failure: LinkBroken | ProtocolError | None = None
        bundle, identifier = registration.bundle, registration.bundle.identifier
        self._directory.note(bundle)
        async with trio.open_nursery() as nursery:
            outbox = Outbox(self._outbox_bytes)
            desk = self._mailboxes.open_desk(bundle, registration.connection, outbox, nursery)
            member = _Member(identifier, link, outbox, nursery.cancel_scope, desk, Stay(registration.guest))
            earlier = self._members.get(identifier)
            if earlier is not None:
                earlier.scope.cancel()
            # Before the welcome leaves: who has it may tell others at once that it can be reached.
            self._members[identifier] = member
            if self._cluster is not None:
                self._cluster.attach(bundle)
            _log.debug("node attached", node=format_identifier(identifier), address=link.remote)
            try:
                nursery.start_soon(self._write, member, registration.welcome)
                with self._gate.inside(member.stay):
                    await self._read(member)
            except (LinkBroken, ProtocolError) as error:
                failure = error
            finally:
                desk.close()
                if self._members.get(identifier) is member:
                    del self._members[identifier]
                    if self._cluster is not None:
                        self._cluster.detach(identifier)
                    self._left.unpark_all()
                    _log.debug("node detached", node=format_identifier(identifier), address=link.remote)
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _write(self, member: _Member, welcome: bytes) -> None:
        try:
            if self._cluster is not None:
                await self._cluster.announced(member.identifier)
            await send_patiently(member.link, join_frames([welcome]))
            await member.outbox.write_to(member.link)
        except LinkBroken as error:
            # The reader sees the end too, after what the node sent before it left.
            _log.debug("nothing more can be sent", address=member.link.remote, reason=str(error))

    async def _read(self, member: _Member) -> None:
        traffic = TokenBucket(*TRAFFIC)

        def take(message: bytes) -> float:
            frames = split_frames(message)
            try:
                for encoded in frames:
                    self._take(member, decode_frame(encoded), encoded)
            finally:
                # What came together for one destination leaves together, and without waking its writer.
                while self._unflushed:
                    self._unflushed.pop().flush()
            return traffic.take(len(message) + FRAME_COST * len(frames), trio.current_time())

        await attend(
            member.link,
            member.outbox,
            take,
            ping_after=self._parameters.ping_after,
            gone_after=self._parameters.gone_after,
        )

    def _take(self, member: _Member, frame: Frame, encoded: bytes) -> None:
        match frame:
            case Send():
                self._forward(member, frame)
            case Ping():
                member.outbox.put_urgent(PONG)
            case Pong():
                pass
            case Show():
                self._gate.show(member.stay, frame.presentations)
            case Store() if not self._gate.may_store(member.stay, frame.destination):
                member.desk.refuse(frame, "denied")
            case Publish() if not self._gate.may_publish(member.stay):
                _log.debug("record not listed: its node may not publish", node=format_identifier(member.identifier))
            case Lookup(node=bytes() as node) if self._cluster is not None and not self._directory.knows(node):
                self._cluster.fetch_bundle(node, partial(self._consult, member, frame))
            case Publish() | Lookup():
                self._consult(member, frame)
            case _:
                member.desk.take(frame, encoded)

    def _consult(self, member: _Member, frame: Publish | Lookup) -> None:
        if (answer := self._directory.take(member.identifier, frame)) is not None:
            member.outbox.put(join_frames([encode_frame(answer)]))

    def _forward(self, sender: _Member, frame: Send) -> None:
        destination = self._members.get(frame.destination)
        if destination is None:
            cluster = self._cluster
            reason = UNKNOWN if cluster is None else cluster.forward(sender.identifier, frame.destination, frame.packet)
        elif destination.outbox.add(join_frames([encode_frame(Deliver(sender.identifier, frame.packet))])):
            self._unflushed.add(destination.outbox)
            self._forwarded += 1
            return
        else:
            reason = OVERLOADED
        if reason is not None:
            self.returned(sender.identifier, frame.destination, reason)


def _only(frames: list[bytes]) -> bytes:
    if len(frames) != 1:
        raise ProtocolError("a node registers with one frame and waits for WELCOME")
    return frames[0]
