"""The endpoint: all sessions and handshakes of one node, as a machine that does no I/O and reads no clock.

Bytes, calls and times go in; events come out of `take`. What a stranger sends is refused or changes nothing until it
has authenticated itself, and everything kept for strangers is counted and short-lived.

Two nodes may open sessions to each other at once. Both handshakes finish; each end sends on the session it confirmed
last and receives on all, and the two need not agree. A responder confirms a session with XX3. An initiator confirms it
with the responder's first packet, and sends nothing on it before. That packet, and every other of the responder until
it hears something on the session, begins with the responder's credentials; so whichever arrives first has them.

When something is owed between two nodes, each hears from the other every few seconds, and silence has a meaning: first
a new handshake is tried, then the peer is gone. When nothing is owed, nothing is sent and sessions are left to end.
Then silence says nothing: the peer may have restarted, or be gone. So after it a message waits for a new handshake
rather than be lost on a session that only this node remembers.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import final

import nacl.utils
from attrs import frozen

from autonomy_trio.errors import HandshakeFailed, NotDelivered, ProtocolError, UsageError
from autonomy_trio.trust.identity import History
from autonomy_trio.trust.key_service import KeyService
from autonomy_trio.trust.records import digest, format_identifier
from autonomy_trio.wire.constants import (
    BATCH_BYTES,
    BOOT_BYTES,
    CONFIRM_SPACING,
    DATA,
    PEERS,
    REJECT,
    SEALED,
    XX1,
    XX2,
    XX3,
)
from autonomy_trio.wire.entries import Entry, Presentations, entry_size
from autonomy_trio.wire.events import Event, Received, Refused, Transmit
from autonomy_trio.wire.handshake import Own, Responder
from autonomy_trio.wire.hearing import Moment, hear
from autonomy_trio.wire.introductions import NOBODY, Speaker
from autonomy_trio.wire.noise import Random
from autonomy_trio.wire.packets import make_reject, packet_kind, read_data_header, read_handshake, read_reject
from autonomy_trio.wire.peers import Channel, Peer
from autonomy_trio.wire.roster import Roster
from autonomy_trio.wire.tables import Pending


@frozen
class EndpointStatistics:
    """How full an endpoint is."""

    peers: int
    """Peers with a session or a handshake."""
    sessions: int
    """Sessions that receive, confirmed or not."""
    openings: int
    """Handshakes begun here."""
    pending: int
    """Handshakes of strangers."""
    timers: int
    """Times set, those that no longer matter among them."""


@final
class Endpoint:
    """All sessions of one node.

    Args:
        vault: the node's identity and keys.
        boot: 16 bytes that are new each time the node starts; peers end what they had open with an earlier one.
        presentations: returns the credentials to show, the most important first; called when a session begins.
        see: called with the history that a peer has proven to be its own, this node's own included; raises
            `TrustError` for one that may not count.
        random: the system's source of secret bytes, unless a test replaces it.
    """

    def __init__(
        self,
        vault: KeyService,
        *,
        boot: bytes,
        presentations: Callable[[], Sequence[bytes]],
        see: Callable[[History], None] = lambda _: None,
        random: Random = nacl.utils.random,
    ) -> None:
        if len(boot) != BOOT_BYTES:
            raise ValueError(f"a boot has {BOOT_BYTES} bytes, not {len(boot)}")
        self._own = Own(vault, boot, random, see)
        self._events: list[Event] = []
        self._roster = Roster(self._own, presentations, self._events)
        self._receivers: dict[int, Callable[[bytes, Hashable, float, float], None]] = {
            XX1: self._receive_first,
            XX2: self._receive_second,
            XX3: self._receive_third,
            DATA: self._receive_data,
            SEALED: self._receive_sealed,
            REJECT: self._receive_reject,
        }

    def connect(self, peer: bytes, now: float, ticks: float) -> None:
        """See to it that a node is ready to be sent to: unless it is, a handshake begins or one that runs is awaited.

        `Established` or `GaveUp` follows within 5 s, unless the node is ready already.

        Args:
            peer: its identifier.
            now: Unix seconds.
            ticks: monotonic seconds.

        Raises:
            UsageError: the peer is this node itself.
        """
        if peer == self._own.vault.identifier:
            raise UsageError(f"{format_identifier(peer)} is this node itself: it needs no session")
        state = self._roster.get_or_add(peer)
        if state.usable(now, ticks) is None:
            state.is_awaited = True
            if state.opening is None:
                self._roster.open(state, ticks)
        self._roster.timers.set(state)

    def is_ready(self, peer: bytes, now: float, ticks: float) -> bool:
        """Tell whether a confirmed session stands to send on, with a peer that was heard in the last 15 s.

        Args:
            peer: its identifier.
            now: Unix seconds.
            ticks: monotonic seconds.
        """
        state = self._roster.get(peer)
        return state is not None and state.usable(now, ticks) is not None

    def send(
        self,
        peer: bytes,
        entries: Sequence[Entry],
        now: float,
        ticks: float,
        speakers: Mapping[int, Speaker] = NOBODY,
    ) -> None:
        """Seal one envelope, and introductions of the agents that speak in it where the peer may not know them yet.

        Args:
            peer: the identifier of a peer that is ready.
            entries: what `next_batch` took.
            now: Unix seconds.
            ticks: monotonic seconds.
            speakers: the agents that speak, by the position of their entry; all others are the node's own.

        Raises:
            NotDelivered: no session stands to send on, or the peer is silent; `connect` first. Nothing was sent.
            MessageError: the entries are too large for one envelope. Nothing was sent.
        """
        state = self._roster.get(peer)
        channel = state.usable(now, ticks) if state is not None else None
        if state is None or channel is None:
            raise NotDelivered(f"no session with {format_identifier(peer)} stands to send on: open one")
        riding, addressed = channel.introducing.address(entries, speakers) if speakers else ((), entries)
        if riding and sum(map(entry_size, (*riding, *addressed))) > BATCH_BYTES:
            self._roster.introduce(state, channel, riding, ticks)
            riding = ()
        self._roster.seal(state, channel, (*riding, *addressed), ticks)
        self._roster.timers.set(state)

    def receive(self, packet: bytes, path: Hashable, now: float, ticks: float) -> None:
        """Take a packet from a stranger. What is wrong with it becomes an event; nothing is raised for it.

        Args:
            packet: the bytes.
            path: where they came from, and where an answer would go.
            now: Unix seconds.
            ticks: monotonic seconds.
        """
        try:
            self._receivers[packet_kind(packet)](packet, path, now, ticks)
        except HandshakeFailed as error:
            self._events.append(Refused(path, error.why))
        except ProtocolError as error:
            self._events.append(Refused(path, str(error)))

    def expect(self, peer: bytes, waiting: bool, ticks: float) -> None:
        """Say whether something is owed between this node and a peer, so that its loss must be noticed.

        Args:
            peer: its identifier; it need not be connected, and what is said here stays until it is taken back.
            waiting: whether anything is open, here or there.
            ticks: monotonic seconds.
        """
        self._roster.expect(peer, ticks, waiting=waiting)

    def close(self, peer: bytes | None = None, reason: str = "closed") -> None:
        """End all sessions and handshakes with one peer, or with every peer, and tell them; no event of theirs follows.

        Args:
            peer: its identifier; None for every peer.
            reason: what to tell, in words.
        """
        for state in self._roster:
            if peer in (None, state.identifier):
                self._roster.close(state, reason)

    def next_deadline(self) -> float:
        """Return the ticks by which `handle_timer` must be called; infinity when nothing is ever due."""
        return min(self._roster.timers.next_deadline(), self._roster.pending.next_expiry())

    def handle_timer(self, now: float, ticks: float) -> None:  # noqa: ARG002  every call that acts is told both times
        """Do what is due; calling it too early does nothing.

        Args:
            now: Unix seconds.
            ticks: monotonic seconds.
        """
        self._roster.pending.expire(ticks)
        for due, identifier in self._roster.timers.take_due(ticks):
            self._roster.check(identifier, due, ticks)

    def take(self) -> list[Event]:
        """Return what happened since the last call, in order."""
        events = self._events.copy()
        self._events.clear()
        return events

    def statistics(self) -> EndpointStatistics:
        """Return how full this endpoint is."""
        return EndpointStatistics(
            peers=len(self._roster),
            sessions=len(self._roster.channels),
            openings=len(self._roster.openings),
            pending=len(self._roster.pending),
            timers=len(self._roster.timers),
        )

    def _receive_first(self, packet: bytes, path: Hashable, now: float, ticks: float) -> None:
        first = read_handshake(packet)
        pending = self._roster.pending.begun_by(packet)
        if pending is None:
            self._roster.pending.check_room(path)
            index = self._roster.new_index()
            handshake = Responder(self._own, first, index, now)
            pending = Pending(handshake, index, packet, path, ticks)
            self._roster.pending.add(pending)
        self._events.append(Transmit(path, None, pending.handshake.packet))

    def _receive_second(self, packet: bytes, path: Hashable, now: float, ticks: float) -> None:
        second = read_handshake(packet)
        state = self._roster.openings.get(second.receiver)
        if state is None or state.opening is None:
            raise ProtocolError("an answer to no handshake of this node")
        opening = state.opening
        if opening.channel is None:
            try:
                session, third = opening.handshake.finish(second, self._roster.shown().presentations, now)
            except HandshakeFailed as error:
                opening.trouble = error.why
                raise
            self._roster.channels.add(opening.become(Channel(session, path, ticks, ticks), packet, third))
            self._roster.timers.set(state)
        elif packet != opening.second:
            raise ProtocolError("another answer to a handshake that was answered")
        self._events.append(Transmit(path, state.identifier, opening.packet))

    def _receive_third(self, packet: bytes, path: Hashable, now: float, ticks: float) -> None:
        third = read_handshake(packet)
        pending = self._roster.pending.at(third.receiver)
        if pending is None:
            self._receive_repeated_third(packet, third.receiver, ticks)
            return
        session = pending.handshake.finish(third, now)
        self._roster.pending.remove(pending)
        identifier = session.remote.bundle.identifier
        if self._roster.get(identifier) is None and len(self._roster) >= PEERS:
            raise HandshakeFailed(f"{PEERS} peers have sessions, and there is no room for another")
        state = self._roster.get_or_add(identifier)
        channel = Channel(session, path, ticks, pending.began, digest("h-body", packet))
        self._roster.confirm(state, channel, session.remote.presentations, ticks)
        self._roster.channels.add(channel)
        self._roster.greet(state, channel, ticks)
        self._roster.timers.set(state)

    def _receive_repeated_third(self, packet: bytes, index: int, ticks: float) -> None:
        channel = self._roster.channels.at(index)
        if channel is None or channel.third != digest("h-body", packet):
            raise ProtocolError("the end of no handshake of this node")
        if ticks >= channel.answered + CONFIRM_SPACING:
            self._roster.greet(self._roster.owner(channel), channel, ticks)

    def _receive_data(self, packet: bytes, path: Hashable, now: float, ticks: float) -> None:
        header = read_data_header(packet)
        channel = self._roster.channels.at(header.receiver)
        if channel is None:
            if not self._roster.has_index(header.receiver):
                self._events.append(Transmit(path, None, make_reject(header)))
            raise ProtocolError("a packet for no session of this node")
        session, state = channel.session, self._roster.owner(channel)
        if ticks >= channel.ends_at or now >= session.remote.bundle.expires:
            raise ProtocolError("a packet of a session, or of an attestation, that is over")
        plaintext = session.decrypt(header, packet)
        is_highest = header.counter > session.highest
        try:
            entries = session.accept(header, plaintext)
            if state.opening is not None and state.opening.channel is channel:
                entries = self._confirm(state, channel, entries, ticks)
        except ProtocolError as error:
            self._roster.end(state, channel, str(error))
            raise
        if is_highest:
            channel.path = path
        channel.third = None
        moment = Moment(now, ticks, header.counter < state.highest)
        state.highest = max(state.highest, header.counter)
        self._roster.note_heard(state, ticks)
        self._deliver(state, channel, entries, moment)

    def _confirm(self, state: Peer, channel: Channel, entries: list[Entry], ticks: float) -> list[Entry]:
        match entries:
            case [Presentations(presentations=presentations), *others]:
                self._roster.confirm(state, channel, presentations, ticks)
                state.owed_since = min(state.owed_since, ticks)
                return others
            case _:
                raise ProtocolError("a responder's first packet does not begin with its credentials")

    def _deliver(self, state: Peer, channel: Channel, entries: list[Entry], moment: Moment) -> None:
        heard = hear(state, channel, entries, moment)
        self._events += (Refused(channel.path, reason) for reason in heard.refused)
        if heard.is_owed:
            state.owed_since = min(state.owed_since, moment.ticks)
        if heard.entries:
            state.is_used = True
            self._events.append(Received(state.identifier, tuple(heard.entries), moment.is_late, heard.senders))
        if heard.closing is not None:
            ending = channel if moment.is_late else None
            self._roster.end(state, ending, f"the peer closed: {heard.closing.reason}")
            return
        answers = heard.answers()
        if answers and moment.ticks < channel.stops_sending_at:
            self._roster.answer(state, channel, answers, moment.ticks)
        self._roster.timers.set(state)

    def _receive_sealed(self, packet: bytes, path: Hashable, now: float, ticks: float) -> None:  # noqa: ARG002  as its like
        raise ProtocolError("a sealed envelope came through a session's door: it is opened by itself")

    def _receive_reject(self, packet: bytes, path: Hashable, now: float, ticks: float) -> None:  # noqa: ARG002  as its like
        header = read_reject(packet)
        sent = [
            channel
            for channel in self._roster.channels.towards(header.receiver)
            if channel.session.has_sent(header.counter)
        ]
        if not sent:
            raise ProtocolError("a reject of a packet that was not sent")
        for channel in sent:
            state = self._roster.owner(channel)
            if state.current is channel and ticks >= state.may_reopen_at():
                self._roster.reopen(state, ticks)
                self._roster.timers.set(state)
