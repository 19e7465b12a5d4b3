"""The policies in force, from what the handlers of agent classes declare and what their node's files say."""

from collections.abc import Iterable, Sequence

from autonomy_trio.actors.spec import Handler, Spec
from autonomy_trio.actors.topics import Subscribing
from autonomy_trio.errors import DeclarationError
from autonomy_trio.messages import check_sendable
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.policy import Grant, Policies
from autonomy_trio.trust.whole import WholePolicy


def compile_policies(
    specs: Iterable[Spec], anchors: Anchors, whole: Sequence[WholePolicy] = (), generation: int = 1
) -> Policies:
    """Compile what the handlers of agent classes declare, together with whole policies.

    Raises:
        PolicyError, DeclarationError: a policy cannot be right; one sentence names handler or line, place and mend.
    """
    grants: list[Grant] = []
    opened: dict[tuple[str, str], tuple[str, type]] = {}
    for spec in specs:
        taken: dict[str, list[tuple[str, type]]] = {}
        handlers: dict[str, Handler] = {}
        for name, (cls, handler) in spec.wire_table().items():
            key = f"{handler.method} {handler.message.__qualname__}"
            handlers[key] = handler
            taken.setdefault(key, []).append((name, cls))
            if handler.allow is None or cls is not handler.message:  # the rest was checked with its agent's class
                opened[spec.agent, name] = f"{spec.agent}.{handler.method}", cls
        for key, handler in handlers.items():
            actions, classes = zip(*taken[key], strict=True)
            grants.append(Grant(spec.agent, handler.method, actions, classes, handler.allow))
        for topic, allow in spec.topics.items():
            grants.append(Grant(spec.agent, f"topics[{topic!r}]", (topic,), (Subscribing,), allow))
    policies = Policies.compile(grants, anchors, whole, generation=generation)
    for reach in policies.reachable():
        if (reach.agent, reach.action) in opened:
            _check_sendable(*opened[reach.agent, reach.action])
    return policies


def _check_sendable(place: str, message: type) -> None:
    """Refuse a message that a policy lets others send and that nobody could read, or its asker not the reply."""
    try:
        check_sendable(message)
    except DeclarationError as error:
        raise DeclarationError(f"{place}, which a policy opens to other nodes: {error}") from None
