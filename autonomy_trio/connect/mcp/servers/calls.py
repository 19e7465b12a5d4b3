"""What a message asks of an MCP server, in the SDK's words, and a call while it runs."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast, final

import mcp_types as types
import pydantic
import trio
from attrs import define, field
from mcp.shared.dispatcher import ProgressFnT

from autonomy_trio.connect.mcp.servers import messages as asked
from autonomy_trio.connect.mcp.servers.messages import Description, McpError, Progress
from autonomy_trio.connect.mcp.servers.sessions import Session, described

_Kind = type[pydantic.BaseModel]


def _page(cursor: str | None) -> types.PaginatedRequestParams:
    return types.PaginatedRequestParams(cursor=cursor)


def _call_tool(message: asked.CallTool | asked.CallToolInParts) -> types.CallToolRequest:
    params = types.CallToolRequestParams(name=message.name, arguments=dict(message.arguments))
    return types.CallToolRequest(params=params)


def _read_resource(message: asked.ReadResource | asked.ReadResourceInParts) -> types.ReadResourceRequest:
    return types.ReadResourceRequest(params=types.ReadResourceRequestParams(uri=message.uri))


def _get_prompt(message: asked.GetPrompt | asked.GetPromptInParts) -> types.GetPromptRequest:
    params = types.GetPromptRequestParams(name=message.name, arguments=dict(message.arguments))
    return types.GetPromptRequest(params=params)


def _complete(message: asked.CompletePrompt | asked.CompleteResource) -> types.CompleteRequest:
    subject: types.PromptReference | types.ResourceTemplateReference
    if isinstance(message, asked.CompletePrompt):
        subject = types.PromptReference(name=message.name)
    else:
        subject = types.ResourceTemplateReference(uri=message.uri)
    return types.CompleteRequest(
        params=types.CompleteRequestParams(
            ref=subject,
            argument=types.CompletionArgument(name=message.argument, value=message.value),
            context=types.CompletionContext(arguments=dict(message.arguments)) if message.arguments else None,
        )
    )


_ASKING: Final[Mapping[type, tuple[Callable[[Any], Any], _Kind]]] = {
    asked.Ping: (lambda _: types.PingRequest(), types.EmptyResult),
    asked.ListTools: (lambda each: types.ListToolsRequest(params=_page(each.cursor)), types.ListToolsResult),
    asked.ListResources: (
        lambda each: types.ListResourcesRequest(params=_page(each.cursor)),
        types.ListResourcesResult,
    ),
    asked.ListResourceTemplates: (
        lambda each: types.ListResourceTemplatesRequest(params=_page(each.cursor)),
        types.ListResourceTemplatesResult,
    ),
    asked.ListPrompts: (lambda each: types.ListPromptsRequest(params=_page(each.cursor)), types.ListPromptsResult),
    asked.CallTool: (_call_tool, types.CallToolResult),
    asked.CallToolInParts: (_call_tool, types.CallToolResult),
    asked.ReadResource: (_read_resource, types.ReadResourceResult),
    asked.ReadResourceInParts: (_read_resource, types.ReadResourceResult),
    asked.GetPrompt: (_get_prompt, types.GetPromptResult),
    asked.GetPromptInParts: (_get_prompt, types.GetPromptResult),
    asked.CompletePrompt: (_complete, types.CompleteResult),
    asked.CompleteResource: (_complete, types.CompleteResult),
}

_CHANGED: Final[Mapping[type, Literal["tools", "resources", "prompts"]]] = {
    types.ToolListChangedNotification: "tools",
    types.ResourceListChangedNotification: "resources",
    types.PromptListChangedNotification: "prompts",
}


def changed_list(notice: object) -> Literal["tools", "resources", "prompts"] | None:
    """Return which list a server's notice says has changed; None for any other notice."""
    return _CHANGED.get(type(notice))


async def ask(session: Session, message: Any, on_progress: ProgressFnT | None = None) -> pydantic.BaseModel:  # noqa: ANN401 - one of those above
    """Ask a server what a message asks.

    Raises:
        McpError: as `Session.request`.
    """
    request, kind = _ASKING[type(message)]
    return await session.request(request(message), kind, on_progress)


def in_json(result: pydantic.BaseModel) -> dict[str, Any]:
    """Return a result as MCP writes it."""
    return result.model_dump(by_alias=True, mode="json", exclude_unset=True)


def description_of(session: Session) -> Description:
    """Return who a session's server is."""
    info, capabilities = described(session.client)
    client = session.client
    return Description(
        info.name, info.version, client.protocol_version or "", capabilities, info.title, client.instructions
    )


@final
@define(eq=False, repr=False)
class Call:
    """A question whose progress is heard while the server works on it."""

    session: Session
    message: object
    _outcome: bytes | McpError | None = None
    _latest: Progress | None = None
    """What was not heard yet: of progress that comes faster than it is heard, the latest."""
    _highest: float = float("-inf")
    _changed: trio.Event = field(factory=trio.Event)
    _scope: trio.CancelScope = field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Be the task of the call."""
        with self._scope:
            try:
                result = await ask(self.session, self.message, self._note)
                self._outcome = result.model_dump_json(by_alias=True, exclude_unset=True).encode()
            except McpError as error:
                self._outcome = error
        self._changed.set()

    def cancel(self) -> None:
        """End the call; the server is told."""
        self._scope.cancel()

    async def _note(self, progress: float, total: float | None, message: str | None) -> None:
        # The SDK has a task for each notice, so two that come together may come in any order.
        if progress > self._highest:
            self._highest, self._latest = progress, Progress(progress, total, message)
            self._changed.set()

    async def next_progress(self) -> Progress | None:
        """Wait for progress; None once there is an answer."""
        while self._latest is None and self._outcome is None:
            self._changed = trio.Event()
            await self._changed.wait()
        latest, self._latest = self._latest, None
        return latest

    def answer(self) -> bytes:
        """Return the answer as JSON.

        Raises:
            McpError: it is an error.
        """
        outcome = self._outcome
        if isinstance(outcome, McpError):
            raise outcome
        return cast("bytes", outcome)
