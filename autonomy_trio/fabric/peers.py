"""The other nodes this one talks to, and the sessions that carry what they say to each other.

The endpoint of the wire decides and this module acts: it feeds it packets, timers and batches, and carries out its
events. What arrives is handled without waiting, so that no link is left unread; what leaves waits in a bounded queue
for each node.

An ask that was never sent ends in `NotDelivered`; one that was sent and whose answer cannot come any more, in
`OutcomeUnknown`.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Final, cast, final

import attrs
import outcome
import trio

from autonomy_trio.actors.delivery import Delivery, PendingReply
from autonomy_trio.errors import MailboxFull, MessageError, NotDelivered, OutcomeUnknown
from autonomy_trio.fabric.outcomes import from_code, to_code
from autonomy_trio.fabric.peer import MOST_WAITING, MOST_WAITING_BYTES, Carrier, Judge, OpenAsk, Path, Peer
from autonomy_trio.logs import get_log
from autonomy_trio.messages import decode_payload, encode_payload
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import Ask, Cancel, Entry, Error, Presentations, Reply, Tell, check_size
from autonomy_trio.wire.events import Established, GaveUp, PeerGone, Received, Refused, Transmit

RELAY_LIMIT: Final = 5.0
"""Seconds that messages wait for a relay to come back."""

JUST_SENT: Final = 2.0
"""Seconds for which a relay's refusal is taken to be about an ask."""

MOST_SERVED: Final = 1024
"""Unanswered asks from one node."""

MOST_UNSENT: Final = 8 * MOST_WAITING
"""Answers and messages waiting to leave for one node, from which on its asks are not looked at."""

MOST_UNSENT_BYTES: Final = 8 * MOST_WAITING_BYTES
"""The same in bytes."""

_log = get_log()


@final
@attrs.define(eq=False)
class Peers:
    """All other nodes that something is under way with."""

    endpoint: Endpoint
    judge: Judge
    nursery: trio.Nursery
    now: Callable[[], float]
    """Unix seconds; sessions' timers run on trio's clock."""
    carriers: list[Carrier] = attrs.field(factory=list[Carrier])
    lost: int = 0
    """Messages that could not be sent, and asks of others whose answers could not be."""
    dropped: int = 0
    """Packets that no relay took, because it was away or its queue was full."""
    is_closed: bool = False
    _peers: dict[bytes, Peer] = attrs.field(factory=dict[bytes, Peer])
    _requests: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _timer_moved: trio.Event = attrs.field(factory=trio.Event)

    def __len__(self) -> int:
        return len(self._peers)

    async def tell(self, node: bytes, entry: Tell) -> None:
        """Queue a message for another node, waiting for room."""
        check_size(entry)
        await trio.lowlevel.checkpoint()
        await self._with_room(node)
        self._peer(node).post(entry)

    def tell_nowait(self, node: bytes, entry: Tell) -> None:
        """Queue a message for another node.

        Raises:
            MailboxFull: the queue to it is full.
        """
        check_size(entry)
        if not self._peer(node).has_room():
            msg = f"the queue to {format_identifier(node)} is full ({MOST_WAITING} messages)"
            raise MailboxFull(msg)
        self._peer(node).post(entry)

    async def ask(self, node: bytes, ask: Callable[[int], Ask], reply_type: object | None, address: str) -> Any:  # noqa: ANN401 - the reply's type is the request's
        """Send a request to another node and wait for its reply.

        Args:
            node: the other node.
            ask: makes the entry from its number.
            reply_type: what the reply is decoded into; None for no type.
            address: whom it is for, in words.
        """
        entry = ask(next(self._requests))
        check_size(entry)
        await self._with_room(node)
        peer = self._peer(node)
        reply = PendingReply()
        peer.asked[entry.request] = OpenAsk(entry, reply, reply_type, address)
        peer.post(entry)
        return await reply.wait(lambda: self._withdraw(peer, entry))

    def receive(self, carrier: Carrier, source: bytes, packet: bytes) -> None:
        """Take a packet from a relay; never raises, never waits."""
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
        """Let every peer's queue be looked at again, after a relay came back."""
        for peer in self._peers.values():
            peer.wake()

    async def run_timers(self) -> None:
        """Let the endpoint do what falls due, until cancelled."""
        while True:
            self._timer_moved = trio.Event()
            with trio.move_on_at(self.endpoint.next_deadline()):
                await self._timer_moved.wait()
                continue
            self.endpoint.handle_timer(self.now(), trio.current_time())
            self._carry_out()

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
            peer = self._peers[node] = Peer(node)
            self.nursery.start_soon(self._send_to, peer, name=f"sends to {peer.name}")
        return peer

    async def _with_room(self, node: bytes) -> None:
        while not (peer := self._peer(node)).has_room():
            await peer.wait_room()

    async def _send_to(self, peer: Peer) -> None:
        """Be the task that sends to one node: all that waits when it wakes leaves in one envelope."""
        while not peer.ended:
            if not peer.waiting:
                await peer.wait_woken()
            elif not self._is_attached():
                await self._wait_attached(peer)
            elif self._is_ready(peer):
                await self._wait_room(peer)
                self._send_batch(peer)
            else:
                await self._connect(peer)

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

    def _send_batch(self, peer: Peer) -> None:
        if peer.ended or not peer.waiting or not self._is_ready(peer):
            return
        batch = peer.take_batch()
        try:
            self.endpoint.send(peer.identifier, batch, self.now(), trio.current_time())
        except NotDelivered:
            # The session is too old to be sent on: the batch waits for the next one.
            peer.put_back(batch)
            self.endpoint.connect(peer.identifier, self.now(), trio.current_time())
        else:
            for entry in batch:
                if isinstance(entry, Ask) and entry.request in peer.asked:
                    peer.asked[entry.request].sent_at = trio.current_time()
            self._expect(peer)
        self._carry_out()

    def _withdraw(self, peer: Peer, entry: Ask) -> None:
        """Take an ask back whose asker was cancelled: out of the queue, or with a cancel after it."""
        open_ask = peer.asked.pop(entry.request, None)
        if open_ask is None:
            return
        if open_ask.sent_at is not None:
            peer.post(Cancel(entry.request))
        else:
            peer.withdraw(entry)
        self._expect(peer)

    def _expect(self, peer: Peer) -> None:
        self.endpoint.expect(peer.identifier, bool(peer.asked or peer.served), trio.current_time())
        self._timer_moved.set()

    def _carry_out(self) -> None:
        """Do what the endpoint has decided, in its order."""
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
        self._timer_moved.set()

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
            self._drop_served(peer)
            self._expect(peer)
        peer.bundle = event.bundle
        self.judge.show(peer, event.presentations)
        peer.wake()

    def _received(self, event: Received) -> None:
        peer = self._peers.get(event.peer)
        if peer is None or peer.bundle is None:
            return  # nothing is taken from whom the endpoint has not presented
        for entry in event.entries:
            match entry:
                case Tell() | Ask():
                    self._take_message(peer, entry, late=event.late)
                case Reply():
                    self._take_reply(peer, entry)
                case Error():
                    open_ask = peer.asked.pop(entry.request, None)
                    if open_ask is not None:
                        error = from_code(entry.code, entry.text, address=open_ask.address, message=open_ask.entry.name)
                        open_ask.reply.settle(outcome.Error(error))
                case Cancel():
                    delivery = peer.served.pop(entry.request, None)
                    if delivery is not None:
                        delivery.cancel()
                case Presentations() if peer.shows.try_take(len(entry.presentations), trio.current_time()):
                    self.judge.show(peer, entry.presentations)
                case _:
                    pass  # Close, for the endpoint has said PeerGone; and credentials past what one may show
        self._expect(peer)

    def _take_message(self, peer: Peer, entry: Tell | Ask, *, late: bool) -> None:
        if isinstance(entry, Ask) and (len(peer.waiting) >= MOST_UNSENT or peer.waiting_bytes >= MOST_UNSENT_BYTES):
            self.lost += 1  # it asks and takes no answers: one more would have no room
            return
        if isinstance(entry, Ask) and (len(peer.served) >= MOST_SERVED or entry.request in peer.served):
            peer.post(Error(entry.request, "overloaded", f"{MOST_SERVED} asks are open already"))
            return

        def answer(result: outcome.Outcome[Any]) -> None:
            # One whose asker has gone, or was told already, is not open any more; its number may be another's now.
            if isinstance(entry, Ask) and peer.served.get(entry.request) is verdict:
                del peer.served[entry.request]
                peer.post(_answer(entry.request, result))
                self._expect(peer)

        verdict = self.judge.admit(peer, entry, answer, late=late)
        if isinstance(entry, Ask):
            if isinstance(verdict, Delivery):
                peer.served[entry.request] = verdict
            elif verdict is not None:
                peer.post(_answer(entry.request, outcome.Error(verdict)))

    def _take_reply(self, peer: Peer, entry: Reply) -> None:
        open_ask = peer.asked.pop(entry.request, None)
        if open_ask is None:
            return
        try:
            value = decode_payload(entry.payload, open_ask.reply_type)
        except MessageError as error:
            refusal = MessageError(f"the reply of {open_ask.address} does not fit {open_ask.entry.name}: {error}")
            open_ask.reply.settle(outcome.Error(refusal))
        except Exception as error:  # noqa: BLE001 - fence: a program's classes, at a stranger's values
            refusal = MessageError(f"the reply of {open_ask.address} cannot be read: {type(error).__name__}")
            open_ask.reply.settle(outcome.Error(refusal))
        else:
            open_ask.reply.settle(outcome.Value(value))

    def _give_up(self, peer: Peer, reason: str) -> None:
        """Drop what waits for a node that cannot be reached; a node that never was is forgotten."""
        if peer.bundle is None:
            self._end(peer, reason)
        else:
            self._drop_waiting(peer, reason)
            self._expect(peer)

    def _end(self, peer: Peer, reason: str) -> None:
        """Forget a node: whoever waits for it is told, and its unanswered asks are cancelled."""
        self._peers.pop(peer.identifier, None)
        peer.end()
        self._drop_waiting(peer, reason)
        self._fail_sent(peer, reason)
        self._drop_served(peer)
        self._expect(peer)

    def _drop_waiting(self, peer: Peer, reason: str) -> None:
        """Empty the queue to a node, of which nothing was sent; answers stay until it is gone, for somebody waits."""
        tells = 0
        for entry in peer.take_all():
            if isinstance(entry, Reply | Error) and not peer.ended:
                peer.post(entry)
            open_ask = peer.asked.pop(entry.request, None) if isinstance(entry, Ask) else None
            if open_ask is not None:
                error = NotDelivered(f"{open_ask.entry.name} was not delivered to {open_ask.address}: {reason}")
                open_ask.reply.settle(outcome.Error(error))
            tells += isinstance(entry, Tell)
        if tells:
            self.lost += tells
            _log.warning("messages lost", node=peer.name, count=tells, reason=reason)

    @staticmethod
    def _fail_sent(peer: Peer, reason: str, since: float = -math.inf) -> None:
        """End the asks whose answers cannot come any more: those that were sent, at `since` or later."""
        for request, open_ask in list(peer.asked.items()):
            if open_ask.sent_at is not None and open_ask.sent_at >= since:
                del peer.asked[request]
                error = OutcomeUnknown(
                    f"{reason} after {open_ask.entry.name} was sent to {open_ask.address}: it may have had effects"
                )
                open_ask.reply.settle(outcome.Error(error))

    @staticmethod
    def _drop_served(peer: Peer) -> None:
        """Cancel the asks of a process that has gone; its successor uses their numbers again, so no answer may stay."""
        for entry in peer.take_all():
            if not isinstance(entry, Reply | Error):
                peer.post(entry)
        for delivery in list(peer.served.values()):
            delivery.cancel()
        peer.served.clear()


def _answer(request: int, result: outcome.Outcome[Any]) -> Entry:
    if isinstance(result, outcome.Value):
        try:
            reply = Reply(request, encode_payload(result.value))
            check_size(reply)
        except Exception as error:  # noqa: BLE001 - fence: a program's own mappings and descriptors, besides MessageError
            _log.error("reply not sent", error=str(error))
            return Error(request, "handler failed", "the reply has no encoding or is too large")
        else:
            return reply
    assert isinstance(result, outcome.Error)  # noqa: S101 - an outcome is one of the two
    code, text = to_code(result.error)
    return Error(request, code, text)
