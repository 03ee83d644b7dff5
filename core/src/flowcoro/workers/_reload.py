"""Watching source files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

__all__ = ["watch"]

logger = logging.getLogger("flowcoro.workers")

_SUFFIXES = (".py", ".toml", ".html", ".css", ".js")


async def watch(
    paths: Sequence[Path], changed: Callable[[], None], *, stop: anyio.Event | None = None
) -> None:
    """Call `changed` after each burst of edits below `paths`, until cancelled.

    Args:
        paths: folders to watch, with all below them.
        changed: called once per burst.
        stop: ends the watching, as cancelling does.
    """
    from watchfiles import Change, DefaultFilter, awatch

    class Sources(DefaultFilter):
        def __call__(self, change: Change, path: str) -> bool:
            return path.endswith(_SUFFIXES) and super().__call__(change, path)

    async for changes in awatch(*paths, watch_filter=Sources(), stop_event=stop):
        names = sorted({Path(path).name for _, path in changes})
        logger.info("changed: %s; reloading", ", ".join(names))
        changed()
