"""The pool below `NativeTransport`: limits, waiting, handing over, connections that end at rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from _peers import OK, Peer, answering, peer, read_head, read_request
from _serving import settled
from flowcoro.testing import SimulatedLoop
from flowcoro_http import NativeTransport, PoolState

pytestmark = pytest.mark.usefixtures("client_loop")


@asynccontextmanager
async def transport(
    connections: int | None = 100,
    per_origin: int | None = None,
    idle: int | None = None,
    expiry: float | None = 30.0,
) -> AsyncIterator[NativeTransport]:
    limits = httpx.Limits(
        max_connections=connections, max_keepalive_connections=idle, keepalive_expiry=expiry
    )
    made = NativeTransport(limits=limits, max_connections_per_origin=per_origin)
    try:
        yield made
    finally:
        await made.aclose()


async def ask(
    by: NativeTransport, url: str, method: str = "GET", **timeouts: float | None
) -> bytes:
    request = httpx.Request(method, url, extensions={"timeout": timeouts})
    response = await by.handle_async_request(request)
    try:
        return await response.aread()
    finally:
        await response.aclose()


async def held(seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer when the test says so."""
    while await read_request(reader, seen):
        await seen.go.wait()
        writer.write(OK)


async def test_no_more_connections_than_allowed() -> None:
    async with peer(held) as server, transport(connections=3) as by:
        asked = [asyncio.create_task(ask(by, server.url)) for _ in range(20)]
        await settled(lambda: len(server.requests) == 3)
        assert by.state() == PoolState(connections=3, idle=0, waiting=17)
        server.go.set()
        assert await asyncio.gather(*asked) == [b"ok"] * 20
        assert server.connections == 3
        assert by.state() == PoolState(connections=3, idle=3, waiting=0)


async def test_no_more_to_an_origin_than_allowed() -> None:
    async with (
        peer(held) as first,
        peer(held) as second,
        transport(connections=5, per_origin=2) as by,
    ):
        asked = [
            asyncio.create_task(ask(by, server.url))
            for server in (first, first, first, first, second, second, second)
        ]
        await settled(lambda: len(first.requests) == len(second.requests) == 2)
        assert by.state() == PoolState(connections=4, idle=0, waiting=3)
        first.go.set()
        second.go.set()
        await asyncio.gather(*asked)
        assert (first.connections, second.connections) == (2, 2)


async def test_those_who_wait_are_served_in_their_order() -> None:
    async with peer(held) as server, transport(connections=1) as by:
        holder = asyncio.create_task(ask(by, server.url))
        await server.asked.wait()
        asked = [asyncio.create_task(ask(by, f"{server.url}{number}")) for number in range(5)]
        await settled(lambda: by.state().waiting == 5)
        asked[2].cancel()
        server.go.set()
        await holder
        asked.append(asyncio.create_task(ask(by, f"{server.url}late")))
        await asyncio.gather(*asked, return_exceptions=True)
        assert server.targets == ["/", "/0", "/1", "/3", "/4", "/late"]


async def test_a_connection_at_rest_makes_room_for_another_origin() -> None:
    async with (
        peer(answering(OK)) as first,
        peer(answering(OK)) as second,
        transport(connections=2) as by,
    ):
        await ask(by, first.url)
        await ask(by, second.url)
        assert by.state() == PoolState(connections=2, idle=2, waiting=0)
        for server in (first, second, first, second):
            await ask(by, server.url)
        assert (first.connections, second.connections) == (1, 1)
        async with peer(answering(OK)) as third:
            await ask(by, third.url)
            assert by.state() == PoolState(connections=2, idle=2, waiting=0)
        await ask(by, first.url)
        await ask(by, second.url)


async def test_a_released_connection_makes_room_for_who_waits_for_another_origin() -> None:
    async with (
        peer(held) as first,
        peer(answering(OK)) as second,
        transport(connections=1) as by,
    ):
        one = asyncio.create_task(ask(by, first.url))
        await first.asked.wait()
        other = asyncio.create_task(ask(by, second.url))
        await settled(lambda: by.state().waiting == 1)
        first.go.set()
        assert await asyncio.gather(one, other) == [b"ok", b"ok"]
        assert by.state() == PoolState(connections=1, idle=1, waiting=0)


async def test_no_more_at_rest_than_allowed() -> None:
    async with peer(held) as server, transport(idle=2) as by:
        asked = [asyncio.create_task(ask(by, server.url)) for _ in range(6)]
        await settled(lambda: len(server.requests) == 6)
        server.go.set()
        await asyncio.gather(*asked)
        assert by.state() == PoolState(connections=2, idle=2, waiting=0)
        await settled(lambda: server.open == 2)


async def test_a_place_is_free_when_connecting_fails() -> None:
    async with peer(answering(OK)) as gone:
        pass
    async with transport(connections=1) as by, peer(answering(OK)) as server:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                await ask(by, gone.url)
        assert by.state() == PoolState(0, 0, 0)
        assert await ask(by, server.url) == b"ok"


async def test_who_waits_too_long_loses_no_place() -> None:
    async with peer(held) as server, transport(connections=1) as by:
        holder = asyncio.create_task(ask(by, server.url))
        await server.asked.wait()
        for _ in range(3):
            with pytest.raises(httpx.PoolTimeout):
                await ask(by, server.url, pool=0.01)
        assert by.state() == PoolState(connections=1, idle=0, waiting=0)
        server.go.set()
        assert await holder == b"ok"
        assert await ask(by, server.url) == b"ok"


async def test_a_connection_that_is_handed_over_to_the_cancelled_goes_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with peer(held) as server, transport(connections=1) as by:
        holder = asyncio.create_task(ask(by, server.url))
        await server.asked.wait()
        first = asyncio.create_task(ask(by, f"{server.url}first"))
        second = asyncio.create_task(ask(by, f"{server.url}second"))
        await settled(lambda: by.state().waiting == 2)
        serve = by.pool._serve

        def serve_and_cancel() -> None:
            serve()
            first.cancel()

        monkeypatch.setattr(by.pool, "_serve", serve_and_cancel)
        server.go.set()
        assert await holder == b"ok"
        assert await second == b"ok"
        with pytest.raises(asyncio.CancelledError):
            await first
        assert by.state().connections == 1


async def test_a_connection_that_ended_at_rest_is_not_used() -> None:
    async with peer(answering(OK, close=True)) as server, transport() as by:
        assert await ask(by, server.url) == b"ok"
        await settled(lambda: by.state().connections == 0)
        assert await ask(by, server.url, "POST") == b"ok"


async def silent_at_second(
    seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """End each connection at its second request, without a word, as a server at its limit does."""
    await read_request(reader, seen)
    writer.write(OK)
    await read_head(reader)


async def test_a_request_to_a_connection_that_ends_meanwhile_goes_again_on_a_new_one() -> None:
    async with peer(silent_at_second) as server, transport() as by:
        for number in range(1, 5):
            assert await ask(by, server.url) == b"ok"
            assert server.connections == number
            assert by.state() == PoolState(1, 1, 0)


async def test_one_that_may_have_an_effect_does_not() -> None:
    async with peer(silent_at_second) as server, transport() as by:
        assert await ask(by, server.url, "POST") == b"ok"
        with pytest.raises(httpx.RemoteProtocolError, match="without a response"):
            await ask(by, server.url, "POST")
        assert server.connections == 1
        assert by.state() == PoolState(0, 0, 0)


async def test_it_goes_again_once_only_and_not_after_a_byte() -> None:
    async def never(seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if seen.connections == 1:
            await silent_at_second(seen, reader, writer)
        else:
            await read_head(reader)

    async def a_byte(
        seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await silent_at_second(seen, reader, writer)
        writer.write(b"H")

    async with peer(never) as server, transport() as by:
        assert await ask(by, server.url) == b"ok"
        with pytest.raises(httpx.RemoteProtocolError, match="without a response"):
            await ask(by, server.url)
        assert server.connections == 2
    async with peer(a_byte) as server, transport() as by:
        assert await ask(by, server.url) == b"ok"
        with pytest.raises(httpx.RemoteProtocolError, match="in the middle"):
            await ask(by, server.url)
        assert server.connections == 1


async def test_it_goes_again_though_all_connections_are_taken() -> None:
    """The new connection takes the place of one at rest."""

    async def handle(
        seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if seen.connections == 2:
            seen.go.set()
        await seen.go.wait()
        await silent_at_second(seen, reader, writer)

    async with peer(handle) as server, transport(connections=2, per_origin=2) as by:
        assert await asyncio.gather(ask(by, server.url), ask(by, server.url)) == [b"ok"] * 2
        assert by.state() == PoolState(2, 2, 0)
        assert await ask(by, server.url) == b"ok"
        assert (server.connections, by.state().connections) == (3, 2)


async def test_closing_ends_what_is_under_way() -> None:
    async with peer(held) as server, transport(connections=2) as by:
        asked = [asyncio.create_task(ask(by, server.url)) for _ in range(5)]
        await settled(lambda: len(server.requests) == 2)
        await by.aclose()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in outcomes] == [httpx.ReadError] * 5
        server.go.set()
        await server.until_closed()


def test_connections_rest_no_longer_than_allowed(client_loop: str) -> None:
    """In virtual time: after half of the expiry at least, and all of it at most."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        rested: list[float] = []
        async with peer(answering(OK)) as server:
            for pause in (0.0, 1.0, 2.5, 4.9):
                async with transport(expiry=10.0) as by:
                    assert await ask(by, server.url) == b"ok"
                    await asyncio.sleep(pause)
                    for _ in range(3):  # use keeps it
                        await asyncio.sleep(4.0)
                        assert await ask(by, server.url) == b"ok"
                    since = loop.time()
                    await settled(lambda: server.open == 0)
                    rested.append(loop.time() - since)
                    assert by.state() == PoolState(0, 0, 0)
            assert server.connections == 4
        return rested

    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(1)) as runner:
        rested = runner.run(main())
    assert all(5.0 <= each <= 10.1 for each in rested)
