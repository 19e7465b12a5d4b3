"""The MCP servers that everybody uses, as agents: on the node itself, and across a relay."""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
import trio

from autonomy_trio import AgentRef, open_node
from autonomy_trio.connect.mcp import (
    CallTool,
    CallToolInParts,
    CompletePrompt,
    Describe,
    GetPrompt,
    Image,
    ListPrompts,
    ListResources,
    ListResourceTemplates,
    ListTools,
    McpError,
    McpServer,
    Ping,
    Progress,
    ReadResource,
    TextResource,
    ask_in_parts,
    mcp_server,
)
from tests.support.mcp_agents import runs
from tests.support.processes import PATIENCE

pytestmark = pytest.mark.outside

INSTALLED_BY: Final = {
    "mcp-server-everything": "npm install -g @modelcontextprotocol/server-everything",
    "mcp-server-filesystem": "npm install -g @modelcontextprotocol/server-filesystem",
    "mcp-server-git": "pip install mcp-server-git",
    "mcp-server-time": "pip install mcp-server-time",
}

Reach = Callable[..., Awaitable[AgentRef[McpServer]]]


@pytest.fixture(params=["direct", "relayed"])
async def reach(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Reach]:
    """Make an agent of a program, and return a ref to it: of its own node, or of another one behind its relay."""
    async with open_node(listen="127.0.0.1:0", home=tmp_path / "server") as server:

        async def make(command: Sequence[str]) -> AgentRef[McpServer]:
            if shutil.which(command[0]) is None:
                pytest.skip(f"{command[0]} is not on PATH: {INSTALLED_BY[command[0]]}")
            spawned = server.spawn(mcp_server(name="server", command=command, allow="true"))
            return spawned if asker is server else asker.ref(server.address("server"), McpServer)

        if request.param == "direct":
            asker = server
            yield make
        else:
            async with open_node(relay=server.relays[0], home=tmp_path / "asker") as asker:
                yield make


async def test_everything(reach: Reach) -> None:
    server = await reach(["mcp-server-everything"])
    heard: list[Progress] = []

    async def hear(each: Progress) -> None:
        heard.append(each)

    assert (await server.ask(Describe())).name == "mcp-servers/everything"
    await server.ask(Ping())
    assert "echo" in [each.name for each in (await server.ask(ListTools())).tools]
    assert (await server.ask(CallTool("echo", {"message": "hi"}))).text == "Echo: hi"
    slow = CallToolInParts("trigger-long-running-operation", {"duration": 1, "steps": 3})
    assert "completed" in (await ask_in_parts(server, slow, hear)).text
    assert [each.progress for each in heard][-1] == 3
    image = (await server.ask(CallTool("get-tiny-image"))).content[1]
    assert isinstance(image, Image)
    assert image.image.startswith(b"\x89PNG")
    structured = (await server.ask(CallTool("get-structured-content", {"location": "New York"}))).structured
    assert "temperature" in structured
    assert (await server.ask(CallTool("get-sum", {"a": "no number"}))).is_error
    (resource, *_) = (await server.ask(ListResources())).resources
    (contents, *_) = (await server.ask(ReadResource(resource.uri))).contents
    assert isinstance(contents, TextResource)
    assert (await server.ask(ListResourceTemplates())).resource_templates
    with pytest.raises(McpError):
        await server.ask(ReadResource("demo://nowhere"))
    assert "args-prompt" in [each.name for each in (await server.ask(ListPrompts())).prompts]
    prompt = await server.ask(GetPrompt("args-prompt", {"city": "Oslo"}))
    assert "Oslo" in str(prompt.messages[0].content)
    found = await server.ask(CompletePrompt("completable-prompt", "department", "Eng"))
    assert found.values == ("Engineering",)


async def test_filesystem(reach: Reach, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "large").write_text("x" * 1_000_000)
    server = await reach(["mcp-server-filesystem", str(folder)])
    large = CallToolInParts("read_text_file", {"path": str(folder / "large")})
    assert (await ask_in_parts(server, large)).text == "x" * 1_000_000
    with pytest.raises(McpError, match=r"does not fit one message.*CallToolInParts"):
        await server.ask(CallTool(large.name, large.arguments))
    assert (await server.ask(CallTool("read_text_file", {"path": "/etc/passwd"}))).is_error


async def test_time(reach: Reach) -> None:
    server = await reach(["mcp-server-time"])
    result = await server.ask(CallTool("get_current_time", {"timezone": "Asia/Tokyo"}))
    assert result.structured["timezone"] == "Asia/Tokyo"
    assert (await server.ask(CallTool("get_current_time", {"timezone": "Nowhere/City"}))).is_error


async def test_git(reach: Reach, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    await trio.run_process(["git", "init", "--quiet", str(repository)])
    (repository / "file").write_text("text")
    server = await reach(["mcp-server-git", "--repository", str(repository)])
    status = await server.ask(CallTool("git_status", {"repo_path": str(repository)}))
    assert "file" in status.text
    added = await server.ask(CallTool("git_add", {"repo_path": str(repository), "files": ["file"]}))
    assert not added.is_error


def children() -> set[int]:
    """The processes that this one has started and that are known to the system, `ps` among them."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], check=True, capture_output=True)
    return set(map(int, found.stdout.split()))


async def test_a_server_that_is_killed_in_a_call_is_one_clear_error_and_is_started_again(reach: Reach) -> None:
    server = await reach(["mcp-server-everything"])
    began = trio.Event()

    async def hear(each: Progress) -> None:
        began.set()

    before = children()
    await server.ask(Ping())
    (pid,) = (each for each in children() - before if runs(each))
    said: list[str] = []

    async def call() -> None:
        slow = CallToolInParts("trigger-long-running-operation", {"duration": 60, "steps": 600})
        with pytest.raises(McpError) as caught:
            await ask_in_parts(server, slow, hear)
        said.append(caught.value.message)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await began.wait()
            os.kill(pid, signal.SIGKILL)
        assert (await server.ask(CallTool("echo", {"message": "again"}))).text == "Echo: again"
    assert said == ["the MCP server was ended by SIGKILL in this call, which may have had effects"]
