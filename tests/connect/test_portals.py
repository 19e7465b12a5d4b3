"""Portals and programs that know nothing of them: PostgreSQL's, Redis', HTTP, over a relay and two processes more."""

import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.support.postgres import CERTIFICATE, PostgresServer, postgres_server, program
from tests.support.processes import PATIENCE, Process, free_port
from tests.support.redis import redis_server
from tests.support.site import Site

pytestmark = pytest.mark.outside

MIB: Final = 1024 * 1024
LOST_WITHIN: Final = 28.0
"""Seconds after which a lost node is noticed."""


@pytest.fixture(scope="module")
def postgres() -> Generator[PostgresServer]:
    with postgres_server(tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    with site.relay():
        yield site


@pytest.fixture(scope="module")
def port(site: Site, postgres: PostgresServer) -> Generator[int]:
    """Where alice's inlet leads to the server."""
    with site.portal(f"127.0.0.1:{postgres.port}") as port:
        yield port


def run(postgres: PostgresServer, *command: str, port: int, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program(command[0]), *command[1:]],
        env=postgres.environment(**{"PGHOST": "127.0.0.1", "PGPORT": str(port), **env}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=4 * PATIENCE,
        check=False,
    )


def psql(postgres: PostgresServer, sql: str, port: int, **env: str) -> str:
    done = run(postgres, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, port=port, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_psql_runs_a_script(postgres: PostgresServer, port: int, tmp_path: Path) -> None:
    script = tmp_path / "script.sql"
    script.write_text(
        "create table paid (id int primary key, amount numeric);\n"
        "begin; insert into paid select n, n * 1.5 from generate_series(1, 1000) n; commit;\n"
        "select sum(amount) from paid;\n"
        "drop table paid;\n"
    )
    done = run(postgres, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", str(script), port=port)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "750750.0", "")


def test_psql_speaks_tls_with_the_server_through_the_portal(postgres: PostgresServer, port: int) -> None:
    ssl = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    given = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(CERTIFICATE)}
    assert psql(postgres, ssl, port, **given) == "t"
    assert psql(postgres, ssl, port, PGSSLMODE="disable") == "f"


def test_pgbench_runs_sixteen_clients_without_an_error(postgres: PostgresServer, port: int) -> None:
    made = run(postgres, "pgbench", "-q", "-i", "-s", "1", port=port)
    assert made.returncode == 0, made.stderr
    done = run(postgres, "pgbench", "-S", "-c", "16", "-T", "5", port=port)
    assert done.returncode == 0, done.stderr
    assert "number of failed transactions: 0 (0.000%)" in done.stdout
    assert transactions(done.stdout) > 16


def transactions(report: str) -> int:
    found = re.search(r"number of transactions actually processed: (\d+)", report)
    assert found is not None, report
    return int(found[1])


def test_a_copy_of_50_mib_is_the_same_both_ways(postgres: PostgresServer, port: int, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    with sent.open("w") as file:
        for number in range(50 * 1024):
            file.write(f"{number}\t{os.urandom(512).hex()}\n")
    assert sent.stat().st_size >= 50 * MIB
    psql(postgres, "create table copied (n int, line text)", port)
    psql(postgres, rf"\copy copied from '{sent}'", port)
    psql(postgres, rf"\copy copied to '{back}'", port)
    assert digest(sent) == digest(back)
    psql(postgres, "drop table copied", port)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_psql_over_unix_sockets_at_both_ends(postgres: PostgresServer, site: Site) -> None:
    with tempfile.TemporaryDirectory() as folder, site.outlet(f"unix:{postgres.socket}") as (_, address):
        path = Path(folder) / ".s.PGSQL.5432"
        with site.inlet(address, f"unix:{path}"):
            assert path.stat().st_mode & 0o777 == 0o600, "others on this machine could use it"
            assert psql(postgres, "select 'through'", 5432, PGHOST=folder) == "through"
            where = "select coalesce(inet_server_addr()::text, 'a Unix socket')"
            assert psql(postgres, where, 5432, PGHOST=folder) == "a Unix socket"


def test_who_has_not_the_attribute_opens_nothing_and_the_server_sees_no_connection(
    postgres: PostgresServer, site: Site
) -> None:
    with site.outlet(f"127.0.0.1:{postgres.port}") as (_, address):
        with site.inlet(address, is_of_payments=False) as (inlet, place):
            seen = postgres.connections()
            done = run(postgres, "psql", "-c", "select 1", port=int(place.rpartition(":")[2]))
            assert done.returncode == 2
            inlet.wait_line("denied Connect")
            assert postgres.connections() == seen
        with site.inlet(address) as (_, place):
            assert psql(postgres, "select 1", int(place.rpartition(":")[2])) == "1"
            assert postgres.connections() == seen + 1, "connections are not counted"


def test_redis_benchmark_and_redis_cli(site: Site, tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis, site.portal(f"127.0.0.1:{redis.port}") as port:
        at = ("-h", "127.0.0.1", "-p", str(port))
        done = subprocess.run(
            [tool("redis-benchmark"), *at, "-c", "50", "-n", "20000", "-t", "get,set", "--csv"],
            capture_output=True,
            encoding="utf-8",
            timeout=4 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert re.findall(r'^"(SET|GET)","[0-9.]+"', done.stdout, re.MULTILINE) == ["SET", "GET"]
        value = os.urandom(100_000).hex()
        cli = [tool("redis-cli"), *at]
        assert subprocess.run([*cli, "-x", "set", "a"], input=value.encode(), timeout=PATIENCE, check=True)
        got = subprocess.run([*cli, "get", "a"], capture_output=True, encoding="utf-8", timeout=PATIENCE, check=True)
        assert got.stdout.strip() == value


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name.replace("redis", "valkey"))
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install redis-tools")
    return found


class Files(BaseHTTPRequestHandler):
    """Answers a GET with 100 MiB, and a PUT with the digest of what came."""

    protocol_version = "HTTP/1.1"
    block = os.urandom(MIB)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(100 * MIB))
        self.end_headers()
        for _ in range(100):
            self.wfile.write(self.block)

    def do_PUT(self) -> None:
        came, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, MIB))
            came.update(data)
            left -= len(data)
        answer = came.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        pass


def test_http_down_and_up_with_100_mib(site: Site) -> None:
    whole = hashlib.sha256(Files.block * 100).hexdigest()
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with site.portal(f"127.0.0.1:{server.server_port}") as port:
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                client.request("GET", "/")
                answer, came = client.getresponse(), hashlib.sha256()
                while data := answer.read(MIB):
                    came.update(data)
                assert came.hexdigest() == whole
                client.request(
                    "PUT", "/", body=(Files.block for _ in range(100)), headers={"Content-Length": str(100 * MIB)}
                )
                assert client.getresponse().read().decode() == whole
                client.close()
        finally:
            server.shutdown()
            thread.join(PATIENCE)


async def test_two_hundred_streams_at_once_and_one_that_is_stalled_holds_up_no_other(site: Site) -> None:
    stalled, others = 4 * MIB, os.urandom(64 * 1024)

    async def echo(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                async for data in stream:
                    await stream.send_all(data)

    async def exchange(client: trio.SocketStream) -> None:
        async with client, trio.open_nursery() as sending:
            sending.start_soon(client.send_all, others)
            await receive(client, others)

    async def receive(client: trio.SocketStream, expected: bytes) -> None:
        came = bytearray()
        while len(came) < len(expected):
            data = await client.receive_some()
            assert data
            came += data
        assert bytes(came) == expected

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), echo, 0)
        manager = site.portal(f"127.0.0.1:{listener.socket.getsockname()[1]}")
        port = await trio.to_thread.run_sync(manager.__enter__)
        try:
            with trio.fail_after(4 * PATIENCE):
                slow = await trio.open_tcp_stream("127.0.0.1", port)
                async with trio.open_nursery() as sending:
                    sending.start_soon(slow.send_all, bytes(stalled))  # nobody reads the echo
                    clients = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(199)]
                    async with trio.open_nursery() as exchanging:
                        for client in clients:
                            exchanging.start_soon(exchange, client)
                    await receive(slow, bytes(stalled))
                await slow.aclose()
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(manager.__exit__, None, None, None)


@contextmanager
def benching(postgres: PostgresServer, port: int, seconds: int) -> Generator[subprocess.Popen[str]]:
    """A pgbench that runs, its data made before."""
    made = run(postgres, "pgbench", "-q", "-i", "-s", "1", port=port)
    assert made.returncode == 0, made.stderr
    with subprocess.Popen(
        [program("pgbench"), "-S", "-c", "4", "-T", str(seconds), "-P", "1"],
        env=postgres.environment(PGHOST="127.0.0.1", PGPORT=str(port)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as bench:
        try:
            assert bench.stderr is not None
            while "progress: " not in (line := bench.stderr.readline()):
                assert line, "pgbench has ended"
            yield bench
        finally:
            bench.kill()


def finished(bench: subprocess.Popen[str]) -> str:
    """What a pgbench reports that ended by itself."""
    report, errors = bench.communicate(timeout=4 * PATIENCE)
    assert bench.returncode == 0, errors
    assert "number of failed transactions: 0 (0.000%)" in report
    return report


def test_streams_survive_a_relay_that_is_killed_and_started_again(postgres: PostgresServer, tmp_path: Path) -> None:
    site, port = Site(tmp_path), free_port()
    with site.relay(port) as relay, site.portal(f"127.0.0.1:{postgres.port}") as inlet:
        with benching(postgres, inlet, 12) as bench:
            relay.kill()
            with site.relay(port):
                report = finished(bench)
                assert psql(postgres, "select 1", inlet) == "1"
        assert transactions(report) > 4


def test_streams_survive_one_of_two_relays(postgres: PostgresServer, tmp_path: Path) -> None:
    site = Site(tmp_path)
    with (
        site.relay() as first,
        site.relay(),
        site.portal(f"127.0.0.1:{postgres.port}") as inlet,
        benching(postgres, inlet, 10) as bench,
    ):
        first.kill()
        finished(bench)


@contextmanager
def connected(postgres: PostgresServer, site: Site) -> Generator[tuple[Process, socket.socket]]:
    """An outlet of its own, and a client that has had an answer through it."""
    with (
        site.outlet(f"127.0.0.1:{postgres.port}") as (outlet, address),
        site.inlet(address) as (_, place),
        connect(place) as client,
    ):
        client.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # asks whether the server speaks TLS
        assert client.recv(1) == b"S"
        yield outlet, client


def connect(place: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(place.rpartition(":")[2])), PATIENCE)


def test_a_client_sees_a_reset_once_a_killed_outlet_is_missed(postgres: PostgresServer, site: Site) -> None:
    with connected(postgres, site) as (outlet, client):
        outlet.kill()
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert time.monotonic() - began < 2 * LOST_WITHIN


def test_a_client_sees_a_reset_at_once_when_the_outlet_stops(postgres: PostgresServer, site: Site) -> None:
    with connected(postgres, site) as (outlet, client):
        outlet.signal(signal.SIGTERM)
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert time.monotonic() - began < LOST_WITHIN / 2


def test_a_server_that_is_not_there_is_a_reset_and_the_log_says_so(site: Site) -> None:
    with site.outlet(f"127.0.0.1:{free_port()}") as (outlet, address), site.inlet(address) as (inlet, place):
        with connect(place) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        inlet.wait_line("the outlet's target refused the connection")
        outlet.wait_line("target not reached")
