"""Compressing what is sent.

Not without a price where secrets are: whoever can make a victim's browser send requests
and sees how long the encrypted answers are can guess, byte by byte, a secret that comes in
one compressed body with something of the attacker's choice (BREACH,
https://breachattack.com). So leave out, by `skip`, what holds both; a token in a cookie or
a header field is not compressed and not in danger.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence

import anyio.to_thread

from flowcoro_http._checks import check_int, check_texts
from flowcoro_http._declared import check_question
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._request import Request
from flowcoro_http._response import Response
from flowcoro_http.middleware._codings import (
    CODINGS,
    Coding,
    Compressor,
    choose_coding,
    make_coding,
)
from flowcoro_http.middleware._vary import add_vary

__all__ = ["Compression"]

_IN_THREAD = 64 * 1024
"""More than that is compressed in a thread: it takes milliseconds."""

# What is compressed already is not worth it, and is most of what is not here.
_TYPES = frozenset(
    {
        "application/graphql-response",
        "application/javascript",
        "application/manifest+json",
        "application/msgpack",
        "application/wasm",
        "application/x-ndjson",
        "application/yaml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/svg+xml",
        "image/x-icon",
    }
)
_ENDINGS = ("+json", "+xml", "/json", "/xml")


class Compression(Middleware):
    """Compresses bodies by zstd, Brotli or gzip, as the client prefers.

    It leaves alone what is compressed already, parts of files (206), what says
    `Cache-Control: no-transform`, and types that do not shrink. A stream is compressed piece
    by piece, and each piece can be read when it arrives. `Vary` says that it depends on
    `Accept-Encoding`, and a strong `ETag` becomes weak, since the bytes are others.

    Brotli and zstd need `flowcoro-http[brotli]` and `[zstd]`; Python 3.14 has zstd itself.

    Args:
        codings: those to use, in order of preference; what is not there is passed over.
        minimum_bytes: smaller bodies stay as they are; of a stream only if its
            `Content-Length` says so.
        gzip_level: 1 to 9, fastest to smallest.
        brotli_quality: 0 to 11, fastest to smallest; from 5 on it takes long.
        zstd_level: 1 to 19, fastest to smallest.
        skip: tells what stays as it is, of request and response: see the module's words on
            BREACH.
        order: where it stands.

    Raises:
        ValueError: a coding is not known, or a number out of range.
        TypeError: an argument is of another type.
    """

    def __init__(
        self,
        *,
        codings: Sequence[str] = CODINGS,
        minimum_bytes: int = 1024,
        gzip_level: int = 5,
        brotli_quality: int = 4,
        zstd_level: int = 3,
        skip: Callable[[Request, Response], bool] | None = None,
        order: int = -300,
    ) -> None:
        super().__init__("compression", self._handle, order)
        check_texts("Compression: codings", codings, "['zstd', 'gzip']")
        check_int("Compression: minimum_bytes", minimum_bytes)
        check_int("Compression: gzip_level", gzip_level, least=1, most=9)
        check_int("Compression: brotli_quality", brotli_quality, most=11)
        check_int("Compression: zstd_level", zstd_level, least=1, most=19)
        check_question("Compression", "skip", skip, ("request", "response"))
        levels = {"gzip": gzip_level, "br": brotli_quality, "zstd": zstd_level}
        self._codings: dict[str, Coding] = {}
        for name in codings:
            if name not in levels:
                raise ValueError(f"Compression: coding {name!r} is none of {', '.join(CODINGS)}")
            coding = make_coding(name, levels[name])
            if coding is not None:
                self._codings[name] = coding
        self._offered = list(self._codings)
        self._minimum = minimum_bytes
        self._skip = skip

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        if not _fits(response) or (self._skip is not None and self._skip(request, response)):
            return response
        add_vary(response, "accept-encoding")
        body = response.body
        accept = ", ".join(request.headers.get_all("accept-encoding"))
        name = choose_coding(accept, self._offered)
        if not name or _size(response) < self._minimum:
            return response
        compressor = self._codings[name]()
        if isinstance(body, bytes):
            whole: bytes = body
            z = compressor
            response.body = await _work(whole, lambda: z.compress(whole) + z.finish())
        else:
            response.body = _Pieces(body, compressor)
        self._describe(response, name)
        return response

    def _describe(self, response: Response, coding: str) -> None:
        headers = response.headers
        headers["content-encoding"] = coding
        del headers["content-length"]
        # Ranges would be of the bytes that are sent, which nobody keeps.
        del headers["accept-ranges"]
        etag = headers.get("etag", "")
        if etag.startswith('"'):
            headers["etag"] = f"W/{etag}"


def _fits(response: Response) -> bool:
    if response.status in {204, 206, 304} or not isinstance(response.body, bytes | AsyncIterable):
        return False
    headers = response.headers
    if "content-encoding" in headers or "content-range" in headers:
        return False
    if "no-transform" in ", ".join(headers.get_all("cache-control")).lower():
        return False
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media.startswith("text/") or media in _TYPES or media.endswith(_ENDINGS)


def _size(response: Response) -> float:
    """Return how long the body is, as far as that is known."""
    if isinstance(response.body, bytes):
        return len(response.body)
    declared = response.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else math.inf


async def _work(data: bytes, compress: Callable[[], bytes]) -> bytes:
    """Compress, in a thread if it takes long."""
    if len(data) < _IN_THREAD:
        return compress()
    return await anyio.to_thread.run_sync(compress)


class _Pieces:
    """A stream's pieces compressed, each of them to its end."""

    def __init__(self, pieces: AsyncIterable[bytes], compressor: Compressor) -> None:
        self._pieces = pieces
        self._source: AsyncIterator[bytes] | None = None
        self._compressor = compressor
        self._ended = False

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if self._source is None:
            self._source = aiter(self._pieces)
        try:
            piece = await anext(self._source)
        except StopAsyncIteration:
            self._ended = True
            return self._compressor.finish()
        if not piece:
            return b""
        z = self._compressor
        return await _work(piece, lambda: z.compress(piece) + z.flush())

    async def aclose(self) -> None:
        """Close the stream behind it."""
        self._ended = True
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()
