from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Iterator

import pytest

import flowcoro.lockfree
from flowcoro import _native
from flowcoro.lockfree import Queue

EMPTY = object()


class Item:
    """Has an identity, a place for references, and can be referred to weakly."""

    other: object = None


def test_public_names() -> None:
    assert "Queue" in flowcoro.lockfree.__all__
    assert Queue.__module__ == "flowcoro.lockfree"
    assert Queue.__doc__


def test_build_info() -> None:
    info = _native.build_info()
    assert set(info) == {"compiler", "build_type", "cxx_standard", "nanobind"}
    assert all(isinstance(value, str) and value for value in info.values())
    assert int(info["cxx_standard"]) >= 202002
    assert info["nanobind"].count(".") == 2


# What it holds


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 8, 100])
def test_holds_exactly_its_capacity_in_order(capacity: int) -> None:
    queue: Queue[int] = Queue(capacity)
    assert queue.capacity == capacity
    for _ in range(3):
        assert len(queue) == 0
        assert not queue
        for number in range(capacity):
            assert queue.try_put(number)
        assert not queue.try_put(-1)
        assert len(queue) == capacity
        assert queue
        assert [queue.try_get() for _ in range(capacity)] == list(range(capacity))
        assert queue.try_get(EMPTY) is EMPTY


def test_none_is_an_item_like_any_other() -> None:
    queue: Queue[None] = Queue(2)
    assert queue.try_put(None)
    assert len(queue) == 1
    assert queue.try_get(EMPTY) is None
    assert queue.try_get(EMPTY) is EMPTY
    assert queue.try_get() is None


def test_arguments_by_keyword() -> None:
    queue: Queue[str] = Queue(capacity=2)
    assert queue.try_put(item="a")
    assert queue.put_many(items=["b", "c"]) == 1
    assert queue.try_get(default=EMPTY) == "a"
    assert queue.get_many(max_items=5) == ["b"]
    assert queue.try_get(default=EMPTY) is EMPTY


def test_items_keep_their_identity() -> None:
    item = Item()
    queue: Queue[Item] = Queue(1)
    assert queue.try_put(item)
    assert queue.try_get() is item


def test_it_may_hold_itself() -> None:
    queue: Queue[object] = Queue(1)
    assert queue.try_put(queue)
    assert queue.try_get() is queue


def test_a_hundred_thousand_items() -> None:
    count = 100_000
    queue: Queue[int] = Queue(count)
    assert queue.put_many(range(count + 5)) == count
    assert len(queue) == count
    assert queue.get_many(count // 2) == list(range(count // 2))
    assert [queue.try_get() for _ in range(count // 2)] == list(range(count // 2, count))
    assert not queue


def test_subscription_is_for_type_checkers() -> None:
    queue = Queue[int](4)
    assert type(queue) is Queue
    assert queue.capacity == 4
    assert Queue[int] == Queue[int]


def test_subclass() -> None:
    class Named(Queue[int]):
        name = "jobs"

    queue = Named(3)
    assert queue.try_put(1)
    assert (queue.name, queue.try_get()) == ("jobs", 1)


# Many at once


@pytest.mark.parametrize("items", [[1, 2, 3], (1, 2, 3), range(1, 4), deque([1, 2, 3]), b"\1\2\3"])
def test_put_many_takes_any_sequence(items: list[int]) -> None:
    queue: Queue[int] = Queue(5)
    assert queue.put_many(items) == 3
    assert queue.get_many(10) == [1, 2, 3]


def test_put_many_says_where_it_stopped() -> None:
    queue: Queue[str] = Queue(3)
    items = ["a", "b", "c", "d", "e"]
    assert queue.put_many([]) == 0
    accepted = queue.put_many(items)
    assert accepted == 3
    assert queue.put_many(items[accepted:]) == 0
    assert queue.get_many(2) == ["a", "b"]
    assert queue.put_many(items[accepted:]) == 2
    assert queue.get_many(3) == ["c", "d", "e"]


@pytest.mark.parametrize("items", [iter([1]), {1}, {1: 1}, None, 1])
def test_put_many_refuses_what_is_not_a_sequence(items: list[int]) -> None:
    queue: Queue[int] = Queue(3)
    with pytest.raises(TypeError, match="items must be a sequence"):
        queue.put_many(items)
    assert len(queue) == 0


def test_put_many_passes_on_the_error_of_a_sequence() -> None:
    class Broken(list[int]):
        pass

    class Sequence:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> int:
            raise RuntimeError("broken")

    queue: Queue[int] = Queue(3)
    with pytest.raises(RuntimeError, match="broken"):
        queue.put_many(Sequence())  # type: ignore[arg-type]
    assert len(queue) == 0
    assert queue.put_many(Broken([1])) == 1


def test_get_many_takes_what_there_is() -> None:
    queue: Queue[int] = Queue(4)
    assert queue.get_many(3) == []
    queue.put_many([1, 2, 3])
    assert queue.get_many(0) == []
    assert queue.get_many(2) == [1, 2]
    assert queue.get_many(10**30) == [3]
    assert queue.get_many(1) == []


def test_get_many_refuses() -> None:
    queue: Queue[int] = Queue(1)
    queue.try_put(1)
    with pytest.raises(ValueError, match="must not be negative"):
        queue.get_many(-1)
    for wrong in (1.5, "1", None):
        with pytest.raises(TypeError, match="max_items must be an integer"):
            queue.get_many(wrong)  # type: ignore[arg-type]
    assert queue.get_many(1) == [1]


# Errors


@pytest.mark.parametrize("capacity", [0, -1, -(2**31), -(10**400)])
def test_capacity_below_one(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        Queue(capacity)


@pytest.mark.parametrize("capacity", [2**31 + 1, 2**63, 2**64, 10**400])
def test_capacity_too_large(capacity: int) -> None:
    with pytest.raises(OverflowError, match="capacity must be at most 2147483648"):
        Queue(capacity)


@pytest.mark.parametrize("capacity", [1.0, "1", None, [1], b"1"])
def test_capacity_of_another_type(capacity: object) -> None:
    name = type(capacity).__name__
    with pytest.raises(TypeError, match=f"capacity must be an integer, not '{name}'"):
        Queue(capacity)  # type: ignore[arg-type]


def test_capacity_through_index() -> None:
    class Index:
        def __index__(self) -> int:
            return 3

    class Broken:
        def __index__(self) -> int:
            raise RuntimeError("broken")

    assert Queue(Index()).capacity == 3  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="broken"):
        Queue(Broken())  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_wrong_number_of_arguments(arguments: tuple[int, ...]) -> None:
    with pytest.raises(TypeError):
        Queue(*arguments)


def test_it_is_neither_copied_nor_pickled() -> None:
    queue: Queue[int] = Queue(1)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            attempt(queue)


def test_an_instance_without_init_is_safe() -> None:
    queue = Queue.__new__(Queue)
    gc.collect()
    with pytest.warns(RuntimeWarning, match="uninitialized"), pytest.raises(TypeError):
        queue.try_get()


def test_a_second_init_changes_nothing() -> None:
    queue: Queue[int] = Queue(2)
    queue.try_put(1)
    with pytest.warns(RuntimeWarning, match="already-initialized"), pytest.raises(TypeError):
        queue.__init__(5)  # type: ignore[misc]
    assert (queue.capacity, queue.get_many(9)) == (2, [1])


# References


def test_it_owns_one_reference_to_each_item() -> None:
    item = Item()
    default = Item()
    before = sys.getrefcount(item)
    queue: Queue[Item] = Queue(2)
    queue.put_many([item, item])
    assert sys.getrefcount(item) == before + 2
    assert not queue.try_put(item)
    assert queue.put_many([item]) == 0
    assert sys.getrefcount(item) == before + 2
    queue.try_get(default)
    queue.get_many(1)
    assert sys.getrefcount(item) == before
    before = sys.getrefcount(default)
    assert queue.try_get(default) is default
    assert sys.getrefcount(default) == before


def test_what_is_taken_is_not_kept_alive() -> None:
    queue: Queue[Item] = Queue(4)
    queue.put_many([Item() for _ in range(4)])
    references = [weakref.ref(item) for item in queue.get_many(2)]
    item = queue.try_get()
    references.append(weakref.ref(item))  # type: ignore[arg-type]
    del item
    assert [reference() for reference in references] == [None, None, None]
    assert len(queue) == 1


def test_destruction_drops_what_is_left() -> None:
    item = Item()
    reference = weakref.ref(item)
    queue: Queue[Item] = Queue(3)
    queue.try_put(item)
    del item
    assert reference() is not None
    del queue
    assert reference() is None


def test_it_can_be_referred_to_weakly() -> None:
    queue: Queue[int] = Queue(1)
    reference = weakref.ref(queue)
    assert reference() is queue
    del queue
    assert reference() is None


def test_a_cycle_is_collected() -> None:
    gc.collect()
    item = Item()
    queue: Queue[Item] = Queue(3)
    item.other = queue
    references = [weakref.ref(item), weakref.ref(queue)]
    queue.try_put(item)
    queue.try_put(Item())
    del item, queue
    assert None not in [reference() for reference in references]
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_a_queue_that_holds_itself_is_collected() -> None:
    gc.collect()
    queue: Queue[object] = Queue(2)
    reference = weakref.ref(queue)
    queue.put_many([queue, queue])
    del queue
    gc.collect()
    assert reference() is None


def test_a_cycle_through_a_subclass_is_collected() -> None:
    class Owner(Queue["Owner"]):
        me: Owner

    gc.collect()
    owner = Owner(1)
    owner.me = owner
    owner.try_put(owner)
    reference = weakref.ref(owner)
    del owner
    gc.collect()
    assert reference() is None


def test_the_collector_sees_the_items() -> None:
    queue: Queue[object] = Queue(3)
    first, second = Item(), Item()
    queue.put_many([Item(), Item(), first])
    queue.get_many(2)
    queue.try_put(second)  # in the cell that was left first
    referents = gc.get_referents(queue)
    assert [item for item in referents if isinstance(item, Item)] == [first, second]


def test_a_finalizer_may_use_the_queue() -> None:
    log: list[object] = []

    class Final:
        def __init__(self, queue: Queue[object]) -> None:
            self.queue = queue

        def __del__(self) -> None:
            log.append((len(self.queue), self.queue.try_get(EMPTY), self.queue.try_put("late")))

    queue: Queue[object] = Queue(3)
    queue.put_many([Final(queue), "item"])
    del queue
    gc.collect()
    assert len(log) == 1
    assert log[0][0] == 2  # type: ignore[index]
    # While the queue lives, an item's end may come from within a call that drops it.
    living: Queue[object] = Queue(3)
    living.try_put(Final(living))
    living.get_many(3)
    assert log[1] == (0, EMPTY, True)
    assert living.try_get() == "late"


def test_a_finalizer_that_fills_the_queue_again_does_not_hold_up_the_collector() -> None:
    finalized = 0

    class Phoenix:
        def __init__(self, queue: Queue[object]) -> None:
            self.queue = queue

        def __del__(self) -> None:
            nonlocal finalized
            finalized += 1
            if finalized < 50:
                self.queue.try_put(Phoenix(self.queue))

    gc.freeze()  # what else there is need not be looked at sixty times
    try:
        queue: Queue[object] = Queue(4)
        reference = weakref.ref(queue)
        queue.put_many([Phoenix(queue), Phoenix(queue)])
        del queue
        for _ in range(60):
            gc.collect()
    finally:
        gc.unfreeze()
    assert reference() is None
    assert finalized >= 50


def test_a_long_chain_of_queues_is_destroyed_without_recursion() -> None:
    # In a process of its own: if it fails, it takes the interpreter with it.
    script = """
import gc
from flowcoro.lockfree import Queue
for tie in (False, True):
    first = chain = Queue(2)
    for _ in range(200_000):
        longer = Queue(2)
        longer.try_put(chain)
        chain = longer
    if tie:
        first.try_put(chain)  # a cycle, so that the collector has to break it
    del first, chain, longer
    gc.collect()
    assert not any(isinstance(each, Queue) for each in gc.get_objects())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# Threads


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads that only spin give way after microseconds, and so in many places."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def put_all(queue: Queue[object], items: Iterable[object]) -> None:
    for item in items:
        while not queue.try_put(item):
            pass


def take_until_none(queue: Queue[object], into: list[object]) -> None:
    while (item := queue.try_get(EMPTY)) is not None:
        if item is not EMPTY:
            into.append(item)


@pytest.mark.parametrize(("capacity", "producers", "consumers"), [(1, 3, 3), (8, 4, 2), (64, 2, 4)])
@pytest.mark.usefixtures("eager_switching")
def test_many_threads(capacity: int, producers: int, consumers: int) -> None:
    each = 1_000
    queue: Queue[object] = Queue(capacity)
    made = [[(producer, number) for number in range(each)] for producer in range(producers)]
    received: list[list[object]] = [[] for _ in range(consumers)]
    makers = [threading.Thread(target=put_all, args=(queue, items)) for items in made]
    takers = [threading.Thread(target=take_until_none, args=(queue, into)) for into in received]
    for thread in makers + takers:
        thread.start()
    for thread in makers:
        thread.join()
    put_all(queue, [None] * consumers)
    for thread in takers:
        thread.join()

    assert Counter(item for items in received for item in items) == Counter(
        item for items in made for item in items
    )
    for items in received:
        for producer, theirs in enumerate(made):
            mine = [item for item in items if item[0] == producer]  # type: ignore[index]
            assert mine == sorted(mine)  # type: ignore[type-var]
            assert set(mine) <= set(theirs)
    assert len(queue) == 0


@pytest.mark.usefixtures("eager_switching")
def test_threads_in_bulk() -> None:
    queue: Queue[int] = Queue(50)
    total = 20_000
    taken: list[int] = []

    def produce() -> None:
        items = list(range(total))
        at = 0
        while at < total:
            at += queue.put_many(items[at : at + 30])

    producer = threading.Thread(target=produce)
    producer.start()
    while len(taken) < total:
        taken += queue.get_many(20)
    producer.join()
    assert taken == list(range(total))
