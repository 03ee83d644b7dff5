"""Files: rotation, compression, what is moved, removed or full, and several processes."""

from __future__ import annotations

import gzip
import itertools
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcoro.log import AsyncHandler, FileSink, setup, shutdown
from log_tools import FAR, environment, logger_for

DAY = 86400.0


class Clock:
    """Moves by a microsecond each time that it is read, and by as much as it is told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(sink: FileSink, data: bytes) -> None:
    while data:
        data = data[sink.write(data) :]


def files(folder: Path) -> list[Path]:
    """Return a log's files, the oldest first."""
    return sorted(folder.iterdir(), key=lambda path: (path.name == "app.log", path.name))


def contents(folder: Path) -> bytes:
    return b"".join(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in files(folder)
    )


def test_the_folder_is_made_and_the_file_appended_to(tmp_path) -> None:
    path = tmp_path / "logs" / "deep" / "app.log"
    for line in (b"one\n", b"two\n"):
        sink = FileSink(path)
        write(sink, line)
        sink.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert sink.path == path
    assert str(path) in str(sink)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), max_size=12),
    st.integers(1, 40),
)
def test_rotation_by_size_keeps_every_line_whole(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    sink = FileSink(folder / "app.log", rotate_size=size, now=Clock())
    written = b""
    for batch in batches:
        data = b"".join(b"x" * length + b"\n" for length in batch)
        write(sink, data)
        written += data
    sink.close()
    assert contents(folder) == written
    for path in files(folder):
        data = path.read_bytes()
        assert data.endswith(b"\n") or not data
        assert len(data) <= size or data.count(b"\n") == 1


def test_rotation_by_time(tmp_path, clock) -> None:
    path = tmp_path / "app.log"
    sink = FileSink(path, rotate_every="day", now=clock)
    write(sink, b"one\n")
    clock.now += 60
    write(sink, b"two\n")
    clock.now = (clock.now // DAY + 1) * DAY
    write(sink, b"three\n")
    clock.now += 3 * DAY
    sink.close()
    first, second = files(tmp_path)
    assert first.name.startswith("app.log.20231115T000000.00000")
    assert first.read_bytes() == b"one\ntwo\n"
    assert second.read_bytes() == b"three\n"
    # What an earlier process left belongs to the day on which it was written.
    os.utime(path, (clock.now - 3 * DAY, clock.now - 3 * DAY))
    sink = FileSink(path, rotate_every="day", now=clock)
    write(sink, b"four\n")
    sink.close()
    assert [each.read_bytes() for each in files(tmp_path)][1:] == [b"three\n", b"four\n"]


def test_a_day_without_lines_makes_no_file(tmp_path, clock) -> None:
    sink = FileSink(tmp_path / "app.log", rotate_every=60, now=clock)
    clock.now += 1000
    write(sink, b"one\n")
    sink.close()
    assert len(files(tmp_path)) == 1


def test_as_many_are_kept_as_asked(tmp_path, clock) -> None:
    (tmp_path / "app.log.old").touch()  # not ours
    sink = FileSink(tmp_path / "app.log", rotate_size=4, keep=2, now=clock)
    for number in range(6):
        write(sink, b"%d..\n" % number)
    sink.close()
    assert [path.read_bytes() for path in files(tmp_path)] == [b"3..\n", b"4..\n", b"", b"5..\n"]


def test_none_are_kept(tmp_path, clock) -> None:
    sink = FileSink(tmp_path / "app.log", rotate_size=4, keep=0, compress="gzip", now=clock)
    for number in range(3):
        write(sink, b"%d..\n" % number)
    assert not sink.work()
    sink.close()
    assert [path.read_bytes() for path in files(tmp_path)] == [b"2..\n"]


def test_two_rotations_in_one_moment_have_two_names(tmp_path) -> None:
    sink = FileSink(tmp_path / "app.log", rotate_size=4, now=lambda: 0.25)
    for number in range(3):
        write(sink, b"%d..\n" % number)
    sink.close()
    assert [path.name for path in files(tmp_path)] == [
        "app.log.19700101T000000.250000Z", "app.log.19700101T000000.250000Z-001", "app.log",
    ]  # fmt: skip


def zstd(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd as module

        return module.decompress(data)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


@pytest.mark.parametrize(
    ("kind", "suffix", "read"), [("gzip", ".gz", gzip.decompress), ("zstd", ".zst", zstd)]
)
def test_compression_in_steps(tmp_path, clock, kind, suffix, read) -> None:
    if kind == "zstd" and sys.version_info < (3, 14):
        pytest.importorskip("zstandard")
    line = b"%0999d\n" % 7
    sink = FileSink(tmp_path / "app.log", rotate_size=1_000_000, compress=kind, now=clock)
    write(sink, line * 2500)
    seen = []
    while sink.work():
        seen.append([path.name for path in files(tmp_path)])
    sink.close()
    assert any(name.endswith(".tmp") for names in seen for name in names)
    first, second, current = files(tmp_path)
    for path in (first, second):
        assert path.suffix == suffix
        assert read(path.read_bytes()) == line * 1000
    assert current.read_bytes() == line * 500


def test_compression_that_was_broken_off_is_done_by_the_next_process(tmp_path, clock) -> None:
    def sink() -> FileSink:
        return FileSink(tmp_path / "app.log", rotate_size=4, compress="gzip", now=clock)

    first = sink()
    write(first, b"1..\n2..\n")
    assert first.work()
    first.close()
    assert [path.suffix for path in files(tmp_path)].count(".gz") == 0
    second = sink()
    while second.work():
        pass
    second.close()
    assert [path.suffix for path in files(tmp_path)] == [".gz", ".log"]
    assert contents(tmp_path) == b"1..\n2..\n"


def test_the_thread_compresses_and_goes_on_writing(tmp_path) -> None:
    sink = FileSink(tmp_path / "app.log", rotate_size=2000, compress="gzip")
    handler = AsyncHandler(sink, flush_interval=0.001)
    logger = logger_for(handler)
    for number in itertools.count():
        logger.info("%d", number)
        if any(path.suffix == ".gz" for path in files(tmp_path)):
            break
    handler.close()
    numbers = [int(line.split(b": ")[1]) for line in contents(tmp_path).splitlines()]
    assert numbers == list(range(number + 1))


def test_a_file_that_is_moved_or_removed_is_made_anew(tmp_path) -> None:
    path = tmp_path / "app.log"
    sink = FileSink(path)
    write(sink, b"one\n")
    path.rename(tmp_path / "moved")
    write(sink, b"two\n")
    path.unlink()
    write(sink, b"three\n")
    sink.reopen()
    write(sink, b"four\n")
    sink.close()
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert path.read_bytes() == b"three\nfour\n"


def test_a_file_that_cannot_be_rotated_goes_on(tmp_path, monkeypatch) -> None:
    sink = FileSink(tmp_path / "app.log", rotate_size=4)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "rename", refuse)
    write(sink, b"one\n")
    write(sink, b"two\n")
    monkeypatch.undo()
    write(sink, b"six\n")
    sink.close()
    assert [path.read_bytes() for path in files(tmp_path)] == [b"one\ntwo\n", b"six\n"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotate_size": 0},
        {"rotate_every": "moon"},
        {"rotate_every": 0},
        {"keep": -1},
        {"compress": "rar"},
    ],
)
def test_arguments_that_make_no_sense(tmp_path, wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FileSink(tmp_path / "app.log", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_opened(tmp_path) -> None:
    with pytest.raises(IsADirectoryError):
        FileSink(tmp_path)


def test_short_writes(tmp_path, monkeypatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:7]))
    handler = AsyncHandler(FileSink(tmp_path / "app.log"), flush_interval=FAR)
    logger = logger_for(handler)
    for number in range(20):
        logger.info("number %d", number)
    handler.close()
    monkeypatch.undo()
    lines = (tmp_path / "app.log").read_text().splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"number {n}" for n in range(20)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"*** NOT TESTED: a full disk: {mounted.stderr.strip()} ***")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_survived_and_told_once(small_disk, capfd) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    path = small_disk / "app.log"
    handler = AsyncHandler(FileSink(path), flush_interval=FAR, capacity=100, overflow="block")
    logger = logger_for(handler)
    text = "x" * 200
    for number in range(2000):
        logger.info("%d %s", number, text)
        if number % 100 == 0:
            handler.flush()
    handler.flush()
    stats = handler.stats()
    assert stats.failing
    assert stats.queued == 100
    assert capfd.readouterr().err.count("No space left") == 1
    ballast.unlink()
    handler.flush()
    logger.info("goes on")
    handler.close()
    assert not handler.stats().failing
    lines = path.read_text().splitlines()
    assert lines[-1].endswith("goes on")
    numbers = [int(line.split(": ")[1].split()[0]) for line in lines if text in line]
    assert numbers == sorted(set(numbers))
    dropped = [int(line.split()[3]) for line in lines if line.endswith("dropped")]
    assert len(numbers) + sum(dropped) == 2000
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_sighup_opens_the_file_anew(tmp_path) -> None:
    path = tmp_path / "app.log"
    before = signal.getsignal(signal.SIGHUP)
    level = logging.getLogger().level
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        handler = setup(path, level="INFO")
        logger = logging.getLogger("tests.log.hup")
        logger.info("one")
        handler.flush()
        inode = path.stat().st_ino
        opened = handler.writer._sink._fd  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGHUP)
        logger.info("two")
        handler.flush()
        assert path.stat().st_ino == inode
        assert handler.writer._sink._fd != opened  # type: ignore[attr-defined]
    finally:
        shutdown()
        signal.signal(signal.SIGHUP, before)
        logging.getLogger().setLevel(level)
    assert path.read_text().count("\n") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there are no advisory locks")
def test_who_writes_looks_again_once_it_has_the_lock(tmp_path, monkeypatch) -> None:
    import fcntl

    path = tmp_path / "app.log"
    sink = FileSink(path, rotate_size=100)
    write(sink, b"one\n")

    def another_was_faster(_fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_SH and not (tmp_path / "moved").exists():
            path.rename(tmp_path / "moved")

    monkeypatch.setattr(fcntl, "flock", another_was_faster)
    write(sink, b"two\n")
    sink.close()
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no advisory locks")
def test_one_process_compresses_a_file(tmp_path, clock) -> None:
    first = FileSink(tmp_path / "app.log", rotate_size=4, compress="gzip", now=clock)
    write(first, b"one\ntwo\n")
    assert first.work()  # claims the file
    second = FileSink(tmp_path / "app.log", rotate_size=4, compress="gzip", now=clock)
    while second.work():
        pass
    second.close()
    assert not list(tmp_path.glob("*.gz"))
    while first.work():
        pass
    first.close()
    assert contents(tmp_path) == b"one\ntwo\n"
    assert len(list(tmp_path.glob("*.gz"))) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no advisory locks")
def test_who_rotates_looks_again_once_it_has_the_lock(tmp_path, monkeypatch) -> None:
    import fcntl

    path = tmp_path / "app.log"
    sink = FileSink(path, rotate_size=4)
    write(sink, b"one\n")

    def another_was_faster(fd: int, operation: int) -> None:
        if operation != fcntl.LOCK_EX:
            return
        assert os.fstat(fd).st_ino == path.stat().st_ino
        path.rename(tmp_path / "app.log.by-another")
        path.touch()

    monkeypatch.setattr(fcntl, "flock", another_was_faster)
    write(sink, b"two\n")
    sink.close()
    assert (tmp_path / "app.log.by-another").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\n"
    assert len(files(tmp_path)) == 2


def test_a_compression_that_fails_leaves_the_file(tmp_path, clock, monkeypatch) -> None:
    sink = FileSink(tmp_path / "app.log", rotate_size=4, compress="gzip", now=clock)
    write(sink, b"one\ntwo\n")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    while sink.work():
        pass
    sink.close()
    assert [path.read_bytes() for path in files(tmp_path)] == [b"one\n", b"two\n"]


MANY = """
import sys, logging
from flowcoro.log import AsyncHandler, FileSink, Logger
name, path, records = sys.argv[1:]
handler = AsyncHandler(
    FileSink(path, rotate_size=5000, compress="gzip"), overflow="block", flush_interval=0.001
)
logger = Logger(name)
logger.addHandler(handler)
for number in range(int(records)):
    logger.warning("%d", number)
handler.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no advisory locks")
def test_processes_rotate_one_file_together(tmp_path) -> None:
    records, names = 2000, ["a", "b", "c"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, name, tmp_path / "app.log", str(records)],
            env=environment(covered=False),
        )
        for name in names
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    sink = FileSink(tmp_path / "app.log", rotate_size=5000, compress="gzip")
    while sink.work():
        pass
    sink.close()
    seen: dict[str, list[int]] = {name: [] for name in names}
    for line in contents(tmp_path).decode().splitlines():
        name, number = line.split("WARNING ")[1].split(": ")
        seen[name].append(int(number))
    for name in names:
        assert sorted(seen[name]) == list(range(records))
    assert len(files(tmp_path)) > 10
