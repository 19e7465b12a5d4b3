"""``authority init`` and ``authority issue``: an identity that says what is true of others."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from autonomy_trio.cli.options import home_option, parse_attributes
from autonomy_trio.cli.output import debug_option, say
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.trust.anchors import (
    DEFAULT_LONGEST_VALIDITY,
    Anchor,
    format_duration,
    parse_duration,
    to_toml,
)
from autonomy_trio.trust.attributes import ATTRIBUTE_TYPES, NAME_RULE, AttributeType, is_attribute_name
from autonomy_trio.trust.credentials import issue as issue_credential
from autonomy_trio.trust.credentials import read_presentation, to_text
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.trust.vault import Vault

MOST_VALIDITY: Final = 3650 * 86_400
"""Seconds that a credential may hold; what is to hold so long is better issued anew."""


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
    with Vault.open_beside(home) as vault:
        click.echo(to_toml(Anchor(vault.identifier, types)), nl=False)
    if not types:
        say("as it is it may assert nothing: list what it may, say --attribute team=string")


@authority.command(short_help="Issue a credential.")
@home_option
@click.option("--subject", required=True, metavar="I…", help="Whom it is about: what 'identity show' prints there.")
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
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@debug_option
def issue(home: Path, subject: str, attributes: tuple[str, ...], validity: str, out: Path | None) -> None:
    """Issue a credential, to be put into the folder 'credentials' of the subject's home or shown with --credential."""
    whom, what, seconds = parse_identifier(subject), parse_attributes(attributes), _seconds(validity)
    with Vault.open_beside(home) as vault:
        encoded = issue_credential(vault, subject=whom, attributes=what, now=time.time(), validity=seconds)
    until = datetime.fromtimestamp(read_presentation(encoded).expires, UTC)
    if out is None:
        click.echo(to_text(encoded), nl=False)
    else:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(to_text(encoded), encoding="ascii")
        except OSError as error:
            msg = f"{out} cannot be written ({(error.strerror or str(error)).lower()}): choose another file with --out"
            raise ConfigurationError(msg) from None
    say(f"holds until {until:%Y-%m-%d %H:%M:%S} UTC{'' if out is None else f', written to {out}'}")
    if seconds > DEFAULT_LONGEST_VALIDITY:
        longest = format_duration(DEFAULT_LONGEST_VALIDITY)
        say(f"longer than {longest}: it counts only where the anchor of this home has longest_validity = '{validity}'")


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


def _seconds(text: str) -> int:
    seconds = parse_duration(text)
    if seconds is None or seconds > MOST_VALIDITY:
        longest = format_duration(MOST_VALIDITY)
        msg = f"--validity {text!r} is no time to hold: write a number and s, m, h or d, say 30m, and at most {longest}"
        raise ConfigurationError(msg)
    return seconds
