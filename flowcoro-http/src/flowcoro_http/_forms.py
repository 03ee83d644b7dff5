"""Forms: fields and files of a request's body, read as they arrive.

Text stays in memory, up to a limit. So do files, until all of a form's together are more
than `memory`: what comes then goes to one temporary file, which has no name and so is gone
with its descriptor, whatever happens. At most one piece of the body is held beside that.

How a body is read into these is in `_form_reader`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

import anyio

from flowcoro.io import BinaryFile, File
from flowcoro_http._checks import check_int
from flowcoro_http._multi import Headers, MultiMapping

__all__ = ["PIECE", "FormData", "FormLimits", "Spool", "UploadFile"]

PIECE = 128 * 1024
"""So many bytes of a file are read or written at a time."""


@dataclass(frozen=True, slots=True)
class FormLimits:
    """What a form may have; the whole of it is within `max_body_bytes` besides.

    Attributes:
        max_fields: the most fields of text.
        max_files: the most files.
        max_field_bytes: what all names and texts may have together, in bytes.
        memory: bytes of files that are kept in memory, of all files together; what is more
            goes to a temporary file.
    """

    max_fields: int = 1000
    max_files: int = 100
    max_field_bytes: int = 1024 * 1024
    memory: int = 512 * 1024

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            TypeError: an attribute is no integer.
            ValueError: one is negative.
        """
        for each in fields(self):
            check_int(f"FormLimits: {each.name}", getattr(self, each.name))


class Spool:
    """The bytes of all files of one form: the first in memory, the rest in a file.

    Args:
        memory: how many stay in memory.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.head = bytearray()
        self.size = 0
        self.file: BinaryFile | None = None
        self.closed = False

    async def write(self, data: bytes | bytearray) -> None:
        """Add bytes at the end."""
        if self.file is None:
            room = self.memory - self.size
            self.head += data[: max(room, 0)]
            if len(data) <= room:
                self.size += len(data)
                return
            self.file = await _open_temporary()
            await self.file.write_at(data[max(room, 0) :], 0)
        else:
            await self.file.write_at(data, self.size - len(self.head))
        self.size += len(data)

    async def read_at(self, size: int, offset: int) -> bytes:
        """Read bytes that were written."""
        if self.closed:
            raise anyio.ClosedResourceError("the files of a form are gone when it was answered")
        data = bytes(self.head[offset : offset + size])
        if len(data) < size and self.file is not None:
            start = offset + len(data) - len(self.head)
            data += await self.file.read_at(size - len(data), start)
        return data

    async def aclose(self) -> None:
        """Give up memory and file."""
        self.closed = True
        self.head = bytearray()
        if self.file is not None:
            with anyio.CancelScope(shield=True):
                await self.file.close()


async def _open_temporary() -> BinaryFile:
    """Open a file that nobody else can open, and that is gone when it is closed."""
    # Made at once rather than in a thread: a cancellation in between would leave it behind.
    descriptor, path = tempfile.mkstemp(prefix="flowcoro-form-")
    try:
        return await File.open(path, "w+b")
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            os.unlink(path)


class UploadFile:
    """A file of a form. It can be read until the request is answered.

    Attributes:
        name: the field's name.
        filename: the name that the client gave it, without folders. It is the client's: do
            not open a path by it.
        content_type: what the client says that it is; empty if it says nothing.
        headers: the header fields of its part.
        size: in bytes.
    """

    def __init__(
        self, name: str, filename: str, headers: Headers, spool: Spool, start: int
    ) -> None:
        self.name = name
        self.filename = filename
        self.content_type = headers.get("content-type", "")
        self.headers = headers
        self.size = 0
        self._spool = spool
        self._start = start
        self._position = 0

    async def read(self, size: int = -1) -> bytes:
        """Read from the position on.

        Args:
            size: how many bytes; all of them when negative. Fewer come only at the end.

        Raises:
            anyio.ClosedResourceError: the request was answered.
        """
        left = self.size - self._position
        data = await self.read_at(left if size < 0 else min(size, left), self._position)
        self._position += len(data)
        return data

    async def read_at(self, size: int, offset: int) -> bytes:
        """Read from anywhere, whatever the position is.

        Args:
            size: how many bytes; fewer come only at the end.
            offset: where they begin.

        Raises:
            ValueError: the size or the offset is negative.
            anyio.ClosedResourceError: the request was answered.
        """
        if size < 0 or offset < 0:
            raise ValueError(f"size and offset must not be negative: {size}, {offset}")
        size = max(min(size, self.size - offset), 0)
        return await self._spool.read_at(size, self._start + offset)

    def seek(self, offset: int) -> None:
        """Set the position.

        Args:
            offset: from the beginning, in bytes.

        Raises:
            ValueError: it is negative.
        """
        if offset < 0:
            raise ValueError(f"the offset must not be negative: {offset}")
        self._position = min(offset, self.size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Read piece by piece from the position on."""
        while data := await self.read(PIECE):
            yield data

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to a new file.

        Args:
            path: where; of your choice, not of the client's.

        Raises:
            FileExistsError: there is a file already.
            OSError: it cannot be written.
        """
        async with File.open(path, "xb") as target:
            for offset in range(0, self.size, PIECE):
                await target.write(await self.read_at(PIECE, offset))

    def __repr__(self) -> str:
        return f"<UploadFile {self.name!r} {self.filename!r}, {self.size} bytes>"


@dataclass(slots=True)
class FormData:
    """What a form has.

    Attributes:
        fields: the texts by name; `fields.get_all(name)` gives several.
        files: the files by name, in order.
    """

    fields: MultiMapping = field(default_factory=MultiMapping)
    files: Mapping[str, Sequence[UploadFile]] = field(default_factory=dict)

    def file(self, name: str) -> UploadFile | None:
        """Return the first file of a name, or None."""
        found = self.files.get(name, ())
        return found[0] if found else None
