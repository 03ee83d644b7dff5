from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path

import pytest

from flowcoro.io import Directory, Entry, FileInfo, write_atomic
from io_cases import LOOPS, nothing_left_open, run_on

pytestmark = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.bin", "deep/c.txt", "deep/er/d.txt", ".hidden/e.txt"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    os.symlink("deep", tmp_path / "tree" / "link")
    os.symlink("nowhere", tmp_path / "tree" / "broken")
    return tmp_path / "tree"


def test_listing(loop: str, tree: Path) -> None:
    async def main() -> None:
        directory = Directory(tree)
        entries = {each.name: each for each in await directory.list_files()}
        assert set(entries) == set(os.listdir(tree))
        assert entries["deep"] == Entry("deep", str(tree / "deep"), True, False)
        assert entries["link"] == Entry("link", str(tree / "link"), False, True)
        assert entries["a.txt"].is_file
        assert not entries["link"].is_file
        files = await directory.list_files(directories=False)
        assert {each.name for each in files} == {"a.txt", "b.bin", "link", "broken"}
        for path, kind in (
            (tree / "none", FileNotFoundError),
            (tree / "a.txt", NotADirectoryError),
        ):
            with pytest.raises(kind) as caught:
                await Directory(path).list_files()
            assert caught.value.filename == str(path)

    with nothing_left_open():
        run_on(loop, main())


def test_walking(loop: str, tree: Path) -> None:
    async def main() -> None:
        found = {
            path: sorted(each.name for each in entries)
            async for path, entries in Directory(tree).walk()
        }
        expected = {at: sorted([*folders, *files]) for at, folders, files in os.walk(tree)}
        assert found == expected
        # What is taken out is not gone into; a link to what was seen neither.
        os.symlink(tree, tree / "deep" / "loop")
        seen = []
        async for path, entries in Directory(tree).walk(follow_links=True):
            seen.append(os.path.relpath(path, tree))
            entries[:] = [each for each in entries if each.name != "er"]
        assert (
            sorted(os.path.realpath(tree / each) for each in seen)
            == sorted(str(tree / each) for each in (".", "deep", ".hidden"))
            or len(seen) == 3
        )

    run_on(loop, main())


def test_globbing(loop: str, tree: Path) -> None:
    async def main() -> None:
        directory = Directory(tree)

        async def found(pattern: str, *, hidden: bool = False) -> set[str]:
            return {
                os.path.relpath(each, tree) async for each in directory.glob(pattern, hidden=hidden)
            }

        assert await found("*.txt") == {"a.txt"}
        assert await found("deep/**/*.txt") == {"deep/c.txt", "deep/er/d.txt"}
        assert await found("[ab].*") == {"a.txt", "b.bin"}
        assert ".hidden/e.txt" in await found("**/*.txt", hidden=True)
        assert await found("none*") == set()
        for pattern in ("", "/etc/*"):
            with pytest.raises(ValueError, match="relative to the directory"):
                await found(pattern)

    run_on(loop, main())


def test_looking_at_one(loop: str, tree: Path) -> None:
    async def main() -> None:
        directory = Directory(tree)
        info = await directory.stat("a.txt")
        assert info == FileInfo.of(os.stat(tree / "a.txt"))
        assert info.is_file
        assert info.permissions == stat.S_IMODE(os.stat(tree / "a.txt").st_mode)
        assert abs(info.modified.timestamp() - os.stat(tree / "a.txt").st_mtime) < 1e-3
        assert (await directory.stat()).is_directory
        assert (await directory.stat("link", follow_links=False)).is_link
        assert await directory.exists()
        assert await directory.exists("link")
        assert not await directory.exists("broken")
        assert not await directory.exists("a.txt/b")
        with pytest.raises(FileNotFoundError) as caught:
            await directory.stat("none")
        assert caught.value.filename == str(tree / "none")

    run_on(loop, main())


def test_making_and_removing(loop: str, tree: Path) -> None:
    async def main() -> None:
        directory = Directory(tree)
        made = await directory.create_directory("x/y/z", parents=True)
        assert os.path.isdir(made.path)
        with pytest.raises(FileExistsError):
            await directory.create_directory("x")
        await directory.create_directory("x", exist_ok=True)
        with pytest.raises(FileExistsError):
            await directory.create_directory("a.txt", exist_ok=True)
        with pytest.raises(FileNotFoundError):
            await directory.create_directory("p/q")
        with pytest.raises(OSError, match="not empty") as caught:
            await directory.remove("x")
        assert (caught.value.errno, caught.value.filename) == (errno.ENOTEMPTY, str(tree / "x"))
        await directory.remove("x", recursive=True)
        await directory.remove("link", recursive=True)  # the link only
        assert (tree / "deep" / "c.txt").exists()
        await directory.remove("broken")
        with pytest.raises(FileNotFoundError):
            await directory.remove("broken")

    run_on(loop, main())


def test_renaming(loop: str, tree: Path) -> None:
    async def main() -> None:
        directory = Directory(tree)
        await directory.rename("a.txt", "deep/a.txt")
        assert (tree / "deep" / "a.txt").read_text() == "a.txt"
        with pytest.raises(FileExistsError) as caught:
            await directory.rename("b.bin", "deep/a.txt")
        assert caught.value.filename2 == str(tree / "deep/a.txt")
        await directory.rename("b.bin", "deep/a.txt", replace=True)
        assert (tree / "deep" / "a.txt").read_text() == "b.bin"
        with pytest.raises(FileNotFoundError):
            await directory.rename("none", "other")

    run_on(loop, main())


def test_copying(loop: str, tree: Path) -> None:
    content = os.urandom(20_000_000)
    (tree / "large").write_bytes(content)
    os.chmod(tree / "large", 0o640)
    told: list[tuple[int, int]] = []

    async def main() -> None:
        directory = Directory(tree)
        size = await directory.copy("large", "copy", progress=lambda *at: told.append(at))
        assert size == len(content)
        assert (tree / "copy").read_bytes() == content
        assert stat.S_IMODE(os.stat(tree / "copy").st_mode) == 0o640
        assert os.stat(tree / "copy").st_mtime_ns == os.stat(tree / "large").st_mtime_ns
        assert told[0] == (0, size)
        assert told[-1] == (size, size)
        assert told == sorted(told)
        assert len(told) > 2
        assert await directory.copy("/proc/self/stat", "stat") > 0  # which has no size
        for source, target, kind in (
            ("deep", "x", IsADirectoryError), ("none", "x", FileNotFoundError),
            ("copy", "copy", OSError), ("/dev/zero", "x", OSError), ("copy", "p/q", OSError),
        ):  # fmt: skip
            with pytest.raises(kind):
                await directory.copy(source, target)
            assert not (tree / "x").exists()
        assert (tree / "copy").read_bytes() == content

    with nothing_left_open():
        run_on(loop, main())


def test_copying_a_tree(loop: str, tree: Path) -> None:
    async def main() -> None:
        told: list[tuple[int, int]] = []
        await Directory(tree.parent).copy(
            "tree", "other", recursive=True, progress=lambda *at: told.append(at)
        )
        other = tree.parent / "other"
        names = sorted(str(each.relative_to(tree)) for each in tree.rglob("*"))
        assert sorted(str(each.relative_to(other)) for each in other.rglob("*")) == names
        assert os.readlink(other / "broken") == "nowhere"
        assert (other / "deep" / "er" / "d.txt").read_text() == "deep/er/d.txt"
        assert told[-1][0] == told[-1][1]

    run_on(loop, main())


def test_what_a_copy_does_not_replace(loop: str, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    os.symlink("/dev/full", tree / "full")

    async def main() -> None:
        directory = Directory(tree)
        for target in ("fifo", "full"):  # nor is either opened, or removed as not whole
            with pytest.raises(OSError, match="only regular files can be replaced") as caught:
                await directory.copy("a.txt", target)
            assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(tree / target))
            assert os.path.lexists(tree / target)
        for target in (".", "deep/copy", "link/copy"):
            with pytest.raises(OSError, match="cannot be copied into itself"):
                await directory.copy(".", target, recursive=True)
        assert not (tree / "deep" / "copy").exists()

    with nothing_left_open():
        run_on(loop, main())


def test_watching(loop: str, tree: Path) -> None:
    async def main() -> None:
        seen: set[tuple[str, str]] = set()
        async with asyncio.timeout(30):
            number = 0

            async def change() -> None:
                nonlocal number
                while True:  # the watch may begin late
                    number += 1
                    (tree / f"new{number}").write_text("x")
                    await asyncio.sleep(0.05)

            changing = asyncio.ensure_future(change())
            changes = Directory(tree).watch(settle=0.01)
            async for batch in changes:
                seen |= {(each.kind, os.path.basename(each.path)) for each in batch}
                if any(kind == "added" and name.startswith("new") for kind, name in seen):
                    break
            changing.cancel()
            await changes.aclose()  # type: ignore[attr-defined]

    run_on(loop, main())


def test_writing_atomically(loop: str, tree: Path) -> None:
    path = tree / "a.txt"
    os.chmod(path, 0o640)

    async def main() -> None:
        await write_atomic(path, "neu €")
        assert path.read_text() == "neu €"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        await write_atomic(path, memoryview(b"bytes"), permissions=0o600)
        assert path.read_bytes() == b"bytes"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await write_atomic(tree / "made", b"")
        assert (tree / "made").read_bytes() == b""
        # A link stays one.
        os.symlink("a.txt", tree / "alias")
        await write_atomic(tree / "alias", b"through")
        assert os.readlink(tree / "alias") == "a.txt"
        assert path.read_bytes() == b"through"
        for target, kind in ((tree / "none" / "x", FileNotFoundError), (tree / "deep", OSError)):
            with pytest.raises(kind) as caught:
                await write_atomic(target, b"x")
            assert caught.value.filename is not None
        assert not [name for name in os.listdir(tree) if name.endswith(".tmp")]

    with nothing_left_open():
        run_on(loop, main())
