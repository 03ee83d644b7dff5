"""The soak of the HTTP server in short.

What leaks a few bytes for each request is found in every portion of them. Pools and malloc grow as
well, when a moment was busier than any before, but then not in the next portion.
"""

from __future__ import annotations

import shutil
from itertools import pairwise

import pytest
from run_http_soak import APPS, requests, soaked

from flowcoro import reactor

PORTIONS = 5
COUNT = 6_000  # requests in each, and more
FEW_BYTES = 64 * 1024
FEW_BLOCKS = 500


@pytest.mark.skipif(shutil.which("wrk") is None, reason="NOT TESTED: there is no wrk")
@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("reactor_name", reactor.available())
def test_many_requests(reactor_name: str, app: str) -> None:
    with soaked(reactor_name, app) as server:
        idle = server.figures()["descriptors"]
        requests(server, COUNT, 1)
        figures = [server.figures()]
        for _ in range(PORTIONS):
            requests(server, COUNT, 1)
            server.wait_for_descriptors(idle)
            figures.append(server.figures())

    def least_growth(name: str) -> int:
        return min(int(after[name] - before[name]) for before, after in pairwise(figures))

    first, last = figures[0], figures[-1]
    assert last["errors"] == []
    assert last["descriptors"] == idle
    # One stands by for the next handler that waits, unless the last one took it; and a timer ends
    # connections, where there are some: anew for one that is to end sooner.
    assert abs(last["tasks"] - first["tasks"]) <= 1
    assert abs(last["timers"] - first["timers"]) <= 4
    assert last["objects"] - first["objects"] < 100
    assert least_growth("blocks") < FEW_BLOCKS
    assert least_growth("malloced") < FEW_BYTES
