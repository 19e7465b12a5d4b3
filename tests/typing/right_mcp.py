"""What type checkers must keep accepting: an MCP server as an agent, and what each message to it is answered with."""

from autonomy_trio import AgentRef, App, Node, pool, supervise
from autonomy_trio.connect.mcp import (
    CallTool,
    CallToolInParts,
    GetPromptInParts,
    McpServer,
    Progress,
    PromptResult,
    ReadResourceInParts,
    ResourceContents,
    ToolResult,
    ask_in_parts,
    mcp_server,
)

files = mcp_server(name="files", command=["mcp-server-filesystem", "."], allow="true")
agents: App = [files, pool(files, 2), supervise(files, backoff=(0.5, 60))]


async def say(progress: Progress) -> float | None:
    return progress.total


async def use(node: Node) -> tuple[ToolResult, ToolResult, ResourceContents, PromptResult]:
    spawned: AgentRef[McpServer] = node.spawn(files)
    there = node.ref("files", McpServer)
    return (
        await spawned.ask(CallTool("read_file", {"path": "x"})),
        await ask_in_parts(there, CallToolInParts("read_file", {"path": "x"}), say),
        await ask_in_parts(there, ReadResourceInParts("note://1")),
        await ask_in_parts(there, GetPromptInParts("greet")),
    )
