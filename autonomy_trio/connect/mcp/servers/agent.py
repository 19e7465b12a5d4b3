"""An MCP server as an agent: messages in, calls of the server out, one session for all of them."""

import importlib
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import agent, on
from autonomy_trio.actors.spec import spec_of
from autonomy_trio.connect.extras import extra
from autonomy_trio.connect.mcp.servers import messages as asked
from autonomy_trio.connect.mcp.servers.blocks import Prompt, Resource, ResourceTemplate, Tool, listed_of
from autonomy_trio.connect.mcp.servers.messages import (
    INTERNAL_ERROR,
    LOST,
    CallTool,
    CallToolInParts,
    CompletePrompt,
    CompleteResource,
    Completion,
    Describe,
    Description,
    GetPrompt,
    GetPromptInParts,
    ListChanged,
    ListPrompts,
    ListResources,
    ListResourceTemplates,
    ListTools,
    McpError,
    Part,
    Ping,
    Progress,
    PromptResult,
    Prompts,
    ReadResource,
    ReadResourceInParts,
    ResourceContents,
    Resources,
    ResourceTemplates,
    ToolResult,
    Tools,
)
from autonomy_trio.connect.mcp.servers.paging import fitting_page, read_cursor
from autonomy_trio.connect.mcp.servers.places import Place
from autonomy_trio.errors import AutonomyError, DeclarationError, MessageError
from autonomy_trio.messages import encode_payload

if TYPE_CHECKING:
    from autonomy_trio.connect.mcp.servers.sessions import Session

T = TypeVar("T")

AT_ONCE: Final = 16
"""Calls that a server works on at a time unless it is told otherwise; more wait in the agent's mailbox."""
MOST_PART: Final = 64 * 1024
"""Bytes of one `Part`."""


@agent(concurrency=AT_ONCE)
class McpServer:
    """An MCP server, as `mcp_server` makes it an agent; the class of a ref to one on another node."""

    place: ClassVar[Place | None] = None
    _session: "Session | None" = attrs.field(init=False, default=None, repr=False)

    async def on_start(self, context: Context) -> None:
        """Start or reach the server, and wait until it is initialized.

        Raises:
            ConfigurationError: the extra ``mcp`` is not installed, or there is no such command or folder.
            McpError: it does not begin as a server would.
        """
        if self.place is None:
            raise DeclarationError("McpServer is the class of refs: spawn what mcp_server(command=…) returns")
        with extra("mcp", "an MCP server as an agent"):
            importlib.import_module("autonomy_trio.connect.mcp.servers.calls")
        try:
            await context.start(self._hold, self.place, context)
        except AutonomyError as error:
            # In words already: the log shows those, and not by which calls they came.
            raise error.with_traceback(None) from None

    async def _hold(self, place: Place, context: Context, task_status: trio.TaskStatus[None]) -> None:
        """Own the session: one task opens it, and fails the agent when the server has ended."""
        try:
            await self._own(place, context, task_status)
        except AutonomyError as error:
            raise error.with_traceback(None) from None  # as above

    async def _own(self, place: Place, context: Context, task_status: trio.TaskStatus[None]) -> None:
        from autonomy_trio.connect.mcp.servers.calls import changed_list  # noqa: PLC0415 - it needs the extra
        from autonomy_trio.connect.mcp.servers.sessions import open_session  # noqa: PLC0415 - as above

        topic = f"#{spec_of(type(self)).name}"

        async def tell(message: object) -> None:
            what = changed_list(message)
            if what is not None:
                context.publish(topic, ListChanged(what))

        async with open_session(place, context.log, tell) as session:
            self._session = session
            task_status.started()
            raise await session.wait_over()

    async def _ask(self, message: object, context: Context) -> dict[str, Any]:
        from autonomy_trio.connect.mcp.servers.calls import ask, in_json  # noqa: PLC0415 - it needs the extra

        if self._open.ended.is_set():
            context.stash()  # for the instance that follows: nothing has been asked yet
        return in_json(await ask(self._open, message))

    @property
    def _open(self) -> "Session":
        assert self._session is not None  # noqa: S101 - no message is handled before on_start has ended
        return self._session

    @on(Describe, raises=McpError)
    async def describe(self, _: Describe) -> Description:
        """Say who the server is."""
        from autonomy_trio.connect.mcp.servers.calls import description_of  # noqa: PLC0415 - it needs the extra

        return _carried(description_of(self._open), "a description")

    @on(Ping, raises=McpError)
    async def ping(self, message: Ping, context: Context) -> None:
        """Ask the server whether it answers."""
        await self._ask(message, context)

    @on(ListTools, raises=McpError)
    async def list_tools(self, message: ListTools, context: Context) -> Tools:
        """Return a page of the server's tools."""
        return await self._page(message, context, "tools", Tool, Tools)

    @on(ListResources, raises=McpError)
    async def list_resources(self, message: ListResources, context: Context) -> Resources:
        """Return a page of the server's resources."""
        return await self._page(message, context, "resources", Resource, Resources)

    @on(ListResourceTemplates, raises=McpError)
    async def list_resource_templates(self, message: ListResourceTemplates, context: Context) -> ResourceTemplates:
        """Return a page of the server's templates of resources."""
        return await self._page(message, context, "resourceTemplates", ResourceTemplate, ResourceTemplates)

    @on(ListPrompts, raises=McpError)
    async def list_prompts(self, message: ListPrompts, context: Context) -> Prompts:
        """Return a page of the server's prompts."""
        return await self._page(message, context, "prompts", Prompt, Prompts)

    async def _page(self, message: Any, context: Context, key: str, entry: type[Any], page: type[T]) -> T:  # noqa: ANN401 - asks for a list
        offset, cursor = read_cursor(message.cursor)
        found = await self._ask(attrs.evolve(message, cursor=cursor), context)
        entries = tuple(listed_of(entry, each) for each in found[key][offset:])
        page_found: T = fitting_page(page, entries, offset, cursor, found.get("nextCursor"))
        return page_found

    @on(CallTool, raises=McpError)
    async def call_tool(self, message: CallTool, context: Context) -> ToolResult:
        """Call a tool, and return its result where that fits one message."""
        return _read(asked.tool_result_of, await self._ask(message, context), message)

    @on(ReadResource, raises=McpError)
    async def read_resource(self, message: ReadResource, context: Context) -> ResourceContents:
        """Read a resource, and return its contents where they fit one message."""
        return _read(asked.contents_of, await self._ask(message, context), message)

    @on(GetPrompt, raises=McpError)
    async def get_prompt(self, message: GetPrompt, context: Context) -> PromptResult:
        """Return a prompt that fits one message."""
        return _read(asked.prompt_of, await self._ask(message, context), message)

    @on(CompletePrompt, raises=McpError)
    @on(CompleteResource, raises=McpError)
    async def complete(self, message: CompletePrompt | CompleteResource, context: Context) -> Completion:
        """Return how an argument could go on."""
        return _carried(asked.completion_of(await self._ask(message, context)), "a completion")

    @on(CallToolInParts, raises=McpError)
    @on(ReadResourceInParts, raises=McpError)
    @on(GetPromptInParts, raises=McpError)
    async def in_parts(
        self, message: CallToolInParts | ReadResourceInParts | GetPromptInParts, context: Context
    ) -> AsyncGenerator[Progress | Part]:
        """Yield how far the server is, and then its answer, piece by piece."""
        from autonomy_trio.connect.mcp.servers.calls import Call  # noqa: PLC0415 - it needs the extra

        if self._open.ended.is_set():  # a stream cannot be stashed
            raise McpError(LOST, f"the MCP server {self._open.why} and is started again: nothing was asked")
        call = Call(self._open, message)
        context.start_soon(call.run)
        try:
            while (progress := await call.next_progress()) is not None:
                yield progress
            answer = call.answer()
            for start in range(0, len(answer), MOST_PART):
                yield Part(answer[start : start + MOST_PART])
        finally:
            call.cancel()


def _read(convert: Callable[[dict[str, Any]], T], found: dict[str, Any], message: object) -> T:
    """Make a reply of an answer.

    Raises:
        McpError: it is none, or does not fit one message.
    """
    name = type(message).__name__
    try:
        reply = convert(found)
    except ValueError as error:
        raise McpError(INTERNAL_ERROR, f"the MCP server answered {name} with what cannot be read: {error}") from None
    return _carried(reply, f"the answer to {name}", f"; ask for it with {name}InParts")


def _carried(reply: T, what: str, mend: str = "") -> T:
    """Return a reply that fits one message.

    Raises:
        McpError: it does not, with what does.
    """
    try:
        encode_payload(reply)
    except MessageError as error:
        why = str(error).removesuffix(": send it in parts")
        raise McpError(INTERNAL_ERROR, f"{what} does not fit one message: {why}{mend}") from None
    return reply
