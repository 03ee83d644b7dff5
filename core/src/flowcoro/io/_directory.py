"""Directories: what is in them, and what becomes of it."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple, NoReturn

from flowcoro.io._copy import Progress, copy_file, copy_tree
from flowcoro.io._disk import current_disk
from flowcoro.io._info import FileInfo
from flowcoro.io._paths import AnyPath, text_of, with_path
from flowcoro.io._watch import Change, watch

__all__ = ["Directory", "Entry"]

BATCH = 1000
"""So many paths of a `glob` are looked for at a time."""


class Entry(NamedTuple):
    """What a directory has under a name.

    Attributes:
        name: that name.
        path: where it is: the directory's path, and the name.
        is_directory: whether it is a directory; a link to one is not.
        is_link: whether it is a symbolic link.
    """

    name: str
    path: str
    is_directory: bool
    is_link: bool

    @property
    def is_file(self) -> bool:
        """Whether it is neither a directory nor a symbolic link."""
        return not self.is_directory and not self.is_link


class Directory:
    """A directory, which need not exist yet.

    Names that its methods are given are relative to it; absolute paths stay what they are. All
    methods raise the built-in `OSError` of the kind, with the path.

    Args:
        path: where it is.
    """

    def __init__(self, path: AnyPath = ".") -> None:
        self._path = text_of(path)

    @property
    def path(self) -> str:
        """Where it is."""
        return self._path

    def __fspath__(self) -> str:
        """Return the path."""
        return self._path

    def __repr__(self) -> str:
        return f"Directory({self._path!r})"

    def _at(self, name: AnyPath) -> str:
        return os.path.join(self._path, text_of(name))

    # Looking.

    async def list_files(self, *, directories: bool = True) -> list[Entry]:
        """List what is in it, in no particular order.

        Args:
            directories: whether directories are listed too.

        Returns:
            An entry for each name but `.` and `..`.

        Raises:
            FileNotFoundError: It does not exist.
            NotADirectoryError: It is something else.
            PermissionError: It may not be read.
        """
        entries: list[Entry] = await current_disk().call(_scan, self._path)
        return entries if directories else [each for each in entries if not each.is_directory]

    async def walk(self, *, follow_links: bool = False) -> AsyncIterator[tuple[str, list[Entry]]]:
        """Go through it and all directories below, the outer ones first.

        Args:
            follow_links: whether links to directories are gone into, each directory once.

        Yields:
            A directory's path and what is in it. What is taken from the list is not gone into.

        Raises:
            OSError: A directory cannot be read.
        """
        disk = current_disk()
        waiting = [self._path]
        seen: set[tuple[int, int]] = set()
        while waiting:
            path = waiting.pop()
            if follow_links:
                info = await disk.stat(path, follow_links=True)
                if (info.device, info.inode) in seen:
                    continue
                seen.add((info.device, info.inode))
            entries: list[Entry] = await disk.call(_scan, path)
            yield path, entries
            for each in reversed(entries):
                linked = follow_links and each.is_link
                if each.is_directory or (linked and await disk.call(os.path.isdir, each.path)):
                    waiting.append(each.path)

    async def glob(self, pattern: str, *, hidden: bool = False) -> AsyncIterator[str]:
        """Find paths by a pattern: `*`, `?`, `[...]`, and `**` for any number of directories.

        Args:
            pattern: relative to the directory.
            hidden: whether names that begin with a dot match wildcards.

        Yields:
            Paths, each with the directory's in front.

        Raises:
            ValueError: The pattern is empty or absolute.
        """
        if not pattern or os.path.isabs(pattern):
            raise ValueError(f"a pattern is relative to the directory, not {pattern!r}")
        disk = current_disk()
        found = glob.iglob(pattern, root_dir=self._path, recursive=True, include_hidden=hidden)
        while batch := await disk.call(_take, found):
            for name in batch:
                yield os.path.join(self._path, name)

    async def exists(self, name: AnyPath = ".") -> bool:
        """Tell whether there is such a file or directory; a link that leads nowhere is none."""
        try:
            await self.stat(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def stat(self, name: AnyPath = ".", *, follow_links: bool = True) -> FileInfo:
        """Tell size, times and so on.

        Args:
            name: of what; the directory itself if it is not given.
            follow_links: whether a symbolic link is followed.

        Raises:
            FileNotFoundError: There is no such file.
        """
        path = self._at(name)
        try:
            return await current_disk().stat(path, follow_links=follow_links)
        except OSError as error:
            raise with_path(error, path) from None

    def watch(self, *, recursive: bool = True, settle: float = 0.05) -> AsyncIterator[set[Change]]:
        """Tell of changes, until the iteration ends.

        Args:
            recursive: whether the directories below are watched too.
            settle: seconds in which changes that follow each other are told together.

        Returns:
            An iterator over sets of changes.

        Raises:
            FileNotFoundError: It does not exist.
        """
        return watch(self._path, recursive=recursive, settle=settle)

    # Changing.

    async def create_directory(
        self,
        name: AnyPath = ".",
        *,
        parents: bool = False,
        exist_ok: bool = False,
        permissions: int = 0o777,
    ) -> Directory:
        """Make a directory.

        Args:
            name: which one; this one if it is not given.
            parents: whether those above it are made, too, if they do not exist.
            exist_ok: whether it may exist.
            permissions: its own, from which the process's umask takes some.

        Returns:
            The directory.

        Raises:
            FileExistsError: There is something of that name.
            FileNotFoundError: The directory above it does not exist.
        """
        path = self._at(name)
        await current_disk().call(_make_directory, path, permissions, parents, exist_ok)
        return Directory(path)

    async def remove(self, name: AnyPath, *, recursive: bool = False) -> None:
        """Remove a file, a link, or a directory that is empty.

        Args:
            name: which one.
            recursive: whether a directory goes with all that is in it; links are not followed.

        Raises:
            FileNotFoundError: There is nothing of that name.
            OSError: It cannot be removed, such as a directory that is not empty (ENOTEMPTY).
        """
        path = self._at(name)
        disk = current_disk()
        try:
            info = await disk.stat(path, follow_links=False)
            if info.is_directory and recursive:
                await disk.call(_remove_tree, path)
            else:
                await disk.remove(path, directory=info.is_directory)
        except OSError as error:
            raise with_path(error, path) from None

    async def rename(self, source: AnyPath, target: AnyPath, *, replace: bool = False) -> None:
        """Give a file or a directory another name.

        Args:
            source: its name.
            target: its new name.
            replace: whether a file, or an empty directory, of that name is replaced.

        Raises:
            FileNotFoundError: There is nothing of that name.
            FileExistsError: There is something of the new name, and `replace` is false.
            OSError: The two are on different file systems (EXDEV).
        """
        old, new = self._at(source), self._at(target)
        disk = current_disk()
        try:
            if not replace and await self._is_there(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), old, None, new)
            await disk.rename(old, new)
        except OSError as error:
            raise with_path(error, old, new) from None

    async def _is_there(self, path: str) -> bool:
        try:
            await current_disk().stat(path, follow_links=False)
        except FileNotFoundError:
            return False
        return True

    async def copy(
        self,
        source: AnyPath,
        target: AnyPath,
        *,
        recursive: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Copy a file with its permissions and times, or a directory; holes stay holes.

        It can be cancelled between two pieces of some MiB; a file that is not whole is removed.

        Args:
            source: what is copied; a link is followed.
            target: the copy's name. A file of that name is replaced; into a directory that exists
                another is merged.
            recursive: whether a directory is copied, with all that is in it, links as links.
            progress: called after each piece with the bytes that were copied, and all.

        Returns:
            How many bytes were copied.

        Raises:
            IsADirectoryError: It is a directory, and `recursive` is false.
            OSError: It cannot be read, or the copy not be written. The source, or what would be
                replaced, is no regular file; or a directory would be copied into itself (EINVAL).
        """
        old, new = self._at(source), self._at(target)
        disk = current_disk()
        if recursive and (await self.stat(source)).is_directory:
            return await copy_tree(disk, old, new, progress)
        return await copy_file(disk, old, new, progress)


def _scan(path: str) -> list[Entry]:
    make = tuple.__new__  # what Entry() does, in less time
    with os.scandir(path) as found:
        return [
            make(Entry, (at.name, at.path, at.is_dir(follow_symlinks=False), at.is_symlink()))
            for at in found
        ]


def _take(found: Iterator[str]) -> list[str]:
    batch: list[str] = []
    for each in found:
        batch.append(each)
        if len(batch) == BATCH:
            break
    return batch


def _remove_tree(path: str) -> None:
    def fail(_function: object, at: str, error: BaseException) -> NoReturn:
        if isinstance(error, OSError):
            error.filename = at  # which is but the last name, for some
        raise error

    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=fail)
    else:
        shutil.rmtree(path, onerror=lambda function, at, info: fail(function, at, info[1]))


def _make_directory(path: str, permissions: int, parents: bool, exist_ok: bool) -> None:
    try:
        if parents:
            os.makedirs(path, permissions, exist_ok=exist_ok)
        else:
            os.mkdir(path, permissions)
    except FileExistsError:
        if not exist_ok or not os.path.isdir(path):
            raise
