"""The network table: two nodes at a relay of its own process, beside NATS and beside raw trio with the same crypto."""

import statistics
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from benchmarks import linked, nats, neighbours, wires
from benchmarks.measure import Result, Row, interleave
from benchmarks.processes import Running, running

ASKERS: Final = 256
TOLD: Final = 10_000
"""Messages told in a quick run; this and the next are four times as many in a full one."""
ASKED: Final = 10 * ASKERS
ASKED_SINGLY: Final = 250
PACKETS: Final = 2000
IDLE: Final = 200
"""Connections whose memory is measured; a relay takes so many at once from one address."""
KIB: Final = 1024

NATS_ONE_WAY: Final = Row("one-way, against nats-server and nats-py in plaintext", "messages/s", least=0.6, aim=1)
RAW_ONE_WAY: Final = Row("one-way, against raw trio TCP with the same crypto", "messages/s", least=0.6, aim=0.8)
BULK: Final = Row("one-way, against batches made by hand over raw trio TCP with the same crypto", "messages/s")
BATCHED: Final = Row("batched, against one message per envelope", "messages/s", least=12, aim=15)
NATS_ASK: Final = Row("ask, 256 at once, against NATS request and reply", "asks/s", least=1, aim=1.5)
ONE_ASK: Final = Row("ask, one at a time, against an echo over raw trio TCP", "asks/s", least=1 / 2.5, aim=1 / 1.8)
SEALED_ASK: Final = Row("ask, one at a time, against such an echo signed and encrypted both ways", "asks/s")
FRAMES: Final = Row("relay: 16 KiB frames for a second of CPU", "frames/s", least=1 / 2.5, aim=1 / 1.6)
IDLE_BYTES: Final = Row("relay: memory of an idle connection", "KiB", "value at most", least=24, aim=12)
SLOW: Final = Row("relay: memory for a slow reader, 10,000 packets undelivered", "MiB", "value at most", least=8, aim=6)


@frozen
class Around:
    """The processes around the one that measures."""

    relay: Running
    url: str
    forwarder: Running
    port: int


def run(*, quick: bool) -> Iterator[Result]:
    """Measure each row in turn.

    Args:
        quick: whether to run small counts with few repetitions.

    Raises:
        WrongResultError: a message was lost.
    """
    repetitions, scale = (3, 1) if quick else (5, 4)
    with around() as processes, nats.server() as server:
        yield from messages(processes, server, repetitions, scale)
        value, reference = interleave(
            repetitions,
            lambda: trio.run(neighbours.frames, processes.url, processes.relay, PACKETS * scale),
            lambda: trio.run(wires.frames, processes.port, processes.forwarder, PACKETS * scale),
        )
        yield Result(FRAMES, value, reference)
    yield memory(IDLE_BYTES, repetitions, lambda relay, url: trio.run(neighbours.idle, url, relay, IDLE) / KIB)
    yield memory(SLOW, repetitions, lambda relay, url: trio.run(neighbours.unread, url, relay) / KIB / KIB)


def messages(processes: Around, server: nats.Server, repetitions: int, scale: int) -> Iterator[Result]:
    """Measure what users send: tells and asks."""
    url, port = processes.url, processes.port
    count, asks = TOLD * scale, ASKED * scale
    value, raw, bulk, theirs, single = interleave(
        repetitions,
        lambda: trio.run(linked.one_way, url, count),
        lambda: trio.run(wires.one_way, port, count),
        lambda: trio.run(wires.in_bulk, port, count),
        lambda: server.rate("one_way", count),
        lambda: trio.run(linked.one_way_singly, url, count // 20),
    )
    yield server.result(NATS_ONE_WAY, value, theirs)
    yield Result(RAW_ONE_WAY, value, raw)
    yield Result(BULK, value, bulk)
    yield Result(BATCHED, value, single)
    value, theirs = interleave(
        repetitions,
        lambda: trio.run(linked.ask, url, asks, ASKERS),
        lambda: server.rate("ask", asks),
    )
    yield server.result(NATS_ASK, value, theirs)
    value, raw, sealed = interleave(
        repetitions,
        lambda: trio.run(linked.median_ask, url, ASKED_SINGLY * scale),
        lambda: trio.run(wires.median_echo, port, ASKED_SINGLY * scale),
        lambda: trio.run(partial(wires.median_echo, sealed=True), port, ASKED_SINGLY * scale),
    )
    yield Result(ONE_ASK, value, raw)
    yield Result(SEALED_ASK, value, sealed)


@contextmanager
def around() -> Generator[Around]:
    """Start a relay and a raw forwarder, each in a process of its own."""
    with own_relay() as (relay, url), running([sys.executable, "-m", "benchmarks.forwarder"]) as forwarder:
        yield Around(relay, url, forwarder, int(forwarder.line()))


@contextmanager
def own_relay() -> Generator[tuple[Running, str]]:
    """Start a relay as a user does."""
    with tempfile.TemporaryDirectory() as home:
        options = ("relay", "--listen", "127.0.0.1:0", "--home", str(Path(home) / "relay"))
        with running([sys.executable, "-m", "autonomy_trio", *options]) as relay:
            yield relay, relay.line().removeprefix("relay ")


def memory(row: Row, repetitions: int, measure: Callable[[Running, str], float]) -> Result:
    """Measure memory, each time at a relay that has done nothing before."""
    measured: list[float] = []
    for _ in range(repetitions):
        with own_relay() as (relay, url):
            measured.append(measure(relay, url))
    return Result(row, statistics.median(measured))
