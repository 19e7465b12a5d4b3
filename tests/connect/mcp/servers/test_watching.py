"""What a server asks of its client is answered, and bounded."""

import anyio
import trio
from mcp.client.session import ClientSession
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest
from trio.testing import wait_all_tasks_blocked

from autonomy_trio.connect.mcp.servers.watching import Replying, Watched

PINGS = 1000


class Pinging:
    """A server that pings, and reads what it is answered once it is told to."""

    def __init__(self) -> None:
        self.given = 0
        self.answered = 0
        self.reads = trio.Event()

    async def receive(self) -> SessionMessage | Exception:
        await trio.lowlevel.checkpoint()
        if self.given == PINGS:
            raise anyio.EndOfStream
        self.given += 1
        return SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=self.given, method="ping"))

    async def send(self, item: SessionMessage, /) -> None:
        await self.reads.wait()
        self.answered += 1

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_a_server_that_asks_and_does_not_read_is_read_no_further() -> None:
    server, ended = Pinging(), trio.Event()
    replying = Replying(server)
    async with ClientSession(Watched(server, ended, replying), replying):
        await wait_all_tasks_blocked()
        assert server.given < 100
        server.reads.set()
        await ended.wait()
        assert server.given == PINGS
        assert server.answered > PINGS - 100
