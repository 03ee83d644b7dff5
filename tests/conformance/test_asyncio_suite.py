"""CPython's own tests of asyncio on the native loop, over each backend; see asyncio.md."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from flowcoro import reactor

RUNNER = Path(__file__).with_name("run_asyncio_suite.py")
SUITE = runpy.run_path(str(RUNNER))
# Measured by coverage, a child of ProcessPoolExecutor now and then does not end
# (test_get_event_loop_new_process), on asyncio's own loop as on ours.
WITHOUT_COVERAGE = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_PROCESS_")}


def has_suite() -> bool:
    try:
        return importlib.util.find_spec("test.test_asyncio") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")
@pytest.mark.parametrize("backend", reactor.available())
@pytest.mark.parametrize("module", SUITE["MODULES"])
def test_the_suite_passes(backend: str, module: str) -> None:
    if not has_suite():
        assert not os.environ.get("CI"), "this Python has no test package"
        pytest.skip("this Python has no test package (Debian: libpython3-testsuite)")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", RUNNER, backend, module],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
        env=WITHOUT_COVERAGE,
    )
    if ended.returncode == SUITE["MISSING"]:
        pytest.skip(ended.stdout.strip())
    assert ended.returncode == 0, ended.stdout[-8_000:]
