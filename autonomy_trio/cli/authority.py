"""``authority`` and its commands: an identity that says what is true of others."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from autonomy_trio.cli.options import home_option, parse_attributes, relay_option, run_trio
from autonomy_trio.cli.output import debug_option, log_option, say, written
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.cli.run import DEFAULT_LISTEN
from autonomy_trio.cli.signals import stoppable
from autonomy_trio.errors import ConfigurationError, CredentialError
from autonomy_trio.fabric.links.addresses import RelayAddress
from autonomy_trio.fabric.opening import open_node
from autonomy_trio.trust.anchors import (
    DEFAULT_LONGEST_VALIDITY,
    Anchor,
    format_duration,
    parse_duration,
    to_toml,
)
from autonomy_trio.trust.attributes import (
    ATTRIBUTE_TYPES,
    NAME_RULE,
    AttributeType,
    is_attribute_name,
)
from autonomy_trio.trust.authority import open_authority, read_ledger
from autonomy_trio.trust.credentials import (
    PRESENTATION_BYTES_LIMIT,
    Presentation,
    from_text,
    read_presentation,
    to_text,
)
from autonomy_trio.trust.identity import CHANGES_LIMIT
from autonomy_trio.trust.ledger import Ledger
from autonomy_trio.trust.lists import CREDENTIAL_ID_BYTES, RevocationList, list_to_text, verify_list
from autonomy_trio.trust.records import format_identifier, parse_identifier
from autonomy_trio.trust.tickets import TICKET_LIFE, make_ticket
from autonomy_trio.trust.vault import Vault

BLOCK_CHARACTERS_LIMIT: Final = 3 * PRESENTATION_BYTES_LIMIT
"""Characters of a file to look at: a credential's text has less, and longer ones are refused."""
MOST_VALIDITY: Final = 3650 * 86_400
"""Seconds that a credential may hold; what is to hold so long is better issued anew."""


_ID: Final = re.compile(rf"[0-9a-f]{{{2 * CREDENTIAL_ID_BYTES}}}")

_out_option = click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")


@click.group(short_help="Say what is true of others, in credentials.")
def authority() -> None:
    """Issue credentials: an authority is an identity that others trust to say what is true of somebody."""


@authority.command(short_help="Print the anchor by which others trust this home.")
@home_option
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=TYPE",
    help="An attribute it is to assert, say team=string; the types are string, long, bool and set. Repeatable.",
)
@debug_option
def init(home: Path, attributes: tuple[str, ...]) -> None:
    """Make a home an authority, and print the anchor by which other homes trust it.

    Every home is an authority for itself already; the printed lines go into the anchors file of those who are to
    trust this one, as 'anchors.toml' in their home or with --anchors.
    """
    types = dict(_attribute_type(pair) for pair in attributes)
    with Vault.open_beside(home, passphrase=passphrase_for(home)) as vault:
        click.echo(to_toml(Anchor(vault.identifier, types)), nl=False)
    if not types:
        say("as it is it may assert nothing: list what it may, say --attribute team=string")


@authority.command(short_help="Issue a credential.")
@home_option
@click.option("--subject", required=True, metavar="I…", help="Whom it is about: what 'identity show' prints there.")
@click.option(
    "--sequence",
    type=click.IntRange(0, CHANGES_LIMIT - 1),
    default=0,
    show_default=True,
    help="The subject's sequence: how often it has rotated.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    required=True,
    metavar="NAME=VALUE",
    help="What is true of the subject: team=payments, level=3, cleared=true, roles={auditor,clerk}. Repeatable.",
)
@click.option(
    "--validity",
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long it holds: 30m, 12h. More than 1d is for anchors whose longest_validity allows it.",
)
@_out_option
@debug_option
def issue(  # noqa: PLR0913, PLR0917 - click passes each option by name
    home: Path, subject: str, sequence: int, attributes: tuple[str, ...], validity: str, out: Path | None
) -> None:
    """Issue a credential, to be put into the folder 'credentials' of the subject's home or shown with --credential.

    It is written down in this home, for 'authority list' and 'authority revoke'.
    """
    whom, what, seconds = parse_identifier(subject), parse_attributes(attributes), _seconds("--validity", validity)
    with Vault.open_beside(home, passphrase=passphrase_for(home)) as vault, open_authority(vault, home) as at_work:
        encoded = at_work.issue(subject=whom, subject_seq=sequence, attributes=what, now=time.time(), validity=seconds)
    _write(to_text(encoded), out)
    until = read_presentation(encoded).credential.expires
    say(f"holds until {_moment(until)}{'' if out is None else f', written to {out}'}")
    if seconds > DEFAULT_LONGEST_VALIDITY:
        longest = format_duration(DEFAULT_LONGEST_VALIDITY)
        say(f"longer than {longest}: it counts only where the anchor of this home has longest_validity = '{validity}'")


@authority.command(short_help="Take back credentials.")
@home_option
@click.argument("credentials", nargs=-1, metavar="[ID|FILE]...")
@click.option("--subject", metavar="I…", help="Take back all that this home has issued to this identity.")
@click.option(
    "--least-sequence",
    type=click.IntRange(1, CHANGES_LIMIT - 1),
    metavar="N",
    help="Of --subject only what was issued to its keys before the Nth rotation, for good, written down or not; of this"
    " home itself, what those keys have signed.",
)
@click.option(
    "--next-update", default="1d", show_default=True, metavar="TIME", help="In what time you promise the next list."
)
@_out_option
@debug_option
def revoke(  # noqa: PLR0913, PLR0917 - click passes each option by name
    home: Path,
    credentials: tuple[str, ...],
    subject: str | None,
    least_sequence: int | None,
    next_update: str,
    out: Path | None,
) -> None:
    """Take back credentials, by the ids that 'authority list' prints or the files that hold them.

    Prints the revocation list, to be put into the folder 'lists' of the homes that are to obey it or to show it. With
    nothing to take back the list is signed anew, which it needs before the next update that it promises.
    """
    whom = None if subject is None else parse_identifier(subject)
    if least_sequence is not None and whom is None:
        msg = "--least-sequence is one of a subject: add --subject"
        raise ConfigurationError(msg)
    seconds = _seconds("--next-update", next_update)
    named = [_credential(text) for text in credentials]
    now = time.time()
    with Vault.open_beside(home, passphrase=passphrase_for(home)) as vault, open_authority(vault, home) as at_work:
        if whom is not None and least_sequence is None:
            named += _held_by(whom, at_work.ledger)
        least = {} if whom is None or least_sequence is None else {whom: least_sequence}
        signed = at_work.revoke(named, least=least, now=now, next_update=seconds)
        history = vault.history
    _write(list_to_text(signed, history.changes), out)
    say(f"{_describe(verify_list(signed, history))}{'' if out is None else f', written to {out}'}")


@authority.command(short_help="Print a ticket, with which another machine gets a credential.")
@home_option
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    required=True,
    metavar="NAME=VALUE",
    help="What is true of whoever redeems it, as 'authority issue' reads it. Repeatable.",
)
@click.option(
    "--relay",
    default=f"ws://{DEFAULT_LISTEN}",
    show_default=True,
    metavar="URL",
    help="Where 'authority serve' is reached from the other machine, with #I… to pin the relay.",
)
@debug_option
def ticket(home: Path, attributes: tuple[str, ...], relay: str) -> None:
    """Print a one-time ticket, to be redeemed with 'enroll' on another machine within ten minutes.

    Whoever has it first gets the credential: hand it over as you would a password. 'authority serve' must run then.
    """
    what, where = parse_attributes(attributes), RelayAddress.parse(relay)
    with Vault.open_beside(home, passphrase=passphrase_for(home)) as vault:
        click.echo(make_ticket(vault, relay=str(where), attributes=what, now=time.time()))
    say(f"to be redeemed once, in {TICKET_LIFE // 60} minutes, while 'authority serve' runs at {where}")


@authority.command(short_help="Answer those who redeem tickets, renew credentials and fetch revocations.")
@home_option
@relay_option
@click.option(
    "--listen",
    metavar="ADDR",
    help=f"HOST:PORT for a relay in this process. Without this and --relay: {DEFAULT_LISTEN}.",
)
@click.option(
    "--next-update",
    default="1d",
    show_default=True,
    metavar="TIME",
    help="In what time each revocation list promises the next; it is signed anew at half of it.",
)
@log_option
@debug_option
def serve(home: Path, relays: tuple[str, ...], listen: str | None, next_update: str) -> None:
    """Answer as the authority of a home until Ctrl-C.

    The other commands of 'authority' work in the same home meanwhile. What they revoke is told to whoever asks from
    then on, as enrolled nodes do once a minute.
    """
    seconds, passphrase = _seconds("--next-update", next_update), passphrase_for(home)
    listen_on = DEFAULT_LISTEN if listen is None and not relays else listen

    async def main() -> None:
        opened = open_node(relay=relays, listen=listen_on, home=home, passphrase=passphrase)
        async with stoppable() as stop, opened as node:
            stop.drains = True
            click.echo(f"authority {node.serve_authority(next_update=seconds).address}")
            click.echo(f"tickets: authority ticket --home {home} --relay {node.relays[0]} --attribute NAME=VALUE")
            await stop.asked.wait()

    run_trio(main)
    say("stopped")


@authority.command("list", short_help="Print what was issued and taken back.")
@home_option
@debug_option
def list_(home: Path) -> None:
    """Print the credentials that this home has issued: id, subject, sequence, end, state and attributes.

    What has expired is kept as long as there is room.
    """
    now = time.time()
    with Vault.open_beside(home, passphrase=passphrase_for(home)) as vault:
        ledger, history = read_ledger(vault, home), vault.history
    for each in ledger.issued.values():
        what = " ".join(f"{name}={written(value)}" for name, value in each.values.items())
        state = "revoked" if each.revoked else "expired" if each.expires <= now else "holds"
        whom = f"{format_identifier(each.subject)} {each.subject_seq}"
        click.echo(f"{each.id.hex()} {whom} until {_moment(each.expires)} {state} {what}")
    for subject, seq in ledger.least.items():
        click.echo(f"{format_identifier(subject)} counts from sequence {seq} on")
    if not ledger.issued:
        say("nothing was issued from this home")
    if ledger.newest_list is not None:
        say(_describe(verify_list(ledger.newest_list, history)))


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="ascii")
    except OSError as error:
        msg = f"{out} cannot be written ({(error.strerror or str(error)).lower()}): choose another file with --out"
        raise ConfigurationError(msg) from None


def _credential(text: str) -> bytes | Presentation:
    """Read what names a credential: its id, or the file that holds it."""
    if _ID.fullmatch(text):
        return bytes.fromhex(text)
    try:
        with Path(text).open(encoding="ascii") as file:
            block = file.read(BLOCK_CHARACTERS_LIMIT)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it has characters that no credential has"
        msg = (
            f"{text!r} names no credential: give an id, as 'authority list' prints it, or a file that holds one ({why})"
        )
        raise ConfigurationError(msg) from None
    try:
        return read_presentation(from_text(block))
    except CredentialError as error:
        msg = f"{text}: {error}"
        raise CredentialError(msg) from None


def _held_by(subject: bytes, ledger: Ledger) -> list[bytes | Presentation]:
    """Return all that could count or be renewed: what has expired is renewed for one who comes back."""
    held: list[bytes | Presentation] = [
        each.id for each in ledger.issued.values() if each.subject == subject and not each.revoked
    ]
    if not held:
        msg = f"{format_identifier(subject)} holds nothing that this home has written down: see 'authority list'"
        raise ConfigurationError(msg)
    return held


def _describe(revocations: RevocationList) -> str:
    count = len(revocations.credentials)
    names = f"{count} credential{'' if count == 1 else 's'}"
    return f"list {revocations.seq} names {names}; sign the next one by {_moment(revocations.next_update)}"


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _attribute_type(pair: str) -> tuple[str, AttributeType]:
    name, _, kind = pair.partition("=")
    if kind not in ATTRIBUTE_TYPES:
        types = ", ".join(sorted(ATTRIBUTE_TYPES))
        msg = f"--attribute {pair!r} has no type: write {name or 'NAME'}=TYPE with one of {types}"
        raise ConfigurationError(msg)
    if not is_attribute_name(name):
        msg = f"{name!r} cannot be an attribute's name: use {NAME_RULE}"
        raise ConfigurationError(msg)
    return name, kind


def _seconds(option: str, text: str) -> int:
    seconds = parse_duration(text)
    if seconds is None or seconds > MOST_VALIDITY:
        longest = format_duration(MOST_VALIDITY)
        msg = f"{option} {text!r} is no time: write a number and s, m, h or d, say 30m, and at most {longest}"
        raise ConfigurationError(msg)
    return seconds
