"""Connections that this side opens."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Self

from flowcoro.net._connection import Connection
from flowcoro.net._dial import dial

__all__ = ["TcpClient", "UnixClient"]


def _context(tls: ssl.SSLContext | bool) -> ssl.SSLContext | None:
    if isinstance(tls, ssl.SSLContext):
        return tls
    return ssl.create_default_context() if tls else None


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
        """
        context = _context(tls)
        try:
            async with asyncio.timeout(timeout):
                sock = await dial(host, port, local_address=local_address)
                return await cls._over(sock, context, server_hostname=server_hostname or host)
        except TimeoutError as error:
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
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(sock, os.fspath(path))
                return await cls._over(sock, tls, server_hostname=server_hostname or "")
        except TimeoutError as error:
            sock.close()
            raise TimeoutError(
                f"connecting to {os.fspath(path)!r} took more than {timeout} seconds"
            ) from error
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError) and error.filename is None:
                error.filename = os.fspath(path)
            raise
