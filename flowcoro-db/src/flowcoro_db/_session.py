"""`Session`: one use of one connection, whatever is done with it.

Every statement, of a `Database`, a `Connection` or a `Transaction`, passes through
`Session.run`. It gives the statement its deadline, and it holds the rule on which the
rest is built: when it returns or raises, no statement runs on the connection any more,
or the connection is terminated, or the slot is marked `unsettled`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from flowcoro_db._driver import DriverConnection, Isolation
from flowcoro_db._pool import Pool
from flowcoro_db._slot import Slot, cut
from flowcoro_db.errors import (
    ConnectionLostError,
    DatabaseError,
    QueryError,
    StatementTimeoutError,
    UsageError,
)

__all__ = ["Session"]

T = TypeVar("T")

_ISOLATION = ("read uncommitted", "read committed", "repeatable read", "serializable")


class Session:
    """One lease of one slot.

    Args:
        pool: where the slot goes back to.
        slot: the slot, with an open connection.
        statement_timeout: seconds that each statement may take; `math.inf` for no limit.
    """

    __slots__ = ("_busy", "_pool", "_slot", "_timeout", "depth")

    def __init__(self, pool: Pool, slot: Slot, statement_timeout: float) -> None:
        self._pool = pool
        self._slot: Slot | None = slot
        self._timeout = statement_timeout
        self._busy = False
        self.depth = 0  # of open transactions: 0 none, 1 a transaction, more: savepoints

    @classmethod
    async def open(cls, pool: Pool, statement_timeout: float) -> Session:
        """Acquire a slot and begin a session on it."""
        return cls(pool, await pool.acquire(), statement_timeout)

    @property
    def connection(self) -> DriverConnection:
        """The connection.

        Raises:
            UsageError: the session is over.
        """
        if self._slot is None or self._slot.connection is None:
            raise UsageError("this connection was given back to the pool already")
        return self._slot.connection

    async def close(self, *, reset: bool = False) -> None:
        """Give the slot back; what is open is rolled back.

        Args:
            reset: whether the session's settings may have been changed.
        """
        slot, self._slot = self._slot, None
        if slot is not None:
            await self._pool.release(slot, reset=reset)

    async def run(self, operation: Callable[[DriverConnection], Awaitable[T]], sql: str) -> T:
        """Run one operation on the connection, alone and within the deadline.

        Args:
            operation: what to do.
            sql: the statement, for messages.

        Raises:
            StatementTimeoutError: it took too long and was interrupted.
            UsageError: the session is over, or another task is using it.
            DatabaseError: what the driver raised.
        """
        connection = self.connection
        slot = self._slot
        if slot is None or self._busy:
            raise UsageError("two tasks use one connection at the same time", sql=sql)
        self._busy = True
        try:
            if slot.unsettled:
                await slot.settle(self._cleanup_timeout)
            if not connection.is_usable:
                raise ConnectionLostError("the connection is broken", sql=sql)
            if self.depth and not connection.in_transaction:
                raise QueryError("the database has rolled this transaction back", sql=sql)
            if self._timeout == math.inf:
                return await operation(connection)
            with anyio.move_on_after(self._timeout):
                return await operation(connection)
        except DatabaseError:
            raise
        except BaseException:
            # Cancelled, or a driver that broke its contract: what runs must stop first.
            await slot.settle(self._cleanup_timeout)
            raise
        finally:
            self._busy = False
        self._busy = True
        try:
            await slot.settle(self._cleanup_timeout)
        finally:
            self._busy = False
        raise StatementTimeoutError(
            f"the statement took longer than {self._timeout:g} s and was interrupted", sql=sql
        )

    async def begin(self, isolation: Isolation | None, read_only: bool) -> None:
        """Open a transaction, or a savepoint within the open one."""
        if isolation is not None and isolation not in _ISOLATION:
            raise UsageError(f"no isolation level {isolation!r}; one of {', '.join(_ISOLATION)}")
        if self.depth == 0:
            await self._begin(isolation, read_only)
        elif isolation is not None or read_only:
            raise UsageError("a nested transaction cannot choose isolation or read_only")
        else:
            name = _savepoint(self.depth)
            await self.run(lambda c: c.savepoint(name), f"SAVEPOINT {name}")
        self.depth += 1

    async def commit(self) -> None:
        """Commit the transaction, or forget the innermost savepoint."""
        self._require_depth()
        if self.depth == 1:
            await self.run(lambda c: c.commit(), "COMMIT")
        else:
            name = _savepoint(self.depth - 1)
            await self.run(lambda c: c.release_savepoint(name), f"RELEASE SAVEPOINT {name}")
        self.depth -= 1

    async def rollback(self) -> None:
        """Undo the transaction, or what was done since the innermost savepoint.

        It never fails: a connection that cannot do it is terminated, or cleaned by the
        pool when it is given back.
        """
        self._require_depth()
        self.depth -= 1
        slot = self._slot
        if slot is None or not slot.is_usable:
            return
        if self.depth == 0:
            await slot.restore(self._cleanup_timeout, reset=False)
        elif self.connection.in_transaction:
            await self._rollback_to(slot, _savepoint(self.depth))

    @property
    def _cleanup_timeout(self) -> float:
        return self._pool.options.cleanup_timeout

    def _require_depth(self) -> None:
        if self.depth == 0:
            raise UsageError("there is no open transaction")

    async def _begin(self, isolation: Isolation | None, read_only: bool) -> None:
        try:
            await self.run(lambda c: c.begin(isolation=isolation, read_only=read_only), "BEGIN")
        except BaseException:
            # A cancelled BEGIN may have been carried out all the same.
            if self._slot is not None:
                await self._slot.restore(self._cleanup_timeout, reset=False)
            raise

    async def _rollback_to(self, slot: Slot, name: str) -> None:
        if slot.unsettled:
            await slot.settle(self._cleanup_timeout)
        done = False
        try:
            if slot.is_usable:
                with anyio.move_on_after(self._cleanup_timeout, shield=True):
                    await self.connection.rollback_to_savepoint(name)
                    done = True
        except DatabaseError:
            pass  # the connection goes, and with it the whole transaction
        finally:
            if not done:
                cut(self.connection)


def _savepoint(depth: int) -> str:
    return f"flowcoro_{depth}"
