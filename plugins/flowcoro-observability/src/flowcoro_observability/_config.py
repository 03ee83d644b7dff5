"""`[observability]`."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["ObservabilityConfig"]

UrlPath = Annotated[str, msgspec.Meta(pattern="^/[!-~]*$")]


class ObservabilityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[observability]`: where health and metrics are served."""

    health_path: UrlPath = "/healthz"
    """Answers 200 as long as the event loop runs: restart the process when it does not."""
    ready_path: UrlPath = "/readyz"
    """Answers 200 when requests may be sent here, else 503."""
    metrics_path: UrlPath = "/metrics"
    """Prometheus text exposition."""
    buckets: tuple[float, ...] = (
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    )  # fmt: skip
    """Upper bounds of the latency histogram, in seconds, ascending."""

    def __post_init__(self) -> None:
        """Refuse buckets that are not ascending.

        Raises:
            ValueError: they are not.
        """
        if list(self.buckets) != sorted(set(self.buckets)) or not self.buckets:
            raise ValueError("buckets: expected ascending upper bounds in seconds")
