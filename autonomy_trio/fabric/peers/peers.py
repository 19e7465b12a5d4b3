"""What this node's agents ask of other nodes: messages, asks, streams, watches and subscriptions.

What is to leave waits for room in its agent's mailbox over there and in the queue to its node; `Sessions` send it.

An ask that was never sent ends in `NotDelivered`; one that was sent and whose answer cannot come any more, in
`OutcomeUnknown`.
"""

import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, final

import attrs
import trio

from autonomy_trio.errors import Denied, MailboxFull
from autonomy_trio.fabric.peers.asks import OpenAsk
from autonomy_trio.fabric.peers.outcomes import Expected
from autonomy_trio.fabric.peers.peer import MOST_WAITING, Peer
from autonomy_trio.fabric.peers.sessions import Sessions
from autonomy_trio.fabric.peers.streams import Reading
from autonomy_trio.fabric.peers.watches import Watching
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.wire.constants import MESSAGE_OVERHEAD
from autonomy_trio.wire.credit import message_cost
from autonomy_trio.wire.entries import (
    Ask,
    Message,
    Open,
    Standing,
    Subscribe,
    Tell,
    Watch,
    check_size,
    shown_presentations,
)

MEET_LIMIT: Final = 5.0
"""Seconds in which a node that is not known yet must answer."""

TELLS_PER_CHECKPOINT: Final = 128
"""A message that need not wait still lets others run, once in so many: an envelope is worth more than one in the
process, for it has a signature."""

ASK_EVERY: Final = 1.0
"""Seconds between two questions of a sender that waits for credit."""


@final
@attrs.define(eq=False)
class Peers:
    """The other nodes as the agents of this one reach them."""

    sessions: Sessions
    _requests: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _told: int = 0

    async def tell(self, node: bytes, entry: Tell) -> None:
        """Queue a message for another node, waiting for room there and in the queue to it."""
        size = check_size(entry)
        self._told += 1
        if not self._told % TELLS_PER_CHECKPOINT:
            # After each one, the sending task would run in between, and each would leave in an envelope of its own.
            await trio.lowlevel.checkpoint()
        peer = self.sessions.peer(node)
        if peer.outflows.try_reserve(entry.recipient, size + MESSAGE_OVERHEAD):
            peer.post(entry, size)
        else:
            await self._queue(node, entry, lambda peer: peer.post(entry, size))

    def tell_nowait(self, node: bytes, entry: Tell) -> None:
        """Queue a message for another node.

        Raises:
            MailboxFull: the queue to it is full, or as much as may be is under way to the agent.
        """
        size, peer = check_size(entry), self.sessions.peer(node)
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

        peer = self.sessions.peer(node)
        if peer.outflows.try_reserve(entry.recipient, size + MESSAGE_OVERHEAD):
            peer.asked[entry.request] = opened
            peer.put(entry, size)
            peer.send_now(peer)
        else:

            def post(peer: Peer) -> None:
                peer.asked[entry.request] = opened
                peer.post(entry, size)

            with trio.fail_at(waits_until):
                peer = await self._queue(node, entry, post)
        return await opened.reply.wait(lambda: self._take_back(peer, entry))

    def show(self, presentations: Sequence[bytes]) -> None:
        """Show other credentials from here on, in the sessions that stand."""
        for peer in self.sessions.peers.values():
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
            reading = Reading(entry, expected, peer, self.sessions.read_ref, partial(self._take_back, peer, entry))
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
        peer = self.sessions.peer(node)
        peer.watching[entry.request] = Watching(entry, told)
        peer.post(entry)
        return partial(self._take_back, peer, entry)

    async def meet(self, node: bytes) -> Bundle | None:
        """Return the bundle of a node, from a handshake where there is no session; None where it does not answer."""
        peer = self.sessions.peer(node)
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(MEET_LIMIT):
            while peer.bundle is None and not peer.ended:
                if self.sessions.is_attached:
                    await self.sessions.connect(peer)
                else:
                    await peer.wait_woken()
        return peer.bundle

    def must_ask(self, node: bytes, entry: Tell) -> bool:
        """Tell whether a node must be asked for its credentials before a message may be sealed for it."""
        return self.sessions.judge.must_ask(self.sessions.peers.get(node) or Peer(node), entry)

    def may_send(self, node: bytes, entry: Tell) -> Denied | None:
        """Judge a message that is to leave sealed, by what its node has proven: why it may not, or None."""
        return self.sessions.judge.may_send(self.sessions.peers.get(node) or Peer(node), entry, sealed=True)

    async def _queue(self, node: bytes, entry: Message, post: Callable[[Peer], None]) -> Peer:
        """Queue a message for another node, waiting for room in its mailbox there and in the queue to its node.

        Args:
            node: the other node.
            entry: the message.
            post: queues it, as soon as there is room.
        """
        cost = message_cost(entry)
        while True:
            peer = self.sessions.peer(node)
            if peer.outflows.try_reserve(entry.recipient, cost):
                post(peer)
                return peer
            if not peer.asks_for_credit:
                peer.asks_for_credit = True
                self.sessions.nursery.start_soon(self._ask_for_credit, peer, name=f"asks {peer.name} for credit")
            if await peer.outflows.wait(entry.recipient, cost, partial(post, peer)):
                return peer

    async def _ask_for_credit(self, peer: Peer) -> None:
        """Ask a node again and again how far it is, while somebody waits for that."""
        while peer.outflows.is_awaited and not peer.ended:
            self.sessions.expect(peer)
            await trio.sleep(ASK_EVERY)
            peer.outflows.ask_again()
        peer.asks_for_credit = False
        self.sessions.expect(peer)

    def _take_back(self, peer: Peer, entry: Ask | Open | Standing) -> None:
        peer.take_back(entry)
        self.sessions.expect(peer)
