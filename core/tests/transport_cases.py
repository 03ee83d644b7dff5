"""What the tests of the native loop's transports share: a protocol that notes, and a peer."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from flowcoro._loop import Loop

__all__ = [
    "DEADLINE",
    "BufferedRecorder",
    "Recorder",
    "connect",
    "descriptors",
    "errors_of",
    "loop_of",
    "tcp_pair",
    "turns",
    "until",
]

T = TypeVar("T", bound=asyncio.BaseProtocol)
DEADLINE = 30.0


class _Notes:
    """Notes what is called, and does in it what a test wants done."""

    transport: asyncio.Transport

    def __init__(self, **actions: Callable[[Any], object]) -> None:
        self.calls: list[str] = []
        self.actions = actions
        self.data = bytearray()
        self.error: BaseException | None = None
        self.forbidden = False  # data, while it is set

    def note(self, name: str) -> Any:
        self.calls.append(name)
        action = self.actions.get(name)
        return action(self) if action is not None else None

    @property
    def lost(self) -> bool:
        return "connection_lost" in self.calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.note("connection_made")

    def take(self, data: bytes | memoryview) -> None:
        assert not self.forbidden, "data in a pause"
        assert not self.lost
        self.data += data

    def eof_received(self) -> bool | None:
        return cast("bool | None", self.note("eof_received"))

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.error = exc
        self.note("connection_lost")


class Recorder(_Notes, asyncio.Protocol):
    """A protocol that is handed its data."""

    def data_received(self, data: bytes) -> None:
        self.take(data)
        self.note("data_received")


class BufferedRecorder(_Notes, asyncio.BufferedProtocol):
    """A protocol that has a buffer of its own, of this many bytes."""

    size = 7

    def get_buffer(self, sizehint: int) -> memoryview:
        self.note("get_buffer")
        self.buffer = memoryview(bytearray(self.size))
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.take(self.buffer[:nbytes])
        self.note("buffer_updated")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection, whose second waits for a while at most."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    left.setblocking(False)
    right.settimeout(DEADLINE)
    return left, right


@contextmanager
def connect(loop: Loop, protocol: T) -> Iterator[tuple[T, socket.socket]]:
    """Yield a connected protocol and the socket of its peer."""
    mine, peer = tcp_pair()
    with peer:
        loop.run_until_complete(loop.create_connection(lambda: protocol, sock=mine))
        try:
            yield protocol, peer
        finally:
            transport = getattr(protocol, "transport", None)
            if transport is not None and not loop.is_closed():
                transport.abort()
                until(loop, lambda: transport._sock is None)


@contextmanager
def loop_of(reactor: str) -> Iterator[Loop]:
    """Yield a loop that leaves no threads."""
    loop = Loop(reactor)
    try:
        yield loop
    finally:
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


def turns(loop: Loop, count: int = 20) -> None:
    """Turn the loop a few times."""

    async def wait() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    loop.run_until_complete(wait())


def until(loop: Loop, condition: Callable[[], object]) -> None:
    """Turn the loop until something is so."""

    async def wait() -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 -- of what is no event
                await asyncio.sleep(0)

    loop.run_until_complete(wait())


@contextmanager
def errors_of(loop: Loop) -> Iterator[list[dict[str, Any]]]:
    """Yield what the loop's exception handler is told."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    try:
        yield told
    finally:
        loop.set_exception_handler(None)


def descriptors() -> int:
    """Count what is open, when garbage is gone."""
    gc.collect()
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
