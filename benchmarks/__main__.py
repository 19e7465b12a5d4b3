"""``python -m benchmarks local|crypto|network|portal|store|losses|peers``: a table each, and with ``--json`` a file."""

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from benchmarks import against, crypto, local, losses, network, portal, store
from benchmarks.measure import Result, fails, report

quick_option = click.option("--quick", is_flag=True, help="Small counts; a row fails only below half of its least.")
json_option = click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write results to.")


@click.group()
def main() -> None:
    """Measure autonomy_trio beside its references; exit with 1 where a row does not reach its least."""


@main.command("local")
@quick_option
@json_option
@click.option("--ten-million", is_flag=True, help="Hold ten million idle agents too; takes up to 8 GiB.")
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Multiply every count by this.")
def run_local(*, quick: bool, file: Path | None, ten_million: bool, scale: float) -> None:
    """Run the local workloads beside raw trio in this process."""
    finish(local.run(quick=quick, scale=scale, ten_million=ten_million), file, quick=quick)


@main.command("crypto")
@quick_option
@json_option
def run_crypto(*, quick: bool, file: Path | None) -> None:
    """Run handshakes, envelopes and policies beside the bare operations they are made of."""
    finish(crypto.run(quick=quick), file, quick=quick)


@main.command("store")
@quick_option
@json_option
def run_store(*, quick: bool, file: Path | None) -> None:
    """Store envelopes in SQLite, each commit flushed, and hand them over."""
    finish(store.run(quick=quick), file, quick=quick)


@main.command("losses")
@quick_option
@json_option
def run_losses(*, quick: bool, file: Path | None) -> None:
    """Send durable messages at a rate while relays are killed; one that is lost or handled twice ends it."""
    finish(losses.run(quick=quick), file, quick=quick)


@main.command("network")
@quick_option
@json_option
def run_network(*, quick: bool, file: Path | None) -> None:
    """Run nodes at a relay beside NATS, where it is installed, and raw trio, each relay in a process of its own."""
    finish(network.run(quick=quick), file, quick=quick)


@main.command("portal")
@quick_option
@json_option
def run_portal(*, quick: bool, file: Path | None) -> None:
    """Send bytes through a portal beside three plain proxies, ssh and stunnel, each part in a process of its own."""
    finish(portal.run(quick=quick), file, quick=quick)


@main.command("peers")
@quick_option
@json_option
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), help="Where the peers' environments are.")
def run_peers(*, quick: bool, file: Path | None, into: Path | None) -> None:
    """Run count and ask beside other actor libraries, each installed into an environment of its own."""
    finish(against.run(against.cache() if into is None else into, quick=quick), file, quick=quick)


def finish(measured: Iterable[Result], file: Path | None, *, quick: bool) -> None:
    """Name each row as it is measured, print the table, and exit."""
    results: list[Result] = []
    for result in measured:
        results.append(result)
        click.echo(f"measured {result.row.workload}", err=True)
    click.echo(report(results, file))
    sys.exit(fails(results, quick=quick))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
