"""Very many nodes that say nothing, at one relay of its own process; then each of them gets a message."""

import itertools
import os
import resource
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from autonomy_trio.fabric.attachment import Attachment
from autonomy_trio.fabric.links.addresses import RelayAddress
from autonomy_trio.fabric.links.linking import connect
from autonomy_trio.trust.vault import Vault
from tests.support.processes import Process, environment

IDLE: Final = 2000
ADDRESSES: Final = 8
"""Network addresses that they come from, for a relay bounds what comes from one."""
AT_ONCE: Final = 20
PATIENCE: Final = 200.0
LEAST_BYTES: Final = 24 * 1024
"""What a connection may cost a relay, as `python -m benchmarks network` measures it; it is doubled here."""


@pytest.fixture
def many_files() -> Generator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, open_tcp_stream = itertools.cycle(range(1, ADDRESSES + 1)), trio.open_tcp_stream

    async def open_from_the_next(host: str, port: int) -> trio.SocketStream:
        return await open_tcp_stream(host, port, local_address=f"127.0.0.{next(numbers)}")

    monkeypatch.setattr(trio, "open_tcp_stream", open_from_the_next)


def resident(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.scale
@pytest.mark.usefixtures("many_files", "several_addresses")
async def test_two_thousand_idle_nodes_cost_a_relay_little_and_each_gets_its_message(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    received: list[int] = []
    with Process(
        "relay", "--listen", "127.0.0.1:0", "--home", str(tmp_path / "relay"), env=environment(tmp_path)
    ) as relay:
        url = RelayAddress.parse((await trio.to_thread.run_sync(relay.wait_line, "relay ws://")).removeprefix("relay "))

        def take(number: int, _: Any, __: bytes, packet: bytes) -> None:  # noqa: ANN401 - not looked at
            assert packet == str(number).encode()
            received.append(number)

        vaults = [Vault.in_memory() for _ in range(IDLE)]
        nodes = [
            Attachment(url, vault, connect, partial(take, number), lambda: None, time.time)
            for number, vault in enumerate(vaults)
        ]
        await nursery.start(nodes[0].run)
        before = resident(relay.pid)
        limit = trio.CapacityLimiter(AT_ONCE)

        async def attach(node: Attachment) -> None:
            async with limit:
                await nursery.start(node.run)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as attaching:
                for node in nodes[1:]:
                    attaching.start_soon(attach, node)
            each = (resident(relay.pid) - before) / (IDLE - 1)
            for number, vault in enumerate(vaults):
                assert nodes[0].carry(vault.identifier, str(number).encode())
            while len(received) < IDLE:  # noqa: ASYNC110 - the relay and its links bring them
                await trio.sleep(0.01)
        assert sorted(received) == list(range(IDLE))
        assert all(node.is_attached and node.times_attached == 1 for node in nodes)
        assert each < 2 * LEAST_BYTES
        nursery.cancel_scope.cancel()
