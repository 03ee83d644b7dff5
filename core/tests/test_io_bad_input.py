"""What files and directories are given that they cannot take: `OSError`s, with the path."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flowcoro.io import Directory, File, write_atomic
from io_cases import LOOPS, no_descriptor_left, nothing_left_open, run_on

pytestmark = pytest.mark.parametrize("loop", LOOPS)


async def first(found: AsyncIterator[Any]) -> None:
    async for _ in found:
        break


def all_calls(path: str | bytes) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return all that may be asked of a path, by name."""
    here = Directory("/")
    return {
        "open": lambda: _open(path, "rb"),
        "open as text": lambda: _open(path, "w"),
        "write_atomic": lambda: write_atomic(path, b""),
        "list_files": lambda: Directory(path).list_files(),
        "walk": lambda: first(Directory(path).walk()),
        "watch": lambda: first(Directory(path).watch()),
        "stat": lambda: here.stat(path),
        "create_directory": lambda: here.create_directory(path),
        "remove": lambda: here.remove(path),
        "rename": lambda: here.rename(path, "/none"),
        "rename to": lambda: here.rename("/proc/self/stat", path),
        "copy": lambda: here.copy(path, "/none"),
        "copy to": lambda: here.copy("/proc/self/stat", path),
    }


async def _open(path: str | bytes | Path, mode: str) -> None:
    await File.open(path, mode)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("a\0b", errno.EINVAL),
        (b"a\0b", errno.EINVAL),
        ("\ud800", errno.EILSEQ),
        ("", errno.ENOENT),
    ],
)
def test_what_cannot_be_a_path(loop: str, path: str | bytes, number: int) -> None:
    async def main() -> None:
        for what, call in all_calls(path).items():
            with pytest.raises(OSError, match=r".") as caught:
                await call()
            found = (caught.value.errno, caught.value.filename)
            assert found == (number, os.fsdecode(path)), what

    run_on(loop, main())


@pytest.mark.parametrize(
    ("path", "kind", "number"),
    [
        ("none/file", FileNotFoundError, errno.ENOENT),
        ("file/file", NotADirectoryError, errno.ENOTDIR),
        ("loop/file", OSError, errno.ELOOP),
        ("x" * 300, OSError, errno.ENAMETOOLONG),
    ],
)
def test_what_is_not_there(
    loop: str, tmp_path: Path, path: str, kind: type[OSError], number: int
) -> None:
    (tmp_path / "file").touch()
    os.symlink("loop", tmp_path / "loop")
    path = str(tmp_path / path)

    async def main() -> None:
        for what, call in all_calls(path).items():
            with pytest.raises(kind) as caught:
                await call()
            error = caught.value
            assert (error.errno, path in (error.filename, error.filename2)) == (number, True), what

    with nothing_left_open():
        run_on(loop, main())
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_what_is_not_a_file(loop: str, tmp_path: Path) -> None:
    import pty

    fifo, sock = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(sock))
    ours, theirs = pty.openpty()
    cases: list[tuple[Path, str, type[OSError], int]] = [
        (tmp_path, "rb", IsADirectoryError, errno.EISDIR),
        (tmp_path, "w", IsADirectoryError, errno.EISDIR),
        (fifo, "rb", OSError, errno.ESPIPE),
        (fifo, "r+b", OSError, errno.ESPIPE),
        (fifo, "wb", OSError, errno.ENXIO),  # nobody reads; to wait for one would be for ever
        (fifo, "x", FileExistsError, errno.EEXIST),
        (sock, "rb", OSError, errno.ENXIO),
        (Path(os.ttyname(theirs)), "r+b", OSError, errno.ESPIPE),
    ]

    async def main() -> None:
        for path, mode, kind, number in cases:
            with pytest.raises(kind) as caught:
                await _open(path, mode)
            assert (caught.value.errno, caught.value.filename) == (number, str(path))
        for path in (fifo, sock, Path("/dev/null")):  # which no file must take the place of
            with pytest.raises(OSError, match="only regular files can be replaced") as caught:
                await write_atomic(path, b"x")
            assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(path))
        with pytest.raises(IsADirectoryError) as caught:
            await write_atomic(tmp_path, b"x")
        assert caught.value.filename == str(tmp_path)

    with nothing_left_open(), bound:
        run_on(loop, main())
    os.close(ours)
    os.close(theirs)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_devices(loop: str) -> None:
    async def main() -> None:
        async with File.open("/dev/zero", "rb") as zero:
            assert await zero.read(1000) == bytes(1000)
            assert await zero.read_at(2_000_000, 5) == bytes(2_000_000)
            with pytest.raises(OSError, match="more than 100000 bytes are left") as caught:
                await zero.read_all(max_size=100_000)  # it has no end
            assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, "/dev/zero")
        async with File.open("/dev/null", "r+b") as null:
            assert await null.read_all() == b""
            assert await null.write(b"gone") == 4
            assert await null.append(b"gone") == 4
        async with File.open("/dev/full", "wb") as full:
            for call in (
                full.write(b"x" * 10),
                full.write_at(b"x" * 10, 5),
                full.append(b"x" * 10),
            ):
                with pytest.raises(OSError, match="No space left") as caught:
                    await call
                assert caught.value.filename == "/dev/full"
                assert "0 of 10 bytes were written" in caught.value.__notes__

    with nothing_left_open():
        run_on(loop, main())


def test_names_that_are_no_utf_8(loop: str, tmp_path: Path) -> None:
    raw = b"\xff\xfe"
    name = os.fsdecode(raw)
    at = os.fsencode(tmp_path) + b"/"

    async def main() -> None:
        async with File.open(at + raw, "wb") as file:
            await file.write(b"x")
            assert os.fsencode(file.name) == at + raw
        async with File.open(tmp_path / name) as text:
            assert await text.read() == "x"
        here = Directory(os.fsencode(tmp_path))
        assert [entry.name for entry in await here.list_files()] == [name]
        assert [path async for path in here.glob("*")] == [str(tmp_path / name)]
        assert (await here.stat(raw)).size == 1
        await write_atomic(at + raw, b"new")
        assert (tmp_path / name).read_bytes() == b"new"
        await (await here.create_directory(b"\xf0")).create_directory(b"\xf1")
        await here.rename(raw, b"\xf0/\xf1/" + raw)
        assert await here.copy(b"\xf0", b"\xf2", recursive=True) == 3
        found = [(path, [e.name for e in entries]) async for path, entries in here.walk()]
        assert (str(tmp_path / "\udcf2" / "\udcf1"), [name]) in found
        await here.remove(b"\xf2", recursive=True)
        with pytest.raises(FileNotFoundError) as caught:
            await File.open(at + b"\xf2", "rb")
        assert os.fsencode(caught.value.filename) == at + b"\xf2"

    with nothing_left_open():
        run_on(loop, main())


def test_names_as_long_as_can_be(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        for name in ("x" * 255, "語" * 85, "x" + "é" * 127):
            await write_atomic(tmp_path / name, b"x")
            assert (tmp_path / name).read_bytes() == b"x"

    run_on(loop, main())


def test_too_many_open_files(loop: str, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"old")

    async def main() -> None:
        directory = Directory(tmp_path)
        await directory.list_files()  # so that threads are there
        calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            (path, lambda: _open(path, "rb")),
            (path, lambda: write_atomic(path, b"new")),
            (str(tmp_path), directory.list_files),
            (path, lambda: directory.copy("file", "copy")),
        ]
        for about, call in calls:
            with no_descriptor_left(), pytest.raises(OSError, match="Too many open") as caught:
                await call()
            assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, about)

    with nothing_left_open():
        run_on(loop, main())
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_text_that_is_cut_while_it_is_read(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    line = "é" * 99 + "\n"
    path.write_text(line * 10_000, encoding="utf-8")

    async def main() -> None:
        async with File.open(path) as file:
            assert await file.readline() == line
            os.truncate(path, 400_001)  # within a line, and after the first byte of its é
            for _ in range(400_001 // len(line.encode()) - 1):
                assert await file.readline() == line
            with pytest.raises(UnicodeDecodeError):
                await file.readline()
        async with File.open(path, "rb") as binary:
            await binary.seek(300_000)
            os.truncate(path, 100_000)
            assert (
                await binary.read(10) == await binary.readline() == await binary.read_all() == b""
            )

    run_on(loop, main())


def test_a_sparse_file_of_a_terabyte(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    size = 10**12

    async def main() -> None:
        async with File.open(path, "wb") as file:
            await file.write_at(b"begin", 0)
            await file.write_at(b"middle", size // 2)
            await file.truncate(size)
        async with File.open(path) as text:
            with pytest.raises(OSError, match="bytes, more than") as caught:
                await text.read()
            assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
        told: list[tuple[int, int]] = []
        directory = Directory(tmp_path)
        assert await directory.copy("sparse", "copy", progress=lambda *at: told.append(at)) == size
        assert told[0] == (0, size)
        assert told[-1] == (size, size)
        info = os.stat(tmp_path / "copy")
        assert info.st_size == size
        assert info.st_blocks * 512 < 1 << 20  # its holes are none but holes
        async with File.open(tmp_path / "copy", "rb") as file:
            assert await file.read_at(6, 0) == b"begin\0"
            assert await file.read_at(8, size // 2 - 1) == b"\0middle\0"
            assert await file.read_at(8, size - 3) == bytes(3)

    with nothing_left_open():
        run_on(loop, main())
