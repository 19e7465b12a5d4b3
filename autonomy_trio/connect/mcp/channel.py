"""The way to an MCP client of one call, over the SDK."""

from collections.abc import Mapping
from typing import Any, Final, final

import attrs
import mcp_types as types
import trio
from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from pydantic import ValidationError

from autonomy_trio.connect.mcp.caller import LEVELS, Level, Unsupported
from autonomy_trio.logs import printable

BEGUN: Final = "autonomy_trio.begun"
"""Where a request over HTTP has the `trio.Event` of its answer having begun."""

BEGIN_LIMIT: Final = 5.0
"""Seconds that are waited for it: a client that takes nothing is hung up on all the same."""

MOST_WORDS: Final = 200
"""Characters of a client's refusal that a handler is told."""


@final
@attrs.define(eq=False)
class SdkChannel:
    """The way to the client that waits for one request."""

    _context: ServerRequestContext[Any, Any]
    _least: Level
    """The least grave log message that the client wants to see."""

    async def progress(self, done: float, total: float | None, text: str | None) -> None:
        """Tell how far the call has come, where the client has asked for it."""
        await self._context.session.report_progress(done, total, text)

    async def log(self, level: Level, data: Any, name: str) -> None:  # noqa: ANN401 - what JSON has
        """Send a log message, where it is grave enough."""
        allowed = allowed_log_levels(self._context.protocol_version, self._context.meta)
        if level not in allowed or LEVELS.index(level) < LEVELS.index(self._least):
            return
        params = types.LoggingMessageNotificationParams(level=level, data=data, logger=name)
        await self._context.session.send_notification(
            types.LoggingMessageNotification(params=params), self._context.request_id
        )

    async def sample(self, text: str, most_tokens: int, system: str | None) -> str:
        """Have the client's model go on from a text."""
        capabilities = self._context.session.client_capabilities
        if capabilities is None or capabilities.sampling is None:
            raise Unsupported("the MCP client lends no model")
        message = types.SamplingMessage(role="user", content=types.TextContent(text=text))
        params = types.CreateMessageRequestParams(messages=[message], max_tokens=most_tokens, system_prompt=system)
        result = await self._ask(types.CreateMessageRequest(params=params), types.CreateMessageResult)
        if not isinstance(result.content, types.TextContent):
            raise Unsupported("the MCP client's model answered with something that is no text")
        return result.content.text

    async def elicit(self, text: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Have the client's person fill a form."""
        capabilities = self._context.session.client_capabilities
        if capabilities is None or capabilities.elicitation is None:
            raise Unsupported("the MCP client has no person to ask")
        params = types.ElicitRequestFormParams(message=text, requested_schema=dict(schema))
        result = await self._ask(types.ElicitRequest(params=params), types.ElicitResult)
        return dict(result.content or {}) if result.action == "accept" else None

    async def hang_up(self) -> None:
        """Close the stream that the answer would go to, where the client can come back for it."""
        if self._context.close_sse_stream is not None and self._context.request is not None:
            with trio.move_on_after(BEGIN_LIMIT):  # what it begins with is where the client goes on later
                await self._context.request.scope[BEGUN].wait()
            await self._context.close_sse_stream()

    async def _ask(self, request: Any, kind: type[Any]) -> Any:  # noqa: ANN401 - of the SDK's kinds
        related = ServerMessageMetadata(related_request_id=self._context.request_id)
        try:
            return await self._context.session.send_request(request, kind, metadata=related)
        except MCPError as error:
            raise Unsupported(f"the MCP client refused: {printable(error.message, MOST_WORDS)}") from None
        except ValidationError:
            raise Unsupported("the MCP client's answer is none that the protocol has") from None
