"""The simulated loop: messages through its network in a second of real time.

A message is what one `write` or `sendto` carries to another host; all that the simulation does for
it is counted, its trace included. asyncio's own loop does the same over sockets of this machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import thread_time
from typing import Any

from _harness import Bench, main
from flowcoro.testing import SimulatedLoop

CONNECTIONS = 10

Program = Callable[[int], Coroutine[Any, Any, int]]


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Asker(Echo):
    """Sends a message, and another one for each answer, until it has had enough of them."""

    def __init__(self, messages: int) -> None:
        self.left = messages // 2
        self.got = 0
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got == len(MESSAGE):
            self.got = 0
            self.left -= 1
            if self.left <= 0:
                self.done.set_result(None)
            else:
                self.transport.write(MESSAGE)

    def begin(self) -> None:
        self.transport.write(MESSAGE)


MESSAGE = b"m" * 32


async def protocols(messages: int) -> int:
    """Ask and answer over streams, by protocols."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    askers = []
    for _ in range(CONNECTIONS):
        each = max(2, messages // CONNECTIONS)
        _, asker = await loop.create_connection(lambda each=each: Asker(each), "127.0.0.1", port)  # type: ignore[misc]
        askers.append(asker)
    for asker in askers:
        asker.begin()
    await asyncio.gather(*(asker.done for asker in askers))
    for asker in askers:
        asker.transport.close()
    server.close()
    return CONNECTIONS * (max(2, messages // CONNECTIONS) // 2) * 2


async def streams(messages: int) -> int:
    """The same by readers and writers, each side a task."""

    ended: asyncio.Queue[None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
        ended.put_nowait(None)

    async def ask(port: int, count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count):
            writer.write(MESSAGE)
            await reader.readexactly(len(MESSAGE))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    count = max(1, messages // CONNECTIONS // 2)
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(*(ask(port, count) for _ in range(CONNECTIONS)))
    for _ in range(CONNECTIONS):
        await ended.get()
    server.close()
    return CONNECTIONS * count * 2


class Counter(asyncio.DatagramProtocol):
    """Counts what comes, and sends it back if it is to."""

    def __init__(self, left: int, done: asyncio.Future[None] | None) -> None:
        self.left = left
        self.done = done

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.left -= 1
        if self.left == 0 and self.done is not None:
            self.done.set_result(None)
        else:
            self.transport.sendto(data, addr)


async def datagrams(messages: int) -> int:
    """Ask and answer by datagrams."""
    loop = asyncio.get_running_loop()
    count = max(1, messages // CONNECTIONS // 2)
    server, _ = await loop.create_datagram_endpoint(
        lambda: Counter(-1, None), local_addr=("127.0.0.1", 0)
    )
    there = server.get_extra_info("sockname")
    ends = []
    for _ in range(CONNECTIONS):
        counter = Counter(count, loop.create_future())
        await loop.create_datagram_endpoint(lambda c=counter: c, local_addr=("127.0.0.1", 0))  # type: ignore[misc]
        ends.append(counter)
    for counter in ends:
        counter.transport.sendto(MESSAGE, there)
    await asyncio.gather(*(end.done for end in ends if end.done is not None))
    for end in ends:
        end.transport.close()
    server.close()
    return CONNECTIONS * count * 2


def simulated(program: Program, messages: int) -> Callable[[], object]:
    """Return what runs a program on a simulated loop."""
    return lambda: run(program, messages, lambda: SimulatedLoop(7))


def on_sockets(program: Program, messages: int) -> Callable[[], object]:
    """Return what runs it on asyncio's loop."""
    return lambda: run(program, messages, asyncio.SelectorEventLoop)


def run(program: Program, messages: int, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Run a program, and see that it has done all of its work."""
    with asyncio.Runner(loop_factory=factory) as runner:
        done = runner.run(program(messages))
    assert done == messages, (done, messages)


def simulation(bench: Bench) -> None:
    """Compare the simulated network with sockets of this machine."""
    for title, program, full in (
        ("protocols", protocols, 100_000),
        ("streams", streams, 60_000),
        ("datagrams", datagrams, 60_000),
    ):
        messages = bench.count(full)
        bench.compare(
            f"{title}, {CONNECTIONS} connections",
            {
                "SimulatedLoop": simulated(program, messages),
                "asyncio, loopback": on_sockets(program, messages),
            },
            unit="messages",
            operations=messages,
            clock=thread_time,
        )


if __name__ == "__main__":
    main("simulated loop", [simulation])
