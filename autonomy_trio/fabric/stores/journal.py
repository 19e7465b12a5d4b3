"""One SQLite file, written by one thread at a time, with many changes in one commit.

What waits while the disk is busy with one commit goes into the next, so a thousand writers pay for few flushes. A
change is done when the disk has it: the journal is write-ahead, and each commit is flushed (``synchronous=FULL``).
"""

import os
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast, final

import attrs
import outcome
import trio

from autonomy_trio.errors import AutonomyError, ConfigurationError

T = TypeVar("T")

Change = Callable[[sqlite3.Connection], T]
"""Runs in a thread, inside a transaction; it may be run again after one that failed, and changes nothing else."""

MOST_TOGETHER: Final = 256
"""Changes in one commit."""

MOST_WAITING: Final = 16_384
"""Changes that wait; whoever comes then waits for room."""


class StoreFailed(AutonomyError):
    """The disk, or what keeps the envelopes, refused; nothing has changed."""


@final
@attrs.define(eq=False)
class _Job:
    change: Change[Any]
    settled: Callable[[outcome.Outcome[Any]], None]


@final
@attrs.define(eq=False)
class Journal:
    """An SQLite file; made by `open_journal`."""

    path: Path
    _connection: sqlite3.Connection
    _jobs: deque[_Job] = attrs.field(factory=deque[_Job])
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _came: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def do(self, change: Change[T], settled: Callable[[outcome.Outcome[T]], None] = lambda _: None) -> T:
        """Make a change, and return what it returns once the disk has it.

        Args:
            change: what to do.
            settled: takes what became of it, once, also where the caller was cancelled; never waits.

        Raises:
            StoreFailed: the disk refused.

        On cancellation before it began to wait nothing has happened; later the change is made all the same.
        """
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while len(self._jobs) >= MOST_WAITING:
                await self._room.park()
        except BaseException as error:
            settled(outcome.Error(error))
            raise
        done = trio.Event()
        result: list[outcome.Outcome[T]] = []

        def finish(what: outcome.Outcome[T]) -> None:
            settled(what)
            result.append(what)
            done.set()

        self._jobs.append(_Job(change, cast("Callable[[outcome.Outcome[Any]], None]", finish)))
        self._came.unpark_all()
        await done.wait()
        return result[0].unwrap()

    async def run(self) -> None:
        """Make the changes that come, until cancelled."""
        while True:
            while not self._jobs:
                await self._came.park()
            batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), MOST_TOGETHER))]
            self._room.unpark_all()
            changes = [job.change for job in batch]
            results = await trio.to_thread.run_sync(self._make, changes, limiter=self._limiter)
            for job, result in zip(batch, results, strict=True):
                job.settled(result)

    def _make(self, changes: list[Change[Any]]) -> list[outcome.Outcome[Any]]:
        together = outcome.capture(self._commit, changes)
        if isinstance(together, outcome.Value):
            return [outcome.Value(each) for each in together.value]
        if len(changes) == 1:
            return [outcome.Error(_failure(self.path, together.error))]
        # One change must not take the others with it.
        return [each for change in changes for each in self._make([change])]

    def _commit(self, changes: list[Change[Any]]) -> list[Any]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [change(connection) for change in changes]
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                connection.execute("ROLLBACK")
            raise
        return results


@asynccontextmanager
async def open_journal(path: Path, schema: str, version: int) -> AsyncGenerator[Journal]:
    """Open an SQLite file for the length of a block, creating it for this user alone.

    Args:
        path: the file; SQLite puts two more beside it while it is open.
        schema: the statements that make its tables.
        version: of the schema, 1 or higher.

    Raises:
        ConfigurationError: it cannot be opened, is open elsewhere, is no SQLite file or one of another version.

    Leaving the block waits for what was asked for; when it is left by an exception, what waits is not done.
    """
    connection = await trio.to_thread.run_sync(_open, path, schema, version)
    journal = Journal(path, connection)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            yield journal
            with suppress(StoreFailed):
                await journal.do(lambda _: None)  # behind all that waits
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(connection.close)


def _open(path: Path, schema: str, version: int) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be used ({error.strerror}): name a file in a folder of yours"
        ) from None
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        _prepare(connection, path, schema, version)
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error):
            raise ConfigurationError(f"{path} is open in another process: stop that, or name another file") from None
        raise ConfigurationError(f"{path} cannot be used: {error}") from None
    except sqlite3.DatabaseError as error:
        connection.close()
        raise ConfigurationError(f"{path} is damaged, or no SQLite file ({error}): move it away") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, schema: str, version: int) -> None:
    # Exclusive: two processes on one file would each believe in totals of their own.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found not in (0, version):
        raise ConfigurationError(f"{path} is of version {found}, and this release reads {version}: name another file")
    if found == 0:
        for statement in filter(None, map(str.strip, schema.split(";"))):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version:d}")
    connection.execute("COMMIT")


def _failure(path: Path, error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.Error):
        return StoreFailed(f"{path} was not written ({error}): see to the disk")
    return error
