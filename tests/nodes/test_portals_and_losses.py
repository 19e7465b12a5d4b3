"""What portals promise when something is lost: packets, relays, nodes. A stream survives what its session survives."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from autonomy_trio import Node, PortalStream, open_node
from autonomy_trio.fabric.attachment import Attachment
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.testing import Faults, TestFabric, open_test_fabric
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.wire.constants import GONE_AFTER
from autonomy_trio.wire.frames import Send
from tests.support.portals import Target, echo_server, read_all, until

URLS = "ws://one:1", "ws://two:1"
DATA = bytes(range(256)) * 6_000


@pytest.fixture
def patient_clock() -> trio.testing.MockClock:
    """Virtual time that waits for what is under way between real sockets."""
    return trio.testing.MockClock(autojump_threshold=0.02)


@attrs.define
class Pair:
    """A node with an outlet, one that uses it, and the two relays both are attached to."""

    fabrics: dict[str, TestFabric]
    far: Node
    near: Node
    target: Target
    address: str

    @property
    def fabric(self) -> TestFabric:
        """That of the relay by which the two speak now."""
        carrier = self.near._peers.sessions.peers[parse_identifier(self.far.identifier)].carrier
        assert isinstance(carrier, Attachment)
        return self.fabrics[carrier.relay.url]


@asynccontextmanager
async def open_pair(faults: Faults = Faults()) -> AsyncGenerator[Pair]:  # noqa: B008 - it is frozen
    async with open_test_fabric(faults) as one, open_test_fabric(faults, seed=1) as two, echo_server() as target:
        fabrics = dict(zip(URLS, (one, two), strict=True))

        async def connect(url: str, nursery: trio.Nursery) -> Link:
            return await fabrics[url].connect(fabrics[url].url, nursery)

        options: dict[str, Any] = {"relay": URLS, "now": virtual_now, "connect": connect}
        async with (
            open_node(**options) as far,
            far.outlet("db", target.place, allow="true") as outlet,
            open_node(**options) as near,
        ):
            yield Pair(fabrics, far, near, target, outlet.address)


@pytest.fixture
async def pair() -> AsyncGenerator[Pair]:
    async with open_pair() as pair:
        yield pair


async def echoed(stream: PortalStream, data: bytes) -> bytes:
    """Send and receive at once."""
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        while len(received) < len(data):
            received += await stream.receive_some()
    return bytes(received)


async def test_an_idle_stream_survives_the_loss_of_a_relay(pair: Pair, patient_clock: object) -> None:
    async with pair.near.connect(pair.address) as stream:
        assert await echoed(stream, b"before") == b"before"
        pair.fabric.stop_relay()
        await trio.sleep(60)
        assert await echoed(stream, b"after") == b"after"
    assert pair.target.connections == 1


@pytest.mark.parametrize("swallows", [False, True], ids=["dead at once", "swallows first"])
async def test_a_stream_under_load_survives_the_loss_of_a_relay(
    pair: Pair, patient_clock: object, swallows: bool
) -> None:
    async with pair.near.connect(pair.address) as stream:
        await echoed(stream, b"before")
        async with trio.open_nursery() as nursery:
            received = bytearray()

            async def receive() -> None:
                while len(received) < len(DATA):
                    received.extend(await stream.receive_some())

            nursery.start_soon(receive)
            for start in range(0, len(DATA), 100_000):
                await stream.send_all(DATA[start : start + 100_000])
                if start == 1_000_000:
                    fabric = pair.fabric
                    if swallows:
                        fabric.faults = Faults(drop=1)
                        nursery.start_soon(self_destruct, fabric)
                    else:
                        fabric.stop_relay()
        assert bytes(received) == DATA
    assert pair.target.connections == 1


async def self_destruct(fabric: TestFabric) -> None:
    await trio.sleep(3)
    fabric.stop_relay()


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(drop=0.1), id="lost"),
        pytest.param(Faults(duplicate=0.3), id="twice"),
        pytest.param(Faults(reorder=0.3), id="reordered"),
        pytest.param(Faults(drop=0.05, duplicate=0.1, tamper=0.05, reorder=0.1, delay=0.05), id="all"),
    ],
)
async def test_no_byte_is_lost_or_doubled_whatever_becomes_of_packets(faults: Faults) -> None:
    async with open_pair() as pair, pair.near.connect(pair.address) as stream:
        for fabric in pair.fabrics.values():
            fabric.faults = faults
        assert await echoed(stream, DATA) == DATA
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_packets_that_a_relay_has_no_room_for_are_sent_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    passed, seen = Relay._forward, 0

    def refuse_some(self: Relay, sender: Any, frame: Send) -> None:  # noqa: ANN401 - the relay's own
        nonlocal seen
        seen += 1
        if seen % 9:
            passed(self, sender, frame)
        else:
            self.returned(sender.identifier, frame.destination, "overloaded")

    async with pair.near.connect(pair.address) as stream:
        monkeypatch.setattr(Relay, "_forward", refuse_some)
        assert await echoed(stream, DATA) == DATA
    assert pair.near.statistics().resent + pair.far.statistics().resent > 0


async def test_both_ends_are_reset_when_nothing_is_heard_any_more_between_the_nodes(
    pair: Pair, patient_clock: object
) -> None:
    async with (
        pair.far.outlet("held", pair.target.place, allow="true") as outlet,
        pair.near.connect(outlet.address) as stream,
    ):
        await echoed(stream, b"before")
        assert outlet.streams == 1
        for fabric in pair.fabrics.values():
            fabric.faults = Faults(drop=1)
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert trio.current_time() - began <= GONE_AFTER + 12
        await until(lambda: not outlet.streams)


async def test_a_node_that_closes_ends_the_streams_of_the_other_at_once(pair: Pair) -> None:
    async with pair.near.connect(pair.address) as stream:
        await echoed(stream, b"before")
        began = trio.current_time()
        pair.far._peers.sessions.close()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        assert trio.current_time() - began < 1


async def test_a_node_that_was_restarted_has_the_streams_of_its_predecessor_reset(tmp_path: Path) -> None:
    async with open_test_fabric() as fabric, echo_server() as target:
        options: dict[str, Any] = {"relay": fabric.url, "now": virtual_now, "connect": fabric.connect}
        async with open_node(**options) as far, far.outlet("db", target.place, allow="true") as outlet:
            async with open_node(home=tmp_path / "near", **options) as near, near.connect(outlet.address) as stream:
                await echoed(stream, b"before")
                fabric.faults = Faults(drop=1)  # so nobody hears it leave
            assert outlet.streams == 1
            fabric.faults = Faults()
            async with open_node(home=tmp_path / "near", **options) as again, again.connect(outlet.address) as stream:
                await echoed(stream, b"after")
                await until(lambda: outlet.streams == 1)
            assert target.connections == 2


async def test_a_target_that_resets_shows_as_an_error_and_never_as_an_end(pair: Pair) -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, reset, 0)
        place = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with pair.far.outlet("rude", place, allow="true") as outlet:
            async with pair.near.connect(outlet.address) as stream:
                await stream.send_all(b"x")
                with pytest.raises(trio.BrokenResourceError, match="reset at the other end"):
                    await read_all(stream)
            async with pair.near.inlet("127.0.0.1:0", outlet.address) as inlet:
                host, _, port = inlet.address.rpartition(":")
                async with await trio.open_tcp_stream(host, int(port)) as client:
                    await client.send_all(b"x")
                    with pytest.raises(trio.BrokenResourceError):
                        await read_all(client)
        nursery.cancel_scope.cancel()


async def test_a_client_that_resets_shows_at_the_target_as_an_error(pair: Pair) -> None:
    seen: list[str] = []

    async def watch(stream: trio.SocketStream) -> None:
        try:
            seen.append(repr(await read_all(stream)))
        except trio.BrokenResourceError:
            seen.append("reset")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, watch, 0)
        place = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with (
            pair.far.outlet("watched", place, allow="true") as outlet,
            pair.near.inlet("127.0.0.1:0", outlet.address) as inlet,
        ):
            host, _, port = inlet.address.rpartition(":")
            client = await trio.open_tcp_stream(host, int(port))
            await client.send_all(b"half of it")
            await until(lambda: bool(outlet.streams))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await trio.aclose_forcefully(client)
            await until(lambda: bool(seen))
        nursery.cancel_scope.cancel()
    assert seen == ["reset"]
