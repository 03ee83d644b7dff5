"""The simulated network: asyncio's transports over links that fail as they are told."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowcoro.testing import Conditions, Network, SimulatedLoop, SimulationStuck, simulate

Main = Callable[[SimulatedLoop], Awaitable[object]]


def some_seeds(main: Main, seeds: int = 30) -> None:
    simulate(main, seeds=seeds, stalls=0)


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.keep_open = keep_open
        self.told: list[Any] = []
        self.data = b""
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        assert data
        self.data += data
        self.told.append(len(data))

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.set_result(exc)


async def pair(
    network: Network, port: int = 80, **options: Any
) -> tuple[Recorder, Recorder, asyncio.AbstractServer]:
    """Connect host `a` to host `b`; return both ends and the server."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[Recorder] = loop.create_future()

    def accept() -> Recorder:
        recorder = Recorder(**options)
        accepted.set_result(recorder)
        return recorder

    with network.host("b"):
        server = await loop.create_server(accept, "b", port)
    with network.host("a"):
        _, client = await loop.create_connection(lambda: Recorder(**options), "b", port)
    return client, await accepted, server


def test_bytes_come_whole_and_in_order() -> None:
    async def main(loop: SimulatedLoop) -> None:
        loop.network.set(cut=0.5)
        client, server, listener = await pair(loop.network)
        sent = loop.random.randbytes(20_000)
        at = 0
        while at < len(sent):
            size = loop.random.randint(1, 3000)
            client.transport.write(sent[at : at + size])
            at += size
        client.transport.writelines([b"abc", bytearray(b"def"), memoryview(b"ghi")])
        client.transport.write(b"")
        client.transport.write_eof()
        assert await server.lost is None
        assert server.data == sent + b"abcdefghi"
        assert server.told[-2:] == ["eof", "lost"]
        assert await client.lost is None
        listener.close()
        await listener.wait_closed()
        assert not loop.network.connections()

    some_seeds(main)


def test_what_a_transport_tells() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server, listener = await pair(loop.network)
        address = loop.network.address_of("b")
        own = client.transport.get_extra_info("sockname")
        assert client.transport.get_extra_info("peername") == (address, 80)
        assert server.transport.get_extra_info("peername") == own
        assert own[0] == loop.network.address_of("a")
        assert client.transport.get_extra_info("socket") is None
        assert client.transport.get_protocol() is client
        assert client.transport.can_write_eof()
        assert client.transport.is_reading()
        assert not client.transport.is_closing()
        assert "a-b open" in repr(client.transport)
        with pytest.raises(TypeError):
            client.transport.write("text")  # type: ignore[arg-type]
        client.transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            client.transport.write(b"more")
        client.transport.abort()
        await asyncio.wait([client.lost, server.lost])
        assert client.transport.is_closing()
        client.transport.close()
        client.transport.abort()
        assert isinstance(listener, asyncio.AbstractServer)
        listener.close()

    some_seeds(main, 3)


def test_back_pressure() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server, listener = await pair(loop.network, keep_open=True)
        server.transport.pause_reading()
        client.transport.set_write_buffer_limits(high=1000, low=500)
        client.transport.write(bytes(loop.network.window))
        assert client.transport.get_write_buffer_size() == 0
        client.transport.write(bytes(2000))
        assert client.transport.get_write_buffer_size() == 2000
        assert client.told == ["made", "pause"]
        await asyncio.sleep(10)
        assert client.told == ["made", "pause"]
        assert server.told == ["made"]
        client.transport.write_eof()
        client.transport.close()  # what is unsent goes out all the same
        server.transport.resume_reading()
        await asyncio.sleep(10)
        assert client.told == ["made", "pause", "resume", "lost"]
        assert len(server.data) == loop.network.window + 2000
        assert server.told[-1] == "eof"
        server.transport.close()
        listener.close()

    some_seeds(main)


def test_buffered_protocols_and_errors_in_protocols() -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(3)
            self.data = b""
            self.end = asyncio.get_running_loop().create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]

        def connection_lost(self, exc: Exception | None) -> None:
            self.end.set_result(exc)

    class Broken(Buffered):
        def buffer_updated(self, nbytes: int) -> None:
            raise ValueError("broken")

    async def main(loop: SimulatedLoop) -> None:
        server = await loop.create_server(Buffered, "127.0.0.1", 5)
        for kind in (Buffered, Broken):
            client, accepted = Recorder(keep_open=True), kind()
            server.close()
            server = await loop.create_server(lambda made=accepted: made, "127.0.0.1", 5)  # type: ignore[misc]
            transport, _ = await loop.create_connection(lambda made=client: made, "127.0.0.1", 5)  # type: ignore[misc]
            transport.write(b"hello world")
            if kind is Buffered:
                transport.close()
            error = await accepted.end
            transport.close()
            assert accepted.data == (b"hello world" if kind is Buffered else b"")
            assert isinstance(error, ValueError) == (kind is Broken)
        server.close()

    simulate(main, seeds=10, stalls=0, loop_errors=False)


def test_a_peer_that_is_closed_answers_with_a_reset() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server, listener = await pair(loop.network, keep_open=True)
        server.transport.close()
        await server.lost
        await asyncio.sleep(1)
        assert client.told == ["made", "eof"]
        client.transport.write(b"are you there?")
        assert isinstance(await client.lost, ConnectionResetError)
        client.transport.write(b"anybody?")
        listener.close()

    some_seeds(main)


def test_what_was_unread_when_it_closed_is_a_reset() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server, listener = await pair(loop.network)
        server.transport.pause_reading()
        client.transport.write(b"never read")
        await asyncio.sleep(1)
        server.transport.close()
        assert isinstance(await client.lost, ConnectionResetError)
        listener.close()

    some_seeds(main)


def test_streams_wait_for_a_partition_to_heal() -> None:
    async def main(loop: SimulatedLoop) -> None:
        network = loop.network
        client, server, listener = await pair(network)
        network.partition(["a"], ["b"])
        client.transport.write(b"one ")
        server.transport.write(b"back")
        await asyncio.sleep(60)
        client.transport.write(b"two")
        assert (server.data, client.data) == (b"", b"")
        network.heal()
        await asyncio.sleep(1)
        assert (server.data, client.data) == (b"one two", b"back")
        network.block("a", "b")  # one way only
        client.transport.write(b"!")
        server.transport.write(b"!")
        assert "blocked" in repr(network.link("a", "b"))
        await asyncio.sleep(1)
        assert (server.data, client.data) == (b"one two", b"back!")
        assert isinstance(await client.lost, TimeoutError)  # TCP gives up
        assert loop.time() > network.give_up
        network.unblock("a", "b")
        server.transport.close()
        listener.close()

    some_seeds(main)


def test_one_group_is_cut_off_from_all_others() -> None:
    async def main(loop: SimulatedLoop) -> None:
        network = loop.network
        for name in "abc":
            network.add_host(name)
        network.partition("a")
        assert network.link("a", "c").blocked
        assert network.link("b", "a").blocked
        assert not network.link("b", "c").blocked
        assert network.hosts == ["main", "a", "b", "c"]

    some_seeds(main, 1)


def test_half_open() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server, listener = await pair(loop.network)
        assert loop.network.half_open("b", "a") == 1
        assert isinstance(await server.lost, ConnectionAbortedError)
        await asyncio.sleep(3600)
        assert client.told == ["made"]  # it knows nothing
        client.transport.write(b"hello?")
        assert isinstance(await client.lost, ConnectionResetError)
        listener.close()

    some_seeds(main)


def test_who_only_waits_at_a_half_open_connection_waits_for_ever() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        client, _, _ = await pair(loop.network)
        loop.network.half_open("b")
        await client.lost

    with (
        asyncio.Runner(loop_factory=SimulatedLoop) as runner,
        pytest.raises(SimulationStuck, match="deadlock"),
    ):
        runner.run(main())


def test_resets() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server, listener = await pair(loop.network)
        assert [end.host for end in loop.network.connections()] == ["a", "b"]
        assert loop.network.reset("b") == 1
        for end in (client, server):
            assert isinstance(await end.lost, ConnectionResetError)
        listener.close()
        loop.network.set_link("a", "b", reset=1.0, both=False)
        client, server, listener = await pair(loop.network, 81)
        server.transport.write(b"fine")
        await asyncio.sleep(1)
        client.transport.write(b"not so")
        assert isinstance(await server.lost, ConnectionResetError)
        assert isinstance(await client.lost, ConnectionResetError)
        listener.close()

    some_seeds(main)


def test_connecting_fails_as_it_does() -> None:
    async def main(loop: SimulatedLoop) -> None:
        network = loop.network
        _, _, listener = await pair(network)
        with network.host("a"):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("b", 81)
            with pytest.raises(socket.gaierror, match="no host 'nobody'"):
                await asyncio.open_connection("nobody", 80)
            network.set_link("a", "b", refuse=1.0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("b", 80)
            network.set_link("a", "b", refuse=0.0)
            network.partition(["a"], ["b"])
            begun = loop.time()
            with pytest.raises(TimeoutError):
                await asyncio.open_connection("b", 80)
            assert loop.time() - begun == pytest.approx(127)
            loop.call_later(10, network.heal)
            _, writer = await asyncio.open_connection("b", 80)
            writer.close()
            with pytest.raises(OSError, match=r"use network\.host"):
                await loop.create_server(asyncio.Protocol, "b", 82)
        with network.host("b"), pytest.raises(OSError) as error:  # noqa: PT011 - by its number
            await loop.create_server(asyncio.Protocol, "b", 80)
        assert error.value.errno == errno.EADDRINUSE
        with pytest.raises(ValueError, match="host"):
            await loop.create_connection(asyncio.Protocol)
        listener.close()

    simulate(main, seeds=10, stalls=0, loop_errors=False)


def test_a_listener_that_closes_resets_who_is_about_to_be_accepted() -> None:
    outcomes: set[str] = set()

    async def main(loop: SimulatedLoop) -> None:
        network = loop.network
        with network.host("b"):
            server = await loop.create_server(Recorder, "b", 80)
        network.set_link("main", "b", latency=(1.0, 1.0))

        async def connect() -> None:
            try:
                _, client = await loop.create_connection(Recorder, "b", 80)
            except ConnectionRefusedError:
                outcomes.add("refused")
                return
            error = await client.lost
            assert isinstance(error, ConnectionResetError)
            outcomes.add("reset")

        task = asyncio.create_task(connect())
        await asyncio.sleep(loop.random.choice([0.5, 2.5]))
        server.close()
        await task

    some_seeds(main)
    assert outcomes == {"refused", "reset"}


def test_loopback_and_unix_sockets() -> None:
    async def main(loop: SimulatedLoop) -> None:
        network = loop.network

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(network.current_host.encode())
            writer.close()
            await writer.wait_closed()

        servers = []
        for name in ("a", "b"):
            with network.host(name):
                servers.append(await asyncio.start_unix_server(greet, "/run/greet"))
                servers.append(await asyncio.start_server(greet, "localhost", 80))
        with network.host("a"):
            for connect in (
                lambda: asyncio.open_unix_connection("/run/greet"),
                lambda: asyncio.open_connection("localhost", 80),
            ):
                reader, writer = await connect()
                assert await reader.read() == b"a"
                writer.close()
                await writer.wait_closed()
            with pytest.raises(FileNotFoundError):
                await asyncio.open_unix_connection("/run/nothing")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("b", 80)  # it listens at its loopback only
        for server in servers:
            server.close()

    some_seeds(main, 5)


def test_servers() -> None:
    async def main(loop: SimulatedLoop) -> None:
        server = await loop.create_server(Recorder, port=0, start_serving=False)
        assert not server.is_serving()
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0.1)
        assert server.is_serving()
        assert server.get_loop() is loop
        with pytest.raises(RuntimeError, match="already"):
            await server.serve_forever()
        [listening] = server.sockets
        host, port = listening.getsockname()
        assert (host, port >= 1024, listening.fileno()) == ("0.0.0.0", True, -1)
        _, client = await loop.create_connection(Recorder, "localhost", port)
        await asyncio.sleep(1)
        server.close_clients()  # type: ignore[attr-defined] # since 3.13
        await client.lost
        task.cancel()
        await asyncio.wait((task,))
        assert server.sockets == ()
        with pytest.raises(RuntimeError, match="closed"):
            await server.serve_forever()

    some_seeds(main, 5)


def test_names() -> None:
    async def main(loop: SimulatedLoop) -> None:
        network = loop.network
        assert network.add_host("db", "10.9.9.9") == "10.9.9.9"
        assert network.add_host("db") == "10.9.9.9"
        for name, address in (("localhost", None), ("", None), ("x", "10.9.9.9")):
            with pytest.raises(ValueError, match=r"cannot be|is the address"):
                network.add_host(name, address)
        [info] = await loop.getaddrinfo("db", 5432, type=socket.SOCK_STREAM)
        assert info == (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.9.9.9", 5432))
        assert len(await loop.getaddrinfo("10.9.9.9", "80")) == 2
        assert (await loop.getaddrinfo(None, 0))[0][4] == ("127.0.0.1", 0)
        assert await loop.getnameinfo(("10.9.9.9", 80)) == ("db", "80")
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("db", 1, family=socket.AF_INET6)
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("unknown", 1)

    some_seeds(main, 1)


def test_bandwidth_and_latency() -> None:
    async def main(loop: SimulatedLoop) -> None:
        loop.network.conditions = Conditions(latency=(0.5, 0.5), bandwidth=1000, cut=0)
        client, server, listener = await pair(loop.network)
        begun = loop.time()
        client.transport.write(bytes(3000))
        client.transport.close()
        await server.lost
        assert loop.time() - begun == pytest.approx(3.5)
        listener.close()
        loop.network.set_link("a", "b", latency=(0, 0))
        assert loop.network.link("a", "b").conditions.bandwidth == 1000
        loop.network.set(bandwidth=None)
        assert loop.network.link("a", "b").conditions.bandwidth == 1000  # has its own
        assert loop.network.link("c", "b").conditions.bandwidth is None

    some_seeds(main, 3)
    for wrong in ({"latency": (2, 1)}, {"bandwidth": 0}, {"loss": 1.5}, {"cut": -1}):
        with pytest.raises(ValueError, match="must be"):
            Conditions(**wrong)  # type: ignore[arg-type]


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def test_datagrams_get_lost_come_twice_and_pass_each_other() -> None:
    seen: set[str] = set()

    async def main(loop: SimulatedLoop) -> None:
        network = loop.network
        network.set(loss=0.2, duplicate=0.2, reorder=0.2)
        with network.host("b"):
            receiver, got = await loop.create_datagram_endpoint(Datagrams, ("b", 53))
        with network.host("a"):
            sender, _ = await loop.create_datagram_endpoint(Datagrams, remote_addr=("b", 53))
        for number in range(10):
            sender.sendto(bytes([number]))
        await asyncio.sleep(1)
        numbers = [data[0] for data, _ in got.got]
        assert {addr for _, addr in got.got} <= {sender.get_extra_info("sockname")}
        seen.update(
            name
            for name, is_so in {
                "lost": len(set(numbers)) < 10,
                "twice": len(numbers) > len(set(numbers)),
                "passed": numbers != sorted(numbers),
                "all": numbers == list(range(10)),
            }.items()
            if is_so
        )
        network.partition(["a"], ["b"])
        sender.sendto(b"never")
        await asyncio.sleep(1)
        assert len(got.got) == len(numbers)
        sender.close()
        receiver.abort()

    simulate(main, seeds=100)
    assert seen >= {"lost", "twice", "passed"}


def test_datagram_endpoints() -> None:
    async def main(loop: SimulatedLoop) -> None:
        network = loop.network
        network.add_host("b")
        one, ours = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        two, theirs = await loop.create_datagram_endpoint(
            Datagrams, remote_addr=one.get_extra_info("sockname")
        )
        two.sendto(b"ping")
        await asyncio.sleep(1)
        [(data, addr)] = ours.got
        one.sendto(data.upper(), addr)
        await asyncio.sleep(1)
        assert theirs.got == [(b"PING", one.get_extra_info("sockname"))]
        with pytest.raises(ValueError, match="Invalid address"):
            two.sendto(b"", ("127.0.0.1", 1))
        with pytest.raises(TypeError):
            two.sendto("text")
        with pytest.raises(OSError, match="use"):
            await loop.create_datagram_endpoint(Datagrams, ("0.0.0.0", addr[1]))
        two.sendto(bytes(70_000))
        one.sendto(b"", ("nobody", 1))
        one.close()
        two.sendto(b"anybody?")
        await asyncio.sleep(1)
        assert [type(error) for error in theirs.errors] == [OSError, ConnectionRefusedError]
        assert isinstance(ours.errors[0], socket.gaierror)
        assert ours.lost
        assert one.is_closing()
        two.close()

    some_seeds(main, 10)


def test_chaos_never_reorders_a_stream() -> None:
    """Whatever happens to the network, what arrives is the beginning of what was sent."""

    async def main(loop: SimulatedLoop) -> None:
        network, dice = loop.network, loop.random
        network.set(cut=0.5, reset=dice.choice([0, 0.02]), latency=(0, dice.choice([0.1, 2.0])))
        got: dict[int, bytearray] = {}

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received = bytearray()
            try:
                number = (await reader.readexactly(1))[0]
                got[number] = received
                while data := await reader.read(dice.randint(1, 5000)):
                    received += data
                    await asyncio.sleep(dice.choice([0, 0, 0.3]))
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        with network.host("b"):
            server = await asyncio.start_server(serve, "b", 80, limit=1000)
        sent = {number: bytearray() for number in range(4)}

        async def send(number: int) -> None:
            with network.host("a"):
                try:
                    _, writer = await asyncio.open_connection("b", 80)
                    writer.write(bytes([number]))
                    for _ in range(20):
                        data = dice.randbytes(dice.randint(1, 20_000))
                        sent[number] += data
                        writer.write(data)
                        await writer.drain()
                    writer.close()
                    await writer.wait_closed()
                except OSError:
                    pass

        async def disturb() -> None:
            for _ in range(5):
                await asyncio.sleep(dice.random())
                dice.choice(
                    [
                        lambda: network.partition("a"),
                        lambda: network.reset("a"),
                        lambda: network.half_open("b"),
                        network.heal,
                    ]
                )()
            network.heal()

        with anyio.fail_after(3600):
            async with asyncio.TaskGroup() as group:
                group.create_task(disturb())
                for number in sent:
                    group.create_task(send(number))
        server.close()
        await asyncio.sleep(1000)
        for number, received in got.items():
            assert sent[number].startswith(received)

    simulate(main, seeds=100)


def test_errors_of_protocols_close_their_connections() -> None:
    class FailsAtEof(Recorder):
        def eof_received(self) -> bool:
            raise ValueError("at the end")

    class FailsAtData(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ValueError("at data")

    async def main(loop: SimulatedLoop) -> None:
        told: list[str] = []
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        for port, kind in enumerate((FailsAtEof, FailsAtData), 80):
            accepted = kind()
            server = await loop.create_server(lambda made=accepted: made, "localhost", port)  # type: ignore[misc]
            _, client = await loop.create_connection(Recorder, "localhost", port)
            client.transport.write(b"data")
            client.transport.write_eof()
            assert isinstance(await accepted.lost, ValueError)
            await client.lost
            server.close()

        def no_protocol() -> Recorder:
            raise ValueError("at the beginning")

        server = await loop.create_server(no_protocol, "localhost", 90)
        _, client = await loop.create_connection(Recorder, "localhost", 90)
        await client.lost
        server.close()
        assert told == ["at the end", "at data", "at the beginning"]

    some_seeds(main, 10)


def test_who_has_bytes_to_send_learns_of_a_reset_though_nobody_reads() -> None:
    async def main(loop: SimulatedLoop) -> None:
        client, server, listener = await pair(loop.network)
        client.transport.pause_reading()
        client.transport.resume_reading()
        client.transport.pause_reading()
        server.transport.pause_reading()
        client.transport.write(bytes(loop.network.window + 100_000))
        await asyncio.sleep(1)
        server.transport.abort()
        await asyncio.sleep(1)
        if not client.lost.done():  # all had been sent by then
            client.transport.write(b"more")
        assert isinstance(await client.lost, ConnectionResetError)
        client.transport.resume_reading()
        listener.close()

    some_seeds(main)


def test_a_connect_that_is_cancelled_leaves_nothing_open() -> None:
    async def main(loop: SimulatedLoop) -> None:
        with loop.network.host("b"):
            server = await loop.create_server(Recorder, "b", 80)
        connecting = asyncio.create_task(loop.create_connection(Recorder, "b", 80))
        await asyncio.sleep(loop.random.uniform(0, 0.003))
        connecting.cancel()
        await asyncio.wait((connecting,))
        if not connecting.cancelled():
            connecting.result()[0].close()
        await asyncio.sleep(1)
        assert not loop.network.connections()
        server.close()

    simulate(main, seeds=200)
