"""A bridge: to its client an MCP server on standard input and output, behind it an agent that is one, on any node.

It hands JSON on as it comes and knows no tool. What the client may do is decided where the agent is.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

import trio
from attrs import define, field
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import agent, on
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import Mailbox
from autonomy_trio.connect.mcp.servers.asking import answer_in_parts
from autonomy_trio.connect.mcp.servers.blocks import as_listed
from autonomy_trio.connect.mcp.servers.lines import Messages, Passing, over_lines
from autonomy_trio.connect.mcp.servers.messages import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    CallToolInParts,
    CompletePrompt,
    CompleteResource,
    Describe,
    GetPromptInParts,
    ListChanged,
    ListPrompts,
    ListResources,
    ListResourceTemplates,
    ListTools,
    McpError,
    Progress,
    ReadResourceInParts,
)
from autonomy_trio.errors import AutonomyError, Denied
from autonomy_trio.fabric.node import Node
from autonomy_trio.logs import get_log, printable

DENIED: Final = -32010
"""Code of what the agent's policy does not let this node do; JSON-RPC leaves it to implementations."""
UNREACHABLE: Final = -32011
"""Code of what was not answered, for the reason in the text."""
MOST_AT_ONCE: Final = 32
"""Requests that are under way at the agent; more wait here."""
MOST_TAKEN: Final = 256
"""Requests of the client that are taken and not answered; nothing more is read meanwhile."""
LAST_ANSWERS: Final = 1.5
"""Seconds in which what was asked before standard input ended is answered."""

_FORWARDED: Final = ("completions", "prompts", "resources", "tools")
"""The capabilities of a server that a bridge hands on."""

_log = get_log()

Json = Mapping[str, Any]
_Answering = Callable[[DispatchContext[TransportContext], Json], Awaitable[dict[str, Any]]]


@agent(mailbox=Mailbox(16, overflow="drop_oldest"))
class Listener:
    """Hears of the lists of the server that change, and tells the client."""

    topic: str
    node: str
    tell: Callable[[str], Awaitable[None]]

    async def on_start(self, context: Context) -> None:
        """Subscribe to what the agent publishes."""
        context.subscribe(self.topic)

    # Whoever knows this node may tell it so: what comes from another node than the server's is of no account.
    @on(ListChanged, allow="true")
    async def changed(self, message: ListChanged, context: Context) -> None:
        """Tell the client."""
        if context.sender.node == self.node:
            await self.tell(f"notifications/{message.what}/list_changed")


@final
@define(eq=False, repr=False)
class Bridge:
    """Answers one client with what one agent answers."""

    node: Node
    server: AgentRef[Any]
    _dispatcher: JSONRPCDispatcher[TransportContext] = field(init=False)
    _limiter: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(MOST_AT_ONCE))
    _listener: AgentRef[Listener] | None = None

    async def serve(self, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        """Serve the client of two streams until the first one has ended, or the second broken.

        What is under way then has 1.5 s to be answered.
        """
        unanswered = _Unanswered()
        async with over_lines(source, sink, _strange, unanswered.written) as (messages, replies):
            self._dispatcher = JSONRPCDispatcher(_Taking(messages, unanswered), replies)
            await self._dispatcher.run(self._answer, _ignore)

    async def _answer(
        self, context: DispatchContext[TransportContext], method: str, given: Json | None
    ) -> dict[str, Any]:
        params = given or {}
        if method == "ping":
            return {}
        answering = self._answering(method)
        if answering is None:
            raise MCPError(METHOD_NOT_FOUND, f"the bridge hands on no {printable(method, 100)}")
        try:
            async with self._limiter:
                return await answering(context, params)
        except McpError as error:
            raise MCPError(error.code, error.message, error.data) from None
        except Denied as error:
            raise MCPError(DENIED, str(error)) from None
        except trio.TooSlowError:
            msg = f"{self.server.address} did not answer in {self.node.ask_limit:g} s: it may have had effects"
            raise MCPError(UNREACHABLE, msg) from None
        except AutonomyError as error:
            raise MCPError(UNREACHABLE, str(error)) from None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise MCPError(INVALID_PARAMS, f"{method} has parameters that MCP does not have") from None

    def _answering(self, method: str) -> _Answering | None:
        known: dict[str, _Answering] = {
            "initialize": self._initialize,
            "tools/list": self._list_tools,
            "tools/call": self._call_tool,
            "resources/list": self._list_resources,
            "resources/templates/list": self._list_templates,
            "resources/read": self._read_resource,
            "prompts/list": self._list_prompts,
            "prompts/get": self._get_prompt,
            "completion/complete": self._complete,
        }
        return known.get(method)

    async def _initialize(self, context: DispatchContext[TransportContext], params: Json) -> dict[str, Any]:
        del context
        found = await self.server.ask(Describe())
        capabilities = {name: dict(found.capabilities[name]) for name in _FORWARDED if name in found.capabilities}
        capabilities.get("resources", {}).pop("subscribe", None)
        if self._listener is None and any(each.get("listChanged") for each in capabilities.values()):
            self._listener = self._listen()
        wanted = params["protocolVersion"]
        about = {"name": found.name, "version": found.version, "title": found.title}
        return {
            "protocolVersion": wanted if wanted in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION,
            "capabilities": capabilities,
            "serverInfo": {name: value for name, value in about.items() if value is not None},
            **({} if found.instructions is None else {"instructions": found.instructions}),
        }

    def _listen(self) -> AgentRef[Listener]:
        place, _, name = self.server.address.rpartition("/")
        return self.node.spawn(lambda: Listener(f"{place}/#{name}", place.rpartition("/")[2], self._tell), "mcp_bridge")

    async def _tell(self, method: str) -> None:
        await self._dispatcher.notify(method, None)

    async def _list(self, message: Any, key: str, entries: str) -> dict[str, Any]:  # noqa: ANN401 - asks for a list
        page = await self.server.ask(message)
        found: dict[str, Any] = {key: [as_listed(each) for each in getattr(page, entries)]}
        return found if page.next_cursor is None else {**found, "nextCursor": page.next_cursor}

    async def _list_tools(self, _: object, params: Json) -> dict[str, Any]:
        return await self._list(ListTools(params.get("cursor")), "tools", "tools")

    async def _list_resources(self, _: object, params: Json) -> dict[str, Any]:
        return await self._list(ListResources(params.get("cursor")), "resources", "resources")

    async def _list_templates(self, _: object, params: Json) -> dict[str, Any]:
        message = ListResourceTemplates(params.get("cursor"))
        return await self._list(message, "resourceTemplates", "resource_templates")

    async def _list_prompts(self, _: object, params: Json) -> dict[str, Any]:
        return await self._list(ListPrompts(params.get("cursor")), "prompts", "prompts")

    async def _in_parts(self, context: DispatchContext[TransportContext], message: object) -> dict[str, Any]:
        async def progress(each: Progress) -> None:
            await context.progress(each.progress, each.total, each.message)

        data = await answer_in_parts(self.server, message, progress)
        try:
            answer: dict[str, Any] = json.loads(data)
        except (ValueError, RecursionError):
            raise MCPError(INTERNAL_ERROR, f"{self.server.address} answered with what is no JSON") from None
        return answer

    async def _call_tool(self, context: DispatchContext[TransportContext], params: Json) -> dict[str, Any]:
        return await self._in_parts(context, CallToolInParts(params["name"], params.get("arguments") or {}))

    async def _read_resource(self, context: DispatchContext[TransportContext], params: Json) -> dict[str, Any]:
        return await self._in_parts(context, ReadResourceInParts(params["uri"]))

    async def _get_prompt(self, context: DispatchContext[TransportContext], params: Json) -> dict[str, Any]:
        return await self._in_parts(context, GetPromptInParts(params["name"], params.get("arguments") or {}))

    async def _complete(self, _: object, params: Json) -> dict[str, Any]:
        context: Json = params.get("context") or {}
        argument: Json = params["argument"]
        known: Mapping[str, str] = context.get("arguments") or {}
        more = argument["name"], argument["value"], known
        subject = params["ref"]
        message: CompletePrompt | CompleteResource
        if subject["type"] == "ref/prompt":
            message = CompletePrompt(subject["name"], *more)
        else:
            message = CompleteResource(subject["uri"], *more)
        found = await self.server.ask(message)
        about = {"values": list(found.values), "total": found.total, "hasMore": found.has_more}
        return {"completion": {name: value for name, value in about.items() if value is not None}}


@define(eq=False)
class _Unanswered:
    """The client's requests that were taken, until their answers are written or they are cancelled."""

    _ids: set[str | int] = field(factory=set[str | int])
    _changed: trio.Event = field(factory=trio.Event)

    def took(self, message: SessionMessage | Exception) -> None:
        """Take note of a request, or of one that is cancelled: that gets no answer."""
        match message:
            case SessionMessage(message=JSONRPCRequest(id=number)):
                self._ids.add(number)
            case SessionMessage(
                message=JSONRPCNotification(
                    method="notifications/cancelled", params={"requestId": str() | int() as number}
                )
            ):
                self._settle(number)
            case _:
                pass

    def written(self, message: SessionMessage) -> None:
        """Take note of an answer."""
        if isinstance(message.message, JSONRPCResponse | JSONRPCError) and message.message.id is not None:
            self._settle(message.message.id)

    def _settle(self, number: str | int) -> None:
        self._ids.discard(number)
        self._changed.set()

    async def wait_few(self, most: int) -> None:
        """Wait until there are no more than so many."""
        while len(self._ids) > most:
            self._changed = trio.Event()
            await self._changed.wait()


class _Taking(Passing):
    """The client's messages, no more of them than are answered."""

    def __init__(self, source: Messages, unanswered: _Unanswered) -> None:
        super().__init__(source)
        self._unanswered = unanswered

    def took(self, message: SessionMessage | Exception) -> None:
        """Count it."""
        self._unanswered.took(message)

    async def before_next(self) -> None:
        """Wait until few enough are taken."""
        await self._unanswered.wait_few(MOST_TAKEN - 1)

    async def at_end(self) -> None:
        """Let those be answered that were taken."""
        with trio.move_on_after(LAST_ANSWERS):
            await self._unanswered.wait_few(0)


async def _ignore(context: object, method: str, params: Json | None) -> None:
    """Hand on no notice of the client: the ones that matter, of cancellation, end what they name."""


def _strange(line: bytes) -> None:
    _log.warning("the client wrote what is no JSON-RPC", text=printable(line.decode(errors="replace"), 100))
