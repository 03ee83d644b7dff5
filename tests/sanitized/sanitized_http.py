"""A plugin of pytest: flowcoro-http's extension is the one that was built under sanitizers.

Its path is SANITIZED_HTTP. To be loaded (`-p`) before anything imports flowcoro_http.
"""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "flowcoro_http._native"

if NAME in sys.modules:
    raise RuntimeError(f"{NAME} was imported before its sanitized build could be")
_spec = importlib.util.spec_from_file_location(NAME, os.environ["SANITIZED_HTTP"])
if _spec is None or _spec.loader is None:
    raise RuntimeError(f"no extension at {os.environ['SANITIZED_HTTP']}")
_module = importlib.util.module_from_spec(_spec)
sys.modules[NAME] = _module
_spec.loader.exec_module(_module)
