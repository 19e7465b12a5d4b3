"""The library that the page about serving MCP clients shows, with a client that starts it as the page says."""

import sys
from pathlib import Path
from typing import Final

import mcp_types as types
import trio
from mcp import Client, StdioServerParameters

from tests.support.processes import ROOT

PATIENCE: Final = 60.0


async def test_the_library_lends_to_members_shows_its_books_and_burns_none(tmp_path: Path) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "autonomy_trio", "mcp", "serve", "examples.library:agents", "--attribute", "member=true"],
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        cwd=ROOT,
    )
    with trio.fail_after(PATIENCE):
        async with Client(server) as client:
            assert {each.name for each in (await client.list_tools()).tools} == {"borrow", "titles"}
            assert (await client.call_tool("titles", {})).structured_content == {
                "items": ["Emma", "Persuasion"],
                "complete": True,
            }
            assert (await client.call_tool("borrow", {"title": "Emma"})).structured_content == {
                "title": "Emma",
                "days": 14,
            }
            again = await client.call_tool("borrow", {"title": "Emma"})
            assert again.content == [types.TextContent(text="NotThere: title='Emma'")]
            too_long = await client.call_tool("borrow", {"title": "Persuasion", "days": 100})
            assert too_long.content == [types.TextContent(text="the policy of library does not allow it")]
            assert "handsome" in str((await client.read_resource("library://Emma")).contents)
            assert "stern review" in str(
                (await client.get_prompt("review", {"title": "Emma", "tone": "stern"})).messages
            )
