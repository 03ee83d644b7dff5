"""`Database`: a component with a pool, and the methods that run statements on it."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import msgspec

from flowcoro import Component, Health, HealthStatus
from flowcoro.errors import ConfigError
from flowcoro_db._config import DbConfig
from flowcoro_db._driver import Driver, DriverConnection, Isolation
from flowcoro_db._drivers import find_driver, find_driver_alone
from flowcoro_db._pool import Pool
from flowcoro_db._pool_options import PoolOptions, PoolStats
from flowcoro_db._session import Session
from flowcoro_db._statements import Statements
from flowcoro_db._transaction import Connection, Transaction
from flowcoro_db._url import DatabaseUrl
from flowcoro_db.errors import DatabaseError, PoolClosedError, PoolTimeoutError, UsageError

if TYPE_CHECKING:
    from flowcoro import Context

__all__ = ["Database"]

T = TypeVar("T")

logger = logging.getLogger("flowcoro.db")

_HEALTH_TIMEOUT = 3.0


class Database(Component, Statements):
    """A database: a pool of connections, and methods that each borrow one.

    A component of an `App`, or used alone with `async with`. What is not given here is
    taken from the section `[db]` of the application's configuration.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite://:memory:`,
            `postgresql://user:password@host:port/database`, or what a plugin's driver
            serves. None takes `[db] url`, whose default is `sqlite:///flowcoro.db`. A
            database in memory has exactly one connection: `max_size` is 1, whatever is
            asked for, and the data live until it closes.
        name: unique in its application; `Annotated[Database, Named("…")]` picks it.
        min_size: connections that are opened at the start and kept open (1).
        max_size: the most connections at any time (10).
        acquire_timeout: seconds to wait for a connection (10).
        connect_timeout: seconds that opening one may take (10).
        statement_timeout: seconds that one statement may take (`math.inf`).
        idle_timeout: seconds unused after which surplus connections close (300).
        max_lifetime: seconds after which a connection is replaced (3600).
        check_after: seconds unused after which one is pinged before its reuse (30).
        cleanup_timeout: seconds for interrupting and rolling back (5).
        close_timeout: seconds that closing waits for connections in use (10).

    Raises:
        DatabaseUrlError: `url` is no URL.
        ValueError: a size or a time is out of range.

    Example:
        ```python
        async with Database("sqlite:///app.db") as db:
            await db.execute("CREATE TABLE IF NOT EXISTS users (id INTEGER, name TEXT)")
            async with db.transaction() as tx:
                await tx.execute("INSERT INTO users VALUES ($1, $2)", 1, "Ada")
            name = await db.fetch_value("SELECT name FROM users WHERE id = $1", 1)
        ```
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str = "database",
        min_size: int | None = None,
        max_size: int | None = None,
        acquire_timeout: float | None = None,
        connect_timeout: float | None = None,
        statement_timeout: float | None = None,
        idle_timeout: float | None = None,
        max_lifetime: float | None = None,
        check_after: float | None = None,
        cleanup_timeout: float | None = None,
        close_timeout: float | None = None,
    ) -> None:
        self.name = name
        given: dict[str, Any] = {
            "min_size": min_size,
            "max_size": max_size,
            "acquire_timeout": acquire_timeout,
            "connect_timeout": connect_timeout,
            "statement_timeout": statement_timeout,
            "idle_timeout": idle_timeout,
            "max_lifetime": max_lifetime,
            "check_after": check_after,
            "cleanup_timeout": cleanup_timeout,
            "close_timeout": close_timeout,
        }
        self._given = {key: value for key, value in given.items() if value is not None}
        self._own_url = None if url is None else DatabaseUrl.parse(_plain(url))
        self._config = _merge(DbConfig(), self._given)
        self._driver: Driver | None = None
        self._pool: Pool | None = None
        self._drained = False

    @property
    def url(self) -> DatabaseUrl:
        """The database's address; it prints without its password."""
        return self._own_url or DatabaseUrl.parse(_plain(self._config.url))

    @property
    def stats(self) -> PoolStats:
        """The pool's state and counters.

        Raises:
            PoolClosedError: the database is not started.
        """
        return self._required().stats

    def attach(self, context: Context) -> None:
        """Read `[db]` and find the driver among the application's plugins.

        Raises:
            DatabaseUrlError: no driver serves the URL's scheme, or the URL is wrong.
            ConfigError: `min_size` is above `max_size`.
        """
        if "db" in context.config:
            section = context.config.section(DbConfig)
            try:
                self._config = _merge(section, self._given)
            except ValueError as error:
                raise ConfigError([f"[db], for the database {self.name!r}: {error}"]) from None
        url = self.url
        self._driver = find_driver(url, context.plugins).create(url)

    async def __aenter__(self) -> Self:
        """Open `min_size` connections.

        Raises:
            ConnectError: the database is not to be reached.
            DatabaseUrlError: no driver serves the URL's scheme, or the URL is wrong.
        """
        if self._pool is not None:
            raise UsageError(f"the database {self.name!r} is started already")
        url = self.url
        driver = self._driver or find_driver_alone(url).create(url)
        pool = Pool(driver, _pool_options(self._config, driver))
        await pool.__aenter__()
        self._pool, self._drained = pool, False
        logger.info("database %s is open: %s", self.name, url)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait `close_timeout` for connections in use, cut the rest, close all."""
        pool, self._pool, self._driver = self._required(), None, None
        # Once drained, whoever still has a connection has had the time to finish.
        await pool.close(0 if self._drained else self._config.close_timeout)

    async def drain(self) -> None:
        """Return when no connection is in use and nobody waits for one."""
        self._drained = True
        await self._required().unused()

    async def health(self) -> Health:
        """Run `SELECT 1`; tell the pool's state.

        Returns:
            `FAIL` when the database cannot be reached, `WARN` when every connection has
            been in use for 3 s, with the pool's figures in the detail.
        """
        if self._pool is None:
            return Health(HealthStatus.FAIL, f"{self.url}: not started")
        status, problem = HealthStatus.PASS, ""
        answered = False
        try:
            with anyio.move_on_after(_HEALTH_TIMEOUT):
                await self.fetch_value("SELECT 1")
                answered = True
        except PoolTimeoutError:
            pass
        except DatabaseError as error:
            status, problem, answered = HealthStatus.FAIL, f"; {error}", True
        if not answered:
            status, problem = HealthStatus.WARN, f"; no answer within {_HEALTH_TIMEOUT:g} s"
        return Health(status, f"{self.url}, {_show(self._pool.stats)}{problem}")

    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False
    ) -> Transaction:
        """Open a transaction on a connection of its own: `async with db.transaction() as tx`.

        Committed when the block ends well; rolled back when it raises or is cancelled.
        Only what is run through `tx` belongs to it.

        Args:
            isolation: at least this level; None takes the database's default. SQLite is
                always serializable.
            read_only: refuse writes. On SQLite, it lets a reader go beside a writer.
        """
        return Transaction(self._open_session, isolation=isolation, read_only=read_only)

    def connection(self) -> Connection:
        """Keep one connection for a while: `async with db.connection() as connection`."""
        return Connection(self._open_session)

    def __repr__(self) -> str:
        state = "closed" if self._pool is None else _show(self._pool.stats)
        return f"<Database {self.name!r} {self.url}: {state}>"

    async def _run(self, operation: Callable[[DriverConnection], Awaitable[T]], sql: str) -> T:
        session = await self._open_session()
        try:
            return await session.run(operation, sql)
        finally:
            await session.close()

    async def _open_session(self) -> Session:
        return await Session.open(self._required(), self._config.statement_timeout)

    def _required(self) -> Pool:
        if self._pool is None:
            raise PoolClosedError(
                f"the database {self.name!r} is not started: give it to an App, or use `async with`"
            )
        return self._pool


def _plain(url: str) -> str:
    # A Secret is a str that hides itself; joining its characters is what `reveal` does.
    reveal = getattr(url, "reveal", None)
    return reveal() if reveal is not None else url


def _merge(config: DbConfig, given: dict[str, Any]) -> DbConfig:
    values = msgspec.structs.asdict(config) | given
    if "min_size" not in given and "max_size" in given:
        # The default minimum yields to a smaller maximum that was asked for.
        values["min_size"] = min(values["min_size"], given["max_size"])
    for name, value in given.items():
        least = "0 or more" if name in ("min_size", "check_after") else "above 0"
        if value < 0 or (value == 0 and least == "above 0"):
            raise ValueError(f"{name} is {least}, not {value!r}")
    PoolOptions(min_size=values["min_size"], max_size=values["max_size"])
    return DbConfig(**values)


def _pool_options(config: DbConfig, driver: Driver) -> PoolOptions:
    alone = driver.single_connection
    return PoolOptions(
        min_size=1 if alone else config.min_size,
        max_size=1 if alone else config.max_size,
        acquire_timeout=config.acquire_timeout,
        connect_timeout=config.connect_timeout,
        idle_timeout=math.inf if alone else config.idle_timeout,
        max_lifetime=math.inf if alone else config.max_lifetime,
        check_after=math.inf if alone else config.check_after,
        cleanup_timeout=config.cleanup_timeout,
        close_timeout=config.close_timeout,
    )


def _show(stats: PoolStats) -> str:
    return (
        f"{stats.size} of {stats.max_size} connections, {stats.in_use} in use, "
        f"{stats.waiters} waiting"
    )
