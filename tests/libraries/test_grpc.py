"""grpc.aio on the native loop, by generic handlers: messages are bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from libraries._support import MEGABYTE, Certificates

# grpc's core watches for events by a thread and a pair of sockets, which it makes once for the
# process.
pytestmark = pytest.mark.keeps_descriptors

OPTIONS = [("grpc.max_receive_message_length", 16 * MEGABYTE)]


class Handler(grpc.GenericRpcHandler):
    """Methods of each kind."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    def service(self, handler_call_details: Any) -> Any:
        return {
            "/test/echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "/test/count": grpc.unary_stream_rpc_method_handler(self.count),
            "/test/sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "/test/talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "/test/hold": grpc.unary_unary_rpc_method_handler(self.hold),
        }.get(handler_call_details.method)

    async def echo(self, request: bytes, context: Any) -> bytes:
        if request == b"refuse":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not that")
        return request

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    async def sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return str(sum([int(request) async for request in requests])).encode()

    async def talk(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()

    async def hold(self, request: bytes, context: Any) -> bytes:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        return b""


@contextlib.asynccontextmanager
async def connected(
    certificates: Certificates | None, handler: Handler | None = None
) -> AsyncIterator[Any]:
    """A channel to a server that lasts for the block."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers([handler or Handler()])
    if certificates is not None:
        pair = (certificates.key.read_bytes(), certificates.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        trusted = grpc.ssl_channel_credentials(certificates.authority.read_bytes())
        channel = grpc.aio.secure_channel(f"localhost:{port}", trusted, options=OPTIONS)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
    await server.start()
    async with channel:
        yield channel
    await server.stop(5)
    await server.wait_for_termination()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def security(request: pytest.FixtureRequest, certificates: Certificates) -> Certificates | None:
    return certificates if request.param else None


async def test_unary_calls(security: Certificates | None) -> None:
    async with connected(security) as channel:
        echo = channel.unary_unary("/test/echo")
        big = os.urandom(8 * MEGABYTE)
        assert await echo(big) == big
        messages = [str(number).encode() for number in range(200)]
        assert await asyncio.gather(*map(echo, messages)) == messages
        with pytest.raises(grpc.aio.AioRpcError, match="not that") as caught:
            await echo(b"refuse")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test/none")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_streams(security: Certificates | None) -> None:
    async with connected(security) as channel:
        seen = [int(answer) async for answer in channel.unary_stream("/test/count")(b"500")]
        assert seen == list(range(500))

        async def numbers() -> AsyncIterator[bytes]:
            for number in range(500):
                yield str(number).encode()

        assert await channel.stream_unary("/test/sum")(numbers()) == str(sum(range(500))).encode()
        call = channel.stream_stream("/test/talk")()
        for word in (b"one", b"two"):
            await call.write(word)
            assert await call.read() == word.upper()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_deadlines_and_cancellation_reach_the_server(security: Certificates | None) -> None:
    handler = Handler()
    async with connected(security, handler) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test/hold")(b"", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        handler.entered.clear()
        handler.cancelled.clear()
        call = channel.unary_unary("/test/hold")(b"")
        task = asyncio.ensure_future(_result(call))
        await handler.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await handler.cancelled.wait()


async def _result(call: Any) -> Any:
    return await call
