"""With this folder in PYTHONPATH, extensions are builds of another kind, in child processes too.

INSTRUMENTED says which: `NAME=PATH`, more of them after spaces. Used for sanitizers and coverage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType


class Instrumented(MetaPathFinder):
    """Finds those builds before anybody finds the usual ones."""

    def __init__(self, paths: dict[str, str]) -> None:
        self._paths = paths

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        where = self._paths.get(fullname)
        return spec_from_file_location(fullname, where) if where is not None else None


_paths = dict(each.split("=", 1) for each in os.environ["INSTRUMENTED"].split())
for _path in _paths.values():
    os.stat(_path)  # the usual ones must not do instead
if _imported := _paths.keys() & sys.modules.keys():
    raise ImportError(f"imported before its instrumented build could be: {sorted(_imported)}")
sys.meta_path.insert(0, Instrumented(_paths))
