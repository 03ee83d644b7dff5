"""Files and directories without blocking the event loop.

On `flowcoro.Loop` reads, writes and what is asked of paths are operations of the loop's reactor:
io_uring's where there is one, else of its file threads. On other loops, asyncio's or trio's, they
run in threads. What is in the page cache is read at once, without either.

Errors are the built-in `OSError` and its kinds, with the path; what is closed raises anyio's
`ClosedResourceError`. An operation that is cancelled is over when the cancellation returns: no
write lands afterwards.
"""

from flowcoro.io._atomic import write_atomic
from flowcoro.io._binary import BinaryFile
from flowcoro.io._copy import Progress
from flowcoro.io._directory import Directory, Entry
from flowcoro.io._file import File
from flowcoro.io._info import FileInfo
from flowcoro.io._text import TextFile
from flowcoro.io._watch import Change

__all__ = [
    "BinaryFile",
    "Change",
    "Directory",
    "Entry",
    "File",
    "FileInfo",
    "Progress",
    "TextFile",
    "write_atomic",
]
