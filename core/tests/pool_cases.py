"""What the tests of `ConnectionPool` share: virtual time, and a peer to connect to."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from flowcoro.net import ConnectionPool

__all__ = ["Connection", "Peer", "VirtualLoop", "check_invariants", "in_virtual_time", "turns"]

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's loop; where it would wait for a timer, it is that time at once."""

    def __init__(self) -> None:
        super().__init__(_NeverWaits(self))
        self.now = 1000.0
        self.turn = 0
        self.each_turn: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self.now


class _NeverWaits(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        self._loop.turn += 1
        self._loop.each_turn()
        if timeout is None and not ready:
            raise RuntimeError("nothing will ever happen: the test hangs")
        if timeout and not ready:
            self._loop.now += timeout
        return ready


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def turns(count: int = 12) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


class Connection:
    def __init__(self, peer: Peer, number: int) -> None:
        self.peer = peer
        self.number = number
        self.users = 0
        self.closes = 0

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:  # pools must not compare
        raise AssertionError("a connection was compared")

    def __repr__(self) -> str:
        return f"<connection {self.number}>"

    async def aclose(self) -> None:
        self.closes += 1
        self.peer.open -= 1
        await self.peer.pause("close")


class Peer:
    """Counts what is opened and closed; `pause` says how long each step takes."""

    def __init__(self) -> None:
        self.opened = 0
        self.open = 0
        self.most = 0
        self.connects = 0
        self.checks = 0
        self.fail: list[BaseException] = []
        self.dead: set[int] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self.delay: Callable[[str], float] = lambda step: 0.0
        self.connections: list[Connection] = []

    async def pause(self, step: str) -> None:
        if gate := self.gates.get(step):
            await gate.wait()
        await asyncio.sleep(self.delay(step))

    async def connect(self) -> Connection:
        self.connects += 1
        self.open += 1  # an attempt takes a place at the peer, too
        self.most = max(self.most, self.open)
        connection = None
        try:
            await self.pause("connect")
            if self.fail:
                raise self.fail.pop(0)
            connection = Connection(self, self.opened)
            self.opened += 1
            self.connections.append(connection)
        finally:
            if connection is None:
                self.open -= 1
        return connection

    async def check(self, connection: Connection) -> bool:
        self.checks += 1
        await self.pause("check")
        return connection.number not in self.dead


def check_invariants(pool: ConnectionPool[Connection], peer: Peer) -> None:
    stats = pool.stats()
    parts = stats.idle + stats.borrowed + stats.connecting + stats.checking + stats.closing
    assert stats.size == parts <= stats.max_size
    assert stats.opened - stats.closed == stats.size - stats.connecting
    assert peer.most <= stats.max_size
    assert all(connection.closes <= 1 for connection in peer.connections)
