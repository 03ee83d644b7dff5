# Written by core/bindings/check_stubs.py --update: change the bindings instead.
"""The native core. Private: import the public names from `flowcoro.lockfree`."""

from collections.abc import Sequence
from typing import Generic, TypeVar, overload

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
