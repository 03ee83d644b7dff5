"""The native loop's transports: how they end, and that nothing of them is left then."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from flowcoro import reactor
from flowcoro._loop import Loop
from flowcoro.testing import cancel_at_each_await
from transport_cases import (
    DEADLINE,
    BufferedRecorder,
    Recorder,
    connect,
    descriptors,
    errors_of,
    loop_of,
    tcp_pair,
    turns,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it does not run there yet")

KIB = 1024
KINDS = (Recorder, BufferedRecorder)
AnyRecorder = Recorder | BufferedRecorder
REQUEST = b"GET /all HTTP"
ANSWER = b"200 take it all"


@pytest.fixture(params=reactor.available())
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    with loop_of(request.param) as loop:
        yield loop


def reset(peer: socket.socket) -> None:
    """Close it so that the other end gets an RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def check_end(protocol: AnyRecorder) -> None:
    """All that holds for any end of a connection."""
    assert protocol.calls[0] == "connection_made"
    assert protocol.calls[-1] == "connection_lost"
    assert protocol.calls.count("connection_made") == 1
    assert protocol.calls.count("connection_lost") == 1
    assert protocol.calls.count("eof_received") <= 1
    assert protocol.transport.is_closing()
    assert not protocol.transport.is_reading()


# Peers that reset.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "at once"])
def test_a_peer_resets_at_each_byte_of_its_request(
    loop: Loop, kind: type[AnyRecorder], seen: bool
) -> None:
    """Whether what it sent was read before or comes together with the reset."""
    turns(loop)
    before = descriptors()
    for size in range(len(REQUEST) + 1):
        with errors_of(loop) as told, connect(loop, kind()) as (protocol, peer):
            peer.sendall(REQUEST[:size])
            if seen:
                until(loop, lambda protocol=protocol, size=size: len(protocol.data) == size)
            reset(peer)
            until(loop, lambda protocol=protocol: protocol.lost)
            assert isinstance(protocol.error, ConnectionResetError)
            assert "eof_received" not in protocol.calls
            assert REQUEST[:size].startswith(protocol.data)
            check_end(protocol)
        assert told == []
    assert descriptors() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_resets_at_each_byte_of_the_answer(loop: Loop, kind: type[AnyRecorder]) -> None:
    turns(loop)
    before = descriptors()

    def answer(of: AnyRecorder) -> None:
        if of.data == REQUEST:
            of.transport.write(ANSWER)

    for size in range(len(ANSWER) + 1):
        protocol = kind(data_received=answer, buffer_updated=answer)
        with errors_of(loop) as told, connect(loop, protocol) as (_, peer):
            peer.sendall(REQUEST)
            until(loop, lambda protocol=protocol: protocol.data == REQUEST)
            got = peer.recv(size, socket.MSG_WAITALL) if size else b""
            assert got == ANSWER[:size]
            reset(peer)
            protocol.transport.write(ANSWER)  # it may go, or fail; it raises nothing
            until(loop, lambda protocol=protocol: protocol.lost)
            assert isinstance(protocol.error, ConnectionResetError | BrokenPipeError)
            check_end(protocol)
        assert told == []
    assert descriptors() == before


@pytest.mark.parametrize("end", ["close", "abort"])
def test_this_end_ends_at_each_byte_of_the_exchange(loop: Loop, end: str) -> None:
    """Of what the peer sends, and of what it gets: that is all there then, or a beginning."""
    turns(loop)
    before = descriptors()

    for size in range(len(REQUEST) + 1):
        with connect(loop, Recorder()) as (protocol, peer):
            peer.sendall(REQUEST[:size])
            until(loop, lambda protocol=protocol, size=size: len(protocol.data) == size)
            protocol.transport.write(ANSWER[:size])
            getattr(protocol.transport, end)()
            until(loop, lambda protocol=protocol: protocol.lost)
            assert protocol.error is None
            check_end(protocol)
            got = b""
            while piece := peer.recv(100):
                got += piece
            assert got == ANSWER[:size] if end == "close" else ANSWER[:size].startswith(got)
    assert descriptors() == before


def test_a_reset_while_much_is_unsent(loop: Loop) -> None:
    with errors_of(loop) as told, connect(loop, Recorder()) as (protocol, peer):
        while protocol.transport.get_write_buffer_size() < 100 * KIB:
            protocol.transport.write(bytes(1000 * KIB))
            turns(loop, 2)
        reset(peer)
        until(loop, lambda: protocol.lost)
        assert isinstance(protocol.error, ConnectionResetError | BrokenPipeError)
        assert protocol.transport.get_write_buffer_size() == 0
        check_end(protocol)
    assert told == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_in_a_pause_is_found_when_it_ends(loop: Loop, kind: type[AnyRecorder]) -> None:
    with connect(loop, kind()) as (protocol, peer):
        turns(loop)
        protocol.transport.pause_reading()
        turns(loop)
        reset(peer)
        turns(loop)
        protocol.transport.resume_reading()
        until(loop, lambda: protocol.lost)
        assert isinstance(protocol.error, ConnectionResetError)
        check_end(protocol)


# Ends that the peer sends.


def test_the_end_closes_unless_the_protocol_says_otherwise(loop: Loop) -> None:
    for answer in (None, False, 0):
        with connect(loop, Recorder(eof_received=lambda _, answer=answer: answer)) as (one, peer):
            one.transport.write(bytes(300 * KIB))
            peer.shutdown(socket.SHUT_WR)
            left = 300 * KIB
            while left:
                turns(loop, 2)
                with suppress(BlockingIOError):
                    left -= len(peer.recv(left, socket.MSG_DONTWAIT))
            until(loop, lambda one=one: one.lost)
            assert one.error is None
            assert one.calls.count("eof_received") == 1
            check_end(one)


@pytest.mark.parametrize("ours_first", [True, False])
def test_it_stays_open_when_both_ends_have_come(loop: Loop, ours_first: bool) -> None:
    """The protocol said so, and it is for it to close."""
    with connect(loop, Recorder(eof_received=lambda _: True)) as (protocol, peer):
        if ours_first:
            protocol.transport.write_eof()
            assert peer.recv(1) == b""
        peer.shutdown(socket.SHUT_WR)
        until(loop, lambda: "eof_received" in protocol.calls)
        if not ours_first:
            protocol.transport.write_eof()
            turns(loop)
            assert peer.recv(1) == b""
        turns(loop)
        assert not protocol.transport.is_closing()
        assert "connection_lost" not in protocol.calls
        protocol.transport.close()
        until(loop, lambda: protocol.lost)
        assert protocol.error is None
        check_end(protocol)


def test_the_end_is_not_told_after_close(loop: Loop) -> None:
    with connect(loop, Recorder()) as (protocol, peer):
        peer.shutdown(socket.SHUT_WR)
        protocol.transport.close()
        until(loop, lambda: protocol.lost)
        assert protocol.calls == ["connection_made", "connection_lost"]


# Writes and pauses around close().


def test_writes_after_close(loop: Loop) -> None:
    """As asyncio has it: taken while something is unsent, else dropped without a word."""
    with connect(loop, Recorder()) as (protocol, peer):
        protocol.transport.write(b"before")
        turns(loop)
        protocol.transport.close()
        protocol.transport.write(b"late")
        until(loop, lambda: protocol.lost)
        assert peer.recv(100) == b"before"
        assert peer.recv(100) == b""
        protocol.transport.write(b"late")
        protocol.transport.writelines([b"later"])
        assert protocol.transport.get_write_buffer_size() == 0
        check_end(protocol)


def test_a_write_in_a_callback_that_closed(loop: Loop) -> None:
    """It is refused, or resume_writing, which writes, would be called for ever."""

    def close_and_write(of: Recorder) -> None:
        of.transport.close()
        of.transport.write(b"late")

    protocol = Recorder(resume_writing=close_and_write)
    with connect(loop, protocol) as (_, peer):
        protocol.transport.set_write_buffer_limits(high=0)
        written = 0
        while "pause_writing" not in protocol.calls:
            protocol.transport.write(bytes(1000 * KIB))
            written += 1000 * KIB
        while not protocol.lost:
            turns(loop, 2)
            with suppress(BlockingIOError):
                written -= len(peer.recv(1000 * KIB, socket.MSG_DONTWAIT))
        while piece := peer.recv(1000 * KIB):
            written -= len(piece)
        assert written == 0
        assert protocol.calls.count("resume_writing") == 1
        check_end(protocol)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["close", "abort"])
def test_pauses_across_the_end(loop: Loop, kind: type[AnyRecorder], end: str) -> None:
    with connect(loop, kind()) as (protocol, peer):
        protocol.transport.pause_reading()
        protocol.forbidden = True
        peer.sendall(REQUEST)
        turns(loop)
        getattr(protocol.transport, end)()
        protocol.transport.resume_reading()
        assert not protocol.transport.is_reading()
        protocol.transport.pause_reading()
        until(loop, lambda: protocol.lost)
        protocol.transport.resume_reading()
        turns(loop)
        assert protocol.error is None
        check_end(protocol)


# What is left.

ENDS: dict[str, Callable[[Any, socket.socket], object]] = {
    "close": lambda transport, peer: transport.close(),
    "abort": lambda transport, peer: transport.abort(),
    "the peer's end": lambda transport, peer: peer.shutdown(socket.SHUT_WR),
    "the peer's reset": lambda transport, peer: reset(peer),
    "closed with unsent": lambda transport, peer: (
        transport.write(bytes(100 * KIB)),
        transport.close(),
    ),
    "aborted with unsent": lambda transport, peer: (
        transport.write(bytes(9000 * KIB)),
        transport.abort(),
    ),
    "closed in a pause": lambda transport, peer: (transport.pause_reading(), transport.close()),
}


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left(loop: Loop, kind: type[AnyRecorder], end: str) -> None:
    """Not even for the garbage collector, which does not run."""
    turns(loop)
    mine: Any
    mine, peer = tcp_pair()
    with peer, without_collector():
        before = descriptors()

        def run() -> list[weakref.ref[Any]]:
            protocol = kind()
            loop.run_until_complete(loop.create_connection(lambda: protocol, sock=mine))
            peer.sendall(REQUEST)
            until(loop, lambda: protocol.data == REQUEST)
            ENDS[end](protocol.transport, peer)
            until(loop, lambda: protocol.lost)
            return [weakref.ref(each) for each in (protocol, protocol.transport)]

        left = run()
        left.append(weakref.ref(mine))
        mine = None
        turns(loop, 5)
        assert [each() for each in left] == [None, None, None]
        assert descriptors() == before - 1 - (end == "the peer's reset")


def test_connections_of_a_server_leave_nothing(loop: Loop) -> None:
    made: list[weakref.ref[Any]] = []

    class Noted(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.extend((weakref.ref(self), weakref.ref(transport)))

    async def exchange(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await writer.drain()
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await loop.create_server(Noted, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await exchange(port)
        before = descriptors()
        with without_collector():
            for _ in range(20):
                await exchange(port)
            for _ in range(5):
                await asyncio.sleep(0)
            assert [each() for each in made] == [None] * 42
        assert descriptors() == before
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), DEADLINE))


# Cancellation.


def test_opening_is_cancelled(loop: Loop) -> None:
    """Anywhere: by a socket, by an address, by a stream; and a stream's exchange as well."""

    async def main() -> None:
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def by_socket() -> None:
            sock = socket.create_connection(address)
            sock.setblocking(False)
            try:
                transport, _ = await loop.create_connection(Recorder, sock=sock)
            except asyncio.CancelledError:
                sock.close()
                raise
            transport.close()

        async def by_address() -> None:
            transport, _ = await loop.create_connection(Recorder, *address)
            transport.abort()

        async def exchange() -> None:
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(bytes(300 * KIB))
                await writer.drain()
                writer.write_eof()
                assert await reader.read() == b""
            finally:
                writer.close()
            await writer.wait_closed()

        for scenario in (by_socket, by_address, exchange):
            report = await cancel_at_each_await(scenario, twice=scenario is exchange, settle=1.0)
            assert report.awaits >= 1
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_a_cancelled_opening_tells_the_protocol_its_end(loop: Loop) -> None:
    protocol = Recorder()
    mine, peer = tcp_pair()

    async def main() -> None:
        task = asyncio.ensure_future(loop.create_connection(lambda: protocol, sock=mine))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with peer:
        loop.run_until_complete(main())
        until(loop, lambda: protocol.lost)
        assert protocol.calls == ["connection_made", "connection_lost"]
        assert protocol.error is None
        turns(loop)
        assert mine.fileno() == -1


# The loop's end.


@pytest.mark.parametrize("state", ["idle", "paused", "unsent", "closing", "not begun"])
def test_the_loop_is_closed_before(loop: Loop, state: str) -> None:
    """Nobody is told, since nothing runs any more; who drops it is warned."""
    gc.collect()
    before = descriptors()
    protocol: Any = Recorder()
    mine: Any
    mine, peer = tcp_pair()
    with peer:
        if state == "not begun":
            transport: Any = loop._make_socket_transport(mine, protocol)
        else:
            loop.run_until_complete(loop.create_connection(lambda: protocol, sock=mine))
            transport = protocol.transport
        mine = None
        if state == "paused":
            transport.pause_reading()
        elif state in ("unsent", "closing"):
            transport.write(bytes(9000 * KIB))
            turns(loop)
        if state == "closing":
            transport.close()
        turns(loop, 0 if state == "not begun" else 2)
        calls = protocol.calls[:]
        loop.run_until_complete(loop.shutdown_default_executor())
        calls = protocol.calls[:] if state == "not begun" else calls
        loop.close()
        assert protocol.calls == calls
        transport.write(b"late")
        transport.close()
        transport.abort()
        transport.pause_reading()
        transport.resume_reading()
        assert transport.is_closing()
        assert transport.get_write_buffer_size() == 0
        repr(transport)
        protocol.actions = {}
        dropped = [transport, protocol]
        transport = protocol = None
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            dropped.clear()
        peer.settimeout(DEADLINE)
        with suppress(ConnectionResetError):
            while peer.recv(1000 * KIB):
                pass
    assert descriptors() <= before


def test_a_protocol_that_refuses_its_end_is_told_once(loop: Loop) -> None:
    """An exception in connection_lost goes to the exception handler; the socket is closed."""

    def refuse(_: AnyRecorder) -> None:
        raise ZeroDivisionError

    turns(loop)
    before = descriptors()
    with errors_of(loop) as told, connect(loop, Recorder(connection_lost=refuse)) as (one, peer):
        one.transport.close()
        until(loop, lambda: told)
        assert peer.recv(1) == b""
        turns(loop)
        check_end(one)
    assert [type(each["exception"]) for each in told] == [ZeroDivisionError]
    assert descriptors() == before


def test_who_drains_after_the_end_of_writing_is_told_when_it_has_gone(loop: Loop) -> None:
    much = bytes(8_000_000)

    async def main() -> None:
        ours, peer = tcp_pair()
        with peer:
            peer.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=ours)
            writer.write(much)
            writer.write_eof()
            draining = asyncio.ensure_future(writer.drain())
            received = 0
            while piece := await loop.sock_recv(peer, 1 << 20):
                received += len(piece)
            assert received == len(much)
            await asyncio.wait_for(draining, DEADLINE)  # though the peer stays
            await loop.sock_sendall(peer, b"answer")
            assert await reader.readexactly(6) == b"answer"
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(main())
