"""The plugin contract as findings: what `flowcoro plugin check` and the suite verify."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flowcoro.errors import FlowcoroError
from flowcoro.plugins._host import PluginHost
from flowcoro.plugins._record import PluginRecord, PluginStatus

__all__ = ["IMPORT_BUDGET", "Finding", "check_plugin", "import_cost"]

IMPORT_BUDGET = 0.1
"""Seconds that importing a plugin module may add to a start."""

# Prints the seconds that the import took beyond what any plugin needs itself.
_TIMER = (
    "import time, sys, importlib, flowcoro.hookspecs;"
    "began = time.perf_counter(); importlib.import_module(sys.argv[1]);"
    "print(time.perf_counter() - began)"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check.

    Attributes:
        rule: what was checked.
        passed: the outcome.
        detail: what was found.
    """

    rule: str
    passed: bool
    detail: str = ""


def import_cost(module: str) -> float:
    """Measure, in a new process, the seconds that importing `module` takes.

    Raises:
        FlowcoroError: it cannot be imported; the message ends with the reason.
    """
    ran = subprocess.run(  # noqa: S603 - our own interpreter and a module name
        [sys.executable, "-c", _TIMER, module],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or ["no message"]
        raise FlowcoroError(f"importing {module} fails: {last[0]}")
    return float(ran.stdout.split()[-1])


def check_plugin(
    host: PluginHost, name: str, collect: Callable[[PluginHost], object]
) -> Iterator[Finding]:
    """Check one plugin of a host that is not strict.

    Args:
        host: a host that has tried to load the plugin.
        name: the plugin.
        collect: asks the host for every registration hook, so that each contribution is
            made and checked.

    Yields:
        One finding per rule.
    """
    record = host.records.get(name)
    if record is None:
        known = ", ".join(host.records) or "none"
        yield Finding("installed", passed=False, detail=f"no such plugin (known: {known})")
        return
    yield Finding("installed", passed=True, detail=record.info.origin)
    if record.info.distribution != "flowcoro":
        ranged = bool(record.info.requires)
        detail = record.info.requires or "declare a range of flowcoro in the dependencies"
        yield Finding("declares a flowcoro range", passed=ranged, detail=detail)
    loaded = record.status is PluginStatus.LOADED
    yield Finding("loads", passed=loaded, detail=record.reason or ", ".join(record.hooks))
    if not loaded:
        return
    yield _cost(record)
    collect(host)
    problems = "; ".join(f"{p.hook}: {p.message}" for p in record.problems)
    yield Finding("hooks keep their contracts", passed=not record.problems, detail=problems)


def _cost(record: PluginRecord) -> Finding:
    module = record.info.target.partition(":")[0]
    try:
        # The best of three: the first run may write byte code, and machines are noisy.
        seconds = min(import_cost(module) for _ in range(3))
    except FlowcoroError as error:
        return Finding("imports nothing heavy", passed=False, detail=str(error))
    detail = f"{seconds * 1000:.0f} ms (at most {IMPORT_BUDGET * 1000:.0f})"
    return Finding("imports nothing heavy", passed=seconds <= IMPORT_BUDGET, detail=detail)
