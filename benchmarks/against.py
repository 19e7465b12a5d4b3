"""The peers' table: count and ask beside other actor libraries, each in a process of its own that verifies its sums."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import click
import platformdirs

from benchmarks.measure import Result, Row, WrongResultError, interleave

SCRIPTS: Final = Path(__file__).parent / "peers"
ROOT: Final = SCRIPTS.parents[1]
FULL_TO_QUICK: Final = 10


class NotInstalledError(Exception):
    """A peer could not be installed."""


@attrs.frozen
class Peer:
    """A library to compare with."""

    name: str
    script: str
    counts: int
    """Messages of one run, so many that it takes about a second."""
    asks: int
    least: float | None = None
    """Of ours to theirs, in count; in ask a row informs only."""
    aim: float | None = None
    requirement: str | None = None
    """What is installed into its environment; without it the script runs on our interpreter, or its own."""
    prefix: str = ""
    """Of its workloads' names in the script."""


OURS: Final = Peer("autonomy_trio", "autonomy_agent.py", 500_000, 50_000)

PEERS: Final = (
    Peer("AutoGen Core", "autogen_agent.py", 10_000, 5_000, 50, 100, "autogen-core==0.7.5"),
    Peer("Pykka", "pykka_actor.py", 200_000, 20_000, 1.3, 2, "pykka==4.5.0"),
    Peer("xoscar", "xoscar_actor.py", 50_000, 20_000, 20, 30, "xoscar==0.12.2"),
    Peer("xoscar, local ref", "xoscar_actor.py", 100_000, 50_000, requirement="xoscar==0.12.2", prefix="local_"),
    Peer("Thespian", "thespian_actor.py", 200_000, 100_000, 2.5, 4, "thespian==4.0.1"),
    Peer("an asyncio.Queue actor", "asyncio_actor.py", 1_000_000, 100_000, 0.45, 0.8),
)

ERLANG: Final = Peer("Erlang/OTP", "erlang_process.escript", 5_000_000, 1_000_000)


def cache() -> Path:
    """Return where the peers' environments are kept from run to run."""
    return platformdirs.user_cache_path("autonomy-trio") / "peers"


def run(into: Path, *, quick: bool) -> Iterator[Result]:
    """Install the peers and measure each workload, ours and all of theirs in turn.

    Args:
        into: the folder of their environments; one that is complete is used as it is.
        quick: whether to run small counts with few repetitions.

    Raises:
        WrongResultError: a script, ours or a peer's, failed or lost a message.
    """
    commands: dict[Peer, list[str]] = {}
    missing: dict[Peer, str] = {}
    for peer in PEERS:
        try:
            commands[peer] = [str(install(peer.requirement, into)), str(SCRIPTS / peer.script)]
        except NotInstalledError as error:
            missing[peer] = str(error)
            click.echo(f"{peer.name} {error}", err=True)
    escript = shutil.which("escript")
    if escript is None:
        click.echo("Erlang is not on the PATH: left out", err=True)
    else:
        commands[ERLANG] = [escript, str(SCRIPTS / ERLANG.script)]
    yield from (Result(_row("count", peer), missing=why) for peer, why in missing.items())
    for workload in ("count", "ask"):
        yield from _measure(workload, commands, quick=quick)


def install(requirement: str | None, into: Path) -> Path:
    """Return the interpreter of a peer's environment, which is made where it is not complete.

    Raises:
        NotInstalledError: it cannot be made; the last line that pip wrote.
    """
    if requirement is None:
        return Path(sys.executable)
    environment = into / requirement
    python = environment / "bin" / "python"
    complete = environment / "complete"
    if not complete.exists():
        try:
            _quietly(sys.executable, "-m", "venv", "--clear", str(environment))
            _quietly(str(python), "-m", "pip", "install", "--quiet", requirement)
        except (OSError, subprocess.CalledProcessError) as error:
            lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
            raise NotInstalledError(f"cannot be installed: {lines[-1]}") from error
        complete.touch()
    return python


def run_script(command: list[str], workload: str, number: int) -> float:
    """Run one workload of a script and return its seconds.

    Raises:
        WrongResultError: it failed.
    """
    try:
        output = _quietly(*command, workload, str(number))
    except subprocess.CalledProcessError as error:
        raise WrongResultError(f"{Path(command[-1]).name} {workload}: {error.stderr.strip()}") from error
    return float(json.loads(output)["seconds"])


def _measure(workload: str, commands: dict[Peer, list[str]], *, quick: bool) -> Iterator[Result]:
    ours = [sys.executable, str(SCRIPTS / OURS.script)]

    def rate(peer: Peer, command: list[str]) -> Callable[[], float]:
        number = (peer.counts if workload == "count" else peer.asks) // (FULL_TO_QUICK if quick else 1)
        return lambda: number / run_script(command, peer.prefix + workload, number)

    rates = [rate(OURS, ours), *(rate(peer, command) for peer, command in commands.items())]
    value, *references = interleave(3 if quick else 5, *rates)
    for peer, reference in zip(commands, references, strict=True):
        yield Result(_row(workload, peer), value, reference)


def _row(workload: str, peer: Peer) -> Row:
    if workload == "count":
        return Row(f"count against {peer.name}", "messages/s", least=peer.least, aim=peer.aim)
    return Row(f"ask against {peer.name}", "asks/s")


def _quietly(*command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(  # noqa: S603 - the commands are this module's own
        command, check=True, capture_output=True, encoding="utf-8", env=environment
    ).stdout
