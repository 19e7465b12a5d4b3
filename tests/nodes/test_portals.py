"""What portals promise between nodes in memory: who is let in, that no byte is lost, doubled or out of its place."""

from collections.abc import AsyncGenerator

import pytest

from autonomy_trio.errors import Denied, NameTaken, Overloaded, PolicyError, TargetUnreachable, UsageError
from tests.support.net import World
from tests.support.portals import Target, echo_server, exchange

PAYMENTS = 'principal.team == "payments"'


@pytest.fixture
async def target() -> AsyncGenerator[Target]:
    async with echo_server() as target:
        yield target


async def test_bytes_go_through_a_session_and_come_back(world: World, target: Target) -> None:
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        assert outlet.address == world.server.address("db")
        data = bytes(range(256)) * 4096
        assert await exchange(world.alice, outlet.address, data) == data
    assert target.connections == 1
    assert bytes(target.received) == data


async def test_who_is_denied_opens_nothing_and_the_target_sees_no_connection(world: World, target: Target) -> None:
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        with pytest.raises(Denied):
            async with world.bob.connect(outlet.address):
                pass  # pragma: no cover - it is not reached
    assert target.connections == 0


async def test_no_relay_sees_a_byte_of_a_stream(world: World, target: Target) -> None:
    secret = b"SELECT card FROM customers" * 3
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        assert await exchange(world.alice, outlet.address, secret) == secret
    seen = b"".join([*world.net.sent, *world.net.received])
    assert b"SELECT" not in seen
    assert b"customers" not in seen


async def test_an_outlet_of_the_same_node_works_too(world: World, target: Target) -> None:
    async with world.server.outlet("db", target.place) as outlet:
        data = bytes(range(256)) * 4096
        assert await exchange(world.server, "db", data) == data
        assert await exchange(world.server, outlet.address, data) == data
    assert target.connections == 2


async def test_a_target_that_refuses_is_told_in_words_without_its_address(world: World) -> None:
    async with echo_server() as gone:
        place = gone.place
    async with world.server.outlet("db", place, allow=PAYMENTS) as outlet:
        with pytest.raises(TargetUnreachable, match="the outlet's target refused the connection") as caught:
            async with world.alice.connect(outlet.address):
                pass  # pragma: no cover - it is not reached
        assert place not in str(caught.value)
        with pytest.raises(Denied):
            async with world.bob.connect(outlet.address):
                pass  # pragma: no cover - it is not reached


async def test_an_outlet_lets_so_many_streams_through_and_one_more_is_overloaded(world: World, target: Target) -> None:
    async with (
        world.server.outlet("db", target.place, allow=PAYMENTS, most_streams=1) as outlet,
        world.alice.connect(outlet.address),
    ):
        assert outlet.streams == 1
        with pytest.raises(Overloaded, match="1 streams go through the outlet already"):
            async with world.alice.connect(outlet.address):
                pass  # pragma: no cover - it is not reached


async def test_an_outlet_that_cannot_be_right_is_refused_at_once(world: World) -> None:
    with pytest.raises(PolicyError):
        async with world.server.outlet("db", "127.0.0.1:1", allow="principal.team =="):
            pass  # pragma: no cover - it is not reached
    with pytest.raises(UsageError, match="nothing to connect to"):
        async with world.server.outlet("db", ":5432"):
            pass  # pragma: no cover - it is not reached
    with pytest.raises(NameTaken):
        async with world.server.outlet("counter", "127.0.0.1:1"):
            pass  # pragma: no cover - it is not reached
    with pytest.raises(UsageError, match="at least 1"):
        world.server.outlet("db", "127.0.0.1:1", most_streams=0)
    assert set(world.server.agents()) == {"counter"}
