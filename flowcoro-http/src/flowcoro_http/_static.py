r"""A folder's files under a path, and nothing else of the disk.

What a client sends as a path is never joined to a folder before each of its parts was
looked at: empty ones, `.` and `..`, hidden ones, and any with a slash, a backslash or a NUL
(encoded or not) name no file. What is left may still lead through a symbolic link. So the
real path is computed, must lie within the folder, and is then walked down from the folder
without following any link; the file that is opened must be the one that was found there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import anyio.to_thread

from flowcoro.io import FileInfo
from flowcoro_http._checks import check_flag, check_text
from flowcoro_http._files import FileBody, content_type_of
from flowcoro_http._problem import HttpError
from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = ["StaticFiles"]

_WINDOWS = os.name == "nt"
_SEPARATORS = frozenset("/\\\0") | (frozenset(":") if _WINDOWS else frozenset())


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    info: os.stat_result

    def expect(self, opened: FileInfo) -> None:
        """See to it that what was opened is what was found."""
        if (opened.device, opened.inode) != (self.info.st_dev, self.info.st_ino):
            raise _nothing()


class StaticFiles:
    """A handler that serves the files of a folder; see also `Router.static`.

    Conditions, ranges and types are as with `Response.file`. Symbolic links are followed
    within the folder only. What is not served is not there: 404.

    Example:
        ```python
        from flowcoro_http import Route, Router, StaticFiles

        router = Router()
        router.add(Route("/files/{path:path}", StaticFiles("."), in_schema=False))
        ```

    Args:
        directory: the folder.
        index: name of the file that stands for a folder, such as `index.html`; none when
            empty. The path of a folder without its last slash is redirected.
        hidden: whether files and folders whose name begins with a dot are served.
        cache_control: the `Cache-Control` of every file; none when empty.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: `index` is no plain name, or `cache_control` no value of a header field.
        TypeError: an argument is of another type.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        index: str = "",
        hidden: bool = False,
        cache_control: str = "",
    ) -> None:
        if not isinstance(directory, str | os.PathLike):
            raise TypeError(
                f"StaticFiles: directory: expected a path, not {type(directory).__name__}"
            )
        check_text("StaticFiles: index", index)
        check_flag("StaticFiles: hidden", hidden)
        check_text("StaticFiles: cache_control", cache_control)
        Response(headers={"cache-control": cache_control})  # refuses what no field can have
        self._directory = os.path.abspath(directory)
        if not os.path.isdir(self._directory):
            raise NotADirectoryError(f"static files: {self._directory} is not a folder")
        if index and not _is_name(index):
            raise ValueError(f"index {index!r}: expected a name, such as 'index.html'")
        self._index = index
        self._hidden = hidden
        self._headers = {"cache-control": cache_control} if cache_control else {}

    async def __call__(self, request: Request, path: str) -> Response:
        """Answer with a file.

        Args:
            request: the request.
            path: the file's path below the folder.

        Raises:
            HttpError: 404, there is no such file, or it is not served.
        """
        # Decoded, such a slash would look like one that parts names.
        if "%2f" in request.url.partition("?")[0].lower():
            raise _nothing()
        names = path.split("/")
        is_folder = names[-1] == ""
        if is_folder:
            names.pop()
        if not all(_is_name(name) and (self._hidden or name[0] != ".") for name in names):
            raise _nothing()
        found = await self._look(names)
        if stat.S_ISDIR(found.info.st_mode):
            if not self._index:
                raise _nothing()
            if not is_folder and names:
                return self.redirect(names[-1])
            names = [*names, self._index]
            found = await self._look(names)
        elif is_folder:
            raise _nothing()
        if not stat.S_ISREG(found.info.st_mode):
            raise _nothing()
        body = FileBody(found.path, found.expect)
        return Response(body, headers=self._headers, content_type=content_type_of(names[-1]))

    def redirect(self, name: str) -> Response:
        """Send the client from a folder's path to the same with a slash."""
        # `./`, lest a colon in the name make it a scheme.
        return Response.redirect(f"./{quote(name, safe='')}/", status=308)

    async def _look(self, names: list[str]) -> _Found:
        try:
            found = await anyio.to_thread.run_sync(_find, self._directory, names)
        except (OSError, ValueError):  # a name too long, a loop of links, no permission
            found = None
        if found is None:
            raise _nothing()
        return found

    def __repr__(self) -> str:
        return f"StaticFiles({self._directory!r})"


def _is_name(text: str) -> bool:
    return text not in {"", ".", ".."} and _SEPARATORS.isdisjoint(text)


def _nothing() -> HttpError:
    return HttpError(404, "there is nothing at this path")


def _find(directory: str, names: list[str]) -> _Found | None:
    """Find what the names lead to, if that is within the directory."""
    root = os.path.realpath(directory)
    path = os.path.realpath(os.path.join(root, *names))
    if path == root:
        return _Found(path, os.lstat(path))
    inside = root if root.endswith(os.sep) else root + os.sep
    if not os.path.normcase(path).startswith(os.path.normcase(inside)):
        return None
    return _Found(path, _lstat_below(root, path[len(inside) :].split(os.sep)))


def _lstat_by_path(root: str, names: list[str]) -> os.stat_result:
    return os.lstat(os.path.join(root, *names))


def _lstat_by_descriptors(root: str, names: list[str]) -> os.stat_result:
    """Walk down without following any link, not even one that was put there just now."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", 0)
    current = os.open(root, flags)
    try:
        for name in names[:-1]:
            below = os.open(name, flags, dir_fd=current)
            os.close(current)
            current = below
        return os.stat(names[-1], dir_fd=current, follow_symlinks=False)
    finally:
        os.close(current)


_lstat_below: Callable[[str, list[str]], os.stat_result] = (
    _lstat_by_descriptors
    if {os.open, os.stat} <= os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
    else _lstat_by_path
)
