"""``inlet``: let clients on this machine use what an outlet leads to."""

from pathlib import Path

import click

from autonomy_trio.cli.options import credential_option, home_option, relay_option, run_trio
from autonomy_trio.cli.output import debug_option, log_option, say
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.cli.send import reachable, refuse_itself
from autonomy_trio.cli.signals import stoppable
from autonomy_trio.fabric.opening import open_node
from autonomy_trio.fabric.portals.places import Place
from autonomy_trio.fabric.portals.portals import MOST_WITH_ONE


@click.command(short_help="Let clients on this machine use what an outlet leads to.")
@click.option(
    "--listen",
    required=True,
    metavar="PLACE",
    help="Where clients connect: HOST:PORT, or unix:PATH, to which this user alone may connect.",
)
@click.option("--to", required=True, metavar="ADDRESS", help="The outlet's address, as it prints it when it starts.")
@click.option(
    "--most-streams",
    type=click.IntRange(min=1),
    default=MOST_WITH_ONE,
    show_default=True,
    metavar="N",
    help="Clients at once; others wait.",
)
@relay_option
@home_option
@credential_option
@log_option
@debug_option
def inlet(  # noqa: PLR0913, PLR0917 - the options of the command
    listen: str, to: str, most_streams: int, relays: tuple[str, ...], home: Path, credentials: tuple[Path, ...]
) -> None:
    """Let any TCP client use what an outlet leads to, until Ctrl-C.

    Whoever can connect to --listen uses the outlet with what this home can prove: an address that other machines reach
    lends them that. A client whose stream is refused sees its connection reset, and the log says why. The first Ctrl-C
    lets what was read still arrive; a second one stops at once.
    """
    Place.parse(listen)
    where, relays = reachable(to, relays)
    passphrase = passphrase_for(home)

    async def main() -> None:
        opened = open_node(relay=relays, home=home, passphrase=passphrase, credentials=credentials)
        async with stoppable() as stop, opened as node:
            refuse_itself(node, where, home)
            async with node.inlet(listen, str(where), most_streams=most_streams) as portal:
                stop.drains = True
                click.echo(f"inlet {portal.address} to {portal.to}")
                await stop.asked.wait()
                say("stopping: what was read still arrives; once more to stop at once")

    run_trio(main)
    say("stopped")
