from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from flowcoro.memory import Lease, ObjectPool


class Item:
    """Has an identity, a place for references, and can be referred to weakly."""

    other: object = None
    dirty = False

    def clean(self) -> None:
        self.dirty = False


def figures(pool: ObjectPool[Item]) -> tuple[int, int, int, int, int]:
    stats = pool.stats()
    return stats.live, stats.peak, stats.hits, stats.misses, stats.idle


# Use


def test_objects_are_used_again_the_last_one_first() -> None:
    pool = ObjectPool(Item)
    first, second = pool.acquire(), pool.acquire()
    assert first is not second
    assert figures(pool) == (2, 2, 0, 2, 0)
    pool.release(first)
    pool.release(second)
    assert figures(pool) == (0, 2, 0, 2, 2)
    assert pool.acquire() is second
    assert pool.acquire() is first
    third = pool.acquire()
    assert third not in (first, second)
    assert figures(pool) == (3, 3, 2, 3, 0)
    assert repr(pool.stats()) == (
        "ObjectPoolStats(live=3, peak=3, hits=2, misses=3, idle=0, dropped=0, failed_resets=0)"
    )


def test_reset_puts_an_object_in_order() -> None:
    pool = ObjectPool(Item, reset=Item.clean)
    item = pool.acquire()
    item.dirty = True
    pool.release(item)
    assert pool.acquire() is item
    assert not item.dirty


@pytest.mark.parametrize("max_idle", [1, 3])
def test_max_idle_is_kept_exactly(max_idle: int) -> None:
    pool = ObjectPool(Item, max_idle=max_idle)
    assert pool.max_idle == max_idle
    for round_number in range(1, 4):
        items = [pool.acquire() for _ in range(max_idle + 2)]
        references = [weakref.ref(item) for item in items]
        for item in items:
            pool.release(item)
        del items, item
        alive = [reference() is not None for reference in references]
        assert alive == [True] * max_idle + [False] * 2
        assert pool.stats().idle == max_idle
        assert pool.stats().dropped == 2 * round_number
        assert pool.stats().live == 0


def test_objects_that_know_nothing_of_identity() -> None:
    # Neither hashable nor weakly referable, and equal to each other.
    pool = ObjectPool(bytearray)
    first, second = pool.acquire(), pool.acquire()
    pool.release(first)
    with pytest.raises(ValueError, match="released already"):
        pool.release(first)
    pool.release(second)


def test_arguments_by_keyword() -> None:
    pool = ObjectPool(factory=Item, reset=None, max_idle=5)
    pool.release(object=pool.acquire())
    assert pool.max_idle == 5
    assert ObjectPool(Item).max_idle == 64
    with pytest.raises(TypeError):
        ObjectPool(Item, Item.clean)  # type: ignore[misc]


def test_subscription_is_for_type_checkers() -> None:
    assert type(ObjectPool[Item](Item)) is ObjectPool
    assert Lease[Item] == Lease[Item]


# Leases


def test_a_lease() -> None:
    pool = ObjectPool(Item)
    with pool.lease() as item:
        assert pool.stats().live == 1
    assert pool.stats().live == 0
    assert pool.acquire() is item


def test_a_lease_ends_with_an_error() -> None:
    pool = ObjectPool(Item)
    with pytest.raises(KeyError, match="mine"), pool.lease():
        raise KeyError("mine")
    assert figures(pool) == (0, 1, 0, 1, 1)


async def test_a_lease_ends_with_cancellation() -> None:
    pool = ObjectPool(Item)
    holds = asyncio.Event()

    async def hold() -> None:
        with pool.lease():
            holds.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(hold())
    await holds.wait()
    assert pool.stats().live == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert figures(pool) == (0, 1, 0, 1, 1)


def test_a_lease_ends_with_its_generator() -> None:
    pool = ObjectPool(Item)

    def hold() -> Iterator[Item]:
        with pool.lease() as item:
            yield item

    generator = hold()
    next(generator)
    assert pool.stats().live == 1
    del generator
    assert pool.stats().live == 0


def test_a_lease_is_used_again_but_not_twice_at_a_time() -> None:
    pool = ObjectPool(Item)
    lease = pool.lease()
    for _ in range(3):
        with lease:
            with pytest.raises(RuntimeError, match="the lease is in use"), lease:
                raise AssertionError("not reached")
            assert pool.stats().live == 1
        assert pool.stats().live == 0
    with pytest.raises(RuntimeError, match="the lease is not in use"):
        lease.__exit__(None, None, None)


def test_a_lease_whose_object_was_released() -> None:
    pool = ObjectPool(Item)
    with pytest.raises(ValueError, match="released already"), pool.lease() as item:
        pool.release(item)
    assert figures(pool) == (0, 1, 0, 1, 1)


def test_a_lease_keeps_its_pool() -> None:
    pool = ObjectPool(Item)
    reference = weakref.ref(pool)
    with pool.lease() as item:
        del pool
        assert reference() is not None
        item.dirty = True
    gc.collect()
    assert reference() is None


def test_a_lease_comes_from_a_pool_only() -> None:
    with pytest.raises(TypeError):
        Lease()


# Errors


def test_a_factory_that_fails() -> None:
    fails = True

    def make() -> Item:
        if fails:
            raise RuntimeError("broken")
        return Item()

    pool = ObjectPool(make)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            pool.acquire()
        with pytest.raises(RuntimeError, match="broken"), pool.lease():
            raise AssertionError("not reached")
    assert figures(pool) == (0, 0, 0, 0, 0)
    fails = False
    pool.release(pool.acquire())
    assert figures(pool) == (0, 1, 0, 1, 1)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, asyncio.CancelledError])
def test_a_reset_that_fails(error: type[BaseException]) -> None:
    def reset(_: Item) -> None:
        raise error("broken")

    pool = ObjectPool(Item, reset=reset)
    item = pool.acquire()
    reference = weakref.ref(item)
    with pytest.raises(error, match="broken"):
        pool.release(item)
    assert figures(pool) == (0, 1, 0, 1, 0)
    assert (pool.stats().dropped, pool.stats().failed_resets) == (1, 1)
    with pytest.raises(ValueError, match="not of this pool"):
        pool.release(item)
    del item
    gc.collect()
    assert reference() is None


def test_a_reset_that_fails_at_the_end_of_a_lease() -> None:
    def reset(_: Item) -> None:
        raise RuntimeError("reset")

    pool = ObjectPool(Item, reset=reset)
    with pytest.raises(RuntimeError, match="reset") as caught, pool.lease():
        raise KeyError("block")
    assert isinstance(caught.value.__context__, KeyError)
    assert figures(pool) == (0, 1, 0, 1, 0)


def test_a_finalizer_at_a_failed_reset_does_not_hide_the_error() -> None:
    class Final(Item):
        def __del__(self) -> None:
            try:
                raise KeyError("finalizer")
            except KeyError:
                pool.stats()

    def reset(_: Final) -> None:
        raise RuntimeError("reset")

    pool = ObjectPool(Final, reset=reset)
    held = [pool.acquire()]
    with pytest.raises(RuntimeError, match=r"^reset$"):
        pool.release(held.pop())
    assert pool.stats().live == 0


def test_double_release_and_foreign_objects() -> None:
    pool, other = ObjectPool(Item), ObjectPool(Item)
    item = pool.acquire()
    with pytest.raises(ValueError, match="'Item' object is not of this pool"):
        other.release(item)
    for foreign in (Item(), None, 1):
        name = type(foreign).__name__
        with pytest.raises(ValueError, match=f"this '{name}' object is not of this pool"):
            pool.release(foreign)  # type: ignore[arg-type]
    pool.release(item)
    with pytest.raises(ValueError, match="this 'Item' object was released already"):
        pool.release(item)
    assert figures(pool) == (0, 1, 0, 1, 1)
    assert pool.acquire() is item
    pool.release(item)


def test_reset_may_use_the_pool_but_not_release_again() -> None:
    errors: list[str] = []

    def reset(item: Item) -> None:
        with pytest.raises(ValueError, match="is being released by another call") as caught:
            pool.release(item)
        errors.append(str(caught.value))
        assert pool.acquire() is not item
        gc.collect()

    pool = ObjectPool(Item, reset=reset)
    item = pool.acquire()
    pool.release(item)
    assert len(errors) == 1
    assert figures(pool) == (1, 2, 0, 2, 1)


def test_a_factory_may_use_the_pool() -> None:
    depth = 0

    def make() -> Item:
        nonlocal depth
        depth += 1
        item = Item()
        if depth < 4:
            item.other = pool.acquire()
        return item

    pool = ObjectPool(make)
    pool.acquire()
    assert figures(pool) == (4, 4, 0, 4, 0)


@pytest.mark.parametrize("constant", [None, 1, "one"])
def test_a_factory_must_make_new_objects(constant: object) -> None:
    pool = ObjectPool(lambda: constant)
    assert pool.acquire() is constant
    with pytest.raises(RuntimeError, match="object that the pool has already"):
        pool.acquire()
    assert pool.stats().live == 1
    pool.release(constant)
    assert pool.acquire() is constant


def test_what_is_not_callable() -> None:
    for wrong in (None, 1, "name"):
        name = type(wrong).__name__
        with pytest.raises(TypeError, match=f"factory must be callable, not '{name}'"):
            ObjectPool(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reset must be callable or None, not 'int'"):
        ObjectPool(Item, reset=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ObjectPool()  # type: ignore[call-arg]


def test_max_idle_that_cannot_be() -> None:
    make: Callable[..., ObjectPool[Item]] = ObjectPool
    for small in (0, -1, -(10**400)):
        with pytest.raises(ValueError, match="max_idle must be at least 1"):
            make(Item, max_idle=small)
    for large in (2**31 + 1, 2**64, 10**400):
        with pytest.raises(OverflowError, match="max_idle must be at most 2147483648"):
            make(Item, max_idle=large)
    for wrong in (1.0, "1", None):
        with pytest.raises(TypeError, match="max_idle must be an integer, not"):
            make(Item, max_idle=wrong)


def test_a_subclass() -> None:
    class Broken(ObjectPool[Item]):
        def __init__(self) -> None:
            raise RuntimeError("broken")

    class Named(ObjectPool[Item]):
        name = "items"

    with pytest.raises(RuntimeError, match="broken"):
        Broken()
    bare = Named.__new__(Named)
    gc.collect()
    with pytest.warns(RuntimeWarning, match="uninitialized"), pytest.raises(TypeError):
        bare.acquire()
    pool = Named(Item)
    with pool.lease():
        assert (pool.name, pool.stats().live) == ("items", 1)


def test_it_is_neither_copied_nor_pickled() -> None:
    pool = ObjectPool(Item)
    for thing in (pool, pool.lease()):
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot pickle"):
                attempt(thing)


# References


def test_it_owns_one_reference_to_each_object() -> None:
    pool = ObjectPool(Item)
    item = pool.acquire()
    before = sys.getrefcount(item)
    for _ in range(5):
        pool.release(item)
        assert sys.getrefcount(item) == before
        pool.acquire()
        with pytest.raises(ValueError, match="not of this pool"):
            ObjectPool(Item).release(item)
    assert sys.getrefcount(item) == before
    with pool.lease():
        pass
    del pool
    assert sys.getrefcount(item) == before - 1


def test_destruction_drops_what_is_left() -> None:
    pool = ObjectPool(Item)
    idle, live = pool.acquire(), pool.acquire()
    pool.release(idle)
    references = [weakref.ref(idle), weakref.ref(live), weakref.ref(pool)]
    del idle, live
    assert None not in [reference() for reference in references]
    del pool
    assert [reference() for reference in references] == [None] * 3


def test_cycles_are_collected() -> None:
    gc.collect()
    references: list[weakref.ref[object]] = []

    def tie() -> None:
        def make() -> Item:
            item = Item()
            item.other = pool
            return item

        def reset(item: Item) -> None:
            item.other = (item, pool)

        pool: ObjectPool[Item] = ObjectPool(make, reset=reset)
        idle, live, kept = pool.acquire(), pool.acquire(), pool.acquire()
        pool.release(idle)
        live.other = live
        lease = pool.lease()
        kept.other = (lease, lease.__enter__())
        references.extend(weakref.ref(each) for each in (idle, live, kept, pool, lease))
        assert {id(idle), id(live), id(kept), id(make), id(reset)} <= {
            id(referent) for referent in gc.get_referents(pool)
        }

    tie()
    assert None not in [reference() for reference in references]
    gc.collect()
    assert [reference() for reference in references] == [None] * 5


def test_finalizers_may_use_a_pool_that_is_collected() -> None:
    gc.collect()
    log: list[str] = []

    class Final(Item):
        pool: ObjectPool[Final]

        def __del__(self) -> None:
            try:
                self.pool.release(self)
                log.append("released")
            except ValueError:
                log.append("not out")

    pool = ObjectPool(Final)
    items = [pool.acquire() for _ in range(6)]
    for item in items:
        item.pool = pool
    for item in items[:3]:
        pool.release(item)
    reference = weakref.ref(pool)
    del pool, items, item
    for _ in range(3):
        gc.collect()
    assert reference() is None
    assert Counter(log) == {"released": 3, "not out": 3}


def test_a_long_chain_of_pools_is_destroyed_without_recursion() -> None:
    script = """
import gc
from flowcoro.memory import ObjectPool
for tie in (False, True):
    made = []
    first = chain = ObjectPool(made.pop)
    for _ in range(100_000):
        longer = ObjectPool(made.pop)
        made.append(chain)
        longer.release(longer.acquire())
        chain = longer
    if tie:
        made.append(chain)
        first.acquire()  # a cycle, so that the collector has to break it
    del first, chain, longer, made
    gc.collect()
    assert not any(isinstance(each, ObjectPool) for each in gc.get_objects())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_exit_with_objects_live_is_quiet() -> None:
    script = """
import builtins, threading
from flowcoro.memory import ObjectPool
builtins.pool = pool = ObjectPool(bytearray)
pool.release(pool.acquire())
builtins.object_in_use = pool.acquire()
started = threading.Event()
def hold():
    with pool.lease():
        started.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
started.wait()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_cycles_do_not_grow() -> None:
    # In a process of its own, so that nothing else allocates.
    script = """
from flowcoro.memory import ObjectPool
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
pool = ObjectPool(bytearray, reset=bytearray.clear, max_idle=4)
def cycle(times):
    acquire, release = pool.acquire, pool.release
    for _ in range(times):
        objects = [acquire() for _ in range(5)]  # one more than it keeps
        for each in objects:
            release(each)
cycle(10_000)
before = resident()
cycle(200_000)
grown = resident() - before
assert grown <= 256 * 1024, grown
stats = pool.stats()
assert (stats.live, stats.peak, stats.idle) == (0, 5, 4), stats
assert stats.hits + stats.misses == 5 * 210_000
assert stats.dropped == 210_000
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# Threads


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads give way after microseconds, and so in many places."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_no_two_threads_have_the_same_object() -> None:
    pool = ObjectPool(Item, reset=Item.clean, max_idle=3)
    start = threading.Barrier(4)
    errors: list[str] = []

    def work() -> None:
        start.wait()
        for _ in range(3_000):
            with pool.lease() as item:
                if item.dirty:
                    errors.append("someone else has it")
                item.dirty = True
                if pool.stats().live > 4:
                    errors.append("more are out than there are threads")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = pool.stats()
    assert not errors
    assert stats.live == 0
    assert stats.peak <= 4
    assert stats.hits + stats.misses == 12_000
    assert stats.misses - stats.dropped == stats.idle <= 3


@pytest.mark.usefixtures("eager_switching")
def test_one_of_many_releases_succeeds() -> None:
    pool = ObjectPool(Item, reset=lambda _: sum(range(200)))
    start = threading.Barrier(4)
    outcomes: list[bool] = []
    items = [pool.acquire() for _ in range(200)]

    def work() -> None:
        start.wait()
        for item in items:
            try:
                pool.release(item)
                outcomes.append(True)
            except ValueError:
                outcomes.append(False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {True: 200, False: 600}
    assert (pool.stats().live, pool.stats().idle) == (0, 64)
