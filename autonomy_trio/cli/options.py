"""What several commands take, and how they start trio."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import platformdirs
import trio

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.groups import single_error

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def default_home() -> Path:
    """Return ``$AUTONOMY_HOME``, else a folder in the platform's place for a user's data."""
    chosen = os.environ.get("AUTONOMY_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("autonomy_trio", appauthor=False)) / "home"


def home_option(command: F) -> F:
    """Add ``--home DIR``."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_home,
        show_default="$AUTONOMY_HOME, else the platform's data folder",
        help="The folder that keeps the node's keys.",
    )(command)


def relay_option(command: F) -> F:
    """Add ``--relay URL``, which may be repeated."""
    return click.option(
        "--relay", "relays", multiple=True, metavar="URL", help="A relay to attach to, ws://HOST:PORT; repeatable."
    )(command)


def credential_option(command: F) -> F:
    """Add ``--credential FILE``, which may be repeated."""
    return click.option(
        "--credential",
        "credentials",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="A credential to show, besides those in the home's folder 'credentials'; repeatable.",
    )(command)


def run_trio(main: Callable[[], Awaitable[T]]) -> T:
    """Run an async main function; what it raises comes out as one error."""
    with single_error():
        return trio.run(main)


def parse_attributes(pairs: tuple[str, ...]) -> dict[str, str | int | bool | frozenset[str]]:
    """Read ``NAME=VALUE`` pairs: ``true`` and ``false`` are bools, digits an int, ``{a,b}`` a set, all else a string.

    A value in double quotes is a string whatever it looks like.

    Raises:
        ConfigurationError: a pair has no ``=``, or a name comes twice.
    """
    attributes: dict[str, str | int | bool | frozenset[str]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            msg = f"--attribute {pair!r} is no attribute: write NAME=VALUE, say team=payments"
            raise ConfigurationError(msg)
        if name in attributes:
            msg = f"--attribute {name} is given twice: give each attribute once, a set as {name}={{a,b}}"
            raise ConfigurationError(msg)
        attributes[name] = _value(text)
    return attributes


def _value(text: str) -> str | int | bool | frozenset[str]:
    if text in {"true", "false"}:
        return text == "true"
    if text.startswith("{") and text.endswith("}"):
        return frozenset(part.strip() for part in text[1:-1].split(",") if part.strip())
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        return text[1:-1]
    if text.removeprefix("-").isdigit() and text.isascii():
        return int(text)
    return text
