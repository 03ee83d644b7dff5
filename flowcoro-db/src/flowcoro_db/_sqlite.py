"""SQLite, through aiosqlite: one thread for each connection.

Protocol. A statement is one job on the connection's thread (one trip there and back).
Cancelling the caller does not stop the job, so `interrupt` marks it abandoned (if it has
not begun, it will not), calls `sqlite3_interrupt` until the thread answers, and returns.

Writers. SQLite lets one connection write at a time. Waiting for that inside SQLite would
block the thread where nothing can interrupt it, so its busy handler is off and the wait
is here: first in a line among this process's connections (fair, no polling), and only
its head polls, against other processes. Write transactions begin `IMMEDIATE`: they wait
at the start, not at a statement in the middle that could no longer be retried.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import aiosqlite
import anyio

from flowcoro_db._driver import Driver, DriverConnection, Isolation
from flowcoro_db._row import Row, make_rows
from flowcoro_db._sqlite_values import bind, check_placeholders
from flowcoro_db._url import DatabaseUrl
from flowcoro_db.errors import (
    ConflictError,
    ConnectError,
    ConnectionLostError,
    DatabaseError,
    DatabaseUrlError,
    IntegrityError,
    QueryError,
)

__all__ = ["SqliteDriver"]

T = TypeVar("T")

_OPTIONS = ("mode", "busy_timeout", "synchronous")
_SYNCHRONOUS = ("full", "normal")
_MODES = ("ro", "rw", "rwc")
_MEMORY = ":memory:"
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.025
_INTERRUPT_EVERY = 0.02
_OPENING_GRACE = 5.0
# How `execute_many` begins, ends and undoes its work: alone, and within a transaction.
_PLAIN = ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
_NESTED = ("SAVEPOINT flowcoro_many", "RELEASE flowcoro_many", "ROLLBACK TO flowcoro_many")
# What sqlite3 raises for arguments and SQL that it cannot even pass on.
_REFUSALS = (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError)

Job = Callable[[sqlite3.Connection], T]


class SqliteDriver(Driver):
    """SQLite: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite://:memory:`.

    Options: `mode` (`rwc`, the default, creates the file; `rw` does not; `ro` only
    reads), `busy_timeout` (seconds to wait for another writer, 5 by default) and
    `synchronous` (`full`, the default: a commit survives a loss of power; `normal`:
    faster, the last commits may be lost, the file stays whole).
    """

    def __init__(self, url: DatabaseUrl) -> None:
        super().__init__(url)
        if url.host or not url.path:
            raise DatabaseUrlError(
                f"{url}: SQLite takes a path: sqlite:///relative.db, "
                "sqlite:////absolute/path.db or sqlite://:memory:"
            )
        unknown = sorted(set(url.options) - set(_OPTIONS))
        if unknown:
            raise DatabaseUrlError(
                f"{url}: SQLite has no option {unknown[0]!r}; known: {', '.join(_OPTIONS)}"
            )
        self._mode = url.options.get("mode", "rwc")
        if self._mode not in _MODES:
            raise DatabaseUrlError(f"{url}: mode is one of {', '.join(_MODES)}")
        self._synchronous = url.options.get("synchronous", "full")
        if self._synchronous not in _SYNCHRONOUS:
            raise DatabaseUrlError(f"{url}: synchronous is one of {', '.join(_SYNCHRONOUS)}")
        self.busy_timeout = _seconds(url, "busy_timeout", 5.0)
        self.single_connection = url.path == _MEMORY
        self.writers = anyio.Semaphore(1)

    async def connect(self) -> DriverConnection:
        """Open the file and set it up; see `Driver.connect`."""
        connection = SqliteConnection(self)
        try:
            await connection.open()
        except DatabaseError as error:
            raise ConnectError(f"{self.url}: {error.message}", code=error.code) from error
        return connection

    def open_file(self) -> sqlite3.Connection:
        """Open the file; runs on the connection's thread."""
        # A URI, since that is the only way to say "do not create"; its path is quoted.
        path = self.url.path
        target = path if self.single_connection else f"file:{_quote(path)}?mode={self._mode}"
        return sqlite3.connect(
            target,
            uri=not self.single_connection,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )

    def set_up(self, raw: sqlite3.Connection) -> None:
        """Bring a new connection to the state this package promises."""
        raw.execute("PRAGMA foreign_keys = ON")
        if self._mode != "ro" and not self.single_connection:
            raw.execute("PRAGMA journal_mode = WAL")
        raw.execute(f"PRAGMA synchronous = {self._synchronous}")
        raw.execute("SELECT count(*) FROM sqlite_schema")  # is it a database at all?


class _Thread(aiosqlite.Connection):
    """aiosqlite's connection, able to run a whole function in one trip to its thread.

    Attributes:
        ended: done when the thread is, once `stop` was called; aiosqlite itself calls
            it, and waits for nothing, when opening fails or is cancelled.
    """

    ended: asyncio.Future[Any] | None = None

    def stop(self) -> asyncio.Future[Any] | None:
        self.ended = super().stop()
        return self.ended

    async def run(self, job: Job[T]) -> T:
        execute: Any = self._execute  # not annotated in aiosqlite
        return cast("T", await execute(job, self._conn))

    @property
    def is_open(self) -> bool:
        return self._running and self._connection is not None

    def interrupt_now(self) -> None:
        # Its own thread may be closing it right now.
        with contextlib.suppress(sqlite3.ProgrammingError):
            if self._connection is not None:
                self._connection.interrupt()


class _Job:
    """A job that does nothing when its caller has gone before it begins."""

    __slots__ = ("abandoned", "job", "running")

    def __init__(self, job: Job[Any]) -> None:
        self.job = job
        self.abandoned = False
        self.running = False

    def __call__(self, raw: sqlite3.Connection) -> Any:
        if self.abandoned:
            raise sqlite3.OperationalError("interrupted")
        self.running = True
        try:
            return self.job(raw)
        finally:
            self.running = False


class SqliteConnection(DriverConnection):
    """One connection and its thread."""

    def __init__(self, driver: SqliteDriver) -> None:
        self._driver = driver
        self._opened: sqlite3.Connection | None = None
        self._abandoned = False
        self._thread = _Thread(self._open_raw, 64)
        self._usable = False
        self._job: _Job | None = None
        self._writing = False
        self._read_only = False

    async def open(self) -> None:
        """Start the thread, open the file and set the connection up."""
        try:
            # Opening a file is brief; the shield spares most cancellations the work of
            # giving up a connection that another thread is just making.
            with anyio.CancelScope(shield=True):
                await self._thread
        except sqlite3.Error as error:
            await self._shielded_close()
            raise _translate(error, None) from error
        except BaseException:
            self._abandoned = True
            if self._opened is not None:
                self._opened.close()
            await self._shielded_close()
            raise
        self._usable = True
        try:
            await self._patiently(self._driver.set_up, None)
        except BaseException:
            self.terminate()
            await self._shielded_close()
            raise

    @property
    def raw(self) -> aiosqlite.Connection:
        """The `aiosqlite.Connection`."""
        return self._thread

    @property
    def is_usable(self) -> bool:
        """Whether it is open."""
        return self._usable and self._thread.is_open

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.is_usable and self._thread.in_transaction

    async def execute(self, sql: str, args: Sequence[Any]) -> int:
        """Run a statement; see `DriverConnection.execute`."""
        check_placeholders(sql, args)
        values = bind(args)

        def job(raw: sqlite3.Connection) -> int:
            cursor = raw.execute(sql, values)
            try:
                if cursor.description is not None:
                    cursor.fetchall()  # RETURNING counts its rows only at the end
                return max(cursor.rowcount, 0)
            finally:
                cursor.close()

        return await self._statement(job, sql)

    async def execute_many(self, sql: str, args: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each; see `DriverConnection.execute_many`."""
        for each in args:
            check_placeholders(sql, each)
        values = [bind(each) for each in args]

        nested = self.in_transaction
        begin, end, undo = _NESTED if nested else _PLAIN

        def job(raw: sqlite3.Connection) -> None:
            raw.execute(begin)
            try:
                raw.executemany(sql, values).close()
                raw.execute(end)
            except BaseException:
                if raw.in_transaction:  # an interrupt may have ended it already
                    raw.execute(undo)
                raise

        await self._statement(job, sql)

    async def fetch(self, sql: str, args: Sequence[Any], *, limit: int | None = None) -> list[Row]:
        """Run a statement and return its rows; see `DriverConnection.fetch`."""
        check_placeholders(sql, args)
        values = bind(args)

        def job(raw: sqlite3.Connection) -> list[Row]:
            cursor = raw.execute(sql, values)
            try:
                if cursor.description is None:
                    return []
                names = [column[0] for column in cursor.description]
                found = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
                return make_rows(names, found)
            finally:
                cursor.close()

        return await self._statement(job, sql)

    async def begin(self, *, isolation: Isolation | None, read_only: bool) -> None:
        """Open a transaction; every level is met, since SQLite's is serializable."""

        def job(raw: sqlite3.Connection) -> None:
            if not read_only:
                raw.execute("BEGIN IMMEDIATE")
                return
            raw.execute("BEGIN DEFERRED")
            raw.execute("PRAGMA query_only = ON")

        self._read_only = read_only
        if read_only:
            await self._patiently(job, "BEGIN")
        else:
            await self._in_line(job, "BEGIN IMMEDIATE", stay=True)

    async def commit(self) -> None:
        """Commit the open transaction."""
        # Without WAL (another process may have left it), readers can be in the way.
        await self._patiently(lambda raw: raw.execute("COMMIT").close(), "COMMIT")
        await self._after_transaction()

    async def rollback(self) -> None:
        """Roll the open transaction back."""
        if self.in_transaction:
            await self._run(_rollback, "ROLLBACK")
        await self._after_transaction()

    async def ping(self) -> None:
        """Ask the thread for a sign of life."""
        await self._run(lambda raw: None, None)

    async def interrupt(self) -> None:
        """Stop the job that a cancelled call left on the thread."""
        if self._job is not None:
            self._job.abandoned = True
        while self.is_usable:
            # Again and again: the job may be just about to call into SQLite.
            self._thread.interrupt_now()
            with anyio.move_on_after(_INTERRUPT_EVERY):
                await self._run(lambda raw: None, None)
                break
        self._job = None
        if not self.in_transaction:
            await self._after_transaction()

    async def reset(self) -> None:
        """Bring the session's settings back."""

        def job(raw: sqlite3.Connection) -> None:
            raw.execute("PRAGMA query_only = OFF")
            raw.execute("PRAGMA foreign_keys = ON")

        await self._run(job, None)

    async def close(self) -> None:
        """Close the file and wait until the thread is done."""
        if self._usable:
            self._end()
        ended = self._thread.ended
        while ended is not None and not ended.done():
            # Again and again, as in `interrupt`; what runs now is wanted by nobody. But
            # not what closes the file: cut short, it would leave the WAL behind.
            if self._job is not None and self._job.running:
                self._thread.interrupt_now()
            await asyncio.wait((ended,), timeout=_INTERRUPT_EVERY)

    def terminate(self) -> None:
        """Interrupt what runs and have the thread close the file."""
        if self._usable:
            self._thread.interrupt_now()
            self._end()

    # Running jobs.

    def _open_raw(self) -> sqlite3.Connection:
        """On the thread: open the file, unless nobody wants it any more."""
        raw = self._opened = self._driver.open_file()
        if self._abandoned:
            raw.close()
        return raw

    def _end(self) -> None:
        self._usable = False
        if self._job is not None:
            self._job.abandoned = True
        if self._thread.is_open:  # else its user has closed it, through `raw`
            self._thread.stop()
        self._leave_line()

    async def _shielded_close(self) -> None:
        with anyio.move_on_after(_OPENING_GRACE, shield=True):
            await self.close()

    async def _run(self, job: Job[T], sql: str | None) -> T:
        if not self.is_usable:
            raise ConnectionLostError("the connection is closed", sql=sql)
        try:
            return await self._thread.run(job)
        except _REFUSALS as error:
            if not self._usable:
                raise ConnectionLostError("the connection was closed", sql=sql) from error
            raise _translate(error, sql) from error

    async def _statement(self, job: Job[T], sql: str | None) -> T:
        """Run a statement's job; outside a transaction, wait for other writers."""
        alone = not self.in_transaction
        try:
            return await self._abandonable(job, sql)
        except DatabaseError as error:
            if not alone and not self.in_transaction:
                # Some errors (disk full, say) end the transaction.
                await self._after_transaction()
            if not alone or not isinstance(error, ConflictError):
                raise
        return await self._in_line(job, sql, stay=False)

    async def _abandonable(self, job: Job[T], sql: str | None) -> T:
        self._job = _Job(job)
        result: T = await self._run(self._job, sql)
        self._job = None
        return result

    async def _in_line(self, job: Job[T], sql: str | None, *, stay: bool) -> T:
        """Wait among this process's writers, then against other processes'."""
        with anyio.move_on_after(self._driver.busy_timeout):
            await self._driver.writers.acquire()
            self._writing = True
        if not self._writing:
            raise ConflictError(
                "another transaction of this process has been writing for "
                f"{self._driver.busy_timeout:g} s",
                sql=sql,
                code="SQLITE_BUSY",
            )
        try:
            result = await self._patiently(job, sql)
        except DatabaseError:
            self._leave_line()
            raise
        if not stay:
            self._leave_line()
        return result

    async def _patiently(self, job: Job[T], sql: str | None) -> T:
        """Run a job again and again while another process has the lock."""
        deadline = anyio.current_time() + self._driver.busy_timeout
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._abandonable(job, sql)
            except ConflictError:
                if anyio.current_time() + pause > deadline:
                    raise
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _leave_line(self) -> None:
        if self._writing:
            self._writing = False
            self._driver.writers.release()

    async def _after_transaction(self) -> None:
        self._leave_line()
        if self._read_only:
            await self._run(lambda raw: raw.execute("PRAGMA query_only = OFF").close(), None)
            self._read_only = False


def _rollback(raw: sqlite3.Connection) -> None:
    if raw.in_transaction:
        raw.execute("ROLLBACK")


def _translate(error: Exception, sql: str | None) -> DatabaseError:
    code = getattr(error, "sqlite_errorname", None)
    number = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
    text = str(error)
    if isinstance(error, UnicodeError):
        text = "a text cannot be encoded as UTF-8"  # the error would quote it
    if isinstance(error, sqlite3.IntegrityError) and number == sqlite3.SQLITE_CONSTRAINT:
        return IntegrityError(text, sql=sql, code=code)
    if number in _BUSY:
        return ConflictError(text, sql=sql, code=code)
    return QueryError(text, sql=sql, code=code)


def _seconds(url: DatabaseUrl, option: str, default: float) -> float:
    text = url.options.get(option)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise DatabaseUrlError(f"{url}: {option} is a number of seconds, 0 or more")
    return value


def _quote(path: str) -> str:
    from urllib.parse import quote

    return quote(path)
