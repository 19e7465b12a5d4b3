"""``identity show``, ``rotate`` and ``forgive``: who this home is, its next key, and others that were seen twice."""

import time
from pathlib import Path

import click

from autonomy_trio.cli.options import FILE, home_option
from autonomy_trio.cli.output import debug_option, say
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.trust.records import digest, format_identifier, parse_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.vault_file import RECOVERY_NAME
from autonomy_trio.trust.watcher import Mark


@click.group(short_help="Show or rotate the identity of a home.")
def identity() -> None:
    """The identity of a home: an identifier that never changes, and the key that speaks for it now."""


@identity.command(short_help="Print the identifier of a home.")
@home_option
@click.option("--agent", metavar="NAME", help="Print the identifier of its agent of that name instead.")
@debug_option
def show(home: Path, agent: str | None) -> None:
    """Print the identifier of a home, which is made if it is not there yet, or of one of its agents.

    What is wrong with it, or with an authority that this home trusts, is said on standard error.
    """
    with Vault.open_beside(home, passphrase=passphrase_for(home)) as vault:
        click.echo(format_identifier(vault.identifier if agent is None else vault.agent_identifier(agent)))
        if vault.later_seq is not None:
            say(
                f"this home is a copy from before: the identity was rotated to sequence {vault.later_seq} elsewhere and"
                f" is at {vault.seq} here; run `identity rotate` with its recovery secret, or restore the newer home"
            )
        for mark in vault.marks:
            if mark.is_doubted:
                name = format_identifier(mark.identifier)
                say(f"the authority {name} was seen with two histories and counts for nothing: `identity forgive`")


@identity.command(short_help="Move to the identity's next key.")
@home_option
@click.option(
    "--recovery",
    type=FILE,
    metavar="FILE",
    help=f"The recovery secret, where it was moved to; without, the file '{RECOVERY_NAME}' in the home.",
)
@debug_option
def rotate(home: Path, recovery: Path | None) -> None:
    """Move to the identity's next key, which takes the one of now, and all keys it attested, out of use.

    Do it when somebody else may have had them, and with a home that was restored from a copy, when its node asks for
    it. The identifier stays. Only this needs the recovery secret; stop the home's node first.
    """
    passphrase = passphrase_for(home)
    with Vault.open(home, create=False, passphrase=passphrase) as vault:
        vault.rotate(vault.read_recovery(recovery, passphrase), time.time())
        click.echo(f"{format_identifier(vault.identifier)} is at sequence {vault.seq}")
    say("credentials of earlier sequences count no more: have them issued again")
    inside = home / RECOVERY_NAME
    if inside.exists():
        say(f"move {inside} off this machine: who takes the home takes it too, and with it the identity for good")


@identity.command(short_help="Let an authority count again that was seen with two histories.")
@click.argument("identifier", metavar="I…")
@home_option
@debug_option
def forgive(identifier: str, home: Path) -> None:
    """Let an authority count again that this home saw with two histories, by the one it saw first.

    Two changes of one sequence mean that somebody else has or had its key. Ask its owner first, another way than over
    the network, whether the change that is kept is the right one. Stop the home's node first.
    """
    whom = parse_identifier(identifier)
    with Vault.open(home, create=False, passphrase=passphrase_for(home)) as vault:
        mark = vault.forgive(whom)
    if mark is None:
        msg = f"nothing is held against {identifier} in {home}: `identity show` says whom there is something against"
        raise ConfigurationError(msg)
    click.echo(_both(mark))


def _both(mark: Mark) -> str:
    """Say which change stays and which was refused, by hashes that two people can compare."""
    refused = b"" if mark.refused is None else mark.refused.body
    kept, other = (digest("h-prev", body).hex() for body in (mark.change.body, refused))
    return f"{format_identifier(mark.identifier)} counts again\nkept     {kept}\nrefused  {other}"
