"""Processes that end in every way, that fork, and threads that log a million records."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flowcoro.log import AsyncHandler, FileSink, Logger
from log_tools import environment, logger_for, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and POSIX signals")

START = """
import logging, os, signal, sys, threading, time
from flowcoro.log import setup, handler
FAR = 3600
setup("app.log", flush_interval=FAR)
log = logging.getLogger("app")
for number in range(1000):
    log.info("%d", number)
"""


def messages(folder: Path) -> list[str]:
    lines = (folder / "app.log").read_text(encoding="utf-8").splitlines()
    return [line.split(": ", 1)[-1] for line in lines]


NUMBERS = [str(number) for number in range(1000)]


def test_at_the_end_nothing_is_lost(tmp_path) -> None:
    ran = run(START, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert messages(tmp_path) == NUMBERS


def test_what_is_logged_at_exit_is_not_lost(tmp_path) -> None:
    program = START + "import atexit\natexit.register(log.info, 'last')"
    ran = run(program, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert messages(tmp_path) == [*NUMBERS, "last"]


def test_daemon_threads_do_not_hinder_the_end(tmp_path) -> None:
    program = START + (
        "def forever():\n"
        "    while True: log.info('x')\n"
        "threading.Thread(target=forever, daemon=True).start()"
    )
    ran = run(program, tmp_path, covered=False)
    assert ran.returncode == 0, ran.stderr
    assert messages(tmp_path)[-1] == "x"


def test_an_exception_is_logged_and_nothing_lost(tmp_path) -> None:
    ran = run(START + "raise ValueError('the end')", tmp_path)
    assert ran.returncode == 1
    assert "ValueError: the end" in ran.stderr
    found = messages(tmp_path)
    assert found[:1001] == [*NUMBERS, "the program ends by an exception"]
    assert found[-1] == "the end"


def test_an_exception_of_a_thread_is_logged(tmp_path) -> None:
    program = START + (
        "thread = threading.Thread(target=lambda: 1 / 0, name='one')\nthread.start()\nthread.join()"
    )
    ran = run(program, tmp_path)
    assert ran.returncode == 0
    assert "ZeroDivisionError" in ran.stderr
    assert "thread one ends by an exception" in messages(tmp_path)


def test_keyboard_interrupt_is_not_logged(tmp_path) -> None:
    ran = run(START + "raise KeyboardInterrupt", tmp_path)
    assert ran.returncode == -signal.SIGINT
    assert messages(tmp_path) == NUMBERS


def test_os_exit_after_a_flush(tmp_path) -> None:
    ran = run(START + "handler().flush()\nos._exit(7)", tmp_path, covered=False)
    assert ran.returncode == 7, ran.stderr
    assert messages(tmp_path) == NUMBERS


def test_logging_shutdown_is_a_flush_too(tmp_path) -> None:
    ran = run(START + "logging.shutdown()\nos._exit(7)", tmp_path, covered=False)
    assert ran.returncode == 7, ran.stderr
    assert messages(tmp_path) == NUMBERS


@pytest.mark.parametrize("name", ["SIGTERM", "SIGQUIT", "SIGXCPU"])
def test_a_signal_that_ends_the_process_loses_nothing(tmp_path, name) -> None:
    ran = run(START + f"os.kill(os.getpid(), signal.{name})\ntime.sleep(30)", tmp_path)
    assert ran.returncode == -getattr(signal, name), ran.stderr
    assert messages(tmp_path) == NUMBERS


def test_a_signal_while_the_same_thread_writes(tmp_path) -> None:
    """The line that it writes is whole, and what is behind it follows."""
    program = """
import logging, os, signal, threading
from flowcoro.log import FileSink, setup

class Slow(FileSink):
    def write(self, data):
        if threading.current_thread() is threading.main_thread() and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)
        self.pieces += 1
        return super().write(data[:3] if self.pieces < 100 else data)
    sent = False
    pieces = 0

sink = Slow("app.log")
handler = setup(sink, flush_interval=3600)
log = logging.getLogger("app")
for number in range(1000):
    log.info("%d", number)
handler.flush()
if not sink.sent:  # the writer's thread has been quicker
    os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
"""
    ran = run(program, tmp_path)
    assert ran.returncode == -signal.SIGTERM, ran.stderr
    assert messages(tmp_path) == NUMBERS


def test_a_terminal_that_is_gone_still_ends_who_logs_to_it(tmp_path) -> None:
    ran = run(
        START.replace('"app.log"', '"stderr"') + "signal.raise_signal(signal.SIGHUP)", tmp_path
    )
    assert ran.returncode == -signal.SIGHUP
    assert [line.split(": ")[1] for line in ran.stderr.splitlines()] == NUMBERS


def test_signals_that_are_handled_stay_so(tmp_path) -> None:
    program = """
import logging, os, signal
from flowcoro.log import setup, shutdown
mine = lambda *_: print("mine")
signal.signal(signal.SIGTERM, mine)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
setup("app.log")
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGHUP)
shutdown()
assert signal.getsignal(signal.SIGTERM) is mine
assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
"""
    ran = run(program, tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "mine\n"), ran.stderr


KILLED = """
import logging, sys, time
from flowcoro.log import setup
interval = float(sys.argv[1])
setup("app.log", flush_interval=interval)
log = logging.getLogger("app")
number = 0
while True:
    log.info("%d", number)
    print(number, time.monotonic(), flush=True)
    number += 1
    time.sleep(0.001)
"""


def test_a_killed_process_loses_no_more_than_the_interval(tmp_path) -> None:
    interval = 0.1
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(interval)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(covered=False),
    ) as process:
        assert process.stdout is not None
        logged = [process.stdout.readline() for _ in range(700)]
        process.kill()
        logged += process.stdout.readlines()
    times = {int(number): float(at) for number, at in map(str.split, logged) if at}
    found = [int(each) for each in messages(tmp_path)]
    assert found == list(range(len(found)))
    last = max(times)
    assert found
    # What the scheduler of a busy machine may add.
    slack = 0.5
    assert times[last] - times[min(found[-1], last)] <= interval + slack


FORKS = """
import logging, os, signal, sys, threading
from flowcoro.log import setup, handler
setup("app.log", flush_interval=0.0005, overflow="block")
log = logging.getLogger("app")
stop = threading.Event()

def busy():
    number = 0
    while not stop.is_set():
        log.info("busy %d", number)
        number += 1
    log.info("busy end %d", number)

signal.alarm(50)
thread = threading.Thread(target=busy)
thread.start()
for child in range(30):
    log.info("before %d", child)
    pid = os.fork()
    if pid == 0:
        for number in range(20):
            log.info("child %d %d", child, number)
        handler().flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
thread.join()
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forks_while_the_thread_writes(tmp_path) -> None:
    ran = run(FORKS, tmp_path, covered=False)
    assert ran.returncode == 0, ran.stderr
    found = messages(tmp_path)
    assert [each for each in found if each.startswith("before")] == [
        f"before {child}" for child in range(30)
    ]
    for child in range(30):
        own = [each for each in found if each.startswith(f"child {child} ")]
        assert own == [f"child {child} {number}" for number in range(20)]
    busy = [each.split()[1] for each in found if each.startswith("busy ")]
    count = int(found[[each.startswith("busy end") for each in found].index(True)].split()[2])
    assert busy == [*map(str, range(count)), "end"]


def test_a_fork_waits_until_nothing_is_half_written(tmp_path) -> None:
    """Otherwise the child would find the sink's lock held by a thread that it has not."""
    program = """
import logging, os, signal, sys, threading
from flowcoro.log import setup, handler
lock, entered, forking = threading.Lock(), threading.Event(), threading.Event()

def sink(data):
    with lock:
        entered.set()
        forking.wait()
        for _ in range(1000): pass
        with open("app.log", "ab") as file: file.write(data)

signal.alarm(20)
setup(sink, flush_interval=3600, signals=False)
log = logging.getLogger("app")
log.info("parent")
entered.wait()
sys.setswitchinterval(1)  # so that the fork comes before the thread goes on
forking.set()
if os.fork() == 0:
    log.info("child")
    handler().flush()
    os._exit(0)
assert os.wait()[1] == 0
"""
    ran = run(program, tmp_path, covered=False)
    assert ran.returncode == 0, ran.stderr
    assert messages(tmp_path) == ["parent", "child"]


def test_a_child_has_a_thread_of_its_own(tmp_path) -> None:
    program = """
import logging, os, time
from flowcoro.log import setup
setup("app.log", flush_interval=0.001)
log = logging.getLogger("app")
log.info("parent")
if os.fork() == 0:
    log.info("child")
    while "child" not in open("app.log").read():  # nobody flushes but its thread
        time.sleep(0.001)
    os._exit(0)
assert os.wait()[1] == 0
"""
    ran = run(program, tmp_path, covered=False)
    assert ran.returncode == 0, ran.stderr
    assert sorted(messages(tmp_path)) == ["child", "parent"]


def test_multiprocessing(tmp_path) -> None:
    """Its children end by os._exit, without atexit."""
    program = """
import logging, multiprocessing
from flowcoro.log import setup

def work(number):
    for each in range(100):
        logging.getLogger("app").info("%d %d", number, each)

setup("app.log", flush_interval=3600)
logging.getLogger("app").info("parent")
context = multiprocessing.get_context("fork")
processes = [context.Process(target=work, args=(number,)) for number in range(3)]
for each in processes: each.start()
for each in processes: each.join()
"""
    ran = run(program, tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = messages(tmp_path)
    assert sorted(found) == sorted(["parent", *(f"{n} {i}" for n in range(3) for i in range(100))])


def eight_threads(path: Path, records: int) -> None:
    handler = AsyncHandler(FileSink(path), overflow="block")
    logger = logger_for(handler, kind=Logger)
    each = records // 8
    barrier = threading.Barrier(8)

    def log(thread: int) -> None:
        barrier.wait(30)
        for number in range(each):
            logger.info("%d %d", thread, number)

    threads = [threading.Thread(target=log, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()
    assert handler.stats().dropped == 0
    expected = [0] * 8
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            assert line.endswith("\n")
            who, number = map(int, line.split(": ")[1].split())
            assert number == expected[who]
            expected[who] += 1
    assert expected == [each] * 8


def test_records_of_eight_threads_arrive_whole_and_in_their_order(tmp_path) -> None:
    eight_threads(tmp_path / "app.log", 40_000)


def test_a_million_records_of_eight_threads(tmp_path) -> None:
    """In a process of its own, so that no coverage makes it slow."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from test_log_process import eight_threads\n"
        "eight_threads(Path('app.log'), 1_000_000)"
    )
    began = time.monotonic()
    ran = run(program, tmp_path, os.path.dirname(__file__), covered=False)
    assert ran.returncode == 0, ran.stderr
    print(f"{time.monotonic() - began:.1f} s")
