"""Processes that tests start as a user would, and end whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

ROOT: Final = Path(__file__).parents[2]

PATIENCE: Final = 60.0
"""Seconds that any one wait may take: far more than it needs, for a machine may be busy."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """A user's environment whose home folder is `home`, with this repository importable from anywhere."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AUTONOMY_", "XDG_"))}
    interpreter = str(Path(sys.executable).parent)
    return {
        **inherited,
        "HOME": str(home),
        "PATH": f"{interpreter}{os.pathsep}{inherited['PATH']}",
        "PYTHONPATH": str(ROOT),
        **more,
    }


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """``python -m autonomy_trio …``, with its output read as it comes."""

    def __init__(self, *arguments: str, env: Mapping[str, str], cwd: Path = ROOT) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "autonomy_trio", *arguments],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self._changed = threading.Condition()
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        self._open_streams = len(self._lines)
        streams = {"out": self._process.stdout, "err": self._process.stderr}
        self._readers = [
            threading.Thread(target=self._read, args=(stream, self._lines[name]), daemon=True)
            for name, stream in streams.items()
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()

    @property
    def out(self) -> str:
        """What it has written to standard output."""
        return "".join(self._lines["out"])

    @property
    def err(self) -> str:
        """What it has written to standard error."""
        return "".join(self._lines["err"])

    def wait_line(self, part: str, *, times: int = 1) -> str:
        """Return the line of either stream that has `part` in it, once there are so many."""

        def found() -> list[str]:
            return [line for lines in self._lines.values() for line in lines if part in line]

        with self._changed:
            seen = self._changed.wait_for(lambda: len(found()) >= times or not self._open_streams, PATIENCE)
            assert seen, f"no line with {part!r} in {PATIENCE:g} s: {self.out}{self.err}"
            assert len(found()) >= times, f"ended without a line with {part!r}: {self.out}{self.err}"
            return found()[-1].rstrip("\n")

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would (kill -9)."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def wait(self) -> int:
        """Return the exit code, once it has ended and all it wrote was read."""
        code = self._process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        return code

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()


def run_once(*arguments: str, env: Mapping[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ``python -m autonomy_trio …`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "autonomy_trio", *arguments],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def serving_node(*arguments: str, env: Mapping[str, str], cwd: Path = ROOT) -> Generator[tuple[Process, str]]:
    """A ``run`` that serves, and the address of its agent ``counter``."""
    with Process("run", *arguments, env=env, cwd=cwd) as node:
        yield node, node.wait_line("/counter")
