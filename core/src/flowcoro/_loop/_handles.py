"""What handles look like to people."""

from __future__ import annotations

import inspect
from asyncio import format_helpers
from typing import Any

__all__ = ["describe", "describe_callback"]


# Newer ones tell arguments in debug mode only: they may be secrets.
_HIDES_ARGUMENTS = "debug" in inspect.signature(format_helpers._format_callback_source).parameters


def describe_callback(handle: Any) -> str:
    """Tell what the handle calls, and where that is defined, in asyncio's words."""
    options: dict[str, Any] = {}
    if _HIDES_ARGUMENTS and handle._loop is not None:
        options["debug"] = handle._loop.get_debug()
    return format_helpers._format_callback_source(handle._callback, handle._args, **options)


def describe(handle: Any) -> str:
    """Represent a handle as asyncio's own represent themselves."""
    words = ["TimerHandle" if hasattr(handle, "when") else "Handle"]
    if handle.cancelled():
        words.append("cancelled")
    if words[0] == "TimerHandle":
        words.append(f"when={handle.when()}")
    if handle._callback is not None:
        words.append(describe_callback(handle))
    if handle._source_traceback:
        frame = handle._source_traceback[-1]
        words.append(f"created at {frame[0]}:{frame[1]}")
    return f"<{' '.join(words)}>"
