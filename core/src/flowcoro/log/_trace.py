"""Where a record's trace ids come from. The core only asks; a tracing library answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Trace", "current_trace", "set_trace_provider"]


class Trace(NamedTuple):
    """The trace that a record belongs to.

    Attributes:
        trace_id: as it is written, 32 hexadecimal digits with OpenTelemetry.
        span_id: as it is written; empty when there is none.
    """

    trace_id: str
    span_id: str = ""


_Provider = Callable[[], "Trace | None"]
_provider: _Provider | None = None


def set_trace_provider(provider: _Provider | None) -> _Provider | None:
    """Set what tells the trace of the code that logs.

    Args:
        provider: called for each record, in the thread and context of who logs, so it should
            do no more than read a context variable; `None` from it leaves the ids out. What it
            raises is taken for `None`. None: records have no trace ids.

    Returns:
        The provider before, to be set again by who wants to undo this.
    """
    global _provider
    before, _provider = _provider, provider
    return before


def current_trace() -> Trace | None:
    """Return the trace of the running code."""
    if _provider is None:
        return None
    try:
        return _provider()
    except Exception:  # noqa: BLE001 - a tracing library must not be why a call fails
        return None
