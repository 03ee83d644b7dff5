"""Connections that this side opens."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Self

from flowcoro.net._connection import Connection, check_context
from flowcoro.net._dial import check_address, check_path, check_timeout, dial

__all__ = ["TcpClient", "UnixClient"]

_RETRY = 0.01  # seconds until a Unix server with a full backlog is tried again


def _context(tls: ssl.SSLContext | bool) -> ssl.SSLContext | None:
    if isinstance(tls, bool):
        return ssl.create_default_context() if tls else None
    check_context(tls)
    return tls


class TcpClient(Connection):
    """A connection over TCP, with or without TLS, to a host."""

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | bool = False,
        timeout: float | None = 30.0,
        server_hostname: str | None = None,
        local_address: tuple[str, int] | None = None,
    ) -> Self:
        """Connect to a host, by the first of its addresses that answers (RFC 8305).

        Args:
            host: its name or address.
            port: its port.
            tls: True for TLS with the system's certificate authorities, or a context.
            timeout: seconds for all of it, the TLS handshake included; None to wait for ever.
            server_hostname: the name that the certificate must have, when it is not `host`.
            local_address: host and port to connect from.

        Raises:
            TimeoutError: it took longer than `timeout`.
            OSError: no address of the host answered, or it has none.
            ssl.SSLError: the TLS handshake failed.
            TypeError: one of the arguments is nothing that could be meant.
            ValueError: the port is out of range, the host has a NUL, the timeout is negative, or
                `server_hostname` is given without `tls`.
        """
        context = _context(tls)
        check_timeout(timeout)
        check_address(local_address, "local_address")
        if server_hostname is not None and context is None:
            raise ValueError("server_hostname is for TLS, and there is none")
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                sock = await dial(host, port, local_address=local_address)
                return await cls._over(sock, context, server_hostname=server_hostname or host)
        except TimeoutError as error:
            if not limit.expired():
                raise  # the kernel's own
            raise TimeoutError(
                f"connecting to {host} port {port} took more than {timeout} seconds"
            ) from error


class UnixClient(Connection):
    """A connection over a Unix socket."""

    @classmethod
    async def connect(
        cls,
        path: str | os.PathLike[str],
        *,
        tls: ssl.SSLContext | None = None,
        timeout: float | None = 30.0,
        server_hostname: str | None = None,
    ) -> Self:
        """Connect to the Unix socket at a path.

        Args:
            path: where it is.
            tls: a context, for TLS over it.
            timeout: seconds for all of it; None to wait for ever.
            server_hostname: with TLS, the name that the certificate must have.

        Raises:
            TimeoutError: it took longer than `timeout`.
            OSError: there is no socket, or nobody listens.
            ssl.SSLError: the TLS handshake failed.
            TypeError: one of the arguments is nothing that could be meant.
            ValueError: the path has a NUL, but for that of an abstract name, the timeout is
                negative, or `server_hostname` is given without `tls`.
        """
        name = check_path(path)
        check_context(tls)
        check_timeout(timeout)
        if server_hostname is not None and tls is None:
            raise ValueError("server_hostname is for TLS, and there is none")
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                sock = await _dial_path(name)
                self = await cls._over(sock, tls, server_hostname=server_hostname or "")
                self._known_peer = os.fsencode(name) if name[0] == "\0" else name
                return self
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"connecting to {name!r} took more than {timeout} seconds"
            ) from error


async def _dial_path(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                # Its backlog is full (unix(7): EAGAIN). Nothing is under way, and the kernel does
                # not tell when there is room.
                await asyncio.sleep(_RETRY)
            else:
                return sock
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            error.filename = path
        raise
