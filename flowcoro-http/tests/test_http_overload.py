"""Shedding load, in virtual time: offered loads, and what becomes of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from _serving import bare_request
from flowcoro.testing import simulate
from flowcoro_http import HttpError, Overload, Request, Response, Router
from flowcoro_http.testing import client_for

Work = Callable[[], Awaitable[None]]


def request() -> Request:
    return bare_request()


@dataclass
class Outcome:
    """What became of requests."""

    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    running: int = 0
    peak: int = 0

    @property
    def answered(self) -> int:
        return len(self.latencies)

    def percentile(self, fraction: float) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * fraction)]


async def offer(
    middleware: Overload | None, work: Work, rate: float, seconds: float, seed: int = 1
) -> Outcome:
    """Send requests at random times, whether earlier ones were answered or not."""
    outcome, chance = Outcome(), random.Random(seed)
    refused_before = 0 if middleware is None else middleware.refused
    loop = asyncio.get_running_loop()

    async def call_next(_: Request) -> Response:
        outcome.running += 1
        outcome.peak = max(outcome.peak, outcome.running)
        try:
            await work()
        finally:
            outcome.running -= 1
        return Response()

    async def one(due: float) -> None:
        try:
            if middleware is None:
                await call_next(request())
            else:
                await middleware.handler(request(), call_next)
        except HttpError:
            outcome.refusals.append(loop.time() - due)
        else:
            outcome.latencies.append(loop.time() - due)

    async with asyncio.TaskGroup() as group:
        due = loop.time()
        end = due + seconds
        while (due := due + chance.expovariate(rate)) < end:
            # As from many connections: what came meanwhile comes in one turn of the loop.
            loop.call_at(due, lambda due=due: group.create_task(one(due)))  # type: ignore[misc]
        await asyncio.sleep(end - loop.time())
    if middleware is not None:
        assert (middleware.running, middleware.waiting) == (0, 0)
        assert middleware.refused - refused_before == len(outcome.refusals)
    return outcome


async def compute() -> None:
    """Take the event loop for two milliseconds, in two parts: 500 a second at the most."""
    time.sleep(0.001)  # noqa: ASYNC251 - virtual time, which is to pass while the loop halts
    await asyncio.sleep(0)
    time.sleep(0.001)  # noqa: ASYNC251


def backend(places: int, seconds: float) -> Work:
    """Return work for something else, which does so much at once, such as a database."""
    room = asyncio.Semaphore(places)

    async def ask() -> None:
        async with room:
            await asyncio.sleep(seconds)

    return ask


def test_without_it_everybody_waits() -> None:
    """What the next tests are about: twice the load, and after a while no answer is of use."""

    async def main() -> None:
        outcome = await offer(None, compute, rate=1000, seconds=5)
        assert outcome.percentile(0.5) > 2

    simulate(main, seeds=1, stalls=0, order="fifo")


@pytest.mark.parametrize("rate", [600, 1000, 2500])
def test_more_than_the_loop_can_do(rate: float) -> None:
    async def main() -> None:
        middleware = Overload()
        outcome = await offer(middleware, compute, rate=rate, seconds=10)
        assert outcome.answered > 0.95 * 500 * 10
        assert outcome.percentile(0.5) < 0.2
        assert outcome.percentile(0.99) < 0.5
        assert sum(outcome.refusals) / len(outcome.refusals) < 0.3
        assert 4 <= middleware.limit < 60

    simulate(main, seeds=3, stalls=0, order="fifo")


def test_less_than_the_loop_can_do_is_left_alone() -> None:
    async def main() -> None:
        outcome = await offer(Overload(), compute, rate=300, seconds=10)
        assert len(outcome.refusals) == 0
        assert outcome.percentile(0.99) < 0.1

    simulate(main, seeds=3, stalls=0, order="fifo")


def test_many_that_only_wait_are_no_overload() -> None:
    """The limit rises as long as nobody is delayed."""

    async def slow() -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        middleware = Overload(initial_limit=10)
        await offer(middleware, slow, rate=400, seconds=20)
        assert middleware.limit >= 400
        outcome = await offer(middleware, slow, rate=400, seconds=5)
        assert len(outcome.refusals) < 0.02 * outcome.answered

    simulate(main, seeds=2, stalls=0, order="fifo")


def test_what_is_slow_elsewhere_is_seen_by_its_latency() -> None:
    async def main() -> None:
        # Ten at once, each 50 ms: 200 a second.
        middleware = Overload(latency=0.2, initial_limit=50)
        outcome = await offer(middleware, backend(10, 0.05), rate=400, seconds=20)
        assert outcome.answered > 0.85 * 200 * 20
        assert outcome.percentile(0.9) < 0.4
        without = await offer(None, backend(10, 0.05), rate=400, seconds=20)
        assert without.percentile(0.9) > 10

    simulate(main, seeds=2, stalls=0, order="fifo")


def test_it_recovers() -> None:
    async def main() -> None:
        middleware = Overload()
        await offer(middleware, compute, rate=2000, seconds=5)
        await asyncio.sleep(1)
        outcome = await offer(middleware, compute, rate=300, seconds=5)
        assert len(outcome.refusals) < 0.01 * outcome.answered

    simulate(main, seeds=2, stalls=0, order="fifo")


def test_a_burst_may_wait_and_a_standing_queue_may_not() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        middleware = Overload(
            target=0.02, interval=0.1, min_limit=1, initial_limit=1, max_limit=1, max_waiting=5
        )
        order: list[str] = []

        async def call(name: str, seconds: float) -> None:
            async def work(_: Request) -> Response:
                order.append(name)
                await asyncio.sleep(seconds)
                return Response()

            began = loop.time()
            try:
                await middleware.handler(request(), work)
            except HttpError:
                order.append(f"{name} refused after {loop.time() - began:.2f}")

        async with asyncio.TaskGroup() as group:
            group.create_task(call("first", 0.08))
            await asyncio.sleep(0.01)
            for name in "abcdefg":
                group.create_task(call(name, 0.05))
        # A place was free just now: first come, first served, and up to an interval.
        assert order[:3] == ["first", "f refused after 0.00", "g refused after 0.00"]
        assert order[3] == "a"
        assert sorted(order[4:]) == [f"{name} refused after 0.10" for name in "bcde"]

        order.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(call("first", 0.3))
            for number in range(14):
                await asyncio.sleep(0.015)
                group.create_task(call(f"early {number}", 0))
            # It has stood for an interval by now: the target, and the newest first.
            assert f"early {13 - 2} refused after 0.02" in order
            await asyncio.sleep(0.3 - 14 * 0.015 - 0.01)
            group.create_task(call("old", 0.01))
            await asyncio.sleep(0.005)
            group.create_task(call("new", 0.01))
        assert order.index("new") < order.index("old")

    simulate(main, seeds=1, stalls=0, order="fifo")


def test_a_cancellation_at_any_time_loses_no_place() -> None:
    async def main() -> None:
        middleware = Overload(min_limit=2, initial_limit=2, max_limit=2, target=0.05)
        running = peak = 0

        async def work(_: Request) -> Response:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            try:
                await asyncio.sleep(random.choice([0, 0.01]))
            finally:
                running -= 1
            return Response()

        async def impatient() -> None:
            try:
                async with asyncio.timeout(random.choice([0, 0.001, 0.01, 0.02, 1])):
                    await middleware.handler(request(), work)
            except (TimeoutError, HttpError):
                pass

        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(impatient())
                await asyncio.sleep(random.choice([0, 0.001, 0.01]))
        assert (middleware.running, middleware.waiting, peak) == (0, 0, 2)
        await middleware.handler(request(), work)

    simulate(main, seeds=300)


def test_some_are_never_refused() -> None:
    async def main() -> None:
        router = Router(openapi=None)
        overload = Overload(
            min_limit=1,
            initial_limit=1,
            max_limit=1,
            max_waiting=0,
            retry_after=7,
            exempt=lambda request: request.path == "/healthz",
        )
        router.use(overload)
        arrived, leave = asyncio.Event(), asyncio.Event()

        @router.get("/slow")
        async def slow() -> None:
            arrived.set()
            await leave.wait()

        @router.get("/healthz")
        async def healthz() -> str:
            return "well"

        async with client_for(router) as client, asyncio.TaskGroup() as group:
            first = group.create_task(client.get("/slow"))
            await arrived.wait()
            response = await client.get("/slow")
            assert (response.status_code, response.json()["status"]) == (503, 503)
            assert response.headers["retry-after"] == "7"
            assert (await client.get("/healthz")).text == "well"
            leave.set()
        assert first.result().status_code == 204
        assert overload.refused == 1

    simulate(main, seeds=5)


@pytest.mark.parametrize(
    "options",
    [
        {"target": 0},
        {"target": 0.2, "interval": 0.1},
        {"interval": float("inf")},
        {"latency": -1},
        {"min_limit": 0},
        {"min_limit": 50, "initial_limit": 20},
        {"initial_limit": 5000},
        {"max_waiting": -1},
    ],
)
def test_mistakes_are_found_early(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Overload: .*expected"):
        Overload(**options)
