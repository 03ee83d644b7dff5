"""Trace ids for `flowcoro.log`, from OpenTelemetry's current span.

The provider of trace ids is one for the process, and applications may be several: the first sets
it, the last gives the one before back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from flowcoro.log import Trace, set_trace_provider

__all__ = ["release_traces", "use_traces"]


class _Traces:
    def __init__(self) -> None:
        self._lock = threading.Lock()  # applications may run in several threads
        self._users = 0
        self._before: Callable[[], Trace | None] | None = None
        self._provider = self.current

    def current(self) -> Trace | None:
        """Return the current span's ids; without one, what was the provider before says."""
        span = get_current_span().get_span_context()
        if span.is_valid:
            return Trace(format_trace_id(span.trace_id), format_span_id(span.span_id))
        return self._before() if self._before is not None else None

    def use(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = set_trace_provider(self._provider)
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                replaced = set_trace_provider(self._before)
                if replaced is not self._provider:  # somebody has set another meanwhile
                    set_trace_provider(replaced)
                self._before = None


_traces = _Traces()


def use_traces() -> None:
    """Have log records get the ids of the span that they are logged in."""
    _traces.use()


def release_traces() -> None:
    """Undo one `use_traces`."""
    _traces.release()
