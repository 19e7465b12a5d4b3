"""Inlets: sockets whose clients reach what an outlet leads to."""

import errno
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from autonomy_trio.errors import AutonomyError
from autonomy_trio.fabric.portals.outlets import drain_all
from autonomy_trio.fabric.portals.places import Place, abort
from autonomy_trio.fabric.portals.streams import Carrying, Waits
from autonomy_trio.groups import fence, single_error
from autonomy_trio.logs import get_log

if TYPE_CHECKING:
    from autonomy_trio.wire.portals import PortalEnd

FULL_PAUSE: Final = 0.1
"""Seconds until a connection is accepted again where the system has no room for one."""

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = get_log()


@final
@attrs.define(eq=False)
class Inlet:
    """An inlet of this node; made by `Node.inlet`."""

    address: str
    """Where its clients connect, with the port it has: ``HOST:PORT`` or ``unix:PATH``."""
    to: str
    """The address of the outlet."""
    _open: Callable[[], Awaitable["PortalEnd"]]
    _nursery: trio.Nursery
    _places: trio.Semaphore
    _accepting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _carried: dict[Carrying, None] = attrs.field(factory=dict[Carrying, None])

    def __repr__(self) -> str:
        return f"<Inlet {self.address} to {self.to}>"

    @property
    def streams(self) -> int:
        """How many clients are connected through it now."""
        return len(self._carried)

    async def accept_all(self, listeners: list[trio.SocketListener]) -> None:
        """Accept clients until it drains, as many at once as there are places; others wait in the system's queue."""
        with self._accepting:
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(self._accept, listener)

    async def _accept(self, listener: trio.SocketListener) -> None:
        while True:
            await self._places.acquire()
            try:
                connection = await listener.accept()
            except OSError as error:
                self._places.release()
                if error.errno not in _NO_ROOM:
                    raise
                _log.warning("no client accepted", inlet=self.address, why=str(error.strerror))
                await trio.sleep(FULL_PAUSE)
            except BaseException:
                self._places.release()
                raise
            else:
                self._nursery.start_soon(self._serve, connection, name=f"inlet {self.address}")

    async def drain(self, seconds: float) -> None:
        """Accept no more clients, and end the streams there are when what was read of them has been taken."""
        self._accepting.cancel()
        with trio.move_on_after(seconds):
            await drain_all(list(self._carried))

    async def _serve(self, connection: trio.SocketStream) -> None:
        def failed(error: Exception) -> None:
            shown = {} if isinstance(error, AutonomyError | trio.TooSlowError) else {"exc_info": error}
            why = str(error) or "the outlet did not answer in time"
            _log.warning("client not connected", inlet=self.address, to=self.to, why=why, **shown)

        try:
            # Fence: one client; the inlet and the others go on.
            with fence(failed):
                end = await self._opened(connection)
                if end is not None:
                    await self._carry(Carrying(connection, Waits(end)))
        finally:
            self._places.release()

    async def _opened(self, connection: trio.SocketStream) -> "PortalEnd | None":
        try:
            return await self._open()
        except BaseException:
            abort(connection)
            raise

    async def _carry(self, carrying: Carrying) -> None:
        self._carried[carrying] = None
        try:
            await carrying.run()
        finally:
            del self._carried[carrying]


@asynccontextmanager
async def open_inlet(
    listen: str, to: str, most_streams: int, opens: Callable[[], Awaitable["PortalEnd"]], grace: float
) -> AsyncGenerator[Inlet]:
    """Be an inlet for the length of a block; see `Node.inlet`."""
    listeners, place = await Place.parse(listen).listen()
    try:
        with single_error():
            async with trio.open_nursery() as nursery:
                inlet = Inlet(str(place), to, opens, nursery, trio.Semaphore(most_streams))
                nursery.start_soon(inlet.accept_all, listeners)
                yield inlet
                await inlet.drain(grace)
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await place.close_all(listeners)
