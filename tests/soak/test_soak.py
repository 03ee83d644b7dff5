"""The soak in short: what leaks a few bytes for each echo or connection is found here as well.

The figures that are compared are exact (descriptors, objects, tasks) or have some room, since a
short run does not wear memory in as the long one does: `make soak`.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from run_soak import MODES, cycles, echoes, growth, idle

from _servers import why_no_load
from flowcoro import reactor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the load is for Linux")

# Blocks and bytes that caches of the interpreter and of malloc come and go by.
FEW_BLOCKS = 2_000
FEW_BYTES = 128 * 1024
# And what an exceptional moment may still bring: a loop's pools get their buffers of 64 KiB three
# at a time. To lose 19 bytes for an echo is more.
BUFFERS = 640 * 1024
KINDS = [(each, mode) for each in reactor.available() for mode in MODES]
all_kinds = pytest.mark.parametrize(
    ("reactor_name", "mode"), KINDS, ids=["-".join(kind) for kind in KINDS]
)


@pytest.fixture(scope="module", autouse=True)
def _load() -> None:
    if reason := why_no_load():
        pytest.skip(reason)


def check(measured: dict[str, Any], last: str = "after", few_bytes: int = FEW_BYTES) -> None:
    before, after = measured["before"], measured[last]
    assert after["errors"] == []
    assert after["descriptors"] == before["descriptors"]
    assert after["tasks"] == before["tasks"]
    assert after["timers"] == before["timers"]
    assert after["objects"] - before["objects"] < 100
    assert after["blocks"] - before["blocks"] < FEW_BLOCKS
    assert after["malloced"] - before["malloced"] < few_bytes


@all_kinds
def test_many_echoes(reactor_name: str, mode: str) -> None:
    """35,000 for each kind: 200,000 and more together."""
    measured = echoes(reactor_name, mode, 35_000, 0.5)
    assert measured["count"] >= 35_000
    check(measured, few_bytes=BUFFERS)


@all_kinds
def test_many_connections_one_by_one(reactor_name: str, mode: str) -> None:
    measured = cycles(reactor_name, mode, 1_000)
    check(measured)
    assert growth(measured, "resident") < 1024 * 1024


@all_kinds
def test_many_connections_at_a_time(reactor_name: str, mode: str) -> None:
    measured = idle(reactor_name, mode, 500)
    assert measured["during"]["descriptors"] - measured["before"]["descriptors"] == 500
    assert measured["during"]["errors"] == []
    check(measured, "closed")
