"""The simulated disk: what a file system does, and what a power cut leaves of it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from flowcoro.testing import (
    Disk,
    DiskFile,
    SimulatedDisk,
    SimulatedLoop,
    SimulationFailure,
    simulate,
)

WRITE = os.O_WRONLY | os.O_CREAT


def some_seeds(main: Callable[[SimulatedLoop], Awaitable[object]], seeds: int = 30) -> None:
    simulate(main, seeds=seeds)


async def write_all(file: DiskFile, data: bytes) -> None:
    at = 0
    while at < len(data):
        at += await file.write_at(data[at:], at)


async def write_atomic(
    disk: Disk, path: str, data: bytes, *, sync: bool = True, sync_directory: bool = True
) -> None:
    """Replace a file: whoever looks sees the old one or the new one, whatever happens."""
    temporary = path + ".tmp"
    file = await disk.open(temporary, WRITE | os.O_TRUNC)
    try:
        await write_all(file, data)
        if sync:
            await file.fsync()
    finally:
        await file.close()
    await disk.rename(temporary, path)
    if sync_directory:
        await disk.fsync_directory(os.path.dirname(path))


async def prepared(loop: SimulatedLoop) -> SimulatedDisk:
    disk = loop.disk
    await disk.mkdir("/data")
    await disk.fsync_directory("/")
    return disk


OLD, NEW = bytes(range(256)) * 8, b"new" * 1000


async def survives(loop: SimulatedLoop, *, sync: bool = True, sync_directory: bool = True) -> str:
    """Cut the power somewhere in a `write_atomic`; tell what is left of the file."""
    disk = await prepared(loop)
    await write_atomic(disk, "/data/file", OLD)
    writing = asyncio.create_task(
        write_atomic(disk, "/data/file", NEW, sync=sync, sync_directory=sync_directory)
    )
    await asyncio.wait((writing,), timeout=loop.random.uniform(0, 0.05))
    finished = writing.done() and not writing.exception()
    disk.power_cut()
    with suppress(OSError):
        await writing
    left = disk.peek("/data/file")
    assert left in (OLD, NEW), f"half a file: {left!r:.20} of {len(left or b'')}"
    assert left == NEW or not finished, "what had been written is gone"
    return "new" if left == NEW else "old"


def test_write_atomic_survives_any_power_cut() -> None:
    seen: list[str] = []

    async def main(loop: SimulatedLoop) -> None:
        seen.append(await survives(loop))

    simulate(main, seeds=1000)
    assert min(seen.count("old"), seen.count("new")) > 100


def test_without_an_fsync_before_the_rename_half_a_file_is_found() -> None:
    with pytest.raises(SimulationFailure, match="half a file") as found:
        simulate(lambda loop: survives(loop, sync=False), seeds=1000)
    assert found.value.replays


def test_without_an_fsync_of_the_directory_a_lost_file_is_found() -> None:
    with pytest.raises(SimulationFailure, match="is gone") as found:
        simulate(lambda loop: survives(loop, sync_directory=False), seeds=1000)
    assert found.value.replays


def test_a_cancelled_write_atomic_leaves_old_or_new() -> None:
    async def main(loop: SimulatedLoop) -> None:
        disk = await prepared(loop)
        await write_atomic(disk, "/data/file", OLD)
        writing = asyncio.create_task(write_atomic(disk, "/data/file", NEW))
        await asyncio.sleep(loop.random.uniform(0, 0.03))
        writing.cancel()
        await asyncio.wait((writing,))
        before = disk.peek("/data/file")
        await asyncio.sleep(1)
        assert disk.peek("/data/file") == before
        assert before in (OLD, NEW)

    some_seeds(main, 200)


def test_torn_writes() -> None:
    fates: set[str] = set()

    async def main(loop: SimulatedLoop) -> None:
        disk = await prepared(loop)
        disk.short_write = 0.0
        file = await disk.open("/data/file", WRITE)
        await file.write_at(b"a" * 2048, 0)
        await file.fsync()
        await disk.fsync_directory("/data")
        await file.write_at(b"b" * 3072, 0)
        disk.power_cut()
        left = disk.peek("/data/file")
        assert left is not None
        assert len(left) in range(2048, 3073, 512)
        sectors = [left[at : at + 512] for at in range(0, len(left), 512)]
        assert set(sectors[:4]) <= {b"a" * 512, b"b" * 512}
        assert set(sectors[4:]) <= {bytes(512), b"b" * 512}
        if left == b"a" * 2048:
            fates.add("lost")
        elif left == b"b" * 3072:
            fates.add("whole")
        else:
            fates.add("zeros" if bytes(512) in sectors else "torn")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await file.write_at(b"c", 0)

    some_seeds(main, 100)
    assert fates == {"lost", "whole", "torn", "zeros"}


def test_names_that_were_not_synced() -> None:
    fates: set[tuple[str, ...]] = set()

    async def main(loop: SimulatedLoop) -> None:
        disk = await prepared(loop)
        for name in "ab":
            file = await disk.open(f"/data/{name}", WRITE)
            await file.fsync()  # its name is lost all the same
            await file.close()
        await disk.rename("/data/a", "/data/c")
        await disk.mkdir("/other")
        await disk.rename("/data/c", "/other/c")
        disk.power_cut()
        fates.add(
            (*disk.names("/data"), *(disk.names("/other") if "other" in disk.names() else ()))
        )

    some_seeds(main, 200)
    assert fates >= {(), ("a",), ("b",), ("a", "b"), ("c",), ("b", "c")}
    assert not any(fate.count("c") > 1 or {"a", "c"} <= set(fate) for fate in fates)


def test_a_directory_synced_brings_what_its_changes_build_on() -> None:
    async def main(loop: SimulatedLoop) -> None:
        disk = await prepared(loop)
        await disk.mkdir("/other")
        await disk.fsync_directory("/")
        file = await disk.open("/data/file", WRITE)
        await file.fsync()
        await disk.rename("/data/file", "/other/file")
        await disk.fsync_directory("/other")
        disk.power_cut()
        assert disk.names("/other") == ["file"]
        assert disk.names("/data") == []

    some_seeds(main)


def test_an_fsync_that_failed_has_lost_what_it_was_to_write() -> None:
    async def main(loop: SimulatedLoop) -> None:
        disk = await prepared(loop)
        file = await disk.open("/data/file", WRITE)
        await disk.fsync_directory("/data")
        await file.write_at(b"1", 0)
        disk.fsync_error = 1.0
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await file.fsync()
        disk.fsync_error = 0.0
        await file.fsync()  # says nothing of it
        assert disk.peek("/data/file") == b"1"
        disk.power_cut()
        assert disk.peek("/data/file") == b""

    some_seeds(main, 5)


def test_short_writes_and_a_full_disk() -> None:
    async def main(loop: SimulatedLoop) -> None:
        disk = await prepared(loop)
        disk.short_write = 0.5
        file = await disk.open("/data/file", WRITE)
        await write_all(file, OLD)
        assert disk.peek("/data/file") == OLD
        disk.capacity = len(OLD) + 10
        other = await disk.open("/data/other", WRITE)
        with pytest.raises(OSError, match="file") as full:
            await write_all(file, OLD + bytes(11))
        assert full.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            await other.write_at(b"x", 0)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            await other.truncate(1)
        await file.truncate(0)
        await write_all(other, b"there is room again")
        await disk.unlink("/data/file")
        await disk.fsync_directory("/data")
        disk.capacity = 30
        await disk.unlink("/data/other")
        await disk.fsync_directory("/data")
        await disk.mkdir("/data/more")
        assert disk.used == 0

    some_seeds(main)


async def errors_of(disk: SimulatedDisk) -> None:
    await disk.mkdir("/empty")
    file = await disk.open("/data/file", WRITE | os.O_EXCL)
    calls: list[tuple[Awaitable[object], type[OSError], int]] = [
        (disk.open("/data/no"), FileNotFoundError, errno.ENOENT),
        (disk.open("/no/file", WRITE), FileNotFoundError, errno.ENOENT),
        (disk.open("/data"), IsADirectoryError, errno.EISDIR),
        (disk.open("/"), IsADirectoryError, errno.EISDIR),
        (disk.open("/data/file/x"), NotADirectoryError, errno.ENOTDIR),
        (disk.open("/data/file", WRITE | os.O_EXCL), FileExistsError, errno.EEXIST),
        (disk.mkdir("/data"), FileExistsError, errno.EEXIST),
        (disk.rmdir("/data"), OSError, errno.ENOTEMPTY),
        (disk.rmdir("/"), OSError, errno.EBUSY),
        (disk.rmdir("/data/file"), NotADirectoryError, errno.ENOTDIR),
        (disk.unlink("/data"), IsADirectoryError, errno.EISDIR),
        (disk.rename("/data/no", "/x"), FileNotFoundError, errno.ENOENT),
        (disk.rename("/data/file", "/data"), IsADirectoryError, errno.EISDIR),
        (disk.rename("/empty", "/data/file"), NotADirectoryError, errno.ENOTDIR),
        (disk.rename("/data", "/data/file"), OSError, errno.EINVAL),
        (disk.rename("/data", "/data/within"), OSError, errno.EINVAL),
        (disk.rename("/", "/x"), OSError, errno.EBUSY),
        (disk.listdir("/data/file"), NotADirectoryError, errno.ENOTDIR),
        (file.read_at(1, 0), OSError, errno.EBADF),
        (file.write_at(b"x", 1 << 40), OSError, errno.EFBIG),
        ((await disk.open("/data/file")).write_at(b"x", 0), OSError, errno.EBADF),
    ]
    for call, kind, number in calls:
        with pytest.raises(kind) as error:
            await call
        assert error.value.errno == number
        assert error.value.filename is not None
    with pytest.raises(ValueError, match="null"):
        await disk.stat("a\0b")
    await file.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        await file.fsync()


def test_errors_are_those_of_the_system() -> None:
    async def main(loop: SimulatedLoop) -> None:
        await errors_of(await prepared(loop))

    some_seeds(main, 3)


def test_files() -> None:
    async def main(loop: SimulatedLoop) -> None:
        disk = await prepared(loop)
        disk.short_write = 0.0
        assert isinstance(disk, Disk)
        file = await disk.open("data/../data/file", os.O_RDWR | os.O_CREAT, 0o600)
        assert isinstance(file, DiskFile)
        await file.write_at(b"end", 5)
        assert await file.read_at(100, 0) == b"\0\0\0\0\0end"
        assert await file.read_at(100, 8) == b""
        await file.truncate(6)
        await file.truncate(8)
        assert disk.peek("/data/file") == b"\0\0\0\0\0e\0\0"
        appending = await disk.open("/data/file", os.O_WRONLY | os.O_APPEND)
        await appending.write_at(b"!", 0)
        assert disk.peek("/data/file") == b"\0\0\0\0\0e\0\0!"
        stat = await file.stat()
        assert (stat.size, stat.is_directory, stat.mode) == (9, False, 0o600)
        assert (await disk.stat("/data")).is_directory
        await disk.rename("/data/file", "/data/other")
        assert (await disk.stat("/data/other")).inode == stat.inode
        assert await disk.listdir("/data") == ["other"]
        await disk.unlink("/data/other")
        assert len(await file.read_at(100, 0)) == 9  # who has it open keeps it
        await disk.rmdir("/data")
        assert await disk.listdir("/") == []
        assert disk.peek("/data") is None

    some_seeds(main, 3)


def test_calls_fail_as_they_are_told() -> None:
    async def main(loop: SimulatedLoop) -> None:
        disk = await prepared(loop)
        disk.fail("open", errno.EMFILE, times=2)
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                await disk.open("/data/file", WRITE)
        await disk.open("/data/file", WRITE)

    some_seeds(main, 3)


def test_each_host_has_its_disk() -> None:
    async def main(loop: SimulatedLoop) -> None:
        with loop.network.host("db"):
            await loop.disk.mkdir("/data")
            assert loop.disk.names() == ["data"]
        assert loop.disk.names() == []

    some_seeds(main, 1)
