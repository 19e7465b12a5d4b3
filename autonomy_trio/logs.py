"""Where the library's log lines go: to the structlog configuration of the program, else as text to standard error.

A library must not configure structlog for its program, and structlog's own default prints to standard output and shows
the local variables of every frame of a traceback, where secrets live; so an unconfigured program gets the quiet default
below. It lets no control character through either: what is logged may be a stranger's text, and a terminal obeys.
"""

import json
import logging
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from typing import Any, Final, Literal, TextIO

import attrs
import structlog

Form = Literal["pretty", "json"]


@attrs.define
class Shown:
    """How the default shows lines; a program that configures structlog itself decides by itself."""

    form: Form = "pretty"
    """Text to read, or one JSON object a line."""
    debug: bool = False
    """Whether debug lines are shown too."""


_shown = Shown()


def shown() -> Shown:
    """Return how the default shows lines now, to be read or set."""
    return _shown


@contextmanager
def showing() -> Generator[Shown]:
    """Let a block choose how lines are shown: it sets what it is given, and behind it all is as before."""
    global _shown  # noqa: PLW0603 - a process has one standard error, and lines of all threads go there
    before, _shown = _shown, Shown()
    try:
        yield _shown
    finally:
        _shown = before


def pretty_processors(*, colors: bool) -> list[structlog.typing.Processor]:
    """Return the processors of the text form: time, level, event, fields; tracebacks without local variables."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        _printable_fields,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_printable_traceback, pad_event_to=0),
    ]


def json_processors() -> list[structlog.typing.Processor]:
    """Return the processors of the JSON form: an object a line, its traceback, if any, as text under ``exception``."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.StackInfoRenderer(),
        _to_json,
    ]


def _to_json(_: object, __: str, fields: structlog.typing.EventDict) -> str:
    line: dict[str, object] = {name: fields.pop(name) for name in ("timestamp", "level", "event")}
    line.update(fields)
    try:
        text = json.dumps(line, default=repr, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # a key that is no text, a number JSON lacks, a value inside itself
        text = json.dumps({name: value if isinstance(value, str) else repr(value) for name, value in line.items()})
    return text.replace("\x7f", "\\u007f")  # the one control character that JSON leaves as it is


def _printable_fields(_: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: _only_printable(value) if isinstance(value, str) else value for name, value in fields.items()}


def _printable_traceback(out: TextIO, failure: structlog.typing.ExcInfo) -> None:
    lines = StringIO()
    structlog.dev.plain_traceback(lines, failure)
    out.write("\n".join(map(_only_printable, lines.getvalue().split("\n"))))


def _only_printable(text: str) -> str:
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def printable(text: str, most: int = 200) -> str:
    """Return a stranger's text fit for a terminal: without control characters, at most so many characters."""
    return _only_printable(text[:most])


class _Log:
    """Looks up the configuration at each line, because programs configure structlog after they import libraries."""

    __slots__ = ("_fields",)

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def __getattr__(self, method: str) -> Any:  # noqa: ANN401 - structlog's loggers are duck-typed
        logger = structlog.get_logger("autonomy_trio") if structlog.is_configured() else default_logger()
        return getattr(logger.bind(**self._fields), method)


MOST_ERRORS: Final = 100
"""Lines that an `ErrorLog` writes in so many seconds."""
ERRORS_WITHIN: Final = 10.0


@attrs.define(eq=False)
class ErrorLog:
    """Errors that may come by the hundred thousand: few are written, and the next line says how many were left out.

    A line with its traceback takes about a millisecond, in which nothing else of the process runs.
    """

    _log: _Log = attrs.field(factory=_Log)
    _since: float = float("-inf")
    _written: int = 0
    _left_out: int = 0

    def error(self, event: str, **fields: object) -> None:
        """Write a line, or count it."""
        now = time.monotonic()
        if now >= self._since + ERRORS_WITHIN:
            self._since, self._written = now, 0
        if self._written == MOST_ERRORS:
            self._left_out += 1
            return
        self._written += 1
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        self._log.error(event, **fields)


def get_log(**fields: object) -> Any:  # noqa: ANN401 - structlog's loggers are duck-typed
    """Return a structured logger with these fields on every line."""
    return _Log(**fields)


def default_logger() -> Any:  # noqa: ANN401 - structlog's loggers are duck-typed
    """Return the logger of an unconfigured program, as `showing` has it now."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        json_processors() if _shown.form == "json" else pretty_processors(colors=sys.stderr.isatty()),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if _shown.debug else logging.INFO),
    )
