"""FlowCoro: the asynchronous platform for Python that you assemble from plugins.

Layers, each of which may use only those before it:

1. `flowcoro.errors`, `flowcoro.hookspecs`: words shared by all; they import nothing of ours.
2. `flowcoro.lockfree`, `flowcoro.memory`, `flowcoro.reactor`, `flowcoro.scheduler` over
   `flowcoro._native`: the native core.
3. `flowcoro.config`: the typed configuration tree.
4. `flowcoro.log`: logging over a ring to a thread that writes.
5. `flowcoro.plugins`: discovery, loading and calling of plugins.
6. `flowcoro.loops`, over `flowcoro._loop`: the native event loop, and which one runs.
7. `flowcoro.net`: streams and datagrams over sockets.
8. `flowcoro.app`: components and their lifecycle.
9. `flowcoro.workers`: processes, restart and reload.
10. `flowcoro.cli`, `flowcoro.testing`: the two doors for people.

Features (`flowcoro_http`, `flowcoro_db`, …) use the public names of these; nothing here
imports a feature. Names below load when they are first used, so that
`import flowcoro` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowcoro._headers import get_cmake_dir, get_include
    from flowcoro.app import (
        App,
        Component,
        Context,
        Health,
        HealthStatus,
        Named,
    )
    from flowcoro.errors import FlowcoroError
    from flowcoro.hookspecs import HOOK_API, hookimpl, hookspec
    from flowcoro.loops import Loop, install, new_event_loop, run

    __version__: str

__all__ = [
    "HOOK_API",
    "App",
    "Component",
    "Context",
    "FlowcoroError",
    "Health",
    "HealthStatus",
    "Loop",
    "Named",
    "__version__",
    "get_cmake_dir",
    "get_include",
    "hookimpl",
    "hookspec",
    "install",
    "new_event_loop",
    "run",
]

_HOMES = {
    "App": "flowcoro.app",
    "Component": "flowcoro.app",
    "Context": "flowcoro.app",
    "FlowcoroError": "flowcoro.errors",
    "HOOK_API": "flowcoro.hookspecs",
    "Health": "flowcoro.app",
    "HealthStatus": "flowcoro.app",
    "Loop": "flowcoro.loops",
    "Named": "flowcoro.app",
    "get_cmake_dir": "flowcoro._headers",
    "get_include": "flowcoro._headers",
    "hookimpl": "flowcoro.hookspecs",
    "hookspec": "flowcoro.hookspecs",
    "install": "flowcoro.loops",
    "new_event_loop": "flowcoro.loops",
    "run": "flowcoro.loops",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("flowcoro")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'flowcoro' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
