"""What a command says beside its results: on standard error, in the form that was asked for."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from autonomy_trio import logs
from autonomy_trio.trust.attributes import AttributeValue

F = TypeVar("F", bound=Callable[..., Any])

_PLAIN: Final = re.compile(r"(?!-?[0-9]+$|true$|false$)[^\s{}\"]+")
"""A string that needs no quotes."""


def log_option(command: F) -> F:
    """Add ``--log FORM``."""
    return click.option(
        "--log",
        type=click.Choice(["pretty", "json"]),
        default="pretty",
        show_default=True,
        expose_value=False,
        callback=_set_form,
        help="How log lines are written to standard error; json is one object a line.",
    )(command)


def debug_option(command: F) -> F:
    """Add ``--debug``."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        help="Log debug lines too, and show Python's traceback of an unexpected error.",
    )(command)


def _set_form(_: click.Context, __: click.Parameter, form: logs.Form) -> None:
    logs.shown().form = form


def _set_debug(_: click.Context, __: click.Parameter, debug: bool) -> None:
    logs.shown().debug = debug


def say(sentence: str) -> None:
    """Tell the user how it goes."""
    if logs.shown().form == "json":
        logs.default_logger().info(sentence)
    else:
        click.echo(sentence, err=True)


def say_error(sentence: str, trace: str | None = None) -> None:
    """Tell the user what went wrong, on one line, and in front of it a traceback, if any."""
    if logs.shown().form == "json":
        logs.default_logger().error(sentence, **({} if trace is None else {"exception": trace}))
    else:
        click.echo(f"{trace or ''}Error: {sentence}", err=True)


def written(value: AttributeValue) -> str:
    """Write a value as --attribute reads it, with nothing in it that a terminal would obey."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, frozenset):
        return "{" + ",".join(map(logs.printable, sorted(value))) + "}"
    return logs.printable(value) if _PLAIN.fullmatch(value) else f'"{logs.printable(value)}"'
