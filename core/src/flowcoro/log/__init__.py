"""Logging that does not wait for files: records go over a lock-free ring to a writer thread.

`setup()` makes the standard library's `logging` asynchronous with one call; `AsyncHandler` is its
handler, for who arranges handlers himself. What a call of `logger.info()` costs then is what it
takes to note time, message and arguments; a thread formats and writes them in batches, at most
`flush_interval` later.

Layers, each of which may use only those before it: `_entry` (what a record is on the ring, and
what is captured at once), `_trace`, `_format` (text and JSON lines), `_compress`, `_sinks` and
`_file` (where lines go), `_writer` (the ring and its thread), `_fork`, `_handler`, `_logger`,
`_structlog`, `_setup`.
"""

from flowcoro.log._file import FileSink
from flowcoro.log._format import EntryFormatter, JsonFormatter, TextFormatter
from flowcoro.log._handler import AsyncHandler
from flowcoro.log._logger import Logger
from flowcoro.log._setup import handler, setup, shutdown
from flowcoro.log._sinks import CallableSink, Sink, StreamSink
from flowcoro.log._structlog import StructlogFactory, StructlogLogger
from flowcoro.log._trace import Trace, set_trace_provider
from flowcoro.log._writer import LogStats

__all__ = [
    "AsyncHandler",
    "CallableSink",
    "EntryFormatter",
    "FileSink",
    "JsonFormatter",
    "LogStats",
    "Logger",
    "Sink",
    "StreamSink",
    "StructlogFactory",
    "StructlogLogger",
    "TextFormatter",
    "Trace",
    "handler",
    "set_trace_provider",
    "setup",
    "shutdown",
]
