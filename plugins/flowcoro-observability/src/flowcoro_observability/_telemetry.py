"""The application's instruments, and their exposition for Prometheus.

Instruments follow OpenTelemetry's semantic conventions for HTTP servers:
`http.server.request.duration` (a histogram in seconds, whose count is the number of
requests) and `http.server.active_requests`. Each application has a registry of its own,
so two applications in one process never mix; those of one application's threads have one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from flowcoro import Component, Context, FlowcoroError, Health
from flowcoro_observability._config import ObservabilityConfig
from flowcoro_observability._traces import release_traces, use_traces

__all__ = ["Telemetry"]

_DURATION = "http.server.request.duration"
_ACTIVE = "http.server.active_requests"
_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)


class Telemetry(Component):
    """Counts what an application does; the component that plugin `observability` adds.

    Ask for it by annotation to make instruments of your own:
    `telemetry.meter.create_counter("orders")`. They appear in the exposition too.
    """

    name = "observability"

    content_type = CONTENT_TYPE_LATEST
    """Content type of `exposition`."""

    def __init__(self) -> None:
        self._instruments: _Instruments | None = None
        self._attached = False

    @property
    def meter(self) -> Meter:
        """The OpenTelemetry meter of this application.

        Raises:
            FlowcoroError: the component is not attached to an application yet.
        """
        if not self._attached:
            raise FlowcoroError("telemetry is not attached to an application")
        return self._there().meter

    def attach(self, context: Context) -> None:
        """Make the instruments, with the buckets that the configuration asks for.

        The applications of a process, one on each event loop, have one set of them.
        """
        buckets = context.config.section(ObservabilityConfig).buckets
        self._attached = True
        shared, key = context.shared, ("flowcoro-observability", self.name)
        if shared.threads == 1:
            self._instruments = _Instruments(context.name, buckets)
            return
        self._instruments = shared.get(key, _Instruments)
        if self._instruments is None:
            self._instruments = _Instruments(context.name, buckets)
            shared.put(key, self._instruments)

    async def __aenter__(self) -> Self:
        """Let log records have the ids of the span that they are logged in."""
        self._there().use()
        use_traces()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the instruments."""
        release_traces()
        if self._attached:
            self._attached = False
            self._there().release()

    async def health(self) -> Health:
        """Pass as long as instruments exist."""
        return Health(detail="collecting")

    def exposition(self) -> bytes:
        """Return every instrument in Prometheus' text format."""
        return generate_latest(self._there().registry)

    @contextmanager
    def in_progress(self, method: str) -> Iterator[None]:
        """Count a request as active within the block."""
        attributes = {"http.request.method": _known(method)}
        active = self._there().active
        active.add(1, attributes)
        try:
            yield
        finally:
            active.add(-1, attributes)

    def request_done(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Record one request.

        Args:
            method: its method; what HTTP does not define is counted as `_OTHER`.
            route: the template it matched; None when none did, so that made-up paths
                cannot grow the number of time series.
            status: the response's status.
            seconds: how long it took.
        """
        attributes: dict[str, str | int] = {
            "http.request.method": _known(method),
            "http.response.status_code": status,
        }
        if route is not None:
            attributes["http.route"] = route
        self._there().duration.record(seconds, attributes)

    def _there(self) -> _Instruments:
        if self._instruments is None:
            raise FlowcoroError("telemetry is not attached to an application")
        return self._instruments


class _Instruments:
    """A registry and what is in it; safe for several threads.

    Attributes:
        registry: what Prometheus reads.
        meter: makes further instruments.
        duration: of requests.
        active: requests in progress.
    """

    def __init__(self, service: str, buckets: Sequence[float]) -> None:
        self.registry = CollectorRegistry()
        self._provider = MeterProvider(
            [PrometheusMetricReader(scope_info_enabled=False, registry=self.registry)],
            Resource.create({"service.name": service}),
            views=[
                View(
                    instrument_name=_DURATION,
                    aggregation=ExplicitBucketHistogramAggregation(buckets),
                )
            ],
            shutdown_on_exit=False,
        )
        self.meter = self._provider.get_meter("flowcoro")
        self.duration = self.meter.create_histogram(
            _DURATION, unit="s", description="Duration of HTTP server requests"
        )
        self.active = self.meter.create_up_down_counter(
            _ACTIVE, unit="{request}", description="HTTP server requests in progress"
        )
        self._lock = threading.Lock()
        self._users = 0

    def use(self) -> None:
        """Count one more application that uses them."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Undo one `use`; the last shuts the provider down."""
        with self._lock:
            self._users -= 1
            last = self._users <= 0
        if last:
            self._provider.shutdown()


def _known(method: str) -> str:
    return method if method in _METHODS else "_OTHER"
