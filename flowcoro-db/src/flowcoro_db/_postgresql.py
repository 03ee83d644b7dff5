"""PostgreSQL, through asyncpg; the pool is this package's own.

Cancellation. asyncpg answers the cancellation of a call by asking the server, over a
second connection, to cancel the statement; the next call on the connection waits until
that is settled. `interrupt` makes that next call a trivial one. A cancel request that
reaches the server late hits it, or an idle session, and not somebody's statement.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar, cast

import asyncpg

from flowcoro_db._driver import Driver, DriverConnection, Isolation
from flowcoro_db._row import Row, make_rows
from flowcoro_db._url import DatabaseUrl
from flowcoro_db.errors import (
    ConflictError,
    ConnectError,
    ConnectionLostError,
    DatabaseError,
    DatabaseUrlError,
    IntegrityError,
    QueryError,
    StatementTimeoutError,
)

__all__ = ["PostgresqlDriver"]

T = TypeVar("T")

# Not an empty query: asyncpg 0.32 trips over the server's answer to one.
_NOTHING = "SELECT 1"
_CACHE_OPTION = "statement_cache_size"
_ARGUMENT = re.compile(r"invalid input for query argument (\$\d+)")
_CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY")
# lock_not_available; the whole of class 40 (serialization failure, deadlock) too
_LOCKED = "55P03"
# admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout
_GONE = ("57P01", "57P02", "57P03", "57P05")


class PostgresqlDriver(Driver):
    """PostgreSQL: `postgresql://user:password@host:port/database?option=value`.

    Options are libpq's (`sslmode`, `host` for a socket's directory, …); what is none of
    them is a server setting for the session (`application_name`, `search_path`, …).
    `statement_cache_size=0` is for PgBouncer in transaction mode.
    """

    def __init__(self, url: DatabaseUrl) -> None:
        super().__init__(url)
        # No timeout of asyncpg's: the pool has one.
        dsn = url.reveal(without=(_CACHE_OPTION,))
        self._arguments: dict[str, Any] = {"dsn": dsn, "timeout": None}
        if _CACHE_OPTION in url.options:
            try:
                size = int(url.options[_CACHE_OPTION])
            except ValueError:
                size = -1
            if size < 0:
                raise DatabaseUrlError(f"{url}: {_CACHE_OPTION} is a whole number, 0 or more")
            self._arguments[_CACHE_OPTION] = size
        if "application_name" not in url.options:
            self._arguments["server_settings"] = {"application_name": "flowcoro"}

    async def connect(self) -> DriverConnection:
        """Open a connection; see `Driver.connect`."""
        try:
            raw = await asyncpg.connect(**self._arguments)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            text = self.url.redact(_first_line(error))
            kind = (
                DatabaseUrlError
                if isinstance(error, asyncpg.ClientConfigurationError | ValueError)
                else ConnectError
            )
            code = getattr(error, "sqlstate", None)
            # A message that held a secret holds it in the chain still.
            cause = error if self.url.redact(str(error)) == str(error) else None
            raise kind(f"{self.url}: {text}", code=code) from cause
        return PostgresqlConnection(raw)


class PostgresqlConnection(DriverConnection):
    """One connection."""

    def __init__(self, raw: asyncpg.Connection[asyncpg.Record]) -> None:
        self._raw = raw

    @property
    def raw(self) -> asyncpg.Connection[asyncpg.Record]:
        """The `asyncpg.Connection`."""
        return self._raw

    @property
    def is_usable(self) -> bool:
        """Whether it is open, as far as the event loop has heard."""
        return not self._raw.is_closed()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, a failed one included."""
        return not self._raw.is_closed() and self._raw.is_in_transaction()

    async def execute(self, sql: str, args: Sequence[Any]) -> int:
        """Run a statement; see `DriverConnection.execute`."""
        try:
            status = await self._guard(self._raw.execute(sql, *args), sql, args)
        except AttributeError:
            return 0  # how asyncpg takes an empty statement (its issue 1259)
        # "INSERT 0 3", "UPDATE 3", "CREATE TABLE"
        words = status.split()
        return int(words[-1]) if words[0] in _CHANGES else 0

    async def execute_many(self, sql: str, args: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each; see `DriverConnection.execute_many`."""
        await self._guard(self._raw.executemany(sql, args), sql, ())

    async def fetch(self, sql: str, args: Sequence[Any], *, limit: int | None = None) -> list[Row]:
        """Run a statement and return its rows; see `DriverConnection.fetch`."""
        if limit == 1:
            record = await self._guard(self._raw.fetchrow(sql, *args), sql, args)
            records = [] if record is None else [record]
        else:
            records = await self._guard(self._raw.fetch(sql, *args), sql, args)
        # A record is a sequence already; the rows wrap it as it is.
        return make_rows(records[0].keys(), cast("list[Sequence[Any]]", records)) if records else []

    async def begin(self, *, isolation: Isolation | None, read_only: bool) -> None:
        """Open a transaction."""
        sql = "BEGIN"
        if isolation is not None:
            sql += f" ISOLATION LEVEL {isolation.upper()}"
        if read_only:
            sql += " READ ONLY"
        await self._guard(self._raw.execute(sql), sql, ())

    async def commit(self) -> None:
        """Commit the open transaction."""
        status = await self._guard(self._raw.execute("COMMIT"), "COMMIT", ())
        if status == "ROLLBACK":
            # The server's answer to COMMIT after an error that was swallowed.
            raise QueryError("a statement in it had failed, so the transaction was rolled back")

    async def rollback(self) -> None:
        """Roll the open transaction back."""
        if self.in_transaction:
            await self._guard(self._raw.execute("ROLLBACK"), "ROLLBACK", ())

    async def ping(self) -> None:
        """Ask the server for a sign of life."""
        await self._guard(self._raw.execute(_NOTHING), None, ())

    async def interrupt(self) -> None:
        """Wait until the cancellation that asyncpg has sent is settled."""
        while self.is_usable:
            try:
                await self._raw.execute(_NOTHING)
            except asyncpg.QueryCanceledError:
                continue  # a late cancel request hit this one, as it should
            except asyncpg.InFailedSQLTransactionError:
                return  # refused, which is an answer
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                self._raw.terminate()
                raise self._translate(error, None, ()) from error
            return

    async def reset(self) -> None:
        """Reset settings, temporary tables' cursors, listeners and advisory locks."""
        await self._guard(self._raw.reset(), None, ())

    async def close(self) -> None:
        """Say goodbye to the server and close."""
        try:
            await self._raw.close()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self._raw.terminate()

    def terminate(self) -> None:
        """Drop the socket."""
        self._raw.terminate()

    async def _guard(self, call: Awaitable[T], sql: str | None, args: Sequence[Any]) -> T:
        try:
            return await call
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
            UnicodeError,
        ) as error:
            raise self._translate(error, sql, args) from error

    def _translate(self, error: Exception, sql: str | None, args: Sequence[Any]) -> DatabaseError:
        code = getattr(error, "sqlstate", None) or ""
        if isinstance(error, UnicodeError):
            return QueryError("the statement cannot be encoded as UTF-8")  # nor shown
        text = _first_line(error)
        if not self.is_usable or code.startswith("08") or code in _GONE or _is_io(error):
            message = f"the connection broke: {text}"
            return ConnectionLostError(message, sql=sql, code=code or None)
        refused = _ARGUMENT.match(text)
        if refused:
            return QueryError(_describe(refused[1], args), sql=sql)
        if code.startswith("22"):
            text = text.partition(": ")[0]  # the rest quotes the offending value
        return _kind(error, code, text)(text, sql=sql, code=code or None)


def _kind(error: Exception, code: str, text: str) -> type[DatabaseError]:
    kind: type[DatabaseError] = QueryError
    if code.startswith("23"):
        kind = IntegrityError
    elif code.startswith("40") or code == _LOCKED:
        kind = ConflictError
    elif isinstance(error, asyncpg.QueryCanceledError) and "statement timeout" in text:
        kind = StatementTimeoutError
    return kind


def _first_line(error: Exception) -> str:
    """The primary message; a server's DETAIL, which may quote values, is not part of it."""
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    return text.partition("\n")[0]


def _describe(argument: str, args: Sequence[Any]) -> str:
    """What asyncpg itself objects to, without the value that it quotes."""
    place = int(argument[1:]) - 1
    given = f" ({type(args[place]).__name__})" if 0 <= place < len(args) else ""
    return f"argument {argument}{given} does not fit the type that the statement asks for"


def _is_io(error: Exception) -> bool:
    return isinstance(error, OSError)
