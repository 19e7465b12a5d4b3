"""``run``: host agents."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import trio

from autonomy_trio.cli.options import (
    anchors_of,
    anchors_option,
    credential_option,
    home_option,
    metrics_option,
    policy_option,
    relay_option,
    run_trio,
    store_option,
    telling,
)
from autonomy_trio.cli.output import debug_option, log_option, say
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.cli.screen import checked_screen, node_screen
from autonomy_trio.cli.signals import Stop, reload_at_hangup, stoppable
from autonomy_trio.cli.target import load_agents
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.metrics import node_report
from autonomy_trio.fabric.node import Node
from autonomy_trio.fabric.opening import check_agents, open_node

DEFAULT_LISTEN: Final = "127.0.0.1:4000"

STORE_FILE: Final = "mailboxes.sqlite3"
"""The file of a home in which the relay of a first try keeps what is sent to nodes that are away."""

_ARGUMENTS: Final = "autonomy_trio.run.arguments"


class _Run(click.Command):
    """Keeps its arguments as they were given, for the process that runs them again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = [*args]
        return super().parse_args(ctx, args)


@click.command(cls=_Run)
@click.argument("target")
@relay_option
@click.option(
    "--listen",
    metavar="ADDR",
    help="HOST:PORT for a relay in this process, tcp://HOST:PORT without websockets. Without this and --relay:"
    f" {DEFAULT_LISTEN}, or a free port.",
)
@home_option
@anchors_option
@policy_option
@click.option(
    "--audit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append a line of JSON to this file for each decision about what other nodes send.",
)
@credential_option
@store_option
@click.option(
    "--publish",
    multiple=True,
    metavar="NAME",
    help="Let this agent be found at the relays, by its name, the messages it takes, and this home's credentials, which"
    " whoever is registered there can read then. Repeatable.",
)
@metrics_option
@click.option("--check", is_flag=True, help="Check declarations and policies, list what can be reached, and end.")
@click.option("--reload", is_flag=True, help="Start again when a .py file in or below the working folder changes.")
@click.option("--lifeline", type=int, hidden=True)
@log_option
@debug_option
@click.pass_context
def run(  # noqa: PLR0913, PLR0917 - the options of the command
    context: click.Context,
    target: str,
    relays: tuple[str, ...],
    listen: str | None,
    home: Path,
    anchors: Path | None,
    policy: Path | None,
    audit: Path | None,
    credentials: tuple[Path, ...],
    store: str | None,
    publish: tuple[str, ...],
    metrics: str | None,
    check: bool,
    reload: bool,
    lifeline: int | None,
) -> None:
    """Host the agents of TARGET, MODULE:ATTRIBUTE, until Ctrl-C.

    The first Ctrl-C or SIGTERM lets the agents finish what they have; a second one stops at once. SIGHUP has it read
    its anchors and policy again.
    """
    if reload and lifeline is None:
        listening = _options("--listen", _listen(relays, listen, fixed=True))
        _run_reloading([*listening, *_options("--store", _store(relays, listen, home)), *context.meta[_ARGUMENTS]])
        return
    agents = load_agents(target)
    if check:
        click.echo(checked_screen(*check_agents(agents, anchors or anchors_of(home), policy)))
        return

    listen_on = _listen(relays, listen)
    store = store or _store(relays, listen, home)
    tell_at = None if metrics is None else ListenAddress.parse(metrics)
    passphrase = passphrase_for(home)

    async def main() -> None:
        opened = open_node(
            agents,
            relay=relays,
            listen=listen_on,
            store=store,
            home=home,
            passphrase=passphrase,
            anchors=anchors,
            policy=policy,
            audit=audit,
            credentials=credentials,
            publish=publish,
        )
        async with stoppable() as stop, opened as node:
            stop.drains = True
            async with telling(tell_at, lambda: node_report(node.statistics())):
                await _serve(node, stop, lifeline, node_screen(node, home, embedded=listen_on is not None))
            if lifeline is None:
                say("stopping: the agents finish what they have; once more to stop at once")

    run_trio(main)
    if lifeline is None:
        say("stopped")


def _options(name: str, value: str | None) -> Sequence[str]:
    """Return an option to come first in a command: it counts as it is given last, so what was asked for stands."""
    return () if value is None else (name, value)


def _run_reloading(arguments: Sequence[str]) -> None:
    """Run the same command in a process that starts anew with each change, at one address."""
    try:
        from autonomy_trio.cli.reload import run_reloading  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError:
        msg = '--reload needs watchfiles, which is not installed: pip install "autonomy-trio[reload]"'
        raise ConfigurationError(msg) from None

    async def main() -> None:
        await run_reloading(arguments, Path.cwd())

    run_trio(main)


async def _serve(node: Node, stop: Stop, lifeline: int | None, screen: str) -> None:
    """Show the first screen; return when a stop is asked for, or by the end of the lifeline; raise without agents."""
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await node.serve_forever()

        async def hold(descriptor: int) -> None:
            async with trio.lowlevel.FdStream(descriptor) as line:
                await line.receive_some(1)
            stop.ask()

        nursery.start_soon(serve)
        await nursery.start(reload_at_hangup, node.reload_policies, stop)
        click.echo(screen)
        if lifeline is not None:
            nursery.start_soon(hold, lifeline)
        await stop.asked.wait()
        nursery.cancel_scope.cancel()


def _listen(relays: tuple[str, ...], listen: str | None, *, fixed: bool = False) -> str | None:
    """Return where to listen: as asked, and with nothing asked at the usual port of this machine or a free one.

    Args:
        relays: those that were asked for.
        listen: what was asked for.
        fixed: whether a free port is chosen here, to be the same in several processes, and not by the first of them.
    """
    if listen is not None or relays:
        return listen
    usual = ListenAddress.parse(DEFAULT_LISTEN)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((usual.host, usual.port))
        except OSError:
            if not fixed:
                return str(ListenAddress(usual.host, 0))
            probe.bind((usual.host, 0))
        return str(ListenAddress(usual.host, probe.getsockname()[1]))


def _store(relays: tuple[str, ...], listen: str | None, home: Path) -> str | None:
    """Return where the relay of this process keeps what is sent to nodes that are away, if nobody asked for a relay."""
    return None if listen is not None or relays else f"sqlite:{home / STORE_FILE}"
