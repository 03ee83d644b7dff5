"""flowcoro.net's clients: by which address they connect, and what they say when they cannot."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from flowcoro.net import TcpClient, TcpServer, UnixClient, UnixServer, _dial
from net_cases import ANYIO_LOOPS, HAS_IPV6, HOST, descriptors, listening, turns

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")

SILENT = "10.255.255.1"  # in the tests' resolver only: see `resolve`


@pytest.fixture(params=ANYIO_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[Any, int]]:
    """Make a name of some addresses; connecting to SILENT waits for ever.

    Returns how often each was tried.
    """

    def use(*hosts: str) -> dict[Any, int]:
        loop = asyncio.get_running_loop()
        connect = loop.sock_connect
        tried: dict[Any, int] = {}

        async def getaddrinfo(host: Any, port: Any, **_: Any) -> list[Any]:
            return [
                (
                    socket.AF_INET6 if ":" in each else socket.AF_INET,
                    socket.SOCK_STREAM,
                    6,
                    "",
                    (each, port, 0, 0) if ":" in each else (each, port),
                )
                for each in hosts
            ]

        async def sock_connect(sock: socket.socket, address: Any) -> None:
            tried[address[0]] = tried.get(address[0], 0) + 1
            if address[0] == SILENT:
                await loop.create_future()
            await connect(sock, address)

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        return tried

    return use


def nobodys_port(host: str = HOST) -> int:
    with listening(host) as listener:
        return int(listener.getsockname()[1])


async def test_an_address_that_does_not_answer_holds_up_nobody(resolve: Any) -> None:
    tried = resolve(SILENT, HOST)
    before = descriptors()
    with listening() as listener:
        async with asyncio.timeout(10):
            client = await TcpClient.connect("two.test", listener.getsockname()[1])
        assert client.peer == listener.getsockname()
        assert tried == {SILENT: 1, HOST: 1}
        await client.close()
    await turns()
    assert descriptors() == before


async def test_an_address_that_refuses_is_followed_at_once(
    resolve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dial, "STAGGER", 3600)
    with listening() as listener:
        resolve("127.0.0.2", "127.0.0.3", HOST)
        async with asyncio.timeout(10):
            client = await TcpClient.connect("three.test", listener.getsockname()[1])
        assert client.peer == listener.getsockname()
        await client.close()


async def test_families_take_turns() -> None:
    infos: list[Any] = [("six", 1), ("six", 2), ("six", 3), ("four", 1), ("four", 2)]
    assert _dial._interleave(infos) == [
        ("six", 1),
        ("four", 1),
        ("six", 2),
        ("four", 2),
        ("six", 3),
    ]
    assert _dial._interleave([]) == []


async def test_a_name_with_both_families(resolve: Any) -> None:
    resolve("::1", HOST)
    with listening() as listener:  # IPv4 only
        client = await TcpClient.connect("both.test", listener.getsockname()[1])
        assert client.extra(SocketAttribute.family) == socket.AF_INET
        await client.close()
    if not HAS_IPV6:
        pytest.skip("no IPv6 here")
    with listening("::1") as six:
        client = await TcpClient.connect("both.test", six.getsockname()[1])
        assert client.extra(SocketAttribute.family) == socket.AF_INET6
        assert client.peer == six.getsockname()
        await client.close()


async def test_when_all_fail_each_is_named(resolve: Any) -> None:
    port = nobodys_port()
    resolve("127.0.0.1", "127.0.0.2", "127.0.0.3")
    with pytest.raises(ConnectionRefusedError) as caught:
        await TcpClient.connect("three.test", port)
    assert "127.0.0.1" in str(caught.value)
    notes = caught.value.__notes__
    assert len(notes) == 2
    assert "127.0.0.2" in notes[0]
    assert "127.0.0.3" in notes[1]


async def test_a_name_without_addresses(resolve: Any) -> None:
    resolve()
    with pytest.raises(OSError, match=r"'none\.test' has no address"):
        await TcpClient.connect("none.test", 1)


async def test_what_is_no_endpoint() -> None:
    for port in (-1, 65536, 1 << 40):
        with pytest.raises(ValueError, match=f"a port is from 0 to 65535, not {port}"):
            await TcpClient.connect(HOST, port)
        with pytest.raises(ValueError, match="a port is from"):
            await TcpServer().bind_and_listen(HOST, port)
    for host in ("local\0host", HOST + "\0"):
        with pytest.raises(ValueError, match="a host has no NUL"):
            await TcpClient.connect(host, 1)
        with pytest.raises(ValueError, match="a host has no NUL"):
            await TcpServer().bind_and_listen([HOST, host])
    with pytest.raises(TypeError, match="a host is a string, not None"):
        await TcpClient.connect(None, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a port is a number, not 'http'"):
        await TcpClient.connect(HOST, "http")  # type: ignore[arg-type]


async def test_what_cannot_be_meant() -> None:
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (TypeError, "a number of seconds, or None, not '5'", {"timeout": "5"}),
        (TypeError, "a number of seconds, or None, not True", {"timeout": True}),
        (ValueError, "0 seconds or more, not -1", {"timeout": -1}),
        (ValueError, "0 seconds or more, not nan", {"timeout": float("nan")}),
        (ValueError, "server_hostname is for TLS", {"server_hostname": "name"}),
    ]
    of_tcp: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (TypeError, "local_address is a host and a port, not '::1'", {"local_address": "::1"}),
        (ValueError, "a port is from 0 to 65535, not -2", {"local_address": (HOST, -2)}),
    ]
    for error, message, options in wrong + of_tcp:
        with pytest.raises(error, match=message):
            await TcpClient.connect(HOST, 1, **options)
    for error, message, options in wrong:
        with pytest.raises(error, match=message):
            await UnixClient.connect("/none", **options)
    server = TcpServer()
    await server.bind_and_listen(HOST, 0)
    with pytest.raises(TypeError, match="a handler is called with each connection, and None"):
        await server.serve(None)  # type: ignore[arg-type]
    await server.stop()


async def test_what_is_no_path(tmp_path: Path) -> None:
    for path in ("", "\0", f"{tmp_path}/a\0b", "\0a\0b"):
        with pytest.raises(ValueError, match="no path of a socket"):
            await UnixClient.connect(path)
        with pytest.raises(ValueError, match="no path of a socket"):
            await UnixServer().bind_and_listen(path)
    with pytest.raises(TypeError):
        await UnixClient.connect(5)  # type: ignore[arg-type]


async def test_a_timeout_says_of_what(resolve: Any) -> None:
    resolve(SILENT)
    before = descriptors()
    with pytest.raises(
        TimeoutError, match=r"connecting to slow\.test port 9 took more than 0\.05 s"
    ):
        await TcpClient.connect("slow.test", 9, timeout=0.05)
    await turns()
    assert descriptors() == before


async def test_a_timeout_of_the_kernels_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sock_connect(*_: Any) -> None:
        raise TimeoutError(110, "Connection timed out")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    with pytest.raises(TimeoutError, match=r"\[Errno 110\] Connection timed out"):
        await TcpClient.connect(HOST, 9, timeout=None)


async def test_from_an_address_of_ones_own() -> None:
    with listening() as listener:
        client = await TcpClient.connect(*listener.getsockname(), local_address=("127.0.0.9", 0))
        assert client.local_address is not None
        assert client.local_address[0] == "127.0.0.9"
        await client.close()
        with pytest.raises(OSError, match="assign requested address"):
            await TcpClient.connect(*listener.getsockname(), local_address=("192.0.2.1", 0))


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    server = UnixServer()
    path = tmp_path / "socket"
    await server.bind_and_listen(path)
    client = await UnixClient.connect(path)
    served = await server.accept()
    await client.write(b"hello")
    assert await served.read() == b"hello"
    assert client.peer == served.local_address == str(path)
    assert served.peer is client.local_address is None
    assert client.extra(SocketAttribute.family) == socket.AF_UNIX
    assert repr(client) == f"<UnixClient to {str(path)!r} open>"
    await client.send_eof()
    assert await served.read() == b""
    await served.close()
    with pytest.raises(anyio.EndOfStream):
        await client.receive()
    await client.close()
    await server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has abstract names")
async def test_an_abstract_name() -> None:
    name = f"\0flowcoro test {os.getpid()} {id(object())}"
    async with UnixServer() as server:
        await server.bind_and_listen(name)
        async with await UnixClient.connect(name) as client, await server.accept() as served:
            await client.write(b"hello")
            assert await served.read() == b"hello"
            assert client.peer == server.addresses[0]


async def test_no_unix_socket_there(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match="missing"):
        await UnixClient.connect(path)
    path.write_text("a file")
    with pytest.raises(ConnectionRefusedError, match="missing"):
        await UnixClient.connect(path)
    with pytest.raises(OSError, match="too long"):
        await UnixClient.connect("x" * 300)


async def test_a_unix_socket_whose_backlog_is_full(tmp_path: Path) -> None:
    """It waits, rather than take for connected what is not."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        clients = [await UnixClient.connect(path) for _ in range(2)]
        with pytest.raises(TimeoutError, match=r"connecting to '.*socket' took more than 0.05"):
            await UnixClient.connect(path, timeout=0.05)
        waiting = asyncio.create_task(UnixClient.connect(path))
        await turns()
        accepted = [listener.accept()[0]]
        clients.append(await asyncio.wait_for(waiting, 10))
        accepted += [listener.accept()[0] for _ in range(2)]
        await clients[2].write(b"hello")
        accepted[2].setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(accepted[2], 10) == b"hello"
        for each in (*clients, *accepted):
            each.abort() if isinstance(each, UnixClient) else each.close()
