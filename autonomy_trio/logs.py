"""Where the library's log lines go: to the structlog configuration of the program, else as text to standard error.

A library must not configure structlog for its program, and structlog's own default prints to standard output and shows
the local variables of every frame of a traceback, where secrets live; so an unconfigured program gets the quiet default
below. It lets no control character through either: what is logged may be a stranger's text, and a terminal obeys.
"""

import logging
import sys
from io import StringIO
from typing import Any, TextIO

import structlog


def default_processors(*, colors: bool) -> list[structlog.typing.Processor]:
    """Return the processors of the text form: time, level, event, fields; tracebacks without local variables."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        _printable_fields,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_printable_traceback, pad_event_to=0),
    ]


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
        if structlog.is_configured():
            logger = structlog.get_logger("autonomy_trio")
        else:
            logger = structlog.wrap_logger(
                structlog.PrintLogger(sys.stderr),
                default_processors(colors=sys.stderr.isatty()),
                wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            )
        return getattr(logger.bind(**self._fields), method)


def get_log(**fields: object) -> Any:  # noqa: ANN401 - structlog's loggers are duck-typed
    """Return a structured logger with these fields on every line."""
    return _Log(**fields)
