"""`flowcoro.scheduler.WorkStealingScheduler` against `concurrent.futures`.

Empty tasks show what scheduling costs. Work that releases the GIL shows how it scales: with
two workers each compresses or computes its own block. Pure Python work scales only where there
is no GIL; elsewhere two workers show what contending for it costs.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Protocol

from _harness import Bench, Contender, main
from flowcoro.scheduler import WorkStealingScheduler

WORKERS = 2
MIB = 1 << 20


class Waitable(Protocol):
    """A task that was scheduled, ours or theirs."""

    def result(self, timeout: float | None = None) -> object: ...


def nothing() -> None:
    """Do nothing."""


def empty_tasks(bench: Bench) -> None:
    """Tasks that do nothing are scheduled one by one, then all are waited for."""
    count = bench.count(50_000)
    with WorkStealingScheduler(WORKERS) as ours, ThreadPoolExecutor(WORKERS) as theirs:

        def contender(start: Callable[[Callable[[], None]], Waitable]) -> Contender:
            def run() -> None:
                for handle in [start(nothing) for _ in range(count)]:
                    handle.result()

            return run

        bench.compare(
            f"empty tasks, {WORKERS} workers",
            {
                "schedule": contender(ours.schedule),
                "ThreadPoolExecutor.submit": contender(theirs.submit),
            },
            unit="tasks",
            operations=count,
        )


def one_at_a_time(bench: Bench) -> None:
    """Each empty task is waited for before the next: what waking a worker costs."""
    count = bench.count(5_000)
    with WorkStealingScheduler(WORKERS) as ours, ThreadPoolExecutor(WORKERS) as theirs:

        def contender(start: Callable[[Callable[[], None]], Waitable]) -> Contender:
            def run() -> None:
                for _ in range(count):
                    start(nothing).result()

            return run

        bench.compare(
            f"one empty task at a time, {WORKERS} workers",
            {
                "schedule": contender(ours.schedule),
                "ThreadPoolExecutor.submit": contender(theirs.submit),
            },
            unit="tasks",
            operations=count,
        )


def scaling(
    bench: Bench, title: str, work: Callable[[Any], object], blocks: list[Any], unit: str
) -> None:
    """Map `work` over `blocks`: ours with all workers first, then what it is compared to."""
    names = {workers: f"{workers} worker{'s' * (workers > 1)}" for workers in (WORKERS, 1)}
    with ExitStack() as stack:

        def contender(
            pool: Callable[[Callable[[Any], object], list[Any]], Iterable[object]],
        ) -> Contender:
            return lambda: list(pool(work, blocks))

        contenders = {
            f"map, {name}": contender(stack.enter_context(WorkStealingScheduler(workers)).map)
            for workers, name in names.items()
        }
        contenders |= {
            f"ThreadPoolExecutor.map, {name}": contender(
                stack.enter_context(ThreadPoolExecutor(workers)).map
            )
            for workers, name in names.items()
        }
        bench.compare(title, contenders, unit=unit, operations=len(blocks))


def compressing(bench: Bench) -> None:
    """zlib releases the GIL."""
    block = bytes(random.Random(7).choices(b"etaoin shrdlu", k=MIB))
    blocks = [block] * bench.count(16)

    def work(data: bytes) -> int:
        return len(zlib.compress(data, 1))

    scaling(bench, "zlib.compress of 1 MiB", work, blocks, "blocks")


def sines(bench: Bench) -> None:
    """numpy releases the GIL."""
    title = "numpy.sin of 200,000 numbers"
    try:
        import numpy as np
    except ImportError:
        bench.not_measured(title, "numpy is not installed")
        return
    angles = np.random.default_rng(7).random(200_000)
    # Each has its own room for the result, or memory management would be measured too.
    blocks = [(angles, np.empty_like(angles)) for _ in range(bench.count(32))]
    scaling(bench, title, lambda block: np.sin(*block), blocks, "blocks")


def counting(bench: Bench) -> None:
    """Python code holds the GIL, where there is one."""

    def work(limit: int) -> int:
        total = 0
        for number in range(limit):
            total += number * number
        return total

    blocks = [bench.count(50_000)] * 32
    scaling(bench, "pure Python, a loop of 50,000", work, blocks, "calls")


if __name__ == "__main__":
    main(
        "flowcoro.scheduler.WorkStealingScheduler",
        [empty_tasks, one_at_a_time, compressing, sines, counting],
        peers=["numpy"],
    )
