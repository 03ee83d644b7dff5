"""Waits that are shorter than the one which the engine's timer is set for are seen in time."""

from __future__ import annotations

import anyio
import pytest

from _serving import make_router, raw, read_all, read_until, serving
from flowcoro_http import HttpConfig

pytestmark = pytest.mark.usefixtures("native_over")


async def test_a_head_that_is_late_while_another_connection_may_idle_for_long() -> None:
    config = HttpConfig(keep_alive_timeout=600, head_timeout=0.2)
    async with serving(make_router(), config=config) as server, raw(server) as idle:
        await idle.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await read_until(idle, b"hello")
        for _ in range(3):
            async with raw(server) as stream:
                await stream.send(b"GET / HTTP/1.1\r\nhost:")
                with anyio.fail_after(30):
                    received = await read_all(stream)
                assert received.startswith(b"HTTP/1.1 408 ")
        await idle.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await read_until(idle, b"hello")
