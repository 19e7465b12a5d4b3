"""`Sql` on a real PostgreSQL: what only a server that can be lost, or does not let everybody in, can show."""

import gc
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Generator

import pytest
import trio
from attrs import frozen

from autonomy_trio import Context, Request, agent, on, open_node
from autonomy_trio.connect.sql import Sql
from autonomy_trio.errors import (
    ConfigurationError,
    DatastoreLost,
    DatastoreRefused,
    DatastoreTooSlow,
    DatastoreUnreachable,
)
from tests.support.net import open_world
from tests.support.postgres import PASSWORD, PostgresServer, postgres_server

pytestmark = pytest.mark.outside

ASLEEP = "select count(*) from pg_stat_activity where query like 'SELECT pg_sleep%' and state = 'active'"


@pytest.fixture(scope="module")
def running() -> Generator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def server(running: PostgresServer) -> PostgresServer:
    running.run("drop table if exists account; create table account (id int primary key, owner text)")
    return running


@pytest.fixture
async def ledger(server: PostgresServer) -> AsyncGenerator[Sql]:
    async with Sql(server.url) as database:
        yield database


async def test_a_transaction_that_ends_counts_and_one_that_raises_does_not(ledger: Sql, server: PostgresServer) -> None:
    async def fail() -> None:
        async with ledger.transaction() as transaction:
            await transaction.execute("DELETE FROM account")
            raise ValueError("mine")

    async with ledger.transaction() as transaction:
        assert await transaction.execute("INSERT INTO account VALUES (%s, %s)", 1, "ann") == 1
        assert await transaction.execute("INSERT INTO account VALUES (%(id)s, %(owner)s)", id=2, owner="bob") == 1
        assert await transaction.query("SELECT * FROM account WHERE id = %s", 2) == [{"id": 2, "owner": "bob"}]
    with pytest.raises(ValueError, match="mine"):
        await fail()
    assert server.run("select count(*) from account") == "2"
    assert await ledger.query("SELECT id FROM account WHERE id = 3") == []
    assert await ledger.query("SELECT 10 % 3 AS rest") == [{"rest": 1}]
    assert server.run("select count(*) from pg_stat_activity where state like 'idle in transaction%'") == "0"


async def test_a_value_is_never_part_of_the_statement(ledger: Sql) -> None:
    nasty = "'; DROP TABLE account; --"
    assert await ledger.query("SELECT %s::text AS it", nasty) == [{"it": nasty}]
    assert await ledger.query("SELECT * FROM account") == []


async def test_what_is_refused_says_why_with_its_state_and_without_values(ledger: Sql) -> None:
    await ledger.execute("INSERT INTO account VALUES (77, 'ann')")
    with pytest.raises(DatastoreRefused, match=r'violates unique constraint "account_pkey"$') as caught:
        await ledger.execute("INSERT INTO account VALUES (%s, %s)", 77, "hunter2")
    assert caught.value.code == "23505"
    assert caught.value.__cause__ is None
    assert not {"77", "hunter2"} & set(str(caught.value).split())


async def test_a_transaction_in_which_a_failure_was_swallowed_is_no_commit(ledger: Sql) -> None:
    async def swallow() -> None:
        async with ledger.transaction() as transaction:
            await transaction.execute("INSERT INTO account VALUES (1, 'ann')")
            with pytest.raises(DatastoreRefused):
                await transaction.execute("INSERT INTO account VALUES (1, 'ann')")

    with pytest.raises(DatastoreRefused, match="rolled the transaction back, for a statement in it had failed"):
        await swallow()
    assert await ledger.query("SELECT * FROM account") == []


async def test_a_cancelled_query_is_interrupted_on_the_server(ledger: Sql, server: PostgresServer) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                async with ledger.transaction() as transaction:
                    await transaction.execute("INSERT INTO account VALUES (1, 'ann')")
                    await transaction.query("SELECT pg_sleep(600)")

            await _seen(server, ASLEEP, "1")
            scope.cancel()
    assert server.run(ASLEEP) == "0"
    assert await ledger.query("SELECT * FROM account") == []
    assert ledger._threads.working.borrowed_tokens == 0, "a thread still works on it"


async def test_a_query_past_the_limit_is_interrupted_on_the_server(server: PostgresServer) -> None:
    async with Sql(server.url, limit=0.5) as database:
        with pytest.raises(DatastoreTooSlow, match=r"took longer than 0\.5 s and was interrupted"):
            await database.query("SELECT pg_sleep(600)")
        assert server.run(ASLEEP) == "0"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_database_that_goes_away_in_a_transaction_is_one_clear_error_and_the_next_connects_anew(
    ledger: Sql, server: PostgresServer, how: signal.Signals
) -> None:
    async def lose() -> None:
        async with ledger.transaction() as transaction:
            await transaction.execute("INSERT INTO account VALUES (1, 'ann')")
            await trio.to_thread.run_sync(server.stop, how)
            await transaction.execute("INSERT INTO account VALUES (2, 'bob')")

    with pytest.raises(DatastoreLost, match=r"^postgresql://127\.0\.0\.1:\d+/postgres was lost: [^\n]+$"):
        await lose()
    with pytest.raises(DatastoreUnreachable, match="Connection refused"):
        await ledger.query("SELECT 1 AS one")
    await trio.to_thread.run_sync(server.start)
    assert await ledger.query("SELECT * FROM account") == []


async def test_a_database_lost_while_it_commits_says_that_nobody_knows(ledger: Sql, server: PostgresServer) -> None:
    async def commit() -> None:
        async with ledger.transaction() as transaction:
            await transaction.execute("INSERT INTO account VALUES (1, 'ann')")
            await trio.to_thread.run_sync(server.stop)

    with pytest.raises(DatastoreLost, match=r"it was under way to commit, so that may be done or not$"):
        await commit()
    await trio.to_thread.run_sync(server.start)


async def test_a_database_that_was_restarted_between_transactions_is_not_noticed(
    ledger: Sql, server: PostgresServer
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ledger.query, "SELECT pg_sleep(0.05)")
    assert len(ledger._pool._idle) == 4
    await trio.to_thread.run_sync(server.stop)
    await trio.to_thread.run_sync(server.start)
    async with ledger.transaction() as transaction:
        assert await transaction.query("SELECT 1 AS one") == [{"one": 1}]


async def test_a_wrong_password_is_one_sentence_without_it(server: PostgresServer) -> None:
    async with Sql(server.url.replace("secret", "hunter2")) as database:
        with pytest.raises(DatastoreUnreachable, match='password authentication failed for user "postgres"') as caught:
            await database.query("SELECT 1 AS one")
    assert "hunter2" not in f"{caught.value!r} {database!r}"
    assert caught.value.__cause__ is None


async def test_who_cancels_a_connection_that_nobody_answers_waits_for_nothing() -> None:
    accepted = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        def accept() -> None:
            with silent.accept()[0] as connection:
                accepted.set()
                while connection.recv(4096):
                    pass

        waiting = threading.Thread(target=accept)
        waiting.start()
        async with Sql(f"postgresql://127.0.0.1:{port}/x?connect_timeout=2&sslmode=disable&gssencmode=disable") as lost:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lost.query, "SELECT 1 AS one")
                    await trio.to_thread.run_sync(accepted.wait, 60)
                    began = trio.current_time()
                    scope.cancel()
            assert trio.current_time() - began < 1.5, "it waited for the driver"
        gc.collect()  # psycopg holds the socket that it gave up until then
        await trio.to_thread.run_sync(waiting.join, 60)


async def test_a_server_that_heeds_no_interrupt_loses_the_connection(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autonomy_trio.connect.sql.INTERRUPT_GRACE", 0.1)
    monkeypatch.setattr("autonomy_trio.connect.databases.PostgresSession.interrupt", lambda _: None)
    async with Sql(server.url, limit=0.2) as database:
        with pytest.raises(DatastoreTooSlow):
            await database.query("SELECT pg_sleep(600)")


async def test_a_hundred_thousand_rows_are_read_and_one_more_is_refused(ledger: Sql) -> None:
    assert len(await ledger.query("SELECT generate_series(1, 100000) AS n")) == 100_000
    with pytest.raises(DatastoreRefused, match="more than 100000 rows"):
        await ledger.query("SELECT generate_series(1, 100001) AS n")
    assert await ledger.query("SELECT 1 AS one") == [{"one": 1}]


async def test_nothing_is_left_when_it_closes(server: PostgresServer) -> None:
    sessions = "select count(*) from pg_stat_activity where application_name = 'leaving'"
    async with Sql(f"{server.url}?application_name=leaving") as database:
        await database.query("SELECT 1 AS one")
        assert server.run(sessions) == "1"
    await _seen(server, sessions, "0")


@frozen
class Count(Request[int]):
    pass


@agent
class Accounts:
    ledger: Sql

    async def on_start(self, context: Context) -> None:
        await context.start(self.ledger.serve)

    @on(Count)
    async def count(self, message: Count) -> int:
        (row,) = await self.ledger.query("SELECT count(*) AS many FROM account")
        return int(row["many"])


async def test_through_an_outlet_it_is_judged_as_its_agent_and_nothing_is_left(server: PostgresServer) -> None:
    async with open_world() as world:
        place = f"127.0.0.1:{server.port}"
        who = world.alice.agent_identifier("accounts")
        async with world.server.outlet("db", place, allow=f'principal.id == "{who}"') as outlet:
            far = Sql(server.url, through=outlet.address)
            assert PASSWORD not in repr(far)
            accounts = world.alice.spawn(lambda: Accounts(far), "accounts")
            assert await accounts.ask(Count()) == 0
            assert outlet.streams == 1
            seen = server.connections()
            stranger = world.bob.spawn(lambda: Accounts(Sql(server.url, through=outlet.address)), "accounts")
            with pytest.raises(Exception, match="failed on Count"):
                await stranger.ask(Count())
            assert server.connections() == seen, "the target sees a connection of who is denied"
            accounts.stop()
            await accounts.stopped()


async def test_tls_that_would_not_hold_through_an_outlet_is_refused() -> None:
    @agent
    class Opener:
        @on(Count)
        async def open(self, message: Count) -> int:
            with pytest.raises(ConfigurationError, match="sslmode=verify-full would not hold"):
                async with Sql("postgresql://h/d?sslmode=verify-full", through=f"I{64 * '0'}/db"):
                    pass
            return 1

    async with open_node() as node:
        assert await node.spawn(Opener).ask(Count()) == 1


async def _seen(server: PostgresServer, sql: str, answer: str) -> None:
    with trio.fail_after(60):
        while await trio.to_thread.run_sync(server.run, sql) != answer:  # noqa: ASYNC110 - a process
            await trio.sleep(0.02)
