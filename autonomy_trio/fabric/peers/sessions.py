"""The sessions with the other nodes: what arrives in them, what leaves, and what ends when one does.

The endpoint of the wire decides and this module acts: it feeds it packets, timers and batches, and carries out its
events. What arrives is handled without waiting, so that no link is left unread; what leaves waits in a bounded queue
for each node.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Final, cast, final

import attrs
import trio

from autonomy_trio.errors import NotDelivered
from autonomy_trio.fabric.identity.voices import INTRODUCE_PAUSE, Voice, Voices
from autonomy_trio.fabric.peers.flows import Inflows, window_for
from autonomy_trio.fabric.peers.judge import Judge
from autonomy_trio.fabric.peers.lanes import Lanes
from autonomy_trio.fabric.peers.losses import drop_waiting, fail_sent, repeat
from autonomy_trio.fabric.peers.peer import Carrier, Path, Peer
from autonomy_trio.fabric.peers.reception import Reception
from autonomy_trio.fabric.peers.streams import REPEAT_EVERY
from autonomy_trio.logs import get_log
from autonomy_trio.payloads import Resolve
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.wire.constants import CLOCK_TOLERANCE
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import (
    Accepted,
    Ask,
    Awaited,
    Blocked,
    Cancel,
    Credit,
    Down,
    Entry,
    Error,
    Foreseen,
    Item,
    Missing,
    Open,
    Piece,
    Presentations,
    Progress,
    Reply,
    Reset,
    Spoken,
    Subscribe,
    Tell,
    Unwatch,
    Watch,
)
from autonomy_trio.wire.events import Established, GaveUp, PeerGone, Received, Refused, Transmit
from autonomy_trio.wire.introductions import Speaker
from autonomy_trio.wire.lanes import DROPPED_PAUSE, Lane

FEW: Final = 4
"""Asks open between two nodes, up to which one leaves at once in an envelope of its own."""

RELAY_LIMIT: Final = 5.0
"""Seconds that messages wait for a relay to come back."""

JUST_SENT: Final = 2.0
"""Seconds for which a relay's refusal is taken to be about an ask."""

_log = get_log()


@final
@attrs.define(eq=False)
class Sessions:
    """All other nodes that something is under way with, and the sessions with them."""

    endpoint: Endpoint
    judge: Judge
    voices: Voices
    """The agents of this node that speak."""
    nursery: trio.Nursery
    now: Callable[[], float]
    """Unix seconds; sessions' timers run on trio's clock."""
    carriers: list[Carrier] = attrs.field(factory=list[Carrier])
    read_ref: Resolve | None = None
    """Makes a ref of an address in a reply."""
    met: Callable[[Bundle], None] = lambda _: None
    """Takes the bundle of a node that a session was established with."""
    lost: int = 0
    """Messages that could not be sent."""
    dropped: int = 0
    """Packets that no relay took, because it was away or its queue was full."""
    is_closed: bool = False
    reception: Reception = attrs.field(
        init=False, default=attrs.Factory(lambda self: Reception(self.judge, self.expect), takes_self=True)
    )
    lanes: Lanes = attrs.field(factory=Lanes)
    """The streams of portals."""
    peers: dict[bytes, Peer] = attrs.field(factory=dict[bytes, Peer])
    _begin_flow: Callable[[], int] = attrs.field(factory=lambda: itertools.count(1).__next__)
    _came_by: str | None = None
    """The pinned relay that brought the packet that is being looked at."""
    _timer_moved: trio.Event = attrs.field(factory=trio.Event)
    _is_carrying: bool = False
    """Whether events of the endpoint are being carried out."""
    _timer_rings: float = -math.inf
    """When the task of the timers wakes by itself."""

    @property
    def is_attached(self) -> bool:
        """Whether a relay is there now."""
        return any(carrier.is_attached for carrier in self.carriers)

    def peer(self, node: bytes) -> Peer:
        """Return another node, and begin to send to it where nothing is under way with it yet.

        Raises:
            NotDelivered: this node is stopping.
        """
        peer = self.peers.get(node)
        if peer is None:
            if self.is_closed:
                raise NotDelivered("the node is stopping: nothing was sent")
            peer = self.peers[node] = Peer(node, self._begin_flow, send_now=self._send_now)
            self.nursery.start_soon(self._send_to, peer, name=f"sends to {peer.name}")
        return peer

    def lane(self, peer: Peer) -> Lane:
        """Return where the streams of portals with another node are."""
        if peer.lane is None:
            peer.lane = self.lanes.open(peer.wake)
        return peer.lane

    async def connect(self, peer: Peer) -> None:
        """See that a handshake runs, and wait until something has changed."""
        self.endpoint.connect(peer.identifier, self.now(), trio.current_time())
        self._carry_out()
        if not peer.ended and not self._is_ready(peer):
            await peer.wait_woken()

    def expect(self, peer: Peer) -> None:
        """Let the endpoint notice where a node is lost with which anything is open, and no other."""
        if self.peers.get(peer.identifier) not in (peer, None):
            return  # it was forgotten, and met again since
        self.endpoint.expect(peer.identifier, peer.is_owed, trio.current_time())
        self._look_at_timer()

    def uses(self, carrier: Carrier) -> bool:
        """Tell whether what is sent to some node goes over a relay."""
        return any(peer.carrier is carrier for peer in self.peers.values())

    def receive(self, carrier: Carrier, source: bytes, packet: bytes) -> None:
        """Take a packet from a relay; never raises, never waits."""
        self._came_by = carrier.pin
        self.endpoint.receive(packet, (carrier, source), self.now(), trio.current_time())
        self._carry_out()

    def refused(self, carrier: Carrier, node: bytes, reason: str) -> None:
        """Take a relay's word that it could not forward to a node: what was just asked there may never have arrived.

        The word of another relay than the one that carries what is sent there says nothing.
        """
        peer = self.peers.get(node)
        if peer is not None and peer.carrier is carrier:
            said = f"a relay could not reach {peer.name} ({reason})"
            now = trio.current_time()
            fail_sent(peer, said, since=now - JUST_SENT)
            if peer.lane is not None:
                peer.lane.go_back(pause_until=now + DROPPED_PAUSE)
            self.expect(peer)

    def refresh(self) -> None:
        """Look at every peer again after a relay has come or gone: what can leave, and what was lost on the way."""
        for peer in list(self.peers.values()):
            repeat(peer, trio.current_time(), asked_before=math.inf)
            if peer.lane is not None:
                peer.lane.go_back()
            self.expect(peer)
            peer.wake()

    async def run_timers(self) -> None:
        """Let the endpoint do what falls due, until cancelled."""
        while True:
            self._timer_moved, self._timer_rings = trio.Event(), self.endpoint.next_deadline()
            with trio.move_on_at(self._timer_rings):
                await self._timer_moved.wait()
                continue
            self.endpoint.handle_timer(self.now(), trio.current_time())
            self._carry_out()

    async def run_repeats(self) -> None:
        """Say again and again what is open and what keeps it so, and end what the silent had, until cancelled."""
        while True:
            await trio.sleep(REPEAT_EVERY)
            for peer in list(self.peers.values()):
                now = trio.current_time()
                repeat(peer, now, asked_before=now - JUST_SENT)
                self.expect(peer)

    async def wait_sent(self) -> None:
        """Return when no message waits to leave."""
        while waiting := [peer for peer in self.peers.values() if peer.waiting]:
            await waiting[0].wait_changed()

    def close(self) -> None:
        """Tell every node with a session that this one leaves; what is still open ends, and nothing more begins."""
        self.is_closed = True
        for peer in list(self.peers.values()):
            self.endpoint.close(peer.identifier, "the node is stopping")
            self._carry_out()
            self._end(peer, "this node is stopping")

    async def _send_to(self, peer: Peer) -> None:
        """Be the task that sends to one node: all that waits when it wakes leaves in one envelope."""
        while not peer.ended:
            if peer.is_quiet:
                await peer.wait_woken()
            elif not self.is_attached:
                await self._wait_attached(peer)
            elif self._is_ready(peer):
                await self._wait_room(peer)
                if not self._send_batch(peer):
                    await trio.sleep(INTRODUCE_PAUSE)
            else:
                await self.connect(peer)

    def _send_now(self, peer: Peer) -> None:
        """Send the one entry that waits in the task that has put it there, where few asks are open: a switch less.

        Not while events are carried out, for a packet among them may have a lower counter.
        """
        is_alone = len(peer.waiting) == 1 and len(peer.asked) + len(peer.served) <= FEW and not self._is_carrying
        if not (is_alone and self._is_clear(peer) and self._send_batch(peer)):
            peer.wake()

    def _is_clear(self, peer: Peer) -> bool:
        return peer.carrier is not None and peer.carrier.is_clear and self._is_ready(peer)

    async def _wait_attached(self, peer: Peer) -> None:
        """Wait for a relay; past `RELAY_LIMIT` seconds what waits is not delivered."""
        with trio.move_on_after(RELAY_LIMIT):
            while not self.is_attached and not peer.ended:
                await peer.wait_woken()
            return
        self._give_up(peer, "no relay can be reached")

    def _is_ready(self, peer: Peer) -> bool:
        return self.endpoint.is_ready(peer.identifier, self.now(), trio.current_time())

    async def _wait_room(self, peer: Peer) -> None:
        if peer.carrier is None:
            await trio.lowlevel.checkpoint()
        else:
            await peer.carrier.wait_room()

    def _send_batch(self, peer: Peer) -> bool:
        """Send one envelope; False where what waits must go on waiting, since its agents cannot be introduced yet."""
        if peer.ended or peer.is_quiet or not self._is_ready(peer):
            return True
        taken = peer.take_batch(window_for(self.reception.held_bytes))
        batch, speakers, left = self._spoken(peer, taken)
        if left:
            peer.put_back(left)
        if batch or peer.carries:
            self._send_envelope(peer, batch, speakers)
        return not left

    def _send_envelope(self, peer: Peer, batch: list[Entry], speakers: Mapping[int, Speaker]) -> None:
        now, ticks = self.now(), trio.current_time()
        if self.endpoint.is_ready(peer.identifier, now, ticks):
            entries = [peer.leave(entry, ticks) for entry in batch] + peer.take_pieces(batch, ticks)
            self.endpoint.send(peer.identifier, entries, now, ticks, speakers)
            for entry in batch:
                if type(entry) is not Tell:
                    peer.note_sent(entry, ticks)
            self.expect(peer)
        else:
            # The session is too old to be sent on: the batch waits for the next one.
            peer.put_back(batch)
            self.endpoint.connect(peer.identifier, now, ticks)
        self._carry_out()

    def _spoken(self, peer: Peer, batch: list[Entry]) -> tuple[list[Entry], Mapping[int, Speaker], list[Entry]]:
        """Return what may leave, its speakers by position, and what is to wait; replies follow their asks."""
        if not self.judge.judges_sending and not self.voices:  # nor has an agent ever spoken
            return batch, {}, []
        kept: list[Entry] = []
        speakers: dict[int, Speaker] = {}
        spoke, speaker = 0, None  # most of what waits in a row is one agent's
        for position, entry in enumerate(batch):
            if isinstance(entry, Spoken):
                if entry.sender is not spoke:
                    try:
                        speaker = self.voices.speaker(entry.sender) if isinstance(entry.sender, Voice) else None
                    except NotDelivered as error:
                        peer.drop(entry, error)
                        continue
                    if speaker is not None and not peer.pace.may_speak(speaker, trio.current_time()):
                        return kept, speakers, batch[position:]
                    spoke = entry.sender
                refusal = self.judge.may_send(peer, entry)
                if refusal is not None:
                    peer.drop(entry, refusal)
                    continue
                if speaker is not None:
                    speakers[len(kept)] = speaker
            kept.append(entry)
        return kept, speakers, []

    def _look_at_timer(self) -> None:
        """Wake the task of the timers where it would sleep past the next one; one that was put off wakes it in vain."""
        if self.endpoint.next_deadline() < self._timer_rings:
            self._timer_moved.set()

    def _carry_out(self) -> None:
        """Do what the endpoint has decided, in its order."""
        was_carrying, self._is_carrying = self._is_carrying, True
        for event in self.endpoint.take():
            match event:
                case Transmit():
                    self._transmit(event)
                case Received():
                    self._received(event)
                case Established():
                    self._established(event)
                case PeerGone():
                    if (peer := self.peers.get(event.peer)) is not None:
                        self._end(peer, event.reason)
                case GaveUp():
                    if (peer := self.peers.get(event.peer)) is not None:
                        self._give_up(peer, event.reason)
                case Refused():
                    _log.debug("packet refused", reason=event.reason)
        self._is_carrying = was_carrying
        self._look_at_timer()

    def _transmit(self, event: Transmit) -> None:
        if event.path is None:
            assert event.peer is not None  # noqa: S101 - either is known
            for carrier in self.carriers:
                carrier.carry(event.peer, event.packet)
            return
        carrier, destination = cast("Path", event.path)
        others = (other for other in self.carriers if other is not carrier)
        for each in (carrier, *others):
            if each.carry(destination, event.packet):
                peer = None if event.peer is None else self.peers.get(event.peer)
                if peer is not None:
                    peer.carrier = each
                return
        self.dropped += 1

    def _established(self, event: Established) -> None:
        if self.is_closed:
            return
        peer = self.peer(event.peer)
        if event.restarted:
            fail_sent(peer, f"{peer.name} was restarted")
            peer.drop_served()
            peer.outflows.forget()
            peer.inflows = Inflows()
            peer.pace.forget()
            self._end_lane(peer, f"{peer.name} was restarted")
            self.expect(peer)
        if abs(event.clock_difference) > CLOCK_TOLERANCE and peer.bundle is None:
            difference = f"{event.clock_difference:+,.0f} s"
            _log.warning("the clock of another node differs: set the clocks", node=peer.name, by=difference)
        peer.bundle = event.bundle
        self.met(event.bundle)
        self.judge.show(peer, event.presentations)
        peer.wake()

    def _received(self, event: Received) -> None:
        peer = self.peers.get(event.peer)
        if peer is None or peer.bundle is None:
            return  # nothing is taken from whom the endpoint has not presented
        peer.via = self._came_by
        for entry in event.entries:
            if type(entry) is Tell or type(entry) is Ask:  # as nearly always
                self.reception.take_message(peer, entry, event.senders, late=event.late)
                continue
            if type(entry) is Piece:
                self.lane(peer).receive(entry, trio.current_time())
            else:
                self._take(peer, entry, event)
        if peer.inflows.has_words:
            peer.wake()
        self.expect(peer)

    def _take(self, peer: Peer, entry: Entry, event: Received) -> None:
        match entry:
            case Reply() | Error() | Foreseen() | Item() | Progress() | Down():
                peer.take_answer(entry, self.read_ref)
            case (
                Tell()
                | Ask()
                | Open()
                | Watch()
                | Subscribe()
                | Credit()
                | Cancel()
                | Unwatch()
                | Awaited()
                | Blocked()
            ):
                self.reception.take(peer, entry, event.senders, late=event.late)
            case Accepted():
                peer.outflows.accept(entry)
            case Piece() | Missing() | Reset():
                self.lane(peer).receive(entry, trio.current_time())
            case Presentations() if peer.shows.try_take(len(entry.presentations), trio.current_time()):
                self.judge.show(peer, entry.presentations)
            case _:
                pass  # Close, for the endpoint has said PeerGone; and credentials past what one may show

    def _give_up(self, peer: Peer, reason: str) -> None:
        """Drop what waits for a node that cannot be reached; a node that never was is forgotten."""
        if peer.bundle is None:
            self._end(peer, reason)
        else:
            self.lost += drop_waiting(peer, reason)
            peer.outflows.drop_words()
            peer.inflows.drop_words()
            self.expect(peer)

    def _end(self, peer: Peer, reason: str) -> None:
        """Forget a node: whoever waits for it is told, and its unanswered asks are cancelled."""
        self.judge.leave(peer)
        self.peers.pop(peer.identifier, None)
        peer.end()
        self.lost += drop_waiting(peer, reason)
        fail_sent(peer, reason)
        peer.drop_served()
        self._end_lane(peer, reason)
        self.expect(peer)

    def _end_lane(self, peer: Peer, reason: str) -> None:
        if peer.lane is not None:
            lane, peer.lane = peer.lane, None
            self.lanes.end(lane, reason)
