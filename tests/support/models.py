"""A server that speaks as models' vendors do, over real sockets, and says what a test has scripted."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs
import h11
import trio

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error"}


@attrs.define(eq=False)
class Exchange:
    """One request, and the way to answer it."""

    path: str
    headers: Mapping[str, str]
    body: Any
    _stream: trio.SocketStream
    _parser: h11.Connection
    hung_up: trio.Event = attrs.field(factory=trio.Event)
    """Set when the client has closed its end."""

    async def answer(self, body: object, status: int = 200, **headers: str) -> None:
        """Answer at once; what is no text is JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        given = {"content-type": "application/json", **{name.replace("_", "-"): each for name, each in headers.items()}}
        await self.begin(status, {**given, "content-length": str(len(text.encode()))})
        await self.send(text)
        await self.end()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        response = h11.Response(status_code=status, headers=list(headers.items()), reason=REASONS.get(status, "Odd"))
        await self._write(response)

    async def send(self, text: str) -> None:
        await self._write(h11.Data(data=text.encode()))

    async def end(self) -> None:
        await self._write(h11.EndOfMessage())

    async def events(self, *events: object, typed: bool = False) -> None:
        """Send events of a stream; what is no text is JSON, and Anthropic's name their type beside it."""
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            name = f"event: {event['type']}\n" if typed and isinstance(event, dict) else ""
            await self.send(f"{name}data: {text}\n\n")

    async def begin_events(self) -> None:
        await self.begin(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    async def drop(self) -> None:
        """Break the connection off."""
        await self._stream.aclose()

    async def wait_hung_up(self) -> None:
        """Return when the client has closed its end."""
        with suppress(trio.BrokenResourceError):
            while await self._stream.receive_some(4096):
                pass
        self.hung_up.set()

    async def _write(self, event: h11.Event) -> None:
        data = self._parser.send(event)
        if data:
            await self._stream.send_all(data)


Script = Callable[[Exchange], Awaitable[None]]


@attrs.define(eq=False)
class Scripted:
    """The server: each request is answered by the next script, the last of which answers all the rest."""

    port: int
    scripts: list[Script]
    seen: list[Exchange] = attrs.field(factory=list[Exchange])
    changed: trio.Event = attrs.field(factory=trio.Event)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def wait_seen(self, number: int) -> Exchange:
        """Return the request of that number, from 1, once it has come."""
        while len(self.seen) < number:
            await self.changed.wait()
        return self.seen[number - 1]

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            parser = h11.Connection(h11.SERVER)
            while True:
                exchange = await read_request(stream, parser)
                if exchange is None:
                    return
                self.seen.append(exchange)
                self.changed.set()
                self.changed = trio.Event()
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                try:
                    await script(exchange)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    exchange.hung_up.set()
                    return
                if parser.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    return
                parser.start_next_cycle()


async def read_request(stream: trio.SocketStream, parser: h11.Connection) -> Exchange | None:
    """Return the next request; None where the client has gone, perhaps in the middle of one."""
    request, body = None, b""
    with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
        while True:
            event = parser.next_event()
            match event:
                case h11.NEED_DATA:
                    parser.receive_data(await stream.receive_some(65536))
                case h11.Request():
                    request = event
                case h11.Data():
                    body += bytes(event.data)
                case h11.EndOfMessage():
                    assert request is not None
                    headers = {name.decode().lower(): value.decode() for name, value in request.headers}
                    return Exchange(request.target.decode(), headers, json.loads(body), stream, parser)
                case _:
                    return None
    return None


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncGenerator[Scripted]:
    """Run a server with these scripts."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Scripted(listener.socket.getsockname()[1], list(scripts))
        await nursery.start(partial(trio.serve_listeners, server.serve, [listener]))
        yield server
        nursery.cancel_scope.cancel()


# What a model of OpenAI's says.


def whole(text: str = "", *calls: tuple[str, str, object], stopped: str | None = None) -> dict[str, Any]:
    """A chat completion; each call is its id, its name and its arguments."""
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {"id": key, "type": "function", "function": {"name": name, "arguments": as_text(given)}}
            for key, name, given in calls
        ]
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted-1",
        "choices": [{"index": 0, "message": message, "finish_reason": stopped or ("tool_calls" if calls else "stop")}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def as_text(given: object) -> str:
    return given if isinstance(given, str) else json.dumps(given)


def chunk(delta: Mapping[str, object] | None = None, stopped: str | None = None) -> dict[str, Any]:
    """A chunk of a chat completion."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": stopped}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "scripted-1", "choices": [choice]}


def chunks(text: str = "", *calls: tuple[str, str, object]) -> list[Any]:
    """All events of a stream that says this, word by word, each call in two pieces."""
    found: list[Any] = [chunk({"role": "assistant", "content": each}) for each in words_of(text)]
    for index, (key, name, given) in enumerate(calls):
        arguments = as_text(given)
        first = {"index": index, "id": key, "type": "function", "function": {"name": name, "arguments": arguments[:3]}}
        found.append(chunk({"tool_calls": [first]}))
        found.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[3:]}}]}))
    found.append(chunk(stopped="tool_calls" if calls else "stop"))
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return [*found, {**chunk(), "choices": [], "usage": usage}, "[DONE]"]


def words_of(text: str) -> list[str]:
    return [each + " " for each in text.split(" ")[:-1]] + text.split(" ")[-1:] if text else []


def say(text: str = "", *calls: tuple[str, str, object], stopped: str | None = None) -> Script:
    """Answer with a text and calls, in parts if that was asked for."""

    async def script(exchange: Exchange) -> None:
        if not exchange.body.get("stream"):
            await exchange.answer(whole(text, *calls, stopped=stopped))
            return
        await exchange.begin_events()
        await exchange.events(*chunks(text, *calls))
        await exchange.end()

    return script


def refuse(status: int, message: str = "no", code: str | None = None, **headers: str) -> Script:
    """Answer with an error as OpenAI writes it."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer({"error": {"message": message, "code": code, "type": "odd"}}, status, **headers)

    return script


async def hang(exchange: Exchange) -> None:
    """Say nothing until the client goes."""
    await exchange.wait_hung_up()


def half(text: str) -> Script:
    """Say a part of a stream, and break off."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.events(chunk({"role": "assistant", "content": text}))
        await exchange.drop()

    return script


def then_hang(text: str) -> Script:
    """Say a part of a stream, and nothing more until the client goes."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.events(chunk({"role": "assistant", "content": text}))
        await exchange.wait_hung_up()

    return script


def answer(body: object, status: int = 200, **headers: str) -> Script:
    """Answer with just this."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status, **headers)

    return script


def events(*sent: object, typed: bool = False) -> Script:
    """Send just these events."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.events(*sent, typed=typed)
        await exchange.end()

    return script


# What a model of Anthropic's says.


def claude(text: str = "", *calls: tuple[str, str, object], stopped: str | None = None) -> dict[str, Any]:
    """A message of Anthropic's; each call is its id, its name and its arguments."""
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    blocks += [{"type": "tool_use", "id": key, "name": name, "input": given} for key, name, given in calls]
    return {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "claude-1",
        "content": blocks,
        "stop_reason": stopped or ("tool_use" if calls else "end_turn"),
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }


def claude_events(text: str = "", *calls: tuple[str, str, object]) -> list[dict[str, Any]]:
    """All events of a stream of Anthropic's that says this."""
    start = {**claude(), "content": [], "usage": {"input_tokens": 7, "output_tokens": 0}}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    found.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for each in words_of(text):
        delta = {"type": "text_delta", "text": each}
        found.append({"type": "content_block_delta", "index": 0, "delta": delta})
    found.append({"type": "content_block_stop", "index": 0})
    for index, (key, name, given) in enumerate(calls, 1):
        block = {"type": "tool_use", "id": key, "name": name, "input": {}}
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        for piece in (as_text(given)[:3], as_text(given)[3:]):
            delta = {"type": "input_json_delta", "partial_json": piece}
            found.append({"type": "content_block_delta", "index": index, "delta": delta})
        found.append({"type": "content_block_stop", "index": index})
    stopped = {"stop_reason": "tool_use" if calls else "end_turn"}
    found.append({"type": "message_delta", "delta": stopped, "usage": {"output_tokens": 3}})
    return [*found, {"type": "message_stop"}]
