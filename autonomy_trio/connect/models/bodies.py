"""How much a vendor may answer: what reads its bytes stops where a library would fill the memory."""

from collections.abc import AsyncIterator
from typing import Final, cast

import httpx2
import trio

from autonomy_trio.connect.models.vendor import RubbishError

MOST_BODY: Final = 16 * 1024 * 1024
"""Bytes of one answer; a stream takes some 300 for a word."""
CONNECT_PATIENCE: Final = 10.0
"""Seconds to connect."""


async def end_reading(parts: AsyncIterator[object]) -> None:
    """End a reading of a body that may not have come to its end.

    Below it are half a dozen generators, each waiting at its ``yield`` inside the next one, which nobody but the
    garbage collector closes; a read that is cancelled ends them all.
    """
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        async for _ in parts:
            pass


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MOST_BODY
        chunks = aiter(self._stream)
        async for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                await end_reading(chunks)
                raise RubbishError(f"answered more than {MOST_BODY:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Bound what is read.

    Raises:
        RubbishError: it is compressed though nobody asked for that, so that few bytes could be any number.
    """
    if response.headers.get("content-encoding", "").lower() not in {"", "identity"}:
        raise RubbishError("answered compressed bytes, which were not asked for")
    response.stream = _Bounded(cast("httpx2.AsyncByteStream", response.stream))


def open_client(patience: float, at_once: int) -> httpx2.AsyncClient:
    """Return an HTTP client that follows no redirect, which could lead a key elsewhere, and bounds what it reads.

    Args:
        patience: seconds without a byte.
        at_once: connections.
    """
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(patience, connect=min(patience, CONNECT_PATIENCE)),
        limits=httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once),
        event_hooks={"response": [_bound]},
        headers={"accept-encoding": "identity"},
    )
