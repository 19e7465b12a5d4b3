import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.relays.stores import open_store
from autonomy_trio.fabric.stores.journal import Journal, StoreFailed, open_journal
from autonomy_trio.fabric.stores.sqlite import SqliteStore, open_sqlite_store
from autonomy_trio.fabric.stores.store import ENVELOPE_COST, Quota
from autonomy_trio.groups import single_error
from autonomy_trio.wire.mailbox import stored_id
from tests.support.envelopes import BOB, envelope
from tests.support.neighbours import NOW


async def contents(store: SqliteStore, node: bytes = BOB, after: int = 0, most: int = 1000) -> list[str]:
    return [each.packet.decode() for _, each in await store.read(node, after, most)]


def opened(path: Path, *, quota: Quota | None = None, now: Callable[[], float] = lambda: NOW):  # noqa: ANN201
    return open_sqlite_store(path / "box", quota=quota, now=now)


async def test_a_full_disk_refuses_what_is_new_and_keeps_what_was_stored(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put([envelope("1")])
        held = store.quota.held
        await fill_disk(store._journal)
        assert await store.put([envelope("x" * 100_000)]) == ["disk failed"]
        assert store.quota.held == held
        assert await contents(store) == ["1"]
        await store.forget(BOB, [stored_id(b"1")])
    async with opened(tmp_path) as store:
        assert await store.put([envelope("x" * 100_000)]) == [None]


async def fill_disk(journal: Journal) -> None:
    """Leave the file no page more, which SQLite says in the words of a full disk."""

    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await journal.do(fill)


async def test_one_change_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    outcomes: dict[str, bool] = {}

    async def insert(journal: Journal, value: str | None) -> None:
        try:
            await journal.do(lambda connection: connection.execute("INSERT INTO t VALUES (?)", (value,)).rowcount)
        except StoreFailed:
            outcomes[str(value)] = False
        else:
            outcomes[str(value)] = True

    async with open_journal(tmp_path / "j", "CREATE TABLE t (x TEXT NOT NULL)", 1) as journal:
        async with trio.open_nursery() as nursery:
            for value in ("a", None, "b"):
                nursery.start_soon(insert, journal, value)
        rows = await journal.do(lambda connection: connection.execute("SELECT x FROM t ORDER BY x").fetchall())
    assert rows == [("a",), ("b",)]
    assert outcomes == {"a": True, "None": False, "b": True}


async def test_many_writers_share_commits(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        commits = await count_commits(store, 500)
        assert len(await contents(store)) == 500
    assert commits < 50


async def count_commits(store: SqliteStore, writers: int) -> int:
    statements: list[str] = []
    store._journal._connection.set_trace_callback(statements.append)
    async with trio.open_nursery() as nursery:
        for number in range(writers):
            nursery.start_soon(store.put, [envelope(str(number))])
    store._journal._connection.set_trace_callback(None)
    return statements.count("COMMIT")


async def test_a_put_that_was_cancelled_leaves_the_counts_right(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.put, [envelope("1")])
                nursery.start_soon(store.put, [envelope("1")])
                await trio.lowlevel.checkpoint()
                scope.cancel()
        left = await contents(store)
        assert store.quota.held == len(left) * (1 + ENVELOPE_COST)


async def test_a_put_that_was_cancelled_before_it_began_takes_no_room(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.put([envelope("1")])
        assert await contents(store) == []
        assert store.quota.held == 0


async def test_the_file_is_its_users_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put([envelope("1")])
        for name in os.listdir(tmp_path):  # noqa: PTH208
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


async def test_it_flushes_each_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        level, mode = await store._journal.do(
            lambda connection: [
                connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("synchronous", "journal_mode")
            ]
        )
    assert (level, mode) == (2, "wal")


async def test_a_file_that_another_relay_uses_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(ConfigurationError, match="open in another process"), single_error():
            async with opened(tmp_path):
                pass


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_a_file_that_is_no_database_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "box").write_bytes(content)
    with pytest.raises(ConfigurationError, match="box"), single_error():
        async with opened(tmp_path):
            pass
    assert (tmp_path / "box").read_bytes() == content


async def test_a_file_of_another_release_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "box")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="version 99"), single_error():
        async with opened(tmp_path):
            pass


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"), single_error():
        async with open_sqlite_store(tmp_path / "nowhere" / "box"):
            pass


@pytest.mark.parametrize("place", ["", "sqlite:", "mysql://x", "box"])
async def test_a_store_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:PATH"):
        open_store(place)


async def test_a_store_is_named_in_one_word(tmp_path: Path) -> None:
    async with open_store(f"sqlite:{tmp_path / 'box'}", now=lambda: NOW) as kept:
        assert kept.store is not None
        assert await kept.store.put([envelope("1")]) == [None]
        assert kept.cluster is None
    assert (tmp_path / "box").exists()
