"""`flowcoro run` as a process: signals, exit statuses, what it says, workers, reload."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import IO

import pytest

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and workers need POSIX"),
]

# Says what happens on standard output, one word and the process id a line.
PREAMBLE = """
import asyncio, os, time
import anyio
from flowcoro import App, Component
from flowcoro.app import _lifecycle, _main

_lifecycle.CLOSE_GRACE = _main.CLOSE_GRACE = 0.1

def say(*words):
    os.write(1, (" ".join(map(str, (*words, os.getpid()))) + "\\n").encode())

class Says(Component):
    async def __aenter__(self):
        say("up")
        return self
    async def __aexit__(self, *exc):
        say("down")

async def say_when_running(app):
    # Running, and past the last step of the start, during which a signal unwinds it.
    while app.state != "running":
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    say("running")
    await anyio.sleep_forever()

async def deaf():
    while True:
        try:
            await anyio.sleep(600)
        except asyncio.CancelledError:
            pass

"""


class Process:
    """A run of the command line that is under way."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        assert popen.stdout is not None
        self.stdout: IO[str] = popen.stdout
        self.error = ""

    def hear(self, word: str) -> int:
        """Wait until a process says `word`; return its id."""
        for line in self.stdout:
            said, *_, pid = line.split()
            if said == word:
                return int(pid)
        raise AssertionError(f"never said {word!r}: {self.end()}\n{self.error}")

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def end(self) -> int:
        """Wait for the end; return the exit status, and keep what it said."""
        _, self.error = self.popen.communicate(timeout=60)
        return self.popen.returncode

    def refusal(self) -> str:
        """Return the one line with which it refused to run."""
        assert self.end() == 1, self.error
        assert "Traceback" not in self.error
        errors = [line for line in self.error.splitlines() if line.startswith("flowcoro: error:")]
        assert len(errors) == 1, self.error
        return errors[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, source: str, name: str = "shop.py") -> None:
    (folder / name).write_text(PREAMBLE + dedent(source), encoding="utf-8")


@contextmanager
def started(*command: str) -> Iterator[Process]:
    popen = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with popen:
        try:
            yield Process(popen)
        finally:
            popen.kill()


def run(*arguments: str) -> contextmanager[Process]:  # type: ignore[valid-type]
    return started("-m", "flowcoro", "run", *arguments)


def test_python_dash_m() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "flowcoro", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"flowcoro {version('flowcoro')}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(folder: Path, number: signal.Signals) -> None:
    write(folder, "app = App(Says())")
    with run("shop:app") as process:
        process.hear("up")
        process.send(number)
        process.hear("down")
        assert process.end() == 0
    assert f"app: stopping ({number.name})" in process.error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_another_thread_takes_wakes_the_loop(
    folder: Path, number: signal.Signals
) -> None:
    source = """
    import signal, threading

    app = App(Says())

    @app.task()
    async def hands_signals_over() -> None:
        # The kernel then gives them to the thread, and the loop sleeps without a timer,
        # as it also does when a signal arrives just before it goes to sleep.
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        await say_when_running(app)
    """
    write(folder, source)
    with run("shop:app") as process:
        process.hear("running")
        process.send(number)
        process.hear("down")
        assert process.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_script_of_its_own(folder: Path, number: signal.Signals) -> None:
    write(folder, "App(Says()).run()")
    with started("shop.py") as process:
        process.hear("up")
        process.send(number)
        assert process.end() == 0


def test_a_script_that_cannot_start(folder: Path) -> None:
    source = """
    class Bad(Component):
        async def __aenter__(self):
            raise OSError("port 80 refused")

    App(Says(), Bad()).run()
    """
    write(folder, source)
    with started("shop.py") as process:
        assert process.refusal() == (
            "flowcoro: error: component 'bad' could not start: OSError: port 80 refused"
        )


def test_a_start_that_fails(folder: Path) -> None:
    source = """
    class Bad(Component):
        async def __aenter__(self):
            raise OSError("port 80 refused")

    app = App(Says(), Bad())
    """
    write(folder, source)
    with run("shop:app") as process:
        process.hear("down")
        assert "component 'bad' could not start: OSError: port 80 refused" in process.refusal()


def test_sigterm_during_the_start(folder: Path) -> None:
    source = """
    class Slow(Component):
        async def __aenter__(self):
            say("slow")
            await anyio.sleep_forever()

    app = App(Says(), Slow())
    """
    write(folder, source)
    with run("shop:app") as process:
        process.hear("slow")
        process.send()
        process.hear("down")
        assert process.end() == 0


def test_a_component_that_fails_while_it_runs(folder: Path) -> None:
    source = """
    from flowcoro.app import Restart

    app = App(Says())

    @app.task(restart=Restart.NEVER)
    async def vital() -> None:
        raise OSError("disk gone")
    """
    write(folder, source)
    with run("shop:app") as process:
        process.hear("down")
        assert process.end() == 1
    assert "flowcoro: error: component 'vital' failed: OSError: disk gone" in process.error


@pytest.mark.parametrize("seconds", ["inf", "1e300", "0"])
def test_a_drain_timeout_at_the_edge(folder: Path, seconds: str) -> None:
    source = """
    app = App(Says())

    @app.task()
    async def waits() -> None:
        await say_when_running(app)
    """
    write(folder, source)
    with run("shop:app", "--set", f"server.drain_timeout={seconds}") as process:
        process.hear("running")
        process.send()
        process.hear("down")
        assert process.end() == 0
    assert "Traceback" not in process.error


STUCK = """
class Stuck(Component):
    async def METHOD(self, *exc):
        say("stuck")
        await deaf()

app = App(Says(), Stuck())

@app.task()
async def waits() -> None:
    await say_when_running(app)
"""
BRIEF = ("--set", "server.drain_timeout=0.1")


@pytest.mark.parametrize("method", ["drain", "__aexit__"])
def test_one_that_ignores_cancellation_does_not_keep_the_process(folder: Path, method: str) -> None:
    write(folder, STUCK.replace("METHOD", method))
    with run("shop:app", *BRIEF) as process:
        process.hear("running")
        process.send()
        process.hear("stuck")
        process.hear("down")
        assert process.end() == 0
    assert "left behind: component 'stuck'; ending the process" in process.error


def test_one_that_ignores_cancellation_while_it_starts(folder: Path) -> None:
    write(folder, STUCK.replace("METHOD", "__aenter__"))
    with run("shop:app", *BRIEF) as process:
        process.hear("stuck")
        process.send()
        process.hear("down")
        assert process.popen.wait(15) == 0
        process.end()
    assert "component 'stuck' ignores cancellation" in process.error


def test_a_failed_start_is_told_though_something_is_left_behind(folder: Path) -> None:
    source = """
    class Bad(Component):
        async def __aenter__(self):
            raise OSError("port 80 refused")
    """
    text = STUCK.replace("METHOD", "__aexit__").replace("Stuck())", "Stuck(), Bad())")
    write(folder, dedent(source) + text)
    with run("shop:app", *BRIEF) as process:
        assert "component 'bad' could not start: OSError: port 80 refused" in process.refusal()
    assert "left behind: component 'stuck'" in process.error


@pytest.mark.parametrize("moment", ["starting", "running"])
def test_a_loop_that_blocks_while_it_stops_is_ended(folder: Path, moment: str) -> None:
    source = """
    class Blocks(Component):
        async def __aexit__(self, *exc):
            say("blocked")
            while True:
                time.sleep(0.1)

    class Slow(Component):
        async def __aenter__(self):
            if MOMENT == "starting":
                say("starting")
                await anyio.sleep_forever()
            return self

    app = App(Blocks(), Slow())

    @app.task()
    async def waits() -> None:
        await say_when_running(app)
    """
    write(folder, source.replace("MOMENT", repr(moment)))
    with run("shop:app", *BRIEF) as process:
        process.hear(moment)
        process.send()
        process.hear("blocked")
        assert process.popen.wait(15) == 1
        process.end()
    assert "the event loop is blocked" in process.error
    assert "shop.py" in process.error  # where it hangs


def test_a_loop_that_is_blocked_already_is_ended(folder: Path) -> None:
    source = """
    app = App(Says())

    @app.task()
    async def blocks() -> None:
        say("blocked")
        while True:
            time.sleep(0.1)
    """
    write(folder, source)
    with run("shop:app", *BRIEF) as process:
        process.hear("blocked")
        process.send()
        assert process.popen.wait(15) == 1
        process.end()
    assert "the event loop is blocked" in process.error


def test_a_watchdog_ends_with_its_run(folder: Path) -> None:
    source = """
    class Fails(Component):
        first = True
        async def __aenter__(self):
            if self.first:
                self.first = False
                raise OSError("port 80 refused")
            return self

    app = App(Fails())

    @app.task()
    async def stops() -> None:
        app.request_stop("done")

    try:
        app.run()
    except SystemExit:
        app.run()
    import threading
    for thread in threading.enumerate():
        if "watchdog" in thread.name:
            thread.join(30)
            assert not thread.is_alive()
    say("over")
    """
    write(folder, source)
    (folder / "flowcoro.toml").write_text("[server]\ndrain_timeout = 0.1\n", encoding="utf-8")
    with started("shop.py") as process:
        process.hear("over")
        assert process.end() == 0


@pytest.mark.parametrize("target", ["gone:app", "shop:apq", "shop:number", "broken", ":"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bad_target(folder: Path, target: str, workers: str) -> None:
    write(folder, "app = App()\nnumber = 5\n")
    write(folder, "import gone_library", "broken.py")
    with run(target, "--workers", workers) as process:
        assert process.end() == 1
    assert f"flowcoro: error: target {target!r}: " in process.error
    assert "Traceback" not in process.error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "server.port=high"], "option server.port: server.port = 'high': expected `int`"),
        (["--set", "server.prot=1"], "unknown key; did you mean 'port'?"),
        (["--set", "nonsense"], "option 'nonsense': expected section.key=value"),
        (["--set", "log.level=LOUD"], "log.level = 'LOUD': expected"),
        (["--config", "gone.toml"], "gone.toml: no such file; expected a flowcoro.toml"),
        (["--config", "bad.toml"], "bad.toml: not valid TOML: "),
        (["--config", "wrong.toml"], "wrong.toml: server.port = 70000: expected `int` <= 65535"),
        (["--loop", "uring"], "no plugin provides loop 'uring'"),
        (["--set", "server.host=256.0.0.1", "--port", "0", "--workers", "2"], "256.0.0.1"),
    ],
)
def test_a_wrong_setting(folder: Path, arguments: list[str], expected: str) -> None:
    write(folder, "app = App(Says())")
    (folder / "bad.toml").write_text("[server", encoding="utf-8")
    (folder / "wrong.toml").write_text("[server]\nport = 70000\n", encoding="utf-8")
    with run("shop:app", *arguments) as process:
        assert expected in process.refusal()


def test_a_wrong_level_tells_its_origin(folder: Path) -> None:
    write(folder, "app = App(Says())")
    (folder / "flowcoro.toml").write_text("[log]\nlevel = 'LOUD'\n", encoding="utf-8")
    with run("shop:app") as process:
        assert "flowcoro.toml: log.level = 'LOUD': expected" in process.refusal()


def test_an_option_out_of_its_range() -> None:
    with run("shop:app", "--port", "70000") as process:
        assert process.end() == 2
    assert "70000" in process.error


BLOCKS = """
import logging, threading
told = threading.Event()

class Tells(logging.Handler):
    def emit(self, record):
        if "in blocks" in record.getMessage():
            told.set()

logging.getLogger("flowcoro.loop").addHandler(Tells())

def blocks():
    say("told" if told.wait(30) else "missed")

app = App(Says())

@app.task()
async def culprit():
    say("threshold", getattr(asyncio.get_running_loop(), "stall_threshold", None))
    if asyncio.get_running_loop().stall_threshold:
        blocks()
    say("over")
    await anyio.sleep_forever()
"""


@pytest.mark.parametrize("arguments", [[], ["--stall-threshold", "0.05"], ["--workers", "2"]])
def test_what_blocks_the_loop_is_told(folder: Path, arguments: list[str]) -> None:
    write(folder, BLOCKS)
    with run("shop:app", *arguments) as process:
        process.hear("told")
        process.send()
        assert process.end() == 0
    assert "WARNING flowcoro.loop: the event loop in thread MainThread has" in process.error
    assert "/shop.py:" in process.error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "0.5"),
        (["--stall-threshold", "off"], "None"),
        (["--stall-threshold", "0"], "None"),
        (["--set", "server.stall_threshold=0"], "None"),
    ],
)
def test_how_long_something_may_block(folder: Path, arguments: list[str], expected: str) -> None:
    write(folder, BLOCKS)
    with run("shop:app", *arguments) as process:
        line = ""
        while not line.startswith("threshold"):
            line = process.stdout.readline()
        assert line.split()[1] == expected


@pytest.mark.parametrize(("value", "status"), [("soon", 2), ("-1", 1), ("nan", 1)])
def test_thresholds_that_are_none(folder: Path, value: str, status: int) -> None:
    write(folder, "app = App(Says())")
    with run("shop:app", f"--stall-threshold={value}") as process:
        assert process.end() == status
    assert value in process.error
    assert "Traceback" not in process.error


def test_several_workers(folder: Path) -> None:
    source = """
    class Tells(Component):
        def attach(self, context):
            self.context = context
        async def __aenter__(self):
            server = self.context.config["server"]
            say("worker", server.port, server.host, self.context.workers)
            return self

    app = App(Tells())
    """
    write(folder, source)
    with run("shop:app", "--workers", "2", "--port", "0", "--host", "::1") as process:
        lines = [process.stdout.readline().split() for _ in range(2)]
        assert lines[0][:-1] == lines[1][:-1]
        word, port, host, workers, _ = lines[0]
        assert (word, host, workers) == ("worker", "::1", "2")
        assert int(port) > 0
        assert len({line[-1] for line in lines}) == 2
        process.send()
        assert process.end() == 0


def test_a_worker_that_is_killed_is_replaced(folder: Path) -> None:
    source = """
    app = App(Says())

    @app.task()
    async def later() -> None:
        say("serves")
        await anyio.sleep_forever()
    """
    write(folder, source)
    with run("shop:app", "--workers", "2") as process:
        first, second = process.hear("serves"), process.hear("serves")
        os.kill(first, signal.SIGKILL)
        third = process.hear("serves")
        assert len({first, second, third}) == 3
        process.send()
        assert process.end() == 0


def test_workers_end_when_the_supervisor_is_killed(folder: Path) -> None:
    write(folder, "app = App(Says())")
    with run("shop:app", "--workers", "2") as process:
        pids = {process.hear("up") for _ in range(2)}
        process.send(signal.SIGKILL)
        # They share its standard output, which ends when the last of them does.
        assert {process.hear("down") for _ in range(2)} == pids
        assert process.stdout.read() == ""


def test_a_start_that_fails_in_every_worker(folder: Path) -> None:
    source = """
    class Bad(Component):
        async def __aenter__(self):
            raise OSError("port 80 refused")

    app = App(Bad())
    """
    write(folder, source)
    with run("shop:app", "--workers", "2") as process:
        assert process.end() == 1
    assert "component 'bad' could not start: OSError: port 80 refused" in process.error
    assert "Traceback" not in process.error


def test_reloading(folder: Path) -> None:
    write(folder, "app = App(Says())")
    with run("shop:app", "--reload", "--config", str(folder / "my.toml")) as process:
        assert "no such file" in process.refusal()
    (folder / "my.toml").touch()
    with run("shop:app", "--reload", "--loop", "asyncio", "--config", "my.toml") as process:
        first = process.hear("up")
        write(folder, "this is no Python")
        process.hear("down")
        assert process.popen.stderr is not None
        for line in process.popen.stderr:
            if "waiting for a change" in line:
                break
        write(folder, "app = App(Says())\n")
        second = process.hear("up")
        assert first != second
        process.send()
        process.hear("down")
        assert process.end() == 0
