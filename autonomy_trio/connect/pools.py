"""Connections to one datastore: few, made when wanted, each in one hand at a time, none given back in doubt."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar, final

import attrs
import trio

from autonomy_trio.errors import ConfigurationError, DatastoreLost, DatastoreTooSlow, UsageError


class Connection(Protocol):
    """What a `Pool` holds."""

    def is_fit(self) -> bool:
        """Tell whether somebody else could use it: it stands, and nothing is under way on it."""
        ...

    async def still_stands(self) -> bool:
        """Tell whether it stands after it was unused for a while."""
        ...

    async def aclose(self) -> None:
        """End it, for those who were cancelled too."""
        ...


C = TypeVar("C", bound=Connection)


@final
@attrs.define(eq=False)
class Pool(Generic[C]):
    """At most so many connections; the one that was used last is used next.

    When one is found lost, those that wait unused are closed too: the server has probably gone.
    """

    name: str
    """What is connected to, without secrets."""
    most: int
    limit: float
    """Seconds to wait for one that is free."""
    _connect: Callable[[], Awaitable[C]]
    _idle: list[C] = attrs.field(factory=list[C])
    _users: int = 0
    """How many keep it open."""
    _room: trio.Semaphore = attrs.field(
        init=False, default=attrs.Factory(lambda self: trio.Semaphore(self.most), takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        if self.most < 1 or self.limit <= 0:
            msg = f"{self.name}: connections={self.most!r}, limit={self.limit!r}: give it at least 1, and some seconds"
            raise ConfigurationError(msg)

    def open(self) -> None:
        """Keep it open until as many have closed it."""
        self._users += 1

    def check_alone(self) -> None:
        """Refuse to be opened by two.

        Raises:
            UsageError: it is open.
        """
        if self._users:
            msg = f"{self.name} is open already: who goes through an outlet needs one of its own, as it is judged there"
            raise UsageError(msg)

    async def aclose(self) -> bool:
        """Close it for one who opened it; tell whether that was the last, and unused connections are closed."""
        self._users -= 1
        if not self._users:
            await self._close_idle()
        return not self._users

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[C]:
        """Have a connection to oneself for a block; whoever leaves it unfit has it closed.

        Raises:
            UsageError: nobody keeps the pool open.
            DatastoreTooSlow: all were in use for so long.
            DatastoreUnreachable: none could be made.
        """
        self._check_open()
        with trio.move_on_after(self.limit) as waiting:
            await self._room.acquire()
        if waiting.cancelled_caught:
            msg = f"{self.name}: none of its {self.most} connections was free within {self.limit:g} s"
            raise DatastoreTooSlow(msg)
        try:
            self._check_open()
            async with self._used() as connection:
                yield connection
        finally:
            self._room.release()

    @asynccontextmanager
    async def _used(self) -> AsyncGenerator[C]:
        connection = await self._take()
        unfit: list[C] = []
        try:
            yield connection
        except DatastoreLost:
            unfit, self._idle = self._idle, []
            raise
        finally:
            if self._users and connection.is_fit():
                self._idle.append(connection)
            else:
                unfit.append(connection)
            for each in unfit:
                await each.aclose()

    async def _take(self) -> C:
        while self._idle:
            connection = self._idle.pop()
            stands = False
            try:
                stands = await connection.still_stands()
            finally:
                if not stands:
                    await connection.aclose()
            if stands:
                return connection
        return await self._connect()

    async def _close_idle(self) -> None:
        closing, self._idle = self._idle, []
        for each in closing:
            await each.aclose()

    def _check_open(self) -> None:
        if not self._users:
            msg = f"{self.name} is not open: `await context.start(it.serve)` in on_start, or `async with it:`"
            raise UsageError(msg)
