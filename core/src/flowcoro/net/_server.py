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
from functools import partial
from typing import Any, Self

import anyio
import anyio.abc

from flowcoro._loop import Loop
from flowcoro.net._accept import RESOURCES, accept
from flowcoro.net._connection import Address, Connection, address_facts, check_context
from flowcoro.net._dial import check_endpoint, check_path, make_socket

__all__ = ["TcpServer", "UnixServer"]

logger = logging.getLogger("flowcoro.net")

Handler = Callable[[Connection], Awaitable[Any]]

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
        if handshake_timeout <= 0:
            raise ValueError(f"handshake_timeout must be above 0, not {handshake_timeout}")
        check_context(tls)
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._room = asyncio.Semaphore(max_connections) if max_connections is not None else None
        self._sockets: list[socket.socket] = []
        self._accepts: dict[socket.socket, asyncio.Task[socket.socket | Connection]] = {}
        self._serving: list[asyncio.Task[Any]] = []
        self._handlers: set[asyncio.Task[Any]] = set()
        self._scopes: dict[asyncio.Task[Any], anyio.CancelScope] = {}  # of those in a task group
        self._fresh: set[socket.socket] = set()  # of handlers that have not begun
        self._stopping: set[asyncio.Task[Any]] = set()
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
            TimeoutError: it took longer than `handshake_timeout`.
        """
        if self._serving:
            raise anyio.BusyResourceError("serving from")
        made = await self._accept_one()
        return made if isinstance(made, Connection) else await self._wrap(made)

    async def _accept_one(self) -> socket.socket | Connection:
        if self._stopped or not self._sockets:
            raise anyio.ClosedResourceError("the server does not listen")
        loop = asyncio.get_running_loop()
        while not self._stopped:
            # The waits outlive a caller that is cancelled: none loses a connection.
            for each in self._sockets:
                if each not in self._accepts:
                    self._accepts[each] = loop.create_task(self._take(each))
            await asyncio.wait(self._accepts.values(), return_when=asyncio.FIRST_COMPLETED)
            # Another caller may have been here first, and taken what came.
            for listening, task in list(self._accepts.items()):
                if not task.done():
                    continue
                del self._accepts[listening]
                if not task.cancelled():
                    self.accepted += task.exception() is None
                    return task.result()
        raise anyio.ClosedResourceError("the server was stopped")

    async def _take(self, listening: socket.socket) -> socket.socket | Connection:
        sock = await accept(listening)
        if self._tls is not None or isinstance(asyncio.get_running_loop(), Loop):
            return sock
        # Other loops' transports take a socket in a turn of its own, in which a caller that is
        # cancelled would lose it.
        return await self._wrap(sock)

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
        its connection only. Cancelled, it stops the server as `stop(drain=0)` does.

        Args:
            handler: called with each connection.
            task_group: where the handlers run; in tasks of the server's own when not given.

        Raises:
            anyio.ClosedResourceError: the server does not listen.
            anyio.BusyResourceError: it is serving already.
            TypeError: the handler cannot be called.
        """
        if not callable(handler):
            raise TypeError(f"a handler is called with each connection, and {handler!r} cannot be")
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
            self._serving = []
            if not self._stopped:
                # Also in a scope of anyio's that was cancelled, where nothing else may wait.
                with anyio.CancelScope(shield=True):
                    await self._stop(tasks, 0)

    async def _serve_one(
        self,
        listening: socket.socket,
        handler: Handler,
        task_group: anyio.abc.TaskGroup | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        delay = _FIRST_DELAY
        while True:
            await self._wait_for_room()
            try:
                sock = await accept(listening)
            except OSError as error:
                if error.errno not in RESOURCES:
                    raise
                logger.error("cannot accept connections for now: %s", error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LAST_DELAY)
                continue
            delay = _FIRST_DELAY
            self.accepted += 1
            await self._enter_room(sock)
            self._fresh.add(sock)
            if task_group is not None:
                task_group.start_soon(self._handle_in_group, sock, handler)
            else:
                task = loop.create_task(self._handle(sock, handler))
                self._handlers.add(task)
                # By a callback: one that is cancelled before it begins has no `finally`.
                task.add_done_callback(partial(self._leave, sock))

    async def _wait_for_room(self) -> None:
        """Wait for room, without taking it: another socket may have the next connection."""
        if self._room is not None:
            async with self._room:
                pass

    async def _enter_room(self, sock: socket.socket) -> None:
        if self._room is not None:
            try:
                await self._room.acquire()
            except BaseException:
                sock.close()
                raise

    def _leave(self, sock: socket.socket, task: asyncio.Task[Any]) -> None:
        self._handlers.discard(task)
        if sock in self._fresh:
            self._fresh.discard(sock)
            sock.close()
        if self._room is not None:
            self._room.release()

    async def _handle_in_group(self, sock: socket.socket, handler: Handler) -> None:
        task = _this_task()
        self._handlers.add(task)
        try:
            # A task that is cancelled otherwise would take the whole group along.
            with anyio.CancelScope() as self._scopes[task]:
                await self._handle(sock, handler)
        finally:
            del self._scopes[task]
            self._leave(sock, task)

    async def _handle(self, sock: socket.socket, handler: Handler) -> None:
        self._fresh.discard(sock)
        try:
            connection = await self._wrap(sock)
        except (OSError, anyio.BrokenResourceError) as error:
            logger.debug("a connection ended in its handshake: %s", error)
            return
        try:
            await handler(connection)
            await connection.close()
        except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
            logger.debug("%r ended: %s", connection, error)
        except Exception:
            logger.exception("the handler of %r failed", connection)
        finally:
            connection.abort()

    async def stop(self, drain: float | None = 10.0) -> None:
        """Stop listening, and wait for the handlers that run.

        Args:
            drain: seconds after which they are cancelled, and their connections closed; None to
                wait for as long as they take.
        """
        await self._stop(self._serving, drain)

    async def _stop(self, serving: list[asyncio.Task[Any]], drain: float | None) -> None:
        self._stopped = True
        sockets, self._sockets = self._sockets, []
        if sockets:
            # A task of its own, so that who is cancelled leaves nothing open.
            await asyncio.shield(asyncio.create_task(self._end_listening(sockets, serving)))
        await self._drain(drain)

    async def _end_listening(
        self, sockets: list[socket.socket], serving: list[asyncio.Task[Any]]
    ) -> None:
        accepts = [*self._accepts.values()]
        self._accepts.clear()
        for task in (*accepts, *serving):
            task.cancel()
        for result in await asyncio.gather(*accepts, *serving, return_exceptions=True):
            if isinstance(result, socket.socket):
                result.close()
            elif isinstance(result, Connection):
                result.abort()
        for each in sockets:
            self._close_socket(each)

    async def _drain(self, seconds: float | None) -> None:
        # Handlers may stop their server, and must not wait for themselves, nor for each other.
        own = _this_task()
        self._stopping.add(own)
        others = self._handlers - self._stopping
        try:
            if others:
                await asyncio.wait(others, timeout=seconds)
        finally:
            self._stopping.discard(own)
            for each in others:
                (self._scopes.get(each) or each).cancel()
        if others:
            await asyncio.wait(others)

    async def aclose(self) -> None:
        """The same as `stop`, without waiting for the handlers."""
        await self.stop(drain=0)

    def _close_socket(self, sock: socket.socket) -> None:
        sock.close()

    async def __aenter__(self) -> Self:
        return self

    @property
    def extra_attributes(self) -> dict[Any, Callable[[], Any]]:
        """Typed attributes of anyio: of the first address."""
        facts = address_facts(self.addresses[0] if self._sockets else None, None)
        del facts[anyio.abc.SocketAttribute.remote_address]
        return facts


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("no task is running")
    return task


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
        """The port of the first address.

        Raises:
            anyio.ClosedResourceError: it does not listen, not yet or not any more.
        """
        if not self.addresses:
            raise anyio.ClosedResourceError("the server does not listen: it has no port")
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
            ValueError: the port is out of range, or a host has a NUL.
        """
        if self._sockets or self._stopped:
            raise RuntimeError("the server listens already, or was stopped")
        hosts = [host] if host is None or isinstance(host, str) else list(host)
        loop = asyncio.get_running_loop()
        for each in hosts:
            check_endpoint("" if each is None else each, port)
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
            raise OSError(errno.EADDRNOTAVAIL, f"{host!r} has no address to listen at")
        self._sockets = made


class _NoSuchFamilyError(Exception):
    """This machine has none of these sockets, such as without IPv6."""


def _listen(
    family: int, kind: int, protocol: int, address: Any, backlog: int, reuse_port: bool
) -> socket.socket:
    try:
        sock = make_socket(family, kind, protocol)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
            raise
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
        if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL and address[0] == "::":
            raise _NoSuchFamilyError from error  # IPv6 is switched off
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
        """Listen at a path; a socket that is left over there, with nobody behind, is replaced.

        Args:
            path: where; the file is removed when the server stops.
            backlog: how many connections may wait to be accepted.
            mode: permissions of the file, such as 0o600; the process's own when not given.

        Raises:
            OSError: the path cannot be had, such as since somebody listens there.
            ValueError: the path has a NUL, but for that of an abstract name.
            RuntimeError: it listens already, or was stopped.
        """
        if self._sockets or self._stopped:
            raise RuntimeError("the server listens already, or was stopped")
        name = check_path(path)
        if name[0] != "\0":  # abstract (Linux): no file
            _remove_left_over(name)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(name)
            with suppress(OSError, ValueError):
                self._file = _which(name)
            if mode is not None and name[0] != "\0":
                os.chmod(name, mode)
            sock.listen(backlog)
        except OSError as error:
            self._close_socket(sock)
            # Python's own, such as of a path that is too long, have no number.
            number = errno.ENAMETOOLONG if error.errno is None else error.errno
            raise OSError(number, error.strerror or str(error), name) from error
        except BaseException:
            self._close_socket(sock)
            raise
        self._sockets = [sock]

    _file: tuple[str, int, int] | None = None

    def _close_socket(self, sock: socket.socket) -> None:
        sock.close()
        if self._file is not None:
            name = self._file[0]
            with suppress(OSError):
                if _which(name) == self._file:  # another server may have replaced it
                    os.remove(name)
            self._file = None


def _remove_left_over(name: str) -> None:
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if not stat.S_ISSOCK(os.stat(name).st_mode):
            return
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:  # nobody; whoever else is there keeps it, and bind tells
            os.remove(name)


def _which(name: str) -> tuple[str, int, int]:
    found = os.stat(name)
    return os.path.abspath(name), found.st_dev, found.st_ino
