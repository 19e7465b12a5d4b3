"""What a node keeps for durable messages: which envelopes came, or were tried, and the bundles of nodes it has met.

In a home both survive the process, in a file of their own; without one they live in memory.
"""

import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, final

import attrs
import trio

from autonomy_trio.errors import IdentityError
from autonomy_trio.fabric.stores.journal import Journal, open_journal
from autonomy_trio.logs import get_log
from autonomy_trio.trust.identity import Bundle, verify_bundle
from autonomy_trio.wire.remembered import Remembered

FILE: Final = "durable.sqlite3"
VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE came (sender BLOB NOT NULL, id BLOB NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (sender, id))
    WITHOUT ROWID;
CREATE INDEX by_age ON came (expires);
CREATE TABLE tried (sender BLOB NOT NULL, id BLOB NOT NULL, times INTEGER NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY (sender, id)) WITHOUT ROWID;
CREATE TABLE met (node BLOB PRIMARY KEY, bundle BLOB NOT NULL, expires INTEGER NOT NULL)
"""

MOST_TRIED: Final = 100_000
"""Envelopes of which it is counted how often they were tried; of more it is not."""

MOST_MET: Final = 10_000
"""Nodes whose bundles are kept; past them those that expire first go."""

_log = get_log()


@attrs.frozen
class Known:
    """What relays know of a node; verified, its credentials not yet judged."""

    bundle: Bundle
    presentations: Sequence[bytes]


@final
@attrs.define(eq=False)
class Memories:
    """What came and who was met; made by `open_memories`."""

    _journal: Journal | None
    _came: Remembered = attrs.field(factory=Remembered)
    _met: dict[bytes, Bundle] = attrs.field(factory=dict[bytes, Bundle])
    _tried: dict[tuple[bytes, bytes], tuple[int, int]] = attrs.field(factory=dict[tuple[bytes, bytes], tuple[int, int]])
    """How often each envelope was tried that is not settled, and when it expires."""

    def has(self, sender: bytes, identifier: bytes) -> bool:
        """Tell whether an envelope came already."""
        return (sender, identifier) in self._came

    def check_room(self, sender: bytes) -> None:
        """Refuse an envelope that could not be remembered.

        Raises:
            Overloaded: too many are remembered, of this sender or in all.
        """
        self._came.check_room(sender)

    async def remember(self, sender: bytes, identifier: bytes, expires: int) -> None:
        """Remember an envelope until it expires, and return when the disk has it.

        Raises:
            Overloaded: there is no room.
            StoreFailed: the disk refused.
        """
        self._came.remember(sender, identifier, expires)
        self._tried.pop((sender, identifier), None)
        if self._journal is None:
            await trio.lowlevel.checkpoint()
        else:
            row = sender, identifier, expires
            await self._journal.do(lambda connection: _remember(connection, row))

    def tries(self, sender: bytes, identifier: bytes) -> int:
        """Return how often an envelope was tried whose end nobody lived to see, or that failed."""
        return self._tried.get((sender, identifier), (0, 0))[0]

    async def begin(self, sender: bytes, identifier: bytes, expires: int) -> None:
        """Count that an envelope is tried, and return when the disk has it.

        Raises:
            StoreFailed: the disk refused; it is counted until the process ends.
        """
        if (sender, identifier) in self._tried or len(self._tried) < MOST_TRIED:
            await self._count(sender, identifier, self.tries(sender, identifier) + 1, expires)

    async def take_back(self, sender: bytes, identifier: bytes) -> None:
        """Count one try less: it was ended for no fault of the envelope's.

        Raises:
            StoreFailed: the disk refused.
        """
        times, expires = self._tried.get((sender, identifier), (0, 0))
        if times:
            await self._count(sender, identifier, times - 1, expires)

    async def _count(self, sender: bytes, identifier: bytes, times: int, expires: int) -> None:
        if times:
            self._tried[sender, identifier] = times, expires
        else:
            del self._tried[sender, identifier]
        if self._journal is None:
            await trio.lowlevel.checkpoint()
        elif times:
            row = sender, identifier, times, expires
            await self._journal.do(
                lambda connection: _execute(connection, "REPLACE INTO tried VALUES (?, ?, ?, ?)", row)
            )
        else:
            key = sender, identifier
            await self._journal.do(lambda connection: _execute(connection, _UNTRY, key))

    def bundle(self, node: bytes, now: float) -> Bundle | None:
        """Return the bundle of a node that was met, while something can be sealed for it."""
        bundle = self._met.get(node)
        return bundle if bundle is not None and now < bundle.expires and bundle.prekeys else None

    async def meet(self, bundle: Bundle) -> None:
        """Keep a node's bundle in place of an older one.

        Raises:
            StoreFailed: the disk refused; it is kept until the process ends.
        """
        known = self._met.get(bundle.identifier)
        if known is not None and (known.seq, known.not_before) >= (bundle.seq, bundle.not_before):
            await trio.lowlevel.checkpoint()
            return
        gone = None
        if known is None and len(self._met) >= MOST_MET:
            gone = min(self._met, key=lambda node: self._met[node].expires)
            del self._met[gone]
        self._met[bundle.identifier] = bundle
        if self._journal is not None:
            row = bundle.identifier, bundle.encoded, bundle.expires
            await self._journal.do(lambda connection: _meet(connection, row, gone))

    async def load(self, now: float) -> None:
        """Drop what has expired, and read the rest.

        Raises:
            StoreFailed: the file cannot be read.
        """
        if self._journal is None:
            await trio.lowlevel.checkpoint()
            return
        came, met, tried = await self._journal.do(lambda connection: _load(connection, int(now)))
        self._tried = {(sender, identifier): (times, expires) for sender, identifier, times, expires in tried}
        for sender, identifier, expires in came:
            self._came.remember(sender, identifier, expires)
        for encoded in met:
            try:
                bundle = verify_bundle(encoded, now)
            except IdentityError as error:
                _log.warning("a bundle is not used", why=str(error))
            else:
                self._met[bundle.identifier] = bundle

    async def expire(self, now: float) -> None:
        """Forget what has expired.

        Raises:
            StoreFailed: the disk refused.
        """
        self._came.expire(now)
        self._met = {node: bundle for node, bundle in self._met.items() if now < bundle.expires}
        self._tried = {key: found for key, found in self._tried.items() if now < found[1]}
        if self._journal is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._journal.do(lambda connection: _expire(connection, int(now)))


@asynccontextmanager
async def open_memories(home: Path | None, now: float) -> AsyncGenerator[Memories]:
    """Open what a node keeps, for the length of a block.

    Args:
        home: the home's folder, which this process has locked; None for memory alone.
        now: Unix seconds.

    Raises:
        ConfigurationError: the file in the home cannot be used.
        StoreFailed: it cannot be read.
    """
    if home is None:
        yield Memories(None)
        return
    async with open_journal(home / FILE, _SCHEMA, VERSION) as journal:
        memories = Memories(journal)
        await memories.load(now)
        yield memories


def _execute(connection: sqlite3.Connection, statement: str, row: Sequence[object]) -> None:
    connection.execute(statement, row)


_UNTRY: Final = "DELETE FROM tried WHERE sender = ? AND id = ?"


def _remember(connection: sqlite3.Connection, row: tuple[bytes, bytes, int]) -> None:
    """Note that an envelope came, and in the same commit that it is tried no more."""
    connection.execute("INSERT OR IGNORE INTO came VALUES (?, ?, ?)", row)
    connection.execute(_UNTRY, row[:2])


def _meet(connection: sqlite3.Connection, row: tuple[bytes, bytes, int], gone: bytes | None) -> None:
    """Keep a bundle, in the same commit in place of one that there is no room for any more."""
    connection.execute("REPLACE INTO met VALUES (?, ?, ?)", row)
    connection.execute("DELETE FROM met WHERE node = ?", (gone,))


def _load(
    connection: sqlite3.Connection, now: int
) -> tuple[list[tuple[bytes, bytes, int]], list[bytes], list[tuple[bytes, bytes, int, int]]]:
    _expire(connection, now)
    came = connection.execute("SELECT sender, id, expires FROM came").fetchall()
    newest = connection.execute("SELECT bundle FROM met ORDER BY expires DESC LIMIT ?", (MOST_MET,)).fetchall()
    tried = connection.execute("SELECT sender, id, times, expires FROM tried LIMIT ?", (MOST_TRIED,)).fetchall()
    return came, [bundle for (bundle,) in newest], tried


def _expire(connection: sqlite3.Connection, now: int) -> None:
    connection.execute("DELETE FROM came WHERE expires <= ?", (now,))
    connection.execute("DELETE FROM met WHERE expires <= ?", (now,))
    connection.execute("DELETE FROM tried WHERE expires <= ?", (now,))
