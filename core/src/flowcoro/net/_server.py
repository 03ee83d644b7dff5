"""Servers: what listens, and hands each connection to a handler."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import anyio
import anyio.abc

from flowcoro.net._connection import Address, Connection

__all__ = ["TcpServer", "UnixServer"]

logger = logging.getLogger("flowcoro.net")

Handler = Callable[[Connection], Awaitable[Any]]

# accept(2): for lack of these it is tried again; what is wrong with one connection is passed over.
_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_FIRST_DELAY, _LAST_DELAY = 0.05, 1.0


class _Server(anyio.abc.Listener[Connection]):
    """What servers of all families have in common."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        handshake_timeout: float = 60.0,
        max_connections: int | None = None,
    ) -> None:
        if max_connections is not None and max_connections < 1:
            raise ValueError(f"max_connections must be at least 1, not {max_connections}")
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._room = asyncio.Semaphore(max_connections) if max_connections is not None else None
        self._sockets: list[socket.socket] = []
        self._accepts: dict[socket.socket, asyncio.Task[socket.socket]] = {}
        self._serving: list[asyncio.Task[Any]] = []
        self._handlers: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = False
        self.accepted = 0
        """How many connections came so far."""

    @property
    def addresses(self) -> list[Address]:
        """Where it listens."""
        return [each.getsockname() for each in self._sockets]

    @property
    def connections(self) -> int:
        """How many connections `serve` has with handlers now."""
        return len(self._handlers)

    async def accept(self) -> Connection:
        """Wait for a connection, and with TLS for its handshake.

        Where a peer that is slow at its handshake must not hold up the others, use `serve`.

        Raises:
            anyio.ClosedResourceError: the server was stopped, or does not listen.
            anyio.BusyResourceError: `serve` is accepting.
            OSError: what accept(2) raised, such as for lack of descriptors.
            ssl.SSLError: the handshake failed.
        """
        if self._serving:
            raise anyio.BusyResourceError("serving from")
        return await self._wrap(await self._accept_one())

    async def _accept_one(self) -> socket.socket:
        if self._stopped or not self._sockets:
            raise anyio.ClosedResourceError("the server does not listen")
        loop = asyncio.get_running_loop()
        # The waits outlive a caller that is cancelled: none loses a connection.
        for each in self._sockets:
            if each not in self._accepts:
                self._accepts[each] = loop.create_task(_accept(each))
        done, _ = await asyncio.wait(self._accepts.values(), return_when=asyncio.FIRST_COMPLETED)
        for listening, task in list(self._accepts.items()):
            if task in done:
                del self._accepts[listening]
                if task.cancelled():
                    raise anyio.ClosedResourceError("the server was stopped")
                self.accepted += task.exception() is None
                return task.result()
        raise anyio.ClosedResourceError("the server was stopped")

    async def _wrap(self, sock: socket.socket) -> Connection:
        return await Connection._over(
            sock,
            self._tls,
            server_side=True,
            handshake_timeout=self._handshake_timeout if self._tls is not None else None,
        )

    async def serve(self, handler: Handler, task_group: anyio.abc.TaskGroup | None = None) -> None:
        """Accept connections and have each handled by a task, until `stop` is called.

        A connection is closed when its handler returns. What a handler raises is logged, and ends
        its connection only.

        Args:
            handler: called with each connection.
            task_group: where the handlers run; in tasks of the server's own when not given.

        Raises:
            anyio.ClosedResourceError: the server does not listen.
            anyio.BusyResourceError: it is serving already.
        """
        if self._stopped or not self._sockets:
            raise anyio.ClosedResourceError("the server does not listen")
        if self._serving:
            raise anyio.BusyResourceError("serving from")
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(self._serve_one(each, handler, task_group)) for each in self._sockets
        ]
        self._serving = tasks
        try:
            await asyncio.wait(tasks)
            for each in tasks:
                if not each.cancelled():
                    each.result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._serving = []
            if not self._stopped:
                await self.stop()

    async def _serve_one(
        self,
        listening: socket.socket,
        handler: Handler,
        task_group: anyio.abc.TaskGroup | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        delay = _FIRST_DELAY
        while True:
            if self._room is not None:
                await self._room.acquire()
            try:
                sock = await _accept(listening)
            except OSError as error:
                self._leave_room()
                if error.errno not in _RESOURCES:
                    raise
                logger.error("cannot accept connections for now: %s", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LAST_DELAY)
                continue
            except BaseException:
                self._leave_room()
                raise
            delay = _FIRST_DELAY
            self.accepted += 1
            if task_group is not None:
                task_group.start_soon(self._handle_in_group, sock, handler)
            else:
                self._add(loop.create_task(self._handle(sock, handler)))

    def _leave_room(self) -> None:
        if self._room is not None:
            self._room.release()

    def _add(self, task: asyncio.Task[Any]) -> None:
        self._handlers.add(task)
        self._idle.clear()
        task.add_done_callback(self._drop)

    def _drop(self, task: asyncio.Task[Any]) -> None:
        self._handlers.discard(task)
        if not self._handlers:
            self._idle.set()

    async def _handle_in_group(self, sock: socket.socket, handler: Handler) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._add(task)
        await self._handle(sock, handler)

    async def _handle(self, sock: socket.socket, handler: Handler) -> None:
        try:
            connection = await self._wrap(sock)
        except (OSError, anyio.BrokenResourceError) as error:
            logger.debug("a connection ended in its handshake: %s", error)
            self._leave_room()
            return
        except BaseException:
            sock.close()
            self._leave_room()
            raise
        try:
            await handler(connection)
            await connection.close()
        except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
            logger.debug("%r ended: %s", connection, error)
        except Exception:
            logger.exception("the handler of %r failed", connection)
        finally:
            connection.abort()
            self._leave_room()

    async def stop(self, drain: float | None = 10.0) -> None:
        """Stop listening, and wait for the handlers that run.

        Args:
            drain: seconds after which they are cancelled, and their connections closed; None to
                wait for as long as they take.
        """
        self._stopped = True
        accepts: list[asyncio.Task[Any]] = [*self._accepts.values(), *self._serving]
        for task in accepts:
            task.cancel()
        for result in await asyncio.gather(*self._accepts.values(), return_exceptions=True):
            if isinstance(result, socket.socket):
                result.close()
        self._accepts.clear()
        for listening in self._sockets:
            self._close_socket(listening)
        self._sockets = []
        own = asyncio.current_task()  # a handler may stop its server
        others = [each for each in self._handlers if each is not own]
        if others:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain):
                    await asyncio.wait(others)
            for each in others:
                each.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def aclose(self) -> None:
        """The same as `stop`, without waiting for the handlers."""
        await self.stop(drain=0)

    def _close_socket(self, sock: socket.socket) -> None:
        sock.close()

    async def __aenter__(self) -> Self:
        return self

    @property
    def extra_attributes(self) -> dict[Any, Callable[[], Any]]:
        """Typed attributes of anyio: the first address."""
        return {anyio.abc.SocketAttribute.local_address: lambda: self.addresses[0]}


async def _accept(listening: socket.socket) -> socket.socket:
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock, _ = await loop.sock_accept(listening)
        except (ConnectionError, PermissionError, InterruptedError):
            continue  # that connection is gone, or forbidden; the next one may not be
        return sock


class TcpServer(_Server):
    """Listens for TCP connections, with or without TLS.

    Args:
        tls: a context with the server's certificate.
        handshake_timeout: seconds that a TLS handshake may take.
        max_connections: how many `serve` handles at a time; more wait to be accepted.

    Raises:
        ValueError: `max_connections` is below 1.
    """

    @property
    def port(self) -> int:
        """The port of the first address."""
        return int(self.addresses[0][1])

    async def bind_and_listen(
        self,
        host: str | Sequence[str] | None = None,
        port: int = 0,
        *,
        backlog: int = 4096,
        reuse_port: bool = False,
    ) -> None:
        """Listen at a port of one or more addresses.

        Args:
            host: names or addresses of this machine; all of its addresses when not given.
            port: 0 for any that is free; the same one at every address.
            backlog: how many connections may wait to be accepted.
            reuse_port: whether other sockets may share the port, each with its part of the
                connections (SO_REUSEPORT).

        Raises:
            OSError: an address cannot be had; then it listens at none.
            RuntimeError: it listens already, or was stopped.
        """
        if self._sockets or self._stopped:
            raise RuntimeError("the server listens already, or was stopped")
        hosts = [host] if host is None or isinstance(host, str) else list(host)
        loop = asyncio.get_running_loop()
        found: dict[Any, None] = {}
        for each in hosts:
            for info in await loop.getaddrinfo(
                each, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                found[info] = None
        made: list[socket.socket] = []
        try:
            for family, kind, protocol, _, address in found:
                chosen = made[0].getsockname()[1] if made and port == 0 else address[1]
                there = (address[0], chosen, *address[2:])
                with suppress(_NoSuchFamilyError):
                    made.append(_listen(family, kind, protocol, there, backlog, reuse_port))
        except BaseException:
            for sock in made:
                sock.close()
            raise
        if not made:
            raise OSError(f"{host!r} has no address to listen at")
        self._sockets = made


class _NoSuchFamilyError(Exception):
    """This machine has none of these sockets, such as without IPv6."""


def _listen(
    family: int, kind: int, protocol: int, address: Any, backlog: int, reuse_port: bool
) -> socket.socket:
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _NoSuchFamilyError from error
    try:
        sock.setblocking(False)
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen at {address}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return sock


class UnixServer(_Server):
    """Listens at a Unix socket; see `TcpServer` for its arguments."""

    async def bind_and_listen(
        self, path: str | os.PathLike[str], *, backlog: int = 4096, mode: int | None = None
    ) -> None:
        """Listen at a path; a socket that is left over there is replaced.

        Args:
            path: where; the file is removed when the server stops.
            backlog: how many connections may wait to be accepted.
            mode: permissions of the file, such as 0o600; the process's own when not given.

        Raises:
            OSError: the path cannot be had.
            RuntimeError: it listens already, or was stopped.
        """
        if self._sockets or self._stopped:
            raise RuntimeError("the server listens already, or was stopped")
        name = os.fspath(path)
        with suppress(OSError):
            if stat.S_ISSOCK(os.stat(name).st_mode):
                os.remove(name)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(name)
            if mode is not None:
                os.chmod(name, mode)
            sock.listen(backlog)
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"{error.strerror}: {name!r}", name) from error
        self._sockets = [sock]

    def _close_socket(self, sock: socket.socket) -> None:
        name = sock.getsockname()
        sock.close()
        with suppress(OSError):
            os.remove(name)
