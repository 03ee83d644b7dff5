"""The plugin that guards `make test-free-threaded`, on any interpreter, with a made-up GIL."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("free_threaded")

# Stands in for a free-threaded interpreter: `import gil` and `gil.on = True` turn it on.
PRETEND = """
import gil_guard

import gil

gil_guard.why_unsuitable = lambda: None
gil_guard.gil_is_on = lambda: gil.on
"""


def run(folder: Path, tests: str, *plugins: str, **environ: str) -> tuple[int, str]:
    """Run `tests` in a pytest of its own; return its exit status and output."""
    (folder / "gil.py").write_text("on = False\n")
    (folder / "pretend.py").write_text(PRETEND)
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    options = [argument for plugin in plugins for argument in ("-p", plugin)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_it.py"],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
            "PYTHONPATH": f"{FOLDER}{os.pathsep}{folder}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="the interpreter is suitable"
)
def test_an_interpreter_with_the_gil_is_refused(tmp_path: Path) -> None:
    status, out = run(tmp_path, "def test_it(): pass", "gil_guard")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "is not a free-threaded build" in out


def test_a_gil_that_stays_off(tmp_path: Path) -> None:
    status, out = run(tmp_path, "def test_it(): pass", "gil_guard", "pretend")
    assert status == pytest.ExitCode.OK
    assert "GIL: stayed off" in out


def test_a_test_that_turns_it_on_fails_the_run(tmp_path: Path) -> None:
    tests = """
import gil

def test_good(): pass
def test_bad(): gil.on = True
def test_later(): pass
"""
    status, out = run(tmp_path, tests, "gil_guard", "pretend")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "the GIL came on during test_it.py::test_bad" in out
    assert "GIL: CAME ON" in out
    assert "2 passed" in out


def test_the_last_test_counts_too(tmp_path: Path) -> None:
    tests = """
import gil

def test_bad(): gil.on = True
"""
    status, out = run(tmp_path, tests, "gil_guard", "pretend")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "GIL: CAME ON" in out


def test_an_import_that_turns_it_on_ends_the_run(tmp_path: Path) -> None:
    tests = """
import gil

gil.on = True

def test_it(): pass
"""
    status, out = run(tmp_path, tests, "gil_guard", "pretend")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "collecting the tests turned the GIL on" in out
