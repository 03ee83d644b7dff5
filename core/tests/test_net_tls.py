"""flowcoro.net over TLS: who is trusted, and how handshakes fail."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from pathlib import Path

import anyio
import pytest
import trustme

from flowcoro.net import Connection, TcpClient, TcpServer, UnixClient, UnixServer
from flowcoro.testing import FaultProxy, Faults
from net_cases import (
    HOST,
    Run,
    certificates,
    descriptors,
    every_loop,
    listening,
    pair,
    run_on,
    turns,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


async def refused(server: TcpServer, error: str, **options: object) -> None:
    """See that the client is told, and the server's handler never called."""
    accepting = asyncio.ensure_future(server.accept())
    with pytest.raises(ssl.SSLError, match=error):
        await TcpClient.connect(HOST, server.port, **options)  # type: ignore[arg-type]
    with pytest.raises((OSError, anyio.BrokenResourceError)):
        await accepting


@every_loop
def test_whom_a_client_trusts(run: Run) -> None:
    async def main() -> None:
        ours, theirs = certificates()
        before = descriptors()
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)
            await refused(server, "unable to get local issuer|self.signed", tls=True)
            await refused(server, "Hostname mismatch", tls=ours, server_hostname="other.test")
            accepting = asyncio.ensure_future(server.accept())
            async with (
                await TcpClient.connect(
                    HOST, server.port, tls=ours, server_hostname="localhost"
                ) as client,
                await accepting,
            ):
                assert client.tls is not None
        await turns(30)
        assert descriptors() == before

    run(main())


@every_loop
def test_a_client_with_a_certificate(run: Run) -> None:
    async def main() -> None:
        authority = trustme.CA()
        ours, theirs = (
            ssl.create_default_context(),
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        )
        for each in (ours, theirs):
            authority.configure_trust(each)
        authority.issue_cert("localhost").configure_cert(theirs)
        authority.issue_cert("client@example.test").configure_cert(ours)
        theirs.verify_mode = ssl.CERT_REQUIRED
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)
            accepting = asyncio.ensure_future(server.accept())
            client = await TcpClient.connect(
                HOST, server.port, tls=ours, server_hostname="localhost"
            )
            async with client, await accepting as served:
                assert served.tls is not None
                names = served.tls.certificate["subjectAltName"]
                assert names == (("email", "client@example.test"),)

    run(main())


@every_loop
def test_no_common_protocol(run: Run) -> None:
    async def main() -> None:
        async with pair(tls=True) as (client, served):
            assert client.tls is not None
            assert served.tls is not None
            assert client.tls.alpn == served.tls.alpn == "echo/2"
            assert client.tls.cipher == served.tls.cipher

    run(main())


@every_loop
def test_a_peer_that_speaks_no_tls(run: Run) -> None:
    async def main() -> None:
        ours, theirs = certificates()
        before = descriptors()
        async with TcpServer() as server:
            await server.bind_and_listen(HOST)

            async def talk(connection: Connection) -> None:
                await connection.write(b"220 good day\r\n")
                await connection.read()

            serving = asyncio.create_task(server.serve(talk))
            with pytest.raises(ssl.SSLError, match=r"WRONG_VERSION_NUMBER|wrong version"):
                await TcpClient.connect(HOST, server.port, tls=ours)
            await server.stop(0)
            await serving
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)
            accepting = asyncio.ensure_future(server.accept())
            async with await TcpClient.connect(HOST, server.port) as client:
                await client.write(b"GET / HTTP/1.1\r\n\r\n")
                with pytest.raises(ssl.SSLError, match=r"HTTP_REQUEST|http request"):
                    await accepting
        await turns(30)
        assert descriptors() == before

    run(main())


@every_loop
def test_a_peer_that_ends_in_its_handshake(run: Run) -> None:
    """After each byte: the error is one of the connection's, and nothing is left open."""

    async def main() -> None:
        ours, theirs = certificates()
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)
            serving = asyncio.create_task(server.serve(lambda each: each.read()))
            async with FaultProxy((HOST, server.port)) as proxy:
                before = descriptors()
                for count in (0, 1, 5, 6, 100, 130, 600):
                    for cut in ("fin", "reset"):
                        proxy.downstream = Faults(cut_after=count, cut=cut)  # type: ignore[arg-type]
                        with pytest.raises((OSError, anyio.BrokenResourceError)) as caught:
                            await TcpClient.connect(*proxy.address, tls=ours)
                        assert str(caught.value), "an error that says nothing"
                        await proxy.until(lambda stats: stats.open == 0)
                        await until(lambda: server.connections == 0)
                await turns(30)
                assert descriptors() == before
            await server.stop(0)
            await serving

    run(main())


@every_loop
def test_a_handshake_that_takes_too_long(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        ours, theirs = certificates()
        before = descriptors()
        with listening() as silent:
            port = silent.getsockname()[1]
            with pytest.raises(TimeoutError, match=rf"{HOST} port {port} took more than 0\.05 s"):
                await TcpClient.connect(HOST, port, tls=ours, timeout=0.05)
        async with TcpServer(tls=theirs, handshake_timeout=0.05) as server:
            await server.bind_and_listen(HOST)
            accepting = asyncio.ensure_future(server.accept())
            async with await TcpClient.connect(HOST, server.port) as client:
                with pytest.raises(TimeoutError, match=r"handshake took more than 0\.05 seconds"):
                    await accepting
                assert await client.read() == b""
            serving = asyncio.create_task(server.serve(lambda each: each.read()))
            async with await TcpClient.connect(HOST, server.port) as client:
                with caplog.at_level(logging.DEBUG, "flowcoro.net"):
                    assert await client.read() == b""
                    await until(lambda: server.connections == 0)
            await server.stop()
            await serving
        assert "ended in its handshake: the TLS handshake took more than" in caplog.text
        await turns(30)
        assert descriptors() == before

    run(main())


@every_loop
def test_one_slow_handshake_holds_up_nobody(run: Run) -> None:
    async def main() -> None:
        ours, theirs = certificates()
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)

            async def echo(connection: Connection) -> None:
                await connection.write(await connection.read())

            serving = asyncio.create_task(server.serve(echo))
            async with (
                await TcpClient.connect(HOST, server.port),
                await TcpClient.connect(HOST, server.port, tls=ours) as client,
            ):
                await client.write(b"hello")
                assert await client.read() == b"hello"
            await server.stop()
            await serving

    run(main())


@every_loop
def test_over_a_unix_socket(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        ours, theirs = certificates()
        async with UnixServer(tls=theirs) as server:
            await server.bind_and_listen(tmp_path / "socket")
            accepting = asyncio.ensure_future(server.accept())
            client = await UnixClient.connect(
                tmp_path / "socket", tls=ours, server_hostname="localhost"
            )
            async with client, await accepting as served:
                await client.write(b"hello")
                assert await served.read() == b"hello"
                assert client.peer == str(tmp_path / "socket")

    run(main())


def test_what_is_no_context() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"tls is an ssl\.SSLContext, not 'yes'"):
            TcpServer(tls="yes")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"tls is an ssl\.SSLContext, not 5"):
            await TcpClient.connect(HOST, 1, tls=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"tls is an ssl\.SSLContext, not True"):
            await UnixClient.connect("nowhere", tls=True)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="handshake_timeout must be above 0"):
            TcpServer(handshake_timeout=0)

    asyncio.run(main())
