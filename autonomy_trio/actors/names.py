"""The names of one node's agents: each is held by one agent, or one pool, until that has ended."""

from typing import Final, final

import attrs

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.actors.spec import Spec
from autonomy_trio.actors.supervision import taken_twice
from autonomy_trio.errors import NameTaken, UsageError

MOST_NAME: Final = 255
"""Characters of an agent's name: what an address has room for."""


@final
@attrs.define(eq=False, repr=False)
class Names:
    """Who goes by which name, in the order in which they were spawned."""

    held: dict[str, Cell | PoolCell] = attrs.field(factory=dict[str, Cell | PoolCell])
    _numbers: dict[str, int] = attrs.field(factory=dict[str, int])

    def check(self, name: str) -> str:
        """Return a name that a user has chosen, if it can be one and is free."""
        taken = self.held.get(name)
        if taken is not None:
            msg = f"{name!r} is the name of a {taken.spec.agent} on this node: choose another"
            raise NameTaken(msg)
        can_be = 0 < len(name) <= MOST_NAME and name.isprintable() and name[0] != "#"
        if not can_be or any(letter == "/" or letter.isspace() for letter in name):
            msg = (
                f"{name[:MOST_NAME]!r} cannot be an agent's name: use letters, digits, '_', '-' or '.',"
                f" {MOST_NAME} of them at most"
            )
            raise UsageError(msg)
        return name

    def number(self, spec: Spec, *, listed: bool) -> str:
        """Return a class's name for an unnamed agent: as it is first, then with a number never used before.

        Raises:
            NameTaken: an app lists it, whose agents get no number.
        """
        name = spec.name
        if name not in self.held and (listed or name not in self._numbers):
            return name
        if listed:
            raise taken_twice("the app", name, spec.agent)
        number = self._numbers.get(name, 1) + 1
        while (numbered := f"{name}_{number}") in self.held:
            number += 1
        self._numbers[name] = number
        return numbered

    def forget(self, cell: Cell) -> None:
        """Give an ended agent's name back, and its pool's with that of the last member."""
        if self.held.get(cell.name) is cell:
            del self.held[cell.name]
        pool = self.held.get(cell.name.partition("/")[0])
        if isinstance(pool, PoolCell) and pool.state == "stopped":
            del self.held[pool.name]
