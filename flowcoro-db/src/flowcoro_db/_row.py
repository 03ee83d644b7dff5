"""`Row`, what every driver's fetch returns, and its way to typed objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from flowcoro_db.errors import RowError

__all__ = ["Row", "convert_rows", "make_rows"]

T = TypeVar("T")

# msgspec quotes the value in some messages ("Invalid enum value 'x'").
_QUOTED = re.compile(r" '[^`]*'(?= - at|\Z)")
_PLACE = re.compile(r"^(.*) - at `\$\[(\d+)\]\.?(.*)`$", re.DOTALL)


class Row(Mapping[str, Any]):
    """One row: a read-only mapping from column to value, which also takes an index.

    `row["name"]` and `row[0]` both work. Where two columns have one name, the name gives
    the last of them; the index gives each.

    Example:
        ```python
        row = await db.fetch_one("SELECT id, name FROM users WHERE id = $1", 7)
        assert row is not None and row["id"] == row[0] == 7
        ```
    """

    __slots__ = ("_index", "_values")

    def __init__(self, index: Mapping[str, int], values: Sequence[Any]) -> None:
        """Wrap one row; drivers use `make_rows` for many.

        Args:
            index: each column's position; shared by all rows of a result.
            values: the values in order.
        """
        self._index = index
        self._values = values

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, int):
            return self._values[key]
        try:
            return self._values[self._index[key]]
        except KeyError:
            known = ", ".join(self._index)
            raise KeyError(f"no column {key!r}; columns: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def as_dict(self) -> dict[str, Any]:
        """Return a new dictionary from column to value."""
        values = self._values
        return {name: values[place] for name, place in self._index.items()}

    def as_tuple(self) -> tuple[Any, ...]:
        """Return the values in order, those of columns with equal names included."""
        return tuple(self._values)

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={value!r}' for name, value in self.items())})"


def make_rows(names: Iterable[str], values: Iterable[Sequence[Any]]) -> list[Row]:
    """Turn a driver's result into rows that share one index of columns.

    Args:
        names: the columns in order.
        values: one sequence for each row; it is kept, not copied, so it must not change.
    """
    index = {name: place for place, name in enumerate(names)}
    return [Row(index, row) for row in values]


def convert_rows(rows: Sequence[Row], as_: type[T], sql: str) -> list[T]:
    """Turn rows into objects of a type whose fields are columns.

    Conversion is lax, since a database may have no such type itself: text becomes a
    `datetime`, `UUID` or `Decimal`, and 0 and 1 become a `bool`, where the field says so.

    Args:
        rows: what was fetched.
        as_: an msgspec struct, dataclass, attrs class or TypedDict.
        sql: the statement, for the error.

    Raises:
        RowError: a row does not fit; the message names row, column and expectation.
    """
    import msgspec

    plain = [row.as_dict() for row in rows]
    try:
        return msgspec.convert(plain, list[as_], strict=False)  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        text = _QUOTED.sub("", str(error))
        match = _PLACE.match(text)
        if match:
            column = f", column {match[3]}" if match[3] else ""
            text = f"row {match[2]}{column}: {match[1]}"
        # Not chained: the original's message may quote the value.
        raise RowError(f"a row is no {as_.__qualname__}: {text}", sql=sql) from None
