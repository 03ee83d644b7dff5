"""Threads that block in the containers: hand-over, timeouts, signals, threads that die, forks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import pytest

from flowcoro.lockfree import Queue, RingBuffer, UnboundedQueue, WorkStealingDeque
from lockfree_cases import (
    Bounded,
    Make,
    every,
    every_bounded,
    every_for_many,
    start,
    switching,
    until_waiting,
)


@every
def test_get_waits_for_put(make: Make) -> None:
    for put in ("put", "try_put", "put_many"):
        container = make()
        getter = start(container.get)
        until_waiting(container, getters=1)
        getattr(container, put)(["item"] if put == "put_many" else "item")
        assert getter.result() == "item"
        assert container._waiting() == (0, 0)
        assert len(container) == 0


@every_bounded
@pytest.mark.parametrize("get", ["get", "try_get", "get_many"])
def test_put_waits_for_get(make: Any, get: str) -> None:
    container: Bounded = make(1)
    container.put("first")
    putter = start(lambda: container.put("second"))
    until_waiting(container, putters=1)
    if get == "get_many":
        assert container.get_many(1) == ["first"]
    else:
        assert getattr(container, get)() == "first"
    putter.result()
    assert container.try_get() == "second"


def test_steal_waits_for_put() -> None:
    deque: WorkStealingDeque[str] = WorkStealingDeque()
    thieves = [start(deque.steal) for _ in range(3)]
    until_waiting(deque, getters=3)
    assert deque.put_many(["a", "b", "c"]) == 3
    assert sorted(thief.result() for thief in thieves) == ["a", "b", "c"]


@every_for_many
def test_put_many_wakes_as_many_as_it_put(make: Make) -> None:
    container = make()
    getters = [start(container.get) for _ in range(5)]
    until_waiting(container, getters=5)
    assert container.put_many([1, 2, 3]) == 3
    until_waiting(container, getters=2)
    assert container.put_many([4, 5]) == 2
    assert sorted(getter.result() for getter in getters) == [1, 2, 3, 4, 5]


def test_get_many_wakes_as_many_as_it_took() -> None:
    queue: Queue[int] = Queue(3)
    queue.put_many([0, 0, 0])
    putters = [start(lambda: queue.put(1)) for _ in range(3)]
    until_waiting(queue, putters=3)
    assert queue.get_many(2) == [0, 0]
    until_waiting(queue, putters=1)
    assert queue.get_many(1) == [0]
    for putter in putters:
        putter.result()
    assert queue.get_many(9) == [1, 1, 1]


def test_first_come_first_woken() -> None:
    queue: Queue[int] = Queue(9)
    got: list[str] = []
    done = threading.Semaphore(0)

    def get(name: str) -> None:
        queue.get()
        got.append(name)
        done.release()

    for number, name in enumerate("abc"):
        start(lambda name=name: get(name))  # type: ignore[misc]
        until_waiting(queue, getters=number + 1)
    for number in range(3):
        queue.put(number)
        assert done.acquire(timeout=30)
    assert got == ["a", "b", "c"]


# Deadlines


@every
def test_timeout(make: Make) -> None:
    container = make()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="no item within the timeout"):
        container.get(timeout=0.02)
    assert time.monotonic() - began >= 0.02
    assert container._waiting() == (0, 0)
    container.put(1)
    assert container.get() == 1


@every_bounded
def test_timeout_of_put(make: Any) -> None:
    container: Bounded = make(1)
    container.put(1)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="no room within the timeout"):
        container.put(2, timeout=0.02)
    assert time.monotonic() - began >= 0.02
    assert container._waiting() == (0, 0)
    assert container.get_many(2) == [1]


def test_timeouts_that_race_with_items_lose_none() -> None:
    """A wake-up that comes as the waiter gives up goes to the next."""
    queue: UnboundedQueue[int] = UnboundedQueue()
    total = 3_000
    taken: list[int] = []

    def impatient() -> None:
        while (item := get_soon()) is not None:
            if item >= 0:
                taken.append(item)

    def get_soon() -> int | None:
        try:
            item = queue.get(timeout=1e-5)
        except TimeoutError:
            return -1
        return item if item >= 0 else None

    def patient() -> None:
        while (item := queue.get()) >= 0:
            taken.append(item)

    with switching(1e-5):
        threads = [start(impatient), start(impatient), start(patient), start(patient)]
        for number in range(total):
            queue.put(number)
        queue.put_many([-1] * 4)
        for thread in threads:
            thread.result()
    assert sorted(taken) == list(range(total))


# Many threads


@pytest.mark.parametrize(("capacity", "producers", "consumers"), [(1, 3, 3), (8, 4, 2), (64, 2, 4)])
def test_many_to_many(capacity: int, producers: int, consumers: int) -> None:
    each = 1_000
    queue: Queue[Any] = Queue(capacity)

    def produce(producer: int) -> None:
        for number in range(each):
            queue.put((producer, number))

    def consume() -> list[Any]:
        taken = []
        while (item := queue.get()) is not None:
            taken.append(item)
        return taken

    with switching(1e-5):
        takers = [start(consume) for _ in range(consumers)]
        makers = [start(lambda n=n: produce(n)) for n in range(producers)]  # type: ignore[misc]
        for maker in makers:
            maker.result()
        for _ in range(consumers):
            queue.put(None)
        received = [taker.result() for taker in takers]
    assert Counter(item for items in received for item in items) == Counter(
        (producer, number) for producer in range(producers) for number in range(each)
    )
    for items in received:
        for producer in range(producers):
            mine = [item for item in items if item[0] == producer]
            assert mine == sorted(mine)
    assert queue._waiting() == (0, 0)


@pytest.mark.parametrize("capacity", [1, 2, 50])
def test_ring_buffer_keeps_its_order(capacity: int) -> None:
    buffer: RingBuffer[int] = RingBuffer(capacity)
    with switching(1e-5):
        consumer = start(lambda: [buffer.get() for _ in range(5_000)])
        for number in range(5_000):
            buffer.put(number)
        assert consumer.result() == list(range(5_000))


def test_ring_buffer_survives_many_on_either_side() -> None:
    """Not what it is for; but nothing may be lost or broken."""
    buffer: RingBuffer[int] = RingBuffer(8)
    with switching(1e-5):
        consumers = [start(lambda: [buffer.get() for _ in range(1_000)]) for _ in range(3)]
        producers = [
            start(lambda n=n: [buffer.put(n * 1_000 + i) for i in range(1_000)])  # type: ignore[misc]
            for n in range(3)
        ]
        for producer in producers:
            producer.result()
        taken = [item for consumer in consumers for item in consumer.result()]
    assert sorted(taken) == list(range(3_000))


def test_owner_and_thieves() -> None:
    deque: WorkStealingDeque[int] = WorkStealingDeque(1)
    total = 5_000

    def thief() -> list[int]:
        stolen = []
        while (item := deque.steal()) >= 0:
            stolen.append(item)
        return stolen

    with switching(1e-5):
        thieves = [start(thief) for _ in range(3)]
        own = []
        for number in range(total):
            deque.put(number)
            if number % 3 == 0 and (item := deque.try_get()) is not None:
                own.append(item)
        while (item := deque.try_get()) is not None:
            own.append(item)
        deque.put_many([-1] * 3)
        taken = own + [item for each in thieves for item in each.result()]
    assert sorted(taken) == list(range(total))


def test_a_list_that_changes_while_it_is_put() -> None:
    queue: UnboundedQueue[int] = UnboundedQueue()
    items = list(range(100))
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            items.clear()
            items.extend(range(100))

    with switching(1e-6):
        changer = start(change)
        for _ in range(2_000):
            queue.put_many(items)
            assert all(0 <= item < 100 for item in queue.get_many(200))
        stop.set()
        changer.result()


# Threads that end, signals, forks


def test_a_thread_that_dies_passes_the_wake_up_on() -> None:
    """One is raised out of its wait just as it is woken: the other gets the item."""
    script = """
import os, signal, threading, time
from flowcoro.lockfree import Queue
queue = Queue(4)
got = []
def interrupt(*_):
    queue.put("item")  # wakes the main thread, first in the list, which is to raise
    raise RuntimeError("signal")
signal.signal(signal.SIGUSR1, interrupt)
def other():
    while queue._waiting()[0] != 1: time.sleep(0)
    threading.Thread(target=killer).start()
    got.append(queue.get(timeout=30))
def killer():
    while queue._waiting()[0] != 2: time.sleep(0)
    os.kill(os.getpid(), signal.SIGUSR1)
thread = threading.Thread(target=other); thread.start()
try:
    queue.get()
except RuntimeError as error:
    assert str(error) == "signal"
else:
    raise SystemExit("not raised")
thread.join()
assert got == ["item"], got
assert queue._waiting() == (0, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C")
@pytest.mark.parametrize(
    ("prepare", "wait", "waiting"),
    [
        ("Queue(1)", "get()", "(1, 0)"),
        ("Queue(1)", "get(timeout=60)", "(1, 0)"),
        ("Queue(1)", "put(0)", "(0, 1)"),
        ("WorkStealingDeque()", "steal()", "(1, 0)"),
    ],
)
def test_ctrl_c(prepare: str, wait: str, waiting: str) -> None:
    script = f"""
import os, signal, threading, time
from flowcoro.lockfree import Queue, WorkStealingDeque
container = {prepare}
if "put" in {wait!r}: container.put("full")
def interrupt():
    while container._waiting() != {waiting}: time.sleep(0)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    container.{wait}
except KeyboardInterrupt:
    assert container._waiting() == (0, 0)
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"interrupted\n", b"")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_signal_does_not_stretch_the_timeout() -> None:
    ticks: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Queue[int](1).get(timeout=0.1)
        passed = time.monotonic() - began
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert passed >= 0.1
    assert len(ticks) >= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_threads_wait() -> None:
    """In the child the waiters of the parent's threads are skipped."""
    script = """
import os, threading, time
from flowcoro.lockfree import Queue
queue = Queue(4)
got = []
threads = [threading.Thread(target=lambda: got.append(queue.get(timeout=60))) for _ in range(3)]
for thread in threads: thread.start()
while queue._waiting()[0] != 3: time.sleep(0)
child = os.fork()
if child == 0:
    mine = []
    threads = [threading.Thread(target=lambda: mine.append(queue.get(timeout=60))) for _ in "ab"]
    for thread in threads: thread.start()
    while queue._waiting()[0] != 5: time.sleep(0)
    for item in "ab": queue.put(item)
    for thread in threads: thread.join(30)
    os._exit(0 if sorted(mine) == ["a", "b"] and queue._waiting() == (0, 0) else 1)
assert os.waitpid(child, 0)[1] == 0
queue.put_many([1, 2, 3])
for thread in threads: thread.join()
assert sorted(got) == [1, 2, 3]
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, check=False, timeout=90
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_item_is_not_hidden_by_a_waiter_that_does_not_get_to_run() -> None:
    queue: Queue[int] = Queue(1)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(queue.aget())
    loop.call_soon(loop.stop)
    loop.run_forever()  # the task waits, and its loop stands still
    assert queue.try_put(1)  # which wakes the task
    assert queue.get(timeout=0.05) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()


def test_daemon_threads_that_wait_for_room_do_not_hinder_the_end() -> None:
    """A thread that the interpreter ends must not unwind through native code that it waits in."""
    program = """
import threading, time
from flowcoro.lockfree import Queue

queue = Queue(2)
queue.put(0), queue.put(0)

def put():
    while True:
        queue.put(1)

for _ in range(20): threading.Thread(target=put, daemon=True).start()
time.sleep(0.05)  # they wait by then; if not, this run shows nothing
queue.try_get(), queue.try_get()
"""
    for _ in range(3):
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
        )
        assert (ran.returncode, ran.stderr) == (0, "")
