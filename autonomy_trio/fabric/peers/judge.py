"""Who decides on what arrives from other nodes and on what leaves for them, as the sessions see it."""

from collections.abc import Sequence
from typing import Protocol, final

import attrs

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.dead_letters import Reason
from autonomy_trio.actors.delivery import Asked, Delivery, Reply
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.errors import DeliveryError, Denied, Overloaded
from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.wire.entries import Message, Spoken, Subscribe, Watch
from autonomy_trio.wire.introductions import Agent


class Judge(Protocol):
    """Who decides on what arrives and what leaves: the node's admission."""

    def show(self, peer: Peer, presentations: Sequence[bytes]) -> None:
        """Take note of the credentials a node shows."""
        ...

    def admit(
        self, peer: Peer, entry: Message, agent: Agent | None, reply: Reply | None, *, late: bool
    ) -> "Asked | Full | DeliveryError | None":
        """Judge one message: the delivery of one that waits for its handler, why it may not pass, or None."""
        ...

    def overflow(self, peer: Peer, entry: Message) -> Overloaded:
        """Count a message that may pass, and came in spite of what its sender was granted."""
        ...

    def may_watch(self, peer: Peer, entry: Watch, agent: Agent | None) -> Cell | PoolCell | None:
        """Judge a watch: the agent, or None where there is none for that sender to watch; raises `Overloaded`."""
        ...

    def leave(self, peer: Peer) -> None:
        """Take note that a node has gone."""
        ...

    @property
    def judges_sending(self) -> bool:
        """Whether `may_send` could refuse anything."""
        ...

    def must_ask(self, peer: Peer, entry: Spoken) -> bool:
        """Tell whether a message may not be sent to a node by what is known of it, which it could prove otherwise."""
        ...

    def may_subscribe(self, peer: Peer, entry: Subscribe, agent: Agent | None) -> bool:
        """Judge a subscription to a topic of this node; raises `Overloaded`."""
        ...

    def may_send(self, peer: Peer, entry: Spoken, *, sealed: bool = False) -> Denied | None:
        """Judge one message that is to leave: why it may not, or None."""
        ...

    def bury(self, entry: Message, sender: str, reason: Reason, why: str = "") -> None:
        """Make a dead letter of a message."""
        ...


@final
@attrs.frozen
class Full:
    """A message may pass, and finds no room in the mailbox."""

    cell: Cell
    delivery: Delivery
