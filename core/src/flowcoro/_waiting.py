"""The waiting half of `flowcoro.lockfree` and `flowcoro.scheduler`: coroutines over native waiters.

They follow the protocol at the top of `core/bindings/wait_list.hpp`. An item is taken or put
without an `await` on the way to the caller, so a cancellation never finds one in between; and
whoever was notified passes that on in `_leave` when there is more, whether it ends with an
item, by cancellation or because its loop is gone.

Only coroutines belong here. Blocking calls and the lists of waiters are native.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, Protocol, TypeVar

from flowcoro._native import Handle, Waiter

__all__ = ["Gets", "Puts", "PutsAtOnce", "Steals", "await_handle"]

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_T_contra = TypeVar("_T_contra", contravariant=True)


class _Nothing:
    """What `try_get` returns here when there is no item: no user's item is of this class."""


_NOTHING = _Nothing()


class _Source(Protocol[_T_co]):
    def try_get(self, default: _Nothing, /) -> _T_co | _Nothing: ...
    def _wait_for_item(self, again: bool) -> Waiter: ...
    def _leave(self, waiter: Waiter) -> None: ...


class _Victim(Protocol[_T_co]):
    def try_steal(self, default: _Nothing, /) -> _T_co | _Nothing: ...
    def _wait_for_item(self, again: bool) -> Waiter: ...
    def _leave(self, waiter: Waiter) -> None: ...


class _Sink(Protocol[_T_contra]):
    def try_put(self, item: _T_contra, /) -> bool: ...
    def _wait_for_room(self, again: bool) -> Waiter: ...
    def _leave(self, waiter: Waiter) -> None: ...


class _Unbounded(Protocol[_T_contra]):
    def try_put(self, item: _T_contra, /) -> bool: ...


class Gets(Generic[_T]):
    """Adds `aget`."""

    __slots__ = ()

    async def aget(self: _Source[_T]) -> _T:
        """Take the next item; wait until there is one.

        Any number of coroutines may wait, on any loops in any threads, and threads in `get`
        beside them; the first to come is woken first. If an item is there, nothing is
        suspended. For a deadline use `asyncio.timeout`. A cancelled call has taken nothing.

        Returns:
            The item.

        Raises:
            RuntimeError: It has to wait and no event loop runs.
        """
        item = self.try_get(_NOTHING)
        if not isinstance(item, _Nothing):
            return item
        waiter = self._wait_for_item(False)
        try:
            while isinstance(item := self.try_get(_NOTHING), _Nothing):
                await waiter
                if not isinstance(item := self.try_get(_NOTHING), _Nothing):
                    break
                waiter = self._wait_for_item(True)
            return item
        finally:
            self._leave(waiter)


class Steals(Generic[_T]):
    """Adds `asteal`."""

    __slots__ = ()

    async def asteal(self: _Victim[_T]) -> _T:
        """Take the oldest item; wait until there is one. Any thread, any loop.

        If an item is there, nothing is suspended. For a deadline use `asyncio.timeout`. A
        cancelled call has taken nothing.

        Returns:
            The item.

        Raises:
            RuntimeError: It has to wait and no event loop runs.
        """
        item = self.try_steal(_NOTHING)
        if not isinstance(item, _Nothing):
            return item
        waiter = self._wait_for_item(False)
        try:
            while isinstance(item := self.try_steal(_NOTHING), _Nothing):
                await waiter
                if not isinstance(item := self.try_steal(_NOTHING), _Nothing):
                    break
                waiter = self._wait_for_item(True)
            return item
        finally:
            self._leave(waiter)


class Puts(Generic[_T]):
    """Adds `aput`, for containers that may be full."""

    __slots__ = ()

    async def aput(self: _Sink[_T], item: _T) -> None:
        """Put `item` in; wait until there is room.

        Any number of coroutines may wait, on any loops in any threads, and threads in `put`
        beside them; the first to come is woken first. If there is room, nothing is
        suspended. For a deadline use `asyncio.timeout`. A cancelled call has put nothing.

        Args:
            item: Any object; `None` too.

        Raises:
            RuntimeError: It has to wait and no event loop runs.
        """
        if self.try_put(item):
            return
        waiter = self._wait_for_room(False)
        try:
            while not self.try_put(item):
                await waiter
                if self.try_put(item):
                    break
                waiter = self._wait_for_room(True)
        finally:
            self._leave(waiter)


class PutsAtOnce(Generic[_T]):
    """Adds `aput`, for containers that are never full."""

    __slots__ = ()

    async def aput(self: _Unbounded[_T], item: _T) -> None:
        """Put `item` in, as `try_put` does: it never waits.

        Args:
            item: Any object; `None` too.

        Raises:
            MemoryError: There is no memory for it.
        """
        self.try_put(item)


def await_handle(handle: Handle[_T]) -> Generator[Any, Any, _T]:
    """What `Handle.__await__` returns: ends with the task, or ends the task with who awaits."""
    waiter = handle._join()  # noqa: SLF001 - this is its other half
    if waiter is not None:
        try:
            yield from waiter.__await__()
        except BaseException:
            handle.cancel()
            raise
        finally:
            handle._leave(waiter)  # noqa: SLF001
    return handle.result(0)
