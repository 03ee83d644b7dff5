# Written by core/bindings/check_stubs.py --update: change the bindings instead.
"""The native core. Private: import the public names from `flowcoro.lockfree` and `.memory`."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar, final, overload

_T = TypeVar("_T")
_D = TypeVar("_D")

def build_info() -> dict[str, str]:
    """How this extension was built.

    Returns:
        `compiler` (name and version), `build_type` (the CMake build type), `cxx_standard` (the
        value of `__cplusplus`, such as `202002`) and `nanobind` (its version).
    """

class Queue(Generic[_T]):
    """A bounded first-in, first-out queue for many producers and consumers.

    No call waits: a full queue refuses and an empty one says so. Any thread may call any method.
    `Queue[int](8)` works as `Queue(8)` does; the parameter is for type checkers. An empty queue
    is false, as an empty list is.

    Args:
        capacity: How many items it holds at most: 1 to 2**31, kept exactly. The memory, 16 bytes
            for each, is allocated at once.

    Raises:
        TypeError: `capacity` is not an integer.
        ValueError: `capacity` is below 1.
        OverflowError: `capacity` is above 2**31.
        MemoryError: There is no memory for so many.
    """

    def __init__(self, capacity: int) -> None: ...
    def try_put(self, item: _T) -> bool:
        """Put `item` at the end.

        Args:
            item: Any object; `None` too.

        Returns:
            Whether there was room; if not, the queue is as it was.
        """

    @overload
    def try_get(self) -> _T | None:
        """Take the first item.

        Returns:
            The item, or `None` when there is none. If `None` may be an item, pass a `default` of
            your own.
        """

    @overload
    def try_get(self, default: _D) -> _T | _D:
        """Take the first item.

        Args:
            default: What to return when there is none.

        Returns:
            The item, or `default`.
        """

    def put_many(self, items: Sequence[_T]) -> int:
        """Put items at the end, in their order, until the queue is full.

        Other threads may put theirs in between.

        Args:
            items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

        Returns:
            How many were accepted.

        Raises:
            TypeError: `items` is not a sequence.
        """

    def get_many(self, max_items: int) -> list[_T]:
        """Take up to `max_items` of the items that are there now, the first first.

        Args:
            max_items: 0 or more.

        Returns:
            The items; an empty list when there are none.

        Raises:
            TypeError: `max_items` is not an integer.
            ValueError: `max_items` is negative.
        """

    def __len__(self) -> int:
        """How many items it holds: an estimate while other threads use the queue."""

    @property
    def capacity(self) -> int:
        """How many items it holds at most."""

class PoolStats:
    """What a `BufferPool` counted. While threads are at work: about now."""

    @property
    def live(self) -> int:
        """How many buffers are in use."""

    @property
    def peak(self) -> int:
        """The most there ever were in use at a time."""

    @property
    def hits(self) -> int:
        """How many were served from what the calling thread had at hand."""

    @property
    def misses(self) -> int:
        """How many had to get more from what threads share, or from the system."""

    @property
    def reserved_bytes(self) -> int:
        """The memory, in bytes, that the pool has got from the system."""

    def __repr__(self) -> str: ...

@final
class Buffer:
    """Bytes of a `BufferPool`, for anything that takes a bytes-like object.

    `memoryview(buffer)` is a view without a copy: writable, contiguous, of format `B`. The bytes
    go back to the pool when the buffer and every view of it (slices, too) are gone, and never
    before. As a context manager it is released at the end; when an error leaves the block while
    views exist, that error stays the one that is seen, and the bytes go back with the last view.

    Any thread may call any method. What two threads do to the same bytes is theirs to order.
    """

    def release(self) -> None:
        """Give the bytes back now; nothing happens when that was done before.

        Raises:
            BufferError: There are memoryviews of it.
        """

    def __len__(self) -> int:
        """How many bytes it has.

        Raises:
            ValueError: It was released.
        """

    def __enter__(self) -> Self:
        """Return the buffer.

        Raises:
            ValueError: It was released.
        """

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release it.

        Raises:
            BufferError: There are memoryviews of it, and the block ended without an error.
        """

    def __buffer__(self, flags: int, /) -> memoryview: ...

class BufferPool:
    """Buffers of one size that are used again.

    Any thread may call any method, and no call waits. Memory that the pool has got it keeps until
    it and its buffers are gone.

    Args:
        size: Bytes of each buffer: 1 to 2**40. They begin at a multiple of 64.
        max_buffers: How many there may be at a time, 1 to 2**40; any number when `None`.

    Raises:
        TypeError: An argument is not an integer.
        ValueError: An argument is below 1.
        OverflowError: An argument is above 2**40.
    """

    def __init__(self, size: int, max_buffers: int | None = None) -> None: ...
    def try_acquire(self, *, zero: bool = False) -> Buffer | None:
        """Take a buffer.

        Its content is whatever the memory held, such as what an earlier user of the buffer wrote:
        clearing costs more than the rest of the call. Ask for `zero` where bytes that were not
        overwritten could get to someone who must not read them.

        Args:
            zero: Whether to set every byte to 0.

        Returns:
            The buffer, or `None` when `max_buffers` are in use.

        Raises:
            MemoryError: There is no memory for another one.
        """

    def stats(self) -> PoolStats:
        """What it counted so far."""

    @property
    def buffer_size(self) -> int:
        """Bytes of each buffer."""

    @property
    def max_buffers(self) -> int | None:
        """How many there may be at a time; `None` when there is no limit."""

class ObjectPoolStats:
    """What an `ObjectPool` counted. While threads are at work: about now."""

    @property
    def live(self) -> int:
        """How many objects are in use: acquired and not released."""

    @property
    def peak(self) -> int:
        """The most there ever were in use at a time."""

    @property
    def hits(self) -> int:
        """How many times an idle object was there."""

    @property
    def misses(self) -> int:
        """How many times the factory made one."""

    @property
    def idle(self) -> int:
        """How many objects wait to be used again."""

    @property
    def dropped(self) -> int:
        """How many it did not keep at their release: `max_idle` were idle, or `reset` failed."""

    @property
    def failed_resets(self) -> int:
        """How many times `reset` raised."""

    def __repr__(self) -> str: ...

@final
class Lease(Generic[_T]):
    """What `ObjectPool.lease` returns: a context manager that holds an object.

    It may be used again after its block, and then holds another object.
    """

    def __enter__(self) -> _T:
        """Acquire an object.

        Raises:
            RuntimeError: It holds one already.
        """

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the object, as `ObjectPool.release` does.

        Raises:
            RuntimeError: It holds none.
            ValueError: The object was released within the block.
        """

class ObjectPool(Generic[_T]):
    """Python objects that are made once and used many times.

    Any thread may call any method, and no call waits. An object that is released goes to whoever
    acquires next, so the most recently used one is used again first. The pool refers to every
    object that is in use: one that is never released is never gone, and counts as `live`.

    Args:
        factory: Makes a new object, without arguments, when none is idle. Another one each time:
            neither `None` nor a constant will do.
        reset: Called with an object at its release, to put it in order; nothing when `None`.
        max_idle: How many objects it keeps for later, 1 to 2**31. What is released beyond that is
            dropped.

    Raises:
        TypeError: `factory` or `reset` cannot be called, or `max_idle` is not an integer.
        ValueError: `max_idle` is below 1.
        OverflowError: `max_idle` is above 2**31.
    """

    def __init__(
        self,
        factory: Callable[[], _T],
        *,
        reset: Callable[[_T], object] | None = None,
        max_idle: int = 64,
    ) -> None: ...
    def acquire(self) -> _T:
        """Take an idle object, or let the factory make one.

        Returns:
            The object, which is the caller's until `release`.

        Raises:
            RuntimeError: The factory returned an object that the pool has already.
            Exception: What the factory raises; the pool is then as it was.
        """

    def release(self, object: _T) -> None:
        """Give an object back; it must not be used any more.

        Args:
            object: What `acquire` returned.

        Raises:
            ValueError: The object is not of this pool, or was released already.
            Exception: What `reset` raises; the object is then dropped, and is not in use any more.
        """

    def lease(self) -> Lease[_T]:
        """Hold an object for a `with` block.

        `with pool.lease() as object:` acquires at its start and releases at its end, however
        it ends.

        Returns:
            The context manager.
        """

    def stats(self) -> ObjectPoolStats:
        """What it counted so far."""

    @property
    def max_idle(self) -> int:
        """How many objects it keeps for later at most."""
