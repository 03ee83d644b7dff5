"""What start-up imports: time varies with the machine, the list of modules does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "anyio",
    "asyncio",
    "httpx",
    "msgspec",
    "packaging",
    "rich",
    "typing_extensions",
    "watchfiles",
    "flowcoro_db",
    "flowcoro_http",
    "flowcoro_observability",
}


def imported(*arguments: str) -> set[str]:
    """Return the top-level modules that running the command line imports."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flowcoro", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.rpartition("|")[2].strip().split(".")[0] for line in ran.stderr.splitlines()}


@pytest.mark.parametrize("arguments", [("--version",), ("plugin", "list")])
def test_light_commands_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not imported(*arguments) & HEAVY


def test_importing_flowcoro_is_free() -> None:
    code = "import sys, flowcoro; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in ran.stdout.split()} & {*HEAVY, "click", "pluggy"}
