from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import random
import stat
import warnings
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowcoro.io import File
from io_cases import LOOPS, nothing_left_open, run_on

pytestmark = pytest.mark.parametrize("loop", LOOPS)

CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return str(file)


def test_reading_at_an_offset(loop: str, path: str) -> None:
    async def main() -> None:
        async with File.open(path, "rb") as file:
            assert await file.read_at(10, 0) == CONTENT[:10]
            assert await file.read_at(4096, 123_456) == CONTENT[123_456:127_552]
            assert await file.read_at(0, 5) == b""
            assert await file.read_at(100, len(CONTENT) - 3) == CONTENT[-3:]
            assert await file.read_at(100, len(CONTENT)) == b""
            assert await file.read_at(100, 10**12) == b""
            assert await file.read_at(5_000_000, 7) == CONTENT[7:]
            assert file.tell() == 0

    with nothing_left_open():
        run_on(loop, main())


def test_many_reads_at_once(loop: str, path: str) -> None:
    async def main() -> None:
        async with File.open(path, "rb") as file:
            offsets = [random.Random(2).randrange(len(CONTENT)) for _ in range(64)]
            # Past what is copied at once, so that all of them wait.
            read = await asyncio.gather(*(file.read_at((1 << 20) + 1, each) for each in offsets))
            assert read == [CONTENT[each:] for each in offsets]

    run_on(loop, main())


def test_reading_from_the_position(loop: str, path: str) -> None:
    async def main() -> None:
        chosen = random.Random(3)
        async with File.open(path, "rb") as file:
            at = 0
            for _ in range(400):
                action = chosen.randrange(3)
                if action == 0:
                    size = chosen.choice([0, 1, 10, 1000, 70_000])
                    expected = CONTENT[at : at + size]
                    assert await file.read(size) == expected
                elif action == 1:
                    end = CONTENT.find(b"\n", at) + 1 or len(CONTENT)
                    limit = chosen.choice([-1, 5, 5000])
                    expected = CONTENT[at:end] if limit < 0 else CONTENT[at : min(end, at + limit)]
                    assert await file.readline(limit) == expected
                else:
                    at = chosen.randrange(len(CONTENT))
                    assert await file.seek(at) == at
                    continue
                at = min(at + len(expected), len(CONTENT))
                assert file.tell() == at
            await file.seek(-4, os.SEEK_END)
            assert await file.read() == CONTENT[-4:]
            assert await file.read() == await file.read(5) == b""
            await file.seek(-2, os.SEEK_CUR)
            assert await file.read_all() == CONTENT[-2:]
            await file.seek(0)
            assert b"".join([line async for line in file]) == CONTENT

    run_on(loop, main())


def test_writing(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "new"

    async def main() -> None:
        async with File.open(path, "wb") as file:
            assert await file.write(b"hello ") == 6
            assert await file.write(bytearray(b"world")) == 5
            assert await file.write(b"") == 0
            assert await file.write_at(b"J", 0) == 1
            assert await file.write_at(memoryview(b"!"), 20) == 1
            assert file.tell() == 11
            await file.fsync()
            await file.fsync(data_only=True)
            assert (await file.info()).size == 21
        assert path.read_bytes() == b"Jello world" + bytes(9) + b"!"
        async with File.open(path, "ab") as file:
            assert file.tell() == 21
            await file.write(b"end")
            assert file.tell() == 24
        async with File.open(path, "r+b") as file:
            assert await file.read(5) == b"Jello"
            await file.write(b"_")  # right behind what was read, whatever was read ahead
            assert await file.read(5) == b"world"
            await file.append(b"!!")
            assert await file.read_at(5, 21) == b"end!!"
            await file.truncate(8)
            assert await file.read() == b""
            await file.seek(0)
            assert await file.read() == b"Jello_wo"

    with nothing_left_open():
        run_on(loop, main())
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_modes(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def main() -> None:
        async with File.open(path, "xb", permissions=0o600) as file:
            assert file.writable()
            assert not file.readable()
            with pytest.raises(io.UnsupportedOperation, match="for writing only"):
                await file.read()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(FileExistsError) as caught:
            await File.open(path, "x")
        assert caught.value.filename == str(path)
        async with File.open(path, "rb") as file:
            for call in (
                file.write(b""),
                file.write_at(b"", 0),
                file.truncate(0),
                file.append(b""),
            ):
                with pytest.raises(io.UnsupportedOperation, match="for reading only"):
                    await call
        for mode in ("", "q", "rw", "rbt", "rr", "r++", "b"):
            with pytest.raises(ValueError, match=r"mode must be|not both"):
                File.open(path, mode)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="no encoding"):
            File.open(path, "rb", encoding="utf-8")  # type: ignore[call-overload]

    run_on(loop, main())


def test_wrong_arguments(loop: str, path: str) -> None:
    async def main() -> None:
        async with File.open(path, "r+b") as file:
            for call in (
                file.read_at(-1, 0), file.read_at(1, -1), file.write_at(b"x", -1),
                file.truncate(-1), file.seek(-1), file.seek(0, 9),
            ):  # fmt: skip
                with pytest.raises(ValueError, match=r"must|before"):
                    await call
            with pytest.raises(TypeError):
                await file.write("text")  # type: ignore[arg-type]
            with pytest.raises(OSError, match="Invalid argument") as caught:
                await file.read_at(1, 2**63 - 1)
            assert caught.value.filename == path
        with pytest.raises(TypeError, match="a path must be"):
            File.open(5)  # type: ignore[call-overload]

    run_on(loop, main())


def test_closing(loop: str, path: str) -> None:
    async def main() -> None:
        file = await File.open(path, "rb")
        number = file.fileno()
        os.fstat(number)
        # What is under way ends first.
        reading = asyncio.ensure_future(file.read_at((1 << 20) + 1, 0))
        await asyncio.sleep(0)
        await file.close()
        assert await reading == CONTENT
        await file.close()
        assert file.closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
        for call in (file.read(), file.read_at(1, 0), file.info(), file.fsync(), file.seek(0)):
            with pytest.raises(anyio.ClosedResourceError, match="is closed"):
                await call
        with pytest.raises(anyio.ClosedResourceError):
            file.fileno()
        assert "closed" in repr(file)

    with nothing_left_open():
        run_on(loop, main())


def test_a_file_that_is_dropped_is_closed_with_a_warning(loop: str, path: str) -> None:
    async def main() -> None:
        file: Any = await File.open(path, "rb")
        await file.read(10)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del file
            gc.collect()
        assert [str(each.message) for each in caught if each.category is ResourceWarning]

    with nothing_left_open():
        run_on(loop, main())


def test_the_position_is_one_tasks_at_a_time(loop: str, path: str) -> None:
    async def main() -> None:
        async with File.open(path, "rb") as file:
            first = asyncio.ensure_future(file.read((1 << 20) + 1))
            await asyncio.sleep(0)
            with pytest.raises(anyio.BusyResourceError):
                await file.read(1)
            with pytest.raises(anyio.BusyResourceError):
                await file.seek(0)
            assert await first == CONTENT

    run_on(loop, main())


def test_a_file_that_is_cut_while_it_is_read(loop: str, path: str) -> None:
    async def main() -> None:
        async with File.open(path, "rb") as file:
            assert await file.read(100_000) == CONTENT[:100_000]
            os.truncate(path, 120_000)
            rest = await file.read()
            assert CONTENT[100_000:].startswith(rest)
            assert len(rest) <= 300_000 - 100_000
            assert await file.read() == b""
            assert await file.read_at(10, 119_995) == CONTENT[119_995:120_000]

    run_on(loop, main())


def test_a_sparse_file_of_a_terabyte(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "sparse"

    async def main() -> None:
        async with File.open(path, "w+b") as file:
            await file.truncate(10**12)
            await file.write_at(b"end", 10**12 - 3)
            assert await file.read_at(10, 10**12 - 5) == b"\0\0end"
            for _ in range(2):
                with pytest.raises(OSError, match="bytes are left to read") as caught:
                    await file.read_all()
                assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
            await file.seek(-10, os.SEEK_END)
            assert await file.read() == bytes(7) + b"end"

    run_on(loop, main())


def test_locks(loop: str, path: str) -> None:
    async def main() -> None:
        order = []
        async with File.open(path, "r+b") as one, File.open(path, "r+b") as other:
            async with one.lock():
                with pytest.raises(TimeoutError, match=r"locked by somebody else for 0\.01"):
                    async with other.lock(timeout=0.01):
                        pass

                async def later() -> None:
                    async with other.lock():
                        order.append("other")

                waiting = asyncio.ensure_future(later())
                await asyncio.sleep(0)
                order.append("one")
            await waiting
            assert order == ["one", "other"]
            async with one.lock(shared=True), other.lock(shared=True, timeout=5):
                pass

    run_on(loop, main())
