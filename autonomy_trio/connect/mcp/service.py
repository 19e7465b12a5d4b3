"""What an MCP server answers, whatever carries its messages: requests become messages to agents, under policy."""

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, TypeVar, final

import attrs
import mcp_types as types
import trio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from typing_extensions import override

from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.connect.mcp import answers
from autonomy_trio.connect.mcp.caller import Level
from autonomy_trio.connect.mcp.channel import SdkChannel
from autonomy_trio.connect.mcp.marks import Resource, told_of_updates
from autonomy_trio.connect.mcp.offers import AGENT, Offers, fields_of
from autonomy_trio.connect.mcp.speaking import Call, Mcp
from autonomy_trio.connect.tools import Told, Tool
from autonomy_trio.errors import AutonomyError, CallFailed, Denied, MessageError
from autonomy_trio.fabric.node import Node
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log, printable
from autonomy_trio.trust.attributes import AttributeValue
from autonomy_trio.trust.policy import Principal

MOST_SESSIONS: Final = 64
"""Clients at once; one more is refused."""

MOST_REQUESTS: Final = 32
"""Calls of one client that are under way at once; one more is refused."""

MOST_SUBSCRIPTIONS: Final = 64
"""Resources that one client has subscribed to."""

MOST_UPDATES: Final = 256
"""Changes of resources that wait to be told; more are dropped."""

TELL_LIMIT: Final = 1.0
"""Seconds in which a client takes the news of a change, or misses it."""

MOST_ITEM: Final = 200
"""Characters of an item that are shown as progress."""

DRAIN: Final = 5.0
"""Seconds that calls under way have to end when the server stops."""

_SESSION: Final = "mcp-session-id"

P = TypeVar("P")
R = TypeVar("R")

_Context = ServerRequestContext[Any, Any]

_log = get_log()


class _Forwarded(logging.Handler):
    """Brings what the SDK warns of into this package's log, without its tracebacks."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write a line of it."""
        error = record.exc_info[1] if record.exc_info else None
        why = {} if error is None else {"why": type(error).__name__, "detail": printable(str(error))}
        _log.warning("the MCP SDK warns", said=printable(record.getMessage()), **why)


# Else Python writes what nobody takes to standard error; what both sides of the protocol share says little of use.
logging.getLogger("mcp").addHandler(logging.NullHandler())
logging.getLogger("mcp.server").addHandler(_Forwarded(logging.WARNING))


@final
@attrs.define(eq=False)
class _Session:
    """What is known of one client."""

    level: Level = "info"
    calls: int = 0
    subscriptions: OrderedDict[str, ServerSession] = attrs.field(factory=OrderedDict[str, ServerSession])


@final
@attrs.define(eq=False)
class Service:
    """The answers of one node to MCP clients; made by `open_service`."""

    server: Server[Any]
    """What the SDK's transports carry messages to and from."""
    _offers: Offers
    _speaking: AgentRef[Any]
    _updates: trio.MemorySendChannel[str]
    _sessions: OrderedDict[str, _Session] = attrs.field(factory=OrderedDict[str, _Session])
    _busy: int = 0
    _idle: trio.Event = attrs.field(factory=trio.Event)
    _draining: bool = False

    async def drain(self) -> None:
        """Take no more calls, and give those under way a while to end."""
        self._draining = True
        with trio.move_on_after(DRAIN):
            while self._busy:
                self._idle = trio.Event()
                await self._idle.wait()

    async def list_tools(self, _: _Context, __: object) -> types.ListToolsResult:
        """Answer ``tools/list``."""
        return types.ListToolsResult(tools=[answers.shown_tool(each) for each in self._offers.tools()])

    async def list_resources(self, _: _Context, __: object) -> types.ListResourcesResult:
        """Answer ``resources/list``."""
        fixed = [(tool, mark) for tool, mark in self._offers.resources() if not mark.fields]
        return types.ListResourcesResult(resources=[answers.shown_resource(*each) for each in fixed])

    async def list_templates(self, _: _Context, __: object) -> types.ListResourceTemplatesResult:
        """Answer ``resources/templates/list``."""
        open_ended = [(tool, mark) for tool, mark in self._offers.resources() if mark.fields]
        templates = [answers.shown_template(*each) for each in open_ended]
        return types.ListResourceTemplatesResult(resource_templates=templates)

    async def list_prompts(self, _: _Context, __: object) -> types.ListPromptsResult:
        """Answer ``prompts/list``."""
        return types.ListPromptsResult(prompts=[answers.shown_prompt(each) for each in self._offers.prompts()])

    async def call_tool(self, context: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Answer ``tools/call``; what a model can mend, or should know, is a result and no error."""
        tool = next((each for each in self._offers.tools() if each.name == params.name), None)
        if tool is None:
            _refuse(f"there is no tool {params.name[:100]!r}")
        try:
            message = tool.read(params.arguments or {})
            if not tool.streams:
                return answers.result_of(tool, await self._ask(context, tool, message))
            collected = await self._ask(context, tool, message, self._progress(context, tool))
            return answers.items_of(tool, collected.items, complete=collected.complete)
        except (MessageError, CallFailed) as error:
            return answers.refusal(str(error))

    async def read_resource(
        self, context: _Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """Answer ``resources/read``."""
        tool, mark, found = self._resource(params.uri)
        reply = await self._ask_or_fail(context, tool, found)
        return answers.document_of(tool, mark, params.uri, reply)

    async def get_prompt(self, context: _Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        """Answer ``prompts/get``."""
        tool = self._prompt(params.name)
        return answers.prompt_of(tool, await self._ask_or_fail(context, tool, params.arguments or {}))

    async def complete(self, _: _Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Answer ``completion/complete``."""
        match params.ref:
            case types.PromptReference(name=name):
                tool = self._prompt(name)
            case types.ResourceTemplateReference(uri=uri):
                tool = self._template(uri)
        return answers.completion_of(tool.input_schema, params.argument.name, params.argument.value)

    async def subscribe(self, context: _Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        """Answer ``resources/subscribe``."""
        self._resource(params.uri)
        subscriptions = self._session(context).subscriptions
        if len(subscriptions) >= MOST_SUBSCRIPTIONS and params.uri not in subscriptions:
            _refuse(f"a client subscribes to at most {MOST_SUBSCRIPTIONS} resources")
        subscriptions[params.uri] = context.session
        return types.EmptyResult()

    async def unsubscribe(self, context: _Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        """Answer ``resources/unsubscribe``."""
        self._session(context).subscriptions.pop(params.uri, None)
        return types.EmptyResult()

    async def set_level(self, context: _Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        """Answer ``logging/setLevel``."""
        self._session(context).level = params.level
        return types.EmptyResult()

    def updated(self, uri: str) -> None:
        """Have those told that have subscribed to a resource; with too many changes waiting, nobody is."""
        try:
            self._updates.send_nowait(uri)
        except trio.WouldBlock:
            _log.warning("news of a changed resource dropped", waiting=MOST_UPDATES)

    async def tell_updates(self, updates: trio.MemoryReceiveChannel[str]) -> None:
        """Tell of changes, one after the other, until there can be no more."""
        async for uri in updates:
            listening = [each.subscriptions.get(uri) for each in self._sessions.values()]
            for session in filter(None, listening):
                # Fence: a client that has gone or is stuck; it misses the news, and its next request says so.
                with trio.move_on_after(TELL_LIMIT), fence(_missed):
                    await session.send_resource_updated(uri)

    def _session(self, context: _Context) -> _Session:
        """Return what is known of a client; of too many, the one that was not heard for longest is forgotten."""
        key = "" if context.request is None else context.request.headers.get(_SESSION, "")
        session = self._sessions.setdefault(key, _Session())
        self._sessions.move_to_end(key)
        if len(self._sessions) > MOST_SESSIONS + 1:
            self._sessions.popitem(last=False)
        return session

    def _resource(self, uri: str) -> tuple[Tool, Resource, Mapping[str, Any]]:
        """Find the resource at an address, and the fields that stand in that."""
        for tool, mark in sorted(self._offers.resources(), key=lambda each: len(each[1].fields)):
            found = mark.match(uri)
            if found is not None:
                fields = fields_of(tool.input_schema)
                return tool, mark, {name: _number(text, fields[name]) for name, text in found.items()}
        return _refuse(f"there is no resource {uri[:100]!r}")

    def _template(self, uri: str) -> Tool:
        for tool, mark in self._offers.resources():
            if mark.uri == uri:
                return tool
        return _refuse(f"there is no resource {uri[:100]!r}")

    def _prompt(self, name: str) -> Tool:
        for tool in self._offers.prompts():
            if tool.name == name:
                return tool
        return _refuse(f"there is no prompt {name[:100]!r}")

    async def _ask_or_fail(self, context: _Context, tool: Tool, found: Mapping[str, Any]) -> Any:  # noqa: ANN401
        fields = fields_of(tool.input_schema)
        arguments = {name: _number(each, fields.get(name, {})) for name, each in found.items()}
        try:
            return await self._ask(context, tool, tool.read(arguments))
        except MessageError as error:
            return _refuse(str(error))
        except CallFailed as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from None

    async def _ask(self, context: _Context, tool: Tool, message: Any, told: Told | None = None) -> Any:  # noqa: ANN401
        """Judge a message as policies judge what other nodes send, and have the agent ``mcp`` ask with it.

        Raises:
            CallFailed: there is no reply.
        """
        session = self._session(context)
        if self._draining:
            raise CallFailed("the server is stopping: nothing was done")
        if session.calls >= MOST_REQUESTS:
            raise CallFailed(f"{MOST_REQUESTS} calls are under way already: wait for one to end")
        self._busy += 1
        session.calls += 1
        try:
            self._offers.node.judge(AGENT, self._offers.guest.attributes, tool.agent.name, message)
            reply = await self._speaking.ask(Call(tool, message, SdkChannel(context, session.level), told))
        except Denied:
            raise CallFailed(f"the policy of {tool.agent.name} does not allow it") from None
        except (AutonomyError, trio.TooSlowError) as error:
            _log.warning("a call of an MCP client failed", tool=tool.name, why=type(error).__name__, detail=str(error))
            raise CallFailed("the server cannot do it now") from None
        finally:
            session.calls -= 1
            self._busy -= 1
            if not self._busy:
                self._idle.set()
        if isinstance(reply, CallFailed):
            raise reply
        return reply

    def _progress(self, context: _Context, tool: Tool) -> Told:
        """Return what reports each item of a stream."""
        count = 0

        async def tell(item: object) -> None:
            nonlocal count
            count += 1
            await context.session.report_progress(count, None, str(tool.written(item))[:MOST_ITEM])

        return tell


@asynccontextmanager
async def open_service(
    node: Node, *, name: str, attributes: Mapping[str, AttributeValue] | None = None
) -> AsyncGenerator[Service]:
    """Answer MCP clients for the length of a block.

    Args:
        node: whose agents are offered.
        name: what the server is called to clients.
        attributes: what is true of whoever is a client, for policies to read.

    Raises:
        DeclarationError: a handler cannot be what it is marked as.
        NameTaken: an agent is called ``mcp``.
    """
    guest = Principal(node.agent_identifier(AGENT), node.identifier, dict(attributes or {}))
    offers = Offers(node, guest)
    offers.read()
    updates, waiting = trio.open_memory_channel[str](MOST_UPDATES)
    speaking = node.spawn(Mcp, AGENT)
    service = Service(Server(name), offers, speaking, updates)
    _register(service)
    told_of_updates[node] = service.updated
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.tell_updates, waiting)
            try:
                yield service
            finally:
                nursery.cancel_scope.cancel()
    finally:
        del told_of_updates[node]
        speaking.stop()


def _register(service: Service) -> None:
    """Have a service answer the requests of the SDK's server."""
    add = service.server.add_request_handler
    add("tools/list", types.PaginatedRequestParams, _fenced(service.list_tools))
    add("tools/call", types.CallToolRequestParams, _fenced(service.call_tool))
    add("resources/list", types.PaginatedRequestParams, _fenced(service.list_resources))
    add("resources/templates/list", types.PaginatedRequestParams, _fenced(service.list_templates))
    add("resources/read", types.ReadResourceRequestParams, _fenced(service.read_resource))
    add("resources/subscribe", types.SubscribeRequestParams, _fenced(service.subscribe))
    add("resources/unsubscribe", types.UnsubscribeRequestParams, _fenced(service.unsubscribe))
    add("prompts/list", types.PaginatedRequestParams, _fenced(service.list_prompts))
    add("prompts/get", types.GetPromptRequestParams, _fenced(service.get_prompt))
    add("completion/complete", types.CompleteRequestParams, _fenced(service.complete))
    add("logging/setLevel", types.SetLevelRequestParams, _fenced(service.set_level))


def _fenced(answer: Callable[[_Context, P], Awaitable[R]]) -> Callable[[_Context, P], Awaitable[R]]:
    """Let no error of ours reach a client: it learns that there was one, and the log what it was."""

    async def run(context: _Context, params: P) -> R:
        try:
            return await answer(context, params)
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - fence: one request of a stranger; the server goes on
            _log.error("an MCP request failed", method=context.method, exc_info=error)
            raise MCPError(types.INTERNAL_ERROR, "the server failed: its log says why") from None

    return run


def _refuse(sentence: str) -> NoReturn:
    raise MCPError(types.INVALID_PARAMS, sentence)


def _missed(error: Exception) -> None:
    _log.info("an MCP client missed the news of a changed resource", why=type(error).__name__)


def _number(text: Any, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a stranger's
    """Return what stands in an address, or a prompt's argument, as the number that its field wants."""
    kinds: dict[object, type[int | float]] = {"integer": int, "number": float}
    kind = kinds.get(schema.get("type"))
    if kind is None:
        return text
    try:
        return kind(text)
    except ValueError:
        return text
