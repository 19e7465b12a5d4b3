"""The example that the conformance suite runs against, without the suite: each of its tools answers."""

from typing import Any

import mcp_types as types
from mcp import Client

from autonomy_trio import open_node
from autonomy_trio.connect.mcp.service import open_service
from examples.everything import agents

ARGUMENTS = {
    "test_sampling": {"prompt": "hello"},
    "test_elicitation": {"message": "hello"},
    "count_to": {"number": 2},
    "change": {"text": "new"},
}


async def sample(_: object, __: object) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(text="hello"), model="m")


async def elicit(_: object, params: Any) -> types.ElicitResult:  # noqa: ANN401 - the SDK's own
    filled = {"username": "ada", "email": "ada@example.org"} if "username" in str(params) else {}
    return types.ElicitResult(action="accept", content=dict(filled))


async def test_each_tool_answers_and_the_one_that_fails_fails() -> None:
    async with (
        open_node(agents) as node,
        open_service(node, name="everything") as service,
        Client(service.server, mode="legacy", sampling_callback=sample, elicitation_callback=elicit) as client,
    ):
        failed = {
            tool.name
            for tool in (await client.list_tools()).tools
            if (await client.call_tool(tool.name, ARGUMENTS.get(tool.name, {}))).is_error
        }
        assert failed == {"test_error_handling"}
        assert "new" in str((await client.read_resource("test://watched-resource")).contents)
        assert len((await client.list_resources()).resources) == 3
        assert len((await client.list_prompts()).prompts) == 4
