"""The native loop's transports: what their protocols are told, whatever they do in it."""

from __future__ import annotations

import asyncio
import contextvars
import random
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from flowcoro import reactor
from flowcoro._loop import Loop
from transport_cases import (
    DEADLINE,
    BufferedRecorder,
    Recorder,
    connect,
    errors_of,
    loop_of,
    tcp_pair,
    turns,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it does not run there yet")

KIB = 1024
# More than one receive's: 64 KiB over io_uring, 256 KiB over epoll.
LARGE = random.Random(1).randbytes(1000 * KIB)
KINDS = (Recorder, BufferedRecorder)
AnyRecorder = Recorder | BufferedRecorder


@pytest.fixture(params=reactor.available())
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    with loop_of(request.param) as loop:
        yield loop


def send_all(loop: Loop, peer: socket.socket, data: bytes) -> None:
    """Have the peer send it while the loop runs."""
    loop.run_until_complete(loop.run_in_executor(None, peer.sendall, data))


def read_to_end(loop: Loop, peer: socket.socket) -> bytes:
    """Return what the peer gets until the end comes."""

    def read() -> bytes:
        pieces = []
        while piece := peer.recv(256 * KIB):
            pieces.append(piece)
        return b"".join(pieces)

    return loop.run_until_complete(loop.run_in_executor(None, read))


def wide(kind: type[AnyRecorder], **actions: Callable[[Any], object]) -> AnyRecorder:
    """Return one whose buffer, if it has one, is usable for much data."""
    made = kind(**actions)
    if isinstance(made, BufferedRecorder):
        made.size = 1001
    return made


# Reading.


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_comes_is_handed_over_in_order(loop: Loop, kind: type[AnyRecorder]) -> None:
    with connect(loop, wide(kind)) as (protocol, peer):
        send_all(loop, peer, LARGE)
        peer.shutdown(socket.SHUT_WR)
        until(loop, lambda: protocol.lost)
        assert bytes(protocol.data) == LARGE
        assert protocol.calls[-2:] == ["eof_received", "connection_lost"]
        assert protocol.error is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_or_comes_in_pauses(loop: Loop, kind: type[AnyRecorder], seed: int) -> None:
    chance = random.Random(seed)
    protocol = wide(kind)

    def pause(_: Any = None) -> None:
        protocol.forbidden = True
        protocol.transport.pause_reading()
        assert not protocol.transport.is_reading()

    def resume() -> None:
        protocol.forbidden = False
        protocol.transport.resume_reading()
        assert protocol.transport.is_reading()

    def perhaps(_: Any) -> None:
        for act in chance.choices((pause, resume), k=chance.randrange(4)):
            act()
        if protocol.forbidden and chance.random() < 0.5:
            loop.call_soon(resume)

    protocol.actions = dict.fromkeys(("data_received", "buffer_updated"), perhaps)
    with connect(loop, protocol) as (_, peer):
        sent = loop.run_in_executor(None, peer.sendall, LARGE)

        def done() -> bool:
            if protocol.forbidden and chance.random() < 0.2:
                resume()
            elif chance.random() < 0.1:
                pause()
            return len(protocol.data) == len(LARGE)

        until(loop, done)
        loop.run_until_complete(sent)
        assert bytes(protocol.data) == LARGE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 64 * KIB, 256 * KIB, len(LARGE)])
def test_what_comes_in_a_pause_waits_and_so_does_the_end(
    loop: Loop, kind: type[AnyRecorder], size: int
) -> None:
    with connect(loop, wide(kind)) as (protocol, peer):
        protocol.transport.pause_reading()
        protocol.transport.pause_reading()
        protocol.forbidden = True
        sent = loop.run_in_executor(None, peer.sendall, LARGE[:size])
        turns(loop)
        protocol.forbidden = False
        protocol.transport.resume_reading()
        protocol.transport.resume_reading()
        loop.run_until_complete(sent)
        protocol.transport.pause_reading()
        peer.shutdown(socket.SHUT_WR)
        turns(loop)
        assert "eof_received" not in protocol.calls
        protocol.transport.resume_reading()
        until(loop, lambda: protocol.lost)
        assert bytes(protocol.data) == LARGE[:size]


@pytest.mark.parametrize("kind", KINDS)
def test_pauses_that_are_over_at_once(loop: Loop, kind: type[AnyRecorder]) -> None:
    """They start the next receive from within the callback of this one."""

    def pause(of: AnyRecorder) -> None:
        of.transport.pause_reading()
        of.transport.resume_reading()

    protocol = kind(data_received=pause, buffer_updated=pause)
    if isinstance(protocol, BufferedRecorder):
        protocol.size = 512 * KIB
    with errors_of(loop) as told, connect(loop, protocol) as (_, peer):
        for _ in range(5):
            protocol.data.clear()
            send_all(loop, peer, LARGE)
            until(loop, lambda: len(protocol.data) == len(LARGE))
            assert bytes(protocol.data) == LARGE
        assert told == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_held_in_a_pause_needs_nothing_else_to_come(
    loop: Loop, kind: type[AnyRecorder]
) -> None:
    """Another connection's protocol pauses it while its data is held until the turn's end.

    Which it is over io_uring, where that fills a buffer.
    """
    held, other = wide(kind), Recorder()

    def pause(_: Any) -> None:
        held.transport.pause_reading()
        held.forbidden = True

    async def resume() -> None:
        came = loop.create_future()
        name = "data_received" if kind is Recorder else "buffer_updated"
        held.actions = {
            name: lambda of: came.set_result(None) if len(of.data) == 64 * KIB else None,
        }
        held.forbidden = False
        loop.call_later(0.01, held.transport.resume_reading)  # when nothing else is to be done
        late: list[bool] = []
        timer = loop.call_later(DEADLINE / 6, late.append, True)
        await came
        timer.cancel()
        assert not late

    other.actions = {"data_received": pause}
    with connect(loop, held) as (_, first), connect(loop, other) as (_, second):
        turns(loop)
        first.sendall(LARGE[: 64 * KIB])
        second.sendall(b"pause")
        until(loop, lambda: other.data)
        before = len(held.data)
        turns(loop)
        assert len(held.data) == before
        if before < 64 * KIB:
            loop.run_until_complete(resume())
        assert bytes(held.data) == LARGE[: 64 * KIB]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["pause_reading", "close", "abort"])
def test_the_end_that_came_with_the_data(loop: Loop, kind: type[AnyRecorder], act: str) -> None:
    """It is told after the data, so a pause or an end in between comes first."""

    def once(of: AnyRecorder) -> None:
        of.actions = {}
        of.forbidden = True
        getattr(of.transport, act)()

    protocol = wide(kind, data_received=once, buffer_updated=once)
    with connect(loop, protocol) as (_, peer):
        turns(loop)
        peer.sendall(LARGE[: 256 * KIB])
        peer.shutdown(socket.SHUT_WR)
        until(loop, lambda: protocol.data)
        turns(loop)
        assert "eof_received" not in protocol.calls
        if act == "pause_reading":
            protocol.forbidden = False
            protocol.transport.resume_reading()
            until(loop, lambda: protocol.lost)
            assert bytes(protocol.data) == LARGE[: 256 * KIB]
            assert protocol.calls[-2:] == ["eof_received", "connection_lost"]
        else:
            until(loop, lambda: protocol.lost)
            assert protocol.error is None
            assert "eof_received" not in protocol.calls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["close", "abort"])
def test_nothing_comes_after_the_end_was_asked_for(
    loop: Loop, kind: type[AnyRecorder], end: str
) -> None:
    """Though it was held already: full buffers are handed over together, at a turn's end."""
    protocols = [wide(kind), wide(kind)]

    def close_other(of: AnyRecorder) -> None:
        for each in protocols:
            each.forbidden = True
            getattr(each.transport, end)()

    for each in protocols:
        each.actions = {"data_received": close_other, "buffer_updated": close_other}
    with (
        connect(loop, protocols[0]) as (_, first),
        connect(loop, protocols[1]) as (_, second),
    ):
        first.setblocking(False)
        second.setblocking(False)
        for peer in (first, second):
            assert peer.send(LARGE) >= 256 * KIB
        until(loop, lambda: all(each.lost for each in protocols))
        assert sorted(map(bool, (each.data for each in protocols))) == [False, True]


def test_another_protocol_gets_the_rest(loop: Loop) -> None:
    """Though the first had a buffer of a few bytes, and more is there."""
    later = Recorder()

    def switch(of: AnyRecorder) -> None:
        of.transport.set_protocol(later)
        later.connection_made(of.transport)

    with connect(loop, BufferedRecorder(buffer_updated=switch)) as (first, peer):
        send_all(loop, peer, LARGE)
        until(loop, lambda: len(first.data) + len(later.data) == len(LARGE))
        assert len(first.data) == first.size
        assert bytes(first.data + later.data) == LARGE
        assert first.transport.get_protocol() is later
        peer.close()
        until(loop, lambda: later.lost)
        assert not first.lost


@pytest.mark.parametrize("seed", range(6))
def test_protocols_of_both_kinds_take_turns(loop: Loop, seed: int) -> None:
    """At any of their callbacks, in a pause or not, several times for one receive."""
    chance = random.Random(seed)
    received = bytearray()
    reading = True

    def note(of: AnyRecorder) -> None:
        nonlocal reading
        assert of is transport.get_protocol()
        received.extend(of.data)
        of.data.clear()
        if chance.random() < 0.3:
            reading = False
            transport.pause_reading()
        if chance.random() < 0.5:
            transport.set_protocol(made())

    def made() -> AnyRecorder:
        protocol = chance.choice(KINDS)(data_received=note, buffer_updated=note)
        if isinstance(protocol, BufferedRecorder):
            protocol.size = chance.choice([1000, 10 * KIB, 100 * KIB])
        protocol.transport = transport
        return protocol

    with connect(loop, Recorder()) as (first, peer):
        transport = first.transport
        transport.set_protocol(made())
        sent = loop.run_in_executor(None, peer.sendall, LARGE)

        def done() -> bool:
            nonlocal reading
            if not reading:
                reading = True
                transport.resume_reading()
            return len(received) == len(LARGE)

        until(loop, done)
        loop.run_until_complete(sent)
        assert received == LARGE


def test_another_protocol_may_take_over_in_a_pause(loop: Loop) -> None:
    later = BufferedRecorder()

    def switch(of: AnyRecorder) -> None:
        of.transport.pause_reading()
        of.forbidden = later.forbidden = True
        of.transport.set_protocol(later)

    with connect(loop, Recorder(data_received=switch)) as (first, peer):
        sent = loop.run_in_executor(None, peer.sendall, LARGE[: 300 * KIB])
        until(loop, lambda: first.data)
        turns(loop)
        assert not later.data
        later.forbidden = False
        later.transport = first.transport
        first.transport.resume_reading()
        until(loop, lambda: len(first.data) + len(later.data) == 300 * KIB)
        loop.run_until_complete(sent)
        assert bytes(first.data + later.data) == LARGE[: 300 * KIB]


# Writing.


def test_what_the_last_callback_writes_goes_out(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with theirs:
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ours))
        loop.call_soon(transport.write, b"the last")
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert theirs.recv(100) == b"the last"
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0))


def test_the_protocol_is_told_when_to_pause_writing(loop: Loop) -> None:
    with connect(loop, Recorder()) as (protocol, peer):
        transport = protocol.transport
        transport.set_write_buffer_limits(high=100 * KIB)
        assert transport.get_write_buffer_limits() == (25 * KIB, 100 * KIB)
        written = 0
        while "pause_writing" not in protocol.calls:
            transport.write(LARGE)
            written += len(LARGE)
            until(loop, lambda: True)
        transport.write(b"x")
        assert protocol.calls.count("pause_writing") == 1
        assert transport.get_write_buffer_size() > 100 * KIB
        transport.close()
        got = read_to_end(loop, peer)
        until(loop, lambda: protocol.lost)
        assert len(got) == written + 1
        assert transport.get_write_buffer_size() == 0


def test_limits_that_change(loop: Loop) -> None:
    with connect(loop, Recorder()) as (protocol, peer):
        transport = protocol.transport
        transport.set_write_buffer_limits(high=1 << 30)
        written = 0
        while transport.get_write_buffer_size() < 256 * KIB:
            transport.write(LARGE)
            written += len(LARGE)
            until(loop, lambda: True)
        assert "pause_writing" not in protocol.calls
        transport.set_write_buffer_limits(high=0)
        assert "pause_writing" in protocol.calls
        transport.set_write_buffer_limits(high=1 << 30, low=1 << 29)
        # As long as the kernel has enough to send nothing shows that less is unsent.
        left = loop.run_in_executor(None, read_some, peer, written)
        until(loop, lambda: "resume_writing" in protocol.calls)
        loop.run_until_complete(left)
        for wrong in ({"high": 1, "low": 2}, {"low": -1, "high": 5}):
            with pytest.raises(ValueError, match="must be >="):
                transport.set_write_buffer_limits(**wrong)


def read_some(peer: socket.socket, size: int) -> None:
    while size > 0 and (got := len(peer.recv(size))):
        size -= got


def test_writes_that_are_refused(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    with connect(loop, Recorder()) as (protocol, peer):
        transport = protocol.transport
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError, match="bytes-like"):
                transport.write(wrong)  # type: ignore[arg-type]
        transport.write_eof()
        transport.write_eof()
        assert transport.can_write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"late")
        assert read_to_end(loop, peer) == b""
        peer.sendall(b"still")  # half of it is closed
        until(loop, lambda: protocol.data == b"still")
        transport.close()
        until(loop, lambda: protocol.lost)
    with connect(loop, Recorder()) as (protocol, peer):
        protocol.transport.close()
        until(loop, lambda: protocol.lost)
        for _ in range(10):
            protocol.transport.write(b"late")
            protocol.transport.writelines([b"la", b"te"])
        assert protocol.transport.is_closing()
        assert "socket.send() raised exception" in caplog.text


@pytest.mark.parametrize("piece", [1, 1000, 200 * KIB])
def test_what_was_written_goes_before_the_end(loop: Loop, piece: int) -> None:
    for end in ("close", "write_eof"):
        with connect(loop, Recorder()) as (protocol, peer):
            begin = 0
            for _ in range(1 if piece > KIB else 500):
                data: Any = bytearray(LARGE[begin : begin + piece])
                protocol.transport.write(data)
                data[:] = bytes(len(data))  # it was copied, or has gone
                begin += piece
            getattr(protocol.transport, end)()
            assert read_to_end(loop, peer) == LARGE[:begin]


# What callbacks see and do.

CALLBACKS = (
    "connection_made",
    "data_received",
    "get_buffer",
    "buffer_updated",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
)


def provoke(loop: Loop, name: str, act: Callable[[AnyRecorder], object]) -> AnyRecorder:
    """Have a protocol's method called, in which it acts, and have the connection end."""
    kind = BufferedRecorder if "buffer" in name else Recorder
    protocol = kind(**{name: act})
    mine, peer = tcp_pair()
    with peer:

        async def main() -> None:
            await loop.create_connection(lambda: protocol, sock=mine)
            if name.endswith("_writing") and not protocol.transport.is_closing():
                protocol.transport.set_write_buffer_limits(high=0)
                protocol.transport.write(LARGE * 8)

        loop.run_until_complete(main())
        with suppress(OSError):  # it may have ended at once
            peer.sendall(b"data")
            if not name.endswith("_writing"):
                peer.shutdown(socket.SHUT_WR)
        if name == "resume_writing":
            loop.run_until_complete(loop.run_in_executor(None, read_some, peer, len(LARGE) * 8))
        elif name == "pause_writing":
            assert name in protocol.calls
            protocol.transport.abort()
        until(loop, lambda: name in protocol.calls)
        if name == "resume_writing":
            protocol.transport.close()
        until(loop, lambda: protocol.lost and protocol.transport._sock is None)  # type: ignore[attr-defined]
    return protocol


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("name", CALLBACKS)
def test_each_callback_may_end_it(loop: Loop, name: str, end: str) -> None:
    def act(of: AnyRecorder) -> None:
        getattr(of.transport, end)()
        getattr(of.transport, end)()
        of.transport.pause_reading()
        of.transport.resume_reading()
        of.transport.write(b"late")

    with errors_of(loop) as told:
        protocol = provoke(loop, name, act)
    assert protocol.calls[0] == "connection_made"
    assert protocol.calls[-1] == "connection_lost"
    assert protocol.calls.count("connection_lost") == 1
    assert protocol.error is None
    assert told == []
    if name == "connection_made":
        assert protocol.calls == ["connection_made", "connection_lost"]


@pytest.mark.parametrize("name", CALLBACKS)
def test_what_a_callback_raises_is_told(loop: Loop, name: str) -> None:
    def act(of: AnyRecorder) -> None:
        raise ZeroDivisionError(name)

    with errors_of(loop) as told:
        protocol = provoke(loop, name, act)
    assert {type(each["exception"]) for each in told} == {ZeroDivisionError}
    assert all(each["protocol"] is protocol for each in told)
    assert protocol.calls.count("connection_lost") == 1
    fatal = name in ("data_received", "get_buffer", "buffer_updated", "eof_received")
    assert isinstance(protocol.error, ZeroDivisionError) == fatal


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", CALLBACKS)
def test_what_must_end_the_loop_does(loop: Loop, name: str, error: type[BaseException]) -> None:
    raised = 0

    def act(of: AnyRecorder) -> None:
        nonlocal raised
        raised += 1
        raise error(name)

    ended = 0
    mine, peer = tcp_pair()
    kind = BufferedRecorder if "buffer" in name else Recorder
    protocol = kind(**{name: act})
    with peer, errors_of(loop) as told:
        peer.sendall(b"data")
        opened = loop.create_task(write_too_much(loop, protocol, mine))
        if not name.endswith("_writing"):
            peer.shutdown(socket.SHUT_WR)
        reading = loop.run_in_executor(None, read_some, peer, 8 * len(LARGE))
        while not protocol.lost:
            try:
                until(loop, lambda: protocol.lost)
            except error:
                ended += 1
                protocol.transport.abort()
        peer.close()
        loop.run_until_complete(asyncio.wait([reading, opened]))
        reading.exception()
    assert ended == raised > 0
    assert protocol.calls.count("connection_lost") == 1
    assert [each for each in told if isinstance(each["exception"], error)] == []


async def write_too_much(loop: Loop, protocol: AnyRecorder, mine: socket.socket) -> None:
    await loop.create_connection(lambda: protocol, sock=mine)
    protocol.transport.set_write_buffer_limits(high=0)
    protocol.transport.write(LARGE * 8)


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_see_the_context_that_it_was_opened_in(loop: Loop, name: str) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(variable.set, "opened")
    context.run(provoke, loop, name, lambda _: seen.append(variable.get()))
    assert set(seen) == {"opened"}


def test_a_half_closed_connection_stays_if_the_protocol_wants(loop: Loop) -> None:
    with connect(loop, Recorder(eof_received=lambda _: True)) as (protocol, peer):
        peer.shutdown(socket.SHUT_WR)
        until(loop, lambda: "eof_received" in protocol.calls)
        turns(loop)
        assert not protocol.transport.is_closing()
        protocol.transport.write(LARGE)
        protocol.transport.close()
        assert read_to_end(loop, peer) == LARGE
        until(loop, lambda: protocol.lost)
        assert protocol.error is None
