"""The supervisor with real processes: small workers that report over a socket.

A worker connects to the test's socket, says its process id, and keeps the connection; so
the test hears of each start and of each death, and need not wait by the clock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowcoro._backoff import Backoff
from flowcoro.workers import COUNT_VARIABLE, Supervisor, WorkerChannel, watch
from flowcoro.workers import _supervisor as supervisor_module

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform == "win32", reason="workers need POSIX"),
]

WORKER = """
import os, signal, socket, sys

mode, address = sys.argv[1:]
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
report = socket.socket(socket.AF_UNIX)
report.connect(address)
end = socket.socket(fileno=int(os.environ["FLOWCORO_WORKER_CHANNEL"]))
report.sendall(f"{os.getpid()} {os.environ['FLOWCORO_WORKER_COUNT']}\\n".encode())
if mode == "fails":
    os._exit(3)
if mode == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "leaves":
    end.sendall(b"r")
    report.recv(1)
    os._exit(4)
if mode != "mute":
    end.sendall(b"r")
while True:
    signal.pause()
"""


@dataclass
class Worker:
    """One worker that reported."""

    pid: int
    count: int
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.StreamWriter | None = None


class Hall:
    """Where workers report."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "hall")
        self.arrived: asyncio.Queue[Worker] = asyncio.Queue()
        self.script = folder / "worker.py"
        self.script.write_text(WORKER, encoding="utf-8")

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not line:  # killed before it could report
            writer.close()
            return
        pid, count = line.split()
        worker = Worker(int(pid), int(count), writer=writer)
        self.arrived.put_nowait(worker)
        with suppress(ConnectionResetError):
            await reader.read()
        writer.close()
        worker.gone.set()

    async def next(self) -> Worker:
        return await asyncio.wait_for(self.arrived.get(), 30)

    def supervisor(self, mode: str, workers: int = 1, **kwargs: Any) -> Supervisor:
        settings: dict[str, Any] = {
            "drain_timeout": 20.0,
            "backoff": lambda: Backoff(first=0.01, longest=0.02),
        }
        command = [sys.executable, str(self.script), mode, self.address]
        return Supervisor(command, workers=workers, **{**settings, **kwargs})


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    made = Hall(tmp_path)
    server = await asyncio.start_unix_server(made.hear, made.address)
    yield made
    server.close()
    await server.wait_closed()


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[int]]:
    """Run the supervisor in a task, which has ended on leaving."""
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
        await asyncio.wait((task,), timeout=30)
        assert task.done(), "the supervisor did not end"
    finally:
        if not task.done():
            supervisor.stop()
            for pid in supervisor.pids:
                os.kill(pid, signal.SIGKILL)
        await asyncio.wait((task,))
    assert supervisor.pids == []


async def ready(supervisor: Supervisor) -> None:
    while not supervisor._ever_ready:
        await anyio.lowlevel.checkpoint()


async def test_it_runs_as_many_as_it_is_told(hall: Hall) -> None:
    supervisor = hall.supervisor("good", workers=3)
    async with running(supervisor) as task:
        workers = [await hall.next() for _ in range(3)]
        assert {w.pid for w in workers} == set(supervisor.pids)
        assert [w.count for w in workers] == [3, 3, 3]
        supervisor.stop()
        supervisor.stop("again")
    assert task.result() == 0
    for worker in workers:
        await worker.gone.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all(hall: Hall, number: signal.Signals) -> None:
    async with running(hall.supervisor("good", workers=2)) as task:
        for _ in range(2):
            await hall.next()
        os.kill(os.getpid(), number)
    assert task.result() == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_killed_worker_is_started_again(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = hall.supervisor("good", workers=2)
    async with running(supervisor) as task:
        first, second = await hall.next(), await hall.next()
        await ready(supervisor)
        os.kill(first.pid, signal.SIGKILL)
        third = await hall.next()
        assert first.gone.is_set()
        assert not second.gone.is_set()
        assert set(supervisor.pids) == {second.pid, third.pid}
        supervisor.stop()
    assert task.result() == 0
    assert "ended with signal 9; restart in 0.0 s" in caplog.text


async def test_the_delays_between_restarts_grow(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    lasted: list[float] = []

    class Watched(Backoff):
        def delay_after(self, seconds: float) -> float:
            lasted.append(seconds)
            return super().delay_after(seconds)

    made: list[Watched] = []

    def make() -> Watched:
        made.append(Watched(first=0.1, longest=0.2))
        return made[-1]

    supervisor = hall.supervisor("leaves", backoff=make)
    async with running(supervisor):
        for _ in range(3):
            worker = await hall.next()
            await ready(supervisor)
            assert worker.writer is not None
            worker.writer.write(b"x")
        supervisor.stop()
    assert len(made) == 1
    assert all(seconds > 0 for seconds in lasted)
    assert "worker 0 ended with status 4; restart in 0.1 s" in caplog.text
    assert "worker 0 ended with status 4; restart in 0.2 s" in caplog.text


@pytest.mark.parametrize(("mode", "status"), [("fails", 3), ("dies", 1)])
async def test_one_that_cannot_start_stops_all_with_its_status(
    hall: Hall, mode: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flowcoro")
    async with running(hall.supervisor(mode, workers=2)) as task:
        await hall.next()
    assert task.result() == status
    assert "could not start" in caplog.text


async def test_stopping_during_the_back_off_is_at_once(hall: Hall) -> None:
    waiting = asyncio.Event()

    class Long(Backoff):
        def delay_after(self, lasted: float) -> float:
            waiting.set()
            return 600.0

    supervisor = hall.supervisor("good", backoff=Long)
    async with running(supervisor) as task:
        worker = await hall.next()
        await ready(supervisor)
        os.kill(worker.pid, signal.SIGKILL)
        await waiting.wait()
        supervisor.stop()
    assert task.result() == 0


async def test_one_that_ignores_sigterm_is_killed(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "_KILL_GRACE", 0.05)
    supervisor = hall.supervisor("deaf", drain_timeout=0.05)
    async with running(supervisor) as task:
        worker = await hall.next()
        supervisor.stop()
    assert task.result() == 0
    await worker.gone.wait()
    assert f"worker 0 (process {worker.pid}) did not stop; killing it" in caplog.text


async def test_reloading_replaces_every_worker(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = hall.supervisor("good", workers=2)
    async with running(supervisor) as task:
        before = [await hall.next() for _ in range(2)]
        await ready(supervisor)
        supervisor.reload()
        after = [await hall.next() for _ in range(2)]
        for worker in before:
            await worker.gone.wait()
        assert set(supervisor.pids) == {w.pid for w in after}
        supervisor.stop()
    assert task.result() == 0
    assert "restart in" not in caplog.text


async def test_reloading_kills_one_that_ignores_sigterm(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_KILL_GRACE", 0.05)
    supervisor = hall.supervisor("deaf", drain_timeout=0.05)
    async with running(supervisor):
        before = await hall.next()
        await ready(supervisor)
        supervisor.reload()
        try:
            after = await asyncio.wait_for(hall.arrived.get(), 5)
        finally:
            supervisor.stop()
        assert before.gone.is_set()
        assert after.pid != before.pid


async def test_a_patient_supervisor_waits_for_the_next_edit(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = hall.supervisor("fails", patient=True)
    async with running(supervisor) as task:
        first = await hall.next()
        while "waiting for a change" not in caplog.text:
            await anyio.lowlevel.checkpoint()
        assert hall.arrived.empty()
        supervisor.reload()
        second = await hall.next()
        assert first.pid != second.pid
        supervisor.stop()
    assert task.result() == 0
    assert "worker 0 ended with status 3; waiting for a change" in caplog.text


async def test_a_cancelled_supervisor_leaves_no_worker(hall: Hall) -> None:
    supervisor = hall.supervisor("good", workers=2)
    async with running(supervisor) as task:
        workers = [await hall.next() for _ in range(2)]
        task.cancel()
    assert task.cancelled()
    for worker in workers:
        await worker.gone.wait()
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)  # it was waited for as well: no zombie


async def test_a_command_that_cannot_be_run() -> None:
    supervisor = Supervisor(["/nowhere/python"], workers=1, drain_timeout=1)
    with pytest.raises((OSError, ExceptionGroup)):
        await supervisor.run()


def test_a_process_without_supervisor_has_no_channel() -> None:
    assert WorkerChannel.from_environment({}) is None


def test_the_workers_end_of_the_channel() -> None:
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    environ = {"FLOWCORO_WORKER_CHANNEL": str(theirs.detach()), COUNT_VARIABLE: "4"}
    channel = WorkerChannel.from_environment(environ)
    assert channel is not None
    assert channel.workers == 4
    channel.ready()
    assert ours.recv(2) == b"r"
    gone = threading.Event()
    channel.on_supervisor_gone(gone.set)
    ours.close()
    assert gone.wait(20)
    channel.ready()  # nobody hears it, and that is no error
    channel._end.close()


def test_a_worker_does_not_pass_its_channel_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # A program that the application runs must not take itself for a worker.
    ours, theirs = socket.socketpair()
    monkeypatch.setenv("FLOWCORO_WORKER_CHANNEL", str(theirs.detach()))
    monkeypatch.setenv(COUNT_VARIABLE, "2")
    channel = WorkerChannel.from_environment()
    assert channel is not None
    assert not os.get_inheritable(channel._end.fileno())
    script = "import os; print([n for n in os.environ if n.startswith('FLOWCORO_WORKER')])"
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    ours.close()
    channel._end.close()
    assert shown.strip() == "[]"


async def test_watching_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flowcoro")
    (tmp_path / ".venv").mkdir()
    changed, stop = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: watch([tmp_path], changed.set, stop=stop))
        number = 0
        # The watching begins at a moment that it does not tell: edit until it has heard.
        with anyio.fail_after(30):
            while not changed.is_set():
                number += 1
                (tmp_path / "app.py").write_text(f"x = {number}\n", encoding="utf-8")
                (tmp_path / "notes.txt").write_text(f"{number}\n", encoding="utf-8")
                with anyio.move_on_after(0.1):
                    await changed.wait()
        stop.set()
    assert "changed: app.py; reloading" in caplog.text
    assert "notes.txt" not in caplog.text
