"""Makes the soak and what it shares with the benchmarks importable."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parent

for folder in (FOLDER, FOLDER.with_name("benchmarks")):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
