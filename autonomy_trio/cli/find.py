"""``find``: agents that nodes have published at a relay."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from autonomy_trio.cli.options import anchors_option, home_option, parse_attributes, relay_option, run_trio
from autonomy_trio.cli.output import debug_option, log_option, say, written
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.opening import open_node
from autonomy_trio.logs import printable

if TYPE_CHECKING:
    from autonomy_trio.fabric.finding import FoundAgent

TAKEN: Final = frozenset({"name", "message", "anyone"})
"""Attributes that cannot be asked for, since `Node.find` means something else by them."""


@click.command(short_help="Find agents by what their nodes prove.")
@relay_option
@click.option("--name", help="What the agent goes by; anyone can take any name.")
@click.option("--message", metavar="NAME", help="A message that it takes from other nodes.")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=VALUE",
    help="What its node must prove, say team=payments; of a set, that it has this string. Repeatable.",
)
@click.option("--anyone", is_flag=True, help="Also nodes that prove nothing.")
@home_option
@anchors_option
@log_option
@debug_option
def find(  # noqa: PLR0913, PLR0917 - click passes each option by name
    relays: tuple[str, ...],
    name: str | None,
    message: str | None,
    attributes: tuple[str, ...],
    anyone: bool,
    home: Path,
    anchors: Path | None,
) -> None:
    """Find agents that nodes have published, with 'run --publish', at the relays given.

    Prints for each its address, what its node proves by the anchors of this home, and the messages it takes; what its
    node says of it stands below. An attribute or --anyone is needed.
    """
    wanted: dict[str, Any] = dict(parse_attributes(attributes))
    if not relays:
        msg = "say where to look: --relay ws://HOST:PORT"
        raise ConfigurationError(msg)
    if not wanted and not anyone:
        msg = "anyone can take any name: say what the node must prove, --attribute team=payments, or --anyone"
        raise ConfigurationError(msg)
    if taken := sorted(TAKEN & wanted.keys()):
        msg = f"--attribute {taken[0]} cannot be looked for: use another attribute"
        raise ConfigurationError(msg)
    passphrase = passphrase_for(home)

    async def main() -> "list[FoundAgent]":
        async with open_node(relay=relays, home=home, passphrase=passphrase, anchors=anchors) as node:
            return await node.find(name=name, message=message, anyone=anyone, **wanted)

    found = run_trio(main)
    for each in sorted(found, key=lambda agent: agent.address):
        proven = [f"{key}={written(value)}" for key, value in sorted(each.attributes.items())]
        click.echo(
            f"{each.address}  {' '.join(proven) or 'proves nothing'}  {printable(', '.join(each.messages), 500)}"
        )
        if each.description:
            click.echo(f"  {printable(each.description, 500)}")
    if not found:
        say("nothing was found that fits, by the anchors of this home")
