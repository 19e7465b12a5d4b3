"""`Sql` on SQLite: what users are promised of transactions, limits, cancellation and texts."""

import sqlite3
import threading
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import LiteralString

import pytest
import trio
from attrs import frozen

from autonomy_trio import Context, Request, agent, on, open_node, pool
from autonomy_trio.connect import databases, sql
from autonomy_trio.connect.sql import Sql
from autonomy_trio.errors import (
    ConfigurationError,
    DatastoreLost,
    DatastoreRefused,
    DatastoreTooSlow,
    DatastoreUnreachable,
    HandlerFailed,
    UsageError,
)

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS many FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ledger.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
    connection.close()
    return file


@pytest.fixture
async def ledger(path: Path) -> AsyncGenerator[Sql]:
    async with Sql(f"sqlite:{path}") as database:
        yield database


async def _ids(database: Sql) -> list[int]:
    return [row["id"] for row in await database.query("SELECT id FROM account ORDER BY id")]


async def test_a_transaction_that_ends_counts_and_its_rows_go_by_the_names_of_their_columns(ledger: Sql) -> None:
    async with ledger.transaction() as transaction:
        assert await transaction.execute("INSERT INTO account VALUES (?, ?)", 1, 10) == 1
        assert await transaction.execute("INSERT INTO account VALUES (:id, :balance)", id=2, balance=20) == 1
        assert await transaction.query("SELECT * FROM account WHERE id = :id", id=2) == [{"id": 2, "balance": 20}]
    assert await ledger.query("SELECT sum(balance) AS total FROM account") == [{"total": 30}]
    assert await ledger.execute("UPDATE account SET balance = 0") == 2


async def test_a_transaction_that_raises_leaves_nothing_and_its_connection_is_used_again(ledger: Sql) -> None:
    async def fail() -> None:
        async with ledger.transaction() as transaction:
            await transaction.execute("INSERT INTO account VALUES (1, 1)")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail()
    assert await _ids(ledger) == []
    assert len(ledger._pool._idle) == 1


async def test_what_is_refused_says_why_with_a_code_and_without_values(ledger: Sql) -> None:
    async def insert_twice() -> None:
        async with ledger.transaction() as transaction:
            for _ in range(2):
                await transaction.execute("INSERT INTO account VALUES (?, ?)", 77, 99)

    with pytest.raises(DatastoreRefused, match=r"refused: UNIQUE constraint failed: account\.id$") as caught:
        await insert_twice()
    assert caught.value.code == "SQLITE_CONSTRAINT_PRIMARYKEY"
    assert caught.value.__cause__ is None
    assert await _ids(ledger) == []


async def test_a_value_is_never_part_of_the_statement(ledger: Sql) -> None:
    nasty = "1; DROP TABLE account --"
    assert await ledger.query("SELECT ? AS it", nasty) == [{"it": nasty}]
    assert await _ids(ledger) == []


async def test_a_transaction_is_over_with_its_block(ledger: Sql) -> None:
    async with ledger.transaction() as transaction:
        pass
    with pytest.raises(UsageError, match="over with its block"):
        await transaction.query("SELECT 1 AS one")
    async with ledger.transaction():
        with pytest.raises(UsageError, match="over with its block"):
            await transaction.execute("DELETE FROM account")


async def test_parameters_are_given_one_way(ledger: Sql) -> None:
    with pytest.raises(UsageError, match="by their order or by name"):
        await ledger.execute("DELETE FROM account WHERE id = ?", 1, id=1)


async def test_columns_of_one_name_are_refused_for_one_would_hide_the_other(ledger: Sql) -> None:
    with pytest.raises(UsageError, match="go by 'id'"):
        await ledger.query("SELECT 1 AS id, 2 AS id")


async def test_a_query_has_at_most_so_many_rows(ledger: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "MOST_ROWS", 2)
    assert len(await ledger.query("SELECT 1 AS n UNION ALL SELECT 2")) == 2
    with pytest.raises(DatastoreRefused, match="more than 2 rows: read it in parts, with LIMIT"):
        await ledger.query("SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3")


async def test_a_cancelled_statement_is_interrupted_and_its_transaction_rolled_back(ledger: Sql) -> None:
    with trio.move_on_after(0.2) as scope:
        async with ledger.transaction() as transaction:
            await transaction.execute("INSERT INTO account VALUES (1, 1)")
            await transaction.query(ENDLESS)
    assert scope.cancelled_caught
    assert ledger._threads.working.borrowed_tokens == 0, "a thread still works on it"
    assert await _ids(ledger) == []


async def test_a_cancelled_block_is_rolled_back_and_its_connection_closed(ledger: Sql) -> None:
    with trio.CancelScope() as scope:
        async with ledger.transaction() as transaction:
            await transaction.execute("INSERT INTO account VALUES (1, 1)")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert ledger._pool._idle == []
    assert await _ids(ledger) == []


async def test_a_statement_past_the_limit_is_interrupted_and_ends_its_transaction(path: Path) -> None:
    async with Sql(f"sqlite:{path}", limit=0.2) as database:

        async def count_for_ever() -> None:
            async with database.transaction() as transaction:
                await transaction.execute("INSERT INTO account VALUES (1, 1)")
                await transaction.query(ENDLESS)

        with pytest.raises(DatastoreTooSlow, match=r"took longer than 0\.2 s and was interrupted"):
            await count_for_ever()
        assert await _ids(database) == []


async def test_who_goes_on_after_that_is_told_at_the_commit(path: Path) -> None:
    async with Sql(f"sqlite:{path}", limit=0.2) as database:

        async def go_on() -> None:
            async with database.transaction() as transaction:
                await transaction.execute("INSERT INTO account VALUES (1, 1)")
                with pytest.raises(DatastoreTooSlow):
                    await transaction.query(ENDLESS)

        with pytest.raises(DatastoreLost, match=r"interrupted or lost, and the transaction with it$"):
            await go_on()
        assert await _ids(database) == []


async def test_writers_wait_for_each_other_and_none_fails(ledger: Sql) -> None:
    async def raise_balance() -> None:
        for _ in range(10):
            async with ledger.transaction() as transaction:
                (row,) = await transaction.query("SELECT balance FROM account WHERE id = 1")
                await transaction.execute("UPDATE account SET balance = ? WHERE id = 1", row["balance"] + 1)

    await ledger.execute("INSERT INTO account VALUES (1, 0)")
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(raise_balance)
    assert await ledger.query("SELECT balance FROM account") == [{"balance": 40}]


async def test_a_wait_for_the_lock_of_another_process_ends_with_the_limit_or_a_cancellation(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        async with Sql(f"sqlite:{path}", limit=0.2) as database:
            with pytest.raises(DatastoreTooSlow):
                await database.execute("INSERT INTO account VALUES (1, 1)")
            with trio.move_on_after(0.05) as scope:
                await database.execute("INSERT INTO account VALUES (1, 1)")
            assert scope.cancelled_caught
    finally:
        other.close()


async def test_at_most_so_many_connections_and_who_waits_too_long_is_told(path: Path) -> None:
    async with Sql(f"sqlite:{path}", connections=1, limit=0.1) as database, database.transaction():
        with pytest.raises(DatastoreTooSlow, match=r"none of its 1 connections was free within 0\.1 s"):
            await database.query("SELECT 1 AS one")


async def test_two_tasks_in_one_transaction_take_turns(ledger: Sql) -> None:
    async with ledger.transaction() as transaction, trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(transaction.execute, "INSERT INTO account VALUES (?, 0)", number)
    assert await _ids(ledger) == [0, 1, 2, 3, 4]


async def test_nothing_is_left_when_it_closes(path: Path) -> None:
    async with Sql(f"sqlite:{path}") as database:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(_ids, database)
        connections = list(database._pool._idle)
        assert connections
    assert database._pool._idle == []
    for each in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            each.session._connection.execute("SELECT 1")  # type: ignore[attr-defined]


async def test_it_is_used_while_it_is_open_by_as_many_as_opened_it(path: Path) -> None:
    database = Sql(f"sqlite:{path}")
    with pytest.raises(UsageError, match=r"is not open: `await context\.start\(it\.serve\)`"):
        await database.query("SELECT 1 AS one")
    async with database:
        async with database:
            pass
        assert await _ids(database) == []
    with pytest.raises(UsageError, match="is not open"):
        await database.query("SELECT 1 AS one")


async def test_a_transaction_that_goes_on_while_it_is_closed_ends_well(path: Path) -> None:
    database = Sql(f"sqlite:{path}")
    began, closed = trio.Event(), trio.Event()

    async def write() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO account VALUES (1, 1)")
            began.set()
            await closed.wait()

    async with trio.open_nursery() as nursery:
        async with database:
            nursery.start_soon(write)
            await began.wait()
        closed.set()
    async with database:
        assert await _ids(database) == [1]
        assert len(database._pool._idle) == 1


async def test_who_leaves_a_connection_that_is_being_made_waits_for_nothing_and_it_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, made = threading.Event(), []

    def connect(self: databases.SqliteDatabase) -> databases.Session:
        assert going_on.wait(60)
        connection = sqlite3.connect(path, check_same_thread=False)
        made.append(connection)
        return databases.SqliteSession(self.name, connection)

    monkeypatch.setattr(databases.SqliteDatabase, "connect", connect)
    async with Sql(f"sqlite:{path}") as database:
        with trio.move_on_after(0.05) as scope:
            await database.query("SELECT 1 AS one")
        assert scope.cancelled_caught
        assert not made
        going_on.set()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")


async def test_what_heeds_no_interrupt_loses_its_connection(ledger: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    severed = threading.Event()
    monkeypatch.setattr(sql, "INTERRUPT_GRACE", 0.05)
    monkeypatch.setattr(databases.SqliteSession, "interrupt", lambda _: None)
    monkeypatch.setattr(databases.SqliteSession, "query", lambda *_: severed.wait(60))
    monkeypatch.setattr(databases.SqliteSession, "sever", lambda _: severed.set())
    with trio.move_on_after(0.05) as scope:
        await ledger.query("SELECT 1 AS one")
    assert scope.cancelled_caught
    assert severed.is_set()


async def test_a_statement_that_begins_when_it_was_interrupted_already_ends_too(
    ledger: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted, ended = threading.Event(), list[str]()
    interrupt, query = databases.SqliteSession.interrupt, databases.SqliteSession.query

    def early(self: databases.SqliteSession) -> None:
        interrupt(self)
        interrupted.set()

    def late(self: databases.SqliteSession, statement: LiteralString, given: databases.Parameters) -> object:
        assert interrupted.wait(60)
        try:
            return query(self, statement, given)
        except sqlite3.OperationalError as error:
            ended.append(str(error))
            raise

    monkeypatch.setattr(sql, "INTERRUPT_GRACE", 0.2)
    monkeypatch.setattr(databases.SqliteSession, "interrupt", early)
    monkeypatch.setattr(databases.SqliteSession, "query", late)
    with trio.move_on_after(0.05):
        await ledger.query(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000000) SELECT max(i) FROM n"
        )
    assert ended == ["interrupted"]


async def test_a_file_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    async with Sql(f"sqlite:{tmp_path}/nowhere/ledger.db") as database:
        with pytest.raises(DatastoreUnreachable, match="unable to open database file"):
            await database.query("SELECT 1 AS one")


@pytest.mark.parametrize("memory", ["sqlite:", "sqlite::memory:"])
async def test_a_database_in_memory_is_refused(memory: str) -> None:
    with pytest.raises(ConfigurationError, match="a database of its own"):
        async with Sql(memory):
            pass


@pytest.mark.parametrize("address", ["mysql://me:hunter2@h/d", "hunter2", "postgresql:hunter2"])
def test_an_address_of_no_kind_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:FILE or postgresql://") as caught:
        Sql(address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("given", [{"connections": 0}, {"limit": 0}])
def test_numbers_of_no_use_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        Sql("sqlite:x", **given)


@frozen
class Deposit(Request[int]):
    amount: int


@agent
class Account:
    ledger: Sql

    async def on_start(self, context: Context) -> None:
        await context.start(self.ledger.serve)
        await self.ledger.execute("INSERT OR IGNORE INTO account VALUES (1, 0)")

    @on(Deposit)
    async def deposit(self, message: Deposit) -> int:
        async with self.ledger.transaction() as transaction:
            await transaction.execute("UPDATE account SET balance = balance + ?", message.amount)
            if message.amount < 0:
                raise ValueError("no amount")
            (row,) = await transaction.query("SELECT balance FROM account")
        return int(row["balance"])

    async def on_stop(self, context: Context) -> None:
        async with self.ledger:  # what on_start began has ended
            await self.ledger.execute("UPDATE account SET balance = balance + 1000")


async def test_an_agent_has_it_for_its_life_and_a_restarted_one_again(path: Path) -> None:
    shared = Sql(f"sqlite:{path}")
    async with open_node() as node:
        account = node.spawn(pool(partial(Account, shared), 2), "account")
        assert await account.ask(Deposit(5)) == 5
        with pytest.raises(HandlerFailed):
            await account.ask(Deposit(-1))
        for _ in range(4):
            await account.ask(Deposit(1))
    assert shared._pool._idle == []
    async with shared:
        (row,) = await shared.query("SELECT balance FROM account")
    assert row["balance"] == 5 + 4 + 3 * 1000
