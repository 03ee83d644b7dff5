"""anyio on the native loop, which `anyio.run` is given as its loop factory."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from anyio.abc import ByteReceiveStream, ByteStream, Listener
from anyio.streams.tls import TLSListener, TLSStream

from flowcoro import Loop
from libraries._support import MEGABYTE, LoopFactory

Run: TypeAlias = Callable[[Callable[[], Awaitable[object]]], object]


@pytest.fixture
def run(loop_factory: LoopFactory, backend: str) -> Run:
    """`anyio.run`, on the native loop, until the deadline."""

    def body(main: Callable[[], Awaitable[object]]) -> object:
        async def timed() -> object:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, Loop)
            assert loop.reactor == backend
            with anyio.fail_after(20):
                return await main()

        return anyio.run(timed, backend_options={"loop_factory": loop_factory})

    return body


async def _read_all(stream: ByteReceiveStream) -> bytes:
    return b"".join([piece async for piece in stream])


async def _echo(stream: ByteStream) -> None:
    async with stream:
        async for piece in stream:
            await stream.send(piece)


async def _exchange(stream: ByteStream, body: bytes) -> None:
    """Send and receive at once."""
    got = bytearray()
    async with stream, anyio.create_task_group() as group:
        group.start_soon(stream.send, body)
        while len(got) < len(body):
            got += await stream.receive()
    assert got == body


async def _serve_echo(listener: Listener[ByteStream], ask: Callable[[], Awaitable[None]]) -> None:
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, _echo)
        await ask()
        group.cancel_scope.cancel()


def test_task_groups_and_scopes(run: Run) -> None:
    async def main() -> None:
        ended: list[str] = []

        async def wait_forever() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
                    ended.append("cancelled")

        async def fail() -> None:
            raise ValueError("as it should")

        async def work() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(wait_forever)
                group.start_soon(wait_forever)
                await anyio.lowlevel.checkpoint()
                group.start_soon(fail)

        with pytest.raises(ExceptionGroup) as caught:
            await work()
        assert caught.group_contains(ValueError, match="as it should")
        assert ended == ["cancelled"] * 2
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught

    run(main)


def test_tcp(run: Run) -> None:
    async def main() -> None:
        multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = multi.extra(anyio.abc.SocketAttribute.local_port)

        async def ask() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    stream = await anyio.connect_tcp("127.0.0.1", port)
                    group.start_soon(_exchange, stream, os.urandom(MEGABYTE // 2))

        await _serve_echo(multi, ask)
        with pytest.raises(OSError, match="All connection attempts failed"):
            await anyio.connect_tcp("127.0.0.1", port)

    run(main)


def test_tls(run: Run, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def ask() -> None:
            stream = await anyio.connect_tcp("127.0.0.1", port)
            tls = await TLSStream.wrap(stream, hostname="localhost", ssl_context=client_tls)
            await _exchange(tls, os.urandom(MEGABYTE))

        await _serve_echo(TLSListener(listener, server_tls), ask)

    run(main)


def test_unix_sockets(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        # A socket that is readable at the moment at which anyio closes it, or gives the wait up,
        # sets a future twice; on asyncio's own loop that is logged as well.
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_all_but_invalid_state)
        path = tmp_path / "socket"

        async def ask() -> None:
            await _exchange(await anyio.connect_unix(path), os.urandom(MEGABYTE))

        await _serve_echo(await anyio.create_unix_listener(path), ask)

    run(main)


def test_udp(run: Run) -> None:
    async def main() -> None:
        async with await anyio.create_udp_socket(local_host="127.0.0.1") as server:
            port = server.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.create_connected_udp_socket("127.0.0.1", port) as client:
                for number in range(50):
                    await client.send(b"%d" % number)
                    packet, address = await server.receive()
                    await server.sendto(packet * 2, *address)
                    assert await client.receive() == b"%d" % number * 2

    run(main)


def test_subprocesses(run: Run) -> None:
    async def main() -> None:
        body = os.urandom(MEGABYTE)
        assert (await anyio.run_process(["cat"], input=body)).stdout == body
        async with await anyio.open_process(["cat"]) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send(b"some")
            assert await process.stdout.receive() == b"some"
            await process.stdin.aclose()
            assert await _read_all(process.stdout) == b""
        assert process.returncode == 0

    run(main)


def test_threads(run: Run) -> None:
    async def main() -> None:
        own = threading.get_ident()
        seen: list[int] = []

        async def note(number: int) -> int:
            assert threading.get_ident() == own
            seen.append(number)
            return number * 2

        def work(number: int) -> int:
            assert threading.get_ident() != own
            return anyio.from_thread.run(note, number)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(anyio.to_thread.run_sync, work, number)
        assert sorted(seen) == list(range(20))

    run(main)


def test_a_portal_from_another_thread(loop_factory: LoopFactory) -> None:
    with anyio.from_thread.start_blocking_portal(
        backend_options={"loop_factory": loop_factory}
    ) as portal:
        assert portal.call(_loop_name) == "Loop"
        future = portal.start_task_soon(anyio.sleep_forever)
        future.cancel()


async def _loop_name() -> str:
    return type(asyncio.get_running_loop()).__name__


def _all_but_invalid_state(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)
