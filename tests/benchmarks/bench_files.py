"""Files: `flowcoro.io` on our loop over each reactor, beside anyio's files and aiofiles.

The peers run on asyncio's loop and on uvloop, ours also on asyncio's, where it has threads. All
do the same work, and what they read, write or list is checked. What is in the page cache is read
from there, but where a title says *not cached*. Opening and closing is not measured.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import _file_work as work
from _harness import Bench, Contender, main
from _loop_factories import OURS, loop_factory, why_not

PEERS = ["anyio", "aiofiles", "uvloop"]
FOLDER = Path(tempfile.mkdtemp(prefix="flowcoro-bench-files-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

SIZE = 64 << 20
READS = 4000
SYNCS = 400
ENTRIES = 100_000

Main = Callable[[], Coroutine[Any, Any, None]]


def on(loop: str, main: Main, before: Callable[[], None] | None = None) -> Contender:
    """Return a turn on that loop."""

    def turn() -> None:
        if before is not None:
            before()
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            runner.run(main())

    return turn


def compare(
    bench: Bench,
    title: str,
    ours: Main,
    peers: dict[str, Main],
    others: dict[str, Contender] | None = None,
    *,
    unit: str,
    operations: int,
    before: Callable[[], None] | None = None,
) -> None:
    """Compare ours over each reactor with all of the peers."""
    contenders = {"flowcoro.io, asyncio": on("asyncio", ours, before)}
    for name, theirs in peers.items():
        if importlib.util.find_spec(name.partition(",")[0]):
            for loop in filter(usable, ("asyncio", "uvloop")):
                contenders[f"{name}, {loop}"] = on(loop, theirs, before)
    contenders |= others or {}
    for loop in OURS:
        reactor = loop.removeprefix("flowcoro, ")
        if reason := why_not(loop):
            bench.not_measured(f"{title}, {reactor}", reason)
            continue
        bench.compare(
            f"{title}, {reactor}",
            {f"flowcoro.io, {reactor}": on(loop, ours, before), **contenders},
            unit=unit,
            operations=operations,
            clock=work.WATCH.clock,
        )


@functools.cache
def usable(loop: str) -> bool:
    return not why_not(loop)


def missing(bench: Bench) -> None:
    """Say which peers are not there."""
    for name in PEERS:
        if importlib.util.find_spec(name) is None:
            bench.not_measured(f"files: {name}", "it is not installed", always=True)


def random_reads(bench: Bench) -> None:
    count = bench.count(READS)
    path = str(FOLDER / "blocks")
    blocks = work.choose_blocks(work.make_file(path, SIZE), count)
    for tasks, said in ((1, "one at a time"), (32, "32 in flight")):
        for before, where in ((None, ""), (functools.partial(work.forget, path), ", not cached")):
            arguments = (path, blocks, min(tasks, count))
            peers: dict[str, Main] = {
                "anyio": functools.partial(work.read_blocks_anyio, *arguments),
                "aiofiles": functools.partial(work.read_blocks_aiofiles, *arguments),
                "anyio, os.pread in threads": functools.partial(
                    work.read_blocks_in_threads, *arguments
                ),
            }
            compare(
                bench,
                f"files: 4 KiB random reads, {said}{where}",
                functools.partial(work.read_blocks, *arguments),
                peers,
                unit="reads",
                operations=count,
                before=before,
            )


def sequential_reads(bench: Bench) -> None:
    size = bench.count(2 * SIZE)
    path = str(FOLDER / "whole")
    work.make_file(path, size)
    compare(
        bench,
        "files: sequential 1 MiB reads",
        functools.partial(work.read_through, path, size),
        {
            "anyio": functools.partial(work.read_through_anyio, path, size),
            "aiofiles": functools.partial(work.read_through_aiofiles, path, size),
        },
        {
            "os.pread, blocking": on(
                "asyncio", functools.partial(work.read_through_blocking, path, size)
            )
        },
        unit="reads",
        operations=max(1, size // work.PIECE),
    )
    os.unlink(path)


def syncs(bench: Bench) -> None:
    count = bench.count(SYNCS)
    places = {"": FOLDER}
    if os.path.isdir("/dev/shm"):  # where an fsync costs nothing: what is left is the way there
        memory = tempfile.mkdtemp(prefix="flowcoro-bench-files-", dir="/dev/shm")
        atexit.register(shutil.rmtree, memory, ignore_errors=True)
        places[", in memory"] = Path(memory)
    for where, folder in places.items():
        for files, said in ((1, ""), (8, ", 8 files at once")):
            arguments = (str(folder / "synced"), count, min(files, count))
            compare(
                bench,
                f"files: write 4 KiB and fsync{said}{where}",
                functools.partial(work.sync_blocks, *arguments),
                {
                    "anyio": functools.partial(work.sync_blocks_anyio, *arguments),
                    "aiofiles": functools.partial(work.sync_blocks_aiofiles, *arguments),
                },
                {
                    "os.write and os.fsync, blocking": on(
                        "asyncio", functools.partial(work.sync_blocks_blocking, *arguments)
                    )
                },
                unit="writes",
                operations=count // min(files, count) * min(files, count),
            )


def listing(bench: Bench) -> None:
    count = bench.count(ENTRIES)
    title = f"files: listing {count:,} entries"
    if not any(bench.wants(f"{title}, {name}") for name in ("io_uring", "epoll")):
        return  # to make them takes long
    path = str(FOLDER / "entries")
    arguments = (path, work.make_directory(path, count))
    compare(
        bench,
        title,
        functools.partial(work.list_entries, *arguments),
        {
            "anyio": functools.partial(work.list_entries_anyio, *arguments),
            "aiofiles": functools.partial(work.list_entries_aiofiles, *arguments),
        },
        unit="entries",
        operations=count,
    )


if __name__ == "__main__":
    main("files", [missing, random_reads, sequential_reads, syncs, listing], peers=PEERS, rounds=5)
