"""Cancelling at every await must find what is wrong: each test plants a bug, or asks for none."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from fault_cases import Run, every_loop, run_on
from flowcoro.memory import BufferPool
from flowcoro.testing import CancelFailure, CancelPoint, _conserved, cancel_at_each_await

pytestmark = every_loop

posix = pytest.mark.skipif(sys.platform == "win32", reason="sockets are no descriptors there")


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


def failure_of(
    run: Run, scenario: Callable[[], Coroutine[Any, Any, object]], **options: Any
) -> Any:
    with pytest.raises(CancelFailure) as failure:
        run(cancel_at_each_await(scenario, **options))
    return failure.value


@posix
def test_a_leaked_socket(run: Run) -> None:
    kept: list[socket.socket] = []

    async def scenario() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        kept.append(listener)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # closed in time when cancelled before, not here
        listener.close()

    try:
        failure = failure_of(run, scenario)
        [problem] = failure.problems
        number, port = kept[-1].fileno(), kept[-1].getsockname()[1]
        assert re.match(rf"file descriptor {number} is left open: socket:.*", problem)
        if sys.platform == "linux":
            assert f"127.0.0.1:{port}" in problem
        assert failure.point.number == 1
        assert f"await 1 (cancelled while it waited), {__file__}:" in str(failure)
        assert "in test_a_leaked_socket.<locals>.scenario" in str(failure)
    finally:
        for each in kept:
            each.close()


@posix
def test_descriptors_may_be_left_to_themselves(run: Run) -> None:
    kept: list[int] = []

    async def scenario() -> None:
        reading, writing = os.pipe()
        kept.extend((reading, writing))
        await asyncio.sleep(0)

    run(cancel_at_each_await(scenario, descriptors=False))
    for each in kept:
        os.close(each)


@posix
def test_what_only_the_garbage_collector_closes_is_left(run: Run) -> None:
    class Ring:
        def __init__(self) -> None:
            self.pipe = os.pipe()
            self.me = self

        def __del__(self) -> None:
            for each in self.pipe:
                os.close(each)

    async def scenario() -> None:
        ring = Ring()
        await asyncio.sleep(0)
        ring.me = None  # type: ignore[assignment]

    failure = failure_of(run, scenario)
    assert len(failure.problems) == 2
    assert all(each.endswith("(until the garbage collector came)") for each in failure.problems)


@posix
def test_a_run_keeps_nothing_of_its_own(run: Run) -> None:
    """What a coroutine's frame alone holds is closed as soon as it has ended."""

    class Pipe:
        def __init__(self) -> None:
            self.pipe = os.pipe()

        def __del__(self) -> None:
            for each in self.pipe:
                os.close(each)

    async def inner() -> None:
        pipe = Pipe()
        await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.sleep(0), 30)
        del pipe

    async def scenario() -> None:
        pipe = Pipe()
        await asyncio.gather(inner(), inner())
        del pipe

    def in_wait_for(point: CancelPoint) -> bool:
        return any("wait_for" in frame for frame in point.stack)

    # Python 3.11's wait_for swallows a cancellation that comes when its inside is done.
    run(cancel_at_each_await(scenario, children=True, allow_swallowed=in_wait_for))


@posix
def test_descriptors_are_found_without_a_list_of_them(run: Run) -> None:
    reading, writing = os.pipe()
    try:
        scanned = dict(_conserved._scanned())
        assert scanned[reading].startswith("pipe:")
        assert scanned.keys() >= {reading, writing}
        if sys.platform == "linux":
            listed = {number for number in _conserved.descriptors() if number < 4096}
            assert scanned.keys() == listed
    finally:
        os.close(reading)
        os.close(writing)


def test_a_leaked_task(run: Run) -> None:
    event_of: list[asyncio.Event] = []

    async def background() -> None:
        event_of.append(asyncio.Event())
        await event_of[-1].wait()

    async def scenario() -> None:
        task = asyncio.create_task(background(), name="forgotten")
        await asyncio.sleep(0)
        task.cancel()

    failure = failure_of(run, scenario)
    [problem] = failure.problems
    assert problem.startswith(f"task 'forgotten' at {__file__}:")
    assert problem.endswith("background is left running")


def test_a_leaked_thread(run: Run) -> None:
    end = threading.Event()
    threads: list[threading.Thread] = []

    async def scenario() -> None:
        thread = threading.Thread(target=end.wait, name="forgotten")
        threads.append(thread)
        thread.start()
        await asyncio.sleep(0)
        if len(threads) < 3:  # the two runs that are not cancelled
            end.set()
            thread.join()
            end.clear()

    try:
        failure = failure_of(run, scenario, threads=True)
        assert failure.problems == ("thread 'forgotten' is left running",)
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_what_ends_in_another_thread_is_given_time(run: Run) -> None:
    async def scenario() -> None:
        end = threading.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=end.wait).start()
        try:
            await asyncio.sleep(0)
        finally:
            loop.call_later(0.02, end.set)

    run(cancel_at_each_await(scenario, threads=True, settle=30))
    failure = failure_of(run, scenario, threads=True)
    assert "is left running" in failure.problems[0]


def test_what_closes_in_the_next_turns_is_given_them(run: Run) -> None:
    held = 0

    async def scenario() -> None:
        nonlocal held
        held += 1

        def later(turns: int) -> None:
            nonlocal held
            if turns:
                asyncio.get_running_loop().call_soon(later, turns - 1)
            else:
                held -= 1

        try:
            await asyncio.sleep(0)
        finally:
            later(10)

    run(cancel_at_each_await(scenario, counters={"held": lambda: held}))


def test_a_leaked_buffer(run: Run) -> None:
    pool = BufferPool(64)
    kept: list[object] = []

    async def scenario() -> None:
        kept.append(pool.try_acquire())
        await asyncio.sleep(0)
        kept.pop()

    failure = failure_of(run, scenario, counters={"buffers": lambda: pool.stats().live})
    assert failure.problems == ("counter 'buffers': 0 before, 1 after",)


def test_a_swallowed_cancellation(run: Run) -> None:
    async def scenario() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    failure = failure_of(run, scenario)
    assert failure.problems == ("it swallowed the cancellation: it went on and returned",)
    report = run(cancel_at_each_await(scenario, allow_swallowed=True))
    assert {point.outcome for point in report.points} == {"finished"}


def test_swallowing_may_be_allowed_at_a_point(run: Run) -> None:
    async def scenario() -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    def first_only(point: CancelPoint) -> bool:
        return point.number == 1

    failure = failure_of(run, scenario, allow_swallowed=first_only)
    assert failure.point.number == 2


def test_one_that_a_task_inside_swallows(run: Run) -> None:
    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    async def scenario() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await task

    failure = failure_of(run, scenario)
    assert failure.point.number == 2
    assert "swallowed" in failure.problems[0]


def test_another_exception(run: Run) -> None:
    async def scenario() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise ConnectionError("gone") from None

    failure = failure_of(run, scenario)
    assert failure.problems == ("it raised ConnectionError: gone instead of CancelledError",)
    assert isinstance(failure.__cause__, ConnectionError)
    report = run(cancel_at_each_await(scenario, allow_errors=(OSError,)))
    assert {point.outcome for point in report.points} == {"raised"}


def test_a_hang(run: Run) -> None:
    async def scenario() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await asyncio.Event().wait()  # for somebody who was cancelled, too

    async def main() -> None:
        before = asyncio.all_tasks()
        with pytest.raises(CancelFailure) as failure:
            await cancel_at_each_await(scenario, deadline=0.2)
        text = str(failure.value)
        assert "it did not end within 0.2 seconds" in text
        _, _, now = text.partition("it now stands here:")
        assert re.search(rf"{re.escape(__file__)}:\d+ in .*scenario\n", now)
        assert "Event.wait" in now
        assert asyncio.all_tasks() == before

    run(main())


def test_a_hang_that_no_cancellation_ends(run: Run) -> None:
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        cancelled = False
        while turns < 2 or cancelled:
            turns += not cancelled
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                cancelled = True

    async def main() -> None:
        nonlocal turns
        before = asyncio.all_tasks()

        async def again() -> None:
            nonlocal turns
            turns = 0
            await scenario()

        with pytest.raises(CancelFailure, match="did not end within"):
            await cancel_at_each_await(again, deadline=0.2)
        assert asyncio.all_tasks() == before

    run(main())


def test_a_hang_without_any_cancellation(run: Run) -> None:
    async def scenario() -> None:
        await asyncio.Event().wait()

    failure = failure_of(run, scenario, deadline=0.05)
    assert failure.point is None
    assert str(failure).startswith("not cancelled at all:")


def test_a_leak_without_any_cancellation(run: Run) -> None:
    held = 0

    async def scenario() -> None:
        nonlocal held
        held += 1

    failure = failure_of(run, scenario, counters={"held": lambda: held})
    assert failure.point is None
    assert failure.problems == ("counter 'held': 1 before, 2 after",)


def test_what_only_the_first_run_leaves_is_no_leak(run: Run) -> None:
    cache: set[str] = set()

    async def scenario() -> None:
        cache.add("connection")
        await asyncio.sleep(0)

    run(cancel_at_each_await(scenario, counters={"cached": lambda: len(cache)}))


def test_errors_of_the_scenario_itself_are_the_callers(run: Run) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(cancel_at_each_await(fails))

    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    assert "cancelled by itself" in failure_of(run, cancels_itself).problems[0]


def test_a_check_after_each_run(run: Run) -> None:
    served = 0
    broken = False

    async def scenario() -> None:
        nonlocal broken
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            broken = True
            raise

    async def still_serves() -> None:
        nonlocal served
        await asyncio.sleep(0)
        assert not broken, "it serves no more"
        served += 1

    failure = failure_of(run, scenario, check=still_serves)
    assert failure.problems[0].startswith("the check failed: AssertionError: it serves no more")
    assert failure.point.number == 1
    assert served == 2

    def plain() -> None:
        raise ValueError("wrong")

    broken = False
    failure = failure_of(run, scenario, check=plain)
    assert failure.problems == ("the check failed: ValueError: wrong",)
    assert failure.point is None


def test_a_check_that_hangs(run: Run) -> None:
    async def scenario() -> None:
        pass

    failure = failure_of(run, scenario, check=lambda: asyncio.sleep(30), deadline=0.2)
    assert failure.problems[0].startswith("the check failed: TimeoutError")


def test_what_the_loop_is_told(run: Run) -> None:
    async def fail() -> None:
        raise ValueError("nobody looked")

    async def scenario() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="nobody looked"):
            await task

    async def main() -> None:
        with pytest.raises(CancelFailure) as failure:
            await cancel_at_each_await(scenario)
        assert failure.value.problems == (
            "the loop was told: Task exception was never retrieved: ValueError: nobody looked",
        )
        assert asyncio.get_running_loop().get_exception_handler() is None
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        await cancel_at_each_await(scenario, loop_errors=False)

    run(main())


def test_a_scenario_that_does_not_end(run: Run) -> None:
    async def scenario() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    failure = failure_of(run, scenario, max_awaits=9)
    assert failure.problems == ("it has more than 9 awaits",)
    assert run(cancel_at_each_await(scenario, max_awaits=10)).awaits == 10
