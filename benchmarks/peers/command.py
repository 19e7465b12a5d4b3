"""What every peer's script does with its workloads: ``python SCRIPT.py WORKLOAD NUMBER`` prints the seconds as JSON."""

import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Stopwatch:
    """The seconds of a block."""

    seconds = 0.0


@contextmanager
def wall_time() -> Generator[Stopwatch]:
    """Time a block on the clock, since some peers work in threads of their own."""
    watch = Stopwatch()
    start = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - start


@contextmanager
def cpu_time() -> Generator[Stopwatch]:
    """Time a block in the CPU of this process, for who works in one thread beside another process."""
    watch = Stopwatch()
    start = time.process_time()
    yield watch
    watch.seconds = time.process_time() - start


def verify(actual: int, expected: int) -> None:
    """End the process where a peer lost or doubled a message."""
    if actual != expected:
        sys.exit(f"counted {actual} instead of {expected}")


def run(**workloads: Callable[[int], float]) -> None:
    """Run the workload that the command line names."""
    workload, number = sys.argv[1:]
    sys.stdout.write(json.dumps({"seconds": workloads[workload](int(number))}) + "\n")
