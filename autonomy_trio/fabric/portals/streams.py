"""What programs hold of a portal's stream, and what joins one with a connection."""

from collections.abc import Awaitable, Callable
from typing import Final, final

import attrs
import trio

from autonomy_trio.fabric.portals.places import abort
from autonomy_trio.wire.lanes import PIECE_BYTES
from autonomy_trio.wire.portals import PortalEnd

RECEIVE_BYTES: Final = PIECE_BYTES
"""Bytes asked of a connection at once."""


@final
@attrs.define(eq=False)
class Waits:
    """The tasks that wait for one end of a stream."""

    end: PortalEnd
    _readers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _writers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def __attrs_post_init__(self) -> None:
        self.end.readable = self._wake_readers
        self.end.writable = self._wake_writers

    async def wait_read(self) -> bytes:
        """Return bytes that have come, which are to be counted with `PortalEnd.take`; none at the end.

        Raises:
            trio.BrokenResourceError: the stream was reset, or its other node is lost.
        """
        while not (data := self.end.read()):
            self.check()
            if self.end.has_ended:
                return b""
            await self._readers.park()
        return data

    async def wait_room(self) -> None:
        """Return when something may be written.

        Raises:
            trio.BrokenResourceError: as `wait_read`.
        """
        self.check()
        while self.end.room <= 0:
            await self._writers.park()
            self.check()

    async def wait_over(self) -> None:
        """Return when both ends have taken all, or the stream is lost."""
        while not (self.end.is_over or self.end.lost):
            await self._writers.park()

    async def wait_settled(self) -> None:
        """Return when all that was written was taken over there, and all that has come here, or the stream is over."""
        while not (self.end.is_settled or self.end.is_over):
            await self._writers.park()

    def check(self) -> None:
        """Raise where the stream was closed here, or is over before its time."""
        self.check_closed()
        if self.end.lost is not None:
            raise trio.BrokenResourceError(f"the portal's stream has ended: {self.end.lost}")

    def check_closed(self) -> None:
        """Raise where the stream was closed here."""
        if self.end.is_closed:
            raise trio.ClosedResourceError("this portal's stream was closed here")

    def _wake_readers(self) -> None:
        self._readers.unpark_all()

    def _wake_writers(self) -> None:
        self._writers.unpark_all()


@final
class PortalStream(trio.abc.HalfCloseableStream):
    """A stream of bytes to whatever an outlet leads to; made by `Node.connect`.

    As with TCP, what was sent has not arrived yet when a send returns, and what the other node or its target does shows
    as `trio.BrokenResourceError`: it is lost, or has reset the connection. What ends in good order reads as ``b""``.
    """

    def __init__(self, end: PortalEnd) -> None:
        self._end = end
        self._waits = Waits(end)
        self._is_finished = False
        self._sending = trio.StrictFIFOLock()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, waiting while 256 KiB are under way.

        Raises:
            trio.ClosedResourceError: the stream was closed here, or `send_eof` was called.
            trio.BusyResourceError: another task sends.
            trio.BrokenResourceError: the stream was reset, or the other node is lost.

        On cancellation a part may have been sent.
        """
        self._claim()
        try:
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            for start in range(0, len(view), PIECE_BYTES):
                await self._waits.wait_room()
                self._check_open()
                self._end.write(bytes(view[start : start + PIECE_BYTES]))
        finally:
            self._sending.release()

    async def wait_send_all_might_not_block(self) -> None:
        """Return when bytes may be sent; raises as `send_all`."""
        self._claim()
        try:
            await trio.lowlevel.checkpoint()
            await self._waits.wait_room()
        finally:
            self._sending.release()

    async def send_eof(self) -> None:
        """End this direction; the other one goes on. Raises as `send_all`."""
        if self._is_finished:
            await trio.lowlevel.checkpoint()
            return
        self._claim()
        try:
            await trio.lowlevel.checkpoint()
            self._is_finished = True
            self._end.finish()
        finally:
            self._sending.release()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return bytes that have come, at most so many; ``b""`` where the other end has sent all.

        Raises:
            trio.ClosedResourceError: the stream was closed here.
            trio.BrokenResourceError: the stream was reset, or the other node is lost.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes is at least 1")
        await trio.lowlevel.checkpoint()
        self._waits.check_closed()
        data = await self._waits.wait_read()
        if max_bytes is not None and len(data) > max_bytes:
            self._end.unread(data[max_bytes:])
            data = data[:max_bytes]
        if data:
            self._end.take(len(data))
        else:
            self._end.take_end()
        return data

    async def aclose(self) -> None:
        """Close the stream: what was sent still arrives, and the other end is told that nobody reads any more.

        Cancelled before, the stream is reset in place of that.
        """
        if not self._end.is_closed:
            self._end.close(trio.current_time())
            self._end.readable()
            self._end.writable()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            self._end.reset()
            raise

    def reset(self) -> None:
        """End the stream at once, so that the other end sees an error; what was not taken there is lost."""
        self._end.is_closed = True
        self._end.reset()

    def _claim(self) -> None:
        self._check_open()
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            raise trio.BusyResourceError("another task is sending on this portal's stream") from None

    def _check_open(self) -> None:
        self._waits.check_closed()
        if self._is_finished:
            raise trio.ClosedResourceError("send_eof was called: nothing more can be sent")
        self._waits.check()


@final
@attrs.define(eq=False)
class Carrying:
    """A connection and a portal's stream that are joined: what comes on one leaves on the other."""

    connection: trio.SocketStream
    _waits: Waits
    _outward: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _all: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Carry bytes both ways until both directions have ended; where one end breaks, the other is reset too."""
        end = self._waits.end
        try:
            with self._all:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guard, nursery.cancel_scope, self._carry_out)
                    await self._guard(nursery.cancel_scope, self._carry_in)
                if end.lost is None and end.has_ended:
                    await self.connection.aclose()
                    await self._waits.wait_over()
        finally:
            end.reset()
            abort(self.connection)

    async def drain(self) -> None:
        """Read no more from the connection; reset it when all that was read has been taken."""
        self._outward.cancel()
        await self._waits.wait_settled()
        self._all.cancel()

    async def _guard(self, scope: trio.CancelScope, carry: Callable[[], Awaitable[None]]) -> None:
        try:
            await carry()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._waits.end.reset()
            scope.cancel()

    async def _carry_out(self) -> None:
        end = self._waits.end
        with self._outward:
            while data := await self.connection.receive_some(RECEIVE_BYTES):
                end.write(bytes(data))
                if end.room <= 0:
                    await self._waits.wait_room()
            end.finish()

    async def _carry_in(self) -> None:
        end = self._waits.end
        while data := await self._waits.wait_read():
            await self.connection.send_all(data)
            end.take(len(data))
        await self.connection.send_eof()
        end.take_end()
