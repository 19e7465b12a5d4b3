"""``enroll``: redeem a ticket."""

import time
from datetime import UTC, datetime
from pathlib import Path

import click

from autonomy_trio.cli.options import home_option, run_trio
from autonomy_trio.cli.output import debug_option, log_option, say, written
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.fabric.access.enrolment import Enrolled
from autonomy_trio.fabric.opening import ANCHORS_FILE, open_node
from autonomy_trio.trust.tickets import verify_ticket


@click.command(short_help="Redeem a ticket: get a credential from its authority.")
@click.argument("ticket")
@home_option
@log_option
@debug_option
def enroll(ticket: str, home: Path) -> None:
    """Redeem a ticket of 'authority ticket', and have its credential renewed whenever a node runs with this home.

    A home without 'anchors.toml' that was never an authority itself trusts the ticket's authority from then on, for the
    attributes of the ticket.
    """
    verify_ticket(ticket, time.time())  # what is wrong with it makes no home
    passphrase = passphrase_for(home)

    async def main() -> Enrolled:
        async with open_node(home=home, passphrase=passphrase) as node:
            return await node.enroll(ticket)

    enrolled = run_trio(main)
    what = ", ".join(f"{name}={written(value)}" for name, value in sorted(enrolled.attributes.items()))
    until = datetime.fromtimestamp(enrolled.expires, UTC)
    click.echo(f"{home} is enrolled with {enrolled.authority}: {what}, until {until:%Y-%m-%d %H:%M:%S} UTC")
    if enrolled.trusts:
        say(f"it trusts that authority for {', '.join(sorted(enrolled.attributes))} from now on: {home / ANCHORS_FILE}")
    else:
        say("whom this home trusts is as before, for it has anchors of its own or is an authority itself")
