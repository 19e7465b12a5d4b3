"""``relay``: forward envelopes between nodes that need not trust it."""

from pathlib import Path

import click
import trio

from autonomy_trio.cli.options import HOME, default_home, run_trio
from autonomy_trio.cli.output import debug_option, log_option, say
from autonomy_trio.cli.signals import stoppable
from autonomy_trio.fabric.addresses import ListenAddress
from autonomy_trio.fabric.relay import Relay
from autonomy_trio.fabric.websocket import listen
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault


@click.command(short_help="Forward envelopes between nodes.")
@click.option(
    "--listen", "address", default="127.0.0.1:4000", show_default=True, metavar="ADDR", help="HOST:PORT to listen on."
)
@click.option(
    "--home",
    type=HOME,
    default=lambda: default_home().with_name("relay"),
    show_default="a folder of its own beside the default home",
    help="The folder that keeps the relay's keys.",
)
@log_option
@debug_option
def relay(address: str, home: Path) -> None:
    """Forward envelopes between nodes; a relay can read, forge and replay none of them.

    It sees which nodes talk, when, and how much.
    """
    where = ListenAddress.parse(address)

    async def main() -> None:
        with Vault.open(home) as vault:
            listener = await listen(where)
            url = listener.address.url
            async with stoppable() as stop, trio.open_nursery() as nursery:
                nursery.start_soon(Relay(vault).serve, listener)
                click.echo(f"relay {url}\nto pin it: {url}#{format_identifier(vault.identifier)}")
                await stop.asked.wait()
                nursery.cancel_scope.cancel()

    run_trio(main)
    say("stopped")
