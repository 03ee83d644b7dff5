"""A pytest plugin that fails the run when something turns the GIL on.

    PYTHONPATH=tests/free_threaded pytest -p gil_guard core/tests

A free-threaded interpreter turns the GIL on, for good, when it imports an extension that
does not declare that it works without one. Every test would pass then and prove nothing
about free threading. So this plugin refuses to start where the GIL is on already, and looks
after the collection, after each test and at the end of the run; the run stops at the first
test that turned it on, and the interpreter's own warning, an error in our settings, names
the extension.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import warnings
from collections.abc import Generator

import pytest

EXTENSION = "flowcoro._native"


def gil_is_on() -> bool:
    """Whether this interpreter runs with the GIL at the moment."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def why_unsuitable() -> str | None:
    """What makes a run under this interpreter prove nothing; `None` when nothing does."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return f"{sys.executable} is not a free-threaded build"
    if "PYTHON_GIL" in os.environ or "gil" in sys._xoptions:
        return "PYTHON_GIL and -X gil overrule what extensions declare: unset them"
    if gil_is_on():
        return "the GIL is on before any test ran"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    if reason := why_unsuitable():
        raise pytest.UsageError(f"gil_guard: {reason}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # we say it ourselves
        importlib.import_module(EXTENSION)
    if gil_is_on():
        raise pytest.UsageError(
            f"gil_guard: importing {EXTENSION} turned the GIL on:"
            " it was built without nanobind's FREE_THREADED"
        )


def pytest_collection_finish(session: pytest.Session) -> None:
    if gil_is_on():
        raise pytest.UsageError("gil_guard: collecting the tests turned the GIL on")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    if gil_is_on():
        item.session.shouldfail = f"gil_guard: the GIL came on during {item.nodeid}"
    return result


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if gil_is_on():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    came_on = gil_is_on()
    verdict = "CAME ON: this run proves nothing" if came_on else "stayed off"
    terminalreporter.write_line(
        f"GIL: {verdict} (Python {sys.version.split()[0]}, free-threaded build)",
        red=came_on,
        green=not came_on,
    )
