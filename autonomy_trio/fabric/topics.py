"""Topics between nodes: what is published to a topic goes to each subscriber elsewhere as a tell that never waits.

So it is judged there as any message, keeps its order, and is lost and counted where its recipient is full. Who may
subscribe is judged when it does, and again with each publication.
"""

from collections.abc import Callable
from typing import Final, final

import attrs
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.dead_letters import DeadLetter, Reason
from autonomy_trio.actors.runtime import Runtime
from autonomy_trio.actors.topics import check_topic
from autonomy_trio.errors import MailboxFull, MessageError, NotDelivered, Overloaded
from autonomy_trio.fabric.access.admission import Admission
from autonomy_trio.fabric.identity.voices import Voices
from autonomy_trio.fabric.links.addresses import Address, RelayAddress
from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.fabric.peers.peers import Peers
from autonomy_trio.logs import get_log, printable
from autonomy_trio.messages import encode_payload, wire_name
from autonomy_trio.wire.entries import Subscribe, Tell
from autonomy_trio.wire.introductions import Agent

AGAIN_AFTER: Final = 10.0
"""Seconds after which a subscription is begun again whose node was lost."""

REFUSED_AGAIN_AFTER: Final = 60.0
"""The same of one that was refused."""

_log = get_log()


@final
@attrs.define(eq=False)
class Subscriptions:
    """The topics of other nodes that agents here subscribe to, and the agents elsewhere that subscribe here."""

    _runtime: Runtime
    _admission: Admission
    _peers: Peers
    _voices: Voices
    _nursery: trio.Nursery
    _attach: Callable[[RelayAddress], None]

    def subscribe(self, topic: str, cell: Cell) -> Callable[[], None]:
        """Subscribe an agent to a topic of another node; returns what ends that.

        Raises:
            AddressError: it is no address.
            UsageError: what it names is no topic.
            ConfigurationError: it names one relay too many.
        """
        address = Address.parse(topic)
        check_topic(address.agent)
        if address.relay is not None:
            self._attach(address.relay)
        subscription = Subscription(self._peers, self._voices, self._nursery, address, cell)
        subscription.begin()
        return subscription.end

    def subscriber(
        self, peer: Peer, entry: Subscribe, agent: Agent | None, told: Callable[[str], None]
    ) -> "RemoteSubscriber":
        """Return what takes the publications to a topic here for an agent elsewhere."""
        return RemoteSubscriber(self._runtime, self._admission, self._peers, self._voices, peer, entry, agent, told)


@final
@attrs.define(eq=False)
class Subscription:
    """A topic of another node that an agent here subscribes to: begun again and again, until it is ended."""

    _peers: Peers
    _voices: Voices
    _nursery: trio.Nursery
    _address: Address
    _cell: Cell
    _leave: Callable[[], None] | None = None
    _waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _is_refused: bool = False

    def begin(self) -> None:
        """Ask the other node for what is published."""
        try:
            self._leave = self._peers.subscribe(
                self._address.node, self._address.agent, self._cell.name, self._voices.of(self._cell), self._told
            )
        except NotDelivered:
            return  # this node is stopping

    def end(self) -> None:
        """Want no more of it."""
        self._waiting.cancel()
        if self._leave is not None:
            self._leave()

    def _told(self, reason: str) -> None:
        self._leave = None
        is_refused = reason == "unknown agent"
        if is_refused and not self._is_refused:
            _log.warning("subscription refused", topic=str(self._address), agent=self._cell.name)
        self._is_refused = is_refused
        self._nursery.start_soon(self._again, REFUSED_AGAIN_AFTER if is_refused else AGAIN_AFTER)

    async def _again(self, seconds: float) -> None:
        with self._waiting:
            await trio.sleep(seconds)
        if not self._waiting.cancel_called:
            self._waiting = trio.CancelScope()
            self.begin()


@final
@attrs.define(eq=False)
class RemoteSubscriber:
    """An agent of another node that has subscribed to a topic here."""

    _runtime: Runtime
    _admission: Admission
    _peers: Peers
    _voices: Voices
    _peer: Peer
    _entry: Subscribe
    _agent: Agent | None
    _told: Callable[[str], None]

    def begin(self) -> None:
        """Take what is published."""
        self._runtime.topics.join(self._entry.topic, self)

    def end(self) -> None:
        """Take no more."""
        self._runtime.topics.leave(self._entry.topic, self)

    def take(self, message: object, source: Cell | None) -> None:
        """Tell the agent what was published, while it still may know; what finds no room is lost, and counted."""
        reason: Reason
        try:
            if not self._admission.may_subscribe(self._peer, self._entry, self._agent):
                self.end()
                self._told("unknown agent")
                return
            payload = encode_payload(message)
            tell = Tell(self._entry.recipient, wire_name(type(message)), payload, self._voices.of(source), 0)
            self._peers.tell_nowait(self._peer.identifier, tell)
        except (MailboxFull, Overloaded):
            reason = "overloaded"
        except NotDelivered:
            reason = "stopped"
        except MessageError:
            reason = "malformed"
        else:
            return
        sender = "node" if source is None else source.name
        recipient = f"{self._peer.name}/{printable(self._entry.recipient)}"
        letter = DeadLetter(recipient, wire_name(type(message)), sender, reason)
        if isinstance(message, DeadLetter):  # one about another is not published: it would breed the next
            self._runtime.dead_letters.add(letter)
        else:
            self._runtime.add_dead_letter(letter)
