"""Each file operation, cancelled at each of its awaits: nothing leaks, and nothing lands late."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flowcoro.io import Directory, File, write_atomic
from flowcoro.testing import cancel_at_each_await
from io_cases import LOOPS, run_on

pytestmark = pytest.mark.parametrize("loop", LOOPS)

LARGE = bytes(range(256)) * 8192  # 2 MiB: not read at once


async def _open(folder: Path) -> None:
    async with File.open(folder / "old", "rb"):
        pass


async def _create(folder: Path) -> None:
    async with File.open(folder / "new", "w") as file:
        await file.write("text")


async def _read(folder: Path) -> None:
    async with File.open(folder / "old", "rb") as file:
        await file.read_at(len(LARGE), 0)
        await file.read()


async def _write(folder: Path) -> None:
    async with File.open(folder / "new", "wb") as file:
        await file.write(LARGE)
        await file.write_at(b"x", 10)
        await file.append(b"end")
        await file.truncate(100)
        await file.fsync()


async def _lock(folder: Path) -> None:
    async with File.open(folder / "old", "rb") as file, file.lock():
        await file.info()


async def _directory(folder: Path) -> None:
    directory = Directory(folder)
    await (await directory.create_directory("made", exist_ok=True)).list_files()
    await directory.stat("old")
    await directory.rename("made", "moved", replace=True)
    await directory.remove("moved")
    async for _ in directory.walk():
        pass


@pytest.mark.parametrize("scenario", [_open, _create, _read, _write, _lock, _directory])
def test_nothing_leaks(
    loop: str, scenario: Callable[[Path], Awaitable[None]], tmp_path: Path
) -> None:
    (tmp_path / "old").write_bytes(LARGE)

    async def run() -> None:
        await scenario(tmp_path)

    async def main() -> None:
        report = await cancel_at_each_await(run)
        assert report.points

    run_on(loop, main())


def test_a_write_that_was_cancelled_lands_before_or_never(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen: list[bytes] = []

    async def run() -> None:
        seen.clear()
        async with File.open(path, "wb") as file:
            try:
                await file.write_at(LARGE, 0)
            finally:
                seen.append(path.read_bytes())

    async def check() -> None:
        await asyncio.sleep(0)
        assert not seen or path.read_bytes() == seen[-1]  # nothing came since

    async def main() -> None:
        await cancel_at_each_await(run, check=check)

    run_on(loop, main())


def test_a_file_is_whole_however_its_atomic_write_is_cancelled(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def run() -> None:
        path.write_bytes(b"old")
        await write_atomic(path, LARGE)

    def check() -> None:
        assert path.read_bytes() in (b"old", LARGE)
        assert os.listdir(tmp_path) == ["file"]  # no temporary one

    async def main() -> None:
        report = await cancel_at_each_await(run, check=check, twice=True)
        assert report.points

    run_on(loop, main())


def test_a_copy_that_is_cancelled_leaves_nothing(loop: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(LARGE)
    target = tmp_path / "copy"
    directory = Directory(tmp_path)

    async def run() -> None:
        target.unlink(missing_ok=True)
        await directory.copy("old", "copy")

    def check() -> None:
        assert not target.exists() or target.read_bytes() == LARGE

    async def main() -> None:
        await cancel_at_each_await(run, check=check)

    run_on(loop, main())


def test_a_lock_that_was_waited_for_is_not_lost(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()

    async def main() -> None:
        async with File.open(path, "rb") as holder, File.open(path, "rb") as other:

            async def take() -> None:
                async with other.lock():
                    pass

            async with holder.lock():
                waiting = asyncio.ensure_future(take())
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            async with holder.lock(timeout=10):  # nobody has it
                pass

    run_on(loop, main())


def test_the_loop_may_end_with_operations_under_way(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)

    async def main() -> None:
        file = await File.open(path, "r+b")
        tasks = [asyncio.ensure_future(file.write_at(LARGE, 0)) for _ in range(8)]
        await asyncio.sleep(0)
        os.close(os.dup(file.fileno()))
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await file.close()

    run_on(loop, main())
    assert path.read_bytes() == LARGE
