"""Mailboxes in an SQLite file: what is stored survives the process and the machine."""

import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, final

import attrs
import outcome
import trio

from autonomy_trio.fabric.stores.journal import Journal, StoreFailed, open_journal
from autonomy_trio.fabric.stores.store import ENVELOPE_COST, Envelope, Place, Quota, Usage
from autonomy_trio.logs import get_log

VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE envelopes (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    destination BLOB NOT NULL,
    id BLOB NOT NULL,
    source BLOB NOT NULL,
    expires INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    packet BLOB NOT NULL
);
CREATE UNIQUE INDEX once ON envelopes (destination, id);
CREATE INDEX in_order ON envelopes (destination);
CREATE INDEX by_age ON envelopes (expires)
"""

EXPIRE_EVERY: Final = 60.0
"""Seconds between two looks for envelopes that have expired."""

LOOK_EVERY: Final = 5.0
"""Seconds between two looks how old the oldest envelope is, which `SqliteStore.usage` tells."""

EXPIRED_AT_ONCE: Final = 1000
"""Envelopes that are dropped in one commit because they have expired."""

READ_BYTES: Final = 4 * 1024 * 1024
"""Bytes read from a mailbox at once, beside the first envelope."""

_log = get_log()

_Gone = list[tuple[bytes, bytes, int]]
"""Destination, source and packet bytes of envelopes that went."""


@final
@attrs.define(eq=False)
class SqliteStore:
    """Envelopes in one file; made by `open_sqlite_store`."""

    _journal: Journal
    _now: Callable[[], float]
    quota: Quota
    _oldest: float | None = None

    async def put(self, envelopes: Sequence[Envelope]) -> Sequence[str | None]:
        """See `Store.put`."""
        refusals = [self.quota.take(envelope) for envelope in envelopes]
        kept = [envelope for envelope, refusal in zip(envelopes, refusals, strict=True) if refusal is None]
        if not kept:
            await trio.lowlevel.checkpoint()
            return refusals

        def settled(result: outcome.Outcome[list[bool]]) -> None:
            new = result.value if isinstance(result, outcome.Value) else [False] * len(kept)
            self._went(outcome.Value([_row(each) for each, is_new in zip(kept, new, strict=True) if not is_new]))

        now = int(self._now())
        try:
            await self._journal.do(lambda connection: _insert(connection, kept, now), settled)
        except StoreFailed as error:
            _log.error("envelopes not stored", count=len(kept), why=str(error))
            return [refusal or "disk failed" for refusal in refusals]
        return refusals

    async def read(self, destination: bytes, after: Place, most: int) -> Sequence[tuple[Place, Envelope]]:
        """See `Store.read`."""
        now = int(self._now())
        return await self._journal.do(lambda connection: _read(connection, destination, after, most, now))

    async def forget(self, destination: bytes, ids: Sequence[bytes]) -> None:
        """See `Store.forget`."""
        await self._journal.do(lambda connection: _forget(connection, destination, ids), self._went)

    async def load(self) -> None:
        """Count what the file holds.

        Raises:
            StoreFailed: it cannot be read.
        """
        for destination, source, count, size in await self._journal.do(_totals):
            self.quota.add(destination, source, count, size + count * ENVELOPE_COST)

    async def expire(self) -> None:
        """Drop what has expired.

        Raises:
            StoreFailed: it is kept for now.
        """
        now = int(self._now())
        while True:
            gone = await self._journal.do(lambda connection: _expire(connection, now), self._went)
            if len(gone) < EXPIRED_AT_ONCE:
                return

    def usage(self) -> Usage:
        """See `Store.usage`: the oldest is what it was at most `LOOK_EVERY` seconds ago."""
        return Usage(self.quota.envelopes, self.quota.held, self._oldest if self.quota.envelopes else None)

    async def look(self) -> None:
        """Look how old the oldest envelope is.

        Raises:
            StoreFailed: it cannot be read.
        """
        self._oldest = await self._journal.do(_oldest)

    async def run(self) -> None:
        """Drop what expires and look how old the rest is, until cancelled."""
        expires_at = trio.current_time()
        while True:
            try:
                if trio.current_time() >= expires_at:
                    expires_at += EXPIRE_EVERY
                    await self.expire()
                await self.look()
            except StoreFailed as error:
                _log.warning("expired envelopes stay", why=str(error))
            await trio.sleep(LOOK_EVERY)

    def _went(self, result: outcome.Outcome[_Gone]) -> None:
        if isinstance(result, outcome.Value):
            for destination, source, size in result.value:
                self.quota.add(destination, source, -1, -size - ENVELOPE_COST)


@asynccontextmanager
async def open_sqlite_store(
    path: Path, *, quota: Quota | None = None, now: Callable[[], float] = time.time
) -> AsyncGenerator[SqliteStore]:
    """Open the mailboxes of a file for the length of a block, creating it for this user alone.

    Args:
        path: the file.
        quota: how much it may hold.
        now: Unix seconds.

    Raises:
        ConfigurationError: the file cannot be used, or another relay uses it.
        StoreFailed: it cannot be read.
    """
    async with open_journal(path, _SCHEMA, VERSION) as journal:
        store = SqliteStore(journal, now, quota or Quota())
        await store.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            yield store
            nursery.cancel_scope.cancel()


def _row(envelope: Envelope) -> tuple[bytes, bytes, int]:
    return envelope.destination, envelope.source, len(envelope.packet)


def _insert(connection: sqlite3.Connection, envelopes: Sequence[Envelope], now: int) -> list[bool]:
    """Insert envelopes; tell of each whether it is new."""
    insert = (
        "INSERT INTO envelopes (destination, id, source, expires, stored, packet) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING"
    )
    rows = ((each.destination, each.id, each.source, each.expires, now, each.packet) for each in envelopes)
    return [connection.execute(insert, row).rowcount > 0 for row in rows]


def _read(
    connection: sqlite3.Connection, destination: bytes, after: Place, most: int, now: int
) -> list[tuple[Place, Envelope]]:
    rows = connection.execute(
        "SELECT place, id, source, expires, packet FROM envelopes INDEXED BY in_order"
        " WHERE destination = ? AND place > ? AND expires > ? ORDER BY place LIMIT ?",
        (destination, after, now, most),
    )
    found: list[tuple[Place, Envelope]] = []
    size = 0
    for place, identifier, source, expires, packet in rows:
        size += len(packet)
        if found and size > READ_BYTES:
            break
        found.append((place, Envelope(identifier, destination, source, expires, packet)))
    return found


def _forget(connection: sqlite3.Connection, destination: bytes, ids: Sequence[bytes]) -> _Gone:
    delete = "DELETE FROM envelopes WHERE destination = ? AND id = ? RETURNING destination, source, length(packet)"
    return [row for each in ids for row in connection.execute(delete, (destination, each)).fetchall()]


def _expire(connection: sqlite3.Connection, now: int) -> _Gone:
    return connection.execute(
        "DELETE FROM envelopes WHERE place IN (SELECT place FROM envelopes WHERE expires <= ? LIMIT ?)"
        " RETURNING destination, source, length(packet)",
        (now, EXPIRED_AT_ONCE),
    ).fetchall()


def _oldest(connection: sqlite3.Connection) -> float | None:
    row = connection.execute("SELECT stored FROM envelopes ORDER BY place LIMIT 1").fetchone()
    return None if row is None else row[0]


def _totals(connection: sqlite3.Connection) -> list[tuple[bytes, bytes, int, int]]:
    return connection.execute(
        "SELECT destination, source, count(*), sum(length(packet)) FROM envelopes GROUP BY destination, source"
    ).fetchall()
