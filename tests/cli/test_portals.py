"""``outlet`` and ``inlet`` as processes: any TCP client works unchanged, and what is wrong is said in a sentence."""

import os
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call, Result, Served, credential_for
from tests.support.processes import Process

NOBODY = "ws://127.0.0.1:1/I" + "0" * 64 + "/db"


@contextmanager
def echo_server() -> Generator[str]:
    """A server in threads that sends back what it gets."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@contextmanager
def outlet(served: Served, home: Path, target: str, *more: str | Path) -> Generator[tuple[Process, str]]:
    options = ("--target", target, "--relay", served.url, "--home", str(home), *map(str, more))
    with Process("outlet", "db", *options, env=served.env) as process:
        address, _, place = process.wait_line("outlet ws://").removeprefix("outlet ").partition(" to ")
        assert place == target
        yield process, address


@contextmanager
def inlet(served: Served, home: Path, to: str, listen: str = "127.0.0.1:0") -> Generator[tuple[Process, str]]:
    with Process("inlet", "--listen", listen, "--to", to, "--home", str(home), env=served.env) as process:
        yield process, process.wait_line("inlet ").removeprefix("inlet ").partition(" to ")[0]


def connect(place: str) -> socket.socket:
    if place.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(place.removeprefix("unix:"))
        return client
    host, _, port = place.rpartition(":")
    return socket.create_connection((host, int(port)), 60)


def exchange(place: str, data: bytes) -> bytes:
    received = bytearray()
    with connect(place) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while more := client.recv(65536):
            received += more
    return bytes(received)


@pytest.fixture
def home(served: Served, tmp_path: Path) -> Path:
    """A home that trusts itself, of which alice and bob's like are shown below."""
    home = tmp_path / "database"
    Vault.open(home).close()
    return home


@pytest.fixture
def alice(home: Path, tmp_path: Path) -> Path:
    """A home that can prove to `home` that it is of the payments team."""
    alice = tmp_path / "alice"
    Vault.open(alice).close()
    (alice / "credentials").mkdir()
    (alice / "credentials" / "payments").write_text(credential_for(alice, home))
    return alice


PAYMENTS = ("--allow", 'principal.team == "payments"')


def test_any_client_reaches_the_target_through_both_and_they_stop_in_good_order(
    served: Served, home: Path, alice: Path
) -> None:
    with (
        echo_server() as target,
        outlet(served, home, target, *PAYMENTS) as (out, address),
        inlet(served, alice, address) as (inn, place),
    ):
        data = os.urandom(1_000_000)
        assert exchange(place, data) == data
        idle = connect(place)
        idle.sendall(b"x")
        assert idle.recv(1) == b"x"
        inn.signal(signal.SIGINT)
        assert inn.wait() == 0
        with idle, pytest.raises(ConnectionResetError):
            idle.recv(1)
        out.signal(signal.SIGINT)
        assert out.wait() == 0
        assert "stopped" in out.err


def test_unix_sockets_work_on_both_ends_and_are_for_their_user_alone(
    served: Served, home: Path, alice: Path, tmp_path: Path
) -> None:
    there, here = f"unix:{tmp_path / 'target'}", f"unix:{tmp_path / 'here'}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(there.removeprefix("unix:"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with outlet(served, home, there, *PAYMENTS) as (_, address), inlet(served, alice, address, here) as (_, place):
            assert (tmp_path / "here").stat().st_mode & 0o777 == 0o600
            assert exchange(place, b"over unix sockets") == b"over unix sockets"
        thread.join(10)
    assert not (tmp_path / "here").exists()


def test_who_is_denied_sees_a_reset_and_the_log_says_why(served: Served, home: Path, tmp_path: Path) -> None:
    bob = tmp_path / "bob"
    Vault.open(bob).close()
    with (
        echo_server() as target,
        outlet(served, home, target, *PAYMENTS) as (_, address),
        inlet(served, bob, address) as (inn, place),
    ):
        with connect(place) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        assert "denied" in inn.wait_line("client not connected")


def test_a_client_is_reset_when_the_outlets_process_is_killed(served: Served, home: Path, alice: Path) -> None:
    with (
        echo_server() as target,
        outlet(served, home, target, *PAYMENTS) as (out, address),
        inlet(served, alice, address) as (_, place),
        connect(place) as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        out.kill()
        with pytest.raises(ConnectionResetError):  # within 28 s
            client.recv(1)


def test_an_outlet_that_nobody_may_open_says_so(served: Served, home: Path) -> None:
    with outlet(served, home, "127.0.0.1:5432") as (out, _):
        out.wait_line("nobody on another node may open it")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("outlet", "db", "--target", "127.0.0.1:5432"), "add --relay"),
        (("outlet", "db", "--target", "5432", "--relay", "ws://127.0.0.1:1"), "no place to connect"),
        (("outlet", "db", "--target", ":5432", "--listen", "127.0.0.1:0"), "write its host"),
        (("outlet", "db", "--target", "a:1", "--allow", "principal.", "--listen", "127.0.0.1:0"), "does not parse"),
        (("outlet", "a b", "--target", "a:1", "--listen", "127.0.0.1:0"), "'a b'"),
        (("outlet", "db", "--target", "a:1", "--relay", "ws://127.0.0.1:1"), "is a relay running there?"),
        (("outlet", "db", "--listen", "127.0.0.1:0"), "--target"),
        (("inlet", "--listen", "127.0.0.1:0", "--to", "db"), "is no address"),
        (("inlet", "--listen", "127.0.0.1:0", "--to", "I" + "0" * 64 + "/db"), "names no relay"),
        (("inlet", "--listen", "127.0.0.1:0", "--to", NOBODY), "is a relay running there?"),
        (("inlet", "--listen", "127.0.0.1:0", "--to", NOBODY, "--most-streams", "0"), "--most-streams"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else None,
)
def test_a_wrong_call_is_one_sentence(call: Call, arguments: tuple[str, ...], says: str) -> None:
    result = call(*arguments)
    assert result.code in {1, 2}
    assert result.is_one_sentence(result.code), result.err
    assert says in result.err


@pytest.mark.parametrize("place", ["15432", "unix:/nowhere/at/all", "unix:"])
def test_an_inlet_that_cannot_listen_says_why(served: Served, call: Call, place: str) -> None:
    result = call("inlet", "--listen", place, "--to", served.of("db"), "--home", served.alice)
    assert result.is_one_sentence(2), result.err


def test_an_inlet_where_something_listens_already_says_so(served: Served, call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        result = call("inlet", "--listen", place, "--to", served.of("db"), "--home", served.alice)
    assert result == Result(
        2, "", f"Error: cannot listen on {place} (address already in use): choose another address with --listen\n"
    )
