from __future__ import annotations

import errno
import socket
from typing import Any

import anyio
import pytest

import flowcoro_http.plugin as our_plugin
from _serving import make_router, serving
from flowcoro.app import App
from flowcoro.errors import StartupError
from flowcoro.testing import make_context, make_host
from flowcoro_http import (
    HttpServer,
    ListenError,
    ServerBackend,
    ServerFailedError,
    _sockets,
)
from flowcoro_http._sockets import open_sockets, url_of


async def test_an_address_in_use_is_named() -> None:
    async with serving(make_router()) as server:
        second = HttpServer(make_router(), host="127.0.0.1", port=server.port)
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{server.port}: .*is in use"):
            async with second:
                raise AssertionError("not reached")
        with pytest.raises(StartupError, match=rf"'http'.*127\.0\.0\.1:{server.port}"):
            async with App(second, plugins=make_host(our_plugin)):
                raise AssertionError("not reached")


async def test_addresses() -> None:
    for host, words in (("no.such.host.invalid", "no.such.host.invalid:0"), ("192.0.2.1", "192")):
        with pytest.raises(ListenError, match=words):
            await open_sockets(host, 0, backlog=1)
    listeners = await open_sockets("", 0, backlog=1)
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()
    listeners = await open_sockets("localhost", 0, backlog=1)
    assert url_of(listeners[0], secure=True, host="localhost").startswith("https://localhost:")
    for listener in listeners:
        listener.close()


async def test_urls_of_every_interface() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener, secure=False) == f"http://127.0.0.1:{port}"
    if socket.has_dualstack_ipv6():
        with socket.create_server(("::", 0), family=socket.AF_INET6) as listener:
            port = listener.getsockname()[1]
            assert url_of(listener, secure=False, host="::") == f"http://[::1]:{port}"


async def test_a_port_that_is_taken_on_the_second_address_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []
    genuine = _sockets._listen

    def listen(*arguments: Any, **options: Any) -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError(errno.EADDRINUSE, "in use")
        return genuine(*arguments, **options)

    async def getaddrinfo(*arguments: Any, **options: Any) -> Any:
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET, stream, 0, "", ("127.0.0.1", 0)),
            (socket.AF_INET, stream, 0, "", ("127.0.0.2", 0)),
            (socket.AF_INET, stream, 0, "", ("192.0.2.1", 0)),  # not this machine's
        ]

    monkeypatch.setattr(_sockets, "_listen", listen)
    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    listeners = await open_sockets("x", 0, backlog=1)
    assert len(attempts) == 2
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    assert len(listeners) == 2
    for listener in listeners:
        listener.close()


async def test_reasons_for_not_listening() -> None:
    assert "privileges" in _sockets._reason(OSError(errno.EACCES, "x"))
    assert _sockets._reason(OSError(errno.EIO, "x")) == "x"
    assert _sockets._show("::1", 5) == "[::1]:5"


async def test_two_workers_share_a_port() -> None:
    first = HttpServer(make_router(), host="127.0.0.1", port=0)
    first.attach(make_context(plugins=[our_plugin], workers=2))
    async with first:
        second = HttpServer(make_router(), host="127.0.0.1", port=first.port)
        second.attach(make_context(plugins=[our_plugin], workers=2))
        async with second:
            assert second.port == first.port


class _Broken:
    def __init__(self, when: str) -> None:
        self.when = when
        self.fail = anyio.Event()

    async def serve(self, app: Any, sockets: Any, *, started: Any, shutdown: anyio.Event) -> None:
        if self.when == "start":
            raise RuntimeError("cannot serve")
        started()
        await self.fail.wait()
        if self.when == "crash":
            raise RuntimeError("crashed")


async def test_a_backend_that_fails_at_start() -> None:
    server = HttpServer(
        make_router(), port=0, backend=ServerBackend("broken", lambda _: _Broken("start"))
    )
    with pytest.raises(RuntimeError, match="cannot serve"):
        async with server:
            raise AssertionError("not reached")


@pytest.mark.parametrize(("when", "error"), [("crash", RuntimeError), ("end", ServerFailedError)])
async def test_a_backend_that_fails_later(when: str, error: type[Exception]) -> None:
    broken = _Broken(when)
    server = HttpServer(make_router(), port=0, backend=ServerBackend("b", lambda _: broken))

    async def run() -> None:
        async with server:
            broken.fail.set()
            await anyio.sleep_forever()

    with pytest.raises(error):
        await run()


async def test_an_application_stops_when_its_backend_fails() -> None:
    broken = _Broken("crash")
    server = HttpServer(make_router(), port=0, backend=ServerBackend("b", lambda _: broken))
    app = App(server, plugins=make_host(our_plugin))
    from flowcoro.errors import FlowcoroError

    with anyio.fail_after(10), pytest.raises(FlowcoroError, match="http"):
        await app.serve(on_started=broken.fail.set)
