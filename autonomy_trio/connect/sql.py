"""`Sql`: a database for agents, SQLite or PostgreSQL, over its synchronous driver in threads."""

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, LiteralString, Self, TypeVar, final

import attrs
import outcome
import trio

from autonomy_trio.connect.databases import SOCKET, Database, Parameters, Row, Session, database_at
from autonomy_trio.connect.pools import Pool
from autonomy_trio.errors import DatastoreError, DatastoreLost, DatastoreTooSlow, UsageError
from autonomy_trio.fabric.node import current_node
from autonomy_trio.groups import single_error

INTERRUPT_GRACE: Final = 5.0
"""Seconds that a statement which was interrupted gets to end; then its connection is ended under it."""

T = TypeVar("T")


@final
@attrs.define(eq=False)
class _Threads:
    """The threads of one `Sql`: one for each connection, and one to interrupt each."""

    working: trio.CapacityLimiter
    interrupting: trio.CapacityLimiter

    async def connect(self, database: Database) -> Session:
        """Connect to a database; who is cancelled waits for nothing, and what comes of it is closed."""
        made: list[Session] = []
        left = False
        handing_over = threading.Lock()

        def work() -> None:
            session = database.connect()
            with handing_over:
                if not left:
                    made.append(session)
                    return
            session.close()

        try:
            await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self.working)
        except trio.Cancelled:
            with handing_over:
                left = True
            for session in made:
                session.close()
            raise
        return made[0]

    async def wait_ended(self) -> None:
        """Wait until nothing works any more: who left a connection that was being made did not wait."""
        holders = [object() for _ in range(int(self.working.total_tokens))]
        for each in holders:
            await self.working.acquire_on_behalf_of(each)
        for each in holders:
            self.working.release_on_behalf_of(each)


@final
@attrs.define(eq=False)
class _Connection:
    """One connection: it makes one call at a time, in a thread, which is interrupted when its task is cancelled."""

    _name: str
    session: Session
    _threads: _Threads
    _limit: float
    _broken: bool = False
    """Whether it was interrupted, or lost: nobody uses it again."""
    transaction: "Transaction | None" = None
    """The one that uses it now."""
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def run(self, what: str, work: Callable[[], T]) -> T:
        """Run a call of the session.

        Args:
            what: it, as the subject of a sentence.
            work: the call.

        Raises:
            DatastoreError: as the session explains what its driver raises, or it took longer than the limit.
        """
        async with self._turn:
            self._check_stands()
            try:
                with trio.fail_after(self._limit):
                    done = await self._interruptible(work)
            except trio.TooSlowError:
                msg = f"{self._name}: {what} took longer than {self._limit:g} s and was interrupted"
                raise DatastoreTooSlow(msg) from None
        try:
            return done.unwrap()
        except Exception as error:
            explained = self.session.explain(error)
            if explained is None:
                raise
            if isinstance(explained, DatastoreLost):
                self._broken = True
            raise explained from None

    async def _interruptible(self, work: Callable[[], T]) -> outcome.Maybe[T]:
        ended = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._interrupt_unless, ended)
            done = await trio.to_thread.run_sync(outcome.capture, work, limiter=self._threads.working)
            ended.set()
        return done

    async def _interrupt_unless(self, ended: trio.Event) -> None:
        try:
            await ended.wait()
        finally:
            if not ended.is_set():
                self._broken = True
                with trio.CancelScope(shield=True):
                    await self._interrupt(ended)

    async def _interrupt(self, ended: trio.Event) -> None:
        interrupting = self._threads.interrupting
        await trio.to_thread.run_sync(self.session.interrupt, limiter=interrupting)
        with trio.move_on_after(INTERRUPT_GRACE):
            await ended.wait()
        if not ended.is_set():
            await trio.to_thread.run_sync(self.session.sever, limiter=interrupting)

    async def execute(self, statement: LiteralString, given: Parameters) -> int:
        """Run a statement."""
        return await self.run("a statement", lambda: self.session.execute(statement, given))

    async def query(self, statement: LiteralString, given: Parameters) -> list[Row]:
        """Run a query."""
        return await self.run("a query", lambda: self.session.query(statement, given))

    def is_fit(self) -> bool:
        """Tell whether another transaction can use it."""
        return not self._broken and self.session.is_fit()

    async def still_stands(self) -> bool:
        """Tell whether it still can."""
        await trio.lowlevel.checkpoint()
        return self.is_fit()

    async def commit(self) -> None:
        """Commit.

        Raises:
            DatastoreError: it was not, or nobody knows.
        """
        self._check_stands()
        try:
            await self.run("a commit", lambda: self.session.end(keep=True))
        except (DatastoreLost, DatastoreTooSlow) as error:
            raise type(error)(f"{error}; it was under way to commit, so that may be done or not") from None

    def _check_stands(self) -> None:
        if self._broken:
            msg = f"{self._name}: an earlier statement was interrupted or lost, and the transaction with it"
            raise DatastoreLost(msg)

    async def aclose(self) -> None:
        """End it."""
        with trio.CancelScope(shield=True):  # a driver closes at once
            await trio.to_thread.run_sync(self.session.close, limiter=self._threads.working)


@final
@attrs.define(eq=False, repr=False)
class Transaction:
    """Statements that all count or none; made by `Sql.transaction`, and over with its block."""

    _connection: _Connection

    async def execute(self, statement: LiteralString, *parameters: object, **named: object) -> int:
        """Run a statement.

        Args:
            statement: SQL as it stands in the program. Values are no part of it but parameters, ``?`` or ``:name`` for
                SQLite, ``%s`` or ``%(name)s`` for PostgreSQL.
            *parameters: values by their order,
            **named: or by name.

        Returns:
            how many rows it changed; -1 where that makes no sense.

        Raises:
            DatastoreRefused: the database refused it.
            DatastoreLost: the connection was lost; the transaction is rolled back.
            DatastoreTooSlow: it took longer than the limit of its `Sql`, was interrupted, and all is rolled back.
            UsageError: the transaction is over, or parameters are given both ways.

        On cancellation it is interrupted at the server, and the transaction rolled back.
        """
        return await self._own().execute(statement, _given(parameters, named))

    async def query(self, statement: LiteralString, *parameters: object, **named: object) -> list[dict[str, Any]]:
        """Run a statement and return its rows, at most 100,000, each with its values by the names of the columns.

        Arguments, what it raises and cancellation are as of `execute`.

        Raises:
            DatastoreRefused: there are more rows, too.
            UsageError: two columns go by one name, too.
        """
        return await self._own().query(statement, _given(parameters, named))

    def _own(self) -> _Connection:
        if self._connection.transaction is not self:
            msg = "this transaction is over with its block: begin a new one"
            raise UsageError(msg)
        return self._connection


@final
class Sql:
    """A database that agents use: a few connections, each of one transaction at a time, statements in threads.

    It connects when it is first used, and anew after the database was away; nothing is sent twice. It is used while it
    is open: ``async with sql:``, or ``await context.start(sql.serve)`` for as long as an agent lives. Several may keep
    it open at once, as the agents of a pool do.

    Args:
        database: ``sqlite:FILE``, or ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE`` as libpq reads it, with its
            options, files and environment variables; that needs the extra ``sql``.
        connections: at most so many; who wants one more waits.
        limit: seconds that a statement may take, and the wait for a connection.
        through: the address of an outlet that leads to the PostgreSQL server, in place of the host and port of its
            address. It is then opened by an agent, by one at a time, and the outlet's policy judges that agent.

    Raises:
        ConfigurationError: the address or a number is of no use; the text shows no password.
    """

    def __init__(self, database: str, *, connections: int = 4, limit: float = 30.0, through: str | None = None) -> None:
        self._address = database
        self._database = database_at(database, through or "")
        self._through = through
        self._limit = limit
        self._pool = Pool(self._database.name, connections, limit, self._connect)
        self._threads = _Threads(trio.CapacityLimiter(connections), trio.CapacityLimiter(connections))
        self._way: AsyncExitStack | None = None
        self._opening = trio.Lock()

    def __repr__(self) -> str:
        return f"<Sql {self._database.name}>"

    async def __aenter__(self) -> Self:
        self._database.check()
        if self._through is None:
            self._pool.open()
            return self
        async with self._opening:
            await self._open_way(self._through)
            self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        way, self._way = self._way, None
        if await self._pool.aclose():
            with trio.CancelScope(shield=True):  # each call of a driver has its limit
                await self._threads.wait_ended()
        if way is not None:
            with single_error():
                await way.aclose()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep it open until cancelled; for ``await context.start(sql.serve)`` in ``on_start`` of an agent.

        Raises:
            ConfigurationError: the driver is not installed, or cannot read the address.
        """
        async with self:
            task_status.started()
            await trio.sleep_forever()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """Run a block as one transaction: committed when it ends, rolled back when it raises or is cancelled.

        That of SQLite is the only one of its file, and waits for others.

        Raises:
            DatastoreUnreachable: no connection can be made. Nothing ran.
            DatastoreRefused: it could not be committed, and is rolled back.
            DatastoreLost, DatastoreTooSlow: as `Transaction.execute`. While it was under way to commit nobody knows
                whether that was done, and the text says so.
            UsageError: it is not open.
        """
        async with self._pool.connection() as connection:
            session = connection.session
            await connection.run("the beginning of a transaction", session.begin)
            connection.transaction = Transaction(connection)
            failure: Exception | None = None
            try:
                yield connection.transaction
            except Exception as error:  # noqa: BLE001 - it is raised again, once all is rolled back
                failure = error
            finally:
                connection.transaction = None
            if failure is None:
                await connection.commit()
                return
            with suppress(DatastoreError):  # what cannot be rolled back is closed, which does that too
                await connection.run("a rollback", lambda: session.end(keep=False))
            raise failure

    async def execute(self, statement: LiteralString, *parameters: object, **named: object) -> int:
        """Run one statement that is a transaction of its own; as `Transaction.execute`.

        When the connection is lost meanwhile, it may have been done or not.
        """
        async with self._pool.connection() as connection:
            return await connection.execute(statement, _given(parameters, named))

    async def query(self, statement: LiteralString, *parameters: object, **named: object) -> list[dict[str, Any]]:
        """Run one query that is a transaction of its own; as `Transaction.query`."""
        async with self._pool.connection() as connection:
            return await connection.query(statement, _given(parameters, named))

    async def _open_way(self, outlet: str) -> None:
        self._pool.check_alone()
        async with AsyncExitStack() as way:
            folder = way.enter_context(TemporaryDirectory(prefix="autonomy-"))  # its user's alone
            await way.enter_async_context(current_node().inlet(f"unix:{folder}/{SOCKET}", outlet))
            self._database = database_at(self._address, outlet, folder)
            self._way = way.pop_all()

    async def _connect(self) -> _Connection:
        session = await self._threads.connect(self._database)
        return _Connection(self._database.name, session, self._threads, self._limit)


def _given(parameters: tuple[object, ...], named: dict[str, object]) -> Parameters:
    if parameters and named:
        msg = "a statement's parameters are given by their order or by name, not both"
        raise UsageError(msg)
    return parameters or named
