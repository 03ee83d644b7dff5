"""`FaultProxy`: a TCP proxy that does to a connection what networks and peers do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Literal, get_args

from flowcoro.testing._faults import Faults
from flowcoro.testing._links import Board, Direction, Link, ProxyStats
from flowcoro.testing._sockets import Acceptor, Target, close

__all__ = ["AcceptMode", "FaultProxy"]

AcceptMode = Literal["forward", "silent", "reset", "refuse"]
"""What becomes of new connections: `forward` connects them to the target; `silent` accepts them
and answers nothing, ever; `reset` accepts them and sends RST; `refuse` does not listen."""

_PASS = Faults()


class FaultProxy:
    """A TCP proxy on loopback between a client under test and its server.

    An asynchronous context manager: it listens inside, and at the end all its connections are
    closed and its tasks are over. What it does may be changed at any time, for connections that
    are open too, by setting `upstream` and `downstream` and by `set_accept`.

    Args:
        target: host and port that it connects to, or the path of a Unix socket. It is connected to
            for each connection anew.
        upstream: what happens to the bytes from the client to the target.
        downstream: what happens to the bytes from the target to the client.
        accept: what becomes of new connections.

    Example:
        ```python
        async with FaultProxy(("127.0.0.1", 5432)) as proxy:
            proxy.downstream = Faults(cut_after=100, cut="reset")
            reader, writer = await asyncio.open_connection(*proxy.address)
        ```
    """

    def __init__(
        self,
        target: Target,
        *,
        upstream: Faults = _PASS,
        downstream: Faults = _PASS,
        accept: AcceptMode = "forward",
    ) -> None:
        self._board = Board(target, upstream, downstream)
        self._mode = _checked(accept)
        self._port: int | None = None
        self._acceptor: Acceptor | None = None

    async def __aenter__(self) -> FaultProxy:
        if self._port is not None:
            raise RuntimeError("a FaultProxy is entered once")
        self._acceptor = Acceptor(0, self._came)
        self._port = self._acceptor.port
        self.set_accept(self._mode)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        acceptor = self._acceptor
        self._stop_listening()
        await self.drop_all()
        if acceptor is not None and acceptor.task is not None:
            await asyncio.wait((acceptor.task,))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port where it listens; the port stays the same.

        Raises:
            RuntimeError: It has not been entered.
        """
        if self._port is None:
            raise RuntimeError("a FaultProxy listens inside `async with`")
        return "127.0.0.1", self._port

    @property
    def host(self) -> str:
        """Where it listens."""
        return self.address[0]

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.address[1]

    @property
    def upstream(self) -> Faults:
        """What happens to the bytes from clients to the target, from the next one on.

        Set to a `cut_after` that a connection is already past, it cuts that at once.
        """
        return self._board.faults["upstream"]

    @upstream.setter
    def upstream(self, faults: Faults) -> None:
        self._set_faults("upstream", faults)

    @property
    def downstream(self) -> Faults:
        """What happens to the bytes from the target to clients; see `upstream`."""
        return self._board.faults["downstream"]

    @downstream.setter
    def downstream(self, faults: Faults) -> None:
        self._set_faults("downstream", faults)

    @property
    def stats(self) -> ProxyStats:
        """What it has done so far."""
        return self._board.stats()

    def set_accept(self, mode: AcceptMode) -> None:
        """Say what becomes of connections that come from now on.

        Raises:
            OSError: It refused, and somebody else has taken the port meanwhile.
            ValueError: There is no such mode.
        """
        self._mode = _checked(mode)
        if mode == "refuse":
            self._stop_listening()
        elif self._acceptor is None and self._port is not None:
            self._acceptor = Acceptor(self._port, self._came)

    async def drop_all(self, *, reset: bool = False) -> int:
        """End all connections that are open.

        Args:
            reset: by RST; otherwise by FIN, as a process that ends would.

        Returns:
            How many there were. Their sockets are closed when this returns.
        """
        links = list(self._board.links)
        for link in links:
            link.end(reset=reset)
        if links:
            await asyncio.wait([link.task for link in links])
        return len(links)

    async def until(
        self, predicate: Callable[[ProxyStats], bool], *, deadline: float = 10.0
    ) -> ProxyStats:
        """Wait until what it has done is as the predicate wants it.

        Args:
            predicate: asked now and after each change.
            deadline: how many seconds that may take.

        Returns:
            What it has done by then.

        Raises:
            TimeoutError: It took longer.
        """
        async with asyncio.timeout(deadline):
            while not predicate(stats := self.stats):
                await self._board.changed()
        return stats

    def _set_faults(self, direction: Direction, faults: Faults) -> None:
        self._board.faults[direction] = faults
        for link in list(self._board.links):
            link.faults_changed()
        self._board.tell()

    def _stop_listening(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None

    def _came(self, client: socket.socket) -> None:
        self._board.accepted += 1
        if self._mode == "reset":
            close(client, reset=True)
        else:
            Link(self._board, client, silent=self._mode == "silent")
        self._board.tell()


def _checked(mode: AcceptMode) -> AcceptMode:
    if mode not in get_args(AcceptMode):
        raise ValueError(f"no such mode: {mode!r}; there are {', '.join(get_args(AcceptMode))}")
    return mode
