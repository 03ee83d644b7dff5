"""Health endpoints and metrics for FlowCoro applications.

The distribution meets flowcoro-http through hooks alone: where HTTP is absent it loads
and counts nothing; where it is blocked itself, applications have neither its routes nor
its cost.

Layers, each of which may use only those before it: `_config` (the section), `_telemetry`
(instruments and exposition), `_endpoints` (routes), `_middleware` (counting requests),
`plugin` (the hooks).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowcoro_observability._config import ObservabilityConfig
    from flowcoro_observability._telemetry import Telemetry

__all__ = ["ObservabilityConfig", "Telemetry"]

_HOMES = {
    "ObservabilityConfig": "flowcoro_observability._config",
    "Telemetry": "flowcoro_observability._telemetry",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
