"""`UdpSocket` over the datagram endpoints of asyncio's loop and of ours."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.abc
import pytest

from flowcoro import new_event_loop, reactor
from flowcoro.net import ConnectedUdpSocket, UdpSocket
from flowcoro.testing import cancel_at_each_await

HOSTS = ["127.0.0.1", "::1"]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(params=["asyncio", *reactor.available()])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def create() -> asyncio.AbstractEventLoop:
        if request.param == "asyncio":
            return asyncio.new_event_loop()
        return new_event_loop(request.param)

    async def bounded(main: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(20):
            await main

    def go(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=create) as runner:
            runner.run(bounded(main))

    return go


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    if request.param == "::1" and not has_ipv6():
        pytest.skip("there is no IPv6 here")
    return str(request.param)


Run = Callable[[Coroutine[Any, Any, None]], None]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the transport has no events to wait for
        await asyncio.sleep(0)


def test_there_and_back(run: Run, host: str) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind(host) as server,
            await UdpSocket.connect(*server.local_address) as client,
        ):
            assert server.local_address[0] == host
            assert client.peer == server.local_address
            await client.send(b"ping")
            data, address = await server.receive()
            assert (data, address) == (b"ping", client.local_address)
            await server.send(b"pong", address)
            await server.send((b"pong 2", address))
            await server.sendto(b"pong 3", *address)
            assert [await client.receive() for _ in range(3)] == [b"pong", b"pong 2", b"pong 3"]

    run(main())


def test_empty_and_large_datagrams(run: Run, host: str) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind(host) as server,
            await UdpSocket.connect(*server.local_address) as client,
        ):
            for data in (b"", b"x" * 60_000, b""):
                await client.send(data)
                received, address = await server.receive()
                assert received == data
                await server.send(received, address)
                assert await client.receive() == data

    run(main())


def test_other_kinds_of_bytes(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind("127.0.0.1") as udp:
            for kind in (bytearray, memoryview):
                await udp.send(kind(b"abc"), udp.local_address)  # type: ignore[arg-type]
                assert await udp.receive() == (b"abc", udp.local_address)
            with pytest.raises(TypeError, match="not str"):
                await udp.send("abc", udp.local_address)  # type: ignore[arg-type]

    run(main())


def test_too_large(run: Run, host: str) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind(host) as server,
            await UdpSocket.connect(*server.local_address) as client,
        ):
            with pytest.raises(OSError, match="70000 bytes is too large") as caught:
                await client.send(b"x" * 70_000)
            assert caught.value.errno == errno.EMSGSIZE
            with pytest.raises(OSError, match="too large"):
                await server.send(b"x" * 70_000, client.local_address)
            await client.send(b"small")  # it lives
            assert (await server.receive())[0] == b"small"

    run(main())


def test_iteration(run: Run) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind("127.0.0.1") as server,
            await UdpSocket.connect(*server.local_address) as client,
        ):
            for number in range(5):
                await client.send(b"%d" % number)
            received = []
            async for data, _ in server:
                received.append(data)
                if len(received) == 5:
                    break
            assert received == [b"0", b"1", b"2", b"3", b"4"]

    run(main())


def test_they_are_anyios(run: Run) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind("127.0.0.1") as server,
            await UdpSocket.connect(*server.local_address) as client,
        ):
            assert isinstance(server, anyio.abc.UDPSocket)
            assert isinstance(client, anyio.abc.ConnectedUDPSocket)
            extra = anyio.abc.SocketAttribute
            assert server.extra(extra.local_address) == server.local_address
            assert client.extra(extra.remote_address) == client.peer
            assert client.extra(extra.family) == socket.AF_INET
            # What anyio's users write for either.
            await client.send(b"anyio")
            packet = await server.receive()
            await server.send(packet)
            assert await client.receive() == b"anyio"

    run(main())


def test_what_does_not_fit_is_dropped_and_counted(run: Run) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind("127.0.0.1", max_queue=3) as server,
            await UdpSocket.connect(*server.local_address) as client,
        ):
            for number in range(8):
                await client.send(b"%d" % number)
            await until(lambda: server.dropped == 5)
            assert [(await server.receive())[0] for _ in range(3)] == [b"0", b"1", b"2"]
            await client.send(b"after")
            assert (await server.receive())[0] == b"after"

    run(main())


def test_nobody_is_there(run: Run, host: str) -> None:
    async def main() -> None:
        async with await UdpSocket.bind(host) as gone:
            address = gone.local_address
        async with await UdpSocket.connect(*address) as client:
            await client.send(b"?")
            with pytest.raises(ConnectionRefusedError):
                await client.receive()
            # Told to the next receive even if the system tells a send; and that is sent.
            for data in (b"?", b"", b"?"):
                await client.send(data)
            with pytest.raises(ConnectionRefusedError):
                await client.receive()
            async with await UdpSocket.bind(*address) as back:
                await client.send(b"hello")
                data, who = await back.receive()
                assert data == b"hello"
                await back.send(b"here", who)
                while True:
                    try:
                        assert await client.receive() == b"here"
                        break
                    except ConnectionRefusedError:
                        continue

    run(main())


def test_a_server_does_not_hear_of_clients_that_are_gone(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind("127.0.0.1") as server:
            async with await UdpSocket.bind("127.0.0.1") as gone:
                address = gone.local_address
            await server.send(b"?", address)
            await server.send(b"to myself", server.local_address)
            assert (await server.receive())[0] == b"to myself"

    run(main())


def test_a_connected_socket_hears_only_its_peer(run: Run) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind("127.0.0.1") as peer,
            await UdpSocket.bind("127.0.0.1") as stranger,
            await UdpSocket.connect(*peer.local_address) as client,
        ):
            await stranger.send(b"psst", client.local_address)
            await peer.send(b"hello", client.local_address)
            assert await client.receive() == b"hello"

    run(main())


def test_after_closing(run: Run) -> None:
    async def main() -> None:
        server = await UdpSocket.bind("127.0.0.1")
        client = await UdpSocket.connect(*server.local_address)
        address = server.local_address
        for each in (server, client):
            await each.aclose()
            await each.aclose()
            each.close()
            with pytest.raises(anyio.ClosedResourceError):
                await each.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await server.send(b"x", address)
        with pytest.raises(anyio.ClosedResourceError):
            await client.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            server.join("224.0.0.251")
        assert server.local_address == client.peer == address

    run(main())


def test_closing_wakes_the_receiver(run: Run) -> None:
    async def main() -> None:
        udp = await UdpSocket.bind("127.0.0.1")
        task = asyncio.create_task(udp.receive())
        await asyncio.sleep(0)
        udp.close()
        with pytest.raises(anyio.ClosedResourceError):
            await task
        await udp.aclose()

    run(main())


def test_one_receives_at_a_time(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind("127.0.0.1") as udp:
            task = asyncio.create_task(udp.receive())
            await asyncio.sleep(0)
            with pytest.raises(anyio.BusyResourceError):
                await udp.receive()
            await udp.send(b"x", udp.local_address)
            assert (await task)[0] == b"x"

    run(main())


def test_a_cancelled_receive_has_taken_nothing(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind("127.0.0.1") as udp:
            queue = udp._datagrams._queue
            task = asyncio.create_task(udp.receive())
            await asyncio.sleep(0)
            await udp.send(b"once", udp.local_address)
            await until(lambda: bool(queue))
            task.cancel()  # it was woken, and has not run yet
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await udp.receive())[0] == b"once"
            with anyio.move_on_after(0):
                await udp.receive()
            await udp.send(b"twice", udp.local_address)
            assert (await udp.receive())[0] == b"twice"

    run(main())


def test_cancelled_at_each_await(run: Run) -> None:
    async def main() -> None:
        async def scenario() -> None:
            async with (
                await UdpSocket.bind("localhost", family=socket.AF_INET) as server,
                await UdpSocket.connect(*server.local_address) as client,
            ):
                await client.send(b"ping")
                _, address = await server.receive()
                await server.send(b"pong", ("localhost", address[1]))
                await client.receive()

        # Looking up is done by a thread, which ends when it has ended.
        report = await cancel_at_each_await(scenario, twice=True, settle=5.0)
        assert report.awaits >= 6

    run(main())


def test_no_datagram_is_lost_by_cancellations(run: Run) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind("127.0.0.1") as server,
            await UdpSocket.connect(*server.local_address) as client,
        ):
            received: list[bytes] = []

            async def receive() -> None:
                received.append((await server.receive())[0])

            for number in range(200):
                task = asyncio.create_task(receive())
                await asyncio.sleep(0)
                await client.send(b"%d" % number)
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
            while len(received) < 200:
                await receive()
            assert received == [b"%d" % number for number in range(200)]

    run(main())


def test_a_flood_lets_others_run(run: Run) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind("127.0.0.1") as server,
            await UdpSocket.connect(*server.local_address) as client,
        ):
            over = asyncio.create_task(server.receive())
            while not over.done():
                await client.send(b"x")
            assert (await over)[0] == b"x"

    run(main())


class SlowTransport(asyncio.DatagramTransport):
    """Tells its protocol to wait; real ones over loopback hardly ever do."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.sent.append(data)


def test_sending_waits_while_too_much_waits(run: Run) -> None:
    async def main() -> None:
        udp = await UdpSocket.connect("127.0.0.1", 9)
        protocol = udp._datagrams
        real, protocol.transport = protocol.transport, SlowTransport()
        slow = protocol.transport
        protocol.pause_writing()
        cancelled, kept = (asyncio.create_task(udp.send(b"%d" % each)) for each in range(2))
        await asyncio.sleep(0)
        assert slow.sent == []
        cancelled.cancel()
        await asyncio.wait((cancelled,))
        protocol.resume_writing()
        await kept
        assert slow.sent == [b"1"]
        protocol.pause_writing()
        waiting = asyncio.create_task(udp.send(b"2"))
        await asyncio.sleep(0)
        protocol.transport = real
        await udp.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await waiting

    run(main())


def test_a_transport_that_breaks(run: Run) -> None:
    async def main() -> None:
        udp = await UdpSocket.bind("127.0.0.1")
        task = asyncio.create_task(udp.receive())
        await asyncio.sleep(0)
        udp._datagrams.transport.abort()
        with pytest.raises(anyio.BrokenResourceError):
            await task
        with pytest.raises(anyio.BrokenResourceError):
            await udp.send(b"x", ("127.0.0.1", 9))
        await udp.aclose()

    run(main())


def test_names_and_their_families(run: Run) -> None:
    async def main() -> None:
        async with (
            await UdpSocket.bind("localhost", family=socket.AF_INET) as server,
            await UdpSocket.connect(
                "localhost",
                server.local_address[1],
                family=socket.AF_INET,
                local_address=("127.0.0.1", 0),
            ) as client,
        ):
            assert isinstance(client, ConnectedUdpSocket)
            await server.send(b"by name", ("localhost", client.local_address[1]))
            assert await client.receive() == b"by name"

    run(main())


def test_all_interfaces(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind(None, 0, family=socket.AF_INET) as server:
            assert server.local_address[0] == "0.0.0.0"
            async with await UdpSocket.connect("127.0.0.1", server.local_address[1]) as client:
                await client.send(b"x")
                assert (await server.receive())[1] == client.local_address

    run(main())


def test_what_cannot_be_opened(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind("127.0.0.1") as first:
            port = first.local_address[1]
            with pytest.raises(OSError, match=f"bound 127.0.0.1, port {port}") as caught:
                await UdpSocket.bind("127.0.0.1", port)
            assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(socket.gaierror):
            await UdpSocket.bind("127.0.0.1", family=socket.AF_INET6)
        with pytest.raises(ValueError, match="max_queue"):
            await UdpSocket.bind("127.0.0.1", max_queue=0)
        for host in (None, "127.0.0.1"):
            with pytest.raises(ValueError, match="a port is from 0 to 65535, not -1"):
                await UdpSocket.bind(host, -1)
            with pytest.raises(TypeError, match="a port is a number, not 'x'"):
                await UdpSocket.bind(host, "x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a host is a string, not 5"):
            await UdpSocket.connect(5, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="local_address is a host and a port"):
            await UdpSocket.connect("127.0.0.1", 1, local_address="x")  # type: ignore[arg-type]

    run(main())


def test_what_cannot_be_connected(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"connected to 255\.255\.255\.255, port 9") as caught:
            await UdpSocket.connect("255.255.255.255", 9)
        assert caught.value.errno in (errno.EACCES, errno.ENETUNREACH)
        with pytest.raises(ValueError, match="a port is from 0 to 65535, not 70000"):
            await UdpSocket.connect("127.0.0.1", 9, local_address=("127.0.0.1", 70_000))

    run(main())


def test_what_the_system_refuses_to_send(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind("127.0.0.1") as udp:
            for data in (b"x", b""):
                with pytest.raises(OSError, match=r"denied|unreachable|Invalid"):
                    await udp.send(data, ("255.255.255.255", 9))

    run(main())


def test_a_port_shared(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind("127.0.0.1", reuse_port=True) as first:
            second = await UdpSocket.bind(*first.local_address, reuse_port=True)
            assert second.local_address == first.local_address
            await second.aclose()

    run(main())


def test_addresses_that_make_no_sense(run: Run) -> None:
    async def main() -> None:
        async with await UdpSocket.bind("127.0.0.1", broadcast=True) as udp:
            with pytest.raises(ValueError, match="65535, not 70000"):
                await udp.send(b"x", ("127.0.0.1", 70_000))
            with pytest.raises(TypeError, match="not connected"):
                await udp.send(b"x")
            with pytest.raises(TypeError, match="twice"):
                await udp.send((b"x", udp.local_address), udp.local_address)
            with pytest.raises(socket.gaierror):
                await udp.send(b"x", ("::1", 9))
            await udp.send(b"it lives", udp.local_address)
            assert (await udp.receive())[0] == b"it lives"

    run(main())


def test_multicast(run: Run) -> None:
    async def main() -> None:
        group = "239.255.77.77"
        async with (
            await UdpSocket.bind("0.0.0.0") as member,
            await UdpSocket.bind("127.0.0.1") as sender,
        ):
            try:
                member.join(group, "127.0.0.1")
            except OSError as error:
                pytest.skip(f"there is no multicast here: {error}")
            raw = sender.extra(anyio.abc.SocketAttribute.raw_socket)
            interface = socket.inet_aton("127.0.0.1")
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            await sender.send(b"to all", (group, member.local_address[1]))
            assert await member.receive() == (b"to all", sender.local_address)
            member.leave(group, "127.0.0.1")
            with pytest.raises(OSError, match=r"assign|address"):
                member.leave(group, "127.0.0.1")
            with pytest.raises(TypeError, match="by its address"):
                member.join(group, 1)

    run(main())


def test_multicast_over_ipv6(run: Run) -> None:
    if not has_ipv6():
        pytest.skip("there is no IPv6 here")

    async def main() -> None:
        loopback = socket.if_nameindex()[0][1]
        async with await UdpSocket.bind("::") as member:
            try:
                member.join("ff01::77", loopback)
            except OSError as error:
                pytest.skip(f"there is no multicast here: {error}")
            member.leave("ff01::77", socket.if_nametoindex(loopback))

    run(main())


def test_an_address_with_its_interface(run: Run) -> None:
    from flowcoro.net._udp import _resolve, _short

    async def main() -> None:
        assert _short(("fe80::1", 9, 0, 0)) == ("fe80::1", 9)
        assert _short(("fe80::1", 9, 0, 1)) == ("fe80::1%1", 9)
        assert _short(("fe80::1%lo", 9, 0, 1)) == ("fe80::1%lo", 9)
        if has_ipv6():
            assert (await _resolve(socket.AF_INET6, ("fe80::1%1", 9)))[3] == 1

    run(main())
