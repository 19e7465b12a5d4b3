"""MCP over HTTP, over real sockets: the SDK's client, and bytes that no client sends."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import httpx2
import mcp_types as types
import pytest
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from autonomy_trio import open_node
from autonomy_trio.connect.mcp import serve_http, web
from autonomy_trio.connect.mcp.service import MOST_REQUESTS
from autonomy_trio.errors import ConfigurationError
from tests.support.desk import Desk

# The SDK's client and the library below it leave their responses to the garbage collector when they are closed.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(httpx2|httpcore2):ResourceWarning")

TOKEN: Final = "a-token-of-this-test"
JSON: Final = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
HELLO: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@asynccontextmanager
async def serving(agent: Desk | None = None, **options: Any) -> AsyncGenerator[str]:  # noqa: ANN401 - as `serve_http`
    found = agent or Desk()
    async with open_node([lambda: found]) as node, trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[str]) -> None:
            await serve_http(node, "127.0.0.1:0", task_status=task_status, **options)

        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


async def until(reached: Any) -> None:  # noqa: ANN401 - a callable
    with trio.fail_after(30):
        while not reached():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.001)


async def post(client: httpx2.AsyncClient, url: str, body: Any, **headers: str) -> httpx2.Response:  # noqa: ANN401 - JSON
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post(url, content=content, headers=JSON | {k.replace("_", "-"): v for k, v in headers.items()})


async def raw(url: str) -> trio.SocketStream:
    host, _, port = url.removeprefix("http://").removesuffix("/mcp").partition(":")
    return await trio.open_tcp_stream(host, int(port))


async def closed(stream: trio.SocketStream) -> bool:
    """Tell whether the other side has closed a connection without a word, once it has said or done something."""
    with suppress(trio.BrokenResourceError):
        return await stream.receive_some() == b""
    return True


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_calls_tools_and_is_told_of_progress(mode: Any) -> None:  # noqa: ANN401 - the client's own
    told: list[float] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        told.append(done)

    async with serving() as url, Client(url, mode=mode) as client:
        assert (await client.call_tool("add", {"amount": 3})).structured_content == {"value": 3}
        await client.call_tool("count", {"upto": 3}, progress_callback=progress)
        await until(lambda: sorted(told) == [1, 2, 3])


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_that_cancels_ends_the_handler(mode: Any) -> None:  # noqa: ANN401 - the client's own
    agent = Desk()
    async with serving(agent) as url, Client(url, mode=mode) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call_tool, "wait", {})
            await until(lambda: agent.waiting == 1)
            nursery.cancel_scope.cancel()
        await until(lambda: agent.cancelled == 1)
        assert not (await client.call_tool("add", {"amount": 1})).is_error


async def test_a_client_that_ends_its_session_ends_its_handlers() -> None:
    agent = Desk()
    async with serving(agent) as url, trio.open_nursery() as nursery:

        async def use() -> None:
            async with Client(url, mode="legacy") as client:
                nursery.start_soon(call_and_fail, client)
                await until(lambda: agent.waiting == 1)

        async def call_and_fail(client: Client) -> None:
            with pytest.raises(MCPError):
                await client.call_tool("wait", {})

        nursery.start_soon(use)
        await until(lambda: agent.cancelled == 1)


async def test_a_handler_can_hang_up_and_the_client_comes_back_for_its_answer() -> None:
    async with serving() as url, Client(url, mode="legacy") as client:
        with trio.fail_after(30):
            result = await client.call_tool("long", {})
    assert result.content == [types.TextContent(text="done")]


@pytest.mark.parametrize("said", ["2025-11-25", "2025-03-26"])
async def test_what_is_sent_after_the_connection_was_closed_is_read_from_where_it_ended(said: str) -> None:
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "long"}}
    async with serving() as url, httpx2.AsyncClient(headers={"mcp-protocol-version": said}) as plain:
        session = (await post(plain, url, HELLO)).headers["mcp-session-id"]
        lines = (await post(plain, url, call, mcp_session_id=session)).text.splitlines()
        begun = dict(line.split(": ", 1) for line in lines if ": " in line)
        assert begun["retry"] == "1000"
        assert "data" not in begun or not begun["data"]
        headers = {"accept": "text/event-stream", "mcp-session-id": session, "last-event-id": begun["id"]}
        with trio.fail_after(30):
            async with plain.stream("GET", url, headers=headers) as rest:
                async for line in rest.aiter_lines():
                    if line.startswith("data: {"):
                        assert json.loads(line.removeprefix("data: "))["result"]["content"][0]["text"] == "done"
                        break


async def test_log_messages_and_questions_come_over_the_calls_own_stream() -> None:
    logged: list[str] = []

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.append(params.level)

    async def sample(_: object, __: object) -> types.CreateMessageResult:
        return types.CreateMessageResult(role="assistant", content=types.TextContent(text="42"), model="m")

    async with serving() as url, Client(url, mode="legacy", logging_callback=log, sampling_callback=sample) as client:
        await client.call_tool("log", {})
        assert (await client.call_tool("guess", {"prompt": "?"})).content == [types.TextContent(text="42")]
        await until(lambda: logged == ["error"])


async def test_without_the_token_the_answer_is_401_and_with_it_the_client_is_served() -> None:
    async with serving(token=TOKEN) as url, httpx2.AsyncClient() as plain:
        for shown in ({}, {"authorization": "Bearer wrong"}):
            found = await post(plain, url, HELLO, **shown)
            assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}) as known,
            Client(streamable_http_client(url, http_client=known), mode="legacy") as client,
        ):
            assert not (await client.call_tool("add", {"amount": 3})).is_error


async def test_a_page_that_was_led_here_is_refused() -> None:
    async with serving() as url, httpx2.AsyncClient() as plain:
        assert (await post(plain, url, HELLO, host="evil.example.com")).status_code == 421
        assert (await post(plain, url, HELLO, origin="http://evil.example.com")).status_code == 403
        assert (await post(plain, url, HELLO, origin=url.removesuffix("/mcp"))).status_code == 200


async def test_a_request_that_is_none_is_refused_in_few_words_and_the_server_goes_on() -> None:
    async with serving() as url, httpx2.AsyncClient() as plain:
        parse, validation = await post(plain, url, b"{bad"), await post(plain, url, {"a": '"x'})
        assert (parse.status_code, parse.json()["error"]["message"]) == (400, "Parse error")
        assert (validation.status_code, validation.json()["error"]["message"]) == (400, "Validation error")
        assert (await plain.get(url.removesuffix("/mcp"))).status_code == 404
        stream = await raw(url)
        await stream.send_all(b"GARBAGE\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")
        await stream.aclose()
        async with Client(url, mode="legacy") as client:
            assert not (await client.call_tool("add", {"amount": 1})).is_error


async def test_a_websocket_is_no_request() -> None:
    async with serving() as url:
        stream = await raw(url)
        await stream.send_all(
            b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        with trio.fail_after(30):
            assert b"101" not in (await stream.receive_some()).split(b"\r\n")[0]
        await stream.aclose()


async def test_a_body_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_BODY", 1000)
    async with serving() as url, httpx2.AsyncClient() as plain:
        assert (await post(plain, url, b"x" * 1001)).status_code == 413


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "READ_LIMIT", 0.01)
    async with serving() as url:
        stream = await raw(url)
        await stream.send_all(
            b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Accept: application/json, text/event-stream\r\nContent-Length: 10\r\n\r\n{"
        )
        with trio.fail_after(30):
            assert not (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        await stream.aclose()


async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "KEEP_ALIVE", 0)
    async with serving() as url:
        stream = await raw(url)
        await stream.send_all(b"POST /mcp")
        with trio.fail_after(30):
            assert await closed(stream)
        await stream.aclose()


async def test_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_CONNECTIONS", 1)
    async with serving() as url:
        first, second = await raw(url), await raw(url)
        with trio.fail_after(30):
            assert await closed(second)
        await second.aclose()
        await first.aclose()


async def test_so_many_sessions_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_SESSIONS", 1)
    agent = Desk()
    async with (
        serving(agent) as url,
        httpx2.AsyncClient() as plain,
        Client(url, mode="legacy") as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.call_tool, "wait", {})
        await until(lambda: agent.waiting == 1)
        assert (await post(plain, url, HELLO)).status_code == 503
        nursery.cancel_scope.cancel()


async def test_clients_that_leave_without_a_word_shut_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_SESSIONS", 2)
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    async with serving() as url, httpx2.AsyncClient() as plain:
        sessions: list[str] = []
        for _ in range(5):
            found = await post(plain, url, HELLO)
            assert found.status_code == 200
            sessions.append(found.headers["mcp-session-id"])
            if len(sessions) > 1:
                assert (await post(plain, url, ping, mcp_session_id=sessions[0])).status_code == 200
        statuses = [(await post(plain, url, ping, mcp_session_id=each)).status_code for each in sessions]
        assert statuses == [200, 404, 404, 404, 200], "the one that is used is kept"


async def test_a_session_without_requests_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SESSION_IDLE", 0.01)
    async with serving() as url, httpx2.AsyncClient() as plain:
        session = (await post(plain, url, HELLO)).headers["mcp-session-id"]
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        with trio.fail_after(30):
            while (await post(plain, url, ping, mcp_session_id=session)).status_code != 404:  # noqa: ASYNC110 - as well
                await trio.sleep(0.05)


async def test_so_many_requests_without_a_session_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_OPENING", 1)
    async with serving() as url, httpx2.AsyncClient() as plain:
        assert (await post(plain, url, HELLO)).status_code == 200
        slow = await raw(url)
        host = url.removeprefix("http://").removesuffix("/mcp")
        await slow.send_all(f"POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n{{".encode())
        with trio.fail_after(30):
            while (await post(plain, url, HELLO)).status_code != 429:
                pass
        await slow.aclose()


async def test_so_many_requests_of_a_session_and_no_more() -> None:
    agent = Desk()
    async with serving(agent) as url, httpx2.AsyncClient(timeout=60) as plain, trio.open_nursery() as nursery:
        session = (await post(plain, url, HELLO)).headers["mcp-session-id"]

        async def ask(number: int) -> int:
            call = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "wait"}}
            return (await post(plain, url, call, mcp_session_id=session)).status_code

        for number in range(MOST_REQUESTS):
            nursery.start_soon(ask, number + 2)
        await until(lambda: agent.waiting == MOST_REQUESTS)
        assert await ask(1000) == 429
        nursery.cancel_scope.cancel()


async def ask_and_read_nothing(url: str) -> trio.SocketStream:
    """Ask for more bytes than the system buffers, and read no more than that they begin."""
    async with httpx2.AsyncClient() as plain:
        session = (await post(plain, url, HELLO)).headers["mcp-session-id"]
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "big"}}
    body = json.dumps(call)
    headers = {**JSON, "host": "localhost", "mcp-session-id": session, "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    stream = await raw(url)
    await stream.send_all(f"POST /mcp HTTP/1.1\r\n{lines}\r\n{body}".encode())
    found = b""
    while b"xxx" not in found:
        found = await stream.receive_some(100)
    return stream


async def test_a_client_that_reads_nothing_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SEND_LIMIT", 0.05)
    with trio.fail_after(30):
        async with serving() as url:
            stream = await ask_and_read_nothing(url)
            await trio.sleep(0.5)
            with pytest.raises(trio.BrokenResourceError):
                await read_to_the_end(stream)
            await stream.aclose()


async def read_to_the_end(stream: trio.SocketStream) -> None:
    received = 0
    while more := await stream.receive_some():
        received += len(more)
    if received < 16 * 1024 * 1024:
        raise trio.BrokenResourceError


async def test_a_server_that_stops_does_not_wait_for_a_client_that_reads_nothing() -> None:
    with trio.fail_after(web.SEND_LIMIT - 5):
        async with serving() as url:
            stream = await ask_and_read_nothing(url)
    await stream.aclose()


async def test_a_server_that_stops_closes_what_is_open_at_once() -> None:
    with trio.fail_after(30):
        async with serving() as url:
            idle, half = await raw(url), await raw(url)
            await half.send_all(b"POST /mcp HTTP/1.1\r\n")
            async with httpx2.AsyncClient() as plain:
                session = (await post(plain, url, HELLO)).headers["mcp-session-id"]
            listening = await raw(url)
            head = f"GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nMcp-Session-Id: {session}"
            await listening.send_all(f"{head}\r\n\r\n".encode())
            assert (await listening.receive_some()).startswith(b"HTTP/1.1 200")
    for stream in (idle, half, listening):
        await stream.aclose()


async def test_a_server_that_is_asked_to_stop_ends() -> None:
    stop = trio.Event()
    with trio.fail_after(30):
        async with open_node([Desk]) as node, trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[str]) -> None:
                await serve_http(node, "127.0.0.1:0", stop=stop, task_status=task_status)

            await nursery.start(run)
            stop.set()


@pytest.mark.parametrize(
    ("address", "token", "said"),
    [
        ("0.0.0.0:0", None, "others than this machine reach 0.0.0.0:0, and there is no token"),
        ("127.0.0.1:0", "short", "the token must have at least 16 characters"),
        ("127.0.0.1:0", "sixteen and more\n", "without line breaks"),
    ],
)
async def test_what_would_not_be_safe_is_not_served(address: str, token: str | None, said: str) -> None:
    async with open_node([Desk]) as node:
        with pytest.raises(ConfigurationError, match=said):
            await serve_http(node, address, token=token)
