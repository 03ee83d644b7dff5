"""A client cancelled at every await, servers that end at every byte, and both at random."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest
import trustme

from _peers import OK, Peer, answer, answering, peer, read_request
from _serving import settled
from flowcoro.testing import FaultProxy, Faults, cancel_at_each_await
from flowcoro_http import HttpClient

LARGE = b"x" * 300_000
CHUNKED = (
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"
)


async def fetch(client: HttpClient, url: str) -> None:
    assert (await client.fetch(url)).ok


async def get(client: HttpClient, url: str) -> None:
    assert (await client.get(url)).is_success


async def download(client: HttpClient, url: str) -> None:
    async with client.stream("GET", url) as response:
        async for _ in response.aiter_raw():
            await asyncio.sleep(0)


async def upload(client: HttpClient, url: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield LARGE
            await asyncio.sleep(0)

    assert (await client.post(url, content=pieces())).is_success


WAYS: list[Callable[[HttpClient, str], Coroutine[Any, Any, None]]] = [fetch, get, download, upload]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_cancelled_at_every_await_it_leaves_nothing(
    way: Callable[[HttpClient, str], Coroutine[Any, Any, None]], tls: bool, client_loop: str
) -> None:
    """From the first connection to the last that is closed."""
    authority = trustme.CA()
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server_tls)
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)

    async with peer(answering(answer(LARGE)), server_tls if tls else None) as server:
        url = server.url.replace("localhost", "127.0.0.1")

        async def scenario() -> None:
            async with HttpClient(verify=client_tls, trust_env=False) as client:
                await way(client, url)
                await way(client, url)
            await server.until_closed()  # or it is seen in a later run

        report = await cancel_at_each_await(
            scenario,
            counters={"open at the server": lambda: server.open},
            settle=5,
            loop_errors=not tls,  # asyncio's server tells of handshakes that were broken off
        )
        assert report.awaits > 4


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_cancelled_at_every_await_it_loses_no_place(
    way: Callable[[HttpClient, str], Coroutine[Any, Any, None]], client_loop: str
) -> None:
    """With one connection for all: had a place been lost, nobody would get another."""
    async with (
        peer(answering(answer(LARGE))) as server,
        HttpClient(max_connections=1, timeout=10) as client,
    ):

        async def scenario() -> None:
            other = asyncio.create_task(client.fetch(server.url))
            await asyncio.sleep(0)
            try:
                await way(client, server.url)
                await way(client, server.url)
            finally:
                other.cancel()
                await asyncio.wait((other,))

        async def check() -> None:
            await settled(lambda: client.state().connections == client.state().idle)  # type: ignore[union-attr]
            assert client.state().waiting == 0  # type: ignore[union-attr]
            for _ in range(2):
                assert (await client.fetch(server.url, timeout=5)).body == LARGE

        report = await cancel_at_each_await(scenario, check=check, descriptors=False, settle=5)
        assert report.awaits > 4


RESPONSES = {
    "length": answer(b"hello", 200, "A: b"),
    "chunks": CHUNKED,
    "empty": answer(b""),
    "none": b"HTTP/1.1 204 No Content\r\n\r\n",
}


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("by", ["fetch", "request"])
async def test_a_server_that_ends_at_every_byte(name: str, by: str, client_loop: str) -> None:
    raw = RESPONSES[name]

    async def status(client: HttpClient, method: str) -> int:
        if by == "fetch":
            return (await client.fetch(url, method)).status
        return (await client.request(method, url)).status_code

    async with peer(answering(raw)) as server, FaultProxy(("127.0.0.1", server.port)) as proxy:
        url = f"http://127.0.0.1:{proxy.address[1]}/"
        for count in range(len(raw)):
            for cut in ("fin", "reset"):
                async with HttpClient(timeout=10) as client:
                    proxy.downstream = Faults(cut_after=count, cut=cut)
                    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                        await status(client, "GET")
                    assert client.state().connections == 0  # type: ignore[union-attr]
                    proxy.downstream = Faults()
                    assert await status(client, "GET") < 300
                    # The connection has served before. It goes again if not a byte has come.
                    proxy.downstream = Faults(
                        cut_after=len(raw) + count, cut=cut, only={proxy.stats.accepted}
                    )
                    if count == 0:
                        assert await status(client, "GET") < 300
                    else:
                        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                            await status(client, "GET")
        proxy.downstream = Faults()


async def test_a_server_that_ends_while_it_is_sent_a_body(client_loop: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield LARGE

    async with peer(answering(OK)) as server, FaultProxy(("127.0.0.1", server.port)) as proxy:
        url = f"http://127.0.0.1:{proxy.address[1]}/"
        async with HttpClient(timeout=10) as client:
            for count in (0, 1, 100, 5000, 1_000_000):
                for cut in ("fin", "reset"):
                    proxy.upstream = Faults(cut_after=count, cut=cut)
                    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                        await client.post(url, content=pieces())
                    assert client.state().connections == 0  # type: ignore[union-attr]


async def echo_target(
    seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer with what was asked for, in some time, whole or in pieces, or only by half."""
    while head := await read_request(reader, seen):
        target = head.split(b" ")[1]
        await asyncio.sleep(random.choice((0, 0.001, 0.02)))
        raw = answer(target * random.choice((1, 1000)))
        mood = random.random()
        if mood < 0.1:
            return
        if mood < 0.2:
            writer.write(raw[: random.randrange(len(raw))])
            return
        if mood < 0.5:
            at = random.randrange(len(raw))
            writer.write(raw[:at])
            await writer.drain()
            await asyncio.sleep(0.001)
            raw = raw[at:]
        writer.write(raw)
        await writer.drain()
        if mood > 0.9:
            return


async def use(client: HttpClient, base: str, number: int, outcomes: list[str]) -> None:
    url = f"{base}{number:04}"
    expected = f"/{number:04}"
    try:
        async with asyncio.timeout(random.choice((0.001, 0.005, 0.05, 5))):
            way = random.randrange(3)
            if way == 0:
                text = (await client.fetch(url)).text()
            elif way == 1:
                text = (await client.get(url)).text
            else:
                async with client.stream("GET", url) as response:
                    pieces = [piece async for piece in response.aiter_text()]
                text = "".join(pieces)
        assert text.replace(expected, "") == "", "another's response"
        outcomes.append("good")
    except TimeoutError:
        outcomes.append("late")
    except httpx.TransportError as error:
        outcomes.append(type(error).__name__)


@pytest.mark.simulate(seeds=100)
async def test_whatever_happens_nobody_gets_anothers_response() -> None:
    """Requests that are cancelled, servers that break off, fewer connections than requests."""
    outcomes: list[str] = []
    async with peer(echo_target) as first, peer(echo_target) as second:
        async with HttpClient(
            max_connections=4, max_connections_per_origin=3, max_idle_connections=3, timeout=10
        ) as client:
            bases = [each.url.replace("localhost", "127.0.0.1") for each in (first, second)]
            async with asyncio.TaskGroup() as group:
                for number in range(60):
                    group.create_task(use(client, random.choice(bases), number, outcomes))
                    await asyncio.sleep(random.choice((0, 0.001, 0.01)))
            state = client.state()
            assert state is not None
            assert state.connections <= 4
            assert (state.connections, state.waiting) == (state.idle, 0)
        assert len(outcomes) == 60
        assert "good" in outcomes
