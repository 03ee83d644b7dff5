"""What the tests of `flowcoro.lockfree` share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest

from flowcoro.lockfree import Queue, RingBuffer, Stack, UnboundedQueue, WorkStealingDeque

Container: TypeAlias = (
    Queue[Any] | RingBuffer[Any] | Stack[Any] | UnboundedQueue[Any] | WorkStealingDeque[Any]
)
Bounded: TypeAlias = Queue[Any] | RingBuffer[Any]
Make: TypeAlias = Callable[[], Container]
EMPTY = object()


def queue() -> Container:
    return Queue(1000)


def ring_buffer() -> Container:
    return RingBuffer(1000)


def work_stealing_deque() -> Container:
    return WorkStealingDeque(2)


ALL: list[Make] = [queue, ring_buffer, Stack, UnboundedQueue, work_stealing_deque]
FOR_MANY: list[Make] = [queue, Stack, UnboundedQueue]  # any thread may use any method

every = pytest.mark.parametrize("make", ALL)
every_bounded = pytest.mark.parametrize("make", [Queue, RingBuffer])
every_for_many = pytest.mark.parametrize("make", FOR_MANY)


class Item:
    """Has an identity, a place for references, and can be referred to weakly."""

    other: object = None


def until(condition: Callable[[], bool]) -> None:
    """Returns as soon as another thread has made the condition true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0)


def until_waiting(container: Container, getters: int = 0, putters: int = 0) -> None:
    until(lambda: container._waiting() == (getters, putters))


class Worker(threading.Thread):
    """A thread whose result or exception `result()` gives."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.call()
        except BaseException as error:
            self.error = error

    def result(self) -> Any:
        self.join(30)
        assert not self.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error
        return self.value


def start(call: Callable[[], Any]) -> Worker:
    worker = Worker(call)
    worker.start()
    return worker


@contextmanager
def switching(interval: float) -> Iterator[None]:
    """Threads give way after `interval` seconds, and so in other places than usual."""
    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
