"""What faults are, without a network: their numbers, their arithmetic, and exact times."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from fault_cases import echo_server
from flowcoro.testing import FaultProxy, Faults
from flowcoro.testing._faults import PIECE, Flow


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay": -1},
        {"jitter": -0.1},
        {"pause": -1},
        {"corrupt_at": -1},
        {"cut_after": -1},
        {"rate": 0},
        {"chunk": 0},
        {"corrupt_every": 0},
        {"cut": "sever"},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Faults(**wrong)


def test_misuse_of_a_proxy() -> None:
    with pytest.raises(ValueError, match="no such mode"):
        FaultProxy(("127.0.0.1", 1), accept="maybe")  # type: ignore[arg-type]
    proxy = FaultProxy(("127.0.0.1", 1))
    with pytest.raises(RuntimeError, match="async with"):
        _ = proxy.port
    proxy.set_accept("silent")  # before it listens: how it begins


def test_a_flow_takes_up_to_the_cut() -> None:
    flow = Flow()
    faults = Faults(cut_after=5, chunk=3)
    data = memoryview(b"abcdefgh")
    assert not flow.is_cut(faults)
    assert flow.take(data, faults) == b"abc"
    assert flow.take(data[3:], faults) == b"de"
    assert flow.is_cut(faults)
    assert not flow.is_cut(Faults())


def test_jitter_follows_from_seed_and_offset() -> None:
    lags = [Faults(delay=1, jitter=0.5, seed=7).lag(offset) for offset in range(100)]
    assert all(1 <= lag < 1.5 for lag in lags)
    assert len(set(lags)) == 100
    assert lags == [Faults(delay=1, jitter=0.5, seed=7).lag(offset) for offset in range(100)]
    assert lags != [Faults(delay=1, jitter=0.5, seed=8).lag(offset) for offset in range(100)]


def test_a_rate_sets_size_and_gap() -> None:
    assert Faults().size == PIECE
    assert Faults(rate=1000).size == 20
    assert Faults(rate=1).size == 1
    assert Faults(rate=1000, chunk=5).size == 5
    assert Faults(rate=1000).gap(20) == pytest.approx(0.02)
    assert Faults(rate=1000, pause=1).gap(20) == 1
    assert Faults().gap(20) == 0


class VirtualSelector(selectors.DefaultSelector):
    """Waits for nothing but I/O that is there; what it would wait for, the clock jumps over."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Loopback needs no time; a millisecond is for a kernel that hands over in the background.
        events = super().select(0.001 if timeout else 0)
        if not events and timeout:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's loop by virtual time."""

    def __init__(self) -> None:
        self.clock = VirtualSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def virtually(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


@pytest.mark.parametrize(
    ("faults", "seconds"),
    [
        (Faults(delay=100), 100),
        (Faults(chunk=1, pause=10), 9 * 10),
        (Faults(chunk=4, pause=10), 2 * 10),
        (Faults(rate=0.5), 9 * 2),
        (Faults(delay=100, rate=0.5), 100 + 9 * 2),
    ],
)
def test_times_are_exact(faults: Faults, seconds: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with echo_server() as target, FaultProxy(target, downstream=faults) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.address)
            writer.write(b"0123456789")
            await proxy.until(lambda stats: stats.upstream == 10)
            begin = loop.time()
            assert await reader.readexactly(10) == b"0123456789"
            assert loop.time() - begin == pytest.approx(seconds, abs=1)
            writer.close()
            await writer.wait_closed()

    virtually(main())
