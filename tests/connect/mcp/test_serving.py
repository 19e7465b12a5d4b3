"""What is refused before anything is served; the rest is tested over the sockets and pipes themselves."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from autonomy_trio import Node, open_node
from autonomy_trio.connect.mcp import serve_http, serve_stdio
from autonomy_trio.errors import AddressError, ConfigurationError
from tests.support.desk import Desk


@pytest.mark.parametrize("serve", [serve_stdio, lambda node: serve_http(node, "127.0.0.1:0")])
async def test_without_the_sdk_the_line_that_installs_it_is_named(
    serve: Callable[[Node], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("service", "stdio"):
        monkeypatch.delitem(sys.modules, f"autonomy_trio.connect.mcp.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    async with open_node([Desk]) as node:
        with pytest.raises(ConfigurationError, match=r'an MCP server needs mcp.*pip install "autonomy-trio\[mcp\]"'):
            await serve(node)


async def test_an_address_that_is_none_is_refused() -> None:
    async with open_node([Desk]) as node:
        with pytest.raises(AddressError, match="is nothing to listen on"):
            await serve_http(node, "nowhere")
