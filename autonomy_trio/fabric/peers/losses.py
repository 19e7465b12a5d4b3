"""What may be lost between nodes: what is open is said again and again, and what cannot be answered any more ends."""

import math
from typing import TYPE_CHECKING

from autonomy_trio.errors import NotDelivered, OutcomeUnknown
from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.fabric.peers.streams import LEASE, Feeding, Reading
from autonomy_trio.logs import get_log
from autonomy_trio.wire.constants import AWAITED
from autonomy_trio.wire.entries import Answer, Awaited, Message, Standing, Tell

if TYPE_CHECKING:
    from autonomy_trio.fabric.peers.asks import OpenAsk
    from autonomy_trio.fabric.peers.watches import Watched

_log = get_log()


def repeat(peer: Peer, now: float, *, asked_before: float) -> None:
    """Say what is open, so that the other node tells what it has nothing of: that was lost on the way."""
    _ask_about_sent(peer, asked_before)
    waiting = set(map(id, peer.waiting))
    for reading in peer.reading.values():
        if reading.sent_at is not None and id(reading.word) not in waiting:
            reading.grant()
    for watching in peer.watching.values():
        if watching.sent_at is not None and id(watching.entry) not in waiting:
            peer.post(watching.entry)
    if peer.lane is not None:
        peer.lane.repeat()
    _end_silent(peer, now)


def _ask_about_sent(peer: Peer, before: float) -> None:
    """Ask which asks are still open there, of those sent before a time, unless such a word waits to leave."""
    if any(isinstance(entry, Awaited) for entry in peer.waiting):
        return
    asks = peer.asked.values()
    sent = [each.entry.request for each in asks if each.sent_at is not None and each.sent_at < before]
    for start in range(0, len(sent), AWAITED):
        peer.post(Awaited(tuple(sent[start : start + AWAITED])))


def _end_silent(peer: Peer, now: float) -> None:
    """End the streams and watches of a node that has said nothing of them for too long."""
    silent: list[Feeding | Watched] = [*peer.feeding.values(), *peer.watched.values()]
    for each in silent:
        if now >= each.heard_at + LEASE:
            peer.cancel(each.request)


def drop_waiting(peer: Peer, reason: str) -> int:
    """Empty the queue to a node, of which nothing was sent; answers stay until it is gone, for somebody waits.

    Returns:
        how many messages were lost whose senders do not wait.
    """
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
        _log.warning("messages lost", node=peer.name, count=tells, reason=reason)
    return tells


def fail_sent(peer: Peer, reason: str, since: float = -math.inf) -> None:
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
