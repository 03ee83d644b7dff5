"""The server backends that come with FlowCoro, one module each.

They are registered by `flowcoro_http.plugin` through the hook that all use.
"""

from __future__ import annotations

__all__ = ["hypercorn"]
