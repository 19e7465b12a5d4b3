"""What wraps the handling of messages: tracing, metrics, rate limits."""

from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol, cast

import attrs

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.spec import Refused
from autonomy_trio.errors import DeliveryError

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.delivery import Delivery, Sender
    from autonomy_trio.actors.worker import Worker


class Interceptor(Protocol):
    """What wraps the handling of a message: tracing, metrics, a rate limit."""

    async def __call__(self, delivery: "Intercepted", proceed: Callable[[], Awaitable[Any]], /) -> Any:  # noqa: ANN401
        """Return what ``await proceed()`` returns, or raise a `DeliveryError` in place of it to refuse the message.

        A refused message is a dead letter, and its asker gets the error. Anything else that it raises, and any error
        after it has proceeded, fails the agent; so does proceeding twice. Of a stream it wraps the opening, until the
        first item or the end.
        """
        ...


@attrs.frozen
class Intercepted:
    """A message that is about to be handled, as an interceptor sees it."""

    recipient: str
    """The name of the agent."""
    message: object
    sender: "Sender"
    deadline: float
    """On trio's clock; infinite for a `tell`."""


async def intercepted(cell: "Cell", delivery: "Delivery", worker: "Worker") -> Any:  # noqa: ANN401 - the reply's type is the request's
    """Handle a message inside the node's interceptors, the first one outermost.

    Raises:
        Refused: one of them does not let the handler begin.
    """
    handler = delivery.handler
    seen = Intercepted(cell.name, delivery.message, delivery.sender, delivery.deadline)
    begun = False

    async def call() -> Any:  # noqa: ANN401
        nonlocal begun
        if begun:
            msg = f"an interceptor has proceeded twice with one {type(delivery.message).__name__}: once is the most"
            raise RuntimeError(msg)
        begun = True
        if handler.kind == "stream":
            await cell.open_stream(delivery, worker)
            return None
        arguments = (Context(cell, delivery),) if handler.takes_context else ()
        result = handler.function(cell.instance, delivery.message, *arguments)
        if handler.kind == "async":
            result = await result
        if type(result) is CoroutineType:
            raise handler.wrong_reply(cast("object", result))
        return result

    proceed: Callable[[], Awaitable[Any]] = call
    for interceptor in reversed(cell.runtime.interceptors):
        proceed = _around(interceptor, seen, proceed)
    try:
        result = await proceed()
    except DeliveryError as error:
        if begun:
            raise
        raise Refused(error) from None
    if delivery.reply is not None and handler.kind != "stream":
        handler.check_reply(result)
    return result


def _around(
    interceptor: Interceptor, seen: Intercepted, proceed: Callable[[], Awaitable[Any]]
) -> Callable[[], Awaitable[Any]]:
    return lambda: interceptor(seen, proceed)
