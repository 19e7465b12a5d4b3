"""A scripted MCP server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autonomy_trio import AgentRef
from autonomy_trio.connect.mcp import CallTool, McpServer
from tests.support.mcp_agents import Script


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "log")


@pytest.fixture
def about() -> Callable[[AgentRef[McpServer]], Any]:
    """Ask a scripted server for its process number, folder and environment."""

    async def ask(server: AgentRef[McpServer]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await server.ask(CallTool("about"))).text)
        return found

    return ask
