from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

import flowcoro.memory
from flowcoro.memory import Buffer, BufferPool


def take(pool: BufferPool, *, zero: bool = False) -> Buffer:
    buffer = pool.try_acquire(zero=zero)
    assert buffer is not None
    return buffer


def run(script: str) -> tuple[int, bytes, bytes]:
    """Runs a script in a process of its own; returns its exit code, output and errors."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_public_names() -> None:
    for name in flowcoro.memory.__all__:
        public = getattr(flowcoro.memory, name)
        assert public.__module__ == "flowcoro._native"
        assert public.__doc__


# Bytes


@pytest.mark.parametrize("size", [1, 63, 64, 65, 4096, 100_000, 3_000_000])
def test_a_memoryview_is_the_bytes_themselves(size: int) -> None:
    pool = BufferPool(size)
    assert (pool.buffer_size, pool.max_buffers) == (size, None)
    buffer = take(pool)
    assert len(buffer) == size
    view = memoryview(buffer)
    assert (view.nbytes, view.format, view.itemsize, view.ndim) == (size, "B", 1, 1)
    assert view.c_contiguous
    assert not view.readonly
    assert view.obj is buffer
    view[0] = 1
    view[-1] = 7
    assert memoryview(buffer)[-1] == 7
    assert bytes(buffer)[-1:] == b"\7"


def test_whatever_takes_bytes_takes_it() -> None:
    buffer = take(BufferPool(4))
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as reader, os.fdopen(write, "wb") as writer:
        writer.write(b"abcd")
        writer.flush()
        assert reader.readinto(buffer) == 4
    assert b"".join([buffer, b"!"]) == b"abcd!"
    assert int.from_bytes(buffer, "big") == 0x61626364
    assert bytearray(buffer) == b"abcd"


def test_buffers_do_not_overlap() -> None:
    pool = BufferPool(10)
    buffers = [take(pool) for _ in range(300)]
    for number, buffer in enumerate(buffers):
        memoryview(buffer)[:] = number.to_bytes(2, "big") * 5
    for number, buffer in enumerate(buffers):
        assert bytes(buffer) == number.to_bytes(2, "big") * 5


@pytest.mark.parametrize("size", [1, 1000, 3_000_000])
def test_zeroed_when_asked(size: int) -> None:
    pool = BufferPool(size)
    with take(pool) as buffer, memoryview(buffer) as view:
        view[:] = b"x" * size
    buffer = take(pool)
    assert bytes(buffer) == b"x" * size  # what an earlier user wrote, as documented
    buffer.release()
    assert bytes(take(pool, zero=True)) == bytes(size)


def test_zero_is_a_boolean_by_keyword() -> None:
    pool = BufferPool(1)
    for wrong in (1, "yes", None):
        with pytest.raises(TypeError):
            pool.try_acquire(zero=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pool.try_acquire(True)  # type: ignore[misc]
    assert pool.stats().live == 0


# When they come back


def test_the_limit_is_kept_exactly() -> None:
    pool = BufferPool(8, max_buffers=3)
    assert pool.max_buffers == 3
    for _ in range(3):
        buffers = [take(pool) for _ in range(3)]
        assert pool.try_acquire() is None
        assert pool.try_acquire(zero=True) is None
        assert pool.stats().live == 3
        buffers.pop()
        buffers.append(take(pool))
        assert pool.try_acquire() is None
        del buffers
        assert pool.stats().live == 0
    assert pool.stats().peak == 3


def test_it_comes_back_when_it_is_dropped() -> None:
    pool = BufferPool(8, 1)
    buffer = take(pool)
    assert pool.try_acquire() is None
    del buffer
    assert pool.try_acquire() is not None


def test_views_and_slices_keep_the_bytes() -> None:
    pool = BufferPool(8, 1)
    view = memoryview(take(pool))
    view[:] = b"abcdefgh"
    piece = view[2:5]
    last: memoryview = piece[1:].cast("b").toreadonly()
    for gone in (view, piece):
        assert pool.try_acquire() is None
        gone.release()
    del view, piece, gone
    gc.collect()
    assert pool.try_acquire() is None
    assert last.tobytes() == b"de"
    del last
    assert pool.stats().live == 0
    assert pool.try_acquire() is not None


def test_buffers_outlive_their_pool() -> None:
    pool = BufferPool(8)
    reference = weakref.ref(pool)
    view = memoryview(take(pool))
    other = take(pool)
    del pool
    gc.collect()
    assert reference() is None
    view[:] = b"abcdefgh"
    assert len(other) == 8
    other.release()
    del other
    assert bytes(view) == b"abcdefgh"
    del view


def test_the_same_memory_is_used_again() -> None:
    pool = BufferPool(1000)
    for _ in range(1_000_000):
        pool.try_acquire()
    stats = pool.stats()
    assert (stats.live, stats.peak) == (0, 1)
    assert stats.hits + stats.misses == 1_000_000
    assert stats.misses == 1
    assert stats.reserved_bytes < 256 * 1024


def test_large_buffers_reserve_little_more_than_is_used() -> None:
    pool = BufferPool(32 * 1024 * 1024)
    first, second = take(pool), take(pool)
    assert (len(first), len(second)) == (pool.buffer_size, pool.buffer_size)
    assert pool.stats().reserved_bytes < 3 * pool.buffer_size


# Early release


def test_release() -> None:
    pool = BufferPool(8, 1)
    buffer = take(pool)
    buffer.release()
    assert pool.stats().live == 0
    buffer.release()
    following = take(pool)
    for use in (len, memoryview, bytes, lambda buffer: buffer.__enter__()):
        with pytest.raises(ValueError, match="the buffer was released"):
            use(buffer)
    del buffer
    assert len(following) == 8
    assert pool.stats().live == 1


def test_no_release_while_there_are_views() -> None:
    pool = BufferPool(8, 1)
    buffer = take(pool)
    view = memoryview(buffer)
    piece = view[1:2]
    view.release()
    with pytest.raises(BufferError, match="while memoryviews of it exist"):
        buffer.release()
    assert len(buffer) == 8
    piece[:] = b"x"
    piece.release()
    buffer.release()
    assert pool.stats().live == 0


def test_context_manager() -> None:
    pool = BufferPool(8, 1)
    with take(pool) as buffer:
        assert len(buffer) == 8
    with pytest.raises(ValueError, match="released"):
        len(buffer)
    with pytest.raises(ValueError, match="released"), buffer:
        raise AssertionError("not reached")
    assert pool.stats().live == 0


def test_context_manager_with_a_view_that_is_left() -> None:
    pool = BufferPool(8, 1)
    with pytest.raises(BufferError, match="memoryviews"), take(pool) as buffer:
        view = memoryview(buffer)
    assert len(view) == 8
    # An error of the block is not hidden by that; the bytes go with the view.
    with pytest.raises(KeyError, match="mine"), buffer:
        raise KeyError("mine")
    assert pool.stats().live == 1
    del view, buffer
    assert pool.stats().live == 0


# Figures


def test_stats() -> None:
    pool = BufferPool(100)
    stats = pool.stats()
    assert (stats.live, stats.peak, stats.hits, stats.misses) == (0, 0, 0, 0)
    assert stats.reserved_bytes == 0
    buffers = [take(pool) for _ in range(5)]
    buffers.pop()
    stats = pool.stats()
    assert (stats.live, stats.peak, stats.hits + stats.misses) == (4, 5, 5)
    assert stats.misses >= 1
    assert stats.reserved_bytes >= 500
    assert repr(stats).startswith("PoolStats(live=4, peak=5, hits=")
    with pytest.raises(AttributeError):
        stats.live = 1  # type: ignore[misc]


# Errors


@pytest.mark.parametrize("name", ["size", "max_buffers"])
def test_numbers_that_cannot_be(name: str) -> None:
    make: Callable[..., BufferPool] = BufferPool
    arguments: dict[str, object] = {"size": 8, "max_buffers": 8}
    for small in (0, -1, -(2**63), -(10**400)):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            make(**{**arguments, name: small})
    for large in (2**40 + 1, 2**63, 2**64, 10**400):
        with pytest.raises(OverflowError, match=f"{name} must be at most 1099511627776"):
            make(**{**arguments, name: large})
    for wrong in (1.0, "1", [1], b"1"):
        expected = f"{name} must be an integer, not '{type(wrong).__name__}'"
        with pytest.raises(TypeError, match=expected):
            make(**{**arguments, name: wrong})


@pytest.mark.parametrize("arguments", [(), (None,), (1, 2, 3)])
def test_wrong_arguments(arguments: tuple[int, ...]) -> None:
    with pytest.raises(TypeError):
        BufferPool(*arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on address space")
def test_memory_that_is_not_there() -> None:
    script = """
import resource
from flowcoro.memory import BufferPool
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
pool = BufferPool(2**40, 1)
for zero in (False, True):
    try:
        pool.try_acquire(zero=zero)
    except MemoryError as error:
        print(error)
assert pool.stats().live == 0
assert BufferPool(8, 1).try_acquire() is not None
"""
    message = b"there is no memory for a buffer of 1099511627776 bytes\n"
    assert run(script) == (0, 2 * message, b"")


def test_a_buffer_comes_from_a_pool_only() -> None:
    with pytest.raises(TypeError):
        Buffer()
    with pytest.raises(TypeError, match=r"prohibits subclassing|acceptable base type"):
        type("Mine", (Buffer,), {})
    empty = Buffer.__new__(Buffer)
    with pytest.raises(ValueError, match="was not made by a pool"):
        memoryview(empty)


def test_they_are_neither_copied_nor_pickled() -> None:
    pool = BufferPool(1)
    for thing in (pool, take(pool), pool.stats()):
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot pickle"):
                attempt(thing)


def test_a_subclass_of_the_pool_that_fails() -> None:
    class Broken(BufferPool):
        def __init__(self) -> None:
            raise RuntimeError("broken")

    class Named(BufferPool):
        name = "pages"

    with pytest.raises(RuntimeError, match="broken"):
        Broken()
    with pytest.warns(RuntimeWarning, match="uninitialized"), pytest.raises(TypeError):
        Named.__new__(Named).try_acquire()
    assert (Named(8).name, len(take(Named(8)))) == ("pages", 8)


def test_weak_references() -> None:
    pool = BufferPool(8)
    buffer = take(pool)
    view = memoryview(buffer)
    reference = weakref.ref(buffer)
    del buffer
    assert reference() is view.obj
    del view
    assert reference() is None


# Threads and processes


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads give way after microseconds, and so in many places."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_views_are_dropped_by_other_threads() -> None:
    pool = BufferPool(64, 20)
    taken = threading.Barrier(5)

    def drop(views: list[memoryview], number: int) -> None:
        taken.wait()
        while views:
            assert views.pop()[0] == number

    for _ in range(20):
        threads = []
        for number in range(4):
            views: list[memoryview] = []
            for _ in range(5):
                views.append(memoryview(take(pool)))
                views[-1][0] = number
            threads.append(threading.Thread(target=drop, args=(views, number)))
            del views
        assert pool.try_acquire() is None
        for thread in threads:
            thread.start()
        taken.wait()
        for thread in threads:
            thread.join()
        del threads, thread
        assert pool.stats().live == 0
    assert pool.stats().peak == 20


@pytest.mark.usefixtures("eager_switching")
def test_threads_share_a_pool_within_its_limit() -> None:
    pool = BufferPool(16, 3)
    start = threading.Barrier(4)
    errors: list[str] = []
    served = [0] * 4

    def work(number: int) -> None:
        mine = bytes([number]) * 16
        start.wait()
        while served[number] < 2_000:
            buffer = pool.try_acquire()
            if buffer is None:
                continue
            with buffer:
                with memoryview(buffer) as view:
                    view[:] = mine
                if bytes(buffer) != mine:
                    errors.append("someone else wrote to it")
            served[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert served == [2_000] * 4
    stats = pool.stats()
    assert stats.live == 0
    assert stats.peak <= 3


@pytest.mark.usefixtures("eager_switching")
def test_a_view_and_a_release_at_the_same_time() -> None:
    pool = BufferPool(8)
    start = threading.Barrier(2)
    buffers = [take(pool) for _ in range(2_000)]
    outcomes: list[str] = []

    def view_all() -> None:
        start.wait()
        for buffer in buffers:
            try:
                with memoryview(buffer) as view:
                    view[0] = 1
            except ValueError:
                outcomes.append("released")

    def release_all() -> None:
        start.wait()
        for buffer in buffers:
            try:
                buffer.release()
            except BufferError:
                outcomes.append("in view")

    threads = [threading.Thread(target=work) for work in (view_all, release_all)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.stats().live == outcomes.count("in view")
    buffers.clear()
    assert pool.stats().live == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_a_fork_with_buffers_live() -> None:
    script = """
import os, sys
from flowcoro.memory import BufferPool
pool = BufferPool(1000, 3)
first, second = pool.try_acquire(), pool.try_acquire()
view = memoryview(first)
view[:5] = b"hello"
child = os.fork()
if child == 0:
    assert bytes(view[:5]) == b"hello"
    view[:5] = b"child"
    del second
    third, fourth = pool.try_acquire(), pool.try_acquire()
    assert fourth is not None and pool.try_acquire() is None
    del third, fourth, first, view
    assert pool.stats().live == 0
    sys.exit(7)
status = os.waitpid(child, 0)[1]
assert os.waitstatus_to_exitcode(status) == 7
assert bytes(view[:5]) == b"hello"
assert pool.stats().live == 2
"""
    assert run(script) == (0, b"", b"")


@pytest.mark.parametrize(
    "keep",
    [
        "import builtins; builtins.kept = buffer",
        "import builtins; builtins.kept = memoryview(buffer)[2:]",
        "import sys; sys.kept = [pool, memoryview(buffer)]",
        "kept = [memoryview(buffer)]; kept.append(kept); del pool",
        "import atexit; atexit.register(lambda view: view.tobytes(), memoryview(buffer))",
        """
import threading
started = threading.Event()
def wait(view):
    started.set()
    threading.Event().wait()
threading.Thread(target=wait, args=(memoryview(buffer),), daemon=True).start()
started.wait()
""",
    ],
    ids=["buffer", "view", "pool", "cycle", "atexit", "daemon"],
)
def test_an_exit_with_buffers_live_is_quiet(keep: str) -> None:
    script = f"""
from flowcoro.memory import BufferPool
pool = BufferPool(100)
buffer = pool.try_acquire()
{keep}
"""
    assert run(script) == (0, b"", b"")
