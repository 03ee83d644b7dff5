"""What can go wrong with a database, and nothing else.

Every error is a `DatabaseError`. A message carries the statement in short, with its
literals hidden, and never an argument's value or a password; the driver library's own
exception is chained as `__cause__`, for the log of a developer.
"""

from __future__ import annotations

import re

from flowcoro.errors import FlowcoroError

__all__ = [
    "ConflictError",
    "ConnectError",
    "ConnectionLostError",
    "DatabaseError",
    "DatabaseUrlError",
    "IntegrityError",
    "PoolClosedError",
    "PoolTimeoutError",
    "QueryError",
    "RowError",
    "StatementTimeoutError",
    "UsageError",
    "shorten",
]

_LONGEST = 120
_LITERAL = re.compile(r"'(?:[^']|'')*(?:'|\Z)|\$([A-Za-z_]\w*|)\$.*?(?:\$\1\$|\Z)", re.DOTALL)


def shorten(sql: str) -> str:
    """Show a statement in one short line, its string literals hidden.

    Args:
        sql: the statement.
    """
    # Cut first: a megabyte of SQL is not worth scanning for the 120 characters shown.
    text = " ".join(_LITERAL.sub("'***'", sql[: _LONGEST * 8]).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


class DatabaseError(FlowcoroError):
    """Base of every error that flowcoro-db raises.

    Args:
        message: what is wrong.
        sql: the statement, or None where there is none; shown in short.
        code: the database's own code: an SQLSTATE, or a name like `SQLITE_BUSY`.

    Attributes:
        message: the message without statement and code.
        sql: the statement in short, or None.
        code: the database's own code, or None.
    """

    def __init__(self, message: str, *, sql: str | None = None, code: str | None = None) -> None:
        self.message = message
        self.sql = None if sql is None else shorten(sql)
        self.code = code
        text = message if code is None else f"{message} [{code}]"
        super().__init__(text if self.sql is None else f"{text} (in: {self.sql})")


class DatabaseUrlError(DatabaseError):
    """The URL cannot be read, has a wrong option, or names a scheme that has no driver."""


class ConnectError(DatabaseError):
    """A connection could not be opened: no server, no such database, no permission."""


class ConnectionLostError(DatabaseError):
    """The connection broke while it was in use; whether the statement ran is unknown."""


class PoolTimeoutError(DatabaseError, TimeoutError):
    """No connection became free within `acquire_timeout`."""


class PoolClosedError(DatabaseError):
    """The database is not started, is closing, or is closed."""


class QueryError(DatabaseError):
    """The database refused a statement: bad SQL, bad arguments, no permission."""


class IntegrityError(QueryError):
    """A constraint was violated: unique, foreign key, not null, check."""


class ConflictError(QueryError):
    """Another transaction was in the way; running the whole transaction again may work.

    Serialization failures and deadlocks of PostgreSQL, and a lock that SQLite did not
    get within `busy_timeout`.
    """


class StatementTimeoutError(QueryError, TimeoutError):
    """A statement took longer than `statement_timeout`; it was interrupted."""


class RowError(DatabaseError):
    """A row does not fit the type given as `as_`; the message names the column."""


class UsageError(DatabaseError):
    """The API was used wrongly: a finished transaction, one connection in two tasks."""
