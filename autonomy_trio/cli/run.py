"""``run``: host agents."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import trio

from autonomy_trio.actors.spec import Spec
from autonomy_trio.cli.options import FILE, credential_option, home_option, relay_option, run_trio
from autonomy_trio.cli.signals import stoppable
from autonomy_trio.cli.target import load_agents
from autonomy_trio.fabric.addresses import ListenAddress
from autonomy_trio.fabric.node import ANCHORS_FILE, Node, check_agents, open_node
from autonomy_trio.trust.policy import Policies

DEFAULT_LISTEN = "127.0.0.1:4000"


@click.command()
@click.argument("target")
@relay_option
@click.option(
    "--listen",
    metavar="ADDR",
    help=f"HOST:PORT for a relay in this process. Without this and --relay: {DEFAULT_LISTEN}, or a free port.",
)
@home_option
@click.option(
    "--anchors",
    type=FILE,
    metavar="FILE",
    help="The authorities to trust, in place of the home's 'anchors.toml'. Without either: this home alone.",
)
@credential_option
@click.option("--check", is_flag=True, help="Check declarations and policies, list what can be reached, and end.")
def run(  # noqa: PLR0913, PLR0917 - the options of the command
    target: str,
    relays: tuple[str, ...],
    listen: str | None,
    home: Path,
    anchors: Path | None,
    credentials: tuple[Path, ...],
    check: bool,
) -> None:
    """Host the agents of TARGET, MODULE:ATTRIBUTE, until Ctrl-C.

    The first Ctrl-C or SIGTERM lets the agents finish what they have; a second one stops at once.
    """
    agents = load_agents(target)
    if check:
        click.echo("\n".join(_table(*check_agents(agents, anchors if anchors is not None else _anchors_of(home)))))
        return

    listen_on = _listen(relays, listen)

    async def main() -> None:
        opened = open_node(agents, relay=relays, listen=listen_on, home=home, anchors=anchors, credentials=credentials)
        async with stoppable() as stop, opened as node:
            click.echo("\n".join(_first_screen(node, embedded=listen_on is not None)))
            await _until(stop, node)
            click.echo("stopping: the agents finish what they have; once more to stop at once", err=True)

    run_trio(main)
    click.echo("stopped", err=True)


async def _until(stop: trio.Event, node: Node) -> None:
    """Return when a stop is asked for; raise when no agent is left."""
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await node.serve_forever()

        nursery.start_soon(serve)
        await stop.wait()
        nursery.cancel_scope.cancel()


def _listen(relays: tuple[str, ...], listen: str | None) -> str | None:
    """Return where to listen: as asked, and with nothing asked at the usual port of this machine or a free one."""
    if listen is not None or relays:
        return listen
    usual = ListenAddress.parse(DEFAULT_LISTEN)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((usual.host, usual.port))
        except OSError:
            return str(ListenAddress(usual.host, 0))
    return DEFAULT_LISTEN


def _anchors_of(home: Path) -> Path | None:
    """Return the home's anchors file, if it has one."""
    file = home / ANCHORS_FILE
    return file if file.exists() else None


def _first_screen(node: Node, *, embedded: bool) -> Iterator[str]:
    yield f"node  {node.identifier}"
    for number, relay in enumerate(node.relays):
        yield f"relay {relay}{', in this process' if embedded and number == 0 else ''}"
    yield ""
    yield from _table({node.address(name): spec for name, spec in node.agents().items()}, node.policies)


def _table(agents: Mapping[str, Spec], policies: Policies) -> Iterator[str]:
    """List each agent, what it handles, and who can reach that from another node."""
    conditions = {(agent, action): allow for agent, action, allow in policies.reachable()}
    for name, spec in agents.items():
        yield name
        for action in sorted(spec.wire_table()):
            allow = conditions.get((spec.agent, action))
            yield f"  {action}: {'from this node only' if allow is None else f'from other nodes if {allow}'}"
        yield ""
