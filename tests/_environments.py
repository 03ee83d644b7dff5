"""New virtual environments and wheels, for tests that install as a stranger does."""

from __future__ import annotations

import functools
import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = [
    "CONSTRAINTS",
    "NATIVE",
    "ROOT",
    "SUPPORTED",
    "build",
    "build_all",
    "find_python",
    "make_environment",
    "run",
]

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ("3.11", "3.12", "3.13")
NATIVE = ("core", "flowcoro-http")
PURE = ("flowcoro-db", "plugins/flowcoro-observability")
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"


def run(*command: str | Path, cwd: Path | None = None, **environ: str) -> str:
    """Run a command in a clean environment and return what it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOWCORO_", "PYTHON", "VIRTUAL_ENV", "COVERAGE"))
    }
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    assert ran.returncode == 0, f"{' '.join(map(str, command))}\n{ran.stdout}"
    return ran.stdout


def _is(version: str, python: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        ran = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=False, timeout=30
        )
    except OSError:
        return False
    return ran.stdout.strip() == version


@functools.cache
def find_python(version: str) -> str | None:
    """Find an interpreter: this one, one on PATH, or one that pyenv keeps."""
    pyenv = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    candidates = [
        sys.executable,
        shutil.which(f"python{version}"),
        *sorted(glob.glob(f"{pyenv}/versions/{version}.*/bin/python{version}")),
    ]
    return next((p for p in candidates if p and _is(version, p)), None)


def build(into: Path, python: str, distributions: tuple[str, ...], *options: str) -> Path:
    """Build distributions, each in an isolated environment.

    Without an option that is the source distribution, and the wheel out of that, which is
    unpacked in uv's cache: nothing of this checkout is beside it. `--wheel` builds the wheel
    from the checkout.
    """
    for distribution in distributions:
        run(
            "uv", "build", "--quiet", *options, "--python", python,
            "--build-constraints", CONSTRAINTS, "--out-dir", into, ROOT / distribution,
        )  # fmt: skip
    return into


def build_all(into: Path, python: str) -> Path:
    """Build everything, as it is published."""
    return build(into, python, (*NATIVE, *PURE))


def make_environment(folder: Path, python: str) -> Path:
    """Make a virtual environment with pip; return its `bin` folder."""
    run("uv", "venv", "--quiet", "--seed", "--python", python, folder)
    return folder / ("Scripts" if os.name == "nt" else "bin")
