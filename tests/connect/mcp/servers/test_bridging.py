"""The bridge, driven by the SDK's own client: what passes it, what is refused, and that the client never hangs."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import mcp_types as types
import pytest
import trio
import trio.testing
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from structlog.testing import capture_logs

from autonomy_trio import Request, agent, on
from autonomy_trio.connect.mcp import CallTool, ListChanged, McpError, McpServer
from autonomy_trio.connect.mcp.servers import bridging
from autonomy_trio.connect.mcp.servers.bridging import DENIED, UNREACHABLE, Bridge
from autonomy_trio.connect.mcp.servers.lines import over_lines
from autonomy_trio.connect.mcp.servers.messages import Describe, Description, ListTools, Tools
from autonomy_trio.errors import Denied
from autonomy_trio.fabric.opening import Entry
from autonomy_trio.testing import TestFabric, TestNode, open_test_fabric
from tests.support.mcp_agents import Script
from tests.support.processes import PATIENCE

ALLOW = 'principal.role == "reader"'
READS = 'context.message.name != "about"'


@attrs.frozen
class Client:
    """A client of the bridge, and what is behind it."""

    session: ClientSession
    server: TestNode
    node: TestNode
    notices: list[Any]


@asynccontextmanager
async def bridged(
    fabric: TestFabric,
    app: Entry,
    name: str = "script",
    *,
    role: str = "reader",
    expected: tuple[type[Exception], ...] = (),
    limit: float = 30.0,
) -> AsyncGenerator[Client]:
    notices: list[Any] = []

    async def take(message: object) -> None:
        notices.append(message)

    near, far = trio.testing.memory_stream_pair()
    async with fabric.open_node([app], expected=expected) as server, fabric.open_node(ask_limit=limit) as node:
        node.add_credential(server.issue(node.identifier, role=role))
        bridge = Bridge(node.node, node.ref(server.address(name), McpServer))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.serve, near, near)
            async with (
                over_lines(far, far, lambda _: pytest.fail("no JSON-RPC")) as (messages, replies),
                ClientSession(messages, replies, message_handler=take) as session,
            ):
                yield Client(session, server, node, notices)
            await far.aclose()


async def test_an_unmodified_client_sees_the_far_server(script: Script) -> None:
    async with open_test_fabric() as fabric, bridged(fabric, script.agent(allow=ALLOW, tools=READS)) as client:
        session = client.session
        begun = await session.initialize()
        assert begun.server_info.name == "script"
        assert (begun.server_info.title, begun.instructions) == ("A script", "be kind")
        assert begun.capabilities.model_dump(exclude_none=True) == {
            "tools": {"list_changed": True},
            "resources": {},
            "prompts": {},
            "completions": {},
        }
        await session.send_ping()
        tools = await session.list_tools()
        following = await session.list_tools(params=types.PaginatedRequestParams(cursor=tools.next_cursor))
        assert (tools.tools[0].name, following.tools[0].name) == ("echo", "last")
        assert tools.tools[0].annotations is not None
        assert tools.tools[0].annotations.read_only_hint
        result = await session.call_tool("echo", {"text": "hi", "none": None})
        assert isinstance(result, types.CallToolResult)
        assert result.structured_content == {"text": "hi", "none": None}
        kinds = await session.call_tool("kinds", {})
        assert isinstance(kinds, types.CallToolResult)
        types_found = " ".join(each.type for each in kinds.content)
        assert types_found == "text image audio resource_link resource resource text"
        assert kinds.meta == {"k": "v"}
        assert (await session.list_resources()).resources[0].uri == "note://one"
        assert (await session.list_resource_templates()).resource_templates[0].uri_template == "note://{name}"
        read = await session.read_resource("note://one")
        assert isinstance(read, types.ReadResourceResult)
        assert [type(each).__name__ for each in read.contents] == ["TextResourceContents", "BlobResourceContents"]
        assert (await session.list_prompts()).prompts[0].name == "one"
        prompt = await session.get_prompt("one", {"who": "Ann"})
        assert isinstance(prompt, types.GetPromptResult)
        assert prompt.messages[0].content == types.TextContent(type="text", text="greet Ann")
        done = await session.complete(types.PromptReference(name="one"), {"name": "who", "value": "A"}, {"b": "c"})
        assert done.completion.values == ["one who A", "b"]
        done = await session.complete(types.ResourceTemplateReference(uri="note://{n}"), {"name": "n", "value": "A"})
        assert done.completion.values == ["note://{n} n A"]


async def test_what_is_larger_than_a_message_passes(script: Script) -> None:
    async with open_test_fabric() as fabric, bridged(fabric, script.agent(allow=ALLOW)) as client:
        result = await client.session.call_tool("big", {"size": 2_000_000})
        assert isinstance(result, types.CallToolResult)
        (content,) = result.content
        assert isinstance(content, types.TextContent)
        assert content.text == "x" * 2_000_000


async def test_progress_passes(script: Script) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with open_test_fabric() as fabric, bridged(fabric, script.agent(allow=ALLOW)) as client:
        await client.session.call_tool("progress", {"count": 1}, progress_callback=hear)
    assert heard == [(1.0, 3.0, "step 1")]


async def test_a_cancelled_call_is_cancelled_at_the_far_server_and_others_go_on(script: Script) -> None:
    async with open_test_fabric() as fabric, bridged(fabric, script.agent(allow=ALLOW)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.session.call_tool, "wait", {})
            await script.wait_line("waits")
            assert (await client.session.call_tool("echo", {"text": "meanwhile"})).content
            nursery.cancel_scope.cancel()
        await script.wait_line("notifications/cancelled")


async def test_changed_lists_are_told(script: Script) -> None:
    async with open_test_fabric() as fabric, bridged(fabric, script.agent(allow=ALLOW)) as client:
        await client.session.initialize()
        with trio.fail_after(PATIENCE):
            while {type(each).__name__ for each in client.notices} < {
                "ToolListChangedNotification",
                "ResourceListChangedNotification",
                "PromptListChangedNotification",
            }:
                await client.session.call_tool("change", {})  # the first may come before the subscription
        before = len(client.notices)
        await client.server.ref(client.node.address("mcp_bridge")).tell(ListChanged("tools"))
        stranger = fabric.open_node()
        async with stranger as other:
            await other.ref(client.node.address("mcp_bridge")).tell(ListChanged("tools"))
            await other.node.flush()
        with trio.fail_after(PATIENCE):
            while len(client.notices) == before:
                await client.session.send_ping()


async def test_what_policy_denies_runs_nothing_and_is_a_clear_error(script: Script) -> None:
    async with open_test_fabric() as fabric, bridged(fabric, script.agent(allow=ALLOW, tools=READS)) as client:
        await client.session.call_tool("echo", {"text": "hi"})
        with pytest.raises(MCPError, match="denied CallToolInParts: its policy does not let you") as caught:
            await client.session.call_tool("about", {})
        assert caught.value.code == DENIED
        (letter,) = client.server.dead_letters
        assert letter.why == f"no permit: Script.in_parts needs {READS}"
    async with open_test_fabric() as fabric, bridged(fabric, script.agent(allow=ALLOW), role="writer") as client:
        with pytest.raises(MCPError, match="denied Describe"):
            await client.session.initialize()


async def test_an_identity_may_call_one_tool_and_not_the_other(script: Script) -> None:
    tools = 'context.message.name == "echo"'
    async with (
        open_test_fabric() as fabric,
        fabric.open_node([script.agent(allow=ALLOW, tools=tools)]) as server,
        fabric.open_node() as reader,
        fabric.open_node() as stranger,
    ):
        reader.add_credential(server.issue(reader.identifier, role="reader"))
        here = reader.ref(server.address("script"), McpServer)
        assert (await here.ask(CallTool("echo", {"text": "hi"}))).text == "hi"
        for denied in (here.ask(CallTool("about")), stranger.ref(here.address).ask(CallTool("echo", {"text": "x"}))):
            with pytest.raises(Denied):
                await denied
        with pytest.raises(McpError) as caught:
            await here.ask(CallTool("echo"))
        assert caught.value.code == -32602


async def test_an_error_of_the_far_server_passes_as_it_is(script: Script) -> None:
    async with (
        open_test_fabric() as fabric,
        bridged(fabric, script.agent(allow=ALLOW), expected=(McpError,)) as client,
    ):
        with pytest.raises(MCPError) as caught:
            await client.session.call_tool("error", {})
        assert (caught.value.code, caught.value.message) == (-32055, "no such luck")
        assert caught.value.data == {"why": "bad day"}
        with pytest.raises(MCPError, match="was ended by SIGKILL in this call"):
            await client.session.call_tool("die", {})
        await client.session.call_tool("echo", {"text": "it is back"})


async def test_a_node_that_goes_away_in_a_call_is_an_error(script: Script) -> None:
    async with open_test_fabric() as fabric, fabric.open_node() as node, trio.open_nursery() as nursery:
        near, far = trio.testing.memory_stream_pair()
        async with fabric.open_node([script.agent(allow="true")], grace=0.0) as server:
            bridge = Bridge(node.node, node.ref(server.address("script"), McpServer))
            nursery.start_soon(bridge.serve, near, near)
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "wait"}}
            await far.send_all(json.dumps(call).encode() + b"\n")
            await script.wait_line("waits")
        answer = json.loads(await far.receive_some())
        assert answer["error"]["code"] == UNREACHABLE
        await far.aclose()


async def test_an_agent_that_does_not_answer_is_an_error_when_the_limit_is_over(autojump_clock: object) -> None:
    @agent
    class Slow:
        @on(Describe, allow="true")
        async def describe(self, message: Describe) -> Description:
            await trio.sleep_forever()
            raise AssertionError

    async with open_test_fabric() as fabric, bridged(fabric, Slow, "slow", limit=3.0) as client:
        with pytest.raises(MCPError, match="did not answer in 3 s") as caught:
            await client.session.initialize()
        assert caught.value.code == UNREACHABLE


async def test_an_agent_that_is_no_mcp_server_is_an_error(autojump_clock: object) -> None:
    @attrs.frozen
    class Ask(Request[int]):
        pass

    @agent
    class Other:
        @on(Ask, allow="true")
        def answer(self, message: Ask) -> int:
            return 1

    async with open_test_fabric() as fabric, bridged(fabric, Other, "other") as client:
        with pytest.raises(MCPError, match="does not handle Describe") as caught:
            await client.session.initialize()
        assert caught.value.code == UNREACHABLE


Say = Callable[..., Awaitable[dict[str, Any]]]


@asynccontextmanager
async def spoken(fabric: TestFabric, app: Entry, name: str) -> AsyncGenerator[tuple[Say, trio.abc.Stream]]:
    """A bridge, and a way to say lines to it and hear one."""
    near, far = trio.testing.memory_stream_pair()
    async with fabric.open_node([app]) as server, fabric.open_node() as node, trio.open_nursery() as nursery:
        bridge = Bridge(node.node, node.ref(server.address(name), McpServer))

        async def serve() -> None:
            await bridge.serve(near, near)
            await near.aclose()

        nursery.start_soon(serve)

        async def say(**message: object) -> dict[str, Any]:
            await far.send_all(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            found: dict[str, Any] = json.loads(await far.receive_some()) if "id" in message else {}
            return found

        yield say, far
        await far.aclose()


@agent(concurrency=64)
class Lister:
    """As much of an MCP server as a bridge needs to begin."""

    gate: trio.Event = attrs.field(factory=trio.Event)

    @on(Describe, allow="true")
    def describe(self, message: Describe) -> Description:
        return Description("lister", "1", "2025-11-25", {"tools": {}})

    @on(ListTools, allow="true")
    async def tools(self, message: ListTools) -> Tools:
        if message.cursor == "wait":
            await self.gate.wait()
        return Tools(())


async def test_what_is_no_method_or_no_parameters_is_said(autojump_clock: object) -> None:
    async with open_test_fabric() as fabric, spoken(fabric, Lister, "lister") as (say, far):
        begun = await say(id=1, method="initialize", params={"protocolVersion": "2024-11-05"})
        assert begun["result"] == {
            "protocolVersion": "2024-11-05",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "lister", "version": "1"},
        }
        begun = await say(id=1, method="initialize", params={"protocolVersion": "2099-01-01"})
        assert begun["result"]["protocolVersion"] == "2025-11-25"
        assert (await say(id=2, method="tools/list"))["result"] == {"tools": []}
        error = (await say(id=3, method="logging/setLevel", params={"level": "info"}))["error"]
        assert error == {"code": -32601, "message": "the bridge hands on no logging/setLevel"}
        for number, (method, params) in enumerate(
            [("tools/call", {}), ("initialize", {}), ("completion/complete", {"ref": 1, "argument": 2})], 4
        ):
            error = (await say(id=number, method=method, params=params))["error"]
            assert error == {"code": -32602, "message": f"{method} has parameters that MCP does not have"}
        with capture_logs() as logs:
            await far.send_all(b"nonsense\n")
            await say(method="notifications/initialized")
            assert (await say(id=9, method="ping"))["result"] == {}
        assert [each["text"] for each in logs] == ["nonsense"]


async def test_what_was_asked_before_the_end_is_answered_and_then_no_more(autojump_clock: object) -> None:
    async with open_test_fabric() as fabric, spoken(fabric, Lister, "lister") as (_, far):
        assert isinstance(far, trio.StapledStream)
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        waits = {**request, "id": 2, "params": {"cursor": "wait"}}
        await far.send_all(f"{json.dumps(waits)}\n{json.dumps(request)}\n".encode())
        await far.send_eof()
        start = trio.current_time()
        assert json.loads(await far.receive_some())["id"] == 1
        assert trio.current_time() - start < bridging.LAST_ANSWERS


async def test_every_answer_is_written_before_the_end(autojump_clock: object) -> None:
    async with open_test_fabric() as fabric, spoken(fabric, Lister, "lister") as (_, far):
        assert isinstance(far, trio.StapledStream)
        requests = [{"jsonrpc": "2.0", "id": number, "method": "tools/list"} for number in range(5)]
        begins = {"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {"cursor": "wait"}}
        cancels = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
        start = trio.current_time()
        await far.send_all("".join(f"{json.dumps(each)}\n" for each in [*requests, begins, cancels]).encode())
        await far.send_eof()
        lines = bytearray()
        while lines.count(b"\n") < len(requests):
            more = await far.receive_some()
            assert more, "it ended before all was answered"
            lines += more
        assert sorted(json.loads(line)["id"] for line in lines.splitlines()) == list(range(5))
        assert trio.current_time() - start < bridging.LAST_ANSWERS, "it waited for an answer to what was cancelled"


async def test_a_client_that_asks_without_end_is_read_no_further(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridging, "MOST_TAKEN", 8)
    async with open_test_fabric() as fabric, spoken(fabric, Lister, "lister") as (_, far):
        waits = {"jsonrpc": "2.0", "method": "tools/list", "params": {"cursor": "wait"}}
        lines = [json.dumps({**waits, "id": number}) for number in range(8)]
        ping = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "ping"})
        await far.send_all("".join(f"{line}\n" for line in [*lines, ping]).encode())
        with trio.move_on_after(1) as waiting:
            await far.receive_some()
        assert waiting.cancelled_caught, "the ninth was read"
