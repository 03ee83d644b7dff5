"""Files as bodies: their type and name, what conditions and ranges leave of them, their bytes.

`FileBody` is what a handler returns: a path. Once the request is at hand `settle` opens it
and decides what goes out, which may be all of it, parts of it, or nothing. What is sent and
what its header fields say comes from one descriptor, so a file that is replaced meanwhile
is sent as it was; one that shrinks breaks the response off.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import quote

import anyio
import anyio.lowlevel

from flowcoro.io import BinaryFile, File, FileInfo
from flowcoro_http._conditional import (
    Validators,
    Verdict,
    evaluate,
    format_date,
    parse_date,
    range_holds,
)
from flowcoro_http._problem import HttpError
from flowcoro_http._ranges import Span, parts_of, requested_spans

if TYPE_CHECKING:
    from flowcoro_http._request import Request
    from flowcoro_http._response import Response

__all__ = ["Disposition", "FileBody", "FileStream", "content_disposition", "content_type_of"]

Disposition: TypeAlias = Literal["inline", "attachment"]
"""Whether a client shows what it gets, or saves it."""

PIECE = 128 * 1024
"""So many bytes of a file are in memory at a time."""

_MISSING = "there is nothing at this path"

# What Python's own tables lack, in some version that we run on.
_TYPES = {
    ".avif": "image/avif",
    ".cjs": "text/javascript",
    ".flac": "audio/flac",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".parquet": "application/vnd.apache.parquet",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_COMPRESSED = {
    "br": "application/octet-stream",
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}
_TEXT = frozenset({"application/json", "application/xml", "image/svg+xml"})

# Python's own tables only: what a machine's files or registry say must not change an answer.
_guess = mimetypes.MimeTypes(()).guess_type


def content_type_of(name: str) -> str:
    """Return the media type for a file's name; `application/octet-stream` if none is known.

    A compressed file is what it is, such as `application/gzip`. Text is taken for UTF-8.
    What `mimetypes.add_type` was told counts for endings that Python does not know.
    """
    ending = os.path.splitext(name)[1].lower()
    media = _TYPES.get(ending)
    if media is None:
        media, encoding = _guess(name)
        if media is None and encoding is None:
            media, encoding = mimetypes.guess_type(name)
        if encoding is not None:
            media = _COMPRESSED.get(encoding)
    if media is None:
        return "application/octet-stream"
    if media.startswith("text/") and media not in _TEXT:
        return f"{media}; charset=utf-8"
    return media


_PLAIN_NAME = re.compile(r"[\x20-\x7e]*\Z")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]")
# Quotes would need an escape, which clients read differently, and so would a percent sign.
_UNQUOTABLE = re.compile(r'[^\x20-\x7e]|["%]')


def content_disposition(filename: str, disposition: Disposition = "attachment") -> str:
    """Write a `Content-Disposition` (RFC 6266, with the encoding of RFC 8187).

    Control characters and what separates folders become `_`, so neither a header field nor
    a path on the client's disk can be forged with a name.

    Args:
        filename: the name to save as; empty for none.
        disposition: `attachment` to save, `inline` to show.
    """
    if not filename:
        return disposition
    name = _UNSAFE.sub("_", filename).encode("utf-8", "replace").decode()
    fallback = _UNQUOTABLE.sub("_", name)
    field = f'{disposition}; filename="{fallback}"'
    return field if fallback == name else f"{field}; filename*=UTF-8''{quote(name, safe='')}"


class FileStream:
    """Some bytes of an open file and what stands between them, as an asynchronous iterator.

    It owns the file: `aclose` closes it.

    Args:
        file: the file, open for reading.
        pieces: bytes as they are, and spans of the file.

    Attributes:
        file: the file.
        pieces: what is not sent yet.
    """

    def __init__(self, file: BinaryFile, pieces: Sequence[bytes | Span]) -> None:
        self.file = file
        self.pieces = list(pieces)

    def __aiter__(self) -> FileStream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes, at most 128 KiB.

        Raises:
            RuntimeError: the file cannot be read, or is shorter than it was.
        """
        while self.pieces:
            piece = self.pieces[0]
            if isinstance(piece, bytes):
                del self.pieces[0]
                return piece
            if piece.size > 0:
                return await self._read(piece)
            del self.pieces[0]
        await self.aclose()
        raise StopAsyncIteration

    async def _read(self, span: Span) -> bytes:
        size = min(span.size, PIECE)
        # Reading what is cached does not wait, nor does sending to who has gone: others must
        # get their turn, and so must whoever is to notice that.
        await anyio.lowlevel.checkpoint()
        try:
            data = await self.file.read_at(size, span.start)
        except OSError as error:
            # An OSError of its own would look as if the client had gone.
            raise RuntimeError(f"{self.file.name}: {error}") from error
        if len(data) < size:
            raise RuntimeError(f"{self.file.name} became shorter while it was sent")
        self.pieces[0] = Span(span.start + size, span.stop)
        return data

    async def aclose(self) -> None:
        """Close the file, whatever is left of it."""
        self.pieces.clear()
        with anyio.CancelScope(shield=True):
            await self.file.close()


class FileBody:
    """A file as the body of a response, not yet opened.

    Args:
        path: where it is.
        expect: looks at what was opened; an `HttpError` of its own refuses it.
    """

    def __init__(
        self, path: str | os.PathLike[str], expect: Callable[[FileInfo], None] | None = None
    ) -> None:
        self.path = os.fspath(path)
        self._expect = expect

    async def settle(self, response: Response, request: Request) -> None:
        """Open the file and make the response what the request asks for.

        Raises:
            HttpError: 404, there is no such file; 412, a precondition failed; 416, it has
                not one of the bytes that were asked for.
            OSError: it cannot be read, or is no regular file.
        """
        try:
            file = await File.open(self.path, "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise HttpError(404, _MISSING) from None
        stream = FileStream(file, ())
        # In case that nobody gets to send it: middleware answers otherwise, or is cancelled.
        request.routing.at_end(stream.aclose)
        info = await file.info()
        if not stat.S_ISREG(info.mode):
            # A device may have no end; what has no positions, such as a FIFO, was not opened.
            raise OSError(errno.EINVAL, "expected a regular file", self.path)
        if self._expect is not None:
            self._expect(info)
        await _settle(response, request, stream, info)


async def _settle(response: Response, request: Request, stream: FileStream, info: FileInfo) -> None:
    headers = response.headers
    modified = info.modified_ns // 1_000_000_000
    headers.setdefault("etag", f'"{info.inode:x}-{info.size:x}-{info.modified_ns:x}"')
    headers.setdefault("last-modified", format_date(modified))
    headers.setdefault("accept-ranges", "bytes")
    headers.setdefault("content-type", content_type_of(stream.file.name))
    spans = None
    # Elsewhere the handler has acted already: conditions would come too late (13.2.1).
    if response.status == 200 and request.method in {"GET", "HEAD"}:
        found = Validators(headers["etag"], parse_date(headers["last-modified"]))
        verdict = evaluate(request.headers, found)
        if verdict is Verdict.FAILED:
            raise HttpError(412, "this is not the version that the preconditions ask for")
        if verdict is Verdict.NOT_MODIFIED:
            await stream.aclose()
            response.status, response.body = 304, b""
            for name in ("content-type", "content-disposition"):
                del headers[name]
            return
        if request.method == "GET" and range_holds(request.headers, found, time.time()):
            spans = requested_spans(request.headers, info.size)
    _choose(response, stream, info.size, spans)


def _choose(response: Response, stream: FileStream, size: int, spans: list[Span] | None) -> None:
    """Put what is asked for into the response: all of it (None), parts, or 416."""
    headers = response.headers
    if spans is None:
        stream.pieces = [Span(0, size)]
        length = size
    elif not spans:
        raise HttpError(
            416,
            f"none of these ranges is within the {size} bytes",
            headers={"content-range": f"bytes */{size}"},
        )
    elif len(spans) == 1:
        response.status = 206
        headers["content-range"] = spans[0].content_range(size)
        stream.pieces = list(spans)
        length = spans[0].size
    else:
        response.status = 206
        parts = parts_of(spans, size, headers["content-type"])
        headers["content-type"] = parts.content_type
        stream.pieces = list(parts.pieces)
        length = parts.size
    headers["content-length"] = str(length)
    response.body = stream
