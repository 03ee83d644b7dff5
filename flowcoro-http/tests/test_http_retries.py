"""When `HttpClient` tries again, and what its errors and its log do not tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import pytest

from _peers import OK, Peer, answer, answering, never, peer, read_request
from flowcoro.testing import SimulatedLoop
from flowcoro_http import (
    HttpClient,
    RetryPolicy,
)

pytestmark = pytest.mark.usefixtures("client_loop")


def failing(times: int, then: bytes = OK, raw: bytes | None = None) -> Any:
    async def handle(
        seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while await read_request(reader, seen):
            if len(seen.requests) > times:
                writer.write(then)
            elif raw is None:
                return
            else:
                writer.write(raw)

    return handle


QUICK = RetryPolicy(retries=3, first_delay=0.001)


@pytest.mark.parametrize("by", ["fetch", "request"])
@pytest.mark.parametrize(
    "raw", [None, b"HTTP/1.1 200 OK\r\n", answer(b"", 503), answer(b"", 429, "Retry-After: 0")]
)
async def test_requests_that_failed_are_tried_again(by: str, raw: bytes | None) -> None:
    if raw is not None and b"200" in raw:

        async def handle(
            seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await read_request(reader, seen)
            writer.write(OK if len(seen.requests) > 2 else b"HTTP/1.1 200 OK\r\n")

    else:
        handle = failing(2, raw=raw)
    async with peer(handle) as server, HttpClient(retries=QUICK) as client:
        if by == "fetch":
            assert (await client.fetch(server.url)).status == 200
        else:
            assert (await client.get(server.url)).status_code == 200
        assert len(server.requests) == 3


@pytest.mark.parametrize("by", ["fetch", "request", "stream"])
async def test_no_more_often_than_allowed(by: str) -> None:
    async with (
        peer(failing(99, raw=answer(b"sorry", 503))) as server,
        HttpClient(retries=QUICK) as client,
    ):
        if by == "fetch":
            assert (await client.fetch(server.url)).status == 503
        elif by == "request":
            assert (await client.get(server.url)).text == "sorry"
        else:
            async with client.stream("GET", server.url) as response:
                assert await response.aread() == b"sorry"
        assert len(server.requests) == 4
        await client.request("GET", server.url, retries=0)
        await client.request("GET", server.url, retries=RetryPolicy(1, first_delay=0))
        assert len(server.requests) == 7
    async with peer(failing(99)) as server, HttpClient(retries=QUICK) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await (client.fetch if by == "fetch" else client.get)(server.url)
        assert len(server.requests) == 4


@pytest.mark.parametrize("by", ["fetch", "request"])
async def test_what_may_have_an_effect_is_not_repeated_unless_told(by: str) -> None:
    async with peer(failing(1, raw=answer(b"", 503))) as server:

        async def post(client: HttpClient) -> int:
            if by == "fetch":
                return (await client.fetch(server.url, "POST", content=b"x")).status
            return (await client.post(server.url, content=b"x")).status_code

        async with HttpClient(retries=QUICK) as client:
            assert await post(client) == 503
        server.requests.clear()
        told = RetryPolicy(2, first_delay=0, methods={"POST"})
        async with HttpClient(retries=told) as client:
            assert await post(client) == 200
        assert [body for _, body in server.requests] == [b"x", b"x"]


async def test_a_stream_as_a_body_is_sent_once() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    async with (
        peer(failing(1, raw=answer(b"", 503))) as server,
        HttpClient(retries=QUICK) as client,
    ):
        assert (await client.put(server.url, content=pieces())).status_code == 503
        assert len(server.requests) == 1


@pytest.mark.parametrize("by", ["fetch", "request"])
async def test_whoever_could_not_be_reached_is_tried_again_whatever_the_method(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowcoro_http._client import _pool

    tried = 0
    dial = _pool.dial

    async def refused_twice(host: str, port: int, **options: Any) -> Any:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise ConnectionRefusedError("refused")
        return await dial(host, port, **options)

    monkeypatch.setattr(_pool, "dial", refused_twice)
    async with peer(answering(OK)) as server, HttpClient(retries=QUICK) as client:
        if by == "fetch":
            assert (await client.fetch(server.url, "POST")).ok
        else:
            assert (await client.post(server.url)).is_success
    assert (tried, len(server.requests)) == (3, 1)


def test_delays_grow_and_retry_after_is_waited_for(client_loop: str) -> None:
    """In virtual time."""
    waits: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        came: list[float] = []
        responses = [
            answer(b"", 503),
            answer(b"", 503),
            answer(b"", 503, "Retry-After: 20"),
            answer(b"", 503, "Retry-After: soon"),
            OK,
        ]

        async def handle(
            seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            while await read_request(reader, seen):
                came.append(loop.time())
                writer.write(responses[len(seen.requests) - 1])

        policy = RetryPolicy(10, first_delay=1.0, longest_delay=3.0)
        async with peer(handle) as server, HttpClient(timeout=60, retries=policy) as client:
            assert (await client.fetch(server.url)).ok
        waits.extend(later - earlier for earlier, later in pairwise(came))

    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(1)) as runner:
        runner.run(main())
    assert len(waits) == 4
    assert 0.5 <= waits[0] <= 1.1
    assert 1.0 <= waits[1] <= 2.1
    assert waits[2] == pytest.approx(20, abs=0.1)
    assert 1.5 <= waits[3] <= 3.1


@pytest.mark.parametrize("by", ["fetch", "request"])
@pytest.mark.parametrize("seconds", ["61", "9", "Fri, 01 Jan 2100 00:00:00 GMT"])
async def test_a_retry_after_that_is_too_long_is_not_waited_for(by: str, seconds: str) -> None:
    raw = answer(b"later", 503, f"Retry-After: {seconds}")
    async with (
        peer(failing(99, raw=raw)) as server,
        HttpClient(timeout=8, retries=RetryPolicy()) as client,
    ):
        if by == "fetch":
            assert (await client.fetch(server.url)).status == 503
        else:
            assert (await client.get(server.url)).status_code == 503
        assert len(server.requests) == 1


async def test_the_deadline_is_for_all_tries_together() -> None:
    async with peer(failing(99, raw=answer(b"", 503))) as server:
        policy = RetryPolicy(1000, first_delay=0.02, longest_delay=0.02, budget=None)
        async with HttpClient(timeout=0.2, retries=policy) as client:
            since = asyncio.get_running_loop().time()
            with suppress(TimeoutError):  # the last try may be under way
                assert (await client.fetch(server.url)).status == 503
            with suppress(TimeoutError):
                assert (await client.get(server.url)).status_code == 503
            assert asyncio.get_running_loop().time() - since < 2
            assert 2 < len(server.requests) < 100


async def test_a_server_in_trouble_does_not_get_all_requests_again_and_again() -> None:
    async with peer(failing(10_000, raw=answer(b"", 503))) as server:
        policy = RetryPolicy(3, first_delay=0, longest_delay=0, budget=0.1)
        async with HttpClient(retries=policy) as client:
            for _ in range(200):
                await client.fetch(server.url)
        # A reserve of ten, and a tenth of each request.
        assert 200 + 10 <= len(server.requests) <= 200 + 10 + 20


def test_policies_that_are_none() -> None:
    with pytest.raises(ValueError, match="retries: expected 0 or more"):
        RetryPolicy(-1)
    with pytest.raises(ValueError, match="first_delay"):
        RetryPolicy(first_delay=2, longest_delay=1)


async def test_secrets_are_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    async def fail(client: HttpClient, url: str) -> None:
        for by in (client.fetch, client.get):
            with pytest.raises((httpx.HTTPError, TimeoutError)) as caught:
                await by(url, headers={"authorization": "Bearer s3cret", "cookie": "a=s3cret"})
            said.extend((str(caught.value), repr(caught.value)))

    async with peer(failing(99)) as server, peer(never) as slow:
        policy = RetryPolicy(1, first_delay=0)
        for each in (server, slow):
            url = each.url.replace("//", "//user:s3cret@")
            async with HttpClient(timeout=0.1, retries=policy) as client:
                await fail(client, url)
            async with HttpClient(base_url=url, timeout=0.1, retries=policy) as client:
                await fail(client, "/path")
    async with peer(answering(answer(b"", 404))) as server:
        url = server.url.replace("//", "//user:s3cret@")
        async with HttpClient() as client:
            with pytest.raises(httpx.HTTPStatusError) as caught:
                await client.get_json(url, type=dict)
        assert b"Basic dXNlcjpzM2NyZXQ=" in server.requests[0][0]
        said.append(str(caught.value))
    assert "tried again" in caplog.text
    assert "HTTP Request" in caplog.text  # httpx's own
    said.append(caplog.text)
    assert not [each for each in said if "s3cret" in each or "czNjcmV0" in each]
