"""What a loop tells of its work; of stalls, see test_loop_stalls.py."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from flowcoro import reactor
from flowcoro._loop import Loop
from flowcoro.loops import LoopStats

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it does not run there yet")

PATIENCE = 30


@pytest.fixture(params=reactor.available())
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param)
    yield loop
    loop.close()


def turn(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_stats_count(loop: Loop) -> None:
    assert loop.stats() == LoopStats(0, 0, 0.0, 0.0, 0.0, 0, 0, 0, 0.0)
    seen: list[LoopStats] = []
    timer = loop.call_later(3600, print)
    for _ in range(3):
        loop.call_soon(lambda: seen.append(loop.stats()))
    assert (loop.stats().ready, loop.stats().timers) == (3, 1)
    turn(loop)
    assert [(each.turns, each.callbacks, each.ready) for each in seen] == [
        (1, 1, 3),
        (1, 2, 2),
        (1, 3, 1),
    ]
    timer.cancel()
    after = loop.stats()
    assert (after.turns, after.callbacks, after.ready, after.timers) == (1, 4, 0, 0)
    assert 0.0 < after.callbacks_per_second <= 4.0  # four in the second or two of its life
    loop.close()
    assert loop.stats().callbacks == 4


def test_stats_tell_the_lag(loop: Loop) -> None:
    nap = threading.Event()
    due: list[float] = []
    loop.call_later(0.01, lambda: (due.append(loop.time()), loop.stop()))
    begin = loop.time()
    during: list[float] = []
    loop.call_soon(lambda: (nap.wait(0.1), during.append(loop.stats().lag)))
    loop.run_forever()
    stats = loop.stats()
    assert during[0] >= 0.1  # it grows while the callback runs
    assert 0.1 <= stats.lag == stats.max_lag <= due[0] - begin + 0.001


def test_waiting_is_no_lag(loop: Loop) -> None:
    waits = threading.Event()
    loop.call_soon(waits.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert waits.wait(PATIENCE)
    begin = loop.time()
    threading.Event().wait(0.2)
    lag = loop.stats().lag
    took: list[float] = []
    loop.call_soon_threadsafe(lambda: (took.append(loop.stats().lag), loop.stop()))
    thread.join()
    assert lag < loop.time() - begin
    assert took[0] < loop.time() - begin


def test_stats_from_many_threads_while_it_runs(loop: Loop) -> None:
    over = threading.Event()
    failures: list[object] = []

    def reads() -> None:
        last = loop.stats()
        while not over.is_set():
            now = loop.stats()
            if now.callbacks < last.callbacks or now.turns < last.turns or now.lag < 0:
                failures.append((last, now))
            last = now

    def counts(left: int) -> None:
        if left:
            loop.call_soon(counts, left - 1)
        else:
            loop.stop()

    threads = [threading.Thread(target=reads) for _ in range(3)]
    for thread in threads:
        thread.start()
    loop.call_soon(counts, 20_000)
    loop.run_forever()
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert loop.stats().callbacks == 20_001
