"""A disk that is full, a small tmpfs: what was there stays, and the error names the path."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from flowcoro.io import Directory, File, write_atomic
from io_cases import LOOPS, nothing_left_open, run_on

pytestmark = pytest.mark.parametrize("loop", LOOPS)

SIZE = 256 * 1024
INODES = 8
LARGE = os.urandom(2 * SIZE)
OLD = b"old" * 10_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB and a few inodes, with a file in it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("ENOSPC IS NOT TESTED: to mount a small tmpfs needs root, on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={SIZE},nr_inodes={INODES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "flowcoro-test", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        assert os.environ.get("CI") != "true", f"CI must mount a tmpfs: {mounted.stderr}"
        pytest.skip(f"ENOSPC IS NOT TESTED: a tmpfs cannot be mounted: {mounted.stderr}")
    try:
        (folder / "old").write_bytes(OLD)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)  # which refuses while a file is open


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


async def no_space(path: Path, work: Awaitable[object]) -> OSError:
    """Await what must fail for want of space, and tell of the path."""
    with pytest.raises(OSError, match="No space left") as caught:
        await work
    assert type(caught.value) is OSError  # there is no kind of its own for it
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    return caught.value


def written(error: OSError) -> int:
    """Return how many bytes were written, by the error's note."""
    (note,) = error.__notes__
    count, rest = note.split(" ", 1)
    assert rest == f"of {len(LARGE)} bytes were written"
    return int(count)


def test_writing_at_the_position(loop: str, disk: Path) -> None:
    path = disk / "new"

    async def main() -> None:
        async with File.open(path, "wb") as file:
            count = written(await no_space(path, file.write(LARGE)))
            assert path.read_bytes() == LARGE[:count]
            assert free(disk) == 0
            assert file.tell() == 0  # it is not known to whom it matters: nothing moved
            await no_space(path, file.write_at(b"x", SIZE))
            await file.truncate(0)
            assert await file.write(b"again") == 5
        assert path.read_bytes() == b"again"

    with nothing_left_open():
        run_on(loop, main())
    assert (disk / "old").read_bytes() == OLD


def test_writing_at_an_offset(loop: str, disk: Path) -> None:
    path = disk / "old"

    async def main() -> None:
        async with File.open(path, "r+b") as file:
            count = written(await no_space(path, file.write_at(LARGE, 10)))
            assert path.read_bytes() == OLD[:10] + LARGE[:count]
            assert await file.write_at(b"x", 0) == 1  # what has its place can be written
            assert await file.read_at(5, 0) == b"x" + OLD[1:5]

    with nothing_left_open():
        run_on(loop, main())


def test_appending(loop: str, disk: Path) -> None:
    path = disk / "old"

    async def main() -> None:
        async with File.open(path, "ab") as file:
            count = written(await no_space(path, file.append(LARGE)))
            assert path.read_bytes() == OLD + LARGE[:count]
            await file.truncate(len(OLD))
            count = written(await no_space(path, file.write(LARGE)))
            assert path.read_bytes() == OLD + LARGE[:count]

    with nothing_left_open():
        run_on(loop, main())


def test_writing_text(loop: str, disk: Path) -> None:
    path = disk / "new"

    async def main() -> None:
        async with File.open(path, "w") as file:
            await no_space(path, file.write("€" * SIZE))
        content = path.read_bytes()
        assert content == ("€" * SIZE).encode()[: len(content)]

    with nothing_left_open():
        run_on(loop, main())


@pytest.mark.parametrize("at_once", [1, 4])
def test_writing_atomically(loop: str, disk: Path, at_once: int) -> None:
    path = disk / "old"

    async def main() -> None:
        before = free(disk)
        await asyncio.gather(*(no_space(path, write_atomic(path, LARGE)) for _ in range(at_once)))
        assert path.read_bytes() == OLD
        assert os.listdir(disk) == ["old"]  # nothing half
        assert free(disk) == before
        await write_atomic(path, b"new")
        assert path.read_bytes() == b"new"

    with nothing_left_open():
        run_on(loop, main())


def test_copying(loop: str, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)

    async def main() -> None:
        with pytest.raises(OSError, match="No space left") as caught:
            await Directory(disk).copy(tmp_path / "large", "copy")
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / "large")
        assert caught.value.filename2 == str(disk / "copy")
        assert os.listdir(disk) == ["old"]

    with nothing_left_open():
        run_on(loop, main())


def test_no_inode_is_left(loop: str, disk: Path) -> None:
    number = 0
    try:
        while True:
            (disk / f"file{number}").touch()
            number += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 - that the disk is full is no outcome

    async def main() -> None:
        new, directory = disk / "new", Directory(disk)
        calls: dict[Path, Callable[[], Awaitable[object]]] = {
            new: lambda: _open(new),
            disk / "made": lambda: directory.create_directory("made"),
            disk / "old": lambda: write_atomic(disk / "old", b"new"),
        }
        for path, call in calls.items():
            await no_space(path, call())
        assert not new.exists()
        assert (disk / "old").read_bytes() == OLD
        assert len(os.listdir(disk)) == number + 1

    with nothing_left_open():
        run_on(loop, main())


async def _open(path: Path) -> None:
    await File.open(path, "wb")
