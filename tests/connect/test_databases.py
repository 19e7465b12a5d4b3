"""What is read of PostgreSQL's answers, against a server that says what a test has written down."""

import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import trio
from attrs import frozen

from autonomy_trio import Context, Request, agent, on
from autonomy_trio.connect import databases
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
from tests.support.net import open_world
from tests.support.scripted_postgres import HANG, LEAVE, Refusal, ScriptedPostgres, scripted_postgres

TAKEN = Refusal("23505", 'duplicate key value violates unique constraint "paid_pkey"')


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedPostgres]:
    async with scripted_postgres() as server:
        yield server


@pytest.fixture
async def shop(server: ScriptedPostgres) -> AsyncGenerator[Sql]:
    async with Sql(server.url) as database:
        yield database


async def test_a_transaction_begins_and_is_committed_on_one_connection(shop: Sql, server: ScriptedPostgres) -> None:
    server.answers = {"SELECT a": [("1", None)], "UPDATE $1": "UPDATE 3", "SELECT none": []}
    async with shop.transaction() as transaction:
        assert await transaction.query("SELECT a") == [{"a": "1", "b": None}]
        assert await transaction.execute("UPDATE %s", 7) == 3
        assert await transaction.query("SELECT none") == []
    assert server.said == ["BEGIN", "SELECT a", "UPDATE $1", "SELECT none", "COMMIT"]
    assert server.connections == 1


async def test_a_refused_statement_has_its_state_and_no_detail_and_is_rolled_back(
    shop: Sql, server: ScriptedPostgres
) -> None:
    server.answers = {"INSERT": TAKEN}

    async def insert() -> None:
        async with shop.transaction() as transaction:
            await transaction.execute("INSERT")

    with pytest.raises(DatastoreRefused) as caught:
        await insert()
    assert str(caught.value) == f"postgresql://127.0.0.1:{server.port}/shop refused: {TAKEN.text}"
    assert caught.value.code == "23505"
    assert server.said == ["BEGIN", "INSERT", "ROLLBACK"]
    assert len(shop._pool._idle) == 1


async def test_a_swallowed_failure_is_no_commit(shop: Sql, server: ScriptedPostgres) -> None:
    server.answers = {"INSERT": TAKEN}

    async def swallow() -> None:
        async with shop.transaction() as transaction:
            with pytest.raises(DatastoreRefused):
                await transaction.execute("INSERT")

    with pytest.raises(DatastoreRefused, match="rolled the transaction back") as caught:
        await swallow()
    assert caught.value.code == "25P02"


async def test_what_the_driver_refuses_has_no_state(shop: Sql) -> None:
    with pytest.raises(DatastoreRefused, match="placeholder") as caught:
        await shop.execute("SELECT %s, %s", 1)
    assert caught.value.code == ""


async def test_a_cancelled_query_is_cancelled_at_the_server(shop: Sql, server: ScriptedPostgres) -> None:
    server.answers = {"SELECT long": HANG}
    with trio.move_on_after(0.2) as scope:
        await shop.query("SELECT long")
    assert scope.cancelled_caught
    assert shop._threads.working.borrowed_tokens == 0
    assert shop._pool._idle == []


async def test_a_server_that_does_not_heed_loses_its_connection(
    server: ScriptedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autonomy_trio.connect.sql.INTERRUPT_GRACE", 0.05)
    server.answers, server.heeds_cancel = {"SELECT long": HANG}, False
    async with Sql(server.url, limit=0.1) as shop:
        with pytest.raises(DatastoreTooSlow):
            await shop.query("SELECT long")


async def test_a_connection_that_is_lost_is_one_sentence_and_the_next_is_another(
    shop: Sql, server: ScriptedPostgres
) -> None:
    server.answers = {"SELECT 1": LEAVE, "SELECT 2": [("2",)]}
    with pytest.raises(DatastoreLost, match="was lost: "):
        await shop.query("SELECT 1")
    assert await shop.query("SELECT 2") == [{"a": "2"}]
    assert server.connections == 2


async def test_a_connection_that_is_lost_while_it_commits_says_that_nobody_knows(
    shop: Sql, server: ScriptedPostgres
) -> None:
    server.answers = {"COMMIT": LEAVE}

    async def commit() -> None:
        async with shop.transaction() as transaction:
            await transaction.execute("UPDATE")

    with pytest.raises(DatastoreLost, match="under way to commit, so that may be done or not"):
        await commit()


async def test_a_connection_that_was_closed_while_unused_is_not_used(shop: Sql, server: ScriptedPostgres) -> None:
    await shop.execute("UPDATE 1")
    (idle,) = shop._pool._idle
    idle.session.sever()  # type: ignore[attr-defined]
    await shop.execute("UPDATE 2")
    assert server.connections == 2


async def test_a_connection_that_was_left_in_a_transaction_is_not_used_again(
    shop: Sql, server: ScriptedPostgres
) -> None:
    await shop.execute("BEGIN")
    await shop.execute("UPDATE 1")
    assert server.connections == 2


async def test_too_many_rows_are_refused(shop: Sql, server: ScriptedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "MOST_ROWS", 2)
    server.answers = {"SELECT 3": [("1",), ("2",), ("3",)]}
    with pytest.raises(DatastoreRefused, match="more than 2 rows"):
        await shop.query("SELECT 3")


async def test_nobody_there_is_one_sentence_that_names_an_outlet_where_there_is_one() -> None:
    address = "postgresql://me:hunter2@127.0.0.1:1/shop"
    with pytest.raises(DatastoreUnreachable, match=r"^postgresql://127\.0\.0\.1:1/shop cannot be used: .*refused"):
        databases.database_at(address).connect()
    far = databases.database_at(f"{address}?hostaddr=192.0.2.1", "I…/db", "/nowhere")
    assert far.name == "postgresql://127.0.0.1:1/shop through I…/db"
    with pytest.raises(DatastoreUnreachable, match=r'socket "/nowhere/\.s\.PGSQL\.5432".*the log says why') as caught:
        far.connect()
    assert "hunter2" not in str(caught.value)


def test_a_password_that_stands_where_a_port_should_is_not_shown() -> None:
    database = Sql("postgresql://bob:hunter2/shop")
    assert repr(database) == "<Sql postgresql>"
    with pytest.raises(ConfigurationError, match="no PostgreSQL server's address") as caught:
        databases.database_at("postgresql://bob:hunter2/shop").check()
    assert "hunter2" not in str(caught.value)
    assert repr(Sql("postgresql://me:pw@h1:5,[::1]:6,%2Frun/shop?a=b")) == "<Sql postgresql://h1:5,[::1]:6,%2Frun/shop>"


def test_tls_that_would_not_hold_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="sslmode=verify-full would not hold"):
        databases.database_at("postgresql://h/d?sslmode=verify-full", "I…/db", "/nowhere").check()


def test_an_outlet_leads_to_no_file() -> None:
    with pytest.raises(ConfigurationError, match="leave out through='I…/db'"):
        Sql("sqlite:x.db", through="I…/db")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("postgresql://me:hunter2@h:1/d?sslmode=require", "postgresql://h:1/d"),
        ("postgres://h", "postgresql://h"),
        ("postgresql://me:hunter?2@h/d", "postgresql://h/d"),
        ("postgresql://h/d?password=hunter2", "postgresql://h/d"),
        ("postgresql://h/d?password=hunter@2", "postgresql://h/d"),
        ("postgresql://h/d@hunter2", "postgresql"),
    ],
)
def test_a_password_is_shown_nowhere(address: str, name: str) -> None:
    database = databases.database_at(address)
    assert database.name == name
    assert "hunter" not in f"{database!r} {Sql(address)!r}"


async def test_an_address_that_libpq_cannot_read_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="no PostgreSQL server's address") as caught:
        async with Sql("postgresql://me:hunter%ZZ2@h/d"):
            pass
    assert "hunter" not in str(caught.value)


@frozen
class Count(Request[int]):
    pass


@agent
class Accounts:
    shop: Sql

    async def on_start(self, context: Context) -> None:
        await context.start(self.shop.serve)

    @on(Count)
    async def count(self, message: Count) -> int:
        (row,) = await self.shop.query("SELECT count")
        return int(row["a"])


@pytest.fixture
def short_path() -> Generator[Path]:
    """A folder whose name leaves room in that of a Unix socket, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def entries(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_through_an_outlet_it_goes_as_its_agent_by_a_socket_that_nobody_else_enters(
    server: ScriptedPostgres, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    server.answers = {"SELECT count": [("3",)]}
    async with open_world() as world:
        who = world.alice.agent_identifier("accounts")
        place = f"127.0.0.1:{server.port}"
        async with world.server.outlet("db", place, allow=f'principal.id == "{who}"') as outlet:
            far = Sql("postgresql://me:hunter2@ignored/shop", through=outlet.address)
            accounts = world.alice.spawn(lambda: Accounts(far), "accounts")
            assert await accounts.ask(Count()) == 3
            assert outlet.streams == 1
            (folder,) = entries(short_path)
            assert folder.stat().st_mode & 0o777 == 0o700
            stranger = world.bob.spawn(lambda: Accounts(Sql(server.url, through=outlet.address)), "accounts")
            with pytest.raises(HandlerFailed):
                await stranger.ask(Count())
            assert server.connections == 1
            accounts.stop()
            await accounts.stopped()
            stranger.stop()
            await stranger.stopped()
            assert entries(short_path) == []


async def test_where_no_inlet_can_be_opened_nothing_is_left_and_the_next_one_who_opens_it_may(
    server: ScriptedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server.answers = {"SELECT count": [("3",)]}
    async with open_world() as world, world.server.outlet("db", f"127.0.0.1:{server.port}", allow="true") as outlet:
        far = Sql(server.url, through=outlet.address)
        with pytest.raises(UsageError, match="for code that runs in an agent"):
            async with far:
                pass
        assert entries(tmp_path) == []
        assert await world.alice.spawn(lambda: Accounts(far), "accounts").ask(Count()) == 3


async def test_of_two_who_open_it_through_an_outlet_at_once_one_is_refused(
    server: ScriptedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server.answers = {"SELECT count": [("3",)]}
    outcomes: list[str] = []

    @agent
    class Opener:
        database: Sql

        @on(Count)
        async def count(self, message: Count) -> int:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.use)
                nursery.start_soon(self.use)
            return len(outcomes)

        async def use(self) -> None:
            try:
                async with self.database:
                    await self.database.query("SELECT count")
                    outcomes.append("used")
            except UsageError as error:
                outcomes.append(str(error))

    async with open_world() as world, world.server.outlet("db", f"127.0.0.1:{server.port}", allow="true") as outlet:
        far = Sql(server.url, through=outlet.address)
        assert await world.alice.spawn(lambda: Opener(far)).ask(Count()) == 2
        assert sorted(outcomes)[1] == "used"
        assert "needs one of its own" in min(outcomes)
        assert entries(tmp_path) == []


async def test_without_psycopg_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r'pip install "autonomy-trio\[sql\]"'):
        async with Sql("postgresql://h/d"):
            pass
