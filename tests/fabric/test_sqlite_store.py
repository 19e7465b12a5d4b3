import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.journal import Journal, StoreFailed, open_journal
from autonomy_trio.fabric.sqlite_store import SqliteStore, open_sqlite_store
from autonomy_trio.fabric.store import ENVELOPE_COST, Envelope, Quota
from autonomy_trio.fabric.stores import open_store
from autonomy_trio.groups import single_error
from autonomy_trio.wire.mailbox import stored_id
from tests.support.neighbours import NOW

ALICE, BOB, CAROL = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32


def envelope(text: str, *, to: bytes = BOB, by: bytes = ALICE, life: int = 60) -> Envelope:
    packet = text.encode()
    return Envelope(stored_id(packet), to, by, int(NOW) + life, packet)


async def contents(store: SqliteStore, node: bytes = BOB, after: int = 0, most: int = 1000) -> list[str]:
    return [each.packet.decode() for _, each in await store.read(node, after, most)]


def opened(path: Path, *, quota: Quota | None = None, now: Callable[[], float] = lambda: NOW):  # noqa: ANN201
    return open_sqlite_store(path / "box", quota=quota, now=now)


async def test_what_was_put_is_read_in_order_by_its_destination_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store.put([envelope("1"), envelope("2", to=CAROL), envelope("3")]) == [None] * 3
        assert await contents(store) == ["1", "3"]
        assert await contents(store, CAROL) == ["2"]
        (place, first), *_ = await store.read(BOB, 0, 1)
        assert first.source == ALICE
        assert await contents(store, after=place) == ["3"]


async def test_what_was_put_is_there_after_another_opening(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put([envelope("1")])
    async with opened(tmp_path) as store:
        assert await contents(store) == ["1"]
        assert store.quota.held == 1 + ENVELOPE_COST


async def test_what_is_put_twice_is_kept_once_for_each_destination(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put([envelope("1", by=CAROL)])
        assert await store.put([envelope("1"), envelope("1", to=CAROL)]) == [None, None]
        assert await contents(store) == await contents(store, CAROL) == ["1"]
        assert store.quota.held == 2 * (1 + ENVELOPE_COST)


async def test_what_is_forgotten_is_gone_and_leaves_room(tmp_path: Path) -> None:
    async with opened(tmp_path, quota=Quota(mailbox_envelopes=2)) as store:
        assert await store.put([envelope("1"), envelope("2")]) == [None, "mailbox full"]
        await store.forget(CAROL, [stored_id(b"1")])
        assert await contents(store) == ["1"]
        await store.forget(BOB, [stored_id(b"1"), stored_id(b"1")])
        assert await contents(store) == []
        assert store.quota.held == 0
        assert await store.put([envelope("2")]) == [None]


async def test_a_place_is_given_once_so_that_a_reader_misses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.put([envelope("1")])
        ((first, _),) = await store.read(BOB, 0, 1)
        await store.forget(BOB, [stored_id(b"1")])
        await store.put([envelope("2")])
        assert await contents(store, after=first) == ["2"]


async def test_one_sender_fills_half_of_a_mailbox(tmp_path: Path) -> None:
    async with opened(tmp_path, quota=Quota(mailbox_envelopes=4)) as store:
        put = [envelope("1"), envelope("2"), envelope("3"), envelope("4", by=CAROL)]
        assert await store.put(put) == [None, None, "mailbox full", None]


@pytest.mark.parametrize(
    ("quota", "refusal"),
    [
        (Quota(mailbox_bytes=4 * (ENVELOPE_COST + 1)), "mailbox full"),
        (Quota(store_bytes=2 * (ENVELOPE_COST + 1)), "store full"),
    ],
)
async def test_bytes_are_bounded(tmp_path: Path, quota: Quota, refusal: str) -> None:
    async with opened(tmp_path, quota=quota) as store:
        assert await store.put(list(map(envelope, "123"))) == [None, None, refusal]
        assert await contents(store) == ["1", "2"]


async def test_what_has_expired_is_not_handed_over_and_leaves_room(tmp_path: Path) -> None:
    time = NOW
    async with opened(tmp_path, now=lambda: time) as store:
        await store.put([envelope("1", life=1), envelope("2", life=10)])
        time += 5
        assert await contents(store) == ["2"]
        await store.expire()
        assert store.quota.held == 1 + ENVELOPE_COST


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
    async with open_store(f"sqlite:{tmp_path / 'box'}", now=lambda: NOW) as store:
        assert await store.put([envelope("1")]) == [None]
    assert (tmp_path / "box").exists()
