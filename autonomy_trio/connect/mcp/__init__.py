"""MCP, the Model Context Protocol: agents as a server of tools, resources and prompts."""

from autonomy_trio.connect.mcp.caller import Caller, Unsupported, caller_of
from autonomy_trio.connect.mcp.content import Content, Embedded, Media, Turn
from autonomy_trio.connect.mcp.marks import prompt, resource, updated
from autonomy_trio.connect.mcp.serving import serve_http, serve_stdio

__all__ = [
    "Caller",
    "Content",
    "Embedded",
    "Media",
    "Turn",
    "Unsupported",
    "caller_of",
    "prompt",
    "resource",
    "serve_http",
    "serve_stdio",
    "updated",
]
