"""The native loop's transports of datagrams: what is native, and where asyncio takes over."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowcoro import reactor
from flowcoro._loop import Loop
from flowcoro._loop._datagrams import DatagramTransport
from transport_cases import loop_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it does not run there yet")

HOST = "127.0.0.1"


@pytest.fixture(params=reactor.available() if sys.platform != "win32" else ())
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    with loop_of(request.param) as loop:
        yield loop


class Recorder(asyncio.DatagramProtocol):
    """Keeps what it is told; `then` does more with each datagram."""

    def __init__(self, then: Callable[[Recorder, bytes, Any], object] | None = None) -> None:
        self.transport: Any = None
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost: list[BaseException | None] = []
        self.flow: list[str] = []
        self._then = then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))
        if self._then is not None:
            self._then(self, data, addr)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)

    def pause_writing(self) -> None:
        self.flow.append("pause")

    def resume_writing(self) -> None:
        self.flow.append("resume")

    @property
    def texts(self) -> list[bytes]:
        return [data for data, _ in self.received]


def run_until(loop: Loop, condition: Callable[[], bool]) -> None:
    end = loop.time() + 30
    while not condition():
        assert loop.time() < end
        loop.run_until_complete(asyncio.sleep(0))


def endpoint(loop: Loop, protocol: Recorder, **options: Any) -> Recorder:
    """Open one for the protocol, on loopback unless the options say otherwise."""
    if not options.keys() & {"sock", "remote_addr", "local_addr"}:
        options["local_addr"] = (HOST, 0)
    transport, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(lambda: protocol, **options)
    )
    assert isinstance(transport, DatagramTransport)
    return protocol


def end(loop: Loop, *protocols: Recorder) -> None:
    for each in protocols:
        each.transport.close()
    run_until(loop, lambda: all(each.lost for each in protocols))


def address_of(protocol: Recorder) -> Any:
    return protocol.transport.get_extra_info("sockname")


def test_what_has_come_is_handed_over_in_its_order(loop: Loop) -> None:
    server = endpoint(loop, Recorder())
    sent = [b"%d" % number for number in range(100)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((HOST, 0))
        for each in sent:
            client.sendto(each, address_of(server))
        run_until(loop, lambda: len(server.received) == 100)
        assert server.received == [(each, client.getsockname()) for each in sent]
    end(loop, server)


def test_an_echo_by_address_and_by_connection(loop: Loop) -> None:
    server = endpoint(loop, Recorder(lambda self, data, addr: self.transport.sendto(data, addr)))
    client = endpoint(loop, Recorder(), remote_addr=address_of(server))
    client.transport.sendto(b"one")
    client.transport.sendto(b"two", address_of(server))
    client.transport.sendto(bytearray(b"three"))
    run_until(loop, lambda: len(client.received) == 3)
    assert client.received == [(each, address_of(server)) for each in (b"one", b"two", b"three")]
    with pytest.raises(ValueError, match="Invalid address"):
        client.transport.sendto(b"x", (HOST, 1))
    with pytest.raises(TypeError, match="bytes-like"):
        client.transport.sendto("text")
    end(loop, server, client)


@pytest.mark.parametrize("size", [2, 4])
def test_version_6(loop: Loop, size: int) -> None:
    try:
        server = endpoint(loop, Recorder(), local_addr=("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")
    client = endpoint(loop, Recorder(), local_addr=("::1", 0))
    client.transport.sendto(b"six", address_of(server)[:size])
    run_until(loop, lambda: bool(server.received))
    assert server.received == [(b"six", address_of(client))]
    assert len(address_of(client)) == 4
    end(loop, server, client)


def test_of_a_unix_socket(loop: Loop) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("one", "two")]
        one, two = (
            endpoint(loop, Recorder(), local_addr=path, family=socket.AF_UNIX) for path in paths
        )
        one.transport.sendto(b"hello", paths[1])
        run_until(loop, lambda: bool(two.received))
        assert two.received == [(b"hello", paths[0])]
        end(loop, one, two)


def test_an_address_that_python_has_to_read(loop: Loop) -> None:
    server = endpoint(loop, Recorder())
    client = endpoint(loop, Recorder())
    client.transport.sendto(b"a name", ("localhost", address_of(server)[1]))
    run_until(loop, lambda: bool(server.received))
    assert server.texts == [b"a name"]
    for wrong in ((HOST, 70000), (HOST, -1), (HOST,), ("no such host.invalid", 1), "text", (1, 2)):
        client.transport.sendto(b"x", wrong)
        if client.lost or client.transport.is_closing():
            client = endpoint(loop, Recorder())  # asyncio ends it, where it is no OSError
    end(loop, server, client)


def test_an_error_of_the_network_is_told(loop: Loop) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind((HOST, 0))
        address = nobody.getsockname()
    client = endpoint(loop, Recorder(), remote_addr=address)
    client.transport.sendto(b"is anybody there?")
    run_until(loop, lambda: bool(client.errors))
    assert [type(error) for error in client.errors] == [ConnectionRefusedError]
    client.transport.sendto(b"x" * 70_000)
    assert [getattr(error, "errno", None) for error in client.errors[1:]] == [errno.EMSGSIZE]
    assert not client.transport.is_closing()
    end(loop, client)


def test_nothing_comes_after_a_close(loop: Loop) -> None:
    server = endpoint(loop, Recorder(lambda self, *_: self.transport.close()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for number in range(5):
            client.sendto(b"%d" % number, address_of(server))
    run_until(loop, lambda: bool(server.lost))
    assert server.texts == [b"0"]
    server.transport.sendto(b"late", (HOST, 9))


def test_what_a_protocol_raises_is_told_and_the_next_still_come(loop: Loop) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def fail(_: Recorder, data: bytes, __: Any) -> None:
        if data == b"bad":
            raise LookupError("no")

    server = endpoint(loop, Recorder(fail))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for data in (b"good", b"bad", b"better"):
            client.sendto(data, address_of(server))
        run_until(loop, lambda: len(server.received) == 3)
    assert [type(context["exception"]) for context in told] == [LookupError]
    end(loop, server)


def test_another_protocol_gets_what_comes_next(loop: Loop) -> None:
    second = Recorder()
    first = endpoint(loop, Recorder(lambda self, *_: self.transport.set_protocol(second)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for data in (b"1", b"2", b"3"):
            client.sendto(data, address_of(first))
        run_until(loop, lambda: len(second.received) == 2)
    assert first.texts == [b"1"]
    assert second.texts == [b"2", b"3"]
    first.transport.close()
    run_until(loop, lambda: bool(second.lost))


def test_what_cannot_be_sent_at_once_is_kept_in_order(loop: Loop) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "theirs")
        theirs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.bind(path)
        sender = endpoint(loop, Recorder(), remote_addr=path, family=socket.AF_UNIX)
    sender.transport.set_write_buffer_limits(high=100)
    sent = [b"%06d" % number for number in range(2_000)]
    for each in sent:
        sender.transport.sendto(each)
    assert sender.flow == ["pause"]
    sender.transport.close()  # what was written still goes out
    theirs.setblocking(False)
    came: list[bytes] = []

    def all_has_come() -> bool:
        try:
            while True:
                came.append(theirs.recv(100))
        except BlockingIOError:
            return len(came) == len(sent)

    run_until(loop, all_has_come)
    assert came == sent
    run_until(loop, lambda: bool(sender.lost))
    assert sender.lost == [None]
    theirs.close()


def test_empty_datagrams_come(loop: Loop) -> None:
    server = endpoint(loop, Recorder())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"", address_of(server))
        client.sendto(b"x" * 65_507, address_of(server))
        run_until(loop, lambda: len(server.received) == 2)
    assert server.texts == [b"", b"x" * 65_507]
    end(loop, server)
