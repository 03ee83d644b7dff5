# Written by core/bindings/check_stubs.py --update: change the bindings instead.
"""The native core. Private: import from `flowcoro.lockfree`, `.memory` and `.scheduler`."""

from asyncio import Future
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context
from socket import socket
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, TypeVarTuple, final, overload

from _typeshed import ReadableBuffer, WriteableBuffer

_T = TypeVar("_T")
_D = TypeVar("_D")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_Ts = TypeVarTuple("_Ts")

def build_info() -> dict[str, str]:
    """How this extension was built.

    Returns:
        `compiler` (name and version), `build_type` (the CMake build type), `cxx_standard` (the
        value of `__cplusplus`, such as `202002`) and `nanobind` (its version).
    """

class Waiter:
    """A wake-up that any thread may give, once, to one waiter.

    The waiter is a thread, which calls `wait`, or a coroutine, which awaits it.
    """

    def __init__(self) -> None: ...
    def set(self) -> bool:
        """Wake the waiter, now or as soon as it wants to sleep. Any thread may call it.

        Returns:
            Whether this call did it: `False` if it was set before, or its waiter's loop is closed.
        """

    def is_set(self) -> bool:
        """Whether it was set."""

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is set.

        Args:
            timeout: Seconds, from 0 on; `None` or infinity waits for ever. When they have passed,
                the waiter is spent: `set` will return `False`.

        Returns:
            Whether it was set in time.

        Raises:
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
            RuntimeError: Somebody waits, or has waited, for it already.
        """

    def __await__(self) -> Generator[Any]:
        """Wait until it is set.

        Raises:
            RuntimeError: No event loop runs, or somebody waits, or has waited, for it already.
        """

class Queue(Generic[_T]):
    """The native half of the class of this name in `flowcoro.lockfree`."""

    def __init__(self, capacity: int) -> None: ...
    def try_put(self, item: _T) -> bool:
        """Put `item` in, if there is room.

        Args:
            item: Any object; `None` too.

        Returns:
            Whether there was room; if not, all is as it was.
        """

    def put(self, item: _T, timeout: float | None = None) -> None:
        """Put `item` in; block this thread until there is room.

        Not for coroutines: they would block their loop.

        Args:
            item: Any object; `None` too.
            timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

        Raises:
            TimeoutError: There was no room in time; all is as it was.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    @overload
    def try_get(self) -> _T | None:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """
    @overload
    def try_get(self, default: _D) -> _T | _D:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """

    def get(self, timeout: float | None = None) -> _T:
        """Take the next item; block this thread until there is one.

        Not for coroutines: they would block their loop.

        Args:
            timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

        Returns:
            The item.

        Raises:
            TimeoutError: There was none in time.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    def put_many(self, items: Sequence[_T]) -> int:
        """Put items in, in their order, until there is no more room.

        Other threads may put theirs in between.

        Args:
            items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

        Returns:
            How many were accepted.

        Raises:
            TypeError: `items` is not a sequence.
        """

    def get_many(self, max_items: int) -> list[_T]:
        """Take up to `max_items` of the items that are there now, the next first.

        Args:
            max_items: 0 or more.

        Returns:
            The items; an empty list when there are none.

        Raises:
            TypeError: `max_items` is not an integer.
            ValueError: `max_items` is negative.
        """

    def __len__(self) -> int:
        """How many items it holds: an estimate while other threads use it."""

    def _wait_for_item(self, again: bool) -> Waiter:
        """A new `Waiter` in the list of those who want an item: in front if `again`."""

    def _waiting(self) -> tuple[int, int]:
        """How many wait for an item, and for room."""

    def _leave(self, waiter: Waiter) -> None:
        """End of a wait: if it was notified, and there is more, wakes the next."""

    def _wait_for_room(self, again: bool) -> Waiter:
        """A new `Waiter` in the list of those who want room: in front if `again`."""

    @property
    def capacity(self) -> int:
        """How many items it holds at most."""

class UnboundedQueue(Generic[_T]):
    """The native half of the class of this name in `flowcoro.lockfree`."""

    def __init__(self) -> None: ...
    def try_put(self, item: _T) -> bool:
        """Put `item` in.

        Args:
            item: Any object; `None` too.

        Returns:
            `True`: there is always room.

        Raises:
            MemoryError: There is no memory for it.
        """

    def put(self, item: _T, timeout: float | None = None) -> None:
        """Put `item` in, as `try_put` does: it never waits.

        Args:
            item: Any object; `None` too.
            timeout: Taken, and checked, so that any container can stand here for any other.

        Raises:
            MemoryError: There is no memory for it.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    @overload
    def try_get(self) -> _T | None:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """
    @overload
    def try_get(self, default: _D) -> _T | _D:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """

    def get(self, timeout: float | None = None) -> _T:
        """Take the next item; block this thread until there is one.

        Not for coroutines: they would block their loop.

        Args:
            timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

        Returns:
            The item.

        Raises:
            TimeoutError: There was none in time.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    def put_many(self, items: Sequence[_T]) -> int:
        """Put items in, in their order.

        Other threads may put theirs in between.

        Args:
            items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

        Returns:
            How many were accepted: all, unless memory ran out.

        Raises:
            TypeError: `items` is not a sequence.
            MemoryError: There is no memory for the first.
        """

    def get_many(self, max_items: int) -> list[_T]:
        """Take up to `max_items` of the items that are there now, the next first.

        Args:
            max_items: 0 or more.

        Returns:
            The items; an empty list when there are none.

        Raises:
            TypeError: `max_items` is not an integer.
            ValueError: `max_items` is negative.
        """

    def __len__(self) -> int:
        """How many items it holds: an estimate while other threads use it."""

    def _wait_for_item(self, again: bool) -> Waiter:
        """A new `Waiter` in the list of those who want an item: in front if `again`."""

    def _waiting(self) -> tuple[int, int]:
        """How many wait for an item, and for room."""

    def _leave(self, waiter: Waiter) -> None:
        """End of a wait: if it was notified, and there is more, wakes the next."""

class Stack(Generic[_T]):
    """The native half of the class of this name in `flowcoro.lockfree`."""

    def __init__(self) -> None: ...
    def try_put(self, item: _T) -> bool:
        """Put `item` in.

        Args:
            item: Any object; `None` too.

        Returns:
            `True`: there is always room.

        Raises:
            MemoryError: There is no memory for it.
        """

    def put(self, item: _T, timeout: float | None = None) -> None:
        """Put `item` in, as `try_put` does: it never waits.

        Args:
            item: Any object; `None` too.
            timeout: Taken, and checked, so that any container can stand here for any other.

        Raises:
            MemoryError: There is no memory for it.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    @overload
    def try_get(self) -> _T | None:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """
    @overload
    def try_get(self, default: _D) -> _T | _D:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """

    def get(self, timeout: float | None = None) -> _T:
        """Take the next item; block this thread until there is one.

        Not for coroutines: they would block their loop.

        Args:
            timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

        Returns:
            The item.

        Raises:
            TimeoutError: There was none in time.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    def put_many(self, items: Sequence[_T]) -> int:
        """Put items in, in their order.

        Other threads may put theirs in between.

        Args:
            items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

        Returns:
            How many were accepted: all, unless memory ran out.

        Raises:
            TypeError: `items` is not a sequence.
            MemoryError: There is no memory for the first.
        """

    def get_many(self, max_items: int) -> list[_T]:
        """Take up to `max_items` of the items that are there now, the next first.

        Args:
            max_items: 0 or more.

        Returns:
            The items; an empty list when there are none.

        Raises:
            TypeError: `max_items` is not an integer.
            ValueError: `max_items` is negative.
        """

    def __len__(self) -> int:
        """How many items it holds: an estimate while other threads use it."""

    def _wait_for_item(self, again: bool) -> Waiter:
        """A new `Waiter` in the list of those who want an item: in front if `again`."""

    def _waiting(self) -> tuple[int, int]:
        """How many wait for an item, and for room."""

    def _leave(self, waiter: Waiter) -> None:
        """End of a wait: if it was notified, and there is more, wakes the next."""

class RingBuffer(Generic[_T]):
    """The native half of the class of this name in `flowcoro.lockfree`."""

    def __init__(self, capacity: int) -> None: ...
    def try_put(self, item: _T) -> bool:
        """Put `item` in, if there is room.

        Args:
            item: Any object; `None` too.

        Returns:
            Whether there was room; if not, all is as it was.
        """

    def put(self, item: _T, timeout: float | None = None) -> None:
        """Put `item` in; block this thread until there is room.

        Not for coroutines: they would block their loop.

        Args:
            item: Any object; `None` too.
            timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

        Raises:
            TimeoutError: There was no room in time; all is as it was.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    @overload
    def try_get(self) -> _T | None:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """
    @overload
    def try_get(self, default: _D) -> _T | _D:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """

    def get(self, timeout: float | None = None) -> _T:
        """Take the next item; block this thread until there is one.

        Not for coroutines: they would block their loop.

        Args:
            timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

        Returns:
            The item.

        Raises:
            TimeoutError: There was none in time.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    def put_many(self, items: Sequence[_T]) -> int:
        """Put items in, in their order, until there is no more room.

        Other threads may put theirs in between.

        Args:
            items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

        Returns:
            How many were accepted.

        Raises:
            TypeError: `items` is not a sequence.
        """

    def get_many(self, max_items: int) -> list[_T]:
        """Take up to `max_items` of the items that are there now, the next first.

        Args:
            max_items: 0 or more.

        Returns:
            The items; an empty list when there are none.

        Raises:
            TypeError: `max_items` is not an integer.
            ValueError: `max_items` is negative.
        """

    def __len__(self) -> int:
        """How many items it holds: an estimate while other threads use it."""

    def _wait_for_item(self, again: bool) -> Waiter:
        """A new `Waiter` in the list of those who want an item: in front if `again`."""

    def _waiting(self) -> tuple[int, int]:
        """How many wait for an item, and for room."""

    def _leave(self, waiter: Waiter) -> None:
        """End of a wait: if it was notified, and there is more, wakes the next."""

    def _wait_for_room(self, again: bool) -> Waiter:
        """A new `Waiter` in the list of those who want room: in front if `again`."""

    @property
    def capacity(self) -> int:
        """How many items it holds at most."""

class WorkStealingDeque(Generic[_T]):
    """The native half of the class of this name in `flowcoro.lockfree`."""

    def __init__(self, capacity: int = 64) -> None: ...
    def try_put(self, item: _T) -> bool:
        """Put `item` in.

        Args:
            item: Any object; `None` too.

        Returns:
            `True`: there is always room.

        Raises:
            MemoryError: There is no memory for it.
        """

    def put(self, item: _T, timeout: float | None = None) -> None:
        """Put `item` in, as `try_put` does: it never waits.

        Args:
            item: Any object; `None` too.
            timeout: Taken, and checked, so that any container can stand here for any other.

        Raises:
            MemoryError: There is no memory for it.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    @overload
    def try_get(self) -> _T | None:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """
    @overload
    def try_get(self, default: _D) -> _T | _D:
        """Take the next item, if there is one.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """

    def get(self, timeout: float | None = None) -> _T:
        """Take the next item; block this thread until there is one.

        Not for coroutines: they would block their loop.

        Args:
            timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

        Returns:
            The item.

        Raises:
            TimeoutError: There was none in time.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    @overload
    def try_steal(self) -> _T | None:
        """Take the oldest item, if there is one. Any thread may.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """
    @overload
    def try_steal(self, default: _D) -> _T | _D:
        """Take the oldest item, if there is one. Any thread may.

        Args:
            default: What to return when there is none. If `None` may be an item, pass something
                else.

        Returns:
            The item, or `default`.
        """

    def steal(self, timeout: float | None = None) -> _T:
        """Take the oldest item; block this thread until there is one. Any thread may.

        Args:
            timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

        Returns:
            The item.

        Raises:
            TimeoutError: There was none in time.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    def put_many(self, items: Sequence[_T]) -> int:
        """Put items in, in their order.

        Other threads may put theirs in between.

        Args:
            items: A sequence, not an iterator, so that `items[accepted:]` is what was refused.

        Returns:
            How many were accepted: all, unless memory ran out.

        Raises:
            TypeError: `items` is not a sequence.
            MemoryError: There is no memory for the first.
        """

    def get_many(self, max_items: int) -> list[_T]:
        """Take up to `max_items` of the items that are there now, the next first.

        Args:
            max_items: 0 or more.

        Returns:
            The items; an empty list when there are none.

        Raises:
            TypeError: `max_items` is not an integer.
            ValueError: `max_items` is negative.
        """

    def __len__(self) -> int:
        """How many items it holds: an estimate while other threads use it."""

    def _wait_for_item(self, again: bool) -> Waiter:
        """A new `Waiter` in the list of those who want an item: in front if `again`."""

    def _waiting(self) -> tuple[int, int]:
        """How many wait for an item, and for room."""

    def _leave(self, waiter: Waiter) -> None:
        """End of a wait: if it was notified, and there is more, wakes the next."""

def own_methods(derived: _D) -> _D:
    """Give a class derived from a container its own `try_put`, `get` and the like.

    Calls are faster so. For use as a decorator.

    Args:
        derived: The class.

    Returns:
        The class.

    Raises:
        TypeError: It is no such class.
    """

class LoopHandle:
    """What an event loop was asked to call, once."""

    _callback: Callable[..., object] | None
    _args: tuple[object, ...] | None
    _source_traceback: Any
    _cancelled: bool

    def cancel(self) -> None: ...
    def cancelled(self) -> bool: ...
    def get_context(self) -> Context: ...
    def _run(self) -> None: ...

class LoopTimerHandle(LoopHandle):
    """What an event loop was asked to call at a certain time."""

    _scheduled: bool

    def when(self) -> float: ...
    def __lt__(self, other: Self) -> bool: ...
    def __le__(self, other: Self) -> bool: ...
    def __gt__(self, other: Self) -> bool: ...
    def __ge__(self, other: Self) -> bool: ...

class LoopCore:
    """The native part of `flowcoro.Loop`; what asyncio's loop has too is typed there."""

    @property
    def reactor(self) -> str: ...
    def _open(self, backend: str | None, /) -> None: ...
    def _run_until_stopped(self) -> None: ...
    def _stop_core(self) -> None: ...
    def _add_reader(
        self, fd: Any, callback: Callable[[*_Ts], object], /, *args: *_Ts
    ) -> LoopHandle: ...
    def _add_writer(
        self, fd: Any, callback: Callable[[*_Ts], object], /, *args: *_Ts
    ) -> LoopHandle: ...
    def _remove_reader(self, fd: Any, /) -> bool: ...
    def _remove_writer(self, fd: Any, /) -> bool: ...
    def _transport_at(self, fd: int, /) -> Any: ...
    def _close_core(self) -> None: ...
    def _set_core_debug(self, enabled: bool, /) -> None: ...
    def _set_watch(self, threshold: float | None, /) -> int: ...
    def _moves(self) -> int: ...
    def _stats(self) -> tuple[int, int, float, float, float, int, int, int, float]: ...
    def _running_callback(self) -> Callable[..., object] | None: ...
    @property
    def __flowcoro_reactor__(self) -> object: ...
    def _file_read(
        self, future: Future[bytes], fd: int, size: int, offset: int, /
    ) -> FileOperation: ...
    def _file_write(
        self, future: Future[int], fd: int, data: ReadableBuffer, offset: int, /
    ) -> FileOperation: ...
    def _file_sync(self, future: Future[None], fd: int, data_only: bool, /) -> FileOperation: ...
    def _file_open(
        self, future: Future[int], path: bytes, flags: int, mode: int, /
    ) -> FileOperation: ...
    def _file_stat(
        self, future: Future[tuple[int, ...]], path: bytes, follow_links: bool, /
    ) -> FileOperation: ...
    def _file_rename(
        self, future: Future[None], source: bytes, target: bytes, /
    ) -> FileOperation: ...
    def _file_remove(
        self, future: Future[None], path: bytes, directory: bool, /
    ) -> FileOperation: ...
    def _file_close(self, future: Future[None], fd: int, /) -> FileOperation: ...
    def _receive_datagrams(self, transport: Any, fd: int, /) -> int: ...
    def _send_datagram(self, fd: int, family: int, data: bytes, address: Any, /) -> bool: ...
    def get_debug(self) -> bool: ...
    def sock_recv(self, sock: socket, n: int) -> SockCall[bytes]: ...
    def sock_recv_into(self, sock: socket, buf: WriteableBuffer) -> SockCall[int]: ...
    def sock_recvfrom(self, sock: socket, bufsize: int) -> SockCall[tuple[bytes, Any]]: ...
    def sock_recvfrom_into(
        self, sock: socket, buf: WriteableBuffer, nbytes: int = 0
    ) -> SockCall[tuple[int, Any]]: ...
    def sock_sendall(self, sock: socket, data: ReadableBuffer) -> SockCall[None]: ...
    def sock_sendto(self, sock: socket, data: ReadableBuffer, address: Any) -> SockCall[int]: ...
    def sock_accept(self, sock: socket) -> SockCall[tuple[socket, Any]]: ...
    def _connect_socket(self, sock: socket, address: Any) -> SockCall[None]: ...

class StreamCall(Generic[_R_co]):
    """An operation of a stream, to be awaited once."""

    def __await__(self) -> Generator[Any, Any, _R_co]: ...
    def __iter__(self) -> Generator[Any, Any, _R_co]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def close(self) -> None: ...

class ByteStream:
    """The native part of `flowcoro.net.Connection`, whose docstrings say more."""

    @property
    def bytes_received(self) -> int:
        """Bytes that came so far."""
    @property
    def bytes_sent(self) -> int:
        """Bytes that were written so far."""
    @property
    def _peer(self) -> tuple[Any, ...] | None: ...
    @property
    def _local(self) -> tuple[Any, ...] | None: ...
    @property
    def _fd(self) -> int: ...
    @property
    def _buffered(self) -> int: ...
    @property
    def _unsent(self) -> int: ...
    @property
    def _is_open(self) -> bool: ...
    @property
    def _is_closed(self) -> bool: ...
    @property
    def _has_ended(self) -> bool: ...
    def _open(self, loop: LoopCore, fd: int, /) -> None: ...
    def _open_over(self, loop: Any, transport: Any, keeper: Any, /) -> None: ...
    def _read_until(self, separator: bytes, max_bytes: int, /) -> StreamCall[bytes]: ...
    def _feed(self, data: bytes, /) -> None: ...
    def _feed_end(self) -> bool: ...
    def _feed_lost(self, error: BaseException | None, /) -> None: ...
    def _pause_writing(self) -> None: ...
    def _resume_writing(self) -> None: ...
    def _end_writing(self) -> None: ...
    def _close(self) -> None: ...
    def _abort(self, reset: bool, /) -> None: ...
    def _flush(self) -> StreamCall[None]: ...
    def _hold_writes(self, held: bool, /) -> None: ...
    def _wake_at_end(self, future: Any, /) -> None: ...
    def _count_sent(self, size: int, /) -> None: ...
    def _wait_closed(self) -> StreamCall[None]: ...
    def _set_limit(self, limit: int, /) -> None: ...

class FileOperation:
    """An operation on a file, which finishes the future that it was given."""

    @property
    def in_flight(self) -> bool:
        """Whether the kernel may still be at it."""

    def cancel(self) -> None:
        """Ask for an early end, which is told as any other."""

    def notify(self, future: Future[Any]) -> None:
        """Have another future finished by its end."""

def read_now(fd: int, size: int, offset: int) -> bytes | None:
    """Read what needs no wait for a disk.

    Args:
        fd: A file.
        size: At most so many bytes.
        offset: Where they begin.

    Returns:
        What of it is in the page cache, at the file's end nothing; None when it is not, or nobody
        can tell.
    """

@final
class SockCall(Coroutine[Any, Any, _R_co]):
    """A call of a loop's sock_* methods: a coroutine."""

    __name__: str
    __qualname__: str
    cr_running: bool

    def __await__(self) -> Generator[Any, Any, _R_co]: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, *given: Any) -> Any: ...
    def close(self) -> None: ...

def make_socket_transport_type(base: type, /) -> type[Any]:
    """Make the type of a socket's transport, derived from this class."""

def next_loop_stall() -> tuple[int, int, float, bool] | None:
    """Wait for a stall to tell of: loop's number, its moves, seconds so far, whether it is over.

    None: no loop is watched any more.
    """

def loop_watch_state() -> tuple[int, int]:
    """How many loops are watched, and how often they were looked at."""

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

def reactor_backends() -> list[str]:
    """The reactor backends of this platform, the preferred first."""

def reactor_available() -> list[str]:
    """The reactor backends that can be used here and now, the preferred first."""

def reactor_why_not(name: str) -> str | None:
    """Why a reactor backend cannot be used; `None` when it can."""

@final
class Reactor:
    """A native reactor, for native protocols to be attached to.

    It belongs to the thread that first runs it, which alone may run and close it; what other
    threads may call says so.

    Args:
        name: The backend's name, such as `epoll`; `None` for the environment's `FLOWCORO_REACTOR`,
            or the first of `available`.

    Raises:
        ValueError: There is no such backend here.
        OSError: The kernel refuses it, with its reason.
    """

    def __init__(self, name: str | None = None) -> None: ...
    def run_once(self, timeout: float | None = None) -> int:
        """Wait until something happens, and have it handled.

        That is: until an operation completes, a timer is due, a function was posted, somebody calls
        `wake`, a signal comes, or the time is over. The GIL is released meanwhile.

        Args:
            timeout: At most so many seconds; 0 only looks, `None` waits for ever.

        Returns:
            How many completions, timers and posted functions were handled; 0 also after `wake`.

        Raises:
            RuntimeError: It is closed or running, or it belongs to another thread or process.
            TypeError: The timeout is no number.
            ValueError: The timeout is negative or NaN.
        """

    def run(self) -> None:
        """Do as `run_once` does, without Python in between, until `stop` is called.

        Signal handlers of Python run meanwhile, if this is the main thread; what one raises ends
        it.

        Raises:
            RuntimeError: As for `run_once`.
        """

    def stop(self) -> None:
        """Make `run` return, or the next one if none is running. Any thread may."""

    def wake(self) -> None:
        """Make a `run_once` that waits return, or the next one.

        Any thread may. Nothing happens when it is closed.
        """

    def close(self) -> None:
        """End all that it has; nothing happens when that was done before.

        Functions that were posted are called, what is in flight is cancelled, and the native
        protocols on it are told that they are closed, before this returns.

        Raises:
            RuntimeError: It is running, or it belongs to another thread.
        """

    @property
    def name(self) -> str:
        """The backend's name."""

    @property
    def in_flight(self) -> int:
        """How many operations the kernel was asked for that have not ended.

        Raises:
            RuntimeError: It belongs to another thread or process.
        """

    def __enter__(self) -> Self:
        """Return the reactor.

        Raises:
            RuntimeError: It is closed.
        """

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""

native_api: object

class Handle(Generic[_R_co]):
    """A task on a scheduler, and what came of it.

    `await handle` gives the result, in a coroutine on any asyncio loop or any of FlowCoro's
    schedulers; cancelling who awaits cancels the task as well (`asyncio.shield` keeps it). Threads
    call `result`. Any thread may call any method.
    """

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""

    def running(self) -> bool:
        """Whether a worker is at it right now; a coroutine that awaits is not running."""

    def cancelled(self) -> bool:
        """Whether it ended by being cancelled."""

    def cancel(self) -> bool:
        """Ask the task to end.

        What has not begun never will. A coroutine gets `asyncio.CancelledError` where it awaits,
        at once or the next time, and may clean up or decline, as an `asyncio.Task` may. A callable
        that has begun cannot be stopped; if it returns a coroutine, that gets the error.

        Returns:
            Whether it was asked: `False` when it has ended, or is a callable that has begun.
        """

    def result(self, timeout: float | None = None) -> _R_co:
        """The result; blocks this thread until there is one.

        Args:
            timeout: Seconds, from 0 on; `None` or infinity waits for ever.

        Raises:
            BaseException: What left the task, with its traceback.
            asyncio.CancelledError: It was cancelled.
            TimeoutError: It has not ended in time.
            RuntimeError: It has not ended, and the calling thread is a worker of its scheduler,
                which must not be blocked: await the handle there. Or the task is lost: this
                process was forked.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What left the task; `None` when it returned.

        Blocks and raises as `result` does, but for the task's own exception.
        """

    def add_done_callback(self, callback: Callable[[Handle[_R_co]], object]) -> None:
        """Have `callback(handle)` called at the end.

        On the worker that ended the task, or, when it has ended or is cancelled before it began,
        here and now. What leaves a callback goes to `sys.unraisablehook`.

        Raises:
            TypeError: `callback` is not callable.
        """

    def _join(self) -> Waiter | None:
        """A waiter that is set at the end; `None` when it has come."""

    def _leave(self, waiter: Waiter) -> None:
        """Who joined goes."""

    def __await__(self) -> Generator[Any, Any, _R_co]:
        """Wait for the end.

        Raises:
            BaseException: What left the task.
            asyncio.CancelledError: It was cancelled, or who awaits is.
            RuntimeError: The task is lost: this process was forked.
        """

    def __repr__(self) -> str: ...

class Scheduler:
    """What the schedulers have in common."""

    def shutdown(
        self, *, wait: bool = True, cancel_pending: bool = False, timeout: float | None = None
    ) -> None:
        """End: nothing more is accepted from outside, and what there is comes to its end.

        Tasks that are under way may still schedule more, so that they can end. May be called again,
        for instance to wait longer.

        Args:
            wait: Whether to block this thread until all tasks have ended and the threads are gone.
            cancel_pending: Whether to cancel what has not begun, and coroutines where they await;
                nothing at all can be scheduled any more then.
            timeout: Seconds to wait at most, from 0 on; `None` or infinity waits for ever.

        Raises:
            TimeoutError: Not all has ended in time. The message names what has not. It goes on.
            RuntimeError: On a worker of this scheduler, which cannot wait for itself: pass
                `wait=False`.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or NaN.
        """

    @property
    def num_threads(self) -> int:
        """How many workers it has."""

    @property
    def unfinished(self) -> int:
        """How many tasks have not ended: about now."""

    @property
    def closed(self) -> bool:
        """Whether `shutdown` was called."""

    def on_worker(self) -> bool:
        """Whether the calling thread is one of its workers."""

class Alarm:
    """Wakes one coroutine after a time."""

    def __init__(self, scheduler: Scheduler, seconds: float) -> None: ...
    def cancel(self) -> None:
        """Nobody waits any more."""

    @property
    def waiter(self) -> Waiter:
        """What to await."""

    @property
    def abandoned(self) -> bool:
        """Whether the scheduler ended before the time had come."""

class WorkStealingScheduler(Scheduler):
    """Threads that each have their own tasks and take others' when they have none."""

    def __init__(self, num_threads: int) -> None: ...
    @overload
    def schedule(self, task: Callable[[*_Ts], Coroutine[Any, Any, _R]], *args: *_Ts) -> Handle[_R]:
        """Have a worker run `task`; do not wait for it.

        The context variables are those of the caller, as a copy. A coroutine may await handles,
        `sleep`, `yield_now` and the containers of `flowcoro.lockfree`, and goes on on any worker.

        Args:
            task: A callable, or a coroutine. When the callable returns a coroutine, as a function
                defined by `async def` does, that is run as well, and its result is the task's.
            *args: The callable's arguments.

        Returns:
            The handle, to be awaited or asked for the result.

        Raises:
            TypeError: `task` is neither, or there are arguments for a coroutine.
            RuntimeError: The scheduler was shut down, or this is the child of a fork.
        """

    @overload
    def schedule(self, task: Callable[[*_Ts], _R], *args: *_Ts) -> Handle[_R]: ...
    @overload
    def schedule(self, task: Coroutine[Any, Any, _R], /) -> Handle[_R]: ...
    @overload
    def schedule_local(
        self, task: Callable[[*_Ts], Coroutine[Any, Any, _R]], *args: *_Ts
    ) -> Handle[_R]:
        """As `schedule`, to the front of the calling worker's own tasks.

        Raises:
            TypeError: As `schedule`.
            RuntimeError: The calling thread is not a worker of this scheduler; or as `schedule`.
        """

    @overload
    def schedule_local(self, task: Callable[[*_Ts], _R], *args: *_Ts) -> Handle[_R]: ...
    @overload
    def schedule_local(self, task: Coroutine[Any, Any, _R], /) -> Handle[_R]: ...

class PriorityScheduler(Scheduler):
    """Threads that begin what is more urgent first, and forget nothing."""

    def __init__(self, num_threads: int, starvation_bound: int = 64) -> None: ...
    @overload
    def schedule(
        self, task: Callable[[*_Ts], Coroutine[Any, Any, _R]], *args: *_Ts, priority: int = 1
    ) -> Handle[_R]:
        """Have a worker run `task` when its turn comes; do not wait for it.

        Args:
            task: As for `WorkStealingScheduler.schedule`.
            *args: The callable's arguments.
            priority: How urgent it is, a `Priority`; `Priority.NORMAL` by default.

        Returns:
            The handle, to be awaited or asked for the result.

        Raises:
            TypeError: As `WorkStealingScheduler.schedule`, or `priority` is not a `Priority`.
            RuntimeError: The scheduler was shut down, or this is the child of a fork.
        """

    @overload
    def schedule(
        self, task: Callable[[*_Ts], _R], *args: *_Ts, priority: int = 1
    ) -> Handle[_R]: ...
    @overload
    def schedule(self, task: Coroutine[Any, Any, _R], /, *, priority: int = 1) -> Handle[_R]: ...
    @property
    def starvation_bound(self) -> int:
        """How many more urgent tasks are begun before one that waits, at most.

        With several workers each may begin one more.
        """

def shutdown_all() -> None:
    """End all schedulers there are, as the interpreter does when it ends.

    What was scheduled is run; a coroutine that would wait is cancelled.
    """
