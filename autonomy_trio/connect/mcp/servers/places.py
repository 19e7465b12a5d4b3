"""Where an MCP server is: a command to run, or a URL. Neither shows its secrets."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from attrs import field, frozen


def _program(command: tuple[str, ...]) -> str:
    """Show a command without its arguments, since a database's password is often among them."""
    return f"({command[0]!r}, …)"


@frozen
class Command:
    """A server to start as a process that speaks over its standard input and output."""

    command: tuple[str, ...] = field(repr=_program)
    env: Mapping[str, str] = field(repr=False)
    cwd: str | Path | None


@frozen
class Url:
    """A server that is reached over streamable HTTP."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        """Return where it is, without user, path and query, which may be secrets."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


Place = Command | Url
