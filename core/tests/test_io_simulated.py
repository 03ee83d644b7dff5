"""write_atomic and files on a simulated disk, whose power is cut anywhere."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from flowcoro.io import File, write_atomic
from flowcoro.testing import SimulatedLoop, SimulationFailure, simulate

OLD = b"old" * 1000
NEW = b"new, and longer" * 1000


async def _prepare(loop: SimulatedLoop) -> None:
    await loop.disk.mkdir("/data")
    await loop.disk.fsync_directory("/")
    await write_atomic("/data/file", OLD)
    assert loop.disk.peek("/data/file") == OLD


def test_a_power_cut_leaves_the_old_or_the_new() -> None:
    seen: set[bytes | None] = set()

    async def main(loop: SimulatedLoop) -> None:
        await _prepare(loop)
        writing = asyncio.ensure_future(write_atomic("/data/file", NEW))
        await asyncio.sleep(loop.random.random() * 0.05)
        done = writing.done()
        loop.disk.power_cut()
        await asyncio.gather(writing, return_exceptions=True)
        found = loop.disk.peek("/data/file")
        assert found in (OLD, NEW)
        assert not done or found == NEW
        seen.add(found)

    simulate(main, seeds=1000)
    assert seen == {OLD, NEW}


async def _write_without_fsync(path: str, data: bytes) -> None:
    async with File.open(f"{path}.tmp", "wb") as file:
        await file.write(data)
    await asyncio.get_running_loop().disk.rename(f"{path}.tmp", path)  # type: ignore[attr-defined]


def test_a_planted_bug_is_found() -> None:
    async def main(loop: SimulatedLoop) -> None:
        await _prepare(loop)
        writing = asyncio.ensure_future(_write_without_fsync("/data/file", NEW))
        await asyncio.sleep(loop.random.random() * 0.05)
        loop.disk.power_cut()
        await asyncio.gather(writing, return_exceptions=True)
        assert loop.disk.peek("/data/file") in (OLD, NEW)

    with pytest.raises(SimulationFailure):
        simulate(main, seeds=1000)


def test_errors_leave_the_old_one_and_nothing_else() -> None:
    calls = ("open", "write_at", "fsync", "rename")

    async def main(loop: SimulatedLoop) -> None:
        await _prepare(loop)
        loop.disk.fail(loop.random.choice(calls), errno.EIO)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await write_atomic("/data/file", NEW)
        assert loop.disk.peek("/data/file") == OLD
        assert await loop.disk.listdir("/data") == ["file"]
        loop.disk.capacity = len(OLD) + 10
        with pytest.raises(OSError, match="No space left") as caught:
            await write_atomic("/data/file", NEW)
        assert caught.value.errno == errno.ENOSPC
        assert await loop.disk.listdir("/data") == ["file"]

    simulate(main, seeds=50)


def test_files() -> None:
    async def main(loop: SimulatedLoop) -> None:
        async with File.open("/file", "w+b") as file:
            await file.write(NEW)  # in short writes, now and then
            await file.append(b"end")
            await file.seek(0)
            assert await file.read() == NEW + b"end"
            await file.truncate(5)
            assert (await file.info()).size == 5
            async with file.lock(), File.open("/file", "rb") as other:
                with pytest.raises(TimeoutError):
                    async with other.lock(timeout=1):
                        pass
        async with File.open("/file") as text:
            assert await text.read() == "new, "
        with pytest.raises(FileNotFoundError):
            await File.open("/none")

    simulate(main, seeds=50)
