"""`flowcoro copy`: quiet when nobody looks, a bar on a terminal, and what is refused."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowcoro.cli import _copy
from flowcoro.cli._root import root
from flowcoro.io import Progress

CONTENT = os.urandom(20_000_000)  # of several pieces


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(CONTENT)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "leaf").write_text("leaf")
    return tmp_path


def copy(*arguments: str) -> Result:
    result = CliRunner().invoke(root, ("copy", *arguments), prog_name="flowcoro")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: str) -> str:
    """Return the one line with which the command refuses."""
    result = copy(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("flowcoro: error: ")


def test_a_file(folder: Path) -> None:
    os.chmod(folder / "file", 0o640)
    result = copy("file", "copy")
    assert (result.exit_code, result.output) == (0, "")
    assert (folder / "copy").read_bytes() == CONTENT
    assert stat.S_IMODE(os.stat("copy").st_mode) == 0o640
    assert copy(str(folder / "tree/deep/leaf"), "copy").exit_code == 0  # which replaces it
    assert (folder / "copy").read_text() == "leaf"


def test_into_a_directory(folder: Path) -> None:
    assert copy("file", "tree").exit_code == 0
    assert (folder / "tree" / "file").read_bytes() == CONTENT


def test_a_directory(folder: Path) -> None:
    for into in ("copy", "copy"):  # it becomes that one; then that one is there, and gets it
        result = copy("tree/", into, "--recursive")
        assert (result.exit_code, result.output) == (0, "")
    assert (folder / "copy" / "deep" / "leaf").read_text() == "leaf"
    assert (folder / "copy" / "tree" / "deep" / "leaf").read_text() == "leaf"
    assert copy("file", "other", "-r").exit_code == 0
    assert (folder / "other").read_bytes() == CONTENT


def test_what_cannot_be_copied(folder: Path) -> None:
    for source, target, reason in (
        ("none", "copy", "No such file or directory"),
        ("file", "none/copy", "No such file or directory"),
        ("file", "file/copy", "Not a directory"),
        ("file", "file", "a file cannot be copied to itself"),
        ("file", "", "No such file or directory"),
        ("", "copy", "No such file or directory"),
        ("/dev/zero", "copy", "only regular files can be copied"),
        ("file", "/dev/full", "only regular files can be replaced"),
    ):
        assert refused(source, target) == f"cannot copy {source!r} to {target!r}: {reason}"
        assert not (folder / "copy").exists()
    assert (folder / "file").read_bytes() == CONTENT


def test_a_directory_that_nobody_asked_for(folder: Path) -> None:
    assert refused("tree", "copy") == "'tree' is a directory; expected a file, or --recursive"
    reason = "cannot copy 'tree' to 'tree/tree': a directory cannot be copied into itself"
    assert refused("tree", "tree", "-r") == reason
    (folder / "tree" / "file").mkdir()
    assert refused("file", "tree") == "cannot copy 'file' to 'tree/file': Is a directory"


def test_what_cannot_be_copied_within_a_directory_is_named(folder: Path) -> None:
    os.mkfifo(folder / "tree" / "deep" / "fifo")
    expected = "cannot copy 'tree' to 'copy': 'tree/deep/fifo': only regular files can be copied"
    assert refused("tree", "copy", "-r") == expected


def test_wrong_usage() -> None:
    assert copy("file").exit_code == 2
    assert copy("file", "copy", "--quickly").exit_code == 2


def test_ctrl_c_leaves_no_half_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    @contextmanager
    def interrupting(_name: str) -> Iterator[Progress]:
        def progress(copied: int, total: int) -> None:
            told.append((copied, total))
            if len(told) == 2:
                assert (folder / "copy").stat().st_size == copied > 0
                signal.raise_signal(signal.SIGINT)

        yield progress

    monkeypatch.setattr(_copy, "_shown", interrupting)
    result = copy("file", "copy")
    assert result.exit_code == 1
    assert "Aborted" in result.stderr
    assert not (folder / "copy").exists()
    assert len(told) < 4  # so it ended early


COMMAND = [sys.executable, "-m", "flowcoro", "copy"]
# Which makes rich take anything for a terminal; the command looks itself.
COLORED = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "FORCE_COLOR": "1"}


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Return the command's status, and what its terminal shows."""
    import pty

    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=theirs, stderr=theirs, env=COLORED
        )
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: nobody has the terminal open any more
            while data := screen.read(4096):
                shown += data
        return process.wait(60), shown.decode()


def test_a_bar_on_a_terminal() -> None:
    status, shown = on_a_terminal("file", "copy")
    assert status == 0
    for part in ("copy", "100%", "MiB"):
        assert part in shown
    status, shown = on_a_terminal("none", "other")
    assert status == 1
    assert "cannot copy 'none' to 'other'" in shown


def test_no_bar_in_a_pipe(folder: Path) -> None:
    ran = subprocess.run(
        [*COMMAND, "file", "copy"], capture_output=True, env=COLORED, check=False, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert (folder / "copy").read_bytes() == CONTENT
