"""The table of losses: durable messages at a rate while relays are killed, as by a crash; none is lost or runs twice.

In a cluster one of two relays on a Redis is killed and stays away; with the SQLite store both are, and start again. The
Redis flushes each command to its disk before it answers (``appendfsync always``), as SQLite does each commit.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from autonomy_trio import AgentRef, open_node
from autonomy_trio.errors import NotStored
from benchmarks.measure import Result, Row, check
from benchmarks.processes import ROOT, running
from benchmarks.taker import Number, Taker

WAIT: Final = 60.0
"""Seconds that anything may take: to start, and to be handled at the end."""
MOST_UNDER_WAY: Final = 2000
"""Messages whose STORED is awaited at once."""
AWAY: Final = 1.0
"""Seconds before relays that were killed are started again."""

CLUSTER: Final = Row("stored, one of two relays of a cluster killed", "messages/s")
SQLITE: Final = Row("stored, both relays with SQLite killed and started again", "messages/s")
HANDLED: Final = Row("of these handled once each", "messages")
SLOWEST: Final = Row("longest until STORED", "s")


@attrs.define
class Losses:
    """What became of the messages of one run."""

    stored: list[int] = attrs.field(factory=list[int])
    refused: list[int] = attrs.field(factory=list[int])
    slowest: float = 0.0
    """Seconds, the longest until STORED."""
    seconds: float = 0.0
    """Until the last was stored or refused."""
    handled: Counter[int] = attrs.field(factory=Counter[int])

    def check(self) -> None:
        """Compare what was handled with what was stored.

        Raises:
            WrongResultError: something was lost, or ran twice.
        """
        check("stored and not handled", len(set(self.stored) - self.handled.keys()), 0)
        check("handled twice", sum(times > 1 for times in self.handled.values()), 0)


@attrs.define
class Relay:
    """A relay's process."""

    port: int
    home: Path
    store: str
    _process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it listens."""
        command = (sys.executable, "-m", "autonomy_trio", "relay", "--listen", f"127.0.0.1:{self.port}")
        self._process = subprocess.Popen(  # noqa: S603 - this package's own command
            [*command, "--home", str(self.home), "--store", self.store],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        check("relays that did not start", not self._process.stdout.readline().startswith("relay "), expected=False)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None  # noqa: S101 - it is a pipe
            self._process.stdout.close()
            self._process = None


@attrs.frozen
class Scene:
    """What is sent, and what happens meanwhile."""

    rate: float
    """Messages a second."""
    seconds: float
    relays: list[Relay]
    file: Path
    """Where the taker writes what it has handled."""
    all_die: bool
    """Whether both relays are killed, and come back; else one is, and stays away."""


def run(*, quick: bool) -> Iterator[Result]:
    """Run both scenes; the cluster needs a redis-server or valkey-server.

    Args:
        quick: whether to send 200 a second for 4 s, in place of 1,000 for 30 s.

    Raises:
        WrongResultError: a message that was stored was not handled, or one was handled twice.
    """
    rate, seconds = (200, 4.0) if quick else (1000, 30.0)
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        yield Result(attrs.evolve(CLUSTER, workload=f"{CLUSTER.workload} (no redis-server here)"), 0.0)
    for row, in_cluster in ((CLUSTER, True), (SQLITE, False)):
        if program is None and in_cluster:
            continue
        losses = measure(rate, seconds, program if in_cluster else None)
        losses.check()
        yield Result(row, len(losses.stored) / losses.seconds)
        yield Result(HANDLED, len(losses.handled))
        yield Result(SLOWEST, losses.slowest)


def measure(rate: float, seconds: float, redis: str | None) -> Losses:
    """Send so many messages a second for so long, and kill relays at the half of it.

    Args:
        rate: messages a second.
        seconds: how long.
        redis: the program of a server, for a cluster of which one relay is killed; None for SQLite and both.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
        place = Path(folder)
        if redis is None:
            stores = [f"sqlite:{place / name}" for name in ("one.sqlite3", "two.sqlite3")]
        else:
            stores = [ending.enter_context(redis_running(redis, place))] * 2
        relays = [Relay(free_port(), place / f"relay{number}", store) for number, store in enumerate(stores)]
        for relay in relays:
            ending.callback(relay.kill)
            relay.start()
        urls = [relay.url for relay in relays]
        file = place / "handled"
        file.touch()
        taker = ending.enter_context(
            running([sys.executable, "-m", "benchmarks.taker", str(place / "taker"), str(file), *urls])
        )
        scene = Scene(rate, seconds, relays, file, all_die=redis is None)
        return trio.run(_measure, scene, taker.line())


async def _measure(scene: Scene, address: str) -> Losses:
    losses = Losses()
    async with open_node(relay=[relay.url for relay in scene.relays]) as node:
        ref = node.ref(address, Taker)
        await ref.tell(Number(-1), durable=True)  # meets the node
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill, scene)
            await _send(ref, scene, losses)
        await trio.to_thread.run_sync(_wait_handled, losses, scene.file)
        losses.handled.pop(-1)
    return losses


async def _kill(scene: Scene) -> None:
    await trio.sleep(scene.seconds / 2)
    killed = scene.relays if scene.all_die else scene.relays[:1]
    for relay in killed:
        await trio.to_thread.run_sync(relay.kill)
    if scene.all_die:
        await trio.sleep(AWAY)
        for relay in killed:
            await trio.to_thread.run_sync(relay.start)


async def _send(ref: AgentRef[Taker], scene: Scene, losses: Losses) -> None:
    """Send at a rate, however long each takes; where too many are under way, later ones wait."""
    began = trio.current_time()
    room = trio.CapacityLimiter(MOST_UNDER_WAY)

    async def send(number: int) -> None:
        async with room:
            since = trio.current_time()
            try:
                await ref.tell(Number(number), durable=True)
            except NotStored:
                losses.refused.append(number)
            else:
                losses.stored.append(number)
                losses.slowest = max(losses.slowest, trio.current_time() - since)

    async with trio.open_nursery() as nursery:
        for number in range(int(scene.rate * scene.seconds)):
            await trio.sleep_until(began + number / scene.rate)
            nursery.start_soon(send, number)
    losses.seconds = trio.current_time() - began


def _wait_handled(losses: Losses, file: Path) -> None:
    """Wait for what was stored to be handled, and a moment longer for what may come twice."""
    until = time.monotonic() + WAIT
    while not _handled(file).keys() >= set(losses.stored) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1.0)
    losses.handled = _handled(file)


def _handled(file: Path) -> Counter[int]:
    return Counter(map(int, file.read_text(encoding="ascii").split()))


@contextmanager
def redis_running(program: str, folder: Path) -> Generator[str]:
    """Run a server that flushes each command, for the length of a block; what is yielded is its URL."""
    port = free_port()
    command = (program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
    server = subprocess.Popen(  # noqa: S603 - a program that is installed
        [*command, "--save", "", "--appendonly", "yes", "--appendfsync", "always"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + WAIT
        while not _listens(port):
            check("redis-server", time.monotonic() > until or server.poll() is not None, expected=False)
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
