"""The databases that `Sql` speaks to: synchronous drivers, and what each calls an interrupt, a loss and a refusal.

All of it but `interrupt` and `sever` is called in one thread at a time; those two while another call is under way.
"""

import itertools
import os
import re
import select
import socket
import sqlite3
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, LiteralString, Protocol, cast, final

import attrs

from autonomy_trio.connect.extras import extra
from autonomy_trio.errors import (
    ConfigurationError,
    DatastoreError,
    DatastoreLost,
    DatastoreRefused,
    DatastoreUnreachable,
    UsageError,
)
from autonomy_trio.logs import printable

if TYPE_CHECKING:
    import psycopg

CONNECT_LIMIT: Final = 5
"""Seconds that a database may take to let this process in, for each address that its name has."""

CANCEL_LIMIT: Final = 5.0
"""Seconds that a server may take to take note that a statement is to be interrupted."""

MOST_ROWS: Final = 100_000
"""Rows of one query."""

ROWS_AT_ONCE: Final = 1000
"""Rows that a server's driver reads ahead."""

BUSY_EVERY: Final = 0.01
"""Seconds between two attempts at a SQLite file that somebody else writes."""

SOCKET: Final = ".s.PGSQL.5432"
"""What libpq calls the Unix socket of port 5432."""

_PLACE: Final = r"(?:\[[^\]@/?]*\]|[^\[\]@/?:,]*)(?::[0-9]*)?"
_WHERE: Final = re.compile(rf"postgres(?:ql)?://(?:[^@/]*@)?({_PLACE}(?:,{_PLACE})*(?:/[^@?]*)?)(?:\?.*)?", re.DOTALL)
"""Of an address what is no secret: as libpq, all up to an @ before the first / is user and password.

A port that is no number is taken for the password of an address without an @.
"""

Row = dict[str, Any]
Parameters = Sequence[object] | Mapping[str, object]


class Session(Protocol):
    """One connection."""

    def begin(self) -> None:
        """Begin a transaction."""
        ...

    def end(self, *, keep: bool) -> None:
        """End a transaction: commit what it did, or roll it back."""
        ...

    def execute(self, statement: LiteralString, parameters: Parameters) -> int:
        """Run a statement; return how many rows it changed."""
        ...

    def query(self, statement: LiteralString, parameters: Parameters) -> list[Row]:
        """Run a statement; return its rows."""
        ...

    def explain(self, error: Exception) -> DatastoreError | None:
        """Return what an error of the driver means; None where it is none of the driver's."""
        ...

    def is_fit(self) -> bool:
        """Tell whether the connection stands and no transaction is open, without asking the server."""
        ...

    def interrupt(self) -> None:
        """Have what is under way end soon; from any thread."""
        ...

    def sever(self) -> None:
        """End the connection under what did not heed an interrupt; from any thread."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class Database(Protocol):
    """Where a database is and how it is connected to."""

    @property
    def name(self) -> str:
        """What it is called in texts: without a password."""
        ...

    def check(self) -> None:
        """Refuse what can never work."""
        ...

    def connect(self) -> Session:
        """Connect to it."""
        ...


@final
@attrs.frozen
class SqliteDatabase:
    """A file, made where it is not there."""

    path: str

    @property
    def name(self) -> str:
        """Its address."""
        return f"sqlite:{self.path}"

    def check(self) -> None:
        """Refuse what would be another database for each connection.

        Raises:
            ConfigurationError: it is no file.
        """
        if self.path in ("", ":memory:"):
            msg = f"{self.name!r} is no file, so each connection would see a database of its own: write sqlite:FILE"
            raise ConfigurationError(msg)

    def connect(self) -> "Session":
        """Open it.

        Raises:
            DatastoreUnreachable: it cannot be opened.
        """
        try:
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise DatastoreUnreachable(f"{self.name} cannot be opened: {printable(str(error))}") from None
        return SqliteSession(self.name, connection)


@final
@attrs.define(eq=False)
class SqliteSession:
    """A connection to a file. A transaction may write from its beginning on, so that no lock fails it half way."""

    _name: str
    _connection: sqlite3.Connection
    _interrupted: threading.Event = attrs.field(factory=threading.Event)

    def begin(self) -> None:
        """Begin a transaction once no other one writes."""
        self._run("BEGIN IMMEDIATE", ())

    def end(self, *, keep: bool) -> None:
        """Commit or roll back."""
        if self._connection.in_transaction:
            self._run("COMMIT" if keep else "ROLLBACK", ())

    def execute(self, statement: LiteralString, parameters: Parameters) -> int:
        """Run a statement."""
        return self._run(statement, parameters).rowcount

    def query(self, statement: LiteralString, parameters: Parameters) -> list[Row]:
        """Run a statement and read its rows."""
        cursor = self._run(statement, parameters)
        return _rows([column[0] for column in cursor.description or ()], cursor)

    def explain(self, error: Exception) -> DatastoreError | None:
        """Read the error of a driver."""
        if not isinstance(error, sqlite3.Error):
            return None
        code: str = getattr(error, "sqlite_errorname", "")
        return DatastoreRefused(f"{self._name} refused: {printable(str(error))}", code)

    def is_fit(self) -> bool:
        """Tell whether no transaction is open."""
        return not self._connection.in_transaction

    def interrupt(self) -> None:
        """End the statement that runs, or waits for a lock."""
        self._interrupted.set()
        self._connection.interrupt()

    def sever(self) -> None:
        """Interrupt it again: no server holds it up, but SQLite forgets an interrupt before the statement begins."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _run(self, statement: LiteralString, parameters: Parameters) -> sqlite3.Cursor:
        # SQLite's own wait for a lock heeds no interrupt.
        while True:
            try:
                return self._connection.execute(statement, parameters)
            except sqlite3.OperationalError as error:
                is_busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
                if not is_busy or self._interrupted.wait(BUSY_EVERY):
                    raise


@final
@attrs.frozen
class PostgresDatabase:
    """A PostgreSQL server, at an address as libpq reads it."""

    url: str = attrs.field(repr=False)
    outlet: str = ""
    """What it is reached through, where it is."""
    folder: str = ""
    """Where the Unix socket is that leads there, in place of the address's host."""

    @property
    def name(self) -> str:
        """Its address without user and password."""
        match = _WHERE.fullmatch(self.url)
        name = f"postgresql://{printable(match[1])}" if match else "postgresql"
        return f"{name} through {self.outlet}" if self.outlet else name

    def check(self) -> None:
        """Refuse an address that libpq cannot read.

        Raises:
            ConfigurationError: it cannot, or psycopg is not installed; the text shows nothing of the address.
        """
        self._conninfo()

    def connect(self) -> "Session":
        """Connect.

        Raises:
            DatastoreUnreachable: it is not there, or does not let this process in.
        """
        import psycopg  # noqa: PLC0415 - an extra, and `check` has found it

        try:
            connection = psycopg.connect(self._conninfo(), autocommit=True)
        except psycopg.Error as error:
            why = printable(" ".join(str(error).split()), 500)
            if self.outlet:
                why = f"{why}; where the outlet let nobody in, the log says why"
            raise DatastoreUnreachable(f"{self.name} cannot be used: {why}") from None
        return PostgresSession(self.name, connection)

    def _conninfo(self) -> str:
        with extra("sql", "postgresql:// of Sql"):
            from psycopg import ProgrammingError  # noqa: PLC0415 - an extra
            from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415 - an extra
        try:
            given = conninfo_to_dict(self.url)
        except ProgrammingError:  # its text has the password in it
            raise _no_address() from None
        if not str(given.get("port") or 0).replace(",", "0").isdecimal():
            raise _no_address()
        given.setdefault("connect_timeout", CONNECT_LIMIT)
        if self.outlet:
            self._check_plain(str(given.get("sslmode", "")))
            given.pop("hostaddr", None)
            given |= {"host": self.folder, "port": SOCKET.rpartition(".")[2]}
        return make_conninfo("", **given)

    def _check_plain(self, sslmode: str) -> None:
        if sslmode in ("require", "verify-ca", "verify-full"):
            msg = (
                f"{self.name}: libpq speaks no TLS on the Unix socket that leads to an outlet, so sslmode={sslmode} "
                "would not hold: leave it out, or open an inlet on 127.0.0.1 and connect to that"
            )
            raise ConfigurationError(msg)


@final
@attrs.define(eq=False)
class PostgresSession:
    """A connection to a server."""

    _name: str
    _connection: "psycopg.Connection[Any]"

    def begin(self) -> None:
        """Begin a transaction."""
        self._connection.execute("BEGIN")

    def end(self, *, keep: bool) -> None:
        """Commit or roll back.

        Raises:
            DatastoreRefused: it cannot be committed, for a statement in it had failed.
        """
        done = self._connection.execute("COMMIT" if keep else "ROLLBACK").statusmessage
        if keep and done == "ROLLBACK":
            msg = (
                f"{self._name} rolled the transaction back, for a statement in it had failed: do not catch that inside"
            )
            raise DatastoreRefused(msg, "25P02")

    def execute(self, statement: LiteralString, parameters: Parameters) -> int:
        """Run a statement."""
        # Without parameters % is no placeholder.
        return self._connection.execute(statement, parameters or None).rowcount

    def query(self, statement: LiteralString, parameters: Parameters) -> list[Row]:
        """Run a statement and read its rows as they come, so that too many are not all in memory."""
        with (
            self._connection.cursor() as cursor,
            closing(self._stream(cursor, statement, parameters)) as rows,
        ):
            first = next(rows, None)
            columns = [column.name for column in cursor.description or ()]
            return _rows(columns, () if first is None else itertools.chain((first,), rows))

    @staticmethod
    def _stream(
        cursor: "psycopg.Cursor[Any]", statement: LiteralString, parameters: Parameters
    ) -> "Generator[Sequence[object], None, None]":
        from psycopg import capabilities  # noqa: PLC0415 - an extra, and it is there

        ahead = ROWS_AT_ONCE if capabilities.has_stream_chunked() else 1
        return cast("Generator[Any, None, None]", cursor.stream(statement, parameters or None, size=ahead))

    def explain(self, error: Exception) -> DatastoreError | None:
        """Read the error of a driver; what the server says in detail has values in it, and is left out."""
        import psycopg  # noqa: PLC0415 - an extra, and it is there

        if not isinstance(error, psycopg.Error):
            return None
        text = printable(" ".join((error.diag.message_primary or str(error)).split()), 500)
        if self._connection.closed:
            return DatastoreLost(f"{self._name} was lost: {text}")
        return DatastoreRefused(f"{self._name} refused: {text}", error.sqlstate or "")

    def is_fit(self) -> bool:
        """Tell whether the connection stands: a server that goes says so, which can be read."""
        from psycopg.pq import TransactionStatus  # noqa: PLC0415 - an extra, and it is there

        connection = self._connection
        if connection.closed or connection.info.transaction_status is not TransactionStatus.IDLE:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def interrupt(self) -> None:
        """Ask the server, over a connection of its own, to end the statement that runs."""
        import psycopg  # noqa: PLC0415 - an extra, and it is there

        with suppress(psycopg.Error):  # what is not interrupted is severed
            self._connection.cancel_safe(timeout=CANCEL_LIMIT)

    def sever(self) -> None:
        """End the socket under the statement."""
        import psycopg  # noqa: PLC0415 - an extra, and it is there

        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._connection.fileno())) as connected:
            connected.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _no_address() -> ConfigurationError:
    msg = "this is no PostgreSQL server's address: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    return ConfigurationError(msg)


def database_at(address: str, outlet: str = "", folder: str = "") -> Database:
    """Return the database at an address.

    Args:
        address: ``sqlite:FILE`` or ``postgresql://…``.
        outlet: what leads to its server, where it is not reached directly,
        folder: by the Unix socket `SOCKET` in this folder, once it is there.

    Raises:
        ConfigurationError: it is none; the text shows nothing of it, for there may be a password in it.
    """
    scheme, _, rest = address.partition(":")
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        return PostgresDatabase(address, outlet, folder)
    if scheme == "sqlite" and outlet:
        raise ConfigurationError(f"{address} is a file, to which no outlet leads: leave out through={outlet!r}")
    if scheme == "sqlite":
        return SqliteDatabase(rest)
    msg = "this is no database's address: write sqlite:FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    raise ConfigurationError(msg)


def _rows(columns: Sequence[str], values: Iterable[Sequence[object]]) -> list[Row]:
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise UsageError(f"two columns of the query go by {printable(twice)!r}: name one of them another way with AS")
    rows = [dict(zip(columns, each, strict=True)) for each in itertools.islice(values, MOST_ROWS + 1)]
    if len(rows) > MOST_ROWS:
        raise DatastoreRefused(f"a query has more than {MOST_ROWS} rows: read it in parts, with LIMIT")
    return rows
