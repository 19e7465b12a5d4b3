"""The settings in which the contract is tested: where an agent is, and where who uses it.

The same tests run unchanged in all of them. What differs between nodes is loss, and what follows from it:

* a `tell` is at most once between nodes, and who sends one is not told that nobody took it;
* an ask, a stream and a watch can end because the other node was lost: `OutcomeUnknown`, or `Down` with "node lost";
* a refused stream is told with the first item and not when the block is entered, for opening one waits for nothing;
* `tell` waits once a mailbox is full; between nodes some messages more are under way by then, up to 256 KiB;
* a subscription begins when its word has arrived, and what is published is lost as a `tell` can be;
* only what ``allow=`` permits is there for others, and an agent that is not there answers as one that denies.

Over a relay cluster nothing else differs. Packets are lost there in one place more, between two relays: where Redis is
away, or a relay dies with what it had taken. To the nodes that is a relay that loses packets, as any may.

What only other nodes can do (to vanish, to be denied) is tested in `tests/nodes`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

import attrs
import trio

from autonomy_trio import AgentRef, Node, open_node
from autonomy_trio.testing import open_test_fabric
from tests.support.contract import Service
from tests.support.redis import redis_server


@attrs.frozen
class Setting:
    """A node with a service, and one, perhaps the same, where the service is used."""

    server: Node
    user: Node
    has_relay_in_common: bool = True
    """Else the address says nothing of where the server is: the user's own relay is to find it."""

    @property
    def is_remote(self) -> bool:
        return self.user is not self.server

    def ref(self, name: str = "service", agent: Callable[..., Any] | None = Service) -> AgentRef[Any]:
        address = self.server.address(name) if self.is_remote else name
        if not self.has_relay_in_common:
            address = f"{self.server.identifier}/{name}"
        return self.user.ref(address) if agent is None else self.user.ref(address, agent)

    def topic(self, name: str) -> str:
        """What a topic of the server is called where it is used."""
        if not self.is_remote:
            return name
        return self.server.address(name) if self.has_relay_in_common else f"{self.server.identifier}/{name}"


class Open(Protocol):
    def __call__(
        self, agents: Iterable[Any] = ..., users: Iterable[Any] = ...
    ) -> AbstractAsyncContextManager[Setting]: ...


@asynccontextmanager
async def one_process(agents: Iterable[Any] = (Service,), users: Iterable[Any] = ()) -> AsyncGenerator[Setting]:
    async with open_node([*agents, *users]) as node:
        yield Setting(node, node)


@asynccontextmanager
async def two_nodes_in_memory(agents: Iterable[Any] = (Service,), users: Iterable[Any] = ()) -> AsyncGenerator[Setting]:
    async with AsyncExitStack() as stack:
        fabric = await stack.enter_async_context(open_test_fabric())
        server = await stack.enter_async_context(fabric.open_node(agents, expected=(ValueError,)))
        user = await stack.enter_async_context(fabric.open_node(users, expected=(ValueError,)))
        yield Setting(server.node, user.node)


@asynccontextmanager
async def two_nodes_over_a_websocket(
    agents: Iterable[Any] = (Service,), users: Iterable[Any] = ()
) -> AsyncGenerator[Setting]:
    async with (
        open_node(agents, listen="127.0.0.1:0") as server,
        open_node(users, relay=server.relays[0]) as user,
    ):
        yield Setting(server, user)


@asynccontextmanager
async def two_nodes_over_a_relay_cluster(
    agents: Iterable[Any] = (Service,), users: Iterable[Any] = ()
) -> AsyncGenerator[Setting]:
    with TemporaryDirectory() as folder, redis_server(Path(folder)) as redis:
        async with (
            open_node(agents, listen="127.0.0.1:0", store=redis.url) as server,
            open_node(users, listen="127.0.0.1:0", store=redis.url) as user,
        ):
            yield Setting(server, user, has_relay_in_common=False)


@asynccontextmanager
async def two_nodes_over_tcp(agents: Iterable[Any] = (Service,), users: Iterable[Any] = ()) -> AsyncGenerator[Setting]:
    async with (
        open_node(agents, listen="tcp://127.0.0.1:0") as server,
        open_node(users, relay=server.relays[0]) as user,
    ):
        yield Setting(server, user)


SETTINGS: Final = (
    one_process,
    two_nodes_in_memory,
    two_nodes_over_a_websocket,
    two_nodes_over_tcp,
    two_nodes_over_a_relay_cluster,
)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when something is so, which it soon is; fail the test where it never is."""
    with trio.fail_after(20):
        while True:
            if await condition():
                return
            await trio.lowlevel.checkpoint()
