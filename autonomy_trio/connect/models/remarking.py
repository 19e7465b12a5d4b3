"""A handler once more, for a class that decides at run time who may reach it."""

from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

from autonomy_trio.actors.declare import on
from autonomy_trio.errors import ReplyError


def reached_by(
    handler: Callable[..., Any], message: type, allow: str | None, *raises: type[ReplyError]
) -> Callable[..., Any]:
    """Return a copy of a handler that takes its message from whom `allow` says."""
    function = cast("FunctionType", handler)
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__annotations__, copy.__doc__, copy.__qualname__ = (
        function.__annotations__,
        function.__doc__,
        function.__qualname__,
    )
    marked: Callable[..., Any] = on(message, allow=allow, raises=raises)(copy)
    return marked
