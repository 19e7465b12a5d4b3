"""Pools: one name, several agents, each message to the least loaded."""

from typing import TYPE_CHECKING, Literal, final

import attrs

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Breed, Cell
    from autonomy_trio.actors.delivery import Delivery
    from autonomy_trio.actors.relations import End
    from autonomy_trio.actors.spec import Spec
    from autonomy_trio.actors.voices import Voice
    from autonomy_trio.errors import NotHandled


@final
@attrs.define(eq=False, repr=False)
class PoolCell:
    """The agents of one pool, under its name."""

    name: str
    members: "list[Cell]"
    _next: int = 0

    @property
    def breed(self) -> "Breed":
        """What its agents share."""
        return self.members[0].breed

    @property
    def spec(self) -> "Spec":
        """What their class declares."""
        return self.members[0].spec

    @property
    def state(self) -> Literal["running", "stopped"]:
        """Whether any of its agents lives."""
        return "stopped" if all(each.state == "stopped" for each in self.members) else "running"

    def chosen(self) -> "Cell":
        """Return the least loaded agent; those with the same load take turns."""
        self._next += 1
        count = len(self.members)
        turns = [self.members[(self._next + offset) % count] for offset in range(count)]
        return min(turns, key=_load)

    def living(self) -> "Cell":
        """Return an agent that has not ended, or the last."""
        return next((each for each in self.members if each.state != "stopped"), self.members[-1])

    def offer(self, delivery: "Delivery") -> bool:
        """Queue a delivery for the least loaded agent; see `Cell.offer`."""
        return self.chosen().offer(delivery)

    def accept_nowait(self, delivery: "Delivery") -> None:
        """Queue a delivery for the least loaded agent; see `Cell.accept_nowait`."""
        self.chosen().accept_nowait(delivery)

    async def accept(self, delivery: "Delivery", waiter: "Voice | None") -> None:
        """Queue a delivery for the least loaded agent, waiting for room there; see `Cell.accept`."""
        await self.chosen().accept(delivery, waiter)

    def not_handled(self, message: object) -> "NotHandled":
        """Say that the agents have no handler for a message."""
        return self.members[0].not_handled(message)

    def stop(self, patience: float, fate: "End" = "stopped") -> None:
        """Stop all agents."""
        for cell in self.members:
            cell.stop(patience, fate)

    async def wait_stopped(self) -> None:
        """Return when all have ended."""
        for cell in self.members:
            await cell.wait_stopped()


def _load(cell: "Cell") -> float:
    if cell.state in ("stopping", "stopped"):
        return float("inf")
    crew = cell.crew
    if crew is None:
        return 0
    return crew.queued() + crew.size - len(crew.parked) + (cell.state != "running")
