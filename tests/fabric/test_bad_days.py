"""Bad days over real sockets: what one neighbour does or suffers, and that all others go on."""

import resource
import time
import tracemalloc
from collections.abc import AsyncGenerator, Generator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio

from autonomy_trio import Node, Request, agent, on, open_node
from autonomy_trio.errors import RelayRefused
from autonomy_trio.fabric.attachment import Attachment
from autonomy_trio.fabric.links import link as links
from autonomy_trio.fabric.links.addresses import ListenAddress, RelayAddress
from autonomy_trio.fabric.links.link import MOST_MESSAGE
from autonomy_trio.fabric.links.websocket import connect, listen
from autonomy_trio.fabric.relays.relay import OUTBOX_BYTES, Relay
from autonomy_trio.trust.vault import Vault
from tests.support.neighbours import Neighbour, eventually

pytestmark = pytest.mark.usefixtures("calm")

SILENT = 1000
RETURNING = 200
HUGE = 100 * 1024 * 1024
A_MILLION = 1_000_000
PATIENCE = 60.0
"""Seconds a test waits; what is promised is a tenth."""


@attrs.frozen
class Ping(Request[int]):
    number: int


@agent
class Echo:
    @on(Ping, allow="true")
    def ping(self, message: Ping) -> int:
        return message.number


@attrs.define
class Served:
    """A relay that listens, and can be killed."""

    relay: Relay
    address: ListenAddress
    scope: trio.CancelScope

    @property
    def url(self) -> str:
        return self.address.url


async def serve(nursery: trio.Nursery, vault: Vault | None = None, port: int = 0) -> Served:
    relay, listener = Relay(vault or Vault.in_memory()), await listen(ListenAddress("127.0.0.1", port))
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await relay.serve(listener)

    nursery.start_soon(run)
    return Served(relay, listener.address, scope)


@asynccontextmanager
async def pair(*urls: str) -> AsyncGenerator[tuple[Node, Node]]:
    async with open_node([Echo], relay=urls) as far, open_node(relay=urls) as near:
        yield near, far


async def ask(near: Node, far: Node, number: int) -> int:
    with trio.fail_after(PATIENCE):
        return await near.ref(far.address("echo"), Echo).ask(Ping(number))


@pytest.fixture
def many_files() -> Generator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_connections_that_say_nothing_are_bounded_and_nobody_else_notices(
    nursery: trio.Nursery,
) -> None:
    served = await serve(nursery)
    async with AsyncExitStack() as silent, pair(served.url) as (near, far):
        for _ in range(SILENT):
            stream = await trio.open_tcp_stream("127.0.0.1", served.address.port, local_address="127.0.0.2")
            silent.push_async_callback(stream.aclose)
        assert await ask(near, far, 1) == 1
        async with open_node(relay=served.url) as late:
            assert await ask(late, far, 2) == 2
        await eventually(lambda: served.relay.statistics().connections == 2, PATIENCE)


async def test_a_message_of_100_mib_ends_its_connection_and_is_not_kept(nursery: trio.Nursery) -> None:
    served = await serve(nursery)
    async with pair(served.url) as (near, far):
        link = await connect(served.url, nursery)
        sent = 0
        await link.receive()  # HELLO
        # The head of one frame of that length, as a client sends it, and zeros after it.
        await link._stream.send_all(b"\x82\xff" + HUGE.to_bytes(8, "big") + bytes(4))
        with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while sent < HUGE:
                await link._stream.send_all(bytes(64 * 1024))
                sent += 64 * 1024
        assert sent < HUGE
        await trio.aclose_forcefully(link._stream)
        await eventually(lambda: served.relay.statistics().connections == 2, PATIENCE)
        assert await ask(near, far, 1) == 1


@asynccontextmanager
async def stranger(url: str, nursery: trio.Nursery) -> AsyncGenerator[trio.abc.Stream]:
    """The bare stream of a websocket at a relay, which has said HELLO."""
    link = await connect(url, nursery)
    await link.receive()
    yield link._stream
    await trio.aclose_forcefully(link._stream)


@pytest.mark.parametrize(
    "flood", [b"\x00\x80" + bytes(4), b"\x00\x81" + bytes(5)], ids=["of zero length", "of one byte"]
)
async def test_a_million_fragments_end_their_connection_in_bounded_memory(nursery: trio.Nursery, flood: bytes) -> None:
    served = await serve(nursery)
    async with pair(served.url) as (near, far), stranger(served.url, nursery) as stream:
        tracemalloc.start()
        try:
            sent = 0
            with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(b"\x02\x80" + bytes(4))
                while sent < A_MILLION:
                    await stream.send_all(1000 * flood)
                    sent += 1000
            await eventually(lambda: served.relay.statistics().connections == 2, PATIENCE)
            assert tracemalloc.get_traced_memory()[1] < 16 * MOST_MESSAGE
        finally:
            tracemalloc.stop()
        assert sent < A_MILLION
        assert await ask(near, far, 1) == 1


async def test_a_text_frame_ends_its_connection_and_nobody_else_notices(nursery: trio.Nursery) -> None:
    served = await serve(nursery)
    async with pair(served.url) as (near, far), stranger(served.url, nursery) as stream:
        await stream.send_all(b"\x81\x85" + bytes(4) + b"hello")
        await eventually(lambda: served.relay.statistics().connections == 2, PATIENCE)
        assert await ask(near, far, 1) == 1


async def test_a_node_that_stops_reading_is_dropped_and_nobody_else_is_slowed_down(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "PATIENCE", 1.0)
    served = await serve(nursery)
    async with pair(served.url) as (near, far):
        deaf, loud = [Neighbour(await connect(served.url, nursery), Vault.in_memory()) for _ in range(2)]
        for each in (deaf, loud):
            await each.register(now=time.time())
        with trio.fail_after(PATIENCE):
            while served.relay.statistics().nodes == 4:
                # More than an outbox and what the system holds: what does not fit is refused to its sender alone.
                await loud.send(deaf.id, bytes(64 * 1024))
                assert await ask(near, far, 1) == 1
        assert served.relay.statistics().waiting_bytes < OUTBOX_BYTES
        for each in (deaf, loud):
            await each.link.aclose()


async def test_when_one_of_two_relays_dies_sessions_move_to_the_other(nursery: trio.Nursery) -> None:
    first, second = await serve(nursery), await serve(nursery)
    async with pair(first.url, second.url) as (near, far):
        assert await ask(near, far, 1) == 1
        first.scope.cancel()
        await eventually(lambda: near.statistics().relays == far.statistics().relays == 1, PATIENCE)
        assert await ask(near, far, 2) == 2
        assert second.relay.statistics().forwarded > 0


@pytest.mark.parametrize(("apart", "told"), [(-3600, "begins in 3,.* set the clocks"), (3600, "is the clock right")])
async def test_a_node_whose_clock_is_an_hour_off_is_told_and_so_is_the_log_of_the_relay(
    nursery: trio.Nursery, log: list[MutableMapping[str, Any]], apart: float, told: str
) -> None:
    served = await serve(nursery)
    with pytest.raises(RelayRefused, match=told):
        async with open_node(relay=served.url, now=lambda: time.time() + apart):
            pass
    if apart > 0:
        assert "set the clocks" in next(line["reason"] for line in log if "protocol" in line["event"])
    async with pair(served.url) as (near, far):
        assert await ask(near, far, 1) == 1


async def test_two_hundred_nodes_that_come_back_at_once_are_all_back(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault.in_memory()
    served = await serve(nursery, vault)
    relay = RelayAddress.parse(served.url)
    for _ in range(RETURNING):
        node = Attachment(relay, Vault.in_memory(), connect, lambda *_: None, lambda: None, time.time)
        await nursery.start(node.run)
    assert served.relay.statistics().nodes == RETURNING
    served.scope.cancel()
    await eventually(lambda: served.relay.statistics().nodes == 0, PATIENCE)
    again = await serve(nursery, vault, served.address.port)
    await eventually(lambda: again.relay.statistics().nodes == RETURNING, 2 * PATIENCE)
