"""Watching a directory for changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

import anyio

from flowcoro.io._disk import current_disk
from flowcoro.io._paths import with_path

__all__ = ["Change", "watch"]

_KINDS: dict[int, Literal["added", "modified", "deleted"]] = {
    1: "added", 2: "modified", 3: "deleted"
}  # fmt: skip


class Change(NamedTuple):
    """What happened to a file or a directory.

    Attributes:
        kind: `added`, `modified` or `deleted`.
        path: which one it was.
    """

    kind: Literal["added", "modified", "deleted"]
    path: str


async def _check_there(path: str) -> None:
    try:
        await current_disk().stat(path, follow_links=True)
    except OSError as error:
        raise with_path(error, path) from None


async def watch(path: str, *, recursive: bool, settle: float) -> AsyncIterator[set[Change]]:
    """Yield the changes as they come, those of `settle` seconds together."""
    import watchfiles

    await _check_there(path)
    stop = anyio.Event()
    # By this library: inotify and its like differ too much from each other.
    changes = watchfiles.awatch(
        path,
        watch_filter=None,
        debounce=max(int(settle * 1000 * 16), 1),
        step=max(int(settle * 1000), 1),
        stop_event=stop,
        recursive=recursive,
    )
    try:
        async for batch in changes:
            yield {Change(_KINDS[int(kind)], name) for kind, name in batch}
    finally:
        stop.set()
