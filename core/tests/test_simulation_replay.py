"""`simulate`: failures are found, told, and happen again by their seed."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest

from flowcoro.testing import SimulatedLoop, SimulationFailure, SimulationStuck, simulate

pytest_plugins = ["pytester"]


async def all_sorts(loop: SimulatedLoop) -> None:
    """Do a little of everything that a seed decides."""
    network = loop.network
    network.set(cut=0.5, loss=0.2, duplicate=0.2, reorder=0.2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data * 2)
            await writer.drain()
        writer.close()

    with network.host("server"):
        server = await asyncio.start_server(serve, "server", 80)

    async def ask(name: str) -> None:
        with network.host(name):
            reader, writer = await asyncio.open_connection("server", 80)
            writer.write(random.randbytes(500))
            writer.write_eof()
            assert len(await reader.read(-1)) == 1000
            writer.close()
            file = await loop.disk.open("/log", os.O_RDWR | os.O_CREAT)
            await file.write_at(name.encode(), 0)
            await file.close()
            loop.disk.power_cut()

    async def cancelled() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0)

    tasks = {asyncio.create_task(ask(f"client{n}")) for n in range(3)}
    losers = {asyncio.create_task(cancelled()) for _ in range(5)}
    await asyncio.wait(tasks)
    for each in losers:
        each.cancel()
    await asyncio.wait(losers)
    await asyncio.to_thread(time.sleep, 1)
    for each in tasks:
        each.result()
    server.close()


def test_a_seed_is_the_same_each_time() -> None:
    first = simulate(all_sorts, seeds=10)
    again = simulate(all_sorts, seeds=10)
    assert first == again
    assert len({run.digest for run in first.runs}) == 10
    assert simulate(all_sorts, seed=7).digest == first.runs[7].digest
    assert [run.seed for run in simulate(all_sorts, seeds=2, first_seed=5).runs] == [5, 6]
    with pytest.raises(ValueError, match="unpack"):
        _ = first.digest


def test_a_seed_is_the_same_in_each_process(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_simulation_pool import world\n"
        "from test_simulation_replay import all_sorts\n"
        "from flowcoro.testing import simulate\n"
        "print([run.digest for run in simulate(all_sorts, seeds=5).runs])\n"
        "print([run.digest for run in simulate(world, seeds=20).runs])\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    (told,) = digests
    assert told.startswith(f"{[run.digest for run in simulate(all_sorts, seeds=5).runs]}\n")


async def loses_an_update() -> None:
    """The classic: read, wait, write."""
    total = 0

    async def add() -> None:
        nonlocal total
        before = total
        await asyncio.sleep(random.choice([0, 0, 0.1]))
        total = before + 1

    async def one_after_the_other() -> None:
        await asyncio.sleep(random.choice([0, 1]))
        await add()

    await asyncio.gather(one_after_the_other(), one_after_the_other())
    assert total == 2, "an update was lost"


def test_a_failure_carries_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SimulationFailure) as found:
        simulate(loses_an_update, seeds=1000)
    failure = found.value
    assert f"seed {failure.seed} fails: AssertionError: an update was lost" in str(failure)
    assert f"simulate(..., seed={failure.seed})" in str(failure)
    assert failure.digest in str(failure)
    assert isinstance(failure.original, AssertionError)
    assert failure.__cause__ is failure.original
    assert failure.replays
    assert any("run Task-" in line for line in failure.trace)
    assert str(failure) in capsys.readouterr().err
    with pytest.raises(SimulationFailure) as replayed:
        simulate(loses_an_update, seed=failure.seed)
    assert (replayed.value.digest, replayed.value.trace) == (failure.digest, failure.trace)


def test_what_does_not_replay_is_told() -> None:
    count = 0

    async def depends_on_what_was_before() -> None:
        nonlocal count
        count += 1
        await asyncio.sleep(count)
        raise ValueError("no")

    with pytest.raises(SimulationFailure, match="A SECOND RUN OF THIS SEED DIFFERED"):
        simulate(depends_on_what_was_before, seeds=1)


def test_a_deadlock_is_a_failure() -> None:
    async def main() -> None:
        first, second = asyncio.Lock(), asyncio.Lock()

        async def hold(one: asyncio.Lock, other: asyncio.Lock) -> None:
            async with one:
                await asyncio.sleep(random.choice([0, 1]))
                async with other:
                    pass

        await asyncio.gather(hold(first, second), hold(second, first))

    with pytest.raises(SimulationFailure, match=r"Lock\.acquire") as found:
        simulate(main, seeds=100)
    assert isinstance(found.value.original, SimulationStuck)


def test_a_task_that_will_not_end_is_a_failure() -> None:
    async def stubborn() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def main() -> None:
        main.task = asyncio.create_task(stubborn())  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    with pytest.raises(SimulationFailure, match="stubborn"):
        simulate(main, seeds=1)


def test_what_the_loop_is_told_is_a_failure() -> None:
    async def fails() -> None:
        raise ValueError("nobody asked")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        task = asyncio.create_task(fails())
        await asyncio.wait((task,))

    with pytest.raises(SimulationFailure, match="ZeroDivisionError"):
        simulate(main, seeds=1)
    simulate(main, seeds=1, loop_errors=False)


def test_exits_are_no_findings() -> None:
    async def main() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as left:
        simulate(main, seeds=3, first_seed=40)
    assert left.value.__notes__ == ["simulate: this was seed 40"]


def test_clocks_and_random_numbers_are_the_seeds() -> None:
    async def main(loop: SimulatedLoop) -> None:
        begun = time.time(), time.monotonic_ns()
        await asyncio.sleep(1.5)
        assert time.time() - begun[0] == pytest.approx(1.5)
        assert time.monotonic_ns() - begun[1] == 1_500_000_000
        time.sleep(1)  # noqa: ASYNC251 - what blocks the loop takes time, too
        assert loop.time() == 2.5
        drawn.append((random.random(), os.urandom(8), secrets.token_hex(), uuid.uuid4()))

    drawn: list[object] = []
    state, real = random.getstate(), time.time
    simulate(main, seeds=3, stalls=0)
    simulate(main, seeds=3, stalls=0)
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3
    assert (random.getstate(), time.time) == (state, real)


def test_options() -> None:
    async def main() -> None:
        await asyncio.sleep(50)
        for _ in range(3000):
            await asyncio.sleep(0)
        raise ValueError("at the end")

    with pytest.raises(SimulationFailure, match="after 10 virtual seconds"):
        simulate(main, seeds=1, max_time=10)
    with pytest.raises(SimulationFailure, match="at the end") as found:
        simulate(main, seeds=1, order="fifo", full_trace=True)
    assert len(found.value.trace) > 3000


def test_the_marker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        dedent("""
        import asyncio
        import random

        import pytest

        seen = []

        @pytest.mark.simulate(seeds=5, first_seed=10, stalls=0)
        async def test_good(simulated_loop, tmp_path):
            await asyncio.sleep(1000)
            assert simulated_loop.time() == 1000
            assert tmp_path.is_dir()
            seen.append(simulated_loop.seed)

        def test_seen():
            assert seen == [10, 11, 12, 13, 14]

        @pytest.mark.simulate
        async def test_bad():
            assert random.random() < 0.95, "too much"

        @pytest.mark.simulate
        def test_not_async():
            pass

        def test_not_marked(simulated_loop):
            pass
        """)
    )
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["*seed * fails: AssertionError: too much*", "*pytest --simulate-seed=*::test_bad*"]
    )
    result.stdout.fnmatch_lines(["*must be a coroutine function*"])
    result.stdout.fnmatch_lines(["*is for tests marked with*"])
    result = pytester.runpytest("--simulate-seed=3", "-k", "good or seen")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*assert*3*10*"])
    result = pytester.runpytest("--simulate-seeds=1", "-k", "good or bad")
    result.assert_outcomes(passed=2)
    pytester.runpytest("--markers").stdout.fnmatch_lines(["*simulate(seeds=1000*"])


def test_all_that_is_public_is_there_and_documented() -> None:
    import flowcoro.testing
    from flowcoro.testing import _sim

    assert set(_sim.__all__) <= set(flowcoro.testing.__all__)
    for name in _sim.__all__:
        each = getattr(flowcoro.testing, name)
        assert each.__doc__, name
        for member, what in vars(each).items() if isinstance(each, type) else ():
            if not member.startswith("_") and callable(what):
                assert what.__doc__, f"{name}.{member}"
