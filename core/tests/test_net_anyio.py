"""flowcoro.net's streams as anyio's: their ends, their errors, their attributes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSAttribute, TLSStream

from flowcoro.net import Connection, TcpClient, TcpServer
from net_cases import (
    HOST,
    Run,
    certificates,
    clogged,
    every_loop,
    every_pair,
    pair,
    run_on,
    turns,
    until,
    waiting,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")

MUCH = 1 << 24


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


Call = Callable[[Connection], Awaitable[Any]]

READS: list[Call] = [
    lambda c: c.read(),
    lambda c: c.read_exactly(1),
    lambda c: c.read_until(b"x"),
    lambda c: c.readline(),
    lambda c: c.receive(),
]
WRITES: list[Call] = [
    lambda c: c.write(b"x"),
    lambda c: c.write_many([b"x"]),
    lambda c: c.send(b"x"),
]


@every_loop
@every_pair
def test_it_is_a_byte_stream(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            assert isinstance(client, anyio.abc.ByteStream)
            await client.send(b"hello")
            assert await served.receive() == b"hello"
            await client.send(b"abc")
            assert await served.receive(1) == b"a"
            assert await served.receive(5) == b"bc"
            await client.send(b"line one\nrest")
            await client.aclose()
            lines = BufferedByteReceiveStream(served)
            assert await lines.receive_until(b"\n", 100) == b"line one"
            assert [piece async for piece in lines] == [b"rest"]
            for _ in range(2):
                with pytest.raises(anyio.EndOfStream):
                    await served.receive()

    run(main())


@every_loop
@every_pair
def test_closed_on_this_side(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            await served.write(b"never read")
            assert client.is_open
            assert client.peer is not None
            port = client.peer[1]
            await client.close()
            assert not client.is_open
            for call in (*READS, *WRITES):
                with pytest.raises(anyio.ClosedResourceError, match=f"to .*{port}.* is closed"):
                    await call(client)
            await client.close()
            await client.aclose()
            client.abort()
            client.abort(reset=True)

    run(main())


@every_loop
@every_pair
@pytest.mark.parametrize("how", ["close", "abort"])
def test_closed_while_somebody_waits(run: Run, tls: bool, how: str) -> None:
    async def main() -> None:
        for read in READS:
            async with pair(tls) as (client, served):
                served._set_limit(1024)
                reading = await waiting(read(client))  # type: ignore[arg-type]
                writing, size = await clogged(client)
                if how == "close":
                    closing = await waiting(client.close())
                    with pytest.raises(anyio.ClosedResourceError):
                        await reading
                    assert len(await served.read_exactly(size)) == size
                    await served.close()
                    await asyncio.wait([*writing, closing])
                    await closing
                else:
                    client.abort()
                    with pytest.raises(anyio.ClosedResourceError):
                        await reading
                    with pytest.raises(anyio.ClosedResourceError):
                        await writing[-1]

    run(main())


@every_loop
@every_pair
def test_broken_by_the_peer(run: Run, tls: bool) -> None:
    async def main() -> None:
        for read in READS:
            async with pair(tls) as (client, served):
                reading = await waiting(read(client))  # type: ignore[arg-type]
                served.abort(reset=True)
                with pytest.raises(anyio.BrokenResourceError, match="reset") as caught:
                    await reading
                assert isinstance(caught.value.__cause__, ConnectionResetError)
                assert not client.is_open
                for call in (*READS, *WRITES):
                    with pytest.raises(anyio.BrokenResourceError):
                        await call(client)
                await client.close()
                with pytest.raises(anyio.ClosedResourceError):
                    await client.read()

    run(main())


@every_loop
@every_pair
def test_broken_while_somebody_writes(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            served._set_limit(1024)
            writing, _ = await clogged(client)
            writing = [writing[-1], await waiting(client.write(b"more"))]  # type: ignore[arg-type]
            served.abort(reset=True)
            for each in writing:
                with pytest.raises(anyio.BrokenResourceError):
                    await each

    run(main())


@every_loop
@every_pair
def test_what_came_before_the_break_can_be_read(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            await served.write(b"before")
            await until(lambda: client._buffered == 6)
            served.abort(reset=True)
            await until(lambda: not client.is_open)
            assert await client.read_exactly(3) == b"bef"
            assert await client.receive() == b"ore"
            with pytest.raises(anyio.BrokenResourceError):
                await client.read()

    run(main())


@every_loop
def test_half_closed(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, served):
            await client.write(b"question")
            await client.send_eof()
            await client.send_eof()
            with pytest.raises(anyio.ClosedResourceError, match=r"the end was sent to .* already"):
                await client.write(b"more")
            assert await served.read() == b"question"
            with pytest.raises(anyio.EndOfStream):
                await served.receive()
            writing = asyncio.ensure_future(served.write(bytes(MUCH)))  # the other way is open
            assert len(await client.read_exactly(MUCH)) == MUCH
            await writing
            await served.send_eof()
            assert await client.read() == b""
            await client.close()
            with pytest.raises(anyio.ClosedResourceError):
                await client.send_eof()

    run(main())


@every_loop
def test_the_end_after_much_that_is_unsent(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, served):
            writing = asyncio.ensure_future(client.write(bytes(MUCH)))
            await client.send_eof()
            assert len(await served.read_exactly(MUCH)) == MUCH
            assert await served.read() == b""
            await writing

    run(main())


@every_loop
def test_tls_cannot_be_half_closed(run: Run) -> None:
    async def main() -> None:
        async with pair(tls=True) as (client, served):
            with pytest.raises(NotImplementedError, match="half-closed"):
                await client.send_eof()
            await client.write(b"it still writes")
            assert await served.read() == b"it still writes"

    run(main())


@every_loop
@every_pair
def test_close_sends_what_was_written(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            served._set_limit(1024)
            async with client:
                _, size = await clogged(client)
                closing = await waiting(client.close())
                await turns(20)
                assert not closing.done()
                assert len(await served.read_exactly(size)) == size
                assert await served.read() == b""
                await served.close()
                await closing

    run(main())


@every_loop
@every_pair
def test_a_close_that_is_cancelled_closes_at_once(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            served._set_limit(1024)
            await clogged(client)
            closing = await waiting(client.close())
            closing.cancel()
            await asyncio.wait([closing])
            assert closing.cancelled()
            await until(lambda: not client._is_open)
            try:
                size = 0
                while piece := await served.read():
                    size += len(piece)
            except anyio.BrokenResourceError:
                pass
            assert size < MUCH

    run(main())


@every_loop
@every_pair
def test_an_abort_with_a_reset(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            client.abort(reset=True)
            with pytest.raises(anyio.BrokenResourceError, match="reset"):
                await served.read()
        if not tls:
            async with pair() as (client, served):
                client.abort()
                assert await served.read() == b""

    run(main())


@every_loop
def test_typed_attributes(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, served):
            assert client.extra(SocketAttribute.family) == socket.AF_INET
            assert client.extra(SocketAttribute.remote_address) == served.local_address
            assert client.extra(SocketAttribute.local_address) == served.peer
            assert client.extra(SocketAttribute.remote_port) == served.local_address[1]  # type: ignore[index]
            assert client.extra(SocketAttribute.local_port) == served.peer[1]  # type: ignore[index]
            assert client.extra(TLSAttribute.tls_version, None) is None
            with pytest.raises(anyio.TypedAttributeLookupError):
                client.extra(TLSAttribute.cipher)

    run(main())


@every_loop
def test_typed_attributes_of_tls(run: Run) -> None:
    async def main() -> None:
        async with pair(tls=True) as (client, served):
            assert client.tls is not None
            assert client.extra(TLSAttribute.tls_version) == client.tls.version == "TLSv1.3"
            assert client.extra(TLSAttribute.alpn_protocol) == client.tls.alpn == "echo/2"
            assert client.extra(TLSAttribute.cipher)[0] == client.tls.cipher  # type: ignore[index]
            names = client.extra(TLSAttribute.peer_certificate)["subjectAltName"]  # type: ignore[index]
            assert ("DNS", "localhost") in names
            assert client.extra(TLSAttribute.peer_certificate_binary)
            assert served.extra(TLSAttribute.peer_certificate) == {}
            assert (
                client.extra(TLSAttribute.server_side),
                served.extra(TLSAttribute.server_side),
            ) == (
                False,
                True,
            )
            assert isinstance(client.extra(TLSAttribute.ssl_object), ssl.SSLObject)
            assert served.extra(TLSAttribute.shared_ciphers)
            assert client.extra(SocketAttribute.remote_address) == served.local_address

    run(main())


@every_loop
def test_anyio_speaks_tls_over_it(run: Run) -> None:
    """To one whose TLS is the loop's."""

    async def main() -> None:
        ours, theirs = certificates()
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)

            async def echo(connection: Connection) -> None:
                async for data in connection:
                    await connection.send(data)

            serving = asyncio.create_task(server.serve(echo))
            plain = await TcpClient.connect(HOST, server.port)
            async with await TLSStream.wrap(
                plain, ssl_context=ours, hostname="localhost", standard_compatible=False
            ) as stream:
                await stream.send(b"hello")
                assert await stream.receive() == b"hello"
            await server.stop()
            await serving

    run(main())


@every_loop
@every_pair
def test_a_server_is_a_listener(run: Run, tls: bool) -> None:
    async def main() -> None:
        ours, theirs = certificates() if tls else (False, None)
        server = TcpServer(tls=theirs)
        assert isinstance(server, anyio.abc.Listener)
        await server.bind_and_listen(HOST)
        assert server.extra(SocketAttribute.local_address) == (HOST, server.port)
        assert server.extra(SocketAttribute.local_port) == server.port
        assert server.extra(SocketAttribute.family) == socket.AF_INET
        assert server.extra(SocketAttribute.remote_address, None) is None

        async def echo(stream: anyio.abc.ByteStream) -> None:
            async with stream:
                async for data in stream:
                    await stream.send(data)

        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, echo)
            client = await TcpClient.connect(HOST, server.port, tls=ours)
            await client.send(b"hello")
            assert await client.receive() == b"hello"
            await client.aclose()
            await server.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await server.serve(echo)

    run(main())


@every_loop
def test_cancel_scopes(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, served):
            with anyio.move_on_after(0.01) as scope:
                await client.read()
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.01):
                    await client.read_exactly(5)
            await served.write(b"hello")
            assert await client.read() == b"hello"

    run(main())
