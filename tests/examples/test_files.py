"""The filesystem server as an agent: read elsewhere by an agent and by an MCP client, and written by neither."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import trio
from mcp import types
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError

from tests.support.processes import PATIENCE, Process, environment, run_once

pytestmark = pytest.mark.outside


async def bridge(arguments: list[str], env: dict[str, str]) -> str:
    """Read a file as an unmodified MCP client does, and fail to write it."""
    parameters = StdioServerParameters(command=sys.executable, args=arguments, env=env)
    with trio.fail_after(PATIENCE):
        async with stdio_client(parameters) as (messages, replies), ClientSession(messages, replies) as session:
            await session.initialize()
            assert "read_file" in [each.name for each in (await session.list_tools()).tools]
            found = await session.call_tool("read_file", {"path": "README.md"})
            with pytest.raises(MCPError, match="denied CallToolInParts"):
                await session.call_tool("write_file", {"path": "README.md", "content": "was here"})
            assert isinstance(found, types.CallToolResult)
            (content,) = found.content
            assert isinstance(content, types.TextContent)
            return content.text


def test_it_is_read_from_elsewhere_and_not_written(tmp_path: Path) -> None:
    if shutil.which("mcp-server-filesystem") is None:
        pytest.skip("mcp-server-filesystem is not on PATH: npm install -g @modelcontextprotocol/server-filesystem")
    folder = tmp_path / "folder"
    folder.mkdir()
    readme = folder / "README.md"
    readme.write_text("# A folder\n")
    env = environment(tmp_path, FOLDER=str(folder))
    options = ("--listen", "127.0.0.1:0", "--home", "files")
    with Process("run", "examples.files:agents", *options, env=env, cwd=tmp_path) as node:
        enroll, agent, client = (node.wait_line(word) for word in ("once  ", "an agent  ", "a client  "))
        node.wait_line("/files")
        arguments = [re.sub(r"^.*python -m autonomy_trio ", "", line).split() for line in (enroll, agent, client)]
        assert run_once(*arguments[0], env=env, cwd=tmp_path).returncode == 0
        files = re.search(r"FILES=(\S+)", agent)
        assert files is not None
        with Process(*arguments[1], env={**env, "FILES": files[1]}, cwd=tmp_path) as reader:
            assert reader.wait_line("begins with") == "README.md begins with '# A folder'"
            assert reader.wait_line("denied") == "write_file is denied"
        large = "x" * 1_000_000
        readme.write_text(large)
        home = str(tmp_path / "reader")
        assert trio.run(bridge, ["-m", "autonomy_trio", *arguments[2][:-1], home], env) == large
    assert readme.read_text() == large
