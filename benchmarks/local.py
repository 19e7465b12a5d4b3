"""The local table: each workload beside raw trio in the same process, memory in processes of its own."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import attrs
import trio

from benchmarks import agents, raw, resident, workloads
from benchmarks.measure import Result, Row, interleave

MILLION: Final = 1_000_000
GIB: Final = 2**30

Measure = Callable[..., Awaitable[float]]


@attrs.frozen
class Size:
    """How much of a workload there is."""

    full: float
    quick: float

    def times(self, scale: float, *, quick: bool, least: int) -> int:
        """Return the number to run, a multiple of `least`."""
        return max(least, round((self.quick if quick else self.full) * scale) // least * least)


@attrs.frozen
class Work:
    """A workload that is timed on both sides."""

    row: Row
    ours: Measure
    raw: Measure
    size: Size
    askers: int | None = None
    each: int = 1
    """How many of the row's unit one of `size` is."""

    def measure(self, repetitions: int, scale: float, *, quick: bool) -> Result:
        """Run both sides in turn."""
        number = self.size.times(scale, quick=quick, least=self.askers or 1)
        arguments = (number,) if self.askers is None else (number, self.askers)

        def rate(side: Measure) -> Callable[[], float]:
            return lambda: number * self.each / trio.run(side, *arguments)

        value, reference = interleave(repetitions, rate(self.ours), rate(self.raw))
        return Result(self.row, value, reference)


WORKS: Final = (
    Work(
        Row("count: tells to one agent", "messages/s", least=4, aim=6),
        agents.count,
        raw.count,
        Size(MILLION, 50_000),
    ),
    Work(
        Row("ask, one at a time, async handler", "asks/s", least=1.2, aim=1.6),
        agents.ask,
        raw.ask,
        Size(50_000, 5_000),
        askers=1,
    ),
    Work(
        Row("ask, 100 at once, async handler", "asks/s", least=2.5, aim=4),
        agents.ask,
        raw.ask,
        Size(100_000, 10_000),
        askers=100,
    ),
    Work(
        Row("ask, plain def handler, idle agent", "asks/s", least=5, aim=20),
        agents.ask_plain,
        raw.ask,
        Size(50_000, 5_000),
        askers=1,
    ),
    Work(
        Row("ring of 100", "hops/s", least=1, aim=1.3),
        agents.ring,
        raw.ring,
        Size(100_000, 10_000),
    ),
    Work(
        Row("big 120 x 200", "messages/s", least=1.2, aim=2),
        agents.big,
        raw.big,
        Size(200, 50),
        each=2 * workloads.BIG,
    ),
    Work(
        Row("create an agent, tell it one message", "agents/s", least=0.5, aim=0.9),
        agents.create,
        raw.create,
        Size(100_000, 5_000),
    ),
    Work(
        Row("idle agents started", "agents/s", "value at least", least=300_000, aim=MILLION),
        agents.start,
        raw.start,
        Size(100_000, 10_000),
    ),
)

BYTES: Final = Row("bytes of an idle agent, 1 M live", "bytes", "value at most", least=400, aim=256)
RESIDENT: Final = Row("1 M idle agents resident", "GiB", "value at most", least=0.5, aim=0.3)
TEN_MILLION: Final = Row("10 M idle agents resident", "GiB", "value at most", least=4, aim=2.5)
LEAST_LIVE: Final = 20_000
"""Agents below which a process need not grow to hold them: it had the memory already."""
LATENESS: Final = Row("timer lateness under a flood, p99", "ms", "value at most", least=5, aim=1)


def run(*, quick: bool, scale: float = 1.0, ten_million: bool = False) -> Iterator[Result]:
    """Measure each row in turn.

    Args:
        quick: whether to run small counts with few repetitions.
        scale: what every count is multiplied by.
        ten_million: whether to hold ten million agents too.

    Raises:
        WrongResultError: a workload lost or doubled something.
    """
    repetitions = 3 if quick else 5
    for work in WORKS:
        yield work.measure(repetitions, scale, quick=quick)
    yield from _memory(max(LEAST_LIVE, round(MILLION * scale)))
    if ten_million:
        yield Result(TEN_MILLION, resident.measure("agents", round(10 * MILLION * scale)).whole / GIB)
    yield _lateness(repetitions, max(50 * workloads.PERIOD, (0.5 if quick else 2) * scale))


def _memory(number: int) -> Iterator[Result]:
    if not resident.is_measurable():
        missing = "this system has no /proc/self/statm"
        yield from (Result(BYTES, missing=missing), Result(RESIDENT, missing=missing))
        return
    ours, tasks = resident.measure("agents", number), resident.measure("raw", number // 10)
    yield Result(BYTES, ours.each, tasks.each)
    yield Result(RESIDENT, ours.whole / GIB)


def _lateness(repetitions: int, seconds: float) -> Result:
    def p99(side: Measure) -> Callable[[], float]:
        return lambda: trio.run(side, seconds)

    value, reference = interleave(repetitions, p99(agents.flood), p99(raw.flood))
    return Result(LATENESS, value, reference)
