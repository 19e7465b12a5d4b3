"""What portals promise between nodes in memory: who is let in, that no byte is lost, doubled or out of its place."""

import errno
import json
import socket
import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from attrs import frozen
from structlog.testing import capture_logs

from autonomy_trio import Request, Sender, agent, current_node, on
from autonomy_trio.errors import (
    AddressError,
    ConfigurationError,
    Denied,
    NameTaken,
    Overloaded,
    PolicyError,
    TargetUnreachable,
    UsageError,
)
from autonomy_trio.fabric.portals import portals as portals_module
from autonomy_trio.fabric.portals.connecting import Connect, Full, Outlet, Unreachable
from autonomy_trio.fabric.portals.outlets import CONNECT_LIMIT
from autonomy_trio.fabric.portals.places import Place
from autonomy_trio.wire.constants import LARGEST_NUMBER
from tests.support.net import Add, Counter, World, open_net
from tests.support.portals import Target, echo_server, exchange, read_all, until

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


async def test_what_was_sent_arrives_although_its_node_ends_then(target: Target) -> None:
    data = bytes(range(256)) * 12_000
    async with (
        open_net() as net,
        net.node() as server,
        server.outlet("db", target.place, allow="true") as outlet,
    ):
        async with net.node() as client, client.connect(outlet.address) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(read_all, stream)
            await stream.send_all(data)
            nursery.cancel_scope.cancel()
        await until(lambda: not outlet.streams)
    assert bytes(target.received) == data


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


async def test_the_target_of_a_unix_socket_and_an_inlet_at_one(world: World, tmp_path: Path) -> None:
    place = tmp_path / "here"
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(place))
    left_over.close()
    async with (
        echo_server() as target,
        world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
        world.alice.inlet(f"unix:{place}", outlet.address) as inlet,
        world.alice.outlet("again", inlet.address) as again,
    ):
        assert again.target == f"unix:{place}"
        assert place.stat().st_mode & 0o777 == 0o600
        assert await exchange(world.alice, "again", b"over both") == b"over both"
    assert not place.exists()


async def test_an_inlet_takes_no_socket_that_is_listened_on_and_no_other_file(world: World, tmp_path: Path) -> None:
    place = tmp_path / "taken"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        with pytest.raises(ConfigurationError, match="address already in use"):
            async with world.alice.inlet(f"unix:{place}", world.address):
                pass  # pragma: no cover - it is not reached
    assert place.exists()
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ConfigurationError, match="address already in use"):
        async with world.alice.inlet(f"unix:{file}", world.address):
            pass  # pragma: no cover - it is not reached
    assert file.read_text() == "mine"
    with pytest.raises(ConfigurationError, match="its folder is not there"):
        async with world.alice.inlet(f"unix:{tmp_path}/no/such/folder", world.address):
            pass  # pragma: no cover - it is not reached


async def test_a_unix_socket_whose_path_is_too_long_is_refused_in_words(world: World, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100)
    with pytest.raises(ConfigurationError, match=r"its path has \d+ bytes, and a Unix socket's may have a hundred"):
        async with world.alice.inlet(f"unix:{path}", world.server.address("db")):
            pass  # pragma: no cover - it is not reached


async def test_an_inlet_that_cannot_be_right_is_refused_at_once(world: World) -> None:
    with pytest.raises(AddressError, match="no place to connect"):
        async with world.alice.inlet("15432", world.address):
            pass  # pragma: no cover - it is not reached
    with pytest.raises(AddressError, match="names no Unix socket"):
        async with world.alice.inlet("unix:", world.address):
            pass  # pragma: no cover - it is not reached
    with pytest.raises(UsageError, match="at least 1"):
        world.alice.inlet("127.0.0.1:0", world.address, most_streams=0)
    with pytest.raises(AddressError):
        world.alice.inlet("127.0.0.1:0", "I00/db")


async def test_what_a_policy_takes_back_ends_no_open_stream_and_opens_no_other(
    world: World, target: Target, tmp_path: Path
) -> None:
    async with (
        world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
        world.alice.connect(outlet.address) as stream,
    ):
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        trusted, whole = world.server._read_trust()
        nobody = attrs.evolve(trusted, by_identifier={})
        world.server._admission.change(nobody, whole)
        with pytest.raises(Denied):
            async with world.alice.connect(outlet.address):
                pass  # pragma: no cover - it is not reached
        await stream.send_all(b"y")
        assert await stream.receive_some() == b"y"


async def test_an_outlet_is_judged_by_whole_policies_too(tmp_path: Path) -> None:
    policy = tmp_path / "policy.cedar"
    policy.write_text('permit(principal, action == Action::"Connect", resource == Outlet::"db");')
    async with (
        open_net() as net,
        net.node(policy=policy) as server,
        net.node() as user,
        echo_server() as target,
        server.outlet("db", target.place) as outlet,
    ):
        assert await exchange(user, outlet.address, b"let in") == b"let in"


async def test_each_outlet_has_a_condition_of_its_own(world: World, target: Target) -> None:
    async with (
        world.server.outlet("open", target.place, allow="true // for everybody") as outlet,
        world.server.outlet("db", target.place, allow=PAYMENTS) as other,
        world.server.outlet("closed", target.place) as closed,
    ):
        assert await exchange(world.bob, outlet.address, b"hello") == b"hello"
        assert await exchange(world.alice, other.address, b"hello") == b"hello"
        for address in (other.address, closed.address):
            with pytest.raises(Denied):
                async with world.bob.connect(address):
                    pass  # pragma: no cover - it is not reached
    assert target.connections == 2
    with pytest.raises(PolicyError):
        async with world.server.outlet("db", target.place, allow="false) || (true"):
            pass  # pragma: no cover - it is not reached


async def test_every_opening_is_audited_and_nothing_that_goes_through(world: World, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    async with (
        world.net.node(audit=audit) as server,
        echo_server() as target,
        server.outlet("db", target.place, allow="true") as outlet,
    ):
        assert await exchange(world.alice, outlet.address, b"a query") == b"a query"
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["action"], line["agent"]) for line in lines] == [("Connect", "Outlet")]
    assert "a query" not in audit.read_text()


@frozen
class Fetch(Request[str]):
    address: str


@agent(inherit=False)
class Reader:
    @on(Fetch)
    async def fetch(self, message: Fetch) -> str:
        try:
            return (await exchange(current_node(), message.address, b"as an agent")).decode()
        except Denied:
            return "denied"


async def test_an_agent_opens_a_stream_as_itself(world: World, target: Target) -> None:
    reader = world.alice.spawn(Reader)
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        assert await reader.ask(Fetch(outlet.address)) == "denied", "it does not inherit what its node has proven"
        identifier = world.alice.agent_identifier("reader")
        world.alice.add_credential(world.server.issue(identifier, team="payments"), agent="reader")
        assert await reader.ask(Fetch(outlet.address)) == "as an agent"


async def test_two_hundred_streams_go_on_beside_one_that_is_stalled(world: World, target: Target) -> None:
    data = bytes(range(256)) * 200
    whole = 0
    async with (
        world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
        world.alice.connect(outlet.address) as stalled,
        trio.open_nursery() as nursery,
    ):
        flood = trio.CancelScope()

        async def stall() -> None:
            with flood:
                while True:
                    await stalled.send_all(bytes(65536))

        async def one(number: int) -> None:
            nonlocal whole
            sent = bytes([number]) + data
            assert await exchange(world.alice, outlet.address, sent) == sent
            whole += 1

        nursery.start_soon(stall)
        async with trio.open_nursery() as others:
            for number in range(200):
                others.start_soon(one, number)
        flood.cancel()
        stalled.reset()
    assert whole == 200


async def test_an_ask_is_answered_beside_an_upload(world: World, target: Target) -> None:
    counter = world.alice.ref(world.address, Counter)
    async with (
        world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
        world.alice.connect(outlet.address) as stream,
        trio.open_nursery() as nursery,
    ):
        sent = 0

        async def upload() -> None:
            nonlocal sent
            while True:
                await stream.send_all(bytes(65536))
                sent += 65536

        async def discard() -> None:
            while True:
                await stream.receive_some()

        nursery.start_soon(upload)
        nursery.start_soon(discard)
        await until(lambda: sent > 4_000_000)
        seconds: list[float] = []
        for _ in range(30):
            began = time.perf_counter()
            await counter.ask(Add(1))
            seconds.append(time.perf_counter() - began)
        nursery.cancel_scope.cancel()
    assert statistics.median(seconds) < 0.5, "it does not wait behind what is uploaded"


async def test_what_was_read_is_delivered_when_an_outlet_or_an_inlet_closes(world: World) -> None:
    data = bytes(range(256)) * 2000
    received = bytearray()

    async def take_slowly(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for part in stream:
                received.extend(part)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, take_slowly, 0)
        place = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with world.server.outlet("db", place, allow=PAYMENTS) as outlet:
            async with world.alice.inlet("127.0.0.1:0", outlet.address) as inlet:
                host, _, port = inlet.address.rpartition(":")
                client = await trio.open_tcp_stream(host, int(port))
                await client.send_all(data)
                await until(lambda: bool(received))
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
            await client.aclose()
        nursery.cancel_scope.cancel()
    assert data.startswith(received)
    assert received


async def test_closing_ends_idle_streams_at_once_and_leaves_nothing(world: World, target: Target) -> None:
    with trio.fail_after(3):
        async with (
            world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
            world.alice.inlet("127.0.0.1:0", outlet.address) as inlet,
        ):
            host, _, port = inlet.address.rpartition(":")
            client = await trio.open_tcp_stream(host, int(port))
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
            assert (outlet.streams, inlet.streams) == (1, 1)
            assert "db" in repr(outlet)
            assert str(port) in repr(inlet)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await client.aclose()
        await until(lambda: not world.server.statistics().portals + world.alice.statistics().portals)
    assert "db" not in world.server.agents()
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as again:
        assert await exchange(world.alice, again.address, b"again") == b"again"


async def test_a_cancelled_block_resets_its_streams_at_once_and_leaves_no_task(world: World, target: Target) -> None:
    await world.alice.ref(world.address, Counter).ask(Add(1))
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        async with (
            world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
            world.alice.inlet("127.0.0.1:0", outlet.address) as inlet,
            world.alice.connect(outlet.address) as stream,
        ):
            host, _, port = inlet.address.rpartition(":")
            client = await trio.open_tcp_stream(host, int(port))
            await client.send_all(b"x")
            await client.receive_some()
            await stream.send_all(b"x")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    await client.aclose()
    await until(lambda: not world.server.statistics().portals + world.alice.statistics().portals)
    await until(lambda: "db" not in world.server.agents())
    await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)


async def test_an_error_in_the_block_is_that_error_and_resets_the_stream(world: World, target: Target) -> None:
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        with pytest.raises(KeyError):
            async with world.alice.connect(outlet.address):
                raise KeyError
        await until(lambda: not outlet.streams)
    with pytest.raises(KeyError):
        async with world.server.outlet("db", target.place):
            raise KeyError
    with pytest.raises(KeyError):
        async with world.alice.inlet("127.0.0.1:0", world.address):
            raise KeyError


async def test_a_stream_keeps_to_trios_rules(world: World, target: Target) -> None:
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        async with world.alice.connect(outlet.address) as stream:
            await stream.wait_send_all_might_not_block()
            await stream.send_all(bytearray(b"abcdef"))
            assert await stream.receive_some(2) == b"ab"
            assert await stream.receive_some() == b"cdef"
            with pytest.raises(ValueError, match="at least 1"):
                await stream.receive_some(0)
            await stream.send_eof()
            await stream.send_eof()
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"more")
            assert await stream.receive_some() == b""
            assert await stream.receive_some() == b""
            await stream.aclose()
            await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"more")
        async with world.alice.connect(outlet.address) as stream:

            async def read() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some()

            async def send() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.send_all(bytes(100_000_000))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await stream.aclose()
        async with world.alice.connect(outlet.address) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with pytest.raises(trio.BusyResourceError):
                await stream.send_all(b"x")
            await stream.aclose()


async def test_streams_between_two_nodes_and_at_one_are_bounded(
    world: World, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
        world.alice.connect(outlet.address),
    ):
        for name, says in (("MOST_WITH_ONE", "between the two nodes"), ("MOST_STREAMS", "at the node")):
            with monkeypatch.context() as patched:
                patched.setattr(portals_module, name, 1)
                with pytest.raises(Overloaded, match=says):
                    async with world.alice.connect(outlet.address):
                        pass  # pragma: no cover - it is not reached
        accept = world.server._portals.accept
        sender = Sender(world.alice.identifier, world.alice.identifier, is_local=False)
        with pytest.raises(Full, match="of that number"):
            accept(sender, next(iter(world.alice._peers.sessions.peers.values())).lane.ends()[0].number)
        monkeypatch.setattr(portals_module, "MOST_STREAMS", 1)
        with pytest.raises(Full, match="at the node"):
            accept(sender, 10**9)
        assert accept(attrs.evolve(sender, node="I" + "0" * 64), 10**9) is None


async def test_clients_past_the_places_of_an_inlet_wait(world: World, target: Target) -> None:
    async with (
        world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
        world.alice.inlet("127.0.0.1:0", outlet.address, most_streams=1) as inlet,
    ):
        host, _, port = inlet.address.rpartition(":")
        first = await trio.open_tcp_stream(host, int(port))
        await first.send_all(b"first")
        assert await first.receive_some() == b"first"
        second = await trio.open_tcp_stream(host, int(port))
        await second.send_all(b"second")
        with trio.move_on_after(0.2):
            await second.receive_some()
            raise AssertionError
        await first.aclose()
        assert await second.receive_some() == b"second"
        await second.aclose()


async def test_a_client_whose_stream_is_refused_is_reset_and_the_log_says_why(world: World, target: Target) -> None:
    with capture_logs() as lines:
        async with (
            world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
            world.bob.inlet("127.0.0.1:0", outlet.address) as inlet,
        ):
            host, _, port = inlet.address.rpartition(":")
            async with await trio.open_tcp_stream(host, int(port)) as client:
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
    assert target.connections == 0
    (line,) = [line for line in lines if line["event"] == "client not connected"]
    assert "denied Connect" in line["why"]
    assert "exc_info" not in line


async def test_an_inlet_goes_on_when_the_system_had_no_room_for_a_client(
    world: World, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, refusals = trio.SocketListener.accept, [errno.EMFILE]

    async def accept_later(self: trio.SocketListener) -> trio.SocketStream:
        if refusals:
            await trio.lowlevel.checkpoint()
            raise OSError(refusals.pop(), "too many open files")
        return await accept(self)

    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        monkeypatch.setattr(trio.SocketListener, "accept", accept_later)
        async with world.alice.inlet("127.0.0.1:0", outlet.address) as inlet:
            host, _, port = inlet.address.rpartition(":")
            async with await trio.open_tcp_stream(host, int(port)) as client:
                await client.send_all(b"hello")
                assert await client.receive_some() == b"hello"
        refusals.append(errno.EBADF)
        with pytest.raises(OSError, match="too many open files"):
            async with world.alice.inlet("127.0.0.1:0", outlet.address):
                await trio.sleep(1)


async def test_a_target_that_does_not_answer_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(_: Place) -> trio.SocketStream:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(Place, "connect", never)
    async with world.server.outlet("db", "192.0.2.1:5432", allow=PAYMENTS) as outlet:
        began = trio.current_time()
        with pytest.raises(TargetUnreachable, match="did not answer"):
            async with world.alice.connect(outlet.address):
                pass  # pragma: no cover - it is not reached
        assert trio.current_time() - began <= CONNECT_LIMIT + 1
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            async with world.alice.connect(outlet.address):
                pass  # pragma: no cover - it is not reached
        assert world.alice.statistics().portals == 0
        await trio.testing.wait_all_tasks_blocked()
        assert outlet.streams == 0, "the other node was told"


@pytest.mark.parametrize("number", [-1, LARGEST_NUMBER + 1])
async def test_a_number_that_no_stream_can_have_opens_none_and_ends_no_session(
    world: World, target: Target, number: int
) -> None:
    async with (
        world.server.outlet("db", target.place, allow=PAYMENTS) as outlet,
        world.alice.connect(outlet.address) as stream,
    ):
        with pytest.raises(Full, match="no number of a stream"):
            await world.alice.ref(outlet.address, Outlet).ask(Connect(number))
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"


async def test_a_relay_that_comes_or_goes_while_a_stream_is_being_opened_does_not_end_it(
    world: World, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = Place.connect
    arrived, going_on = trio.Event(), trio.Event()

    async def slowly(place: Place) -> trio.SocketStream:
        arrived.set()
        await going_on.wait()
        return await connect(place)

    monkeypatch.setattr(Place, "connect", slowly)
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def name_what_is_open() -> None:
            await arrived.wait()
            world.alice._peers.sessions.refresh()
            await trio.testing.wait_all_tasks_blocked()
            going_on.set()

        assert await exchange(world.alice, outlet.address, b"hello") == b"hello"


async def test_an_outlet_that_closes_and_an_opener_that_has_gone_leave_no_connection(
    world: World, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        nobody = Sender("I" + "0" * 64, "I" + "0" * 64, is_local=False)
        with pytest.raises(Unreachable, match="has gone"):
            await outlet.open(1, nobody)
        outlet.close()
        with pytest.raises(TargetUnreachable, match="is closing"):
            async with world.alice.connect(outlet.address):
                pass  # pragma: no cover - it is not reached
        assert outlet.streams == 0


async def test_a_close_that_is_cancelled_resets_the_stream(world: World, target: Target) -> None:
    async with world.server.outlet("db", target.place, allow=PAYMENTS) as outlet:
        async with world.alice.connect(outlet.address) as stream:
            await stream.send_all(b"x")
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.aclose()
            assert scope.cancelled_caught
            assert world.alice.statistics().portals == 0
        await until(lambda: not outlet.streams)
