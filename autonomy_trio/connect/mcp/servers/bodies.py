"""How much a server over HTTP may answer: the SDK bounds an event, and reads any other body whole."""

from collections.abc import AsyncIterator
from typing import Final, cast

import httpx2

from autonomy_trio.connect.mcp.servers import lines

ASKED: Final = {"accept-encoding": "identity"}
"""Headers for answers whose size is what comes."""
_EVENTS: Final = "text/event-stream"


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                await self._stream.aclose()
                raise httpx2.StreamError(f"it has more than {self._most:,} bytes, or is compressed")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def bound(response: httpx2.Response) -> None:
    """Have the reading of a response fail where that is too large, and no events, or compressed, unasked."""
    is_plain = response.headers.get("content-encoding", "").lower() in {"", "identity"}
    if not is_plain or not response.headers.get("content-type", "").lower().startswith(_EVENTS):
        stream = cast("httpx2.AsyncByteStream", response.stream)
        response.stream = _Bounded(stream, lines.MOST_LINE if is_plain else 0)
