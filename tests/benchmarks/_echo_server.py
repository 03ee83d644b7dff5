"""An echo server in a process of its own: `python _echo_server.py LOOP MODE [CERTIFICATE]`.

Prints its port and serves until its input ends. CERTIFICATE, a file with the key too, makes it
speak TLS. What belongs here: the echo as each of asyncio's interfaces has it written.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import resource
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

from _loop_factories import loop_factory

HOST = "127.0.0.1"
BACKLOG = 4096
MOST = 65536
TICK = 0.01

# What it is served over, made as asyncio.start_server wants it.
Listen = Callable[[socket.socket, ssl.SSLContext | None], Awaitable[object]]


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    _write: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.Transport", transport).write

    def data_received(self, data: bytes) -> None:
        self._write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """The same from a buffer of its own."""

    _write: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._buffer = memoryview(bytearray(MOST))
        self._write = cast("asyncio.Transport", transport).write

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        # A transport may keep what it could not send; the buffer is used again.
        self._write(bytes(self._buffer[:nbytes]))


async def protocol(listener: socket.socket, tls: ssl.SSLContext | None) -> object:
    return await asyncio.get_running_loop().create_server(
        Echo, sock=listener, ssl=tls, backlog=BACKLOG
    )


async def ticking(listener: socket.socket, tls: ssl.SSLContext | None) -> object:
    loop = asyncio.get_running_loop()

    def tick() -> None:
        loop.call_later(TICK, tick)

    tick()
    return await protocol(listener, tls)


async def buffered(listener: socket.socket, tls: ssl.SSLContext | None) -> object:
    return await asyncio.get_running_loop().create_server(
        BufferedEcho, sock=listener, ssl=tls, backlog=BACKLOG
    )


async def streams(listener: socket.socket, tls: ssl.SSLContext | None) -> object:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(MOST):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    return await asyncio.start_server(serve, sock=listener, ssl=tls, backlog=BACKLOG)


async def sock(listener: socket.socket, tls: ssl.SSLContext | None) -> object:
    assert tls is None, "asyncio has no TLS over bare sockets"
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while data := await loop.sock_recv(connection, MOST):
                    await loop.sock_sendall(connection, data)
            except ConnectionError:
                pass

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setblocking(False)
            keep(serve(connection))

    def keep(work: Any) -> None:
        task = loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener.listen(BACKLOG)
    listener.setblocking(False)
    keep(accept())
    return tasks


async def net(listener: socket.socket, tls: ssl.SSLContext | None) -> object:
    import anyio

    # By name, for as long as there may be none.
    module = importlib.import_module("flowcoro.net")
    port = listener.getsockname()[1]
    listener.close()

    async def serve(connection: Any) -> None:
        try:
            while data := await connection.read(max_bytes=MOST):
                await connection.write(data)
        except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
            pass

    server = module.TcpServer()
    bound = server.bind_and_listen(HOST, port)
    if inspect.isawaitable(bound):
        await bound
    return asyncio.ensure_future(server.serve(serve))


MODES: dict[str, Listen] = {
    "protocol": protocol,
    "ticking": ticking,
    "buffered": buffered,
    "streams": streams,
    "sock": sock,
    "net": net,
}


def until_input_ends() -> None:
    """Leave with whoever started this."""
    sys.stdin.read()
    os._exit(0)


async def main(listen: Listen, tls: ssl.SSLContext | None) -> None:
    listener = socket.socket()
    listener.bind((HOST, 0))
    port = listener.getsockname()[1]
    server = await listen(listener, tls)
    print(port, flush=True)
    await asyncio.Event().wait()
    del server


if __name__ == "__main__":
    loop_name, mode, *certificate = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate[0])
    threading.Thread(target=until_input_ends, daemon=True).start()
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        runner.run(main(MODES[mode], context))
