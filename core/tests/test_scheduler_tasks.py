"""One task and its handle: results, exceptions, context, what is refused."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import traceback
from typing import Any

import pytest

from flowcoro import _native
from flowcoro.scheduler import Handle, PriorityScheduler, WorkStealingScheduler, yield_now
from lockfree_cases import Item, start, until
from scheduler_cases import (
    SOON,
    Gate,
    MakeScheduler,
    busy,
    each,
    running,
    state,
    until_state,
)


@each
def test_results(make: MakeScheduler) -> None:
    item = Item()

    async def add(a: int, b: int) -> int:
        await yield_now()
        return a + b

    with running(make) as scheduler:
        assert scheduler.schedule(pow, 2, 5).result(SOON) == 32
        assert scheduler.schedule(lambda: None).result(SOON) is None
        assert scheduler.schedule(lambda: item).result(SOON) is item
        assert scheduler.schedule(add, 1, 2).result(SOON) == 3
        assert scheduler.schedule(add(3, 4)).result(SOON) == 7
        assert scheduler.schedule(functools.partial(add, 5), 6).result(SOON) == 11
        handle = scheduler.schedule(int)
        assert [handle.result(), handle.result(0), handle.exception()] == [0, 0, None]
        assert (handle.done(), handle.running(), handle.cancelled()) == (True, False, False)


@each
def test_only_coroutines_are_run_further(make: MakeScheduler) -> None:
    def numbers() -> Any:
        yield 1

    async def inner() -> int:
        return 1

    async def outer() -> Any:
        return inner()

    with running(make) as scheduler:
        generator = scheduler.schedule(numbers).result(SOON)
        assert list(generator) == [1]
        coroutine = scheduler.schedule(outer).result(SOON)
        assert asyncio.run(coroutine) == 1


@each
def test_an_exception_comes_with_the_frames_of_the_task(make: MakeScheduler) -> None:
    def deep() -> None:
        raise LookupError("lost")

    def shallow() -> None:
        deep()

    async def coroutine() -> None:
        await yield_now()
        shallow()

    with running(make) as scheduler:
        for task in shallow, coroutine, coroutine():
            handle = scheduler.schedule(task)
            with pytest.raises(LookupError, match="lost") as caught:
                handle.result(SOON)
            names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
            assert names[-2:] == ["shallow", "deep"]
            assert handle.exception() is caught.value
            assert state(handle) == "failed"
            assert handle.done()
            assert not handle.cancelled()


@each
def test_the_traceback_does_not_grow_with_those_who_ask(make: MakeScheduler) -> None:
    def fail() -> None:
        raise LookupError

    def ask(handle: Handle[None]) -> list[str]:
        with pytest.raises(LookupError) as caught:
            handle.result(SOON)
        return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    async def wait_for(handle: Handle[None]) -> None:
        await handle

    with running(make) as scheduler:
        handle = scheduler.schedule(fail)
        first = ask(handle)
        assert first == ["ask", "fail"]
        with pytest.raises(LookupError):
            asyncio.run(wait_for(handle))
        assert [ask(handle) for _ in range(3)] == [first] * 3


@each
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_any_exception_stays_in_the_handle(make: MakeScheduler, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("out")

    with running(make, 1) as scheduler:
        handle = scheduler.schedule(fail)
        with pytest.raises(kind, match="out"):
            handle.result(SOON)
        assert isinstance(handle.exception(), kind)
        assert scheduler.schedule(int).result(SOON) == 0  # the worker is there still


@each
def test_system_exit_in_a_coroutine_stays_in_the_handle(make: MakeScheduler) -> None:
    async def fail() -> None:
        await yield_now()
        sys.exit(3)

    with running(make, 1) as scheduler:
        with pytest.raises(SystemExit) as caught:
            scheduler.schedule(fail).result(SOON)
        assert caught.value.code == 3
        assert scheduler.schedule(int).result(SOON) == 0


@each
def test_a_task_that_raises_cancelled_error_is_cancelled(make: MakeScheduler) -> None:
    def call() -> None:
        raise asyncio.CancelledError("enough")

    async def coroutine() -> None:
        await yield_now()
        call()

    with running(make) as scheduler:
        for task in call, coroutine:
            handle = scheduler.schedule(task)
            with pytest.raises(asyncio.CancelledError, match="enough"):
                handle.result(SOON)
            with pytest.raises(asyncio.CancelledError, match="enough"):
                handle.exception(SOON)
            assert handle.cancelled()
            assert state(handle) == "cancelled"


@each
def test_a_timeout_takes_nothing_away(make: MakeScheduler) -> None:
    gate = Gate()
    with running(make) as scheduler:
        handle = scheduler.schedule(gate, 5)
        for ask in handle.result, handle.exception:
            for timeout in 0, 0.001:
                with pytest.raises(TimeoutError, match=r"Gate.* has not ended within the timeout"):
                    ask(timeout)
        gate.open()
        assert handle.result(float("inf")) == 5
        assert handle.result(10**400) == 5


@each
def test_many_threads_ask_one_handle(make: MakeScheduler) -> None:
    gate = Gate()
    with running(make) as scheduler:
        handle = gate.shut(scheduler)
        asking = [start(lambda: handle.result(SOON)) for _ in range(8)]
        gate.open()
        assert [each.result() for each in asking] == [None] * 8


@each
def test_bad_timeouts(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        handle = scheduler.schedule(int)
        for call in handle.result, handle.exception, lambda t: scheduler.shutdown(timeout=t):
            for bad in -1, -0.5, float("nan"), float("-inf"), -(10**400):
                with pytest.raises(ValueError, match="timeout must not be"):
                    call(bad)
            for wrong in "1", [], object():
                with pytest.raises(TypeError, match="timeout must be a number"):
                    call(wrong)
        assert not scheduler.closed
        with pytest.raises(TypeError):
            scheduler.shutdown(True)


@each
def test_bad_tasks(make: MakeScheduler) -> None:
    async def coroutine() -> None:
        raise AssertionError("never run")

    with running(make) as scheduler:
        for wrong in 1, None, "print", iter(()):
            with pytest.raises(TypeError, match="expected a callable or a coroutine, not"):
                scheduler.schedule(wrong)
        with pytest.raises(TypeError):
            scheduler.schedule()
        made = coroutine()
        with pytest.raises(TypeError, match="a coroutine takes no arguments"):
            scheduler.schedule(made, 1)
        made.close()
        with pytest.raises(TypeError):
            scheduler.schedule(int, base=2)
        with pytest.raises(TypeError):
            scheduler.schedule(int, 1, 2, 3).result(SOON)
        until(lambda: scheduler.unfinished == 0)


@each
def test_a_coroutine_is_run_once(make: MakeScheduler) -> None:
    async def coroutine() -> int:
        return 1

    with running(make) as scheduler:
        made = coroutine()
        assert scheduler.schedule(made).result(SOON) == 1
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            scheduler.schedule(made).result(SOON)


@each
def test_bad_numbers_of_threads(make: Any) -> None:
    for bad in 0, -1, -(10**30):
        with pytest.raises(ValueError, match="num_threads must be at least 1"):
            make(bad)
    for huge in 1025, 10**30:
        with pytest.raises(OverflowError, match="num_threads must be at most 1024"):
            make(huge)
    for wrong in "2", 2.0, None:
        with pytest.raises(TypeError, match="num_threads must be an integer"):
            make(wrong)
    with pytest.raises(TypeError):
        make()
    with running(make, 1) as scheduler:
        assert scheduler.num_threads == 1


def test_bad_starvation_bounds() -> None:
    for bad in 0, -1:
        with pytest.raises(ValueError, match="starvation_bound must be at least 1"):
            PriorityScheduler(1, bad)
    with pytest.raises(OverflowError, match="starvation_bound"):
        PriorityScheduler(1, 2**31 + 1)
    with pytest.raises(TypeError, match="starvation_bound"):
        PriorityScheduler(1, "64")  # type: ignore[arg-type]
    with running(lambda n: PriorityScheduler(n, 2**31)) as scheduler:
        assert scheduler.starvation_bound == 2**31


def test_what_is_no_scheduler() -> None:
    class Unmade(WorkStealingScheduler):
        def __init__(self) -> None:
            pass

    for wrong in 42, None, object():
        for method in _native.Scheduler.shutdown, _native.Scheduler.on_worker:
            with pytest.raises(TypeError):
                method(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError), pytest.warns(RuntimeWarning, match="uninitialized"):
        Unmade().shutdown()
    for kind in _native.Scheduler, Handle:
        with pytest.raises(TypeError):
            kind()


@each
def test_repr_tells_the_state(make: MakeScheduler) -> None:
    gate = Gate()

    async def coroutine() -> None:
        await scheduler.schedule(gate)

    def callable_object() -> Any:
        return functools.partial(gate, 1)

    with running(make, 1) as scheduler:
        waiting = scheduler.schedule(coroutine)
        until_state(waiting, "waiting")
        assert "test_repr_tells_the_state.<locals>.coroutine waiting>" in repr(waiting)
        assert gate.entered.wait(SOON)
        pending = scheduler.schedule(len, ())
        assert repr(pending) == "<Handle builtins.len pending>"
        partial = scheduler.schedule(callable_object())
        assert "functools.partial(" in repr(partial)
        assert pending.cancel()
        assert repr(pending) == "<Handle cancelled>"
        gate.open()
        waiting.result(SOON)
        assert repr(waiting) == "<Handle done>"
        failed = scheduler.schedule(len)
        assert failed.exception(SOON) is not None
        assert repr(failed) == "<Handle failed>"
    held = Gate()
    with running(make, 1) as scheduler:
        handle = held.shut(scheduler)
        assert handle.running()
        assert state(handle) == "running"
        held.open()


@each
def test_repr_survives_what_has_a_bad_repr(make: MakeScheduler) -> None:
    class Bad:
        def __call__(self) -> int:
            return 1

        def __repr__(self) -> str:
            raise ValueError

    with running(make, 1) as scheduler, busy(scheduler):
        assert repr(scheduler.schedule(Bad())) == "<Handle ? pending>"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


@each
def test_context_is_a_copy_of_the_callers(make: MakeScheduler) -> None:
    def call() -> str:
        before = variable.get()
        variable.set("by the task")
        return before

    async def coroutine() -> list[str]:
        seen = [variable.get()]
        variable.set("by the coroutine")
        for _ in range(20):
            await yield_now()
            seen.append(variable.get())
        await scheduler.sleep(0.001)
        seen.append(variable.get())
        seen.append(await scheduler.schedule(variable.get))
        return seen

    def schedule_all() -> list[Handle[Any]]:
        variable.set("callers")
        with busy(scheduler):
            handles = [scheduler.schedule(call) for _ in range(4)]
            handles += [scheduler.schedule(coroutine) for _ in range(4)]
            variable.set("changed")
        results = [handle.result(SOON) for handle in handles]
        assert results[:4] == ["callers"] * 4
        assert results[4:] == [["callers"] + ["by the coroutine"] * 22] * 4
        assert variable.get() == "changed"
        return handles

    with running(make) as scheduler:
        contextvars.copy_context().run(schedule_all)
        clean = contextvars.copy_context()
        for _ in range(10):  # nothing stayed with a worker
            assert clean.run(scheduler.schedule, variable.get).result(SOON) == "default"


@each
def test_done_callbacks(make: MakeScheduler) -> None:
    gate, seen = Gate(), []
    all_called = threading.Event()

    def note(name: str) -> Any:
        def callback(of: Handle[Any]) -> None:
            seen.append((name, of is handle, of.done(), of.result(0), scheduler.on_worker()))
            if name == "last":
                all_called.set()

        return callback

    with running(make) as scheduler:
        handle = gate.shut(scheduler)
        for name in "first", "second", "last":
            handle.add_done_callback(note(name))
        assert not seen
        gate.open()
        assert all_called.wait(SOON)
        assert seen == [(name, True, True, None, True) for name in ("first", "second", "last")]
        handle.add_done_callback(note("after"))  # here and now
        assert seen[3:] == [("after", True, True, None, False)]
        for wrong in None, 1:
            with pytest.raises(TypeError, match="expected a callable"):
                handle.add_done_callback(wrong)  # type: ignore[arg-type]


@each
def test_what_leaves_a_done_callback_is_reported(
    make: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    last = threading.Event()
    monkeypatch.setattr(sys, "unraisablehook", lambda what: reported.append(what.exc_value))

    def bad(_: Handle[Any]) -> None:
        raise KeyboardInterrupt("in a callback")

    with running(make, 1) as scheduler:
        gate = Gate()
        handle = gate.shut(scheduler)
        handle.add_done_callback(bad)
        handle.add_done_callback(lambda _: last.set())
        gate.open()
        assert last.wait(SOON)
        assert handle.result(SOON) is None
        assert scheduler.schedule(int).result(SOON) == 0
        handle.add_done_callback(bad)
        assert [str(error) for error in reported] == ["in a callback"] * 2
        reported.clear()
        gc.collect()


@each
def test_callbacks_of_what_never_began_are_called_by_who_cancels(make: MakeScheduler) -> None:
    seen: list[Any] = []
    with running(make, 1) as scheduler, busy(scheduler):
        handle = scheduler.schedule(int)
        handle.add_done_callback(lambda of: seen.append((threading.get_ident(), of.cancelled())))
        assert handle.cancel()
        assert seen == [(threading.get_ident(), True)]


@each
def test_to_block_a_worker_is_refused(make: MakeScheduler) -> None:
    def wait_for(handle: Handle[int]) -> str:
        errors = []
        for ask in handle.result, handle.exception:
            with pytest.raises(RuntimeError, match="would block") as caught:
                ask(0)
            errors.append(str(caught.value))
        return errors[0]

    gate = Gate()
    with running(make) as scheduler, running(make) as other:
        held = gate.shut(scheduler)
        assert "await the handle" in scheduler.schedule(wait_for, held).result(SOON)
        waiting = other.schedule(held.result, SOON)  # another's worker may
        gate.open()
        assert waiting.result(SOON) is None
        assert scheduler.schedule(held.result).result(SOON) is None  # it has ended
        assert scheduler.schedule(scheduler.on_worker).result(SOON) is True
        assert other.schedule(scheduler.on_worker).result(SOON) is False
        assert not scheduler.on_worker()
