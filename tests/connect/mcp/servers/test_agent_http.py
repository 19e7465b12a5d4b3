"""An MCP server over streamable HTTP as an agent: headers, statuses, sessions that end."""

import functools
import sys
from collections.abc import AsyncGenerator
from subprocess import PIPE

import attrs
import pytest
import trio

from autonomy_trio.connect.mcp import CallTool, CallToolInParts, Describe, McpError, McpServer, Ping, ask_in_parts
from autonomy_trio.connect.mcp.servers import lines
from autonomy_trio.connect.mcp.servers.places import Url
from autonomy_trio.errors import NotDelivered, OutcomeUnknown
from autonomy_trio.testing import open_test_node
from tests.support.mcp_agents import SCRIPT, Script


@attrs.frozen
class Web:
    """The scripted server over HTTP."""

    process: trio.Process
    url: str
    script: Script

    def agent(self, token: str = "right", path: str = "/mcp?key=hidden") -> type[McpServer]:
        headers = {"Authorization": f"Bearer {token}"}
        return self.script.agent(command=None, url=f"{self.url}{path}", headers=headers)


@pytest.fixture
async def web(script: Script) -> AsyncGenerator[Web]:
    command = [sys.executable, "-S", str(SCRIPT), "http", str(script.log)]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            functools.partial(trio.run_process, command, stdout=PIPE, check=False)
        )
        assert process.stdout is not None
        async with process.stdout:
            port = int(await process.stdout.receive_some(100))
            yield Web(process, f"http://127.0.0.1:{port}", script)
            nursery.cancel_scope.cancel()


# The SDK leaves the iterators of an event stream that it has read enough of to the collector.
@pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")
async def test_it_is_asked_as_one_over_standard_input(web: Web) -> None:
    async with open_test_node() as node:
        server = node.spawn(web.agent())
        assert (await server.ask(Describe())).name == "script"
        assert (await server.ask(CallTool("echo", {"text": "hi"}))).text == "hi"
        heard: list[float] = []

        async def hear(each: object) -> None:
            heard.append(getattr(each, "progress", 0.0))

        assert (await ask_in_parts(server, CallToolInParts("progress", {"count": 1}), hear)).text == "done"
        assert heard == [1.0]
        with pytest.raises(McpError, match="no such luck"):
            await server.ask(CallTool("error"))
        assert (await ask_in_parts(server, CallToolInParts("big", {"size": 1_000_000}))).text == "x" * 1_000_000
    said = web.script.lines()
    assert {line for line in said if "authorization" in line} == {"authorization Bearer right"}
    assert "deleted" in said, "the session was not ended"


async def test_a_withdrawn_call_is_cancelled_at_the_server(web: Web) -> None:
    async with open_test_node() as node:
        server = node.spawn(web.agent())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.ask, CallTool("wait"))
            await web.script.wait_line("waits")
            nursery.cancel_scope.cancel()
        await web.script.wait_line("notifications/cancelled")


async def test_an_answer_that_is_no_json_is_an_error(web: Web) -> None:
    async with open_test_node() as node:
        server = node.spawn(web.agent())
        with pytest.raises(McpError, match="Failed to parse JSON response"):
            await server.ask(CallTool("no_json"))
        await server.ask(Ping())


# The rest of an answer that is too large is never read, and left to the collector by the HTTP library.
@pytest.mark.filterwarnings("ignore:Async generator .* was garbage collected:ResourceWarning")
async def test_an_answer_that_would_fill_the_memory_is_an_error(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_LINE", 100_000)
    async with open_test_node() as node:
        server = node.spawn(web.agent())
        for call in (CallTool("big", {"size": 200_000}), CallTool("compressed")):
            with pytest.raises(McpError, match="it has more than"):
                await server.ask(call)
        assert (await server.ask(CallTool("big", {"size": 50_000}))).text == "x" * 50_000


async def test_a_status_that_refuses_is_said_and_no_secret(web: Web, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_node(expected=McpError) as node:
        server = node.spawn(web.agent("wrong"))
        with pytest.raises((NotDelivered, OutcomeUnknown)):
            await server.ask(Ping())
        (said,) = {str(each.error) for each in node.failures}
    assert "refused initialize" in said
    assert "HTTP status 401" in said
    captured = capsys.readouterr()
    for secret in ("wrong", "hidden"):
        assert secret not in captured.err + captured.out + said


async def test_a_session_that_the_server_forgot_is_begun_anew(web: Web) -> None:
    async with open_test_node(expected=McpError) as node:
        server = node.spawn(web.agent())
        with pytest.raises(McpError, match="has forgotten the session in this call, which may have had effects"):
            await server.ask(CallTool("forget"))
        assert (await server.ask(CallTool("echo", {"text": "again"}))).text == "again"


async def test_a_server_that_goes_away_in_a_call_is_one_clear_error(web: Web) -> None:
    said: list[str] = []

    async def ask() -> None:
        with pytest.raises(McpError) as caught:
            await server.ask(CallTool("wait"))
        said.append(str(caught.value))

    async with open_test_node(expected=McpError) as node:
        server = node.spawn(web.agent())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await web.script.wait_line("waits")
            web.process.kill()
        await server.stopped()  # its supervisor gives up: nobody listens there any more
        (last,) = {str(each.error) for each in node.failures[1:]}
    assert said == ["the MCP server can no longer be reached in this call, which may have had effects (-32000)"]
    assert last == f"the MCP server at {web.url} cannot be reached: ConnectError (-32000)"


def test_a_place_shows_no_path_query_user_or_header() -> None:
    place = Url("https://ann:pw@example.com:8443/secret?key=1", {"Authorization": "Bearer t"})
    assert (str(place), repr(place)) == ("https://example.com:8443", "Url()")
