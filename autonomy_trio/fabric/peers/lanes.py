"""The lanes of all other nodes: where the streams of portals are, and the task that keeps their time."""

from collections.abc import Callable
from typing import Final, final

import attrs
import trio

from autonomy_trio.wire.lanes import Lane

TICK: Final = 0.1
"""Seconds between two looks at what is to be told or sent again, while there is anything."""


@final
@attrs.define(eq=False)
class Lanes:
    """The lanes of one node."""

    resent: int = 0
    """How often streams of lanes that have ended were gone back in."""
    _all: dict[Lane, None] = attrs.field(factory=dict[Lane, None])
    _stirred: trio.Event = attrs.field(factory=trio.Event)
    _ticked: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def open(self, wake: Callable[[], None]) -> Lane:
        """Return a new lane.

        Args:
            wake: called when something can leave.
        """
        lane = Lane(wake, self._stir)
        self._all[lane] = None
        return lane

    def end(self, lane: Lane, why: str) -> None:
        """End a lane and its streams, for the other node has gone."""
        lane.lose_all(why)
        self.resent += lane.resent
        self._all.pop(lane, None)

    def __len__(self) -> int:
        """Return how many streams there are."""
        return sum(map(len, self._all))

    def resent_so_far(self) -> int:
        """Return how often streams were gone back in."""
        return self.resent + sum(lane.resent for lane in self._all)

    async def run(self) -> None:
        """Keep the time of the lanes, until cancelled."""
        while True:
            if not any(lane.is_waiting for lane in self._all):
                self._stirred = trio.Event()
                await self._stirred.wait()
            await trio.sleep(TICK)
            for lane in list(self._all):
                lane.tick(trio.current_time())
            self._ticked.unpark_all()

    async def wait_closed(self) -> None:
        """Return when none is left of the ends that were closed here: all that was sent on them has been taken."""
        while any(end.is_closed for lane in self._all for end in lane.ends()):
            await self._ticked.park()

    def _stir(self) -> None:
        self._stirred.set()
