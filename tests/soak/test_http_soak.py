"""The soak of the HTTP server in short; see `test_soak.py`."""

from __future__ import annotations

import shutil

import pytest
from run_http_soak import APPS, soak
from run_soak import growth

from flowcoro import reactor

# Buffers and caches that an exceptional moment brings; 30,000 requests that lose 10 bytes each
# lose more.
FEW_BYTES = 256 * 1024
FEW_BLOCKS = 2_000


@pytest.mark.skipif(shutil.which("wrk") is None, reason="NOT TESTED: there is no wrk")
@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("reactor_name", reactor.available())
def test_many_requests(reactor_name: str, app: str) -> None:
    measured = soak(reactor_name, app, 30_000, 1)
    assert measured["count"] >= 30_000
    before, after = measured["before"], measured["after"]
    assert after["errors"] == []
    assert after["descriptors"] == before["descriptors"]
    # One stands by for the next handler that waits, unless the last one took it; and a timer ends
    # connections, where there are some.
    assert abs(growth(measured, "tasks")) <= 1
    assert abs(growth(measured, "timers")) <= 1
    assert growth(measured, "objects") < 100
    assert growth(measured, "blocks") < FEW_BLOCKS
    assert growth(measured, "malloced") < FEW_BYTES
