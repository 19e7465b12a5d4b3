"""Where a home's passphrase comes from: a file, the environment, or the terminal.

Never the command line: other users of the machine can read that, and a shell keeps it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.trust.vault import Vault

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE: Final = "AUTONOMY_PASSPHRASE"
MOST_PASSPHRASE: Final = 4096
"""Bytes of a passphrase."""
TERMINAL: Final = Path("-")
"""In place of a file: ask at the terminal, or read standard input where that is none."""

_FILE: Final = "autonomy_trio.passphrase_file"


def passphrase_option(command: F) -> F:
    """Add ``--passphrase-file FILE``."""
    return click.option(
        "--passphrase-file",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_set_file,
        show_default=f"${VARIABLE}, else asked for where the home has one",
        help="Encrypt the home's secrets with the first line of this file; - asks for it.",
    )(command)


def passphrase_for(home: Path) -> str | None:
    """Return the passphrase of a home, asking for it where it has one and a terminal is there; None for no passphrase.

    Raises:
        ConfigurationError: the file cannot be read, or there is nothing in it.
        VaultError: the home cannot be read.
    """
    file: Path | None = click.get_current_context().meta.get(_FILE)
    if file is None:
        given = os.environ.get(VARIABLE)
        if given is not None or not sys.stdin.isatty() or not Vault.is_protected(home):
            return given
    elif file != TERMINAL:
        return _first_line(file)
    elif not sys.stdin.isatty():
        return _line(sys.stdin.buffer.readline(MOST_PASSPHRASE + 1), "standard input")
    return _ask(home)


def _set_file(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    context.meta[_FILE] = file


def _ask(home: Path) -> str:
    """Ask at the terminal, twice where the passphrase is a new one."""
    is_new = not Vault.is_protected(home)
    given: str = click.prompt(f"Passphrase of {home}", hide_input=True, confirmation_prompt=is_new, err=True)
    return given


def _first_line(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return _line(opened.readline(MOST_PASSPHRASE + 1), str(file))
    except OSError as error:
        msg = f"the passphrase file {file} cannot be read ({(error.strerror or str(error)).lower()})"
        raise ConfigurationError(msg) from None


def _line(line: bytes, place: str) -> str:
    line = line.rstrip(b"\r\n")
    if not line:
        msg = f"there is no passphrase in {place}: write it into the first line"
        raise ConfigurationError(msg)
    if len(line) > MOST_PASSPHRASE:
        msg = f"the first line of {place} is too long for a passphrase: {MOST_PASSPHRASE} bytes are allowed"
        raise ConfigurationError(msg)
    return os.fsdecode(line)
