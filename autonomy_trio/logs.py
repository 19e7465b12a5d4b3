"""Where the library's log lines go: to the structlog configuration of the program, else as text to standard error.

A library must not configure structlog for its program, and structlog's own default prints to standard output and shows the
local variables of every frame of a traceback, where secrets live; so an unconfigured program gets the quiet default below.
"""

import logging
import sys
from typing import Any

import structlog


def default_processors(*, colors: bool) -> list[structlog.typing.Processor]:
    """Return the processors of the text form: time, level, event, fields; tracebacks without local variables."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0),
    ]


def printable(text: str, most: int = 200) -> str:
    """Return a stranger's text fit for a terminal: without control characters, at most so many characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:most])


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
