"""Processes beside the one that measures: started, asked for their CPU time and memory, and ended."""

import os
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import attrs

ROOT: Final = Path(__file__).parents[1]


@attrs.frozen
class Running:
    """A process that runs."""

    pid: int
    _output: IO[str]

    def line(self) -> str:
        """Return the next line that it writes."""
        return self._output.readline().strip()

    def cpu_seconds(self) -> float:
        """Return the CPU time it has taken so far."""
        # The clock of another process, as clock_getcpuclockid(3) makes it of an id on Linux.
        return time.clock_gettime((~self.pid << 3) | 2)

    def resident(self) -> int:
        """Return the bytes it has resident."""
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(command: Sequence[str]) -> Generator[Running]:
    """Run a command for the length of a block; what it writes after the lines that are read must be little."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(  # noqa: S603 - the commands are the benchmarks' own
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            yield Running(process.pid, process.stdout)
        finally:
            process.terminate()
