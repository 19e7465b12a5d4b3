"""A session with an MCP server: opened over a process or a URL, shared by all calls, and over when the server is."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar, cast, final

import httpx2
import mcp_types as types
import pydantic
import trio
from attrs import define, field
from mcp.client.session import ClientSession, MessageHandlerFnT
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError

from autonomy_trio.connect.mcp.servers.bodies import ASKED, bound
from autonomy_trio.connect.mcp.servers.lines import over_lines
from autonomy_trio.connect.mcp.servers.messages import INTERNAL_ERROR, LOST, METHOD_NOT_FOUND, McpError
from autonomy_trio.connect.mcp.servers.places import Command, Place, Url
from autonomy_trio.connect.mcp.servers.processes import Sayings, running
from autonomy_trio.connect.mcp.servers.watching import Replying, Watched
from autonomy_trio.errors import MessageError
from autonomy_trio.groups import fence
from autonomy_trio.messages import encode_payload

START_LIMIT: Final = 60.0
"""Seconds in which a server must have answered ``initialize``: one that is installed first takes long."""
LAST_WORDS: Final = 0.5
"""Seconds in which what a server wrote before it ended is read."""
ANSWERED_WITHIN: Final = 1.0
"""Seconds in which those whose calls a server's end has cut off take their answer, before the agent fails."""
HTTP_LIMIT: Final = 30.0
"""Seconds to connect to a server over HTTP, and to send."""
HTTP_SILENCE: Final = 300.0
"""Seconds in which a server over HTTP must say something in an answer that it has begun."""
LEAVE_LIMIT: Final = 1.0
"""Seconds that telling a server over HTTP of the session's end may take."""
SESSION_HEADER: Final = "mcp-session-id"
"""The header that names a session. Source: Model Context Protocol 2025-11-25, "Transports", session management."""
MOST_DATA: Final = 16 * 1024
"""Bytes of what an error brings beside its text; more is left out."""
MOST_MISFIT: Final = 200
"""Characters about what in an answer does not fit."""
MOST_QUOTED: Final = 2000
"""Characters of a server's error that are passed on."""

# The SDK logs what it raises too: that goes where a program sends its logs, and without one not to the terminal.
for _name in ("mcp", "client"):
    logging.getLogger(_name).addHandler(logging.NullHandler())

ResultT = TypeVar("ResultT", bound=pydantic.BaseModel)


@final
@define(eq=False, repr=False)
class Session:
    """What calls share; it is over once `ended` is set, and `why` says how, as the end of a sentence."""

    client: ClientSession
    ended: trio.Event
    settled: trio.Event = field(factory=trio.Event)
    """Set once `why` is known."""
    why: str = "no longer answers"
    _calls: int = 0
    _idle: trio.Event = field(factory=trio.Event)

    async def request(self, request: Any, kind: type[ResultT], on_progress: ProgressFnT | None = None) -> ResultT:  # noqa: ANN401 - any request of the SDK's
        """Ask the server; a cancelled call tells it so.

        Raises:
            McpError: it answers with an error, or with what is no answer, or has ended.
        """
        self._calls += 1
        try:
            return await self._request(request, kind, on_progress)
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _request(self, request: Any, kind: type[ResultT], on_progress: ProgressFnT | None) -> ResultT:  # noqa: ANN401 - as above
        try:
            return await self.client.send_request(request, kind, progress_callback=on_progress)
        except MCPError as error:
            failure = error
        except pydantic.ValidationError as error:
            msg = f"the MCP server answered {request.method} with what is no such result: {_misfit(error)}"
            raise McpError(INTERNAL_ERROR, msg) from None
        if failure.code == types.INVALID_REQUEST and failure.message == "Session terminated":
            self.end("has forgotten the session")
        elif failure.code != types.CONNECTION_CLOSED or not await self._is_over():
            raise McpError(failure.code, failure.message[:MOST_QUOTED], _data(failure.data))
        raise self.lost()

    def lost(self) -> McpError:
        """Return what a call gets that the end of the server cut off."""
        return McpError(LOST, f"the MCP server {self.why} in this call, which may have had effects")

    async def _is_over(self) -> bool:
        """Tell whether the server has ended; it may take a moment until it is known how."""
        with trio.move_on_after(ANSWERED_WITHIN):
            await self.ended.wait()
            await self.settled.wait()
        return self.ended.is_set()

    def end(self, why: str) -> None:
        """Be over; the first reason counts."""
        if not self.settled.is_set():
            self.why = why
        self.settled.set()
        self.ended.set()

    async def wait_over(self) -> McpError:
        """Return when the server has ended and those who had asked have their answer; it says how it ended."""
        await self.settled.wait()
        with trio.move_on_after(ANSWERED_WITHIN):
            while self._calls:
                self._idle = trio.Event()
                await self._idle.wait()
        return McpError(LOST, f"the MCP server {self.why}")


def _misfit(error: pydantic.ValidationError) -> str:
    """Say where an answer does not fit first, and nothing that stands there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:MOST_MISFIT]


def _data(found: object) -> object:
    """Return what an error of the server brings, where a message can carry it."""
    try:
        return found if len(encode_payload(McpError(0, "", found))) <= MOST_DATA else None
    except MessageError:
        return None


def described(client: ClientSession) -> tuple[types.Implementation, Mapping[str, Any]]:
    """Return who a server says it is, and its capabilities as MCP writes them."""
    info = client.server_info or types.Implementation(name="", version="")
    capabilities = client.server_capabilities or types.ServerCapabilities()
    return info, capabilities.model_dump(by_alias=True, mode="json", exclude_unset=True)


@asynccontextmanager
async def open_session(place: Place, log: Any, on_message: MessageHandlerFnT) -> AsyncGenerator[Session]:  # noqa: ANN401 - structlog's
    """Start or reach a server for the length of a block, and have it initialized.

    Args:
        place: where it is.
        log: where what it says beside its answers goes to.
        on_message: is told each of its notices.

    Raises:
        ConfigurationError: its command or folder is not there.
        McpError: it did not answer ``initialize`` in time, or as a server would, or has ended before; or ends with the
            block's own failure.
    """
    failures: list[Exception] = []
    opening = _open_command if isinstance(place, Command) else _open_url
    # Fence: a transport of a foreign library, whose failures are one sentence each.
    with fence(failures.append):
        async with opening(cast("Any", place), log, on_message) as session:
            yield session
    if failures:
        raise _single(failures[0], place) from None


def _single(error: BaseException, place: Place) -> Exception:
    """Return the one error behind a transport's failure, in words that give away no header or query."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if isinstance(error, httpx2.HTTPError):
        return McpError(LOST, f"the MCP server at {place} cannot be reached: {type(error).__name__}")
    return cast("Exception", error)


@asynccontextmanager
async def _open_command(place: Command, log: Any, on_message: MessageHandlerFnT) -> AsyncGenerator[Session]:  # noqa: ANN401 - as above
    sayings = Sayings(log)
    noise = _Noise(sayings)
    ended = trio.Event()
    async with running(place.command, place.env, place.cwd, sayings) as child:
        out, into = child.process.stdout, child.process.stdin
        assert out is not None  # noqa: S101 - it was started with pipes
        assert into is not None  # noqa: S101 - as above
        async with over_lines(out, into, noise.hear) as (messages, replies), trio.open_nursery() as nursery:
            replying = Replying(replies)
            client = ClientSession(Watched(messages, ended, replying), replying, message_handler=on_message)
            async with client:
                session = Session(client, ended)

                async def settle() -> None:
                    await _first(ended, child.ended)
                    with trio.move_on_after(LAST_WORDS):
                        await ended.wait()
                        await child.ended.wait()
                    session.end(child.how())

                nursery.start_soon(settle)
                await _initialize(session, noise.words)
                yield session
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_url(place: Url, _: object, on_message: MessageHandlerFnT) -> AsyncGenerator[Session]:
    heard = _Heard()
    ended = trio.Event()
    timeout = httpx2.Timeout(HTTP_LIMIT, read=HTTP_SILENCE)
    headers = {**ASKED, **place.headers}
    http = httpx2.AsyncClient(headers=headers, timeout=timeout, event_hooks={"response": [heard.note, bound]})
    async with (
        http,
        streamable_http_client(place.url, http_client=http, terminate_on_close=False) as (messages, replies),
        Replying(replies) as replying,
        ClientSession(Watched(messages, ended, replying), replying, message_handler=on_message) as client,
    ):
        session = Session(client, ended)
        try:
            async with trio.open_nursery() as nursery:

                async def settle() -> None:
                    await ended.wait()
                    session.end("can no longer be reached")

                nursery.start_soon(settle)
                await _initialize(session, heard.words)
                yield session
                nursery.cancel_scope.cancel()
        finally:
            session.end("can no longer be reached")
            # Also when cancelled, with which the SDK's own way of doing this would be cancelled too.
            with trio.move_on_after(LEAVE_LIMIT, shield=True):
                await heard.leave(http, place)


@define(eq=False)
class _Heard:
    """What responses say beside their bodies."""

    status: int = 0
    session: str | None = None

    async def note(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.session = response.headers.get(SESSION_HEADER, self.session)

    def words(self) -> str:
        """Say what may explain a server that does not begin."""
        return f"; it answers with HTTP status {self.status}" if self.status >= httpx2.codes.BAD_REQUEST else ""

    async def leave(self, http: httpx2.AsyncClient, place: Url) -> None:
        """Tell the server that the session is over."""
        if self.session is not None:
            with suppress(httpx2.HTTPError):
                await http.delete(place.url, headers={SESSION_HEADER: self.session})


async def _first(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)


async def _initialize(session: Session, more: Callable[[], str]) -> None:
    """Shake hands, by ``initialize`` or, with a server that has only what came after it, by ``server/discover``."""
    failure: MCPError | None = None
    with trio.move_on_after(START_LIMIT) as scope:
        try:
            failure = await _greet(session.client)
        except (pydantic.ValidationError, RuntimeError):
            msg = f"the MCP server answered initialize with what is no such answer{more()}"
            raise McpError(INTERNAL_ERROR, msg) from None
        if failure is not None and failure.code == types.CONNECTION_CLOSED:
            await session.settled.wait()
            raise McpError(LOST, f"the MCP server {session.why} before it answered initialize{more()}")
    if scope.cancelled_caught:
        raise McpError(LOST, f"the MCP server did not answer initialize in {START_LIMIT:g} s{more()}")
    if failure is not None:
        msg = f"the MCP server refused initialize: {failure.message[:MOST_QUOTED]}{more()}"
        raise McpError(failure.code, msg)


async def _greet(client: ClientSession) -> MCPError | None:
    """Initialize a client, in the way that the server knows; return its last refusal."""
    refusal: MCPError | None = None
    for greeting in (client.initialize, client.discover):
        try:
            await greeting()
        except MCPError as error:
            refusal = error
        else:
            return None
        if refusal.code not in (METHOD_NOT_FOUND, types.UNSUPPORTED_PROTOCOL_VERSION):
            break
    return refusal


@define(eq=False)
class _Noise:
    """What a server writes to standard output beside JSON-RPC: many print a line or two there."""

    sayings: Sayings
    count: int = 0

    def hear(self, line: bytes) -> None:
        self.count += 1
        if line.strip():
            self.sayings.say("the MCP server writes what is no JSON-RPC", line.decode(errors="replace"))

    def words(self) -> str:
        return f"; lines of it that are no JSON-RPC: {self.count:,}" if self.count else ""
