"""Ask an agent that is an MCP server for answers of any size."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.connect.mcp.servers.messages import InParts, Part, Progress
from autonomy_trio.errors import MessageError

R = TypeVar("R")

MOST_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of an answer in parts, so that another node cannot fill this one's memory."""


async def ask_in_parts(
    server: AgentRef[Any], message: InParts[R], on_progress: Callable[[Progress], Awaitable[object]] | None = None
) -> R:
    """Ask for an answer that may be larger than one message, and hear how far it is.

    There is no limit of time but the caller's. When it is cancelled, the server is told.

    Args:
        server: an agent that `mcp_server` made.
        message: a `CallToolInParts`, `ReadResourceInParts` or `GetPromptInParts`.
        on_progress: is awaited with each progress, before the next is heard.

    Raises:
        McpError: the server answers with an error, or has ended in the call.
        MessageError: the answer is larger than 64 MiB, or is none.
        DeliveryError: as a stream's reader gets it.
    """
    data = await answer_in_parts(server, message, on_progress)
    try:
        return message.whole(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MessageError(f"{server.name} answered with what is no such result: {error!r}") from None


async def answer_in_parts(
    server: AgentRef[Any],
    message: Any,  # noqa: ANN401 - a stream
    on_progress: Callable[[Progress], Awaitable[object]] | None,
) -> bytes:
    """Return the JSON of an answer, as `ask_in_parts` reads it."""
    data = bytearray()
    async with server.stream(message) as items:
        async for item in items:
            if isinstance(item, Part):
                data += item.data
            elif on_progress is not None:
                await on_progress(item)
            if len(data) > MOST_ANSWER:
                raise MessageError(f"{server.name} answers with more than {MOST_ANSWER:,} bytes")
    return bytes(data)
