"""Arguments for SQLite: `$1`, `$2`, … and the Python values that SQLite has no type for.

`sqlite3` itself would ignore surplus arguments, and its own adapters for dates are
deprecated; both are settled here, before a statement leaves for its thread.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import re
import uuid
from collections.abc import Sequence
from typing import Any

from flowcoro_db.errors import QueryError

__all__ = ["bind", "check_placeholders"]

# Strings, quoted names and comments are skipped; what is left may be a placeholder.
_TOKENS = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/"
    r"|\$(?P<number>\d+)|(?P<other>\?\d*|[:@][A-Za-z_]\w*)",
    re.DOTALL,
)


def check_placeholders(sql: str, args: Sequence[Any]) -> None:
    """Compare a statement's placeholders with the number of its arguments.

    Raises:
        QueryError: they differ, or the statement has placeholders of another kind.
    """
    wanted, other = _placeholders(sql)
    if other:
        raise QueryError(f"placeholders are $1, $2, …; this one is {other!r}", sql=sql)
    if wanted != len(args):
        raise QueryError(
            f"the statement has {wanted} placeholder{'' if wanted == 1 else 's'}, "
            f"{len(args)} argument{'' if len(args) == 1 else 's'} were given",
            sql=sql,
        )


@functools.lru_cache(maxsize=512)
def _placeholders(sql: str) -> tuple[int, str]:
    highest, other = 0, ""
    for match in _TOKENS.finditer(sql):
        if match["number"]:
            highest = max(highest, int(match["number"]))
        elif match["other"]:
            other = other or match["other"]
    return highest, other


def bind(args: Sequence[Any]) -> dict[str, Any]:
    """Turn arguments into what sqlite3 binds to `$1`, `$2` and so on.

    Dates and times become ISO 8601 text, `UUID` and `Decimal` text, an enumeration
    member its value.
    """
    return {str(place): _adapt(value) for place, value in enumerate(args, 1)}


def _adapt(value: Any) -> Any:
    if value is None or type(value) in (int, str, float, bytes):
        return value
    if isinstance(value, enum.Enum):
        return _adapt(value.value)
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID | decimal.Decimal):
        return str(value)
    return value
