"""The simulated loop: virtual time, the seed's order, and what is refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest

from flowcoro.testing import SimulatedLoop, SimulationStuck, simulate


def run(main: Coroutine[Any, Any, Any], seed: int = 0, **options: Any) -> Any:
    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(seed, **options)) as runner:
        return runner.run(main)


def test_time_jumps_to_the_next_timer() -> None:
    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, str]] = []
        loop.call_later(7200.5, lambda: seen.append((loop.time(), "late")))
        loop.call_at(3600.0, lambda: seen.append((loop.time(), "early")))
        loop.call_later(1.0, seen.append, (0.0, "never")).cancel()
        await asyncio.sleep(10_000)
        return [*seen, (loop.time(), "end")]

    begun = time.monotonic()
    assert run(main()) == [(3600.0, "early"), (7200.5, "late"), (10_000.0, "end")]
    assert time.monotonic() - begun < 60


def test_timeouts_of_asyncio_and_anyio() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        with anyio.move_on_after(5) as scope:
            await anyio.sleep(6)
        assert scope.cancelled_caught
        return loop.time()

    assert run(main()) == 10.0


def test_many_cancelled_timers_are_forgotten() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        for _ in range(1000):
            loop.call_later(30, print).cancel()
        assert len(loop._timers) < 300
        handle = loop.call_later(1, lambda: None)
        await asyncio.sleep(2)
        handle.cancel()  # it has run: none of those that wait
        assert loop._cancelled_timers >= 0

    run(main())


@pytest.mark.parametrize("kind", ["event", "task"])
def test_a_deadlock_tells_who_waits_where(kind: str) -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(waits_for_ever(), name="the waiter")
        if kind == "task":
            await task
        await asyncio.Event().wait()

    with pytest.raises(SimulationStuck) as stuck:
        run(main())
    assert "deadlock" in str(stuck.value)
    assert "task 'the waiter' stands here:" in str(stuck.value)
    assert "waits_for_ever" in str(stuck.value)
    assert __file__ in str(stuck.value)


def test_what_goes_on_for_ever_is_ended() -> None:
    async def beats() -> None:
        while True:  # noqa: ASYNC110 - that is what is tested
            await asyncio.sleep(1)

    async def spins() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(SimulationStuck, match="after 100 virtual seconds"):
        run(beats(), max_time=100)
    with pytest.raises(SimulationStuck, match="after 5000 callbacks"):
        run(spins(), max_steps=5000)


async def who_comes_first(count: int) -> tuple[int, ...]:
    order: list[int] = []

    async def come(number: int) -> None:
        order.append(number)

    await asyncio.gather(*(come(number) for number in range(count)))
    return tuple(order)


def test_the_seed_chooses_among_tasks() -> None:
    orders = {run(who_comes_first(3), seed) for seed in range(100)}
    assert len(orders) == 6
    assert all(run(who_comes_first(3), seed) == run(who_comes_first(3), seed) for seed in range(9))


def test_fifo_is_the_order_of_asyncio() -> None:
    assert {run(who_comes_first(5), seed, order="fifo") for seed in range(20)} == {(0, 1, 2, 3, 4)}


async def two_who_schedule() -> list[tuple[str, int]]:
    loop = asyncio.get_running_loop()
    called: list[tuple[str, int]] = []

    async def schedule(name: str) -> None:
        for number in range(3):
            loop.call_soon(called.append, (name, number))

    await asyncio.gather(schedule("a"), schedule("b"))
    await asyncio.sleep(0)
    return called


def test_what_one_task_schedules_stays_in_order() -> None:
    mixed = set()
    for seed in range(100):
        called = run(two_who_schedule(), seed)
        for name in "ab":
            assert [number for who, number in called if who == name] == [0, 1, 2]
        mixed.add(tuple(called))
    assert len(mixed) > 10


def test_sets_of_tasks_have_an_order_of_the_seed() -> None:
    async def main() -> tuple[list[str], list[int]]:
        loop = asyncio.get_running_loop()
        tasks = {asyncio.create_task(asyncio.sleep(0), name=str(n)) for n in range(10)}
        futures = [loop.create_future() for _ in range(10)]
        order = [futures.index(future) for future in set(futures)]
        await asyncio.wait(tasks)
        return [task.get_name() for task in tasks], order

    assert run(main(), 3) == run(main(), 3)
    assert len({str(run(main(), seed)) for seed in range(10)}) > 5


def test_turns_are_kept() -> None:
    """A task that gives way lets all others run that are ready."""

    async def main() -> None:
        counts = [0, 0, 0]

        async def count(index: int) -> None:
            for _ in range(50):
                counts[index] += 1
                assert max(counts) - min(counts) <= 1
                await asyncio.sleep(0)

        await asyncio.gather(*map(count, range(3)))

    for seed in range(20):
        run(main(), seed)


def test_what_is_due_within_a_stall_is_ready_together() -> None:
    async def main() -> tuple[float, list[str]]:
        loop = asyncio.get_running_loop()
        order: list[str] = []

        async def after(delay: float, name: str) -> None:
            await asyncio.sleep(delay)
            order.append(name)

        await asyncio.gather(after(1.0, "first"), after(1.001, "second"))
        return loop.time(), order

    assert run(main()) == (1.001, ["first", "second"])
    ends, orders = zip(*(run(main(), seed, stalls=0.5) for seed in range(50)), strict=True)
    assert min(ends) >= 1.001
    assert 1.01 < max(ends) < 1.5
    assert ["second", "first"] in orders


def test_stop_ends_with_the_turn() -> None:
    loop = SimulatedLoop(order="fifo")
    called: list[int] = []

    def first() -> None:
        called.append(1)
        loop.call_soon(called.append, 3)
        loop.stop()

    try:
        loop.call_soon(first)
        loop.call_soon(called.append, 2)
        loop.run_forever()
        assert called == [1, 2]
        loop.stop()
        loop.run_forever()
        assert called == [1, 2, 3]
    finally:
        loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(first)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, first)


def test_what_raises_out_of_the_loop_loses_nothing() -> None:
    loop = SimulatedLoop(order="fifo")
    called: list[int] = []

    def leave() -> None:
        raise KeyboardInterrupt

    try:
        loop.call_soon(leave)
        loop.call_soon(called.append, 1)
        loop.call_soon(loop.stop)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_forever()
        assert called == [1]
    finally:
        loop.close()


def test_executors_run_inline_at_a_moment_of_the_seed() -> None:
    async def main() -> tuple[float, ...]:
        loop = asyncio.get_running_loop()
        thread = threading.get_ident()
        assert await asyncio.to_thread(threading.get_ident) == thread
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await loop.run_in_executor(None, next, iter(()))
        ran: list[int] = []
        cancelled = loop.run_in_executor(None, ran.append, 1)
        cancelled.cancel()
        with suppress(asyncio.CancelledError):
            await cancelled
        await asyncio.sleep(1)
        assert not ran
        begun = loop.time()
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0) for _ in range(3)))
        return (begun, loop.time())

    assert run(main(), 1) == run(main(), 1)
    assert run(main(), 1) != run(main(), 2)


def test_results_of_threads_come_in_any_order() -> None:
    async def main() -> tuple[int, ...]:
        done: list[int] = []

        async def work(number: int) -> None:
            done.append(await asyncio.to_thread(lambda: number))

        await asyncio.gather(*map(work, range(3)))
        return tuple(done)

    assert len({run(main(), seed) for seed in range(60)}) == 6


def test_other_threads_are_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        errors: list[BaseException] = []

        def call() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except NotImplementedError as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert "no seed chooses" in str(errors[0])
        done = loop.create_future()
        loop.call_soon_threadsafe(done.set_result, None)
        await done

    run(main())


async def refused() -> None:
    loop = asyncio.get_running_loop()
    for call in (
        loop.sock_recv(None, 1),  # type: ignore[arg-type]
        loop.subprocess_exec(asyncio.SubprocessProtocol, "true"),
        loop.connect_accepted_socket(asyncio.Protocol, None),  # type: ignore[arg-type]
        loop.create_connection(asyncio.Protocol, "main", 1, ssl=True),
        loop.create_server(asyncio.Protocol, sock=object()),  # type: ignore[call-overload]
    ):
        with pytest.raises(NotImplementedError, match="cannot be simulated"):
            await call
    with pytest.raises(NotImplementedError, match=r"asyncio\.open_connection"):
        loop.add_reader(0, print)


def test_what_is_refused_says_what_to_do() -> None:
    run(refused())


def test_tasks_of_another_factory_are_permuted_too() -> None:
    async def main() -> tuple[int, ...]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop))
        return await who_comes_first(3)

    assert len({run(main(), seed) for seed in range(100)}) == 6


def test_debug_mode_and_async_generators() -> None:
    closed: list[str] = []

    async def numbers() -> Any:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(1)
            closed.append("closed")

    async def main(loop: SimulatedLoop) -> None:
        loop.set_debug(True)
        generator = numbers()
        assert await anext(generator) == 0
        del generator
        await asyncio.sleep(2)
        assert closed.pop() == "closed"
        await asyncio.create_task(asyncio.sleep(0), name="named")

    simulate(main, seeds=5)
    with pytest.raises(ValueError, match="order"):
        SimulatedLoop(order="sorted")  # type: ignore[arg-type]
