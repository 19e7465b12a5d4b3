"""``outlet``: let other nodes reach what listens at an address, by policy."""

from pathlib import Path

import click
import trio

from autonomy_trio.cli.options import (
    anchors_option,
    credential_option,
    home_option,
    policy_option,
    relay_option,
    run_trio,
)
from autonomy_trio.cli.output import debug_option, log_option, say
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.cli.signals import reload_at_hangup, stoppable
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.opening import open_node
from autonomy_trio.fabric.portals.places import Place
from autonomy_trio.fabric.portals.portals import MOST_WITH_ONE


@click.command(short_help="Let other nodes reach what listens at an address, by policy.")
@click.argument("name")
@click.option(
    "--target",
    required=True,
    metavar="PLACE",
    help="What it leads to: HOST:PORT as this machine reaches it, or unix:PATH.",
)
@click.option(
    "--allow",
    metavar="CONDITION",
    help="Who may open a stream, in Cedar, say 'principal.team == \"payments\"'. Without it, whom --policy lets in.",
)
@click.option(
    "--most-streams",
    type=click.IntRange(min=1),
    default=MOST_WITH_ONE,
    show_default=True,
    metavar="N",
    help="Streams at once.",
)
@relay_option
@click.option(
    "--listen",
    metavar="ADDR",
    help="HOST:PORT for a relay in this process, in place of --relay or besides; tcp://HOST:PORT without websockets.",
)
@home_option
@anchors_option
@policy_option
@click.option(
    "--audit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append a line of JSON to this file for each decision about who may open a stream.",
)
@credential_option
@log_option
@debug_option
def outlet(  # noqa: PLR0913, PLR0917 - the options of the command
    name: str,
    target: str,
    allow: str | None,
    most_streams: int,
    relays: tuple[str, ...],
    listen: str | None,
    home: Path,
    anchors: Path | None,
    policy: Path | None,
    audit: Path | None,
    credentials: tuple[Path, ...],
) -> None:
    """Be the outlet NAME: let other nodes reach what listens at --target, until Ctrl-C.

    Any TCP client uses it through 'inlet' on another machine. The policy decides who may open a stream, and sees
    nothing of what goes through it. The first Ctrl-C lets what was read still arrive; a second one stops at once.
    SIGHUP has it read its anchors and policy again.
    """
    Place.parse_target(target)
    if not relays and listen is None:
        msg = "an outlet is reached through a relay: add --relay ws://HOST:PORT, or --listen HOST:PORT for one in here"
        raise ConfigurationError(msg)
    passphrase = passphrase_for(home)

    async def main() -> None:
        opened = open_node(
            relay=relays,
            listen=listen,
            home=home,
            passphrase=passphrase,
            anchors=anchors,
            policy=policy,
            audit=audit,
            credentials=credentials,
        )
        async with (
            stoppable() as stop,
            opened as node,
            node.outlet(name, target, allow=allow, most_streams=most_streams) as portal,
            trio.open_nursery() as nursery,
        ):
            stop.drains = True
            await nursery.start(reload_at_hangup, node.reload_policies, stop)
            click.echo(f"outlet {portal.address} to {portal.target}")
            if allow is None and policy is None:
                say("nobody on another node may open it: add --allow CONDITION, or --policy FILE")
            await stop.asked.wait()
            nursery.cancel_scope.cancel()
            say("stopping: what was read still arrives; once more to stop at once")

    run_trio(main)
    say("stopped")
