"""Who blocks a loop, told while it blocks.

A callback that blocks does so until the handler has been told of it: what these tests see was told
while it blocked. Thresholds are short, so that a machine under load may bring stalls
that nobody made: tests look for their own among them.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import itertools
import logging
import os
import subprocess
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from textwrap import dedent

import pytest

import flowcoro
from flowcoro import _native, reactor
from flowcoro._loop import Loop, _stalls
from flowcoro.loops import LoopStats, Stall, StallFrame

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it does not run there yet")

THRESHOLD = 0.02
PATIENCE = 30
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")
WATCHDOG = "flowcoro stall watchdog"


class Seen:
    """A handler that keeps the stalls which one function brought about."""

    def __init__(self, name: str, *, reports: int = 1) -> None:
        self.name = name
        self.reports = reports
        self.stalls: list[Stall] = []
        self.blamed = threading.Event()
        self.over = threading.Event()

    def __call__(self, stall: Stall) -> None:
        if all(name != self.name for name in (stall.function, stall.callback)):
            return
        self.stalls.append(stall)
        if stall.over:
            self.over.set()
        elif len(self.stalls) == self.reports:
            self.blamed.set()


@pytest.fixture(params=reactor.available())
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param)
    yield loop
    loop.close()


def turn(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def blocks(until: threading.Event) -> None:
    assert until.wait(PATIENCE)


BLOCKING_LINE = blocks.__code__.co_firstlineno + 1


def watchdog() -> threading.Thread | None:
    return next((each for each in threading.enumerate() if each.name == WATCHDOG), None)


def looks() -> int:
    return _native.loop_watch_state()[1]


def test_it_names_file_line_and_task_while_it_blocks(loop: Loop) -> None:
    seen = Seen("blocks")
    loop.set_stall_handler(seen)
    loop.stall_threshold = THRESHOLD

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("the culprit")
        blocks(seen.blamed)

    loop.run_until_complete(main())
    assert seen.over.wait(PATIENCE)
    first, last = seen.stalls[0], seen.stalls[-1]
    assert (first.file, first.line, first.function) == (__file__, BLOCKING_LINE, "blocks")
    assert (first.thread, first.task) == (threading.current_thread().name, "the culprit")
    assert first.callback == main.__qualname__
    assert first.seconds >= THRESHOLD
    assert not first.over
    # Event.wait is the innermost, but nobody's fault.
    assert first.stack[0].file == threading.__file__
    assert first.stack[-1] == StallFrame(
        __file__, main.__code__.co_firstlineno + 4, main.__qualname__
    )
    assert last.over
    assert (last.file, last.line, last.task) == (first.file, first.line, first.task)
    assert last.seconds >= first.seconds
    with pytest.raises(FrozenInstanceError):
        first.over = True  # type: ignore[misc]


def test_what_goes_on_is_told_again_when_it_has_lasted_twice_as_long(loop: Loop) -> None:
    seen = Seen("blocks", reports=4)
    loop.set_stall_handler(seen)
    loop.stall_threshold = THRESHOLD
    loop.call_soon(blocks, seen.blamed)
    turn(loop)
    assert seen.over.wait(PATIENCE)
    seconds = [each.seconds for each in seen.stalls if not each.over]
    assert len(seconds) == 4
    assert all(later >= 2 * sooner for sooner, later in itertools.pairwise(seconds))


def test_a_callback_without_python_code_is_named(loop: Loop) -> None:
    lock = threading.Lock()
    stalls: list[Stall] = []

    def handler(stall: Stall) -> None:
        if not stall.over and stall.file is None and not stalls:
            stalls.append(stall)
            lock.release()

    lock.acquire()
    loop.set_stall_handler(handler)
    loop.stall_threshold = THRESHOLD
    loop.call_soon(functools.partial(lock.acquire, timeout=PATIENCE))
    turn(loop)
    (stall,) = stalls
    assert (stall.task, stall.line, stall.function, stall.stack) == (None, None, None, ())
    # Without a GIL a handle may be gone by the time that it is looked at.
    assert stall.callback == (lock.acquire.__qualname__ if HAS_GIL else None)


def test_a_call_that_holds_the_gil_is_told_of_when_it_lets_go(loop: Loop) -> None:
    seen = Seen("holds")
    loop.set_stall_handler(seen)
    loop.stall_threshold = THRESHOLD
    usleep = ctypes.PyDLL(None).usleep

    def holds() -> None:
        usleep(200_000)
        blocks_no_more()

    def blocks_no_more() -> None:
        pass

    seen.name = holds.__qualname__
    for _ in range(10):  # on a busy machine it may be gone before somebody could look
        loop.call_soon(holds)
        turn(loop)
        if seen.over.wait(1):
            break
    assert (seen.stalls[0].file, seen.stalls[0].line) == (
        __file__,
        holds.__code__.co_firstlineno + 1,
    )
    assert seen.stalls[-1].seconds >= 0.1


def test_waiting_is_no_stall(loop: Loop) -> None:
    stalls: list[Stall] = []
    loop.set_stall_handler(stalls.append)
    waits = threading.Event()
    loop.call_soon(waits.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert waits.wait(PATIENCE)
    loop.stall_threshold = 0.1
    until = looks() + 12  # three thresholds
    nap = threading.Event()
    while looks() < until:
        nap.wait(0.01)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert stalls == []


def test_many_short_callbacks_are_no_stall_and_are_looked_at_seldom(loop: Loop) -> None:
    stalls: list[Stall] = []
    loop.set_stall_handler(stalls.append)
    loop.stall_threshold = 0.2
    begin, before = loop.time(), looks()

    def again() -> None:
        if looks() < before + 9:
            loop.call_soon(again)
        else:
            loop.stop()

    loop.call_soon(again)
    loop.run_forever()
    assert stalls == []
    # One look in a quarter of the threshold, whatever the loop does; the first two are free: when
    # the thread begins, and when the loop is given to it.
    assert loop.time() - begin >= 7 * 0.2 / 4 - 0.01
    assert loop.stats().callbacks > 1_000


def test_two_loops_in_two_threads(loop: Loop) -> None:
    other = Loop(loop.reactor)
    both = {"one": loop, "other": other}
    seen = {name: Seen("blocks") for name in both}

    def body(name: str) -> None:
        turned = both[name]
        turned.set_stall_handler(seen[name])
        turned.stall_threshold = THRESHOLD
        # Until both are told of: one does not hide the other.
        turned.call_soon(lambda: [blocks(each.blamed) for each in seen.values()])
        turn(turned)

    threads = [threading.Thread(target=body, args=(name,), name=name) for name in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in both:
        assert seen[name].over.wait(PATIENCE)
        assert {each.thread for each in seen[name].stalls} == {name}
    other.close()


def stall(loop: Loop) -> None:
    """Have a stall on the loop seen, or fail."""
    seen = Seen("blocks")
    loop.set_stall_handler(seen)
    loop.call_soon(blocks, seen.blamed)
    turn(loop)
    assert seen.over.wait(PATIENCE)


def test_a_child_of_a_fork_has_a_watchdog_of_its_own(loop: Loop) -> None:
    loop.stall_threshold = THRESHOLD
    stall(loop)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            loop.close()
            own = Loop(loop.reactor, stall_threshold=THRESHOLD)
            stall(own)
            own.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    stall(loop)


def test_the_threshold_may_change_at_any_time(loop: Loop) -> None:
    assert loop.stall_threshold is None
    seen = Seen("blocks")
    loop.set_stall_handler(seen)
    begun = threading.Event()
    loop.call_soon(begun.set)
    loop.call_soon(blocks, seen.blamed)
    thread = threading.Thread(target=turn, args=(loop,))
    thread.start()
    assert begun.wait(PATIENCE)
    loop.stall_threshold = 3600
    assert loop.stall_threshold == 3600
    loop.stall_threshold = THRESHOLD  # while it blocks, from another thread
    thread.join()
    assert seen.over.wait(PATIENCE)
    loop.stall_threshold = None
    assert loop.stall_threshold is None
    assert _native.loop_watch_state()[0] == 0


def test_the_thread_ends_with_the_last_loop(loop: Loop) -> None:
    other = Loop(loop.reactor, stall_threshold=3600)
    loop.stall_threshold = 3600
    thread = watchdog()
    assert thread is not None
    assert thread.daemon
    loop.close()
    assert watchdog() is thread
    assert _native.loop_watch_state()[0] == 1
    other.stall_threshold = None
    thread.join(PATIENCE)
    assert not thread.is_alive()
    other.stall_threshold = 3600
    assert watchdog() is not None  # another
    other.close()
    other.stall_threshold = 1  # of no consequence
    assert other.stall_threshold == 1


@pytest.mark.filterwarnings("ignore:unclosed event loop")
def test_it_keeps_no_loop_alive(loop: Loop) -> None:
    loop.stall_threshold = 3600
    forgotten = Loop(loop.reactor, stall_threshold=3600)
    gone = weakref.ref(forgotten)
    del forgotten
    gc.collect()
    assert gone() is None
    assert _native.loop_watch_state()[0] == 1


def test_a_loop_may_be_closed_while_it_is_looked_at(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    closed = threading.Event()
    done = threading.Event()
    seen = Seen("blocks")

    def handler(stall: Stall) -> None:
        seen(stall)
        if seen.blamed.is_set():
            assert closed.wait(PATIENCE)
            loop.stats()
            done.set()

    loop.set_stall_handler(handler)
    loop.stall_threshold = THRESHOLD
    loop.call_soon(blocks, seen.blamed)
    turn(loop)
    loop.close()
    closed.set()
    assert done.wait(PATIENCE)
    assert "failed" not in caplog.text


def test_what_a_handler_raises_is_logged(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen("blocks", reports=2)

    def handler(stall: Stall) -> None:
        seen(stall)
        raise OSError("no place left")

    loop.set_stall_handler(handler)
    loop.stall_threshold = THRESHOLD
    loop.call_soon(blocks, seen.blamed)  # the second report comes nevertheless
    turn(loop)
    assert seen.over.wait(PATIENCE)
    assert "telling of a blocked event loop failed" in caplog.text
    assert "no place left" in caplog.text


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.blamed = threading.Event()
        self.over = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if "in blocks" in line:
            self.lines.append(line)
            (self.over if "goes on" in line else self.blamed).set()


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    logger = logging.getLogger("flowcoro.loop")
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)


def test_the_log_tells_of_it_and_of_no_values(loop: Loop, lines: Lines) -> None:
    loop.set_stall_handler(print)
    loop.set_stall_handler(None)
    loop.stall_threshold = THRESHOLD

    def handler(password: str, until: threading.Event) -> None:
        copy = password * 1
        blocks(until)
        assert copy

    loop.call_soon(handler, "hunter2", lines.blamed)
    turn(loop)
    assert lines.over.wait(PATIENCE)
    text = "\n".join(lines.lines)
    assert f"in thread {threading.current_thread().name} has been blocked for 0.0" in text
    assert f" s by {__file__}:{BLOCKING_LINE} in blocks, callback {__name__}." in text
    assert f'File "{__file__}", line {handler.__code__.co_firstlineno + 2}, in ' in text
    assert "goes on: it was blocked for" in lines.lines[-1]
    assert "hunter2" not in text


def test_what_went_on_before_it_could_be_looked_at(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    stall = _stalls._blame(loop, loop._moves() + 1, 1.5)
    assert (stall.over, stall.file, stall.task, stall.stack) == (True, None, None, ())
    _stalls.log_stall(stall)
    assert "it was blocked for 1.5 s; it went on before it could be looked at" in caplog.text


def test_what_is_called_has_a_name_without_arguments() -> None:
    class Calls:
        def __call__(self) -> None: ...

    here = f"{__name__}.{test_what_is_called_has_a_name_without_arguments.__name__}.<locals>.Calls"
    assert _stalls._name(functools.partial(functools.partial(blocks, 1), 2)) == f"{__name__}.blocks"
    assert _stalls._name(Calls()) == here
    assert _stalls._name(Calls().__call__) == f"{here}.__call__"
    assert _stalls._name(None) is None


def test_run_sets_it(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        blocks(lines.blamed)

    flowcoro.run(main(), loop="flowcoro", stall_threshold=THRESHOLD)
    assert "task 'Task-" in lines.lines[0]

    async def nothing() -> None:
        pass

    with caplog.at_level(logging.DEBUG, "flowcoro.loop"):
        flowcoro.run(nothing(), loop="asyncio", stall_threshold=1)
    assert "cannot tell who blocks it" in caplog.text


@pytest.mark.parametrize("name", reactor.available())
@pytest.mark.parametrize("blocked", [False, True])
def test_it_lets_the_program_end(name: str, blocked: bool) -> None:
    script = f"""
        import threading
        from flowcoro._loop import Loop

        told = threading.Event()

        def body():
            loop = Loop({name!r}, stall_threshold=0.002)
            loop.set_stall_handler(lambda stall: told.set())
            if {blocked}:
                loop.call_soon(threading.Event().wait)
            else:
                loop.call_soon(told.set)
            loop.run_forever()

        threading.Thread(target=body, daemon=True).start()
        told.wait()
        """
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", dedent(script)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")


def test_stats_tell_of_stalls_while_they_last(loop: Loop) -> None:
    loop.stall_threshold = THRESHOLD
    during: list[LoopStats] = []
    seen = Seen("blocks")

    def handler(stall: Stall) -> None:
        during.append(loop.stats())
        seen(stall)

    loop.set_stall_handler(handler)
    loop.call_soon(blocks, seen.blamed)
    turn(loop)
    assert seen.over.wait(PATIENCE)
    after = loop.stats()
    assert during[0].stalls >= 1
    assert during[0].lag >= THRESHOLD
    assert during[0].stalled_seconds >= THRESHOLD
    assert after.stalls >= 1
    assert after.stalled_seconds >= during[0].stalled_seconds


def test_the_core_wants_its_init() -> None:
    bare = Loop.__new__(Loop)
    calls: list[Callable[[], object]] = [
        bare._stats,
        bare._moves,
        bare._running_callback,
        lambda: bare._set_watch(1.0),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="__init__ was not called"):
            call()
