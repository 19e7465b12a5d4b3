"""The other nodes this one talks to, and the sessions that carry what they say to each other.

The endpoint of the wire decides and this module acts: it feeds it packets, timers and batches, and carries out its
events. What arrives is handled without waiting, so that no link is left unread; what leaves waits in a bounded queue
for each node.

An ask that was never sent ends in `NotDelivered`; one that was sent and whose answer cannot come any more, in
`OutcomeUnknown`.
"""

import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, cast, final

import attrs
import trio

from autonomy_trio.errors import Denied, MailboxFull, NotDelivered, OutcomeUnknown
from autonomy_trio.fabric.identity.voices import INTRODUCE_PAUSE, Voice, Voices
from autonomy_trio.fabric.peers.flows import Inflows, window_for
from autonomy_trio.fabric.peers.outcomes import Expected
from autonomy_trio.fabric.peers.peer import MOST_WAITING, Carrier, Judge, OpenAsk, Path, Peer
from autonomy_trio.fabric.peers.reception import Reception
from autonomy_trio.fabric.peers.streams import REPEAT_EVERY, Reading
from autonomy_trio.fabric.peers.watches import Watching
from autonomy_trio.logs import get_log
from autonomy_trio.payloads import Resolve
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.wire.constants import CLOCK_TOLERANCE, MESSAGE_OVERHEAD
from autonomy_trio.wire.credit import message_cost
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import (
    Accepted,
    Answer,
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
    Message,
    Open,
    Presentations,
    Progress,
    Reply,
    Spoken,
    Standing,
    Subscribe,
    Tell,
    Unwatch,
    Watch,
    check_size,
    shown_presentations,
)
from autonomy_trio.wire.events import Established, GaveUp, PeerGone, Received, Refused, Transmit
from autonomy_trio.wire.introductions import Speaker

MEET_LIMIT: Final = 5.0
"""Seconds in which a node that is not known yet must answer."""

FEW: Final = 4
"""Asks open between two nodes, up to which one leaves at once in an envelope of its own."""

TELLS_PER_CHECKPOINT: Final = 128
"""A message that need not wait still lets others run, once in so many: an envelope is worth more than one in the
process, for it has a signature."""

RELAY_LIMIT: Final = 5.0
"""Seconds that messages wait for a relay to come back."""

JUST_SENT: Final = 2.0
"""Seconds for which a relay's refusal is taken to be about an ask."""

ASK_EVERY: Final = 1.0
"""Seconds between two questions of a sender that waits for credit."""

_log = get_log()


@final
@attrs.define(eq=False)
class Peers:
    """All other nodes that something is under way with."""

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
        init=False, default=attrs.Factory(lambda self: Reception(self.judge, self._expect), takes_self=True)
    )
    _peers: dict[bytes, Peer] = attrs.field(factory=dict[bytes, Peer])
    _begin_flow: Callable[[], int] = attrs.field(factory=lambda: itertools.count(1).__next__)
    _requests: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _came_by: str | None = None
    """The pinned relay that brought the packet that is being looked at."""
    _told: int = 0
    _timer_moved: trio.Event = attrs.field(factory=trio.Event)
    _is_carrying: bool = False
    """Whether events of the endpoint are being carried out."""
    _timer_rings: float = -math.inf
    """When the task of the timers wakes by itself."""

    def __len__(self) -> int:
        return len(self._peers)

    async def tell(self, node: bytes, entry: Tell) -> None:
        """Queue a message for another node, waiting for room there and in the queue to it."""
        size = check_size(entry)
        self._told += 1
        if not self._told % TELLS_PER_CHECKPOINT:
            # After each one, the sending task would run in between, and each would leave in an envelope of its own.
            await trio.lowlevel.checkpoint()
        peer = self._peer(node)
        if peer.outflows.try_reserve(entry.recipient, size + MESSAGE_OVERHEAD):
            peer.post(entry, size)
        else:
            await self._queue(node, entry, lambda peer: peer.post(entry, size))

    def tell_nowait(self, node: bytes, entry: Tell) -> None:
        """Queue a message for another node.

        Raises:
            MailboxFull: the queue to it is full, or as much as may be is under way to the agent.
        """
        size, peer = check_size(entry), self._peer(node)
        if not peer.has_room():
            msg = f"the queue to {peer.name} is full ({MOST_WAITING} messages)"
            raise MailboxFull(msg)
        if not peer.outflows.try_reserve(entry.recipient, size + MESSAGE_OVERHEAD):
            msg = f"the mailbox of {peer.name}/{entry.recipient} is full, and so is the way to it"
            raise MailboxFull(msg)
        peer.post(entry, size)

    def new_request(self) -> int:
        """Return a number for an ask, a stream or a watch, never used twice."""
        return next(self._requests)

    async def ask(self, node: bytes, opened: OpenAsk, *, waits_until: float = math.inf) -> Any:  # noqa: ANN401 - the reply's type is the request's
        """Send a request to another node and wait for its reply.

        Args:
            node: the other node.
            opened: the request, of a new number; what remains of its deadline when it leaves goes with it.
            waits_until: until when room for it is waited for, on trio's clock.

        Raises:
            trio.TooSlowError: there was none.
        """
        entry = opened.entry
        size = check_size(entry)

        peer = self._peer(node)
        if peer.outflows.try_reserve(entry.recipient, size + MESSAGE_OVERHEAD):
            peer.asked[entry.request] = opened
            peer.put(entry, size)
            self._send_now(peer)
        else:

            def post(peer: Peer) -> None:
                peer.asked[entry.request] = opened
                peer.post(entry, size)

            with trio.fail_at(waits_until):
                peer = await self._queue(node, entry, post)
        return await opened.reply.wait(lambda: self._take_back(peer, entry))

    def show(self, presentations: Sequence[bytes]) -> None:
        """Show other credentials from here on, in the sessions that stand."""
        for peer in self._peers.values():
            peer.post(shown_presentations(presentations))

    @asynccontextmanager
    async def stream(
        self, node: bytes, opening: Callable[[int], Open], expected: Expected
    ) -> AsyncGenerator[AsyncIterator[Any]]:
        """Open a stream of an agent of another node for the length of a block; what is refused shows at the first item.

        Args:
            node: the other node.
            opening: makes the entry from its number.
            expected: what may come back.
        """
        entry = opening(next(self._requests))
        check_size(entry)
        opened: list[Reading] = []

        def post(peer: Peer) -> None:
            reading = Reading(entry, expected, peer, self.read_ref, partial(self._take_back, peer, entry))
            peer.reading[entry.request] = reading
            opened.append(reading)
            peer.post(entry)

        peer = await self._queue(node, entry, post)
        try:
            yield opened[0]
        finally:
            self._take_back(peer, entry)

    def watch(self, node: bytes, recipient: str, sender: int, told: Callable[[str], None]) -> Callable[[], None]:
        """Watch an agent of another node; returns what ends the watch.

        Args:
            node: the other node.
            recipient: the agent's name.
            sender: who watches, as `Voices.of` has it.
            told: called once with how it ended.
        """
        return self._stand(node, Watch(next(self._requests), recipient, sender), told)

    def subscribe(
        self, node: bytes, topic: str, recipient: str, sender: int, told: Callable[[str], None]
    ) -> Callable[[], None]:
        """Subscribe an agent to a topic of another node; returns what ends that.

        Args:
            node: the other node.
            topic: the topic's name.
            recipient: the agent's name.
            sender: who subscribes, as `Voices.of` has it.
            told: called once when it has ended, with ``unknown agent`` where it was refused.
        """
        return self._stand(node, Subscribe(next(self._requests), topic, recipient, sender), told)

    def _stand(self, node: bytes, entry: Standing, told: Callable[[str], None]) -> Callable[[], None]:
        peer = self._peer(node)
        peer.watching[entry.request] = Watching(entry, told)
        peer.post(entry)
        return partial(self._take_back, peer, entry)

    async def meet(self, node: bytes) -> Bundle | None:
        """Return the bundle of a node, from a handshake where there is no session; None where it does not answer."""
        peer = self._peer(node)
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(MEET_LIMIT):
            while peer.bundle is None and not peer.ended:
                if self._is_attached():
                    await self._connect(peer)
                else:
                    await peer.wait_woken()
        return peer.bundle

    def must_ask(self, node: bytes, entry: Tell) -> bool:
        """Tell whether a node must be asked for its credentials before a message may be sealed for it."""
        return self.judge.must_ask(self._peers.get(node) or Peer(node), entry)

    def may_send(self, node: bytes, entry: Tell) -> Denied | None:
        """Judge a message that is to leave sealed, by what its node has proven: why it may not, or None."""
        return self.judge.may_send(self._peers.get(node) or Peer(node), entry, sealed=True)

    def uses(self, carrier: Carrier) -> bool:
        """Tell whether what is sent to some node goes over a relay."""
        return any(peer.carrier is carrier for peer in self._peers.values())

    def receive(self, carrier: Carrier, source: bytes, packet: bytes) -> None:
        """Take a packet from a relay; never raises, never waits."""
        self._came_by = carrier.pin
        self.endpoint.receive(packet, (carrier, source), self.now(), trio.current_time())
        self._carry_out()

    def refused(self, carrier: Carrier, node: bytes, reason: str) -> None:
        """Take a relay's word that it could not forward to a node: what was just asked there may never have arrived.

        The word of another relay than the one that carries what is sent there says nothing.
        """
        peer = self._peers.get(node)
        if peer is not None and peer.carrier is carrier:
            said = f"a relay could not reach {peer.name} ({reason})"
            self._fail_sent(peer, said, since=trio.current_time() - JUST_SENT)
            self._expect(peer)

    def refresh(self) -> None:
        """Look at every peer again after a relay has come or gone: what can leave, and what was lost on the way."""
        for peer in list(self._peers.values()):
            self._repeat(peer, trio.current_time(), asked_before=math.inf)
            self._expect(peer)
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
            for peer in list(self._peers.values()):
                now = trio.current_time()
                self._repeat(peer, now, asked_before=now - JUST_SENT)
                self._expect(peer)

    @staticmethod
    def _repeat(peer: Peer, now: float, *, asked_before: float) -> None:
        """Say what is open, so that the other node tells what it has nothing of: that was lost on the way."""
        peer.ask_about_sent(asked_before)
        waiting = set(map(id, peer.waiting))
        for reading in peer.reading.values():
            if reading.sent_at is not None and id(reading.word) not in waiting:
                reading.grant()
        for watching in peer.watching.values():
            if watching.sent_at is not None and id(watching.entry) not in waiting:
                peer.post(watching.entry)
        peer.end_silent(now)

    async def wait_sent(self) -> None:
        """Return when no message waits to leave."""
        while waiting := [peer for peer in self._peers.values() if peer.waiting]:
            await waiting[0].wait_changed()

    def close(self) -> None:
        """Tell every node with a session that this one leaves; what is still open ends, and nothing more begins."""
        self.is_closed = True
        for peer in list(self._peers.values()):
            self.endpoint.close(peer.identifier, "the node is stopping")
            self._carry_out()
            self._end(peer, "this node is stopping")

    def _peer(self, node: bytes) -> Peer:
        peer = self._peers.get(node)
        if peer is None:
            if self.is_closed:
                raise NotDelivered("the node is stopping: nothing was sent")
            peer = self._peers[node] = Peer(node, self._begin_flow, send_now=self._send_now)
            self.nursery.start_soon(self._send_to, peer, name=f"sends to {peer.name}")
        return peer

    async def _queue(self, node: bytes, entry: Message, post: Callable[[Peer], None]) -> Peer:
        """Queue a message for another node, waiting for room in its mailbox there and in the queue to its node.

        Args:
            node: the other node.
            entry: the message.
            post: queues it, as soon as there is room.
        """
        cost = message_cost(entry)
        while True:
            peer = self._peer(node)
            if peer.outflows.try_reserve(entry.recipient, cost):
                post(peer)
                return peer
            if not peer.asks_for_credit:
                peer.asks_for_credit = True
                self.nursery.start_soon(self._ask_for_credit, peer, name=f"asks {peer.name} for credit")
            if await peer.outflows.wait(entry.recipient, cost, partial(post, peer)):
                return peer

    async def _ask_for_credit(self, peer: Peer) -> None:
        """Ask a node again and again how far it is, while somebody waits for that."""
        while peer.outflows.is_awaited and not peer.ended:
            self._expect(peer)
            await trio.sleep(ASK_EVERY)
            peer.outflows.ask_again()
        peer.asks_for_credit = False
        self._expect(peer)

    async def _send_to(self, peer: Peer) -> None:
        """Be the task that sends to one node: all that waits when it wakes leaves in one envelope."""
        while not peer.ended:
            if peer.is_quiet:
                await peer.wait_woken()
            elif not self._is_attached():
                await self._wait_attached(peer)
            elif self._is_ready(peer):
                await self._wait_room(peer)
                if not self._send_batch(peer):
                    await trio.sleep(INTRODUCE_PAUSE)
            else:
                await self._connect(peer)

    def _send_now(self, peer: Peer) -> None:
        """Send the one entry that waits in the task that has put it there, where few asks are open: a switch less.

        Not while events are carried out, for a packet among them may have a lower counter.
        """
        is_alone = len(peer.waiting) == 1 and len(peer.asked) + len(peer.served) <= FEW and not self._is_carrying
        if not (is_alone and self._is_clear(peer) and self._send_batch(peer)):
            peer.wake()

    def _is_clear(self, peer: Peer) -> bool:
        return peer.carrier is not None and peer.carrier.is_clear and self._is_ready(peer)

    async def _connect(self, peer: Peer) -> None:
        """See that a handshake runs, and wait until something has changed."""
        self.endpoint.connect(peer.identifier, self.now(), trio.current_time())
        self._carry_out()
        if not peer.ended and not self._is_ready(peer):
            await peer.wait_woken()

    def _is_attached(self) -> bool:
        return any(carrier.is_attached for carrier in self.carriers)

    async def _wait_attached(self, peer: Peer) -> None:
        """Wait for a relay; past `RELAY_LIMIT` seconds what waits is not delivered."""
        with trio.move_on_after(RELAY_LIMIT):
            while not self._is_attached() and not peer.ended:
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
        if batch:
            self._send_envelope(peer, batch, speakers)
        return not left

    def _send_envelope(self, peer: Peer, batch: list[Entry], speakers: Mapping[int, Speaker]) -> None:
        now, ticks = self.now(), trio.current_time()
        if self.endpoint.is_ready(peer.identifier, now, ticks):
            self.endpoint.send(peer.identifier, [peer.leave(entry, ticks) for entry in batch], now, ticks, speakers)
            for entry in batch:
                if type(entry) is not Tell:
                    peer.note_sent(entry, ticks)
            self._expect(peer)
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

    def _take_back(self, peer: Peer, entry: Ask | Open | Standing) -> None:
        peer.take_back(entry)
        self._expect(peer)

    def _expect(self, peer: Peer) -> None:
        if self._peers.get(peer.identifier) not in (peer, None):
            return  # it was forgotten, and met again since
        self.endpoint.expect(peer.identifier, peer.is_owed, trio.current_time())
        self._look_at_timer()

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
                    if (peer := self._peers.get(event.peer)) is not None:
                        self._end(peer, event.reason)
                case GaveUp():
                    if (peer := self._peers.get(event.peer)) is not None:
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
                peer = None if event.peer is None else self._peers.get(event.peer)
                if peer is not None:
                    peer.carrier = each
                return
        self.dropped += 1

    def _established(self, event: Established) -> None:
        if self.is_closed:
            return
        peer = self._peer(event.peer)
        if event.restarted:
            self._fail_sent(peer, f"{peer.name} was restarted")
            peer.drop_served()
            peer.outflows.forget()
            peer.inflows = Inflows()
            peer.pace.forget()
            self._expect(peer)
        if abs(event.clock_difference) > CLOCK_TOLERANCE and peer.bundle is None:
            difference = f"{event.clock_difference:+,.0f} s"
            _log.warning("the clock of another node differs: set the clocks", node=peer.name, by=difference)
        peer.bundle = event.bundle
        self.met(event.bundle)
        self.judge.show(peer, event.presentations)
        peer.wake()

    def _received(self, event: Received) -> None:
        peer = self._peers.get(event.peer)
        if peer is None or peer.bundle is None:
            return  # nothing is taken from whom the endpoint has not presented
        peer.via = self._came_by
        for entry in event.entries:
            match entry:
                case Reply():
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
                case Error() | Foreseen() | Item() | Progress() | Down():
                    peer.take_answer(entry, self.read_ref)
                case Accepted():
                    peer.outflows.accept(entry)
                case Presentations() if peer.shows.try_take(len(entry.presentations), trio.current_time()):
                    self.judge.show(peer, entry.presentations)
                case _:
                    pass  # Close, for the endpoint has said PeerGone; and credentials past what one may show
        self._expect(peer)

    def _give_up(self, peer: Peer, reason: str) -> None:
        """Drop what waits for a node that cannot be reached; a node that never was is forgotten."""
        if peer.bundle is None:
            self._end(peer, reason)
        else:
            self._drop_waiting(peer, reason)
            peer.outflows.drop_words()
            peer.inflows.drop_words()
            self._expect(peer)

    def _end(self, peer: Peer, reason: str) -> None:
        """Forget a node: whoever waits for it is told, and its unanswered asks are cancelled."""
        self.judge.leave(peer)
        self._peers.pop(peer.identifier, None)
        peer.end()
        self._drop_waiting(peer, reason)
        self._fail_sent(peer, reason)
        peer.drop_served()
        self._expect(peer)

    def _drop_waiting(self, peer: Peer, reason: str) -> None:
        """Empty the queue to a node, of which nothing was sent; answers stay until it is gone, for somebody waits."""
        tells = 0
        for entry in peer.take_out(lambda entry: peer.ended or not isinstance(entry, Answer)):
            if isinstance(entry, Standing):
                if peer.ended or entry.request not in peer.watching or peer.watching[entry.request].sent_at is None:
                    peer.fail(entry, NotDelivered(reason))  # else it was there once, and is repeated
            elif isinstance(entry, Message):
                request = None if isinstance(entry, Tell) else entry.request
                waiting = peer.asked.get(request) or peer.reading.get(request) if request is not None else None
                where = f"{peer.name}/{entry.recipient}" if waiting is None else waiting.expected.address
                peer.drop(entry, NotDelivered(f"{entry.name} was not delivered to {where}: {reason}"))
            tells += isinstance(entry, Tell)
        if tells:
            self.lost += tells
            _log.warning("messages lost", node=peer.name, count=tells, reason=reason)

    @staticmethod
    def _fail_sent(peer: Peer, reason: str, since: float = -math.inf) -> None:
        """End what cannot be answered any more: asks and streams that were sent, at `since` or later; then watches too.

        A watch is not ended where only what was sent just now may be lost, for it is repeated.
        """
        open_here: list[OpenAsk | Reading] = [*peer.asked.values(), *peer.reading.values()]
        for each in open_here:
            if each.sent_at is not None and each.sent_at >= since:
                asked = each.expected
                text = f"{reason} after {asked.message} was sent to {asked.address}: it may have had effects"
                peer.fail(each.entry, OutcomeUnknown(text))
        if since == -math.inf:
            for watching in list(peer.watching.values()):
                if watching.sent_at is not None:
                    peer.fail(watching.entry, NotDelivered(reason))
