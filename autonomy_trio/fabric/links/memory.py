"""Links in memory: two ends in one process, for tests."""

from typing import final

import attrs
import trio

from autonomy_trio.errors import LinkBroken


@final
@attrs.frozen(eq=False)
class MemoryLink:
    """One end of a link in memory."""

    _send: trio.MemorySendChannel[bytes]
    _receive: trio.MemoryReceiveChannel[bytes]
    remote: str = "memory"

    async def send(self, message: bytes) -> None:
        """See `Link.send`."""
        try:
            await self._send.send(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LinkBroken("the link was closed") from None
        except trio.Cancelled:
            self._send.close()
            self._receive.close()
            raise

    async def receive(self) -> bytes:
        """See `Link.receive`."""
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LinkBroken("the link was closed") from None

    async def aclose(self) -> None:
        """See `Link.aclose`."""
        self._send.close()
        self._receive.close()
        await trio.lowlevel.checkpoint()


def open_memory_links() -> tuple[MemoryLink, MemoryLink]:
    """Return the two ends of a link."""
    there_send, there_receive = trio.open_memory_channel[bytes](1)
    back_send, back_receive = trio.open_memory_channel[bytes](1)
    return MemoryLink(there_send, back_receive), MemoryLink(back_send, there_receive)
