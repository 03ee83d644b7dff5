"""One connection through a fault proxy, and what all of a proxy's connections share.

Each connection has a task, and each of its directions one inside that. The task's end closes both
sockets, in a callback, so that it happens even to a task that was cancelled before it began.
Nothing is awaited between taking a socket and handing it to its keeper.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from flowcoro.testing._faults import PIECE, Faults, Flow
from flowcoro.testing._sockets import Target, close, connect

__all__ = ["Board", "Direction", "Link", "ProxyStats"]

Direction = Literal["upstream", "downstream"]

_PASS = Faults()


@dataclass(frozen=True, slots=True)
class ProxyStats:
    """What a `FaultProxy` has done so far.

    Attributes:
        accepted: connections that came, refused ones not being among them.
        open: those of them that are not over.
        failed: those whose target could not be reached; they were reset.
        cut: how often `Faults.cut_after` ended one, or one direction of it.
        upstream: bytes that went from clients to the target.
        downstream: bytes that went from the target to clients.
    """

    accepted: int = 0
    open: int = 0
    failed: int = 0
    cut: int = 0
    upstream: int = 0
    downstream: int = 0


class Board:
    """What all connections of a proxy share: what to do, and what was done.

    Attributes:
        target: what they are connected to.
        faults: what happens to each direction.
        links: the connections that are open.
        accepted: see `ProxyStats`, as for the following.
        failed: how many had no target.
        cut: how many cuts there were.
        passed: bytes that went each way.
    """

    def __init__(self, target: Target, upstream: Faults, downstream: Faults) -> None:
        self.target = target
        self.faults: dict[Direction, Faults] = {"upstream": upstream, "downstream": downstream}
        self.links: set[Link] = set()
        self.accepted = 0
        self.failed = 0
        self.cut = 0
        self.passed: dict[Direction, int] = {"upstream": 0, "downstream": 0}
        self._waiters: set[asyncio.Future[None]] = set()

    def stats(self) -> ProxyStats:
        """Tell what was done so far."""
        return ProxyStats(
            accepted=self.accepted,
            open=len(self.links),
            failed=self.failed,
            cut=self.cut,
            upstream=self.passed["upstream"],
            downstream=self.passed["downstream"],
        )

    def tell(self) -> None:
        """Wake all that wait for a change."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self) -> None:
        """Wait for the next change of what to do, or of what was done."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class _Over(Exception):  # noqa: N818 - an end, and no error of anybody's
    """The connection is to end; its `reset` says how."""


class Link:
    """One connection: it keeps the client's socket, and gets that of the target.

    Args:
        board: what it shares with the others.
        client: the socket, which it will close.
        silent: connect it to nothing, and never answer.

    Attributes:
        task: is done when both sockets are closed.
    """

    def __init__(self, board: Board, client: socket.socket, *, silent: bool) -> None:
        self._board = board
        self._client = client
        self._target: socket.socket | None = None
        self._number = board.accepted
        self._reset = False
        self._flows: dict[Direction, Flow] = {"upstream": Flow(), "downstream": Flow()}
        board.links.add(self)
        self.task = asyncio.get_running_loop().create_task(
            self._ignore() if silent else self._forward(),
            name=f"fault proxy: connection {self._number}",
        )
        self.task.add_done_callback(self._close)

    def end(self, *, reset: bool) -> None:
        """Begin to end it; once it does so, it is not for another call to say how."""
        if not self.task.cancelling():
            self._reset = reset
        self.task.cancel()

    def faults_changed(self) -> None:
        """Cut it, should it be past the place where that is now done."""
        if self._target is None:
            return
        for direction, flow in self._flows.items():
            faults = self._faults(direction)
            if flow.is_cut(faults) and not flow.severed:
                self._cut(direction, faults)
                if faults.cut != "half":
                    self.task.cancel()
                    return

    def _close(self, task: asyncio.Task[None]) -> None:
        for each in (self._client, self._target):
            if each is not None:
                close(each, reset=self._reset)
        self._board.links.discard(self)
        self._board.tell()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # the loop tells of it

    async def _ignore(self) -> None:
        data = b"something"
        with suppress(OSError):
            while data:
                data = await asyncio.get_running_loop().sock_recv(self._client, PIECE)
                await asyncio.sleep(0)  # the call need not have waited

    async def _forward(self) -> None:
        try:
            self._target = await connect(self._board.target)
        except OSError:
            self._board.failed += 1
            self._reset = True
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump("upstream", self._client, self._target))
                group.create_task(self._pump("downstream", self._target, self._client))
        except* _Over:
            pass

    async def _pump(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        """Carry one direction to its end."""
        loop = asyncio.get_running_loop()
        flow = self._flows[direction]
        try:
            self._cut_if_due(direction)
            while True:
                await self._running(direction)
                data = await loop.sock_recv(source, PIECE)
                await self._running(direction)
                if not data:
                    break
                await self._carry(direction, memoryview(data), sink)
                await asyncio.sleep(0)  # neither call need have waited
        except OSError:
            # What one side suffers, so does the other.
            self._reset = True
            raise _Over from None
        if not self._faults(direction).discard and not flow.severed:
            self._finish(sink)

    async def _carry(self, direction: Direction, data: memoryview, sink: socket.socket) -> None:
        """Carry one piece, as the faults of the moment have it."""
        flow = self._flows[direction]
        await asyncio.sleep(self._faults(direction).lag(flow.offset))
        while data:
            await self._running(direction)
            if flow.severed:
                break
            faults = self._faults(direction)
            chunk = flow.take(data, faults)
            data = data[len(chunk) :]
            if not faults.discard:
                await self._send(direction, chunk, sink)
            self._cut_if_due(direction)
            await asyncio.sleep(faults.gap(len(chunk)))

    async def _send(self, direction: Direction, chunk: bytes, sink: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(sink, chunk)
        except OSError:
            if self._flows[direction].severed:
                return  # a cut came in between
            raise
        self._board.passed[direction] += len(chunk)
        self._board.tell()

    async def _running(self, direction: Direction) -> None:
        while self._faults(direction).stall:
            await self._board.changed()

    def _faults(self, direction: Direction) -> Faults:
        faults = self._board.faults[direction]
        return faults if faults.only is None or self._number in faults.only else _PASS

    def _cut_if_due(self, direction: Direction) -> None:
        faults = self._faults(direction)
        flow = self._flows[direction]
        if flow.is_cut(faults) and not flow.severed:
            self._cut(direction, faults)
            if faults.cut != "half":
                raise _Over

    def _cut(self, direction: Direction, faults: Faults) -> None:
        self._flows[direction].severed = True
        self._board.cut += 1
        self._board.tell()
        if faults.cut == "half":
            self._finish(self._client if direction == "downstream" else self._target)
        else:
            self._reset = faults.cut == "reset"

    def _finish(self, sink: socket.socket | None) -> None:
        """Send FIN one way."""
        if sink is not None:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
