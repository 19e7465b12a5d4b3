"""An MCP server, as an agent, as a model's tool."""

import shutil

import pytest
import trio

from autonomy_trio import agent, open_node
from autonomy_trio.connect.mcp import CallTool, ListTools, McpServer, mcp_server
from autonomy_trio.connect.models import Chat, Model, ModelAgent, ToolsOf
from tests.support.models import say, scripted
from tests.support.processes import PATIENCE

pytestmark = pytest.mark.outside


@agent(inherit=False)
class Desk(ModelAgent):
    model = "gpt"
    tools = (ToolsOf(McpServer, at="clock", only=[ListTools, CallTool]),)


async def test_a_model_lists_and_calls_what_an_mcp_server_offers() -> None:
    command = shutil.which("mcp-server-time")
    if command is None:
        pytest.skip("mcp-server-time is not installed")
    call = {"name": "get_current_time", "arguments": {"timezone": "UTC"}}
    async with (
        scripted(say("", ("1", "list_tools", {})), say("", ("2", "call_tool", call)), say("done")) as server,
        open_node(
            [mcp_server(command=[command], name="clock"), Model("openai:m", name="gpt", base_url=server.url), Desk]
        ) as node,
    ):
        with trio.fail_after(PATIENCE):
            await node.ref("desk", Desk).ask(Chat("c", "What time is it?"))
    assert {each["function"]["name"] for each in server.seen[0].body["tools"]} == {"list_tools", "call_tool"}
    assert "get_current_time" in server.seen[1].body["messages"][-1]["content"]
    assert '"timezone": "UTC"' in server.seen[2].body["messages"][-1]["content"]
