"""The native loop: what is its own, rather than asyncio's; the rest is in tests/conformance."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from flowcoro import new_event_loop, reactor
from flowcoro._loop import Loop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it does not run there yet")


@pytest.fixture(params=reactor.available())
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param)
    assert loop.reactor == request.param
    yield loop
    loop.close()


def turn(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_callbacks_come_in_order_with_their_arguments(loop: Loop) -> None:
    seen: list[tuple[int, ...]] = []
    for count in range(6):
        loop.call_soon(lambda *given: seen.append(given), *range(count))
    turn(loop)
    assert seen == [tuple(range(count)) for count in range(6)]


def test_many_callbacks_and_those_that_they_queue(loop: Loop) -> None:
    seen: list[int] = []
    for i in range(1_000):
        loop.call_soon(loop.call_soon, seen.append, i)
    turn(loop)
    assert seen == []  # they are the next turn's
    turn(loop)
    assert seen == list(range(1_000))


def test_a_cancelled_callback_lets_go_of_what_it_had(loop: Loop) -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    handle = loop.call_soon(id, thing)
    timer = loop.call_later(3600, id, thing)
    del thing
    assert gone() is not None
    handle.cancel()
    timer.cancel()
    timer.cancel()
    assert gone() is None
    assert handle.cancelled()
    assert timer.cancelled()
    turn(loop)


def test_timers_are_ordered_by_their_times(loop: Loop) -> None:
    times = [3.0, 1.0, 2.0]
    timers = [loop.call_at(loop.time() + 100 + each, print) for each in times]
    assert [timers.index(each) for each in sorted(timers)] == [1, 2, 0]
    same = loop.call_at(timers[0].when(), print)
    assert same <= timers[0] <= same
    assert not same < timers[0]
    assert not same > timers[0]
    assert same != timers[0]
    assert len({same, *timers}) == 4
    with pytest.raises(TypeError):
        sorted([same, 5.0])  # type: ignore[list-item]
    for each in (same, *timers):
        each.cancel()


def test_timers_ring_in_order_and_not_early(loop: Loop) -> None:
    seen: list[str] = []
    begin = loop.time()
    loop.call_at(begin + 0.02, lambda: (seen.append("last"), loop.stop()))
    loop.call_later(0.01, seen.append, "later")
    loop.call_later(0, seen.append, "now")
    loop.call_later(-1, seen.append, "past")
    loop.call_later(1e300, seen.append, "never")
    loop.call_later(0.015, seen.append, "cancelled").cancel()
    loop.run_forever()
    assert seen == ["now", "past", "later", "last"]
    assert loop.time() >= begin + 0.02


def test_a_callback_may_cancel_itself_and_others(loop: Loop) -> None:
    seen: list[Any] = []
    handles: list[asyncio.Handle] = []

    def body(argument: Any) -> None:
        for handle in handles:
            handle.cancel()
        seen.append(argument)

    handles += [loop.call_soon(body, ["kept"]), loop.call_soon(body, "never")]
    turn(loop)
    assert seen == [["kept"]]


def test_another_thread_wakes_it(loop: Loop) -> None:
    seen: list[int] = []
    asked = threading.Semaphore(0)

    def body() -> None:
        for i in range(500):
            loop.call_soon_threadsafe(lambda i=i: (seen.append(i), asked.release()))
            assert asked.acquire(timeout=60)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=body)
    thread.start()
    loop.run_forever()
    thread.join()
    assert seen == list(range(500))


def test_each_callback_has_its_context(loop: Loop) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []
    context = contextvars.copy_context()
    context.run(variable.set, 5)
    loop.call_soon(lambda: seen.append(variable.get()), context=context)
    variable.set(7)
    loop.call_soon(lambda: seen.append(variable.get()))
    variable.set(9)
    turn(loop)
    assert seen == [5, 7]


def test_what_a_callback_raises_goes_to_the_handler(loop: Loop) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def fails() -> None:
        raise ValueError("as it should")

    loop.call_soon(fails)
    turn(loop)
    assert isinstance(told[0]["exception"], ValueError)
    assert "fails" in told[0]["message"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_must_end_the_program_ends_the_loop(loop: Loop, kind: type[BaseException]) -> None:
    def ends() -> None:
        raise kind

    seen: list[int] = []
    loop.call_soon(ends)
    loop.call_soon(seen.append, 1)
    with pytest.raises(kind):
        loop.run_forever()
    turn(loop)  # and what was behind it is still there
    assert seen == [1]


def test_readers_and_writers_are_told_for_as_long_as_it_lasts(loop: Loop) -> None:
    left, right = socket.socketpair()
    with left, right:
        seen: list[str] = []

        def reads() -> None:
            seen.append("in")
            if len(seen) == 3:
                left.recv(10)

        loop.add_reader(left, reads)
        right.send(b"x")
        while len(seen) < 3:
            turn(loop)
        turn(loop)
        assert seen == ["in"] * 3
        loop.add_writer(left, seen.append, "out")
        loop.add_writer(left, seen.append, "other")  # takes its place
        while "other" not in seen:
            turn(loop)
        assert "out" not in seen
        assert loop.remove_reader(left)
        assert loop.remove_writer(left)
        assert not loop.remove_reader(left)


def test_a_number_that_comes_back_is_another_file(loop: Loop) -> None:
    for _ in range(3):
        left, right = socket.socketpair()
        seen: list[int] = []
        loop.add_reader(left.fileno(), seen.append, 1)
        turn(loop)
        right.send(b"x")
        while not seen:
            turn(loop)
        loop.remove_reader(left.fileno())
        left.close()
        right.close()


@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_file_that_was_closed_is_still_found(loop: Loop, direction: str) -> None:
    add, remove = getattr(loop, f"add_{direction}"), getattr(loop, f"remove_{direction}")
    left, right = socket.socketpair()
    with left, right:
        seen: list[int] = []
        add(left, seen.append, 1)
        left.close()
        assert remove(left)
        with pytest.raises(ValueError, match="is closed, and was not watched"):
            remove(left)
    turn(loop)
    turn(loop)
    assert seen == []


def test_who_has_a_closed_file_s_number_is_left_alone(loop: Loop) -> None:
    left, right = socket.socketpair()
    seen: list[str] = []
    loop.add_reader(left, seen.append, "closed")
    number = os.dup(left.fileno())
    kept = left.fileno()
    left.close()
    os.dup2(right.fileno(), kept)  # another file, of the same number
    loop._add_reader(kept, lambda: (seen.append("other"), loop.stop()))
    assert not loop.remove_reader(left)
    os.write(number, b"x")
    loop.run_forever()
    assert seen == ["other"]
    loop.remove_reader(kept)
    os.close(kept)
    os.close(number)
    right.close()


def test_signals_interrupt_a_wait(loop: Loop) -> None:
    seen: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append(1), loop.stop()))
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    loop.run_forever()
    timer.join()
    assert seen == [1]
    loop.remove_signal_handler(signal.SIGUSR1)
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    try:
        timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        loop.run_forever()  # by the handler alone
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_debug_mode_looks_at_calls(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0

    async def coroutine() -> None:
        pass

    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.call_soon(coroutine)
    with pytest.raises(TypeError, match="a callable object was expected"):
        loop.call_later(1, 5)  # type: ignore[arg-type]
    handle = loop.call_soon(id, 1)
    assert "created at" in repr(handle)
    with caplog.at_level(logging.WARNING, "asyncio"):
        turn(loop)
    assert "Executing" in caplog.text


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda loop: loop.call_soon(), "takes at least 1 positional"),
        (lambda loop: loop.call_later(1), "takes at least 2 positional"),
        (lambda loop: loop.call_later(None, print), "delay must not be None"),
        (lambda loop: loop.call_at("soon", print), "must be real number"),
        (lambda loop: loop.call_soon(print, other=1), "unexpected keyword argument 'other'"),
        (lambda loop: loop.call_soon(print, context=1), "must be a contextvars.Context, not int"),
    ],
)
def test_wrong_arguments(loop: Loop, call: Callable[[Any], object], error: str) -> None:
    with pytest.raises(TypeError, match=error):
        call(loop)


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan")])
def test_stall_thresholds_that_are_none(loop: Loop, wrong: float) -> None:
    with pytest.raises(ValueError, match="expected more than 0 seconds"):
        loop.stall_threshold = wrong
    with pytest.raises(ValueError, match="stall_threshold"):
        new_event_loop(stall_threshold=wrong)


@pytest.mark.parametrize("wrong", ["1", True, object()])
def test_stall_thresholds_that_are_no_numbers(loop: Loop, wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected seconds or None"):
        loop.stall_threshold = wrong


def test_a_closed_loop_refuses_and_has_let_go(loop: Loop) -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    left, right = socket.socketpair()
    with left, right:
        loop.call_soon(id, thing)
        loop.call_later(60, id, thing)
        loop.add_reader(left, id, thing)
        del thing
        loop.close()
        loop.close()
    gc.collect()
    assert gone() is None
    for call in (loop.call_soon, loop.call_soon_threadsafe):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call(print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_later(1, print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()


def test_handles_tell_what_they_are(loop: Loop) -> None:
    handle = loop.call_soon(print, "x")
    loop.set_debug(True)  # else newer Pythons keep arguments to themselves
    assert "print('x')" in repr(handle)
    loop.set_debug(False)
    timer = loop.call_at(12.5, print)
    assert timer.when() == 12.5
    assert "when=12.5" in repr(timer)
    handle.cancel()
    assert repr(handle) == "<Handle cancelled>"
    assert handle.get_context() is not None


def test_it_may_be_closed_by_another_thread_than_its_own(loop: Loop) -> None:
    left, right = socket.socketpair()
    with left, right:

        def body() -> None:
            loop.add_reader(left, print)
            turn(loop)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if loop.reactor == "io_uring":
            with pytest.raises(RuntimeError, match="in the thread that ran it first"):
                loop.run_forever()
            with pytest.raises(RuntimeError, match="in the thread that ran it first"):
                loop.add_reader(right, print)
        else:
            turn(loop)
        assert loop.remove_reader(left)
        loop.close()


def test_a_child_of_a_fork_may_close_it(loop: Loop) -> None:
    left, right = socket.socketpair()
    with left, right:
        seen: list[str] = []
        loop.add_reader(left, lambda: (seen.append("in"), loop.stop()))
        turn(loop)
        child = os.fork()
        if child == 0:
            try:
                loop.call_soon(print)
                with pytest.raises(RuntimeError, match="the loop is the parent's"):
                    loop.run_forever()
                loop.close()
                own = Loop(loop.reactor)
                turn(own)
                own.close()
            except BaseException:
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        right.send(b"x")
        loop.run_forever()  # the parent's goes on
        assert seen == ["in"]


@pytest.mark.parametrize("name", reactor.available())
def test_a_daemon_thread_that_runs_it_lets_the_program_end(name: str) -> None:
    script = f"""
        import threading
        from flowcoro._loop import Loop

        begun = threading.Event()

        def body():
            loop = Loop({name!r})

            def again():
                begun.set()
                loop.call_later(0.001, again)

            again()
            loop.run_forever()

        threading.Thread(target=body, daemon=True).start()
        begun.wait()
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


def test_backends_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no backend 'none'"):
        Loop("none")
    with pytest.raises(TypeError, match="a reactor is told by its name, not 5"):
        Loop(5)  # type: ignore[arg-type]


def test_it_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowcoro import run

    async def name() -> str:
        return type(asyncio.get_running_loop()).__name__

    assert run(name(), loop="flowcoro") == "Loop"
    monkeypatch.setenv("FLOWCORO_LOOP", "flowcoro")
    assert run(name()) == "Loop"


@pytest.mark.parametrize("name", ["add_reader", "add_writer"])
def test_what_cannot_be_waited_for_is_refused(loop: Loop, name: str, tmp_path: Path) -> None:
    watch = getattr(loop, name)
    with open(tmp_path / "file", "w+b") as file:
        for given in (file, file.fileno()):
            with pytest.raises(PermissionError):
                watch(given, print)
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch(100_000, print)
