"""What the native loop accepts: transports that have no Python object of their socket."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import io
import os
import socket
import sys
from asyncio import constants
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flowcoro import reactor
from flowcoro._loop import Loop
from flowcoro._loop._transports import SocketTransport

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it does not run there yet")

HOST = "127.0.0.1"


@pytest.fixture(params=reactor.available() if sys.platform != "win32" else ())
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param)
    yield loop
    if not loop.is_closed():
        loop.close()


class Recorder(asyncio.Protocol):
    """Keeps its transport, and what it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.data = b""
        self.lost: list[BaseException | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)


def run_until(loop: Loop, condition: Callable[[], bool]) -> None:
    end = loop.time() + 30
    while not condition():
        assert loop.time() < end
        loop.run_until_complete(asyncio.sleep(0))


@contextmanager
def serving(loop: Loop, factory: Callable[[], Any], host: str = HOST) -> Iterator[Any]:
    """Have a server; yields it."""
    server = loop.run_until_complete(loop.create_server(factory, host, 0))
    try:
        yield server
    finally:
        if not loop.is_closed():
            server.close()
            loop.run_until_complete(asyncio.sleep(0))


def connect(server: Any) -> socket.socket:
    return socket.create_connection(server.sockets[0].getsockname()[:2], timeout=30)


def told(loop: Loop) -> list[dict[str, Any]]:
    """Have what the loop's exception handler is told in the list."""
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


def python_sockets() -> int:
    return sum(type(each) is socket.socket for each in gc.get_objects())


def test_its_socket_is_made_when_it_is_asked_for(loop: Loop) -> None:
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    with serving(loop, factory) as server, connect(server) as client:
        before = python_sockets()
        run_until(loop, lambda: bool(made and made[0].transport))
        transport = made[0].transport
        assert python_sockets() == before
        assert transport.get_extra_info("peername") == client.getsockname()
        assert transport.get_extra_info("sockname") == client.getpeername()
        assert python_sockets() == before
        sock = transport.get_extra_info("socket")
        assert python_sockets() == before + 1
        assert sock.fileno() == transport.get_extra_info("socket").fileno()
        assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert sock.gettimeout() == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()
        run_until(loop, lambda: bool(made[0].lost))
        assert sock.fileno() == -1
        assert client.recv(1) == b""
        assert transport.get_extra_info("socket") is None
        assert transport.get_extra_info("peername") == client.getsockname()


@pytest.mark.parametrize("asked", [False, True])
def test_its_descriptor_is_closed_once(loop: Loop, asked: bool) -> None:
    recorder = Recorder()
    with serving(loop, lambda: recorder) as server, connect(server) as client:
        run_until(loop, lambda: recorder.transport is not None)
        transport = recorder.transport
        fd = transport._sock_fd
        if asked:
            transport.get_extra_info("socket")
        transport.write(b"bye")
        transport.close()
        run_until(loop, lambda: bool(recorder.lost))
        assert recorder.lost == [None]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        other = os.open(os.devnull, os.O_RDONLY)  # most likely that number
        recorder.transport = None
        del transport
        gc.collect()
        os.fstat(other)
        os.close(other)
        assert client.recv(10) == b"bye"


def test_one_that_is_open_when_the_loop_closes_is_told_of(loop: Loop) -> None:
    recorder = Recorder()
    with serving(loop, lambda: recorder) as server, connect(server) as client:
        run_until(loop, lambda: recorder.transport is not None)
        server.close()
        loop.close()
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            recorder.__dict__.clear()
        assert client.recv(1) == b""


def test_over_ipv6(loop: Loop) -> None:
    recorder = Recorder()
    try:
        with serving(loop, lambda: recorder, "::1") as server, connect(server) as client:
            run_until(loop, lambda: recorder.transport is not None)
            assert recorder.transport.get_extra_info("peername") == client.getsockname()
            assert recorder.transport.get_extra_info("sockname") == client.getpeername()
            recorder.transport.close()
            run_until(loop, lambda: bool(recorder.lost))
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        pytest.skip("there is no IPv6")


def test_each_connection_has_a_context_of_its_own(loop: Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[list[str]] = []
    lost: list[BaseException | None] = []

    class Speaker(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.seen = [variable.get()]
            seen.append(self.seen)
            variable.set(f"factory {len(seen)}")

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.seen.append(variable.get())
            variable.set("made")
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            self.seen.append(variable.get())
            self.transport.close()

        def connection_lost(self, exc: BaseException | None) -> None:
            lost.append(exc)

    variable.set("server")
    with serving(loop, Speaker) as server, connect(server) as one, connect(server) as two:
        one.send(b"x")
        two.send(b"x")
        run_until(loop, lambda: len(lost) == 2)
    assert seen == [["server", f"factory {i}", "made"] for i in (1, 2)]
    variable.set("none")


def test_a_factory_that_raises_costs_its_connection_only(loop: Loop) -> None:
    contexts = told(loop)
    made: list[Recorder] = []
    fails = [True]

    def factory() -> Recorder:
        if fails.pop() if fails else False:
            raise LookupError("no protocol")
        made.append(Recorder())
        return made[-1]

    with serving(loop, factory) as server:
        with connect(server) as first:
            run_until(loop, lambda: bool(contexts))
            assert first.recv(1) == b""
        with connect(server):
            run_until(loop, lambda: bool(made and made[0].transport))
        run_until(loop, lambda: bool(made[0].lost))
    assert [type(each["exception"]) for each in contexts] == [LookupError]
    assert contexts[0]["message"] == "Error on transport creation for incoming connection"


def test_a_factory_may_end_the_loop(loop: Loop) -> None:
    def factory() -> Recorder:
        raise SystemExit(3)

    with serving(loop, factory) as server, connect(server) as client:
        with pytest.raises(SystemExit):
            run_until(loop, lambda: False)
        assert client.recv(1) == b""


def test_a_factory_may_close_its_server(loop: Loop) -> None:
    contexts = told(loop)
    servers: list[Any] = []

    def factory() -> Recorder:
        servers[0].close()
        return Recorder()

    with serving(loop, factory) as server:
        servers.append(server)
        address = server.sockets[0].getsockname()
        with socket.create_connection(address) as one, socket.create_connection(address):
            run_until(loop, lambda: not server.is_serving())
            assert one.recv(1) in (b"",)
        loop.run_until_complete(server.wait_closed())
    assert all("creation" in each["message"] for each in contexts)


def test_without_descriptors_it_waits_and_goes_on(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(constants, "ACCEPT_RETRY_DELAY", 0.01)
    contexts = told(loop)
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    with serving(loop, factory) as server, connect(server) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            run_until(loop, lambda: len(contexts) >= 2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not made
        run_until(loop, lambda: bool(made and made[0].transport))
        assert contexts[0]["message"] == "socket.accept() out of system resource"
        assert contexts[0]["exception"].errno == errno.EMFILE
        client.send(b"served")
        run_until(loop, lambda: made[0].data == b"served")
        made[0].transport.close()
        run_until(loop, lambda: bool(made[0].lost))


def test_a_server_that_closes_while_it_waits_stays_closed(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(constants, "ACCEPT_RETRY_DELAY", 0.01)
    contexts = told(loop)
    with serving(loop, Recorder) as server, connect(server):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            run_until(loop, lambda: bool(contexts))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server.close()
        loop.run_until_complete(asyncio.sleep(0.03))
    assert {each["message"] for each in contexts} == {"socket.accept() out of system resource"}


def test_debug_mode_logs_each_connection(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    loop.set_debug(True)
    caplog.set_level("DEBUG", "asyncio")
    with serving(loop, lambda: recorder) as server, connect(server):
        run_until(loop, lambda: recorder.transport is not None)
        recorder.transport.close()
        run_until(loop, lambda: bool(recorder.lost))
    assert any("got a new connection" in each.message for each in caplog.records)


def test_a_file_that_is_none_of_the_kernels_goes_out_by_asyncios_fallback(loop: Loop) -> None:
    recorder = Recorder()
    text = bytes(range(256)) * 2_000

    async def send() -> None:
        await loop.sendfile(recorder.transport, io.BytesIO(text))
        recorder.transport.close()

    async def receive(client: socket.socket) -> bytes:
        got = b""
        while data := await loop.sock_recv(client, 65536):
            got += data
        return got

    with serving(loop, lambda: recorder) as server, connect(server) as client:
        run_until(loop, lambda: recorder.transport is not None)
        client.setblocking(False)

        async def both() -> bytes:
            return (await asyncio.gather(receive(client), send()))[0]

        assert loop.run_until_complete(both()) == text
    assert recorder.lost == [None]


def test_limits_are_kept_and_the_defaults_are_asyncios(loop: Loop) -> None:
    recorder = Recorder()
    with serving(loop, lambda: recorder) as server, connect(server):
        run_until(loop, lambda: recorder.transport is not None)
        transport = recorder.transport
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits(high=1000, low=10)
        assert transport.get_write_buffer_limits() == (10, 1000)
        waiter = transport._make_empty_waiter()
        assert transport.get_write_buffer_limits() == (10, 1000)
        assert waiter.done()
        transport._reset_empty_waiter()
        assert transport.get_write_buffer_limits() == (10, 1000)
        transport.close()
        run_until(loop, lambda: bool(recorder.lost))


def test_a_transport_is_small() -> None:
    assert SocketTransport.__basicsize__ <= 160  # there may be hundreds of thousands
