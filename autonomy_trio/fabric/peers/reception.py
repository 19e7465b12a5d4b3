"""What other nodes ask of this one: messages, streams and watches, judged before anything of them is kept."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, final

import attrs
import trio

from autonomy_trio.actors.delivery import Asked
from autonomy_trio.actors.watches import Outsider
from autonomy_trio.errors import DeliveryError, NotDelivered, OutcomeUnknown, Overloaded
from autonomy_trio.fabric.peers.asks import Answering
from autonomy_trio.fabric.peers.flows import may_hold
from autonomy_trio.fabric.peers.judge import Full, Judge
from autonomy_trio.fabric.peers.outcomes import error_entry
from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.fabric.peers.streams import Feeding
from autonomy_trio.fabric.peers.watches import MOST_WATCHES, Tie, Watched
from autonomy_trio.wire.credit import Granting, message_cost
from autonomy_trio.wire.entries import (
    Ask,
    Asking,
    Awaited,
    Blocked,
    Cancel,
    Credit,
    Message,
    Open,
    Standing,
    Subscribe,
    Tell,
    Unwatch,
    Watch,
)
from autonomy_trio.wire.introductions import Agent

_NOBODY: Final = "the agent that sent it is not known here, or its node may not speak for it any more"


@final
@attrs.define(eq=False)
class Reception:
    """Takes what nodes ask; whoever calls it looks afterwards at what is open with them, and is to be said."""

    _judge: Judge
    _changed: Callable[[Peer], None]
    """Told when something of a node's has ended later on."""
    subscriber: Callable[[Peer, Subscribe, Agent | None, Callable[[str], None]], Tie] = attrs.field(init=False)
    """Makes what takes the publications to a topic here for an agent elsewhere."""
    held_bytes: int = 0
    """Bytes of messages from all nodes that wait for room in a mailbox."""
    _held: dict[bytes, int] = attrs.field(factory=dict[bytes, int])
    """The same by node: what one left behind that has gone, or was restarted, counts when it comes again."""
    missing: int = 0
    """Messages that were lost on the way, as far as those after them show."""
    lost: int = 0
    """What was not looked at, since its node takes no answers."""

    def take(self, peer: Peer, entry: Asking, senders: Mapping[int, Agent], *, late: bool) -> None:
        """Take one entry.

        Args:
            peer: the node it comes from.
            entry: what it asks.
            senders: the node's agents that speak, by index.
            late: whether something that the node said later came before it.
        """
        match entry:
            case Tell() | Ask() | Open():
                self.take_message(peer, entry, senders, late=late)
            case Cancel() | Unwatch():
                peer.cancel(entry.request)
            case _ if peer.is_glutted:
                self.lost += 1  # it asks and takes no answers: one more would have no room
            case Watch() | Subscribe():
                self._take_standing(peer, entry, senders, late=late)
            case Credit():
                self._take_credit(peer, entry)
            case Awaited():
                self._take_awaited(peer, entry, late=late)
            case Blocked():
                peer.inflows.asked(entry)

    def take_message(self, peer: Peer, entry: Message, senders: Mapping[int, Agent], *, late: bool) -> None:
        """Judge a message; one that may pass and finds no room waits for it, as far as its sender was granted."""
        inflows = peer.inflows
        flow = inflows.arrive(entry, late=late)
        if inflows.missing:
            self.missing += inflows.take_missing()
        agent = senders.get(entry.sender) if entry.sender else None
        reply: Feeding | Answering | None = None
        verdict: Asked | Full | Callable[[], None] | DeliveryError | None = None
        if entry.sender and agent is None:
            self._refuse_nobody(peer, entry)
        elif isinstance(entry, Tell):
            verdict = self._judge.admit(peer, entry, agent, None, late=flow is None)
        else:
            # Of what asks, a cancel that was sent after it may have come before it, so no late envelope is taken.
            reply, verdict = self._take_request(peer, entry, agent, late=late or flow is None)
        if isinstance(verdict, Full):
            verdict = self._hold(peer, flow, entry, verdict)
        elif flow is not None:
            inflows.dispose(flow, entry, message_cost(entry))
        if reply is not None:
            self._begin(reply, verdict)

    @staticmethod
    def _begin(reply: Feeding | Answering, verdict: Asked | Callable[[], None] | DeliveryError | None) -> None:
        if isinstance(verdict, Asked):
            reply.withdraw = verdict.cancel
        elif isinstance(verdict, DeliveryError):
            reply.fail(verdict)
        else:
            reply.withdraw = verdict

    def _hold(self, peer: Peer, flow: Granting | None, entry: Message, full: Full) -> Callable[[], None] | Overloaded:
        """Let a message wait for room in its mailbox; returns what takes it back, or why it may not."""
        inflows, cost = peer.inflows, message_cost(entry)
        if flow is None or not (flow.may_hold(cost) and self._may_hold(peer.identifier, cost)):
            if flow is not None:
                inflows.dispose(flow, entry, cost)
            return self._judge.overflow(peer, entry)
        flow.hold(entry.number, cost)
        self._note_held(peer.identifier, cost)

        def let_go() -> None:
            inflows.let_go(flow, entry, cost)
            self._note_held(peer.identifier, -cost)
            if inflows.has_words:
                peer.wake()

        return full.cell.put_in_lobby(full.delivery, let_go)

    def _may_hold(self, node: bytes, cost: int) -> bool:
        return may_hold(self._held.get(node, 0) + cost, self.held_bytes + cost)

    def _note_held(self, node: bytes, cost: int) -> None:
        self.held_bytes += cost
        held = self._held[node] = self._held.get(node, 0) + cost
        if not held:
            del self._held[node]

    def _refuse_nobody(self, peer: Peer, entry: Message) -> None:
        """Refuse what an agent says that is not known here; its node is told, and introduces it when it next speaks."""
        self._judge.bury(entry, peer.name, "lost", _NOBODY)
        if peer.is_glutted:
            self.lost += 1
        elif not isinstance(entry, Tell):
            peer.post(error_entry(entry.request, NotDelivered(f"{_NOBODY}: nothing was run")))

    def _take_request(
        self, peer: Peer, entry: Ask | Open, agent: Agent | None, *, late: bool
    ) -> tuple[Feeding | Answering | None, Asked | Full | DeliveryError | None]:
        if peer.is_glutted:
            self.lost += 1
            return None, None
        refusal = peer.has_too_many(entry)
        if refusal is not None:
            peer.post(error_entry(entry.request, refusal))
            return None, None
        reply: Feeding | Answering
        if isinstance(entry, Open):
            reply = peer.feeding[entry.request] = Feeding(
                entry, peer, partial(self._stream_ended, peer, entry.request), trio.current_time()
            )
        else:
            reply = peer.served[entry.request] = Answering(entry.request, peer, self._changed)
        return reply, self._judge.admit(peer, entry, agent, reply, late=late)

    def _stream_ended(self, peer: Peer, request: int) -> None:
        peer.feeding.pop(request, None)
        self._changed(peer)

    def _take_standing(self, peer: Peer, entry: Standing, senders: Mapping[int, Agent], *, late: bool) -> None:
        """Take a watch or a subscription, or its repetition; one that is not taken now comes again."""
        agent = senders.get(entry.sender) if entry.sender else None
        if entry.sender and agent is None:
            return
        watched, now = peer.watched.get(entry.request), trio.current_time()
        if watched is not None:
            watched.repeat(now)
            if watched.is_told or isinstance(entry, Watch):
                return
        if late or (watched is None and len(peer.watched) >= MOST_WATCHES):
            return  # a late one may have been taken back
        watched = watched or Watched(entry.request, peer, now)
        try:
            tie = self._judge_standing(peer, entry, agent, watched.tell)
        except Overloaded:
            return
        peer.watched[entry.request] = watched
        watched.end()
        if tie is None:
            watched.tell("unknown agent")
        else:
            watched.begin(tie)

    def _judge_standing(
        self, peer: Peer, entry: Standing, agent: Agent | None, told: Callable[[str], None]
    ) -> Tie | None:
        if isinstance(entry, Watch):
            found = self._judge.may_watch(peer, entry, agent)
            return None if found is None else Outsider(told, found)
        return self.subscriber(peer, entry, agent, told) if self._judge.may_subscribe(peer, entry, agent) else None

    @staticmethod
    def _take_awaited(peer: Peer, entry: Awaited, *, late: bool) -> None:
        """Tell of asks that are not open here: an answer that was sent is ahead of this, and an ask to come is late."""
        if late:
            return  # what it names may have been answered since then; it is repeated
        lost = OutcomeUnknown("the ask is not open here: it, or its answer, was lost on the way")
        for request in entry.requests:
            if request not in peer.served:
                peer.post(error_entry(request, lost))

    @staticmethod
    def _take_credit(peer: Peer, entry: Credit) -> None:
        feeding = peer.feeding.get(entry.request)
        if feeding is not None:
            feeding.allow(entry, trio.current_time())
        else:
            lost = OutcomeUnknown("the stream is not open here any more: its end, or its opening, was lost on the way")
            peer.post(error_entry(entry.request, lost))
