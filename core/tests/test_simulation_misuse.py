"""What a program does that a simulation might get wrong, and what its user does."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flowcoro.testing import SimulatedLoop, SimulationFailure, simulate

pytest_plugins = ["pytester"]


async def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seeds": 0}, "seeds must be how many to try, 1 or more, not 0"),
        ({"seeds": "5"}, "seeds must be how many to try, 1 or more, not '5'"),
        ({"first_seed": None}, "first_seed must be an integer, not None"),
        ({"seed": "5"}, "seed must be an integer, not '5'"),
        ({"stalls": 5}, "stalls must be a probability, from 0 to 1, not 5"),
        ({"max_time": float("nan")}, "max_time must be seconds, more than 0, not nan"),
        ({"max_steps": 0}, "max_steps must be a number of callbacks, 1 or more, not 0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        simulate(nothing, **options)
    assert str(caught.value) == told


@pytest.mark.parametrize("main", [42, lambda: None], ids=["no function", "no coroutine"])
def test_what_is_no_program(main: Any) -> None:
    with pytest.raises(TypeError, match="main must be a coroutine function") as caught:
        simulate(main, seeds=3)
    assert type(caught.value) is TypeError


def test_a_simulation_does_not_run_within_a_loop() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="call it where no event loop runs"):
            simulate(nothing, seeds=1)

    asyncio.run(main())


def test_only_one_thread_simulates() -> None:
    """Two would give back each other's clocks."""
    told: list[BaseException] = []

    def other() -> None:
        try:
            simulate(nothing, seeds=1)
        except RuntimeError as error:
            told.append(error)

    async def main() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)

    clock = time.monotonic
    simulate(main, seeds=1)
    assert "a simulation runs already" in str(told[0])
    assert time.monotonic is clock
    simulate(nothing, seeds=1)


def test_sleeping_backwards_is_an_error() -> None:
    async def main(loop: SimulatedLoop) -> None:
        with pytest.raises(ValueError, match="sleep length must be non-negative"):
            time.sleep(-1)  # noqa: ASYNC251
        assert loop.time() >= 0

    simulate(main, seeds=1)


def test_generators_without_a_seed_have_the_runs() -> None:
    drawn: list[object] = []

    async def main() -> None:
        first = random.Random().random()
        random.seed()
        own = random.Random()
        own.seed()
        drawn.append((first, random.random(), own.random(), uuid.uuid1(), uuid.uuid1()))

    real = random.Random.seed
    simulate(main, seeds=2)
    simulate(main, seeds=2)
    assert drawn[:2] == drawn[2:]
    assert len({*drawn}) == 2
    assert random.Random.seed is real
    assert uuid.uuid1().time > uuid.UUID(int=uuid.uuid1().int).time - 10**10
    assert random.Random(3).random() == random.Random(3).random()


def test_as_completed_makes_its_tasks_in_the_order_given() -> None:
    """asyncio's makes them in the order of the coroutines' addresses."""
    got: list[list[int]] = []

    async def main(loop: SimulatedLoop) -> None:
        finished: list[int] = []

        async def work(number: int) -> None:
            loop.trace.add("work", number)
            await asyncio.sleep(0)
            finished.append(number)

        # Their addresses are in another order with each run.
        works = {number: work(number) for number in random.Random(len(got)).sample(range(9), 9)}
        for each in asyncio.as_completed([works[number] for number in range(9)]):
            await each
        got.append(finished)

    digests = {simulate(main, seed=1).digest for _ in range(5)}
    assert len(digests) == 1
    assert len({tuple(each) for each in got}) == 1


def test_sets_of_transports_and_sockets_have_an_order_of_the_seed() -> None:
    keep: list[object] = []

    async def main(loop: SimulatedLoop) -> None:
        keep.extend(bytes(keep_size) for keep_size in range(len(keep) % 7, 4000, 7))
        del keep[::3]  # so that addresses are others with each run
        server = await loop.create_server(asyncio.Protocol, port=7)
        found: dict[object, int] = {}
        for number in range(6):
            transport, _ = await loop.create_connection(asyncio.Protocol, "main", 7)
            found[transport] = number
            endpoint, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("main", 0)
            )
            found[endpoint] = 10 + number
            keep.append(bytearray(number * 100))
            found[loop.make_socket(socket.AF_INET, socket.SOCK_STREAM)] = 20 + number
        loop.trace.add("order", *(found[each] for each in set(found)))
        server.close()

    assert len({simulate(main, seed=1).digest for _ in range(5)}) == 1


def test_an_executor_of_its_own_is_not_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()

    simulate(main, seeds=5)


def test_no_loop_runs_where_an_executor_does() -> None:
    def in_thread() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        never = nothing()
        with pytest.raises(NotImplementedError, match="another event loop cannot be simulated"):
            asyncio.run(never)
        never.close()

    async def main() -> None:
        await asyncio.to_thread(in_thread)
        assert isinstance(asyncio.get_running_loop(), SimulatedLoop)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        assert isinstance(asyncio.get_running_loop(), SimulatedLoop)

    simulate(main, seeds=5)
    asyncio.run(nothing())


def test_who_is_ended_at_the_time_limit_may_clean_up() -> None:
    cleaned: list[float] = []

    async def main(loop: SimulatedLoop) -> None:
        try:
            await asyncio.sleep(float("inf"))
        finally:
            await asyncio.sleep(1)
            cleaned.append(loop.time())

    for stalls in (0, 1):
        with pytest.raises(SimulationFailure, match="after 10 virtual seconds"):
            simulate(main, seeds=1, max_time=10, stalls=stalls)
    assert len(cleaned) == 4  # each seed that fails runs twice
    assert max(cleaned) < 10


@pytest.mark.parametrize(
    ("port", "error", "told"),
    [(99999, OverflowError, "0 to 65535, not 99999"), ("nosuch", socket.gaierror, "'nosuch'")],
)
def test_a_port_that_is_none(port: Any, error: type[Exception], told: str) -> None:
    async def main() -> None:
        with pytest.raises(error, match=told):
            await asyncio.open_connection("main", port)

    simulate(main, seeds=1)


def test_the_last_events_are_those_before_the_end() -> None:
    """And not those of the tasks that are cancelled then."""

    async def waits() -> None:
        await asyncio.Event().wait()

    async def main(loop: SimulatedLoop) -> None:
        loop.call_soon(lambda: 1 // 0)
        main.task = asyncio.create_task(waits(), name="left over")  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    with pytest.raises(SimulationFailure, match="ZeroDivisionError") as caught:
        simulate(main, seeds=1, stalls=0)
    assert [line for line in caught.value.trace if "left over" in line] == [
        "0.000000 run left over"
    ]


def test_signals_are_refused_with_words() -> None:
    async def main(loop: SimulatedLoop) -> None:
        with pytest.raises(NotImplementedError, match="a signal cannot be simulated: call its"):
            loop.add_signal_handler(signal.SIGTERM, print)

    simulate(main, seeds=1)


def test_a_failed_task_in_a_cycle_is_found() -> None:
    """Nobody has asked for its exception, and only the garbage collector would tell."""

    class Owner:
        def __init__(self) -> None:
            self.itself = self
            self.task = asyncio.ensure_future(self.fail())

        async def fail(self) -> None:
            raise ValueError("nobody asked")

    async def main() -> None:
        Owner()
        await asyncio.sleep(1)

    with pytest.raises(SimulationFailure, match="nobody asked"):
        simulate(main, seeds=1)


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    "error", [ValueError("no"), UnpicklableError()], ids=["plain", "with lock"]
)
def test_a_failure_goes_from_one_process_to_another(error: Exception) -> None:
    async def main() -> None:
        raise error

    with pytest.raises(SimulationFailure) as caught:
        simulate(main, seeds=1, first_seed=7)
    failure = caught.value
    there = pickle.loads(pickle.dumps(failure))
    assert (there.seed, there.digest, there.trace) == (7, failure.digest, failure.trace)
    assert there.replays is failure.replays
    assert str(error) in str(there)
    assert str(error) in str(there.original)


def test_a_failure_of_pytest_is_a_finding() -> None:
    """`pytest.fail`, and `pytest.raises` around what does not, raise no `Exception`."""

    async def main() -> None:
        with pytest.raises(ValueError, match="never"):
            await asyncio.sleep(1)

    with pytest.raises(SimulationFailure, match="DID NOT RAISE") as caught:
        simulate(main, seeds=1)
    assert caught.value.replays

    async def skips() -> None:
        pytest.skip("not here")

    with pytest.raises(pytest.skip.Exception, match="not here"):
        simulate(skips, seeds=1)


def on_a_file(body: Callable[[SimulatedLoop, Any], Awaitable[object]]) -> None:
    async def main(loop: SimulatedLoop) -> None:
        loop.disk.short_write = 0.0
        file = await loop.disk.open("/file", os.O_RDWR | os.O_CREAT)
        await file.write_at(b"hello", 0)
        await body(loop, file)
        assert loop.disk.peek("/file") == b"hello"

    simulate(main, seeds=1)


@pytest.mark.parametrize(
    "call",
    [
        lambda file: file.read_at(-1, 0),
        lambda file: file.read_at(1, -2),
        lambda file: file.write_at(b"x", -1),
        lambda file: file.truncate(-2),
    ],
    ids=["read", "read before", "write before", "truncate"],
)
def test_a_disk_knows_no_negative_numbers(call: Callable[[Any], Awaitable[object]]) -> None:
    async def body(_: SimulatedLoop, file: Any) -> None:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            await call(file)
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "/file")

    on_a_file(body)


def test_a_disk_call_that_is_to_fail_must_exist() -> None:
    async def body(loop: SimulatedLoop, _: Any) -> None:
        with pytest.raises(ValueError, match="call = 'fsnyc': expected one of fstat, fsync"):
            loop.disk.fail("fsnyc", errno.EIO)

    on_a_file(body)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"latency": 0.1}, r"latency must be \(least, most\) in seconds, not 0.1"),
        ({"latency": (0.2, 0.1)}, r"latency must be \(least, most\) in seconds, not \(0.2, 0.1\)"),
        ({"bandwidth": "1M"}, "bandwidth must be above 0, not '1M'"),
        ({"loss": "x"}, "loss must be from 0 to 1, not 'x'"),
        ({"reset": 2}, "reset must be from 0 to 1, not 2"),
    ],
)
def test_conditions_that_make_no_sense(changes: dict[str, Any], told: str) -> None:
    loop = SimulatedLoop()
    with pytest.raises(ValueError, match=told):
        loop.network.set(**changes)
    loop.close()


def test_the_marker_misused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import unittest
        import pytest

        @pytest.fixture
        def network(simulated_loop):
            return simulated_loop.network

        @pytest.mark.simulate(seeds=2)
        async def test_fixture(network):
            pass

        @pytest.mark.simulate(sedes=2)
        async def test_unknown():
            pass

        @pytest.mark.simulate(2, 3, 4)
        async def test_too_many():
            pass

        @pytest.mark.simulate(seeds=0)
        async def test_none():
            assert False

        first = []

        @pytest.mark.simulate(2, 40)
        async def test_by_position(simulated_loop):
            first.append(simulated_loop.seed)
            assert first in ([40], [40, 41])

        class TestCase(unittest.IsolatedAsyncioTestCase):
            @pytest.mark.simulate(seeds=2)
            async def test_method(self):
                pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=3, errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "*simulated_loop.network: there is a loop within the test only*",
            "*@pytest.mark.simulate: sedes; expected seeds, first_seed,*",
            "*@pytest.mark.simulate: 3 arguments by position; expected seeds*",
            "*seeds must be how many to try, 1 or more, not 0*",
            "*unittest runs the methods of its TestCase by itself*",
        ]
    )


def test_the_marker_beside_pytest_asyncio(pytester: pytest.Pytester) -> None:
    """Its mode `auto` puts a function around each test that runs it on a loop of its own.

    What stands for it here does that in the same way, under its name.
    """
    pytester.syspathinsert()
    pytester.makepyfile(
        pytest_asyncio="""
        import asyncio, functools, inspect
        import pytest

        def synchronized(function):
            @functools.wraps(function)
            def inner(*args, **kwargs):
                asyncio.run(function(*args, **kwargs))
            return inner

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_call(item):
            if inspect.iscoroutinefunction(item.obj):
                item.obj = synchronized(item.obj)
            return (yield)
        """,
        conftest="pytest_plugins = ['pytest_asyncio']",
        test_loops="""
        import asyncio
        import pytest
        from flowcoro.testing import SimulatedLoop

        def simulated():
            return isinstance(asyncio.get_running_loop(), SimulatedLoop)

        @pytest.mark.simulate(seeds=2)
        async def test_function():
            assert simulated()

        async def test_not_marked():
            assert not simulated()

        class TestClass:
            @pytest.mark.simulate(seeds=2)
            async def test_method(self, simulated_loop):
                assert simulated() and simulated_loop.seed < 2
        """,
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)
