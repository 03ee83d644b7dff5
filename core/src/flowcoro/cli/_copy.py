"""`flowcoro copy`: a file or a directory, with a bar where somebody sees it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from flowcoro.errors import FlowcoroError
from flowcoro.io import Directory, Progress
from flowcoro.loops import run

__all__ = ["command"]


@click.command("copy")
@click.argument("source", type=click.Path())
@click.argument("destination", type=click.Path())
@click.option("--recursive", "-r", is_flag=True, help="Copy a directory with all that is in it.")
def command(source: str, destination: str, *, recursive: bool) -> None:
    """Copy the file SOURCE to DESTINATION, or into it if that is a directory.

    Permissions and times are kept; a file that is there is replaced. Ctrl-C ends the copy and
    removes a file that is not whole. A bar on standard error shows how far it is, on a terminal.
    """
    if not recursive and os.path.isdir(source):
        raise FlowcoroError(f"{source!r} is a directory; expected a file, or --recursive")
    target = _target(source, destination)
    try:
        with _shown(os.path.basename(target)) as progress:
            run(Directory().copy(source, target, recursive=recursive, progress=progress))
    except OSError as error:
        raise _refusal(source, target, error) from error


def _target(source: str, destination: str) -> str:
    """Return the path of the copy."""
    if destination and os.path.isdir(destination):
        return os.path.join(destination, os.path.basename(os.path.abspath(source)))
    return destination


def _refusal(source: str, target: str, error: OSError) -> FlowcoroError:
    """Return a message with the path that is at fault, which may lie below those given."""
    reason = error.strerror or str(error)
    below = error.filename and os.path.normpath(os.fsdecode(error.filename))
    if below and not error.filename2 and below not in map(os.path.normpath, (source, target)):
        reason = f"{below!r}: {reason}"
    return FlowcoroError(f"cannot copy {source!r} to {target!r}: {reason}")


@contextmanager
def _shown(name: str) -> Iterator[Progress | None]:
    """Give what shows how far it is, if anybody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    # Imported here: it takes as long as a small copy.
    from rich import progress
    from rich.console import Console
    from rich.markup import escape

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(escape(name), total=None)
        update: Callable[..., None] = bar.update

        def show(copied: int, total: int) -> None:
            update(task, completed=copied, total=total)

        yield show
