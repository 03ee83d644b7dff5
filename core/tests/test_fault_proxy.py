"""The fault proxy, on every loop: what it lets pass, what it does to the rest, and that it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fault_cases import Run, echo_server, every_loop, run_on
from flowcoro.testing import FaultProxy, Faults, ProxyStats, cancel_at_each_await
from flowcoro.testing._conserved import descriptors

pytestmark = every_loop


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


class Client:
    """A connection that is closed with its block."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection(*self.proxy.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def ask(self, data: bytes) -> bytes:
        """Send, and read as many bytes, or those that come before the end."""
        self.writer.write(data)
        return await self.answer(len(data))

    async def answer(self, count: int) -> bytes:
        try:
            return await self.reader.readexactly(count)
        except asyncio.IncompleteReadError as error:
            return error.partial

    async def until_reset(self) -> bytes:
        """Read until RST; tell what came before. FIN will not do."""
        data = b""
        try:
            while True:
                piece = await self.reader.read(65536)
                assert piece, "it ended by FIN"
                data += piece
        except ConnectionResetError:
            return data


@asynccontextmanager
async def proxied(**options: Any) -> AsyncIterator[FaultProxy]:
    async with echo_server() as target, FaultProxy(target, **options) as proxy:
        yield proxy


def test_everything_passes_by_default(run: Run) -> None:
    async def main() -> None:
        data = bytes(range(256)) * 4000
        async with proxied() as proxy, Client(proxy) as client:
            assert (proxy.host, proxy.port) == proxy.address
            assert await client.ask(data) == data
            client.writer.write_eof()  # passed on, and so is the answer's end
            assert await client.answer(1) == b""
            stats = await proxy.until(lambda stats: not stats.open)
            assert stats == ProxyStats(accepted=1, upstream=len(data), downstream=len(data))

    run(main())


@pytest.mark.parametrize("count", [0, 1, 5])
def test_cut_by_fin_after_so_many_bytes(run: Run, count: int) -> None:
    async def main() -> None:
        async with proxied(downstream=Faults(cut_after=count)) as proxy, Client(proxy) as client:
            assert await client.ask(b"0123456789") == b"0123456789"[:count]
            stats = await proxy.until(lambda stats: not stats.open)
            assert (stats.cut, stats.downstream) == (1, count)

    run(main())


@pytest.mark.parametrize("count", [0, 1, 5])
def test_cut_by_reset_after_so_many_bytes(run: Run, count: int) -> None:
    async def main() -> None:
        faults = Faults(cut_after=count, cut="reset")
        async with proxied(downstream=faults) as proxy, Client(proxy) as client:
            client.writer.write(b"0123456789")
            assert await client.until_reset() == b"0123456789"[:count]

    run(main())


@pytest.mark.parametrize("cut", ["fin", "reset"])
def test_the_target_sees_the_cut_of_what_goes_upstream(run: Run, cut: Any) -> None:
    async def main() -> None:
        got: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.readexactly(3)
            try:
                got.set_result(data + await reader.read())
            except ConnectionResetError as error:
                got.set_result(error)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, FaultProxy(server.sockets[0].getsockname()) as proxy:
            proxy.upstream = Faults(cut_after=3, cut=cut)
            async with Client(proxy) as client:
                client.writer.write(b"abcdef")
                result = await got
        assert result == b"abc" if cut == "fin" else isinstance(result, ConnectionResetError)

    run(main())


def test_half_closed_upstream(run: Run) -> None:
    """The target sees the end and answers; the client knows nothing of it and may send on."""

    async def main() -> None:
        faults = Faults(cut_after=3, cut="half")
        async with proxied(upstream=faults) as proxy, Client(proxy) as client:
            assert await client.ask(b"abcdef") == b"abc"
            stats = await proxy.until(lambda stats: stats.downstream == 3)
            assert (stats.cut, stats.upstream) == (1, 3)

    run(main())


def test_half_closed_downstream(run: Run) -> None:
    async def main() -> None:
        faults = Faults(cut_after=2, cut="half")
        async with proxied(downstream=faults) as proxy, Client(proxy) as client:
            assert await client.ask(b"abcdef") == b"ab"
            client.writer.write(b"more")
            stats = await proxy.until(lambda stats: stats.upstream == 10)
            assert (stats.open, stats.downstream) == (1, 2)

    run(main())


def test_corrupted_bytes_are_the_same_each_time(run: Run) -> None:
    async def main() -> None:
        data = bytes(100)

        async def corrupted(**faults: Any) -> bytes:
            async with proxied(upstream=Faults(**faults)) as proxy, Client(proxy) as client:
                return await client.ask(data)

        one = await corrupted(corrupt_at=42)
        assert [i for i, byte in enumerate(one) if byte] == [42]
        # Where chunks begin and end does not matter.
        some = await corrupted(corrupt_every=10, chunk=7, seed=3)
        assert [i for i, byte in enumerate(some) if byte] == list(range(9, 100, 10))
        assert await corrupted(corrupt_every=10, seed=3) == some
        assert await corrupted(corrupt_every=10, seed=4) != some
        assert all(await corrupted(corrupt_every=1))

    run(main())


def test_delays_last_at_least_that_long(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with proxied() as proxy, Client(proxy) as client:
            for slow in (
                Faults(delay=0.05),
                Faults(delay=0.05, jitter=0.01, seed=1),
                Faults(chunk=1, pause=0.01),  # five pauses between six bytes
                Faults(rate=120),  # the last of six bytes has no time to wait for
            ):
                proxy.upstream = slow
                begin = loop.time()
                assert await client.ask(b"abcdef") == b"abcdef"
                assert loop.time() - begin > 0.03
                # The pause after the last bytes must not be the next round's.
                proxy.upstream = Faults()
                assert await client.ask(b"next") == b"next"

    run(main())


def test_bytes_trickle_one_at_a_time(run: Run) -> None:
    async def main() -> None:
        faults = Faults(chunk=1, pause=0.05)
        async with proxied(downstream=faults) as proxy, Client(proxy) as client:
            client.writer.write(b"abc")
            seen = [(await client.reader.read(100)) for _ in range(2)]
            assert seen == [b"a", b"b"]

    run(main())


def test_a_stalled_direction_goes_on_where_it_stood(run: Run) -> None:
    async def main() -> None:
        async with proxied() as proxy, Client(proxy) as client:
            assert await client.ask(b"before") == b"before"
            proxy.downstream = Faults(stall=True)
            client.writer.write(b"during")
            stats = await proxy.until(lambda stats: stats.upstream == 12)
            for _ in range(20):
                await asyncio.sleep(0)
            assert stats.downstream == proxy.stats.downstream == 6
            proxy.downstream = Faults()
            assert await client.answer(6) == b"during"

    run(main())


def test_a_black_hole(run: Run) -> None:
    async def main() -> None:
        async with proxied(upstream=Faults(discard=True)) as proxy, Client(proxy) as client:
            client.writer.write(b"lost")
            client.writer.write_eof()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.05)
            assert proxy.stats == ProxyStats(accepted=1, open=1)

    run(main())


def test_a_peer_that_dies_over_what_it_reads(run: Run) -> None:
    async def main() -> None:
        faults = Faults(discard=True, cut_after=3, cut="reset")
        async with proxied(upstream=faults) as proxy, Client(proxy) as client:
            client.writer.write(b"ab")
            for _ in range(20):
                await asyncio.sleep(0)
            assert proxy.stats.open == 1
            client.writer.write(b"cd")
            assert await client.until_reset() == b""
            assert proxy.stats.upstream == 0

    run(main())


def test_what_one_side_suffers_so_does_the_other(run: Run) -> None:
    async def main() -> None:
        async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            lingering = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, lingering
            )
            writer.transport.abort()

        server = await asyncio.start_server(die, "127.0.0.1", 0)
        target = server.sockets[0].getsockname()
        async with server, FaultProxy(target) as proxy, Client(proxy) as client:
            client.writer.write(b"x")
            assert await client.until_reset() == b""

    run(main())


def test_a_stalled_piece_is_lost_when_its_direction_is_ended(run: Run) -> None:
    async def main() -> None:
        async with proxied() as proxy, Client(proxy) as client:
            assert await client.ask(b"hello") == b"hello"
            proxy.upstream = Faults(chunk=1, pause=30)
            client.writer.write(b"abc")
            await proxy.until(lambda stats: stats.downstream == 6)
            proxy.upstream = Faults(stall=True)
            client.writer.write(b"def")
            proxy.upstream = Faults(cut_after=2, cut="half")
            assert await client.answer(9) == b"a"
            assert proxy.stats.upstream == 6

    run(main())


def test_silence(run: Run) -> None:
    async def main() -> None:
        async with proxied(accept="silent") as proxy:
            async with Client(proxy) as client:
                client.writer.write(b"anybody?")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.reader.read(1), 0.05)
                assert proxy.stats.open == 1
            await proxy.until(lambda stats: not stats.open)
            proxy.set_accept("forward")
            async with Client(proxy) as client:
                assert await client.ask(b"yes") == b"yes"

    run(main())


def test_connections_are_reset_or_refused_at_the_door(run: Run) -> None:
    async def main() -> None:
        async with proxied() as proxy, Client(proxy) as old:
            proxy.set_accept("reset")
            # It may come before the client has seen that it is connected.
            with pytest.raises(ConnectionResetError):
                async with Client(proxy) as client:
                    await client.reader.read()
            address = proxy.address
            proxy.set_accept("refuse")
            proxy.set_accept("refuse")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            # Those that were there before go on, and new ones come again to the same port.
            assert await old.ask(b"old") == b"old"
            proxy.set_accept("forward")
            assert proxy.address == address
            async with Client(proxy) as client:
                assert await client.ask(b"new") == b"new"

    run(main())


def test_one_that_begins_by_refusing(run: Run) -> None:
    async def main() -> None:
        async with proxied(accept="refuse") as proxy:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*proxy.address)

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_all_are_dropped_now(run: Run, reset: bool) -> None:
    async def main() -> None:
        async with proxied() as proxy, Client(proxy) as one, Client(proxy) as two:
            for client in (one, two):
                assert await client.ask(b"hello") == b"hello"
            assert await proxy.drop_all(reset=reset) == 2
            assert proxy.stats.open == 0
            for client in (one, two):
                if reset:
                    assert await client.until_reset() == b""
                else:
                    assert await client.reader.read() == b""
            assert await proxy.drop_all() == 0
            async with Client(proxy) as client:
                assert await client.ask(b"next") == b"next"

    run(main())


def test_bytes_that_were_not_read_do_not_turn_fin_into_reset(run: Run) -> None:
    async def main() -> None:
        async with proxied(upstream=Faults(stall=True)) as proxy, Client(proxy) as client:
            client.writer.write(b"unread")
            await proxy.until(lambda stats: stats.open == 1)
            await proxy.drop_all()
            assert await client.reader.read() == b""

    run(main())


@pytest.mark.parametrize("cut", ["fin", "reset", "half"])
def test_a_connection_that_is_past_the_place_is_cut_at_once(run: Run, cut: Any) -> None:
    async def main() -> None:
        async with proxied() as proxy, Client(proxy) as client:
            assert await client.ask(b"hello") == b"hello"
            proxy.downstream = Faults(cut_after=3, cut=cut)
            if cut == "reset":
                assert await client.until_reset() == b""
            else:
                assert await client.reader.read() == b""
            assert proxy.stats.cut == 1
            assert proxy.stats.open == (cut == "half")

    run(main())


def test_faults_for_some_connections_only(run: Run) -> None:
    async def main() -> None:
        faults = Faults(cut_after=0, only={1, 3})
        async with proxied(downstream=faults) as proxy:
            seen = []
            for _ in range(4):
                async with Client(proxy) as client:
                    seen.append(await client.ask(b"hi"))
            assert seen == [b"", b"hi", b"", b"hi"]

    run(main())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_a_unix_socket_as_target(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        path = tmp_path / "socket"
        server = await asyncio.start_unix_server(echo, path)
        async with server, FaultProxy(path) as proxy, Client(proxy) as client:
            client.writer.write(b"by a path")
            client.writer.write_eof()
            assert await client.reader.read() == b"by a path"

    run(main())


def test_a_target_by_name(run: Run) -> None:
    async def main() -> None:
        async with (
            echo_server() as (_, port),
            FaultProxy(("localhost", port)) as proxy,
            Client(proxy) as client,
        ):
            assert await client.ask(b"named") == b"named"

    run(main())


def test_a_target_that_is_not_there(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = gone.getsockname()
        async with FaultProxy(address) as proxy, Client(proxy) as client:
            assert await client.until_reset() == b""
            stats = await proxy.until(lambda stats: not stats.open)
            assert stats == ProxyStats(accepted=1, failed=1)

    run(main())


def test_it_ends_with_connections_open(run: Run) -> None:
    async def main() -> None:
        async with echo_server() as target:
            before = asyncio.all_tasks()
            async with FaultProxy(target, upstream=Faults(stall=True)) as proxy:
                client = Client(proxy)
                await client.__aenter__()
                client.writer.write(b"x" * 1_000_000)
                await proxy.until(lambda stats: stats.accepted == 1)
            mine = {task for task in asyncio.all_tasks() - before if "proxy" in task.get_name()}
            assert mine == set()
            with suppress(ConnectionResetError):
                assert await client.reader.read() == b""
            await client.__aexit__()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*proxy.address)
            with pytest.raises(RuntimeError, match="once"):
                await proxy.__aenter__()

    run(main())


def test_waiting_for_what_does_not_come(run: Run) -> None:
    async def main() -> None:
        async with proxied() as proxy:
            with pytest.raises(TimeoutError):
                await proxy.until(lambda stats: stats.accepted > 0, deadline=0.02)

    run(main())


@pytest.mark.parametrize("accept", ["forward", "silent"])
def test_cancelled_anywhere_it_leaves_nothing(run: Run, accept: Any) -> None:
    """By our own tool: no descriptor, no task, whichever await of whichever task it was."""

    async def main() -> None:
        async with echo_server() as target:

            async def scenario() -> None:
                async with FaultProxy(target, accept=accept) as proxy, Client(proxy) as client:
                    client.writer.write(b"hello")
                    if accept == "forward":
                        assert await client.answer(5) == b"hello"
                    await proxy.until(lambda stats: stats.accepted == 1)
                    proxy.downstream = Faults(stall=True)
                    assert await proxy.drop_all(reset=True) == 1

            before = descriptors()
            for children in (False, True):
                report = await cancel_at_each_await(scenario, children=children, settle=5)
                assert report.awaits >= 3
            await asyncio.sleep(0)
            assert len(descriptors()) == len(before)

    run(main())


def test_a_loop_without_readers_accepts_in_a_task(run: Run, monkeypatch: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def refuse(*_: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(type(loop), "add_reader", refuse)
        before = asyncio.all_tasks()
        async with proxied() as proxy:
            async with Client(proxy) as client:
                assert await client.ask(b"hello") == b"hello"
            proxy.set_accept("refuse")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*proxy.address)
            proxy.set_accept("forward")
            async with Client(proxy) as client:
                assert await client.ask(b"again") == b"again"
            await proxy.until(lambda stats: not stats.open)
        assert not {task for task in asyncio.all_tasks() - before if "accept" in task.get_name()}

    run(main())
