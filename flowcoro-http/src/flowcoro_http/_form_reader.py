"""From a request's body to `FormData`.

The multipart format itself (RFC 7578) is python-multipart's; here is what may be in a form,
how much of it, and what is said of one that is wrong.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from flowcoro_http._forms import PIECE, FormData, FormLimits, Spool, UploadFile
from flowcoro_http._multi import Headers, MultiMapping
from flowcoro_http._problem import FieldError, HttpError, bad_parameters

if TYPE_CHECKING:
    from flowcoro_http._request import Request

__all__ = ["MULTIPART", "URL_ENCODED", "read_form"]

MULTIPART = "multipart/form-data"
URL_ENCODED = "application/x-www-form-urlencoded"

_parser_logger = logging.getLogger("python_multipart.multipart")

_FOLDERS = re.compile(r"[/\\]")
# Section 4.7 deprecates transfer encodings; these are none.
_PLAIN = frozenset({"", "7bit", "8bit", "binary"})


async def read_form(request: Request, limits: FormLimits) -> FormData:
    """Read the body as a form; see `Request.form`."""
    from python_multipart.multipart import parse_options_header

    media, options = parse_options_header(request.headers.get("content-type", ""))
    if media == URL_ENCODED.encode():
        return await _read_url_encoded(request, limits)
    if media != MULTIPART.encode():
        accepted = f"{MULTIPART}, {URL_ENCODED}"
        raise HttpError(415, f"expected a body of {accepted}", headers={"accept": accepted})
    spool = Spool(limits.memory)
    request.routing.at_end(spool.aclose)
    parts = _Parts(options.get(b"boundary", b""), limits, spool)
    async for piece in request.stream():
        await parts.feed(piece)
    return await parts.finish()


async def _read_url_encoded(request: Request, limits: FormLimits) -> FormData:
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > limits.max_field_bytes:
            raise _too_much("form", "max_field_bytes", limits.max_field_bytes)
    if content and content.count(b"&") >= limits.max_fields:
        raise _too_much("form", "max_fields", limits.max_fields)
    try:
        pairs = parse_qsl(content.decode("utf-8"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise _malformed("form", "not UTF-8", f"{URL_ENCODED} of UTF-8") from None
    return FormData(MultiMapping(pairs))


class _Parts:
    """Takes pieces of a multipart body and makes fields and files of them."""

    def __init__(self, boundary: bytes, limits: FormLimits, spool: Spool) -> None:
        from python_multipart import MultipartParser
        from python_multipart.exceptions import FormParserError

        if _parser_logger.level == logging.NOTSET:
            # It warns of every malformed form: whoever sends them could fill the log.
            _parser_logger.setLevel(logging.ERROR)
        if not boundary:
            raise _malformed("form", "its content type has no boundary", MULTIPART)
        self._limits = limits
        self._spool = spool
        self._error = FormParserError
        self._fields: list[tuple[str, str]] = []
        self._files: dict[str, list[UploadFile]] = {}
        self._field_bytes = 0
        self._file_count = 0
        self._file_bytes = 0
        self._pending = bytearray()
        self._ended = False
        self._part_begins()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": self._header_name_comes,
                    "on_header_value": self._header_value_comes,
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data_comes,
                    "on_part_end": self._part_ends,
                    "on_end": self._form_ends,
                },
            )
        except FormParserError:
            raise _malformed("form", "its boundary is too long", MULTIPART) from None

    async def feed(self, piece: bytes) -> None:
        """Take a piece, of any size."""
        try:
            self._parser.write(piece)
        except self._error as error:
            # `Found invalid character 32 in header at 7`: safe to repeat.
            raise _malformed("form", str(error), MULTIPART) from None
        if len(self._pending) >= PIECE:
            await self._flush()

    async def finish(self) -> FormData:
        """Return what came, after the last piece."""
        if not self._ended:
            raise _malformed("form", "it ends before its last boundary", MULTIPART)
        await self._flush()
        return FormData(MultiMapping(self._fields), self._files)

    async def _flush(self) -> None:
        if self._pending:
            data, self._pending = self._pending, bytearray()
            await self._spool.write(data)

    # What the parser calls, in this order.

    def _part_begins(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_name, self._header_value = bytearray(), bytearray()
        self._name = ""
        self._text = bytearray()
        self._file: UploadFile | None = None

    def _header_name_comes(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_comes(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_ends(self) -> None:
        self._headers.append((bytes(self._header_name).lower(), bytes(self._header_value)))
        self._count(len(self._header_name) + len(self._header_value))
        self._header_name, self._header_value = bytearray(), bytearray()

    def _headers_end(self) -> None:
        headers = Headers(self._headers)
        self._name, filename = _disposition(headers)
        location = f"form.{self._name}"
        if headers.get("content-transfer-encoding", "").strip().lower() not in _PLAIN:
            raise _malformed(location, "it has a transfer encoding", "its bytes as they are")
        if filename is None:
            if len(self._fields) >= self._limits.max_fields:
                raise _too_much(location, "max_fields", self._limits.max_fields)
            return
        self._file_count += 1
        if self._file_count > self._limits.max_files:
            raise _too_much(location, "max_files", self._limits.max_files)
        self._file = UploadFile(self._name, filename, headers, self._spool, self._file_bytes)

    def _data_comes(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._pending += data[start:end]
            self._file.size += end - start
            self._file_bytes += end - start
        else:
            self._count(end - start)
            self._text += data[start:end]

    def _part_ends(self) -> None:
        file = self._file
        if file is None:
            try:
                self._fields.append((self._name, self._text.decode("utf-8")))
            except UnicodeDecodeError:
                raise _malformed(f"form.{self._name}", "not UTF-8", "UTF-8 text") from None
        elif file.filename or file.size:
            # Without either, a browser's user chose no file.
            self._files.setdefault(self._name, []).append(file)

    def _form_ends(self) -> None:
        self._ended = True

    def _count(self, size: int) -> None:
        """Count what stays in memory for text."""
        self._field_bytes += size
        if self._field_bytes > self._limits.max_field_bytes:
            location = f"form.{self._name}" if self._name else "form"
            raise _too_much(location, "max_field_bytes", self._limits.max_field_bytes)


def _disposition(headers: Headers) -> tuple[str, str | None]:
    """Return the name of a part's field, and the name of its file if it is one."""
    from python_multipart.multipart import parse_options_header

    given = headers.get_all("content-disposition")
    kind, options = parse_options_header(given[0] if len(given) == 1 else "")
    if kind != b"form-data" or b"name" not in options:
        expected = 'one Content-Disposition of form-data; name="…"'
        raise _malformed("form", "a part does not say which field it is", expected)
    try:
        name = options[b"name"].decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("form", "a field's name is not UTF-8", "UTF-8 text") from None
    filename = options.get(b"filename")
    if filename is None:
        return name, None
    last = _FOLDERS.split(filename.decode("utf-8", "replace").replace("\0", ""))[-1]
    return name, "" if last in (".", "..") else last


def _too_much(location: str, limit: str, value: int) -> HttpError:
    return HttpError(
        413,
        f"{location}: over the limit of {value} ({limit})",
        extensions={limit: value},
    )


def _malformed(location: str, message: str, expected: str) -> HttpError:
    return bad_parameters([FieldError(location, message, expected)], status=400)
