"""Streams of bytes and datagrams over sockets, natively fast and structured as anyio is.

`TcpClient` and `UnixClient` connect, `TcpServer` and `UnixServer` listen; what they give is a
`Connection`. On `flowcoro.Loop` it reads and writes by the native reactor; on other asyncio loops,
and over TLS, by the loop's transports. `UdpSocket` sends and receives datagrams, and a
`ConnectionPool` keeps connections of any kind, ours or others'. `dial` connects a socket, for
those who make something else of it. The errors are anyio's.
"""

from flowcoro.net._client import TcpClient, UnixClient
from flowcoro.net._connection import Address, Connection, TlsFacts
from flowcoro.net._dial import dial
from flowcoro.net._pool import ConnectionPool
from flowcoro.net._pool_types import PoolFullError, PoolStats
from flowcoro.net._server import TcpServer, UnixServer
from flowcoro.net._udp import ConnectedUdpSocket, UdpSocket

__all__ = [
    "Address",
    "ConnectedUdpSocket",
    "Connection",
    "ConnectionPool",
    "PoolFullError",
    "PoolStats",
    "TcpClient",
    "TcpServer",
    "TlsFacts",
    "UdpSocket",
    "UnixClient",
    "UnixServer",
    "dial",
]
