"""Outlets: agents that let streams leave the fabric, to one target each."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from autonomy_trio.actors.delivery import Sender
from autonomy_trio.fabric.links.listening import system_reason
from autonomy_trio.fabric.portals.connecting import Full, Unreachable
from autonomy_trio.fabric.portals.connecting import Outlet as OutletAgent
from autonomy_trio.fabric.portals.places import Place, abort
from autonomy_trio.fabric.portals.streams import Carrying, Waits
from autonomy_trio.groups import single_error
from autonomy_trio.logs import get_log

if TYPE_CHECKING:
    from autonomy_trio.wire.portals import PortalEnd

CONNECT_LIMIT: Final = 5.0
"""Seconds a target may take to accept a connection."""

_log = get_log()


Accept = Callable[[Sender, int], "PortalEnd | None"]
"""Takes who opens a stream and its number; returns this end of it, or None where its opener has gone. Raises `Full`."""


@final
@attrs.define(eq=False)
class Outlet:
    """An outlet of this node; made by `Node.outlet`."""

    name: str
    """The name of its agent."""
    address: str
    """What it is called elsewhere: what an inlet is given."""
    target: str
    """Where its streams lead."""
    most_streams: int
    _place: Place
    _accept: Accept
    _nursery: trio.Nursery
    _carried: dict[Carrying, None] = attrs.field(factory=dict[Carrying, None])
    _connecting: int = 0
    _is_closed: bool = False

    def __repr__(self) -> str:
        return f"<Outlet {self.address} to {self.target}>"

    @property
    def streams(self) -> int:
        """How many streams go through it now."""
        return len(self._carried) + self._connecting

    async def open(self, number: int, sender: Sender) -> None:
        """Connect to the target, and join a stream of another node with the connection.

        Raises:
            Unreachable, Full: there is no stream.
        """
        if self.streams >= self.most_streams:
            raise Full(f"{self.most_streams} streams go through the outlet already")
        self._connecting += 1
        try:
            connection = await self._connect()
        finally:
            self._connecting -= 1
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            end = self._accepted(sender, number)
        except BaseException:
            abort(connection)
            raise
        carrying = Carrying(connection, Waits(end))
        self._carried[carrying] = None
        self._nursery.start_soon(self._carry, carrying, name=f"outlet {self.name}")

    def close(self) -> None:
        """Take no more streams."""
        self._is_closed = True

    async def drain(self, seconds: float) -> None:
        """End the streams there are when what was read of them has been taken."""
        with trio.move_on_after(seconds):
            await drain_all(list(self._carried))

    def _accepted(self, sender: Sender, number: int) -> "PortalEnd":
        if self._is_closed:
            raise Unreachable("the outlet is closing")
        end = self._accept(sender, number)
        if end is None:
            raise Unreachable("who opened the stream has gone")
        return end

    async def _connect(self) -> trio.SocketStream:
        try:
            with trio.fail_after(CONNECT_LIMIT):
                return await self._place.connect()
        except trio.TooSlowError:
            why, seen = "the outlet's target did not answer", f"no answer in {CONNECT_LIMIT:g} s"
        except OSError as error:
            why, seen = "the outlet's target refused the connection", system_reason(error)
        _log.warning("target not reached", outlet=self.name, target=self.target, why=seen)
        raise Unreachable(why)

    async def _carry(self, carrying: Carrying) -> None:
        try:
            await carrying.run()
        finally:
            del self._carried[carrying]


async def drain_all(carried: list[Carrying]) -> None:
    """Drain all connections, and return when they are."""
    async with trio.open_nursery() as nursery:
        for each in carried:
            nursery.start_soon(each.drain)


@asynccontextmanager
async def open_outlet(  # noqa: PLR0913, PLR0917 - what the node hands on
    name: str,
    target: str,
    policies: AbstractContextManager[None],
    most_streams: int,
    accept: Accept,
    spawn: Callable[[Callable[[], Any], str], Any],
    address: Callable[[str], str],
    grace: float,
) -> AsyncGenerator[Outlet]:
    """Be an outlet for the length of a block; see `Node.outlet`."""
    place = Place.parse_target(target)
    with single_error(), policies:
        async with trio.open_nursery() as nursery:
            outlet = Outlet(name, address(name), str(place), most_streams, place, accept, nursery)
            ref = spawn(lambda: OutletAgent(outlet.open), name)
            try:
                yield outlet
                outlet.close()
                await outlet.drain(grace)
            finally:
                outlet.close()
                ref.stop()
            with trio.move_on_after(grace):
                await ref.stopped()
            nursery.cancel_scope.cancel()
