"""Keeps a number of worker processes running.

Protocol: each worker is kept by one task, which starts it, waits for its end, and starts
it again after a delay that grows while it keeps failing. The first worker starts alone:
if it ends before it was ready, the application cannot start, which is said once, and the
supervisor ends with its status. Once it is ready the others start.

Workers run in process groups of their own, so a Ctrl-C at the terminal reaches them only
through the supervisor, and a second one, which hurries them, only if it is meant.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import anyio

from flowcoro._backoff import Backoff
from flowcoro.workers._channel import CHANNEL_VARIABLE, COUNT_VARIABLE

__all__ = ["Supervisor"]

logger = logging.getLogger("flowcoro.workers")

_KILL_GRACE = 10.0
"""Seconds beyond the drain timeout after which a worker that still runs is killed."""


@dataclass(frozen=True, slots=True)
class _Worker:
    process: Process
    asked: anyio.Event = field(default_factory=anyio.Event)


class Supervisor:
    """Runs `workers` copies of a command until it is told to stop.

    Args:
        command: the worker's command line.
        workers: how many to keep running.
        drain_timeout: seconds that a worker may take to finish its work.
        patient: keep trying also when no worker was ever ready; for reloading, where
            the next edit may mend what is broken.
        environ: the environment of the workers.
        backoff: makes the delays between restarts of one worker.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        workers: int,
        drain_timeout: float,
        patient: bool = False,
        environ: Mapping[str, str] = os.environ,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._command = list(command)
        self._workers = workers
        self._drain_timeout = drain_timeout
        self._patient = patient
        self._environ = dict(environ)
        self._make_backoff = backoff
        self._running: dict[int, _Worker] = {}
        self._reloading: set[int] = set()
        self._changed = anyio.Event()
        self._stop = anyio.Event()
        self._ever_ready = False
        self._others_may_start = anyio.Event()
        self._status = 0

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [worker.process.pid for worker in self._running.values()]

    def stop(self, reason: str = "stop()") -> None:
        """Stop all workers, each within the drain timeout; asked twice, to hurry them.

        Args:
            reason: one line for the log.
        """
        if self._stop.is_set():
            for worker in self._running.values():
                _signal(worker.process, signal.SIGTERM)
            return
        logger.info("supervisor stopping (%s)", reason)
        self._stop.set()
        self._changed.set()
        self._others_may_start.set()
        for worker in self._running.values():
            worker.asked.set()

    def reload(self) -> None:
        """Stop every worker in an orderly way and start a new one in its place."""
        for index, worker in self._running.items():
            self._reloading.add(index)
            worker.asked.set()
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def run(self) -> int:
        """Keep the workers running until `stop`, SIGTERM or SIGINT.

        Returns:
            0 after an orderly stop; else the status of the worker that could not start.
        """
        with self._signals():
            async with anyio.create_task_group() as group:
                for index in range(self._workers):
                    group.start_soon(self._keep, index, name=f"worker {index}")
        return self._status

    async def _keep(self, index: int) -> None:
        backoff = self._make_backoff()
        if index > 0:
            await self._others_may_start.wait()
        while not self._stop.is_set():
            began = time.monotonic()
            status = await self._run_worker(index)
            if self._stop.is_set():
                return
            if index in self._reloading:
                self._reloading.discard(index)
                continue
            if not self._ever_ready and not self._patient:
                self._status = status if status > 0 else 1
                self.stop(f"worker {index} could not start")
                return
            delay = backoff.delay_after(time.monotonic() - began)
            how = f"signal {-status}" if status < 0 else f"status {status}"
            if self._patient:
                logger.error("worker %d ended with %s; waiting for a change", index, how)
                delay = float("inf")
            else:
                logger.error("worker %d ended with %s; restart in %.1f s", index, how, delay)
            with anyio.move_on_after(delay):
                await self._changed.wait()

    async def _run_worker(self, index: int) -> int:
        ours, theirs = socket.socketpair()
        environ = {
            **self._environ,
            CHANNEL_VARIABLE: str(theirs.fileno()),
            COUNT_VARIABLE: str(self._workers),
        }
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    env=environ,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                )
            worker = self._running[index] = _Worker(process)
            if self._stop.is_set():
                worker.asked.set()
            logger.info("worker %d is process %d", index, process.pid)
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._hear, ours)
                    group.start_soon(self._stop_when_asked, index, worker)
                    status = await process.wait()
                    group.cancel_scope.cancel()
                # It may have been ready and gone before anybody listened.
                with suppress(OSError):
                    self._note_ready(ours.recv(1))
            except BaseException:
                _signal(process, signal.SIGKILL)
                with anyio.CancelScope(shield=True):
                    await process.wait()
                raise
            finally:
                del self._running[index]
        return status

    async def _hear(self, end: socket.socket) -> None:
        end.setblocking(False)
        with suppress(OSError):
            self._note_ready(await asyncio.get_running_loop().sock_recv(end, 1))

    def _note_ready(self, said: bytes) -> None:
        if said:
            self._ever_ready = True
            self._others_may_start.set()

    async def _stop_when_asked(self, index: int, worker: _Worker) -> None:
        await worker.asked.wait()
        process = worker.process
        _signal(process, signal.SIGTERM)
        await anyio.sleep(self._drain_timeout + _KILL_GRACE)
        logger.error("worker %d (process %d) did not stop; killing it", index, process.pid)
        _signal(process, signal.SIGKILL)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.stop, number.name)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
