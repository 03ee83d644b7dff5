"""An extension of somebody else's, built against the installed package, serves without Python."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import flowcoro
from flowcoro import new_event_loop
from flowcoro.reactor import Reactor, available

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the backends so far are Linux's")

SOURCE = Path(__file__).parent / "native_plugin"


def build(folder: Path, *options: str) -> Path:
    """Configure and build the plugin as its author would; return the module's file."""
    commands = (
        ["cmake", "-S", str(SOURCE), "-B", str(folder), "-G", "Ninja",
         f"-DPython_EXECUTABLE={sys.executable}", *options],
        ["cmake", "--build", str(folder)],
    )  # fmt: skip
    for command in commands:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    (module,) = folder.glob("echo_plugin.*.so")
    return module


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("echo_plugin", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("plugin")
    return load(build(folder, f"-Dflowcoro_ROOT={flowcoro.get_cmake_dir()}"))


@contextmanager
def serving(plugin: ModuleType, backend: str) -> Iterator[tuple[str, int]]:
    """Run a reactor in a thread, which echoes on a port; at the end all of it is over."""
    reactor = Reactor(backend)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    plugin.serve(reactor, listener.detach())

    def drive() -> None:
        with reactor:
            reactor.run()

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield address
    finally:
        reactor.stop()
        thread.join()
    assert plugin.stats()["serving"] == 0


def echo(address: tuple[str, int], payload: bytes) -> bytes:
    """Send in one thread, receive in this one."""
    with socket.create_connection(address, timeout=60) as client:

        def send() -> None:
            client.sendall(payload)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        back = bytearray()
        while piece := client.recv(1 << 16):
            back += piece
        sender.join()
    return bytes(back)


def difference(plugin: ModuleType, before: dict[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in plugin.stats().items()}


@pytest.mark.parametrize("backend", available())
def test_it_echoes_megabytes_to_several_clients(plugin: ModuleType, backend: str) -> None:
    size, clients = 3_000_000, 4
    before = plugin.stats()
    right: list[bool] = []
    with serving(plugin, backend) as address:

        def converse(seed: int) -> None:
            payload = random.Random(seed).randbytes(size)
            right.append(echo(address, payload) == payload)

        threads = [threading.Thread(target=converse, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert right == [True] * clients
    assert difference(plugin, before) == {
        "accepted": clients, "echoed": size * clients, "closed": clients, "failed": 0,
        "serving": 0, "ticks": 0,
    }  # fmt: skip


@pytest.mark.parametrize("backend", available())
def test_no_python_runs_between(plugin: ModuleType, backend: str) -> None:
    """The driving thread's profiler sees nothing while the bytes go back and forth."""
    reactor = Reactor(backend)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    plugin.serve(reactor, listener.detach())
    seen: list[str] = []

    def drive() -> None:
        sys.setprofile(lambda frame, event, argument: seen.append(f"{event} {argument}"))
        reactor.run()
        sys.setprofile(None)
        reactor.close()

    thread = threading.Thread(target=drive)
    thread.start()
    assert echo(address, b"it runs") == b"it runs"
    before = list(seen)
    for _ in range(20):
        assert echo(address, b"x" * 100_000) == b"x" * 100_000
    assert seen == before
    reactor.stop()
    thread.join()
    assert len(seen) > len(before)  # it would have told


@pytest.mark.parametrize("backend", available())
def test_closing_ends_connected_clients(plugin: ModuleType, backend: str) -> None:
    before = plugin.stats()
    with serving(plugin, backend) as address:
        clients = [socket.create_connection(address, timeout=60) for _ in range(5)]
        for client in clients:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
    # It is closed now.
    assert difference(plugin, before)["failed"] == 5
    for client in clients:
        with client:
            assert client.recv(1) == b""


@pytest.mark.parametrize("backend", available())
def test_a_client_that_resets_harms_nobody(plugin: ModuleType, backend: str) -> None:
    before = plugin.stats()
    with serving(plugin, backend) as address:
        for _ in range(10):
            client = socket.create_connection(address, timeout=60)
            client.sendall(b"x" * 200_000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            assert echo(address, b"still here") == b"still here"
    counts = difference(plugin, before)
    assert counts["accepted"] == 20
    assert counts["failed"] >= 1


@pytest.mark.parametrize("backend", available())
def test_a_connected_socket_is_adopted(plugin: ModuleType, backend: str) -> None:
    ours, theirs = socket.socketpair()
    back = bytearray()
    with ours, Reactor(backend) as reactor:
        plugin.attach(reactor, theirs.detach())
        ours.sendall(b"world ")
        ours.shutdown(socket.SHUT_WR)
        ours.setblocking(False)
        while plugin.stats()["serving"] != 0:
            reactor.run_once(0.01)
        while piece := ours.recv(100):
            back += piece
        with pytest.raises(OSError, match="Bad file descriptor"):
            plugin.attach(reactor, -1)
    assert back == b"hello world bye"


@pytest.mark.parametrize("backend", available())
def test_timers_ring_and_outlive_the_reactor(plugin: ModuleType, backend: str) -> None:
    before = plugin.stats()["ticks"]
    with Reactor(backend) as reactor:
        plugin.tick(reactor, before + 3)
        while plugin.stats()["ticks"] != before + 3:
            reactor.run_once()
    assert plugin.end_ticks() == errno.ESHUTDOWN


def test_another_threads_reactor_is_refused(plugin: ModuleType) -> None:
    with Reactor() as reactor:
        reactor.run_once(0)
        errors: list[int | None] = []

        def attach() -> None:
            for call in (lambda: plugin.attach(reactor, 0), lambda: plugin.tick(reactor, 1)):
                try:
                    call()
                except OSError as error:
                    errors.append(error.errno)

        thread = threading.Thread(target=attach)
        thread.start()
        thread.join()
    assert errors == [errno.EPERM] * 2


def test_wrong_arguments_are_refused(plugin: ModuleType) -> None:
    with Reactor() as reactor:
        plugin.misuse(reactor)
        with pytest.raises(TypeError, match=r"a flowcoro\.reactor\.Reactor is needed, not 'str'"):
            plugin.serve("reactor", 0)
    with pytest.raises(RuntimeError, match="the reactor is closed"):
        plugin.serve(reactor, 0)


def test_an_object_that_has_a_reactor_is_as_good(plugin: ModuleType) -> None:
    class Loop:
        def __init__(self, reactor: Reactor) -> None:
            self.__flowcoro_reactor__ = reactor

    with Reactor() as reactor:
        plugin.misuse(Loop(reactor))


@pytest.mark.parametrize("backend", available())
def test_it_shares_a_loop_with_coroutines(plugin: ModuleType, backend: str) -> None:
    before = plugin.stats()
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    payload = random.Random(1).randbytes(300_000)

    async def converse() -> bool:
        reader, writer = await asyncio.open_connection(*address)
        sending = asyncio.ensure_future(send(writer))
        back = await reader.readexactly(len(payload))
        await sending
        writer.close()
        return back == payload

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        await writer.drain()

    async def main() -> None:
        plugin.serve(asyncio.get_running_loop(), listener.detach())
        assert await asyncio.gather(*(converse() for _ in range(5))) == [True] * 5
        left, right = socket.socketpair()
        with left:
            plugin.attach(asyncio.get_running_loop(), right.detach())
            left.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(left, b"world")
            back = b""
            while len(back) < len(b"hello world"):
                back += await asyncio.get_running_loop().sock_recv(left, 100)
            assert back == b"hello world"

    with asyncio.Runner(loop_factory=lambda: new_event_loop(backend)) as runner:
        runner.run(main())
    left_over = difference(plugin, before)
    assert left_over["serving"] == 0  # the loop's end is the listener's
    assert left_over["accepted"] == 5
    assert left_over["closed"] + left_over["failed"] == 6


def test_a_loop_that_is_closed_or_elsewhere_refuses(plugin: ModuleType) -> None:
    loop = new_event_loop()
    refused: list[BaseException] = []

    def elsewhere() -> None:
        try:
            plugin.serve(loop, 0)
        except (OSError, RuntimeError) as error:
            refused.append(error)

    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, elsewhere)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    assert len(refused) == 1
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        plugin.serve(loop, 0)


@pytest.mark.parametrize(
    ("define", "value", "message"),
    [
        ("MAJOR", "7", "compiled for version 7 of flowcoro's native API, and the flowcoro that is "
         "installed has version 1: compile it anew"),
        ("MINOR", "99", "compiled for version 1.99 of flowcoro's native API, and the flowcoro that "
         "is installed has version 1.1 only: upgrade flowcoro"),
    ],
)  # fmt: skip
def test_another_version_is_refused(tmp_path: Path, define: str, value: str, message: str) -> None:
    headers = tmp_path / "_include"
    for name in ("native_api.h", "transport/protocol.h"):
        target = headers / "flowcoro" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(flowcoro.get_include()) / "flowcoro" / name, target)
    shutil.copytree(flowcoro.get_cmake_dir(), tmp_path / "_cmake")
    header = headers / "flowcoro" / "native_api.h"
    text = header.read_text("utf-8")
    name = f"#define FLOWCORO_NATIVE_API_{define} "
    assert name in text
    start = text.index(name)
    text = text[:start] + name + value + text[text.index("\n", start) :]
    if define == "MINOR":  # with a function that is not there yet
        text = text.replace(
            "} flowcoro_native_api;", "    void (*to_come)(void);\n} flowcoro_native_api;"
        )
    header.write_text(text, "utf-8")
    module = build(tmp_path / "build", f"-Dflowcoro_ROOT={tmp_path / '_cmake'}")
    with pytest.raises(ImportError) as raised:
        load(module)
    assert message in str(raised.value)


def test_without_flowcoro_the_import_says_so(plugin: ModuleType) -> None:
    code = (
        "import sys; sys.modules['flowcoro._native'] = None; "
        f"sys.path.insert(0, {str(Path(str(plugin.__file__)).parent)!r}); import echo_plugin"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "flowcoro" in ran.stderr.splitlines()[-1]
    assert "ModuleNotFoundError" in ran.stderr


def test_the_interpreter_may_end_while_it_serves(plugin: ModuleType) -> None:
    """Neither closed nor stopped: modules and the reactor go in the interpreter's own order."""
    code = f"""
import socket, sys
sys.path.insert(0, {str(Path(str(plugin.__file__)).parent)!r})
import echo_plugin
from flowcoro.reactor import Reactor
reactor = Reactor()
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
echo_plugin.serve(reactor, listener.detach())
client = socket.create_connection(address)
client.sendall(b"hello")
client.setblocking(False)
back = None
while back is None:
    reactor.run_once(0.01)
    try:
        back = client.recv(5)
    except BlockingIOError:
        pass
print(back)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "b'hello'\n", "")
