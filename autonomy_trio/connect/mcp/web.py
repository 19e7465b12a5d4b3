"""MCP over streamable HTTP: connections, sessions and requests within bounds, on sockets of our own.

The SDK keeps sessions and speaks the protocol, hypercorn speaks HTTP. Connections are accepted here, since hypercorn
bounds neither how many there are nor how long one takes to read what it is sent.
"""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, cast, final

import attrs
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from mcp.server.lowlevel import Server
from mcp.server.streamable_http import EventStore
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from autonomy_trio.connect.mcp.channel import BEGUN
from autonomy_trio.connect.mcp.events import Events
from autonomy_trio.connect.mcp.gate import Gate, Refused
from autonomy_trio.connect.mcp.service import MOST_REQUESTS, MOST_SESSIONS
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log

MOST_CONNECTIONS: Final = 512
"""Connections at once; one more is closed."""

MOST_OPENING: Final = 256
"""Requests without a session that are under way at once: those that begin one, and all of the newest protocol."""

MOST_BODY: Final = 1024 * 1024
"""Bytes of one request's body."""

MOST_HEAD: Final = 16 * 1024
"""Bytes of one request's head."""

SESSION_IDLE: Final = 1800.0
"""Seconds after which a session ends in which no request is under way."""

READ_LIMIT: Final = 30.0
"""Seconds in which a request is read, head and body."""

SEND_LIMIT: Final = 30.0
"""Seconds in which a client takes what it is sent; else its connection ends."""

KEEP_ALIVE: Final = 30.0
"""Seconds that a connection stays open between two requests."""

RETRY: Final = 1000
"""Milliseconds that a client is asked to wait before it reconnects."""

_SESSION: Final = b"mcp-session-id"
_VERSION: Final = b"mcp-protocol-version"
_AGREED: Final = re.compile(rb'"protocolVersion":"([0-9-]+)"')
_LEAST_ERROR: Final = 400
_DETAILED: Final = (b"Validation error", b"Parse error")
"""Errors of the SDK that quote its parsers."""

_log = get_log()

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Sessions(StreamableHTTPSessionManager):
    """The SDK's sessions, each with events of its own: in a common store two clients' streams have the same names."""

    @property
    def event_store(self) -> EventStore | None:
        """Events for a session that begins."""
        return Events()

    @event_store.setter
    def event_store(self, store: EventStore | None) -> None:
        """Take none from outside."""


@final
@attrs.define(eq=False)
class Web:
    """An MCP server over HTTP."""

    _server: Server[Any]
    _gate: Gate
    _streams: set[trio.SocketStream] = attrs.field(factory=set[trio.SocketStream])
    _requests: dict[str, int] = attrs.field(factory=dict[str, int])
    """Requests under way, by session."""
    _versions: OrderedDict[str, bytes] = attrs.field(factory=OrderedDict[str, bytes])
    """What sessions have agreed on to speak; the one that was unused for longest comes first."""

    async def serve(
        self, listeners: list[trio.SocketListener], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer until cancelled; the listeners are closed then."""
        sessions = _Sessions(
            self._server,
            retry_interval=RETRY,
            session_idle_timeout=SESSION_IDLE,
            max_request_body_size=MOST_BODY,
            max_sessions=MOST_SESSIONS,
        )

        async def app(scope: _Scope, receive: _Receive, send: _Send) -> None:
            await self._answer(sessions, scope, receive, send)

        config, wrapped = _config(), ASGIWrapper(cast("Any", app))

        async def connection(stream: trio.SocketStream) -> None:
            if len(self._streams) >= MOST_CONNECTIONS:
                return
            self._streams.add(stream)
            try:
                # Fence: a stranger's connection; the server goes on.
                with fence(_failed):
                    patient = cast("Any", _Patient(stream))
                    await TCPServer(wrapped, config, WorkerContext(None), ConnectionState({}), patient)
            finally:
                self._streams.discard(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hang_up_at_end)
            async with sessions.run():
                task_status.started()
                await trio.serve_listeners(connection, listeners)

    def _noting(self, send: _Send) -> _Send:
        """Take note of what a session agrees on that begins with this answer, before its client knows."""
        session: str | None = None

        async def write(message: MutableMapping[str, Any]) -> None:
            nonlocal session
            if message["type"] == "http.response.start":
                session = _session_of(message["headers"]) or None
            elif session is not None and (agreed := _AGREED.search(message.get("body", b""))) is not None:
                self._versions[session] = agreed[1]
                if len(self._versions) > MOST_SESSIONS:
                    self._versions.popitem(last=False)
            await send(message)

        return write

    async def _end_idle(self, sessions: StreamableHTTPSessionManager, scope: _Scope) -> None:
        """End the session that was unused for longest and has no request under way, as if its client had done so.

        Many clients leave without a word, and would shut all others out until `SESSION_IDLE` has passed.
        """
        idle = next((each for each in self._versions if each not in self._requests), None)
        if idle is not None:
            headers = [(b"accept", b"*/*"), (_SESSION, idle.encode()), (_VERSION, self._versions.pop(idle))]
            await sessions.handle_request({**scope, "method": "DELETE", "headers": headers}, _nothing, _unsent)

    async def _hang_up_at_end(self) -> None:
        """Close all connections when cancelled, also those on which something is being sent."""
        try:
            await trio.sleep_forever()
        finally:
            for stream in self._streams:
                stream.socket.close()

    async def _answer(
        self, sessions: StreamableHTTPSessionManager, scope: _Scope, receive: _Receive, send: _Send
    ) -> None:
        if scope["type"] != "http":
            return
        refused = self._gate.judge(scope)
        session = _session_of(scope["headers"])
        if refused is None and self._requests.get(session, 0) >= (MOST_REQUESTS if session else MOST_OPENING):
            refused = Refused(429, f"too many requests {'of this' if session else 'without a'} session are under way")
        if refused is not None:
            await _refuse(refused, send)
            return
        if not session and _begins(scope["headers"]) and len(self._versions) >= MOST_SESSIONS:
            await self._end_idle(sessions, scope)
        version = self._versions.get(session)
        if version is not None:
            self._versions.move_to_end(session)
            # What was agreed counts, also for a client that says another one: else it could not come back for answers.
            others = [(name, value) for name, value in scope["headers"] if name != _VERSION]
            scope["headers"] = [*others, (_VERSION, version)]
        self._requests[session] = self._requests.get(session, 0) + 1
        begun = scope[BEGUN] = trio.Event()
        try:
            # Fence: a stranger's request; without an answer by now it gets 500, and no word why.
            with fence(_failed):
                await sessions.handle_request(
                    scope, _within(receive), _coarse(send if session else self._noting(send), begun)
                )
        finally:
            self._requests[session] -= 1
            if not self._requests[session]:
                del self._requests[session]


@final
@attrs.define(eq=False)
class _Patient:
    """A connection as hypercorn uses one, which waits for a slow reader for a while and no longer.

    Hypercorn shields what it sends from cancellation, so without this a client that reads nothing would hold the server
    when it stops.
    """

    stream: trio.SocketStream
    socket: trio.socket.SocketType = attrs.field(
        init=False, default=attrs.Factory(lambda self: self.stream.socket, takes_self=True)
    )

    async def receive_some(self, most: int) -> bytes:
        """Read what has come."""
        return await self.stream.receive_some(most)

    async def send_all(self, data: bytes) -> None:
        """Send it all within `SEND_LIMIT`, or close it.

        Raises:
            trio.BrokenResourceError: the client has gone, or does not read.
        """
        with trio.move_on_after(SEND_LIMIT):
            await self.stream.send_all(data)
            return
        await trio.aclose_forcefully(self.stream)  # or it would be open for as long as the client likes
        raise trio.BrokenResourceError

    async def send_eof(self) -> None:
        """Say that nothing more comes."""
        await self.stream.send_eof()

    async def aclose(self) -> None:
        """Close it."""
        await self.stream.aclose()


def _session_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the session that a request or an answer is of; empty for none."""
    return next((value.decode("latin-1") for name, value in headers if name == _SESSION), "")


def _begins(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request without a session may be the first of one; in the newest protocol there is none."""
    said = next((value.decode("latin-1") for name, value in headers if name == _VERSION), None)
    return said is None or said in HANDSHAKE_PROTOCOL_VERSIONS


async def _nothing() -> MutableMapping[str, Any]:
    """Be a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def _unsent(_: MutableMapping[str, Any]) -> None:
    """Be an answer that nobody waits for."""


def _config() -> Config:
    config = Config()
    config.errorlog = config.accesslog = None
    config.h11_max_incomplete_size = MOST_HEAD
    config.h2_max_header_list_size = MOST_HEAD
    config.h2_max_concurrent_streams = MOST_REQUESTS
    config.keep_alive_timeout = int(KEEP_ALIVE)
    config.include_server_header = False
    return config


def _within(receive: _Receive) -> _Receive:
    """Read a request's body within `READ_LIMIT`; a slower client counts as gone."""
    deadline, complete = trio.current_time() + READ_LIMIT, False

    async def read() -> MutableMapping[str, Any]:
        nonlocal complete
        if complete:
            return await receive()
        with trio.move_on_at(deadline):
            message = await receive()
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message
        return {"type": "http.disconnect"}

    return read


def _coarse(send: _Send, begun: trio.Event) -> _Send:
    """Send errors without what a parser has to say of them, which tells of the libraries in here.

    Args:
        send: sends a part of the answer.
        begun: set when something of its body was sent.
    """
    start: MutableMapping[str, Any] | None = None
    body = bytearray()

    async def write(message: MutableMapping[str, Any]) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and message["status"] >= _LEAST_ERROR:
            start = message
        elif start is None:
            await send(message)
            if message.get("body"):
                begun.set()
        else:
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                short = _without_detail(bytes(body))
                others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
                await send({**start, "headers": [*others, (b"content-length", str(len(short)).encode())]})
                await send({"type": "http.response.body", "body": short})

    return write


def _without_detail(body: bytes) -> bytes:
    for detailed in _DETAILED:
        body = re.sub(rb'("message":"' + detailed + rb'):(?:[^"\\]|\\.)*"', rb'\1"', body)
    return body


async def _refuse(refused: Refused, send: _Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *refused.headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{refused.sentence}\n".encode()})


def _failed(error: Exception) -> None:
    _log.warning("a connection of an MCP client failed", why=type(error).__name__, detail=str(error))
