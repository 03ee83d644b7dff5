"""Files and directories of somebody else: `PermissionError`, with the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import io_unprivileged
from io_cases import LOOPS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no modes on Windows")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Things that their owner has forbidden: also to itself, unless it is root."""
    modes = {"secret": 0o000, "readable": 0o444, "locked": 0o555, "closed": 0o000, "open": 0o777}
    for name in ("locked", "closed", "open"):
        (tmp_path / name).mkdir()
    for name in ("secret", "readable", "locked/file", "closed/file"):
        (tmp_path / name).write_text("old")
    for name, mode in modes.items():
        os.chmod(tmp_path / name, mode)
    os.chmod(tmp_path, 0o755)
    yield tmp_path
    for name in modes:
        os.chmod(tmp_path / name, 0o700)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_not_permitted(loop: str, folder: Path) -> None:
    # Without coverage, whose file another user cannot write.
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    ran = subprocess.run(
        [sys.executable, io_unprivileged.__file__, loop, folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr
    expected = {
        what: ["PermissionError", path] for what, (path, _) in io_unprivileged.CALLS.items()
    }
    assert json.loads(ran.stdout) == expected
    assert ran.stderr == ""
    os.chmod(folder / "secret", 0o600)
    os.chmod(folder / "closed", 0o700)
    for name in ("secret", "readable", "locked/file", "closed/file"):
        assert (folder / name).read_text() == "old"
    assert os.listdir(folder / "locked") == ["file"]
    assert os.listdir(folder / "open") == []
