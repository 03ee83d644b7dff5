"""`flowcoro._native.Waiter` itself, without a container."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from flowcoro._native import Waiter
from lockfree_cases import start


def test_set_once() -> None:
    waiter = Waiter()
    assert not waiter.is_set()
    assert waiter.set()
    assert waiter.is_set()
    assert not waiter.set()
    assert waiter.wait()
    assert waiter.wait(0)


def test_wait_in_a_thread() -> None:
    for _ in range(200):  # so that set() comes before, during and after the way to sleep
        waiter = Waiter()
        thread = start(waiter.wait)
        assert waiter.set()
        assert thread.result() is True


def test_when_the_time_has_passed_the_waiter_is_spent() -> None:
    waiter = Waiter()
    assert waiter.wait(0.001) is False
    assert not waiter.is_set()
    assert not waiter.set()


def test_exactly_one_of_many_sets_it() -> None:
    for _ in range(50):
        waiter = Waiter()
        thread = start(waiter.wait)
        assert [start(waiter.set).result() for _ in range(4)].count(True) == 1
        assert thread.result() is True


def test_bad_timeouts() -> None:
    waiter = Waiter()
    for negative in (-1, -0.5, -math.inf):
        with pytest.raises(ValueError, match="must not be negative"):
            waiter.wait(negative)
    with pytest.raises(ValueError, match="NaN"):
        waiter.wait(math.nan)
    with pytest.raises(TypeError, match="number of seconds or None, not 'str'"):
        waiter.wait("1")  # type: ignore[arg-type]
    assert waiter.set()


async def wait(waiter: Waiter) -> str:
    await waiter
    return "woken"


async def test_await() -> None:
    waiter = Waiter()
    task = asyncio.create_task(wait(waiter))
    await asyncio.sleep(0)
    assert waiter.set()
    assert not waiter.set()
    assert await task == "woken"


async def test_await_what_is_set_does_not_suspend() -> None:
    waiter = Waiter()
    waiter.set()
    coroutine: Coroutine[Any, Any, str] = wait(waiter)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    await waiter


async def test_await_across_threads() -> None:
    for _ in range(50):
        waiter = Waiter()
        task = asyncio.create_task(wait(waiter))
        await asyncio.sleep(0)
        setter = start(waiter.set)
        assert await task == "woken"
        assert setter.result() is True


async def test_one_waiter_only() -> None:
    waiter = Waiter()
    task = asyncio.create_task(wait(waiter))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="somebody waiting"):
        await waiter
    with pytest.raises(RuntimeError, match="somebody waiting"):
        waiter.wait(0)
    waiter.set()
    assert await task == "woken"


def test_await_without_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        wait(Waiter()).send(None)


def test_a_closed_loop_cannot_be_woken() -> None:
    waiter = Waiter()
    loop = asyncio.new_event_loop()
    task = loop.create_task(wait(waiter))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert not waiter.set()
    task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_a_loop_that_refuses() -> None:
    """What the loop raises is not the notifier's affair."""
    waiter = Waiter()
    task = asyncio.create_task(wait(waiter))
    await asyncio.sleep(0)
    task.cancel()  # the future is done already
    assert waiter.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_it_can_be_referred_to_weakly_and_collected() -> None:
    waiter = Waiter()
    reference = weakref.ref(waiter)
    del waiter
    assert reference() is None
    bare = Waiter.__new__(Waiter)
    gc.collect()
    with pytest.warns(RuntimeWarning, match="uninitialized"), pytest.raises(TypeError):
        bare.set()
    with pytest.raises(TypeError):
        type("Derived", (Waiter,), {})
