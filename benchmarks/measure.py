"""How rows are timed, judged, printed and written."""

import gc
import json
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import attrs

NOISE: Final = 2.0
"""How far a row of a quick run may miss: its counts are small, and CI's machine is shared."""


class WrongResultError(Exception):
    """A workload ended with another sum or count than it was given: its time means nothing."""


def check(what: str, actual: float, expected: float) -> None:
    """Compare what a workload yielded with what it must.

    Raises:
        WrongResultError: they differ.
    """
    if actual != expected:
        raise WrongResultError(f"{what}: {actual:,} instead of {expected:,}")


@attrs.define
class Stopwatch:
    """The CPU time of this process in a block, in seconds; read after the block."""

    seconds: float = 0.0


@contextmanager
def cpu_time() -> Generator[Stopwatch]:
    """Time a block right after a garbage collection; the collector stays on, as it is for users."""
    gc.collect()
    watch = Stopwatch()
    start = time.process_time()
    yield watch
    watch.seconds = time.process_time() - start


@attrs.frozen
class Row:
    """One line of the table, and what it must reach.

    `judged` says what `least` and `aim` are compared with: the ``ratio`` to the reference, which must be at least that,
    or the ``value``, at least or at most. Without a `least` the row informs only.
    """

    workload: str
    unit: str
    judged: Literal["ratio", "value at least", "value at most"] = "ratio"
    least: float | None = None
    aim: float | None = None


@attrs.frozen
class Result:
    """A row that was measured, or why it could not be."""

    row: Row
    value: float | None = None
    reference: float | None = None
    """The same unit as `value`; None where nothing comparable exists."""
    missing: str = ""

    @property
    def ratio(self) -> float | None:
        """Value to reference."""
        return None if self.value is None or self.reference is None else self.value / self.reference

    def reaches_least(self, slack: float = 1.0) -> bool:
        """Tell whether the row is no worse than its least, or than `slack` times worse."""
        if self.missing:
            return False
        if self.row.least is None:
            return True
        judged = self.ratio if self.row.judged == "ratio" else self.value
        if judged is None:
            return False
        if self.row.judged == "value at most":
            return judged <= self.row.least * slack
        return judged >= self.row.least / slack


def interleave(repetitions: int, *measures: Callable[[], float]) -> list[float]:
    """Return the median of each measure, taken in turn so that a machine that slows down slows all of them."""
    taken = [[measure() for measure in measures] for _ in range(repetitions)]
    return [statistics.median(each) for each in zip(*taken, strict=True)]


def report(results: Sequence[Result], file: Path | None) -> str:
    """Return the table as Markdown, and write the results to a file as JSON where one is given."""
    if file is not None:
        file.write_text(
            json.dumps({each.row.workload: _values(each) for each in results}, indent=2) + "\n", encoding="utf-8"
        )
    lines = [
        "| workload | value | unit | reference | ratio | least | aim | reached |",
        "|---|--:|---|--:|--:|--:|--:|---|",
        *map(_line, results),
    ]
    return "\n".join(lines)


def fails(results: Sequence[Result], *, quick: bool) -> bool:
    """Tell whether a row is worse than its least; in a quick run, than half as good."""
    return not all(each.reaches_least(NOISE if quick else 1.0) for each in results)


def _values(result: Result) -> dict[str, float | str | None]:
    values: dict[str, float | str | None] = {
        "value": result.value,
        "unit": result.row.unit,
        "reference": result.reference,
        "ratio": result.ratio,
    }
    return values | {"missing": result.missing} if result.missing else values


def _line(result: Result) -> str:
    row = result.row
    reached = "" if row.least is None else "yes" if result.reaches_least() else "no"
    ratio = "-" if result.ratio is None else f"{_number(result.ratio)}x"
    cells = [
        row.workload,
        _number(result.value),
        row.unit,
        _number(result.reference),
        ratio,
        _bound(row, row.least),
        _bound(row, row.aim),
        f"missing: {result.missing}" if result.missing else reached,
    ]
    return f"| {' | '.join(cells)} |"


def _bound(row: Row, bound: float | None) -> str:
    if bound is None:
        return "-"
    if row.judged == "ratio":
        return f"{_number(bound)}x"
    return f"{'≤' if row.judged == 'value at most' else '≥'} {_number(bound)}"


def _number(value: float | None) -> str:
    """Print three significant digits, and whole thousands."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - where three digits are whole
