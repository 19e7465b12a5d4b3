"""``authority init`` and ``authority issue``: an identity that says what is true of others."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from autonomy_trio.cli.options import home_option, parse_attributes
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.trust.anchors import DEFAULT_LONGEST_VALIDITY, format_duration
from autonomy_trio.trust.attributes import ATTRIBUTE_TYPES, NAME_RULE, is_attribute_name
from autonomy_trio.trust.credentials import issue as issue_credential
from autonomy_trio.trust.credentials import read_presentation, to_text
from autonomy_trio.trust.records import format_identifier, parse_identifier
from autonomy_trio.trust.vault import Vault

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


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
def init(home: Path, attributes: tuple[str, ...]) -> None:
    """Make a home an authority, and print the anchor by which other homes trust it.

    Every home is an authority for itself already; the printed lines go into the anchors file of those who are to
    trust this one, as 'anchors.toml' in their home or with --anchors.
    """
    types = dict(_attribute_type(pair) for pair in attributes)
    with Vault.open_beside(home) as vault:
        table = ", ".join(f'{name} = "{kind}"' for name, kind in types.items())
        click.echo(f'[[anchor]]\nidentifier = "{format_identifier(vault.identifier)}"\nattributes = {{ {table} }}')
    if not types:
        click.echo("# list what it may assert, say: attributes = { team = \"string\" }", err=True)


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
    click.echo(f"holds until {until:%Y-%m-%d %H:%M:%S} UTC{'' if out is None else f', written to {out}'}", err=True)
    if seconds > DEFAULT_LONGEST_VALIDITY:
        longest = format_duration(DEFAULT_LONGEST_VALIDITY)
        click.echo(
            f"longer than {longest}: it is accepted where the anchor has longest_validity = \"{validity}\", and nowhere else",
            err=True,
        )


def _attribute_type(pair: str) -> tuple[str, str]:
    name, _, kind = pair.partition("=")
    if kind not in ATTRIBUTE_TYPES:
        msg = f"--attribute {pair!r} has no type: write {name or 'NAME'}=TYPE with one of {', '.join(sorted(ATTRIBUTE_TYPES))}"
        raise ConfigurationError(msg)
    if not is_attribute_name(name):
        msg = f"{name!r} cannot be an attribute's name: use {NAME_RULE}"
        raise ConfigurationError(msg)
    return name, kind


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if match is None:
        msg = f"--validity {text!r} is no length of time: write a number and s, m, h or d, say 30m"
        raise ConfigurationError(msg)
    return int(match[1]) * _UNITS[match[2]]
