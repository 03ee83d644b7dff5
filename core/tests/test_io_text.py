from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcoro.io import File
from io_cases import LOOPS, run_on

TEXT = "Zwölf Boxkämpfer\njagen\r\nVictor quer\rüber €\U0001f40c\n\nende"


@pytest.mark.parametrize("loop", LOOPS)
def test_text_goes_out_and_comes_back(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "text"

    async def main() -> None:
        async with File.open(path, "w", newline="") as file:
            assert await file.write(TEXT) == len(TEXT)
            assert file.encoding == "utf-8"
        assert path.read_bytes() == TEXT.encode()
        async with File.open(path) as file:
            assert await file.read(3) == TEXT[:3]
            assert await file.readline() == "lf Boxkämpfer\n"
            assert [line async for line in file] == io.StringIO(TEXT, newline=None).readlines()[1:]
            assert await file.read() == await file.readline() == ""
            await file.seek(0)
            assert await file.readline(4) == "Zwöl"
        async with File.open(path, "a") as file:
            await file.write("€")
            await file.append("!")
        async with File.open(path, "r+") as file:
            await file.seek(0, os.SEEK_END)
            await file.write("?")
            await file.seek(0)
            assert (await file.read()).endswith("ende€!?")
        async with File.open(path, "rb") as raw:
            assert (await raw.read()).endswith("ende€!?".encode())

    run_on(loop, main())


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "utf-8-sig"])
def test_it_is_as_the_built_in_open(newline: str | None, encoding: str, tmp_path: Path) -> None:
    text = "one\ntwo\r\nthree\rfour\r\r\n\n\rü"
    ours, builtin = tmp_path / "ours", tmp_path / "builtin"

    async def main() -> None:
        async with File.open(ours, "w", encoding=encoding, newline=newline) as file:
            await file.write(text[:7])
            await file.write(text[7:])
        async with File.open(builtin, encoding=encoding, newline=newline) as file:
            lines = [line async for line in file]
        with open(builtin, encoding=encoding, newline=newline) as file_:  # noqa: ASYNC230
            assert lines == file_.readlines()
        async with File.open(builtin, encoding=encoding, newline=newline) as file:
            whole = await file.read()
        with open(builtin, encoding=encoding, newline=newline) as file_:  # noqa: ASYNC230
            assert whole == file_.read()

    with open(builtin, "w", encoding=encoding, newline=newline) as file_:
        file_.write(text)
    run_on("asyncio", main())
    assert ours.read_bytes() == builtin.read_bytes()


@given(
    st.text(alphabet="ab\r\né€\U0001f40c", max_size=300),
    st.sampled_from([None, "", "\n", "\r", "\r\n"]),
    st.lists(st.one_of(st.integers(0, 40), st.just(-2)), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_any_reads_are_as_the_built_in_opens(
    text: str, newline: str | None, reads: list[int]
) -> None:
    import tempfile

    async def main() -> None:
        async with File.open(name, newline=newline) as file:
            file._chunk = 7  # as if the file were many times as long
            with open(name, newline=newline, encoding="utf-8") as expected:  # noqa: ASYNC230
                for size in reads:
                    if size == -2:
                        assert await file.readline() == expected.readline()
                    else:
                        assert await file.read(size) == expected.read(size)
                assert await file.read() == expected.read()

    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, "text")
        Path(name).write_bytes(text.encode())
        run_on("asyncio", main())


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(b"good \xff bad")

    async def main() -> None:
        async with File.open(path) as file:
            with pytest.raises(UnicodeDecodeError):
                await file.read()
        async with File.open(path, errors="replace") as file:
            assert await file.read() == "good \ufffd bad"
        async with File.open(path, errors="surrogateescape") as file:
            assert await file.read() == "good \udcff bad"
        async with File.open(path, "w", encoding="ascii") as file:
            with pytest.raises(UnicodeEncodeError):
                await file.write("ü")
            with pytest.raises(TypeError, match="takes str, not bytes"):
                await file.write(b"x")  # type: ignore[arg-type]
        with pytest.raises(LookupError):
            File.open(path, encoding="klingon")
        with pytest.raises(LookupError):
            File.open(path, errors="klingon")
        with pytest.raises(ValueError, match="newline must be one of"):
            File.open(path, newline="x")

    run_on("asyncio", main())


def test_reading_and_writing_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("abcdef")

    async def main() -> None:
        async with File.open(path, "r+") as file:
            assert await file.read(2) == "ab"
            with pytest.raises(io.UnsupportedOperation, match="seek between"):
                await file.write("x")
            for offset, whence in ((1, os.SEEK_SET), (-1, os.SEEK_END)):
                with pytest.raises(io.UnsupportedOperation, match="no offsets"):
                    await file.seek(offset, whence)
            with pytest.raises(ValueError, match="whence"):
                await file.seek(0, os.SEEK_CUR)
            await file.seek(0)
            await file.write("AB")
            await file.seek(0)
            assert await file.read() == "ABcdef"
            with pytest.raises(OSError, match="more than 3") as caught:
                await file.read_all(max_size=3)
            assert caught.value.errno == errno.EFBIG

    run_on("asyncio", main())
