"""One line for an exception."""

from __future__ import annotations

__all__ = ["describe"]


def describe(error: BaseException) -> str:
    """Return the exception's type and message in one line.

    A group that holds a single exception is described as that exception.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    try:
        text = " ".join(str(error).split())
    except Exception as second:  # noqa: BLE001 - of an error's own __str__
        text = f"(its text cannot be had: {type(second).__name__})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
