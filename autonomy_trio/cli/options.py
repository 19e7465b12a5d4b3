"""What several commands take, and how they start trio."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click
import platformdirs
import trio

from autonomy_trio.cli.output import say
from autonomy_trio.cli.passphrase import passphrase_option
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.metrics import Report, listen_for_metrics
from autonomy_trio.fabric.opening import ANCHORS_FILE
from autonomy_trio.groups import single_error
from autonomy_trio.trust.attributes import to_record

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def default_home() -> Path:
    """Return ``$AUTONOMY_HOME``, else a folder in the platform's place for a user's data."""
    chosen = os.environ.get("AUTONOMY_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("autonomy_trio", appauthor=False)) / "home"


class _Home(click.Path):
    """A folder, which need not be there yet."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's own
        """Read a folder's path; an empty one, as an unset variable makes it, would be the working folder."""
        if value == "":
            self.fail("it is empty: name a folder.", param, ctx)
        return super().convert(value, param, ctx)


HOME: Final = _Home()
"""The type of ``--home``."""

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
"""The type of an option that names a file to read."""


def home_option(command: F) -> F:
    """Add ``--home DIR`` and ``--passphrase-file FILE``."""
    return click.option(
        "--home",
        type=HOME,
        default=default_home,
        show_default="$AUTONOMY_HOME, else the platform's data folder",
        help="The folder that keeps the node's keys.",
    )(passphrase_option(command))


def relay_option(command: F) -> F:
    """Add ``--relay URL``, which may be repeated."""
    return click.option(
        "--relay",
        "relays",
        multiple=True,
        metavar="URL",
        help="A relay to attach to, ws://, wss:// or tcp://HOST:PORT, with #I… to pin it; repeatable.",
    )(command)


def credential_option(command: F) -> F:
    """Add ``--credential FILE``, which may be repeated."""
    return click.option(
        "--credential",
        "credentials",
        multiple=True,
        type=FILE,
        metavar="FILE",
        help="A credential to show, besides those in the home's folder 'credentials'; repeatable.",
    )(command)


def anchors_option(command: F) -> F:
    """Add ``--anchors FILE``."""
    return click.option(
        "--anchors",
        type=FILE,
        metavar="FILE",
        help="The authorities to trust, in place of the home's 'anchors.toml'. Without either: this home alone.",
    )(command)


def policy_option(command: F) -> F:
    """Add ``--policy FILE``."""
    return click.option(
        "--policy",
        type=FILE,
        metavar="FILE",
        help="Whole policies, in Cedar, besides what the handlers allow.",
    )(command)


def store_option(command: F) -> F:
    """Add ``--store STORE``."""
    return click.option(
        "--store",
        envvar="AUTONOMY_STORE",
        show_envvar=True,
        metavar="STORE",
        help="Keep what is sent with durable=True to nodes that are away: sqlite:PATH, or redis://HOST:PORT/DB, where"
        " all relays on one database are one cluster. Without it, it is refused.",
    )(command)


def metrics_option(command: F) -> F:
    """Add ``--metrics ADDR``."""
    return click.option(
        "--metrics",
        metavar="ADDR",
        help="HOST:PORT to tell /metrics and /healthz on, to whoever can reach it; say 127.0.0.1:9100.",
    )(command)


@asynccontextmanager
async def telling(address: ListenAddress | None, report: Callable[[], Report]) -> AsyncGenerator[None]:
    """Tell metrics for the length of a block, where an address for them was given.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    if address is None:
        yield
        return
    async with trio.open_nursery() as nursery:
        listener = await listen_for_metrics(address, report)
        nursery.start_soon(listener.serve)
        say(f"metrics http://{listener.address}/metrics")
        yield
        nursery.cancel_scope.cancel()


def anchors_of(home: Path) -> Path | None:
    """Return the home's anchors file, if it has one."""
    file = home / ANCHORS_FILE
    return file if file.exists() else None


def run_trio(main: Callable[[], Awaitable[T]]) -> T:
    """Run an async main function; what it raises comes out as one error, an exit or interrupt before all others."""
    try:
        with single_error():
            return trio.run(main)
    except BaseExceptionGroup as group:
        error: BaseException = group.subgroup((KeyboardInterrupt, SystemExit)) or group
        while isinstance(error, BaseExceptionGroup):
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        raise error from None


def parse_attributes(pairs: tuple[str, ...]) -> dict[str, str | int | bool | frozenset[str]]:
    """Read ``NAME=VALUE`` pairs: ``true`` and ``false`` are bools, digits an int, ``{a,b}`` a set, all else a string.

    A value in double quotes is a string whatever it looks like.

    Raises:
        ConfigurationError: a pair has no ``=`` or no value, a name comes twice, or no credential can say such a thing.
    """
    attributes: dict[str, str | int | bool | frozenset[str]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            msg = f"--attribute {pair!r} is no attribute: write NAME=VALUE, say team=payments"
            raise ConfigurationError(msg)
        if not text:
            msg = f"--attribute {pair!r} has no value: write {name}=VALUE, or {name}='\"\"' for an empty string"
            raise ConfigurationError(msg)
        if name in attributes:
            msg = f"--attribute {name} is given twice: give each attribute once, a set as {name}={{a,b}}"
            raise ConfigurationError(msg)
        attributes[name] = _value(text)
    try:
        to_record(attributes)
    except ValueError as error:
        msg = f"--attribute: {error}"
        raise ConfigurationError(msg) from None
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
