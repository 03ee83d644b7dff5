"""What is done with files by `flowcoro.io` and by its peers: the same work, its outcome checked.

Each function opens what it needs, works while the watch runs, and closes it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio
import anyio.to_thread

from flowcoro.io import Directory, File

__all__ = [
    "PIECE",
    "WATCH",
    "Blocks",
    "choose_blocks",
    "forget",
    "list_entries",
    "list_entries_aiofiles",
    "list_entries_anyio",
    "make_directory",
    "make_file",
    "read_blocks",
    "read_blocks_aiofiles",
    "read_blocks_anyio",
    "read_blocks_in_threads",
    "read_through",
    "read_through_aiofiles",
    "read_through_anyio",
    "read_through_blocking",
    "sync_blocks",
    "sync_blocks_aiofiles",
    "sync_blocks_anyio",
    "sync_blocks_blocking",
]

BLOCK = 4096
PIECE = 1 << 20
MARK = 16

# Offsets, and the bytes that are there.
Blocks = list[tuple[int, bytes]]


class Watch:
    """A clock that runs only while what is measured does."""

    def __init__(self) -> None:
        self.spent = 0.0

    def clock(self) -> float:
        """Return the seconds that it has run."""
        return self.spent

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run."""
        began = perf_counter()
        yield
        self.spent += perf_counter() - began


WATCH = Watch()


def make_file(path: str, size: int) -> bytes:
    """Write a file, which is on the disk then and in the page cache, and return its content."""
    content = random.Random(1).randbytes(size)
    _put(path, content)
    return content


def choose_blocks(content: bytes, count: int) -> Blocks:
    """Choose blocks of a file at random."""
    chosen = random.Random(2)
    offsets = [chosen.randrange(len(content) // BLOCK) * BLOCK for _ in range(count)]
    return [(each, content[each : each + MARK]) for each in offsets]


def make_directory(path: str, count: int) -> set[str]:
    """Make a directory of so many files; return their names."""
    os.mkdir(path)
    names = {f"file-{number:06}" for number in range(count)}
    for name in names:
        os.close(os.open(os.path.join(path, name), os.O_CREAT | os.O_WRONLY))
    return names


def _check(data: bytes, begin: bytes) -> None:
    if len(data) != BLOCK or not data.startswith(begin):
        raise AssertionError("something else was read")


def forget(path: str) -> None:
    """Take a file out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


# Blocks at random, by so many tasks, each with a share of them.


async def _share(readers: list[Callable[[Blocks], Awaitable[None]]], blocks: Blocks) -> None:
    if len(readers) == 1:
        with WATCH.running():
            await readers[0](blocks)
        return
    with WATCH.running():
        await asyncio.gather(*(read(blocks[at :: len(readers)]) for at, read in enumerate(readers)))


async def read_blocks(path: str, blocks: Blocks, tasks: int) -> None:
    """Read by `File.read_at`; all tasks share the file."""
    async with File.open(path, "rb") as file:

        async def read(share: Blocks) -> None:
            for offset, begin in share:
                _check(await file.read_at(BLOCK, offset), begin)

        await _share([read] * tasks, blocks)


async def read_blocks_anyio(path: str, blocks: Blocks, tasks: int) -> None:
    """Read by anyio's seek and read; each task has a file, for a file has one position."""

    def reader(file: anyio.AsyncFile[bytes]) -> Callable[[Blocks], Awaitable[None]]:
        async def read(share: Blocks) -> None:
            for offset, begin in share:
                await file.seek(offset)
                _check(await file.read(BLOCK), begin)

        return read

    async with AsyncExitStack() as stack:
        files = [
            await stack.enter_async_context(await anyio.open_file(path, "rb")) for _ in range(tasks)
        ]
        await _share([reader(each) for each in files], blocks)


async def read_blocks_in_threads(path: str, blocks: Blocks, tasks: int) -> None:
    """Read by `os.pread`, called in anyio's threads: one call instead of two."""
    with open(path, "rb") as file:  # noqa: ASYNC230
        fd = file.fileno()

        async def read(share: Blocks) -> None:
            for offset, begin in share:
                _check(await anyio.to_thread.run_sync(os.pread, fd, BLOCK, offset), begin)

        await _share([read] * tasks, blocks)


async def read_blocks_aiofiles(path: str, blocks: Blocks, tasks: int) -> None:
    """Read by aiofiles' seek and read; each task has a file."""
    import aiofiles

    def reader(file: Any) -> Callable[[Blocks], Awaitable[None]]:
        async def read(share: Blocks) -> None:
            for offset, begin in share:
                await file.seek(offset)
                _check(await file.read(BLOCK), begin)

        return read

    async with AsyncExitStack() as stack:
        files = [await stack.enter_async_context(aiofiles.open(path, "rb")) for _ in range(tasks)]
        await _share([reader(each) for each in files], blocks)


# A whole file, a piece after the other.


async def read_through(path: str, total: int) -> None:
    """Read by `File.read`."""
    async with File.open(path, "rb") as file:
        with WATCH.running():
            size = 0
            while data := await file.read(PIECE):
                size += len(data)
    _check_all(size, total)


async def read_through_anyio(path: str, total: int) -> None:
    """Read by anyio."""
    async with await anyio.open_file(path, "rb") as file:
        with WATCH.running():
            size = 0
            while data := await file.read(PIECE):
                size += len(data)
    _check_all(size, total)


async def read_through_aiofiles(path: str, total: int) -> None:
    """Read by aiofiles."""
    import aiofiles

    async with aiofiles.open(path, "rb") as file:
        with WATCH.running():
            size = 0
            while data := await file.read(PIECE):
                size += len(data)
    _check_all(size, total)


async def read_through_blocking(path: str, total: int) -> None:
    """Read by `os.pread`, which blocks the loop."""
    with open(path, "rb") as file, WATCH.running():  # noqa: ASYNC230
        fd = file.fileno()
        size = 0
        while data := os.pread(fd, PIECE, size):
            size += len(data)
    _check_all(size, total)


def _check_all(size: int, total: int) -> None:
    if size != total:
        raise AssertionError(f"{size} bytes were read, not {total}")


# A block and an fsync, again and again, over what is there; in so many files at once.


async def sync_blocks(path: str, count: int, files: int) -> None:
    """Write by `File.write`, and `File.fsync`."""

    async def write(path: str, data: bytes) -> None:
        async with File.open(path, "r+b") as file:
            for at in range(0, len(data), BLOCK):
                await file.write(data[at : at + BLOCK])
                await file.fsync()

    await _write_files(write, path, count, files)


async def sync_blocks_anyio(path: str, count: int, files: int) -> None:
    """Write by anyio without a buffer, and `os.fsync` in a thread."""

    async def write(path: str, data: bytes) -> None:
        async with await anyio.open_file(path, "r+b", buffering=0) as file:
            for at in range(0, len(data), BLOCK):
                await file.write(data[at : at + BLOCK])
                await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())

    await _write_files(write, path, count, files)


async def sync_blocks_aiofiles(path: str, count: int, files: int) -> None:
    """Write by aiofiles without a buffer, and `os.fsync` in a thread."""
    import aiofiles

    async def write(path: str, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        async with aiofiles.open(path, "r+b", buffering=0) as file:
            for at in range(0, len(data), BLOCK):
                await file.write(data[at : at + BLOCK])
                await loop.run_in_executor(None, os.fsync, file.fileno())

    await _write_files(write, path, count, files)


async def sync_blocks_blocking(path: str, count: int, files: int) -> None:
    """Write by `os.write` and `os.fsync`, which block the loop."""

    async def write(path: str, data: bytes) -> None:
        fd = os.open(path, os.O_RDWR)
        for at in range(0, len(data), BLOCK):
            os.write(fd, data[at : at + BLOCK])
            os.fsync(fd)
        os.close(fd)

    await _write_files(write, path, count, files)


async def _write_files(
    write: Callable[[str, bytes], Awaitable[None]], path: str, count: int, files: int
) -> None:
    size = max(1, count // files) * BLOCK
    wanted = {f"{path}-{number}": os.urandom(size) for number in range(files)}
    for each in wanted:  # zeros, on the disk, which are written over
        _put(each, bytes(size))
    with WATCH.running():
        await asyncio.gather(*(write(each, data) for each, data in wanted.items()))
    for each, data in wanted.items():
        if Path(each).read_bytes() != data:
            raise AssertionError("something else was written")


def _put(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


# What is in a directory.


async def list_entries(path: str, names: set[str]) -> None:
    """List by `Directory.list_files`, which tells the kinds too."""
    with WATCH.running():
        entries = await Directory(path).list_files()
    _check_names({each.name for each in entries if each.is_file}, names)


async def list_entries_anyio(path: str, names: set[str]) -> None:
    """List by `anyio.Path.iterdir`: names only."""
    with WATCH.running():
        entries = [each async for each in anyio.Path(path).iterdir()]
    _check_names({each.name for each in entries}, names)


async def list_entries_aiofiles(path: str, names: set[str]) -> None:
    """List by `aiofiles.os.scandir`, and ask each entry for its kind, which blocks the loop."""
    import aiofiles.os

    with WATCH.running(), await aiofiles.os.scandir(path) as found:
        entries = [
            (each.name, each.path, each.is_dir(follow_symlinks=False), each.is_symlink())
            for each in found
        ]
    _check_names({name for name, *_ in entries}, names)


def _check_names(found: set[str], names: set[str]) -> None:
    if found != names:
        raise AssertionError("something else was listed")
