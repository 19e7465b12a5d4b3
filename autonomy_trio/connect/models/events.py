"""A vendor's answer: a JSON object, or the events of a stream, as dictionaries that nobody has checked yet.

The libraries' own streams leave generators behind that nobody closes where a reader leaves early, and they make objects
of whatever comes; so they send the request here, and what comes back is read here.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any, Final, cast

import httpx2
import trio

from autonomy_trio.connect.models.bodies import end_reading
from autonomy_trio.connect.models.vendor import BrokenStreamError, RubbishError

CLOSING: Final = 1.0
"""Seconds in which a connection that is left early has to close."""

DRAINING: Final = 0.1
"""Seconds that a stream has to end after it has said that it does."""

MOST_COUNT: Final = 2**53 - 1
"""The most tokens that are believed: the largest whole number that every reader of JSON has."""

_MISFITS: Final = (AttributeError, IndexError, KeyError, TypeError)


@contextmanager
def reading(what: str) -> Generator[None]:
    """Say that an answer is not what it should be, where reading it in the block fails.

    Raises:
        RubbishError: it does.
    """
    try:
        yield
    except _MISFITS:
        raise RubbishError(f"answered something that is not {what}") from None


def text(value: object) -> str:
    """Return a text, empty for None; half a surrogate pair in it, which no message can carry, is replaced.

    Raises:
        TypeError: it is none.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError
    return (value or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def count(value: object) -> int:
    """Return a number from 0 to `MOST_COUNT`.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_COUNT:
        raise TypeError
    return value


def read_json(written: str | bytes) -> Any:  # noqa: ANN401 - a vendor's answer
    """Read JSON.

    Raises:
        ValueError: it is none, or deeper than can be read.
    """
    try:
        return json.loads(written)
    except RecursionError:
        raise ValueError from None


def check_error(event: Any) -> None:  # noqa: ANN401 - a vendor's
    """Raise what a vendor says has gone wrong since it began to answer.

    Raises:
        BrokenStreamError: something has.
    """
    if isinstance(event, dict) and cast("dict[str, object]", event).get("error"):
        raise BrokenStreamError


async def read_events(response: httpx2.Response) -> AsyncGenerator[Any]:
    """Yield the JSON of each event of a stream, up to its end or OpenAI's ``[DONE]``; then close it.

    Source: the HTML standard, "Server-sent events"; here an event is its data alone.

    Raises:
        ValueError: some data is no JSON.
        httpx2.HTTPError: the connection broke.
    """
    response.encoding = "utf-8"
    lines = response.aiter_lines()
    data: list[str] = []
    try:
        async for line in lines:
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                whole, data = "\n".join(data), []
                if whole == "[DONE]":
                    with trio.move_on_after(DRAINING):  # read to its end, a connection serves again
                        async for _ in lines:
                            pass
                    return
                yield read_json(whole)
    finally:
        await _leave(response, lines)  # noqa: ASYNC102 - shielded there


async def _leave(response: httpx2.Response, lines: AsyncIterator[str]) -> None:
    """Close a stream that may not have come to its end."""
    await end_reading(lines)
    with trio.move_on_after(CLOSING, shield=True):
        await response.aclose()
