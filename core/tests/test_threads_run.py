"""`flowcoro run --threads` as a process: signals, loops that block, what is left behind."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from test_cli_run import BRIEF, folder, run, write

__all__ = ["folder"]

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(sys.platform == "win32", reason="not available there"),
]

SOURCE = """
import threading

class Indexed(Says):
    count = 0
    def __init__(self):
        self.index = Indexed.count
        Indexed.count += 1

    async def __aenter__(self):
        say(f"up-{self.index}")
        return self

    async def __aexit__(self, *exc):
        say(f"down-{self.index}")

def create():
    app = App(Indexed())

    @app.task()
    async def waits() -> None:
        await say_when_running(app)

    return app
"""


@pytest.fixture(autouse=True)
def without_gil(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes believe that their interpreter is a free-threaded one."""
    (folder / "sitecustomize.py").write_text("import sys; sys._is_gil_enabled = lambda: False\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_signal_stops_all(folder: Path) -> None:
    write(folder, SOURCE)
    with run("shop:create", "--threads", "3") as process:
        for _ in range(3):
            process.hear("running")
        process.send()
        downs = {process.stdout.readline().split()[0] for _ in range(3)}
        assert downs == {"down-0", "down-1", "down-2"}
        assert process.end() == 0
    assert process.error.count("app: stopping (SIGTERM)") == 3
    assert "Traceback" not in process.error


def test_a_loop_that_blocks_is_ended_with_the_process(folder: Path) -> None:
    source = """
    def create_blocking():
        app = create()
        if Indexed.count == 2:
            @app.task()
            async def blocks() -> None:
                say("blocked")
                while True:
                    time.sleep(0.1)
        return app
    """
    write(folder, SOURCE + dedent(source))
    with run("shop:create_blocking", "--threads", "2", *BRIEF) as process:
        process.hear("blocked")
        process.send()
        assert process.popen.wait(15) == 1
        process.end()
    assert "the event loop is blocked" in process.error


def test_one_that_ends_ends_the_process_though_another_blocks(folder: Path) -> None:
    source = """
    import asyncio

    blocked = threading.Event()

    def create_blocking():
        app = create()
        first = Indexed.count == 1

        @app.task()
        async def ends_or_blocks() -> None:
            if first:
                await asyncio.to_thread(blocked.wait)
                app.request_stop("all is done")
            else:
                blocked.set()
                while True:
                    time.sleep(0.1)
        return app
    """
    write(folder, SOURCE + dedent(source))
    with run("shop:create_blocking", "--threads", "2", *BRIEF) as process:
        assert process.popen.wait(30) == 1
        process.end()
    assert "the event loop is blocked" in process.error
    assert "app: stopping (all is done)" in process.error


def test_what_ignores_cancellation_is_left_behind_when_all_have_stopped(folder: Path) -> None:
    source = """
    class Stuck(Component):
        async def __aexit__(self, *exc):
            await deaf()

    def create_stuck():
        app = create()
        if Indexed.count == 1:
            app.add(Stuck())
        return app
    """
    write(folder, SOURCE + dedent(source))
    with run("shop:create_stuck", "--threads", "2", *BRIEF) as process:
        process.hear("running")
        process.hear("running")
        process.send()
        downs = {process.stdout.readline().split()[0] for _ in range(2)}
        assert downs == {"down-0", "down-1"}
        assert process.end() == 0
    assert "left behind: component 'stuck'; ending the process" in process.error


def test_an_import_that_turns_the_gil_on(folder: Path) -> None:
    write(folder, SOURCE + "import sys\nsys._is_gil_enabled = lambda: True\n")
    with run("shop:create", "--threads", "2") as process:
        assert "server.threads = 2: " in process.refusal()


@pytest.mark.parametrize("given", [["--threads", "2"], ["--threads", "2", "--workers", "2"]])
def test_with_the_gil_it_is_refused_before_anything_runs(folder: Path, given: list[str]) -> None:
    (folder / "sitecustomize.py").unlink()
    write(folder, "raise SystemExit('imported')")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this interpreter is a free-threaded one")
    with run("shop:create", *given) as process:
        assert "; --workers 2 runs processes" in process.refusal()


def test_one_application_is_refused(folder: Path) -> None:
    write(folder, "app = App(Says())")
    with run("shop:app", "--set", "server.threads=2") as process:
        assert "is one App, which cannot run on 2 event loops at once" in process.refusal()
