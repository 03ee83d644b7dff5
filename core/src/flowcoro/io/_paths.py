"""Paths as callers give them, and errors that name them."""

from __future__ import annotations

import errno
import os
from typing import TypeAlias

__all__ = ["AnyPath", "text_of", "with_path"]

AnyPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"


def text_of(path: AnyPath) -> str:
    """Return the path as text; bytes that are no UTF-8 become surrogates, as everywhere in Python.

    Raises:
        TypeError: It is no path.
        FileNotFoundError: It is empty.
        OSError: It holds a NUL byte (EINVAL), or text that no file's name can be.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(
            f"a path must be a string, bytes or os.PathLike, not {type(path).__name__}"
        ) from None
    if "\0" in text:
        raise OSError(errno.EINVAL, "a path cannot hold a NUL byte", text)
    if not text:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, f"no file can have such a name: {error.reason}", text) from None
    return text


def with_path(error: OSError, path: str, target: str | None = None) -> OSError:
    """Return the error with the path that it is about, of the built-in kind for its number."""
    if error.filename is not None or error.errno is None:
        return error
    reason = error.strerror or os.strerror(error.errno)
    made = (
        OSError(error.errno, reason, path)
        if target is None
        else OSError(error.errno, reason, path, None, target)
    )
    made.__cause__ = error.__cause__
    return made.with_traceback(error.__traceback__)
