"""The reference that others know: nats-server in a process of its own, and nats-py in an environment of its own."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click
from attrs import frozen

from benchmarks import against
from benchmarks.measure import Result, Row, WrongResultError
from benchmarks.processes import ROOT, running

REQUIREMENT: Final = "nats-py==2.16.0"


@frozen
class Server:
    """A server that runs, or why none does."""

    url: str = ""
    python: str = sys.executable
    missing: str = ""

    def rate(self, workload: str, number: int) -> float:
        """Run a workload of the client's script; return how many there are in a second, and nothing without a server.

        Raises:
            WrongResultError: the script failed, or lost a message.
        """
        if self.missing:
            return 0.0
        environment = {**os.environ, "NATS_URL": self.url, "PYTHONPATH": str(ROOT)}
        script = ROOT / "benchmarks" / "peers" / "nats_client.py"
        done = subprocess.run(  # noqa: S603 - this package's own script
            [self.python, str(script), workload, str(number)],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise WrongResultError(f"NATS {workload}: {done.stderr.strip()}")
        return number / float(json.loads(done.stdout)["seconds"])

    def result(self, row: Row, value: float, reference: float) -> Result:
        """Return a row with the reference; one without it, where there is no server, informs only."""
        if self.missing:
            return Result(Row(f"{row.workload} ({self.missing})", row.unit), value)
        return Result(row, value, reference)


@contextmanager
def server() -> Generator[Server]:
    """Start a server where one is installed, and install its client."""
    program = shutil.which("nats-server")
    if program is None:
        click.echo("nats-server is not on the PATH: left out", err=True)
        yield Server(missing="nats-server is not installed")
        return
    try:
        python = against.install(REQUIREMENT, against.cache())
    except against.NotInstalledError as error:
        click.echo(f"nats-py {error}", err=True)
        yield Server(missing="nats-py is not installed")
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with running([program, "-a", "127.0.0.1", "-p", str(port)]):
        _wait_listening(port)
        yield Server(f"nats://127.0.0.1:{port}", str(python))


def _wait_listening(port: int) -> None:
    for _ in range(1000):
        with socket.socket() as probe:
            probe.settimeout(0.01)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise WrongResultError("nats-server does not listen")
