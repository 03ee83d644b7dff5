"""Checks of what something is made with: an error names the field, what was expected and what came.

For constructors and for what is given seldom; nothing that each request passes. A field is named
with whose it is, such as `RateLimit: limit`. Text may be a secret, so no error repeats what came
instead of it.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Iterable
from typing import Any

__all__ = [
    "check_choice",
    "check_flag",
    "check_int",
    "check_seconds",
    "check_text",
    "check_texts",
    "shown_value",
]

MOST = 2**63 - 1
"""What native counters hold."""


def check_int(
    field: str, value: object, *, least: int = 0, most: int = MOST, optional: bool = False
) -> None:
    """See that a value is a whole number in a range.

    Args:
        field: whose, and which.
        value: what was given.
        least: the smallest.
        most: the largest.
        optional: whether it may be None.

    Raises:
        TypeError: it is no integer.
        ValueError: it is out of range.
    """
    if value is None and optional:
        return
    none = ", or None" if optional else ""
    span = f"{least} or more" if most == MOST else f"{least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field}: expected an integer, {span}{none}, not {shown_value(value)}")
    if value > most == MOST:
        raise ValueError(f"{field}: expected {most} at most, not {shown_value(value)}")
    if not least <= value <= most:
        raise ValueError(f"{field}: expected {span}{none}, not {shown_value(value)}")


def check_seconds(
    field: str,
    value: object,
    *,
    positive: bool = False,
    finite: bool = False,
    optional: bool = False,
    unit: str = "seconds",
) -> None:
    """See that a value is a number, 0 or more, such as one of seconds.

    Args:
        field: whose, and which.
        value: what was given.
        positive: whether it must be more than 0.
        finite: whether it must not be infinite.
        optional: whether it may be None.
        unit: what it counts.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range.
    """
    if value is None and optional:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and _is_amount(value, positive=positive, finite=finite):
        return
    kind = "a finite number" if finite else "a number"
    span = "more than 0" if positive else "0 or more"
    none = ", or None" if optional else ""
    why = f"{field}: expected {kind} of {unit}, {span}{none}, not {shown_value(value)}"
    raise ValueError(why) if is_number else TypeError(why)


def _is_amount(value: Any, *, positive: bool, finite: bool) -> bool:
    try:
        number = float(value)
    except OverflowError:
        return False
    if finite and math.isinf(number):
        return False
    return number > 0 if positive else number >= 0


def check_flag(field: str, value: object) -> None:
    """See that a value is True or False: a text that says no would count as yes.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{field}: expected True or False, not {shown_value(value)}")


def check_text(field: str, value: object) -> None:
    """See that a value is text.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{field}: expected text, not {type(value).__name__}")


def check_texts(field: str, values: object, example: str) -> None:
    """See that a value is a collection of text, and not one text, which is one of its characters.

    Args:
        field: whose, and which.
        values: what was given.
        example: what it could be.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Collection):
        raise TypeError(
            f"{field}: expected several, such as {example}, not {type(values).__name__}"
        )
    for value in values:
        if not isinstance(value, str):
            raise TypeError(
                f"{field}: expected text, such as in {example}, not {type(value).__name__}"
            )


def check_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """See that a value is one of some.

    Raises:
        ValueError: it is another.
    """
    known = tuple(choices)
    if value not in known:
        *most, last = map(repr, known)
        raise ValueError(f"{field}: expected {', '.join(most)} or {last}, not {shown_value(value)}")


def shown_value(value: object) -> str:
    """Return a value for an error, in few characters."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return f"a large {type(value).__name__}"
