"""Lock-free containers, usable from any thread and from any event loop.

This module is the Python face of `core/native/include/flowcoro/lockfree`; the protocol, the
memory orders and the progress guarantee of each container stand at the top of its header.
There are three ways to each of them, and they mix freely on one container:

- `try_put`, `try_get`, `put_many`, `get_many` return at once;
- `put`, `get` block a thread, without the GIL, up to a timeout in seconds;
- `aput`, `aget` suspend a coroutine, of whichever loop runs in whichever thread.

Who waits takes no lock that a producer or consumer in between could hold up: waiters stand in a
list beside the container, which those who find an item or room at once never look into.

`Queue[int](8)` works as `Queue(8)` does; the parameter is for type checkers. An empty container
is false, as an empty list is. Calls are safe without the GIL, too. Do not use them in a signal
handler that interrupts their own loop: use `loop.add_signal_handler`.
"""

from __future__ import annotations

from typing import TypeVar

from flowcoro import _native
from flowcoro._waiting import Gets, Puts, PutsAtOnce, Steals

__all__ = ["Queue", "RingBuffer", "Stack", "UnboundedQueue", "WorkStealingDeque"]

_T = TypeVar("_T")


@_native.own_methods
class Queue(Puts[_T], Gets[_T], _native.Queue[_T]):
    """A bounded first-in, first-out queue for many producers and consumers.

    Any thread may call any method.

    Args:
        capacity: How many items it holds at most: 1 to 2**31, kept exactly. The memory, 16 bytes
            for each, is allocated at once.

    Raises:
        TypeError: `capacity` is not an integer.
        ValueError: `capacity` is below 1.
        OverflowError: `capacity` is above 2**31.
        MemoryError: There is no memory for so many.
    """

    __slots__ = ()


@_native.own_methods
class UnboundedQueue(PutsAtOnce[_T], Gets[_T], _native.UnboundedQueue[_T]):
    """A first-in, first-out queue without a limit for many producers and consumers.

    Any thread may call any method. It grows and shrinks by segments of 256 items, 16 bytes each.
    """

    __slots__ = ()


@_native.own_methods
class Stack(PutsAtOnce[_T], Gets[_T], _native.Stack[_T]):
    """A last-in, first-out container without a limit for many threads.

    Any thread may call any method; the next item is the newest. Each item takes a node of 24
    bytes.
    """

    __slots__ = ()


@_native.own_methods
class RingBuffer(Puts[_T], Gets[_T], _native.RingBuffer[_T]):
    """A bounded first-in, first-out buffer between one producer and one consumer.

    It is the fastest of the queues. One thread at a time puts and one thread at a time gets: that
    is what its order and its speed are made for. Should several do, nothing is lost or broken,
    but on a free-threaded interpreter they wait for each other.

    Args:
        capacity: How many items it holds at most: 1 to 2**31, kept exactly. The memory, 8 bytes
            for each, rounded up to a power of two, is allocated at once.

    Raises:
        TypeError: `capacity` is not an integer.
        ValueError: `capacity` is below 1.
        OverflowError: `capacity` is above 2**31.
        MemoryError: There is no memory for so many.
    """

    __slots__ = ()


@_native.own_methods
class WorkStealingDeque(PutsAtOnce[_T], Gets[_T], Steals[_T], _native.WorkStealingDeque[_T]):
    """A deque without a limit: its owner uses one end as a stack, others steal at the other.

    The owner, one thread at a time, calls the methods with `put` and `get` in their names and gets
    the newest item. Any thread may call `try_steal`, `steal` and `asteal`, and gets the oldest.

    Args:
        capacity: How many items there is room for to begin with: 1 to 2**31, rounded up to a power
            of two. The memory, 8 bytes for each, is allocated at once and doubled when needed.

    Raises:
        TypeError: `capacity` is not an integer.
        ValueError: `capacity` is below 1.
        OverflowError: `capacity` is above 2**31.
        MemoryError: There is no memory for so many.
    """

    __slots__ = ()
