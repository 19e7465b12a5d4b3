"""The portal table: bytes through an inlet, a relay and an outlet, beside three plain proxies and others' tunnels."""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks import tunnels
from benchmarks.measure import Result, Row, WrongResultError, check
from benchmarks.network import own_relay
from benchmarks.processes import Running, running
from benchmarks.tunnels import LOCAL, Way

MIB: Final = 1024 * 1024
UPLOADED: Final = 32 * MIB
"""Bytes of an upload of a quick run; this and the next are four times as many in a full one."""
REQUESTS: Final = 20_000
CLIENTS: Final = 50
PATIENCE: Final = 120.0
"""Seconds that any one measurement may take."""

CHAIN: Final = Row("portal: upload, against a chain of three plain trio proxies", "MiB/s", least=0.45, aim=0.6)
SSH: Final = Row("portal: upload, against ssh -L", "MiB/s", least=0.45, aim=0.6)
STUNNEL: Final = Row("portal: upload, against two stunnels", "MiB/s")
CPU: Final = Row("portal: CPU of its three processes for 1 GiB up, against the chain's", "s")
SSH_CPU: Final = Row("portal: CPU of its three processes for 1 GiB up, against ssh's and sshd's", "s")
GETS: Final = Row("portal: redis-benchmark -c 50 GET, against that chain", "requests/s", least=0.8, aim=1)


@frozen
class Upload:
    """One upload: how fast it was, and what it took."""

    rate: float
    """MiB a second."""
    cpu: float
    """Seconds a GiB of the processes between."""


def run(*, quick: bool) -> Iterator[Result]:
    """Measure each row.

    Args:
        quick: whether to run small counts with few repetitions.

    Raises:
        WrongResultError: a byte was lost, or a process does not come up.
    """
    repetitions, scale = (3, 1) if quick else (5, 4)
    yield from uploads(repetitions, scale * UPLOADED)
    yield gets(repetitions, scale * REQUESTS)


def uploads(repetitions: int, size: int) -> Iterator[Result]:
    """Upload to a sink through each way in turn."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = stack.enter_context(_end("sink"))
        port = int(target.line())
        ways = {
            "portal": stack.enter_context(portal(port)),
            "chain": stack.enter_context(chain(port)),
            "ssh": stack.enter_context(tunnels.ssh(port, folder)),
            "stunnel": stack.enter_context(tunnels.stunnel(port, folder)),
        }
        taken = [{name: upload(way, size) for name, way in ways.items()} for _ in range(repetitions)]

    def median(name: str, of: Callable[[Upload], float]) -> float:
        return statistics.median(of(each[name]) for each in taken)

    def beside(row: Row, name: str, of: Callable[[Upload], float]) -> Result:
        missing = ways[name].missing
        if missing:
            return Result(Row(f"{row.workload} ({missing})", row.unit), median("portal", of))
        return Result(row, median("portal", of), median(name, of))

    yield beside(CHAIN, "chain", lambda each: each.rate)
    yield beside(SSH, "ssh", lambda each: each.rate)
    yield beside(STUNNEL, "stunnel", lambda each: each.rate)
    yield beside(CPU, "chain", lambda each: each.cpu)
    yield beside(SSH_CPU, "ssh", lambda each: each.cpu)


def upload(way: Way, size: int) -> Upload:
    """Upload so many bytes, and wait until the sink has said how many came.

    Raises:
        WrongResultError: they are not all.
    """
    if way.missing:
        return Upload(0.0, 0.0)
    block = bytes(MIB)
    cpu, start = way.cpu_seconds(), time.perf_counter()
    with socket.create_connection((LOCAL, way.port), PATIENCE) as connection:
        for _ in range(size // MIB):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(8, socket.MSG_WAITALL)
    seconds = time.perf_counter() - start
    check("bytes uploaded", int.from_bytes(answer, "big"), size)
    return Upload(size / MIB / seconds, (way.cpu_seconds() - cpu) / (size / MIB / 1024))


def gets(repetitions: int, requests: int) -> Result:
    """Have redis-benchmark ask a Redis server through a portal and through the chain, in turn."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    client = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if server is None or client is None:
        return Result(GETS, missing="redis-server and redis-benchmark are not installed")
    with ExitStack() as stack:
        port = tunnels.free_port()
        stack.enter_context(running([server, "--port", str(port), "--bind", LOCAL, "--save", ""]))
        tunnels.wait_listening(port)
        ways = [stack.enter_context(portal(port)), stack.enter_context(chain(port))]
        taken = [[_gets(client, way.port, requests) for way in ways] for _ in range(repetitions)]
    value, reference = (statistics.median(each) for each in zip(*taken, strict=True))
    return Result(GETS, value, reference)


def _gets(client: str, port: int, requests: int) -> float:
    command = [client, "-h", LOCAL, "-p", str(port), "-c", str(CLIENTS), "-n", str(requests), "-t", "get", "--csv"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False)  # noqa: S603
    if done.returncode or '"GET"' not in done.stdout:
        raise WrongResultError(f"redis-benchmark: {(done.stderr or done.stdout).strip()}")
    return float(done.stdout.rpartition('"GET","')[2].partition('"')[0])


@contextmanager
def portal(target: int) -> Generator[Way]:
    """Lead to a port by an inlet, a relay and an outlet, each a process, as users run them."""
    with (
        own_relay() as (relay, url),
        _end("outlet", url, str(target)) as outlet,
        _end("inlet", url, outlet.line()) as inlet,
    ):
        yield Way(int(inlet.line()), (inlet, relay, outlet))


@contextmanager
def chain(target: int) -> Generator[Way]:
    """Lead to a port by three plain proxies, each a process."""
    with _end("proxy", str(target)) as last:
        port = last.line()
        with _end("proxy", port) as middle:
            port = middle.line()
            with _end("proxy", port) as first:
                yield Way(int(first.line()), (first, middle, last))


@contextmanager
def _end(*arguments: str) -> Generator[Running]:
    with running([sys.executable, "-m", "benchmarks.ends", *arguments]) as process:
        yield process
