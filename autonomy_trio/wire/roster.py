"""The roster: the peers of an endpoint, their sessions, and all that is done with them once they are authentic."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, final

from autonomy_trio.errors import ProtocolError
from autonomy_trio.wire.constants import (
    GONE_AFTER,
    HANDSHAKE_REPEAT,
    SESSIONS_PER_PEER,
    TEXT_CHARACTERS,
)
from autonomy_trio.wire.entries import Close, Entry, Introduce, Presentations, next_batch, shown_presentations
from autonomy_trio.wire.events import Established, Event, GaveUp, PeerGone, Refused, Transmit
from autonomy_trio.wire.handshake import Initiator, Own
from autonomy_trio.wire.peers import NEVER, Channel, Opening, Peer
from autonomy_trio.wire.tables import Channels, PendingHandshakes, Timers

_INDEX_BYTES: Final = 4


@final
class Roster:
    """The peers of a node, each with state only while a session or a handshake with it lives.

    Args:
        own: the node.
        presentations: returns the credentials to show.
        events: where what happens is appended.

    Attributes:
        channels: the sessions that receive, confirmed or not.
        openings: the peers with which this node runs a handshake, by the index it asked for.
        pending: handshakes that strangers began.
        timers: when which peer must be looked at.
    """

    def __init__(self, own: Own, presentations: Callable[[], Sequence[bytes]], events: list[Event]) -> None:
        self.channels: Final = Channels()
        self.openings: Final[dict[int, Peer]] = {}
        self.pending: Final = PendingHandshakes()
        self.timers: Final = Timers()
        self._own = own
        self._presentations = presentations
        self._events = events
        self._peers: dict[bytes, Peer] = {}
        self._expected: dict[bytes, float] = {}
        self._begun = 0

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._peers.values()))

    def get(self, identifier: bytes) -> Peer | None:
        """Return the peer of an identifier, if there is anything with it."""
        return self._peers.get(identifier)

    def get_or_add(self, identifier: bytes) -> Peer:
        """Return the peer of an identifier, which must get a session or a handshake at once."""
        peer = self._peers.get(identifier)
        if peer is None:
            peer = Peer(identifier, expected_since=self._expected.get(identifier, NEVER))
            self._peers[identifier] = peer
        return peer

    def owner(self, channel: Channel) -> Peer:
        """Return the peer of a session that receives."""
        return self._peers[channel.session.remote.bundle.identifier]

    def expect(self, identifier: bytes, ticks: float, *, waiting: bool) -> None:
        """Remember since when something is expected of a peer, whether or not there is anything with it yet."""
        if waiting is (identifier in self._expected):
            return
        if waiting:
            self._expected[identifier] = ticks
        else:
            del self._expected[identifier]
        peer = self._peers.get(identifier)
        if peer is not None:
            peer.expected_since = self._expected.get(identifier, NEVER)
            self.timers.set(peer)

    def shown(self) -> Presentations:
        """Return the credentials to show now."""
        presentations = self._presentations()
        shown = shown_presentations(presentations)
        left = len(presentations) - len(shown.presentations)
        if left:
            self._events.append(Refused(None, f"{left} credentials are too many or too large to be shown to a peer"))
        return shown

    def new_index(self) -> int:
        """Draw an index that nothing of this node has."""
        while True:
            index = int.from_bytes(self._own.random(_INDEX_BYTES), "big")
            if index and not self.has_index(index):
                return index

    def has_index(self, index: int) -> bool:
        """Tell whether a session or handshake of this node has an index."""
        return index in self.channels or index in self.openings or index in self.pending

    def open(self, peer: Peer, ticks: float) -> None:
        """Begin a handshake with a peer that has none running."""
        index = self.new_index()
        handshake = Initiator(self._own, peer.identifier, index)
        peer.opening = Opening(handshake, index, ticks, handshake.packet, ticks + HANDSHAKE_REPEAT)
        self.openings[index] = peer
        self._events.append(Transmit(None, peer.identifier, handshake.packet))

    def reopen(self, peer: Peer, ticks: float) -> None:
        """Begin a handshake of this node's own accord, when `Peer.may_reopen_at` has come."""
        peer.reopened = ticks
        self.open(peer, ticks)

    def confirm(self, peer: Peer, channel: Channel, presentations: tuple[bytes, ...], ticks: float) -> None:
        """Make a session the one to send on, now that both sides are known to have it.

        Raises:
            ProtocolError: the end of its handshake was held back until the peer's process had been followed by
                another. Of two processes the later is the one whose handshake began later: each was alive then.
        """
        remote = channel.session.remote
        restarted = peer.boot not in (None, remote.boot)
        if restarted and channel.began < peer.began:
            raise ProtocolError("a handshake with a process of the peer that another has followed")
        if restarted:
            self._drop_channels(peer)
            peer.highest = -1
            peer.owed_since = NEVER
        if peer.opening is not None and peer.opening.channel is channel:
            del self.openings[peer.opening.index]
            peer.opening = None
        peer.boot = remote.boot
        peer.began = max(peer.began, channel.began)
        peer.presentations = presentations
        peer.channels.append(channel)
        if len(peer.channels) > SESSIONS_PER_PEER:
            self._drop_channel(peer, peer.channels[0])
        peer.current = channel
        peer.is_used = False
        peer.is_awaited = False
        self.note_heard(peer, ticks)
        self._begun += 1
        channel.session.begin(self._begun)
        difference = remote.clock_difference
        self._events.append(
            Established(peer.identifier, remote.bundle, remote.boot, presentations, restarted, difference)
        )

    def note_heard(self, peer: Peer, ticks: float) -> None:
        """Note that a peer was heard: whatever of ours waited for that is answered."""
        peer.heard = ticks
        peer.unanswered_since = NEVER

    def seal(self, peer: Peer, channel: Channel, entries: Sequence[Entry], ticks: float) -> None:
        """Send an envelope, which may be empty."""
        self.answer(peer, channel, entries, ticks)
        if entries:
            peer.is_used = True
            peer.unanswered_since = min(peer.unanswered_since, ticks)

    def introduce(self, peer: Peer, channel: Channel, introductions: Sequence[Introduce], ticks: float) -> None:
        """Send introductions that do not fit beside the messages they are for."""
        waiting = deque[Entry](introductions)
        while waiting:
            self.seal(peer, channel, next_batch(waiting), ticks)

    def answer(self, peer: Peer, channel: Channel, entries: Sequence[Entry], ticks: float) -> None:
        """Send an envelope that waits for nothing; credentials ride ahead until the initiator is known to have them."""
        riding = (self.shown(),) if channel.third is not None else ()
        packet = channel.session.seal((*riding, *entries))
        peer.sent = ticks
        peer.owed_since = NEVER
        self._events.append(Transmit(channel.path, peer.identifier, packet))

    def greet(self, peer: Peer, channel: Channel, ticks: float) -> None:
        """Answer XX3 with the first packet of the session, or another like it."""
        channel.answered = ticks
        self.seal(peer, channel, (), ticks)

    def close(self, peer: Peer, reason: str) -> None:
        """Tell a peer that all is over, and forget it."""
        if peer.current is not None:
            packet = peer.current.session.seal((Close(reason[:TEXT_CHARACTERS]),))
            self._events.append(Transmit(peer.current.path, peer.identifier, packet))
        self._drop_opening(peer)
        self._drop_channels(peer)
        del self._peers[peer.identifier]

    def end(self, peer: Peer, channel: Channel | None, reason: str) -> None:
        """End one session with a peer, confirmed or not, or all that are confirmed; the peer is gone with the last."""
        if channel is None:
            self._drop_channels(peer)
        elif peer.opening is not None and peer.opening.channel is channel:
            peer.opening.trouble = reason
            self._give_up(peer, peer.opening)
        else:
            self._drop_channel(peer, channel)
        if not peer.channels:
            self._part(peer, reason)
        self._settle(peer)

    def check(self, identifier: bytes, due: float, ticks: float) -> None:
        """Do what is due for a peer whose timer came, unless it was set anew since."""
        peer = self._peers.get(identifier)
        # Each look sets a timer: one for each that was overtaken would add up for as long as the peer is there.
        if peer is None or peer.scheduled != due:
            return
        peer.scheduled = NEVER
        if peer.opening is not None:
            self._check_opening(peer, peer.opening, ticks)
        if ticks >= peer.gone_at():
            self._drop_channels(peer)
            self._part(peer, f"nothing was heard for {GONE_AFTER:.0f} s")
        for channel in [channel for channel in peer.channels if ticks >= channel.ends_at]:
            self._drop_channel(peer, channel)
        if peer.current is not None and ticks >= peer.current.stops_sending_at:
            peer.current = None
        if ticks >= peer.reopens_at():
            self.reopen(peer, ticks)
        if peer.current is not None and ticks >= peer.keepalive_at():
            self.seal(peer, peer.current, (), ticks)
        self._settle(peer)

    def _settle(self, peer: Peer) -> None:
        """Set a peer's timer, or forget a peer with which there is nothing any more.

        A peer whose last session ended of age is not gone while a handshake runs that may follow on it.
        """
        if peer.channels or peer.opening is not None:
            self.timers.set(peer)
        else:
            self._part(peer, "the session ended")
            del self._peers[peer.identifier]

    def _part(self, peer: Peer, reason: str) -> None:
        if peer.boot is not None:
            peer.boot = None
            peer.highest = -1
            peer.owed_since = peer.unanswered_since = NEVER
            self._events.append(PeerGone(peer.identifier, reason))

    def _check_opening(self, peer: Peer, opening: Opening, ticks: float) -> None:
        if ticks >= opening.gives_up_at:
            self._give_up(peer, opening)
        elif ticks >= opening.repeats_at:
            opening.repeats_at = ticks + HANDSHAKE_REPEAT
            self._events.append(Transmit(opening.path, peer.identifier, opening.packet))

    def _give_up(self, peer: Peer, opening: Opening) -> None:
        """End a handshake that failed: news for who waits for it; any other is tried again while it matters."""
        self._drop_opening(peer)
        if peer.is_awaited:
            peer.is_awaited = False
            self._events.append(GaveUp(peer.identifier, opening.trouble))

    def _drop_opening(self, peer: Peer) -> None:
        if peer.opening is not None:
            del self.openings[peer.opening.index]
            if peer.opening.channel is not None:
                self.channels.remove(peer.opening.channel)
            peer.opening = None

    def _drop_channels(self, peer: Peer) -> None:
        for channel in list(peer.channels):
            self._drop_channel(peer, channel)

    def _drop_channel(self, peer: Peer, channel: Channel) -> None:
        self.channels.remove(channel)
        peer.channels.remove(channel)
        if peer.current is channel:
            peer.current = None
