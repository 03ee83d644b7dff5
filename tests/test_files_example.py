"""The example of the guide to files runs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "docs/examples/files/checksums.py"


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLE, folder], capture_output=True, text=True, check=False, timeout=60
    )


def test_checksums_tell_what_differs(tmp_path: Path) -> None:
    names = ["one", "two", "deep/er/three", *(f"many/{number}" for number in range(100))]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100_000)
    ran = run(tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{len(names)} files\n", "")
    report = json.loads((tmp_path / "checksums.json").read_text())
    assert report == {
        name: hashlib.sha256(name.encode() * 100_000).hexdigest() for name in sorted(names)
    }
    ran = run(tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    (tmp_path / "one").write_bytes(b"other")
    (tmp_path / "two").unlink()
    (tmp_path / "four").touch()
    ran = run(tmp_path)
    assert ran.returncode == 1
    assert set(ran.stdout.splitlines()) == {"changed one", "gone two", "new four"}
