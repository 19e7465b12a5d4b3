"""The table of what keeps envelopes at a relay: how many a second, each on the disk before it counts."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from autonomy_trio.fabric.stores.sqlite import open_sqlite_store
from autonomy_trio.fabric.stores.store import Envelope
from benchmarks.measure import Result, Row, check, cpu_time, interleave

NOW: Final = 1_800_000_000
BYTES: Final = 400
"""Of an envelope: a sealed message of 64 bytes has about as many."""
TOGETHER: Final = 256
"""Envelopes that one connection has stored at a time."""
CONNECTIONS: Final = 16
MAILBOXES: Final = 200

STORED: Final = Row("stored, 16 connections", "envelopes/s", "value at least", least=50_000, aim=100_000)
HANDED_OVER: Final = Row("read and forgotten, 200 mailboxes", "envelopes/s")


def run(*, quick: bool) -> Iterator[Result]:
    """Measure each row in turn; the reference is one bare table without an index, in one transaction for all.

    Args:
        quick: whether to run small counts with few repetitions.

    Raises:
        WrongResultError: an envelope was lost.
    """
    repetitions, count = (3, 10_000) if quick else (5, 50_000)
    taken: list[float] = []

    def store() -> float:
        stored, handed_over = trio.run(store_and_hand_over, count)
        taken.append(handed_over)
        return stored

    value, reference = interleave(repetitions, store, lambda: bare_inserts(count))
    yield Result(STORED, value, reference)
    yield Result(HANDED_OVER, sorted(taken)[len(taken) // 2])


async def store_and_hand_over(count: int) -> tuple[float, float]:
    """Store envelopes, then read and forget them; return how many a second of CPU time, for both."""
    made = [envelope(number) for number in range(count)]
    batches = [made[start : start + TOGETHER] for start in range(0, count, TOGETHER)]
    mailboxes: dict[bytes, list[bytes]] = {}
    for each in made:
        mailboxes.setdefault(each.destination, []).append(each.id)
    read: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        async with open_sqlite_store(Path(folder) / "box", now=lambda: NOW) as store:

            async def put(mine: list[list[Envelope]]) -> None:
                for batch in mine:
                    check("refused", sum(refusal is not None for refusal in await store.put(batch)), 0)

            async def hand_over(destination: bytes, ids: list[bytes]) -> None:
                read.extend(each.id for _, each in await store.read(destination, 0, len(ids)))
                await store.forget(destination, ids)

            with cpu_time() as storing:
                async with trio.open_nursery() as nursery:
                    for first in range(CONNECTIONS):
                        nursery.start_soon(put, batches[first::CONNECTIONS])
            with cpu_time() as handing_over:
                async with trio.open_nursery() as nursery:
                    for destination, ids in mailboxes.items():
                        nursery.start_soon(hand_over, destination, ids)
            check("left", store.quota.held, 0)
    check("read", len(set(read)), count)
    return count / storing.seconds, count / handing_over.seconds


def bare_inserts(count: int) -> float:
    """Insert rows of the same size into a table without an index, in one transaction, flushed."""
    rows = [(each.destination, each.id, each.source, each.expires, each.packet) for each in map(envelope, range(count))]
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "bare", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE bare (a BLOB, b BLOB, c BLOB, d INTEGER, e BLOB)")
        with cpu_time() as inserting:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO bare VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        connection.close()
    return count / inserting.seconds


def envelope(number: int) -> Envelope:
    """Make one that differs from all others."""
    source, destination = number % 100, number % MAILBOXES
    return Envelope(os.urandom(32), bytes([destination]) * 32, bytes([source]) * 32, NOW + 600, os.urandom(BYTES))
