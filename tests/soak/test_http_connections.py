"""Ten thousand connections at once: all are served, none costs much, and nothing of them stays."""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Iterator

import pytest
from run_http_soak import soaked
from run_soak import ADDRESSES, DEADLINE, HOST

from flowcoro import reactor

COUNT = 10_000
MOST_MEMORY = 4096  # bytes of the server's own, for a connection that is idle
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b"Hello, World!"


class Clients:
    """Connections without a library: what is waited for is the server."""

    def __init__(self, port: int, count: int) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for number in range(count):
            # One after the other, as far as the kernel lets them wait to be accepted.
            sock = socket.create_connection(
                (HOST, port), DEADLINE, source_address=(ADDRESSES[number % len(ADDRESSES)], 0)
            )
            self._sockets[sock.fileno()] = sock
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def ask(self) -> None:
        """Have each ask, all at once, and get the answer that keeps its connection."""
        for each in self._sockets.values():
            each.sendall(REQUEST)
        waiting = dict.fromkeys(self._sockets, b"")
        while waiting:
            ready = self._poll.poll(DEADLINE)
            assert ready, f"{len(waiting)} are not answered"
            for descriptor, _ in ready:
                piece = self._sockets[descriptor].recv(4096)
                assert piece, "a connection was closed"
                waiting[descriptor] += piece
                if waiting[descriptor].endswith(BODY):
                    answer = waiting.pop(descriptor)
                    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                    assert b"close" not in answer

    def close(self) -> None:
        self._poll.close()
        for each in self._sockets.values():
            each.close()


@pytest.fixture
def _many_descriptors() -> Iterator[None]:
    """Raise this process's limit; the server raises its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < COUNT + 500:
        assert os.environ.get("CI") != "true", f"CI must allow more than {hard} descriptors"
        pytest.skip(f"NOT TESTED: a process may only have {hard} descriptors (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_descriptors")
@pytest.mark.parametrize("reactor_name", reactor.available())
def test_ten_thousand_connections_at_once(reactor_name: str) -> None:
    with soaked(reactor_name, "router", keep_alive_timeout=600) as server:
        idle = server.figures()["descriptors"]
        few = Clients(server.port, 10)
        few.ask()
        few.close()
        server.wait_for_descriptors(idle)
        before = server.figures()
        clients = Clients(server.port, COUNT)
        try:
            clients.ask()
            first = server.figures()
            clients.ask()
            second = server.figures()
        finally:
            clients.close()
        for during in (first, second):
            assert during["descriptors"] - before["descriptors"] == COUNT
            assert (during["private"] - before["private"]) / COUNT <= MOST_MEMORY
        server.wait_for_descriptors(before["descriptors"])
        after = server.figures()
        assert after["errors"] == []
        assert after["descriptors"] == before["descriptors"]
        assert after["tasks"] == before["tasks"]
        assert after["objects"] - before["objects"] < 100
