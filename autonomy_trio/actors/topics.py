"""Topics of a node: what is published to one goes to each subscriber that has room."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, final

import attrs

from autonomy_trio.actors.delivery import Delivery
from autonomy_trio.errors import DeliveryError, NotDelivered, Overloaded, UsageError

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.dead_letters import Reason

MOST_TOPICS = 1024
"""Topics one agent may subscribe to."""


@attrs.frozen
class Subscribing:
    """What the policy of a topic reads of a subscription, besides who subscribes: nothing."""


class Subscriber(Protocol):
    """Somebody outside of this process who has subscribed to a topic here."""

    def take(self, message: object, source: "Cell | None") -> None:
        """Take what is published, without waiting."""
        ...


def _no_other_nodes(topic: str, cell: "Cell") -> Callable[[], None]:
    del cell
    msg = f"{topic!r} is a topic of another node, and this runtime knows no other"
    raise UsageError(msg)


@final
@attrs.define(eq=False, repr=False)
class Topics:
    """Who subscribes to what."""

    elsewhere: "Callable[[str, Cell], Callable[[], None]]" = _no_other_nodes
    """Subscribes an agent to a topic of another node, and returns what ends that."""
    _subscribers: "dict[str, dict[Cell, None]]" = attrs.field(factory=dict[str, Any])
    _outside: "dict[str, dict[Subscriber, None]]" = attrs.field(factory=dict[str, Any])

    def subscribe(self, topic: str, cell: "Cell") -> None:
        """Add a subscriber; once is enough."""
        topics, is_elsewhere = cell.relations.topics, "/" in topic and not topic.startswith("#")
        if not is_elsewhere:
            check_topic(topic)
        if topic in topics:
            return
        if len(topics) >= MOST_TOPICS:
            msg = f"{cell.name} subscribes to {len(topics):,} topics: an agent has at most that many"
            raise Overloaded(msg)
        topics[topic] = self.elsewhere(topic, cell) if is_elsewhere else None
        if not is_elsewhere:
            self._subscribers.setdefault(topic, {})[cell] = None

    def unsubscribe(self, topic: str, cell: "Cell") -> None:
        """Remove a subscriber."""
        if topic in cell.relations.topics:
            self._forget(cell, {topic: cell.relations.topics.pop(topic)})

    def forget(self, cell: "Cell") -> None:
        """Remove a subscriber from all its topics."""
        self._forget(cell, cell.relations.topics)

    def join(self, topic: str, subscriber: Subscriber) -> None:
        """Add somebody from outside of this process."""
        self._outside.setdefault(topic, {})[subscriber] = None

    def leave(self, topic: str, subscriber: Subscriber) -> None:
        """Remove somebody from outside of this process."""
        subscribers = self._outside.get(topic)
        if subscribers is not None:
            subscribers.pop(subscriber, None)
            if not subscribers:
                del self._outside[topic]

    def _forget(self, cell: "Cell", topics: "dict[str, Callable[[], None] | None]") -> None:
        for topic, end in topics.items():
            if end is not None:
                end()
            subscribers = self._subscribers.get(topic)
            if subscribers is not None:
                subscribers.pop(cell, None)
                if not subscribers:
                    del self._subscribers[topic]

    def publish(self, topic: str, message: object, source: "Cell | None") -> None:
        """Queue a message for each subscriber; one that cannot take it loses it, which is a dead letter."""
        if "/" in topic and not topic.startswith("#"):
            msg = f"{topic!r} is a topic of another node, where its own agents alone publish: tell one of them"
            raise UsageError(msg)
        check_topic(topic)
        for subscriber in list(self._outside.get(topic, ())):
            subscriber.take(message, source)
        for cell in list(self._subscribers.get(topic, ())):
            handler = cell.spec.handler_of(type(message))
            try:
                if handler is None or handler.kind == "stream":
                    raise cell.not_handled(message)
                cell.accept_nowait(Delivery(message, handler, source))
            except DeliveryError as error:
                sender = "node" if source is None else source.name
                reason: Reason = "not handled"
                if isinstance(error, Overloaded):
                    reason = "overloaded"
                elif isinstance(error, NotDelivered):
                    reason = "stopped"
                cell.runtime.lost_publication(cell, message, sender, reason)


def check_topic(topic: str) -> None:
    """Refuse what is no topic's name."""
    if not topic.startswith("#") or len(topic) == 1 or not topic.isprintable():
        msg = f"{topic!r} is no topic: its name begins with '#', say '#prices'"
        raise UsageError(msg)
