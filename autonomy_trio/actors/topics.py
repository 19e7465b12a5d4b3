"""Topics of a node: what is published to one goes to each subscriber that has room."""

from typing import TYPE_CHECKING, Any, final

import attrs

from autonomy_trio.actors.delivery import Delivery
from autonomy_trio.errors import DeliveryError, NotDelivered, Overloaded, UsageError

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.dead_letters import Reason

MOST_TOPICS = 1024
"""Topics one agent may subscribe to."""


@final
@attrs.define(eq=False, repr=False)
class Topics:
    """Who subscribes to what."""

    _subscribers: "dict[str, dict[Cell, None]]" = attrs.field(factory=dict[str, Any])

    def subscribe(self, topic: str, cell: "Cell") -> None:
        """Add a subscriber; once is enough."""
        check_topic(topic)
        topics = cell.relations.topics
        if topic not in topics and len(topics) >= MOST_TOPICS:
            msg = f"{cell.name} subscribes to {len(topics):,} topics: an agent has at most that many"
            raise Overloaded(msg)
        topics[topic] = None
        self._subscribers.setdefault(topic, {})[cell] = None

    def unsubscribe(self, topic: str, cell: "Cell") -> None:
        """Remove a subscriber."""
        cell.relations.topics.pop(topic, None)
        self.forget(cell, [topic])

    def forget(self, cell: "Cell", topics: Any) -> None:  # noqa: ANN401 - any iterable of names
        """Remove a subscriber from topics."""
        for topic in topics:
            subscribers = self._subscribers.get(topic)
            if subscribers is not None:
                subscribers.pop(cell, None)
                if not subscribers:
                    del self._subscribers[topic]

    def publish(self, topic: str, message: object, source: "Cell | None") -> None:
        """Queue a message for each subscriber; one that cannot take it loses it, which is a dead letter."""
        check_topic(topic)
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
