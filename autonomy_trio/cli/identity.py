"""``identity show``: who this home is."""

from pathlib import Path

import click

from autonomy_trio.cli.options import home_option
from autonomy_trio.cli.output import debug_option
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault


@click.group()
def identity() -> None:
    """The identity of a home."""


@identity.command(short_help="Print the identifier of a home.")
@home_option
@debug_option
def show(home: Path) -> None:
    """Print the identifier of a home, which is made if it is not there yet."""
    with Vault.open_beside(home) as vault:
        click.echo(format_identifier(vault.identifier))
