"""A folder, through the filesystem server of MCP, for agents elsewhere that may read its files and not write them.

FOLDER=. python -m autonomy_trio run examples.files:agents
FILES=ws://…/I…/files python -m autonomy_trio run examples.files:readers --relay ws://… --home reader

The first one shows the second with the address in it, and what comes before: a ticket that makes a reader of a home.
An MCP client that knows nothing of agents gets to the same folder by `mcp bridge`. The server is a program of its own:
npm install -g @modelcontextprotocol/server-filesystem
"""

import os

from autonomy_trio import Context, agent, current_node
from autonomy_trio.connect.mcp import CallTool, McpServer, mcp_server
from autonomy_trio.errors import Denied

FOLDER = os.environ.get("FOLDER", ".")

files = mcp_server(
    name="files",
    command=["mcp-server-filesystem", "."],
    cwd=FOLDER,
    allow='principal.role == "reader"',
    tools='context.message.name == "read_file"',
)


@agent
class Porter:
    """Says how to become a reader."""

    def on_start(self, context: Context) -> None:
        here = current_node()
        here.serve_authority()
        address = here.address("files")
        print(f"once      python -m autonomy_trio enroll {here.ticket(role='reader')} --home reader")
        print(f"an agent  FILES={address} python -m autonomy_trio run examples.files:readers", end=" ")
        print(f"--relay {here.relays[0]} --home reader")
        print(f"a client  python -m autonomy_trio mcp bridge {address} --home reader", flush=True)


@agent
class Reader:
    """Reads a file, and would like to write one."""

    async def on_start(self, context: Context) -> None:
        folder = context.ref(os.environ["FILES"], McpServer)
        found = await folder.ask(CallTool("read_file", {"path": "README.md"}))
        print(f"README.md begins with {found.text.splitlines()[0]!r}")
        try:
            await folder.ask(CallTool("write_file", {"path": "README.md", "content": "was here"}))
        except Denied:
            print("write_file is denied", flush=True)


agents = [files, Porter]
readers = [Reader]
