"""The ring, and the thread that empties it.

Protocol
--------
`put`, called by any thread, does no more than `try_put` into a bounded `flowcoro.lockfree.Queue`
and look whether as many records are there as the writer wants to be woken for (`_wake_at`): one
when it sleeps until there are any, half the capacity when it naps to let a batch come together.
A lock that is released wakes it, and no condition or event, whose own locks a signal handler
might find held by the very code that it interrupts.

Who holds `_lock` drains: takes a batch, formats it and writes it. Mostly that is the writer's
thread; but `flush` drains by itself, so it needs nobody who may be gone: the thread in a forked
child, or at the end of the interpreter. As taking and writing are under one lock, records of one
thread are written in their order. `os.fork` takes the lock first (see `_fork`), so that no batch
is half written in a child; the child begins with an empty ring.

What cannot be written (no room on the disk) is kept, one batch, and tried again; meanwhile the
ring fills, and then the oldest records go, counted, whatever the policy.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flowcoro.lockfree import Queue
from flowcoro.log._entry import Entry, safe_repr
from flowcoro.log._sinks import Sink

__all__ = ["LogStats", "Writer"]

Queued = Entry | logging.LogRecord

_BATCH = 4096
# How long to sleep when nothing is logged. It is woken sooner; this only bounds what a missed
# wake-up could cost.
_IDLE = 1.0
# Between tries to write to what fails.
_RETRY = 0.25
# For the lock: whoever has it may be stuck in a write to a pipe that nobody reads.
PATIENCE = 5.0
_NEVER = sys.maxsize


@dataclass(frozen=True, slots=True)
class LogStats:
    """What a handler has done so far.

    Attributes:
        written: lines that were handed to the sink, notices of the log's own among them.
        dropped: records that were dropped, since the ring was full or the sink refused them.
        queued: records on the ring now.
        failing: whether the sink failed the last time.
    """

    written: int
    dropped: int
    queued: int
    failing: bool


class Writer:
    """Takes entries, and has them formatted and written.

    Args:
        sink: Where to.
        render: Returns entries as lines. Must not raise.
        capacity: How many records the ring holds.
        block: Whether who logs waits for room, rather than drop the oldest record.
        block_timeout: How long it waits, in seconds, before it drops the oldest after all;
            None: for ever.
        flush_interval: Seconds between batches.
    """

    def __init__(
        self,
        sink: Sink,
        render: Callable[[Sequence[Queued]], list[str]],
        *,
        capacity: int,
        block: bool,
        block_timeout: float | None,
        flush_interval: float,
    ) -> None:
        self._sink = sink
        self._render = render
        self._capacity = capacity
        self._block = block
        self._block_timeout = block_timeout
        self._interval = flush_interval
        self._written = 0
        self._dropped = 0
        self._told = 0  # of the dropped, those that a notice in the log is about
        self._stopping = False
        self._closed = False
        self._reopens = False
        # When a signal comes while its thread drains, what to do right afterwards.
        self.after_drain: Callable[[], object] | None = None
        self._begin()

    def _begin(self) -> None:
        """Start with an empty ring and no thread: in the beginning, and in a forked child."""
        self._queue: Queue[Queued] = Queue(self._capacity)
        self._try_put = self._queue.try_put
        self._lock = threading.RLock()
        self._count_lock = threading.RLock()
        self._wake = threading.Lock()
        self._wake.acquire()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake_at = 1
        self._drainer: int | None = None
        self._wanted = False  # the lock, by another than the thread
        self._taken: list[Queued] = []  # off the ring, and not lines yet
        self._unwritten = b""
        self._records_unwritten = 0
        self._failing_since: float | None = None
        self._failure = ""
        self._told = self._dropped

    def put(self, entry: Queued) -> None:
        """Hand an entry over. Never raises; waits only if the policy is to."""
        if self._try_put(entry):
            if len(self._queue) >= self._wake_at:
                self._wake_up()
        else:
            self._put_into_full(entry)

    def _put_into_full(self, entry: Queued) -> None:
        self._wake_up()
        if self._block and self._put_when_there_is_room(entry):
            return
        dropped = 0
        while not self._try_put(entry):
            if self._queue.try_get() is not None:
                dropped += 1
        self._count_dropped(dropped)

    def _put_when_there_is_room(self, entry: Queued) -> bool:
        """Wait as the policy has it; false when the oldest record has to go after all."""
        left = math.inf if self._block_timeout is None else self._block_timeout
        while left > 0 and not self._waits_in_vain():
            step = min(left, _RETRY)
            try:
                self._queue.put(entry, step)
            except TimeoutError:
                left -= step
            else:
                return True
        return False

    def _waits_in_vain(self) -> bool:
        # Whatever of these comes to be while somebody waits does not wake it.
        return (
            self._failing_since is not None
            or self._stopping
            or self._drainer == threading.get_ident()  # a sink that logs waits for itself
        )

    def _count_dropped(self, dropped: int) -> None:
        with self._count_lock:
            self._dropped += dropped

    def _wake_up(self) -> None:
        self._wake_at = _NEVER
        if self._thread is None:
            self._start()
        with suppress(RuntimeError):  # woken already
            self._wake.release()

    def _start(self) -> None:
        if not self._starting.acquire(blocking=False):
            return  # another thread does, or the code that this signal handler interrupts
        try:
            if self._thread is None and not self._stopping:
                thread = threading.Thread(target=self._run, name="flowcoro log", daemon=True)
                self._thread = thread  # first: it may end before the next line
                thread.start()
        except RuntimeError:
            self._thread = None
            self.drain()  # the interpreter ends, and starts no threads any more
        finally:
            self._starting.release()

    def _run(self) -> None:
        try:
            self._write_until_stopped()
        finally:
            # Whatever has ended it, such as a sink that exits: the next record starts another.
            self._thread = None
            self._wake_at = 1

    def _write_until_stopped(self) -> None:
        hurry = max(1, self._capacity // 2)
        wake = self._wake
        while not self._stopping:
            wrote = self.drain()
            if not wrote and not self._work():
                self._wake_at = 1
                if not self._queue and not self._stopping:
                    wake.acquire(timeout=_IDLE if self._failing_since is None else _RETRY)
            self._wake_at = hurry
            if self._stopping:
                break
            if self._queue or self._failing_since is not None:
                # Those that come meanwhile go along.
                wake.acquire(timeout=self._interval if self._failing_since is None else _RETRY)

    def _work(self) -> bool:
        """Let the sink do what is not urgent, until something is logged."""
        more = True
        while more and not self._queue and not self._stopping:
            if not self._lock.acquire(timeout=PATIENCE):
                return False
            try:
                more = self._sink.work()
            except Exception as error:  # noqa: BLE001 - a sink must not end the thread
                _tell(f"{self._sink}: {safe_repr(error)}")
                return False
            finally:
                self._lock.release()
        return more

    def drain(self, timeout: float = PATIENCE) -> bool:
        """Write what is on the ring now, in the calling thread.

        Args:
            timeout: How long to wait for another thread that does the same.

        Returns:
            Whether anything was written.
        """
        if not self._acquire(timeout):
            return False
        try:
            if self._closed or self._drainer is not None:
                return False  # or a sink or a signal handler, within this
            self._drainer = threading.get_ident()
            try:
                return self._drain()
            finally:
                self._drainer = None
        finally:
            self._lock.release()
            if (
                self.after_drain is not None
                and threading.current_thread() is threading.main_thread()
            ):
                self.after_drain()

    def _acquire(self, timeout: float) -> bool:
        """Take the lock, which the thread gives up between two batches for this."""
        if self._thread is threading.current_thread():
            while self._wanted and not self._stopping:
                time.sleep(0.001)  # the lock is not fair: it would be taken right again
        else:
            self._wanted = True
        try:
            return self._lock.acquire(timeout=timeout)
        finally:
            if self._thread is not threading.current_thread():
                self._wanted = False

    def draining_here(self) -> bool:
        """Whether the calling thread is within `drain`."""
        return self._drainer == threading.get_ident()

    def _drain(self) -> bool:
        if self._unwritten and not self._write(b"", 0):
            return False
        remaining = len(self._queue)
        wrote = False
        while self._taken or remaining > 0:
            if not self._taken:
                self._taken = self._take(remaining)
                remaining -= len(self._taken)
            if not self._taken:
                break
            if not self._write_batch(self._taken):
                return False
            wrote = True
            if self._wanted and self._thread is threading.current_thread():
                break
        if self._told != self._dropped:
            wrote = self._write_batch([]) or wrote
        return wrote

    def _take(self, most: int) -> list[Queued]:
        """Take a batch of what is there; empty only if nothing is."""
        for _ in range(1000):
            batch = self._queue.get_many(min(most, _BATCH))
            if batch or not self._queue:
                return batch
            # Another thread is just putting the first in; those behind it wait for it.
            time.sleep(0)
        return []

    def _write_batch(self, batch: list[Queued]) -> bool:
        lost = self._dropped - self._told
        if lost:
            notice = _notice(f"{lost} record{'s' if lost > 1 else ''} dropped")
            batch = [notice, *batch]
        lines = "".join(self._render(batch))
        self._told += lost
        self._taken = []
        return self._write(lines.encode("utf-8", "backslashreplace"), len(batch), lost)

    def _write(self, data: bytes, records: int, told: int = 0) -> bool:
        """Write lines, after those that could not be written before.

        Args:
            data: The lines.
            records: How many they are.
            told: How many dropped ones they tell about.
        """
        data = self._unwritten + data if self._unwritten else data
        records += self._records_unwritten
        self._unwritten, self._records_unwritten = b"", 0
        try:
            if self._reopens:
                self._reopens = False
                self._sink.reopen()
            while data:
                data = data[self._sink.write(data) :]
        except OSError as error:
            self._unwritten, self._records_unwritten = data, records
            self._failed(error)
            return False
        except Exception as error:  # noqa: BLE001 - a sink may be anything
            self._told -= told
            self._count_dropped(records - (1 if told else 0))
            self._failed(error)
            return False
        except BaseException:  # KeyboardInterrupt in who flushes, or a sink that exits
            self._unwritten, self._records_unwritten = data, records
            raise
        self._written += records
        if self._failing_since is not None:
            seconds = time.monotonic() - self._failing_since
            self._failing_since = None
            entry = _notice(f"the log could not be written for {seconds:.1f} s: {self._failure}")
            return self._write("".join(self._render([entry])).encode(), 1)
        return True

    def _failed(self, error: Exception) -> None:
        self._failure = f"{error}" if isinstance(error, OSError) else safe_repr(error)
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            _tell(f"cannot write to {self._sink}: {self._failure}; it is tried again")

    def reopen(self) -> None:
        """Have the sink open its target anew before it writes again. For signal handlers."""
        self._reopens = True

    def stats(self) -> LogStats:
        """Return what it has done so far."""
        return LogStats(
            self._written, self._dropped, len(self._queue), self._failing_since is not None
        )

    def close(self) -> None:
        """Write what is left, end the thread, and close the sink, unless it is stuck in a write."""
        self._stopping = True
        with suppress(RuntimeError):
            self._wake.release()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(PATIENCE)
        self.drain()
        lost = len(self._queue) + len(self._taken) + self._records_unwritten
        if lost:
            self._count_dropped(lost)
            _tell(f"{lost} records are lost: {self._sink}: {self._failure or 'busy'}")
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._sink.close()
            except Exception as error:  # noqa: BLE001 - a sink may be anything
                _tell(f"{self._sink}: cannot be closed: {safe_repr(error)}")
            finally:
                self._lock.release()

    # What `_fork` calls.

    def before_fork(self) -> bool:
        """Wait until nothing is half written."""
        return self._acquire(PATIENCE)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: what was on the ring is the parent's to write."""
        self._begin()


def _notice(message: str) -> Entry:
    return (time.time(), logging.WARNING, None, "flowcoro.log", message, None, None, None)


def _tell(message: str) -> None:
    """Say on standard error what the log itself cannot."""
    stream: Any = sys.__stderr__
    with suppress(Exception):
        stream.write(f"flowcoro.log: {message}\n")
        stream.flush()
