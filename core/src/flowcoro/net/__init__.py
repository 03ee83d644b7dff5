"""Streams of bytes and datagrams over sockets, natively fast and structured as anyio is.

`TcpClient` and `UnixClient` connect, `TcpServer` and `UnixServer` listen; what they give is a
`Connection`. On `flowcoro.Loop` it reads and writes by the native reactor; on other asyncio loops,
and over TLS, by the loop's transports. Its errors are anyio's.
"""

from flowcoro.net._client import TcpClient, UnixClient
from flowcoro.net._connection import Address, Connection, TlsFacts
from flowcoro.net._server import TcpServer, UnixServer

__all__ = [
    "Address",
    "Connection",
    "TcpClient",
    "TcpServer",
    "TlsFacts",
    "UnixClient",
    "UnixServer",
]
