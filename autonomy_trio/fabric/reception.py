"""What other nodes ask of this one: messages, streams and watches, judged before anything of them is kept."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, final

import attrs
import trio

from autonomy_trio.actors.delivery import Asked
from autonomy_trio.actors.watches import Outsider
from autonomy_trio.errors import NotDelivered, OutcomeUnknown, Overloaded
from autonomy_trio.fabric.outcomes import error_entry
from autonomy_trio.fabric.peer import Answering, Judge, Peer
from autonomy_trio.fabric.streams import Feeding
from autonomy_trio.fabric.watches import MOST_WATCHES, Watched
from autonomy_trio.wire.entries import Asking, Awaited, Cancel, Credit, Message, Open, Tell, Unwatch, Watch
from autonomy_trio.wire.introductions import Agent

_NOBODY: Final = "the agent that sent it is not known here, or its node may not speak for it any more"


@final
@attrs.define(eq=False)
class Reception:
    """Takes what nodes ask; whoever calls it looks afterwards at what is open with them."""

    _judge: Judge
    _changed: Callable[[Peer], None]
    """Told when something of a node's has ended later on."""
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
        agent = None
        if isinstance(entry, Message | Watch) and entry.sender:
            agent = senders.get(entry.sender)
            if agent is None:
                self._refuse_nobody(peer, entry)
                return
        match entry:
            case Tell():
                self._judge.admit(peer, entry, agent, None, late=late)
            case Cancel() | Unwatch():
                peer.cancel(entry.request)
            case _ if peer.is_glutted:
                self.lost += 1  # it asks and takes no answers: one more would have no room
            case Watch():
                self._take_watch(peer, entry, agent, late=late)
            case Credit():
                self._take_credit(peer, entry)
            case Awaited():
                self._take_awaited(peer, entry, late=late)
            case _:
                self._take_request(peer, entry, agent, late=late)

    def _refuse_nobody(self, peer: Peer, entry: Message | Watch) -> None:
        """Refuse what an agent says that is not known here; its node is told so, and introduces it when it next speaks.

        A watch comes again by itself.
        """
        if isinstance(entry, Watch):
            return
        self._judge.bury(entry, peer.name, "lost", _NOBODY)
        if not isinstance(entry, Tell):
            peer.post(error_entry(entry.request, NotDelivered(f"{_NOBODY}: nothing was run")))

    def _take_request(self, peer: Peer, entry: Message, agent: Agent | None, *, late: bool) -> None:
        assert not isinstance(entry, Tell)  # noqa: S101 - it wants no answer
        refusal = peer.has_too_many(entry)
        if refusal is not None:
            peer.post(error_entry(entry.request, refusal))
            return
        reply: Feeding | Answering
        if isinstance(entry, Open):
            reply = peer.feeding[entry.request] = Feeding(
                entry, peer, partial(self._stream_ended, peer, entry.request), trio.current_time()
            )
        else:
            reply = peer.served[entry.request] = Answering(entry.request, peer, partial(self._changed, peer))
        verdict = self._judge.admit(peer, entry, agent, reply, late=late)
        if isinstance(verdict, Asked):
            reply.delivery = verdict
        elif verdict is not None:
            reply.fail(verdict)

    def _stream_ended(self, peer: Peer, request: int) -> None:
        peer.feeding.pop(request, None)
        self._changed(peer)

    def _take_watch(self, peer: Peer, entry: Watch, agent: Agent | None, *, late: bool) -> None:
        watched, now = peer.watched.get(entry.request), trio.current_time()
        if watched is not None:
            watched.repeat(now)
        elif not late and len(peer.watched) < MOST_WATCHES:
            # Else it comes again: a late one may have been taken back, and there may be room another time.
            try:
                found = self._judge.may_watch(peer, entry, agent)
            except Overloaded:
                return  # as well
            watched = peer.watched[entry.request] = Watched(entry.request, peer, now)
            if found is None:
                watched.tell("unknown agent")
            else:
                watched.begin(Outsider(watched.tell, found))

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
