"""Every container on one thread: order, batches, errors, references."""

from __future__ import annotations

import copy
import gc
import inspect
import math
import pickle
import subprocess
import sys
import weakref
from typing import Any

import pytest

import flowcoro.lockfree
from flowcoro import _native
from flowcoro.lockfree import Queue, RingBuffer, Stack, UnboundedQueue, WorkStealingDeque
from lockfree_cases import EMPTY, Container, Item, Make, every, every_bounded

LAST_FIRST = (Stack, WorkStealingDeque)


def in_order(container: Container, items: list[int]) -> list[int]:
    """`items` in the order in which the container gives them back."""
    return items[::-1] if isinstance(container, LAST_FIRST) else items


def test_public_names() -> None:
    assert flowcoro.lockfree.__all__ == [
        "Queue",
        "RingBuffer",
        "Stack",
        "UnboundedQueue",
        "WorkStealingDeque",
    ]
    for name in flowcoro.lockfree.__all__:
        public = getattr(flowcoro.lockfree, name)
        assert public.__module__ == "flowcoro.lockfree"
        assert public.__doc__
        assert issubclass(public, getattr(_native, name))


@every
def test_order(make: Make) -> None:
    container = make()
    for rounds in range(1, 30):
        assert not container
        for number in range(rounds):
            assert container.try_put(number)
        assert len(container) == rounds
        taken = [container.try_get() for _ in range(rounds)]
        assert taken == in_order(container, list(range(rounds)))
        assert container.try_get() is None
        assert container.try_get(EMPTY) is EMPTY


@every
def test_batches(make: Make) -> None:
    container = make()
    numbers = list(range(700))  # more than two segments of UnboundedQueue
    assert container.put_many(numbers) == 700
    assert container.put_many([]) == 0
    expected = in_order(container, numbers)
    assert container.get_many(0) == []
    assert container.get_many(300) == expected[:300]
    assert len(container) == 400
    assert container.get_many(10**30) == expected[300:]
    assert container.get_many(5) == []
    assert container.put_many((1, None)) == 2
    assert sorted(map(str, container.get_many(2))) == ["1", "None"]


@every
def test_blocking_calls_that_need_not_wait(make: Make) -> None:
    container = make()
    container.put(1)
    container.put(item=2, timeout=0)
    assert sorted([container.get(), container.get(timeout=0.0)]) == [1, 2]
    assert container._waiting() == (0, 0)


@every_bounded
def test_full(make: Any) -> None:
    container: Queue[int] | RingBuffer[int] = make(3)
    assert container.capacity == 3
    assert container.put_many([1, 2, 3, 4]) == 3
    assert not container.try_put(4)
    with pytest.raises(TimeoutError, match="no room"):
        container.put(4, timeout=0)
    assert container.get_many(9) == [1, 2, 3]


@every
def test_empty(make: Make) -> None:
    with pytest.raises(TimeoutError, match="no item"):
        make().get(timeout=0)


def test_the_oldest_is_stolen() -> None:
    deque: WorkStealingDeque[int] = WorkStealingDeque()
    assert deque.try_steal() is None
    assert deque.try_steal(EMPTY) is EMPTY
    assert deque.put_many(range(100)) == 100
    assert deque.try_steal() == 0
    assert deque.try_steal(default=EMPTY) == 1
    assert deque.steal() == 2
    assert deque.steal(timeout=1) == 3
    assert deque.try_get() == 99
    assert len(deque) == 95
    deque.get_many(95)
    with pytest.raises(TimeoutError, match="no item"):
        deque.steal(0)


# Errors


@pytest.mark.parametrize("make", [Queue, RingBuffer, WorkStealingDeque])
def test_capacities(make: Any) -> None:
    for capacity in (0, -1, -(2**31), -(10**400)):
        with pytest.raises(ValueError, match="capacity must be at least 1"):
            make(capacity)
    for capacity in (2**31 + 1, 2**63, 2**64, 10**400):
        with pytest.raises(OverflowError, match="capacity must be at most 2147483648"):
            make(capacity)
    for wrong in (1.0, "1", None, [1], b"1"):
        with pytest.raises(TypeError, match="capacity must be an integer, not"):
            make(wrong)
    assert make(capacity=3).put_many([1, 2]) == 2


@pytest.mark.parametrize("make", [Stack, UnboundedQueue])
def test_no_capacity(make: Any) -> None:
    with pytest.raises(TypeError):
        make(1)
    assert not hasattr(make(), "capacity")


@every
def test_timeouts(make: Make) -> None:
    container = make()
    calls: list[Any] = [container.get, lambda timeout: container.put(1, timeout)]
    if isinstance(container, WorkStealingDeque):
        calls.append(container.steal)
    for call in calls:
        for negative in (-1, -0.001, -math.inf, -(10**400)):
            with pytest.raises(ValueError, match="timeout must not be negative"):
                call(timeout=negative)
        with pytest.raises(ValueError, match="timeout must not be NaN"):
            call(timeout=math.nan)
        for wrong in ("1", b"1", [], object()):
            with pytest.raises(TypeError, match="timeout must be a number of seconds or None, not"):
                call(timeout=wrong)
    assert len(container) == 0
    for long in (None, math.inf, 1e300, 10**400, 10**12, True):
        container.put(1, timeout=long)
        assert container.get(timeout=long) == 1


@every
def test_batches_refuse(make: Make) -> None:
    container = make()
    for items in (iter([1]), {1}, {1: 1}, None, 1):
        with pytest.raises(TypeError, match="items must be a sequence"):
            container.put_many(items)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be negative"):
        container.get_many(-1)
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError, match="max_items must be an integer"):
            container.get_many(wrong)  # type: ignore[arg-type]


@every
def test_it_is_neither_copied_nor_pickled(make: Make) -> None:
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            attempt(make())


@every
def test_an_instance_without_init_is_safe(make: Make) -> None:
    container = type(make()).__new__(type(make()))
    gc.collect()
    with pytest.warns(RuntimeWarning, match="uninitialized"), pytest.raises(TypeError):
        container.try_get()


def test_a_waiter_of_another_container_is_refused() -> None:
    queue: Queue[int] = Queue(1)
    for waiter in (_native.Waiter(), Queue[int](1)._wait_for_item(False)):
        with pytest.raises(ValueError, match="does not wait here"):
            queue._leave(waiter)


# References


@every
def test_it_owns_one_reference_to_each_item(make: Make) -> None:
    container = make()
    item, default = Item(), Item()
    before = sys.getrefcount(item), sys.getrefcount(default)
    container.put_many([item, item])
    container.put(item)
    container.try_put(item)
    assert sys.getrefcount(item) == before[0] + 4
    container.get_many(1)
    container.get()
    assert sys.getrefcount(item) == before[0] + 2
    container.get_many(5)
    assert container.try_get(default) is default
    assert (sys.getrefcount(item), sys.getrefcount(default)) == before


@every
def test_destruction_drops_what_is_left(make: Make) -> None:
    container = make()
    references = []
    for _ in range(600):
        item = Item()
        references.append(weakref.ref(item))
        container.put(item)
    del item, container
    assert [reference() for reference in references] == [None] * 600


@every
def test_cycles_are_collected(make: Make) -> None:
    gc.collect()
    container = make()
    item = Item()
    item.other = container
    references = [weakref.ref(item), weakref.ref(container)]
    container.put_many([item, container, Item()])
    del item, container
    assert None not in [reference() for reference in references]
    gc.collect()
    assert [reference() for reference in references] == [None, None]


@every
def test_the_collector_sees_the_items(make: Make) -> None:
    container = make()
    items = [Item() for _ in range(520)]
    container.put_many(items)
    container.get_many(10)
    left = [item for item in gc.get_referents(container) if isinstance(item, Item)]
    kept = items[:-10] if isinstance(container, LAST_FIRST) else items[10:]
    assert sorted(map(id, left)) == sorted(map(id, kept))


@every
def test_a_finalizer_may_use_the_container(make: Make) -> None:
    log: list[object] = []

    class Final:
        def __init__(self, container: Container) -> None:
            self.container = container

        def __del__(self) -> None:
            log.append(self.container.try_put("late"))

    container = make()
    container.put(Final(container))
    container.get_many(1)
    assert log == [True]
    assert container.try_get() == "late"


@pytest.mark.parametrize("kind", ["Queue(2)", "RingBuffer(2)", "Stack()", "WorkStealingDeque(1)"])
def test_a_long_chain_is_destroyed_without_recursion(kind: str) -> None:
    # In a process of its own: if it fails, it takes the interpreter with it.
    script = f"""
import gc
from flowcoro.lockfree import *
for tie in (False, True):
    first = chain = {kind}
    for _ in range(60_000):
        longer = {kind}
        longer.try_put(chain)
        chain = longer
    if tie:
        first.try_put(chain)  # a cycle, so that the collector has to break it
    del first, chain, longer
    gc.collect()
    assert not any(isinstance(each, (Queue, RingBuffer, Stack)) for each in gc.get_objects())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# Methods that are plain C functions


@every
def test_methods_say_what_they_are(make: Make) -> None:
    container = type(make())
    signatures = {"try_put": "(self, /, item)", "try_get": "(self, /, default=None)"}
    signatures |= {"put": "(self, /, item, timeout=None)", "get": "(self, /, timeout=None)"}
    for name, signature in signatures.items():
        method = getattr(container, name)
        assert str(inspect.signature(method)) == signature
        assert method.__doc__.splitlines()[0].endswith(".")
        assert name in vars(container)  # its own, which makes calls faster


@every
def test_arguments_that_do_not_fit(make: Make) -> None:
    container: Any = make()
    with pytest.raises(TypeError, match=r"try_put\(\) misses its argument 'item'"):
        container.try_put()
    with pytest.raises(TypeError, match=r"put\(\) misses its argument 'item'"):
        container.put(timeout=1)
    with pytest.raises(TypeError, match=r"try_put\(\) takes at most 1 argument \(2 given\)"):
        container.try_put(1, 2)
    with pytest.raises(TypeError, match=r"put\(\) takes at most 2 arguments \(3 given\)"):
        container.put(1, 2, 3)
    with pytest.raises(TypeError, match=r"try_get\(\) got an unexpected keyword argument 'item'"):
        container.try_get(item=1)
    with pytest.raises(TypeError, match=r"put\(\) got multiple values for argument 'item'"):
        container.put(1, item=2)
    with pytest.raises(TypeError, match="descriptor 'try_get'"):
        type(container).try_get(object())
    assert len(container) == 0


@every
def test_arguments_either_way(make: Make) -> None:
    container: Any = make()
    container.put(timeout=0, item="a")
    container.put("b", 0)
    container.put("c", timeout=None)
    assert {container.get(), container.get(0), container.get(timeout=0)} == {"a", "b", "c"}


@every
def test_a_class_of_the_users_own_overrides_methods(make: Make) -> None:
    made: Any = make()

    class Mine(type(made)):  # type: ignore[misc] # a class that mypy does not know
        def try_put(self, item: Any) -> bool:
            return super().try_put(("mine", item))

    made = Mine(8) if hasattr(made, "capacity") else Mine()
    assert made.try_put(1)
    assert made.get() == ("mine", 1)


def test_only_derived_classes_are_given_methods() -> None:
    for other in (object, int, 3, None):
        with pytest.raises(TypeError, match="derived must be a class derived from a container"):
            _native.own_methods(other)
    assert not hasattr(object, "try_put")
