"""HTTP served by several event loops of one process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

import flowcoro_http.plugin as our_plugin
from _service import Service, wait_until
from _serving import bare_request
from flowcoro.app import App
from flowcoro.app._environment import Environment
from flowcoro.app._threads import run_threads
from flowcoro.cli._target import load_apps
from flowcoro.testing import make_context, make_host
from flowcoro_http import HttpError, HttpServer, Request, Response, Router, _server, _sockets
from flowcoro_http._types import Receive, Scope, Send
from flowcoro_http.middleware import Overload, RateLimit

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(sys.platform == "win32", reason="not available there"),
]


def name_of_thread() -> str:
    return threading.current_thread().name


class Client:
    """Asks from a thread of its own while the servers run, then has them stop."""

    def __init__(self, apps: list[App], ask: Callable[[str], None]) -> None:
        self._apps = apps
        self._ask = ask
        self._pool = ThreadPoolExecutor()

    def run(self, **sections: dict[str, Any]) -> None:
        """Serve until all is asked; raise what went wrong with that."""
        server = {"port": 0, "drain_timeout": 30.0, **sections.pop("server", {})}
        host = make_host(our_plugin)
        config = make_context(plugins=host, config={"server": server, **sections}).config
        asked: list[Any] = []

        def start(request_stop: Callable[[str], None]) -> None:
            asked.append(self._pool.submit(self._ask_and_stop, request_stop))

        with self._pool:
            assert run_threads(self._apps, Environment(host, config), on_started=start) == 0
        asked[0].result()

    def _ask_and_stop(self, request_stop: Callable[[str], None]) -> None:
        try:
            (url,) = {server.url for app in self._apps for server in servers_of(app)}
            self._ask(url)
        finally:
            request_stop("all is asked")


def servers_of(app: App) -> list[HttpServer]:
    return [each for each in app.components if isinstance(each, HttpServer)]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


@pytest.fixture(params=["balanced by the kernel", "shared"])
def balances(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """How the threads come by connections; the second is what other systems have."""
    balances = request.param != "shared"
    if balances and not _sockets.BALANCES:
        pytest.skip("this kernel does not")
    monkeypatch.setattr(_sockets, "BALANCES", balances)
    monkeypatch.setattr(_server, "BALANCES", balances)
    if not balances:
        # io_uring, which those systems have not, wakes one who waits to accept, and no other.
        monkeypatch.setenv("FLOWCORO_REACTOR", "epoll" if sys.platform == "linux" else "kqueue")
    return balances


@pytest.mark.usefixtures("balances")
@pytest.mark.parametrize("backend", ["native", "hypercorn"])
def test_each_thread_answers(backend: str) -> None:
    router = Router()
    seen: set[str] = set()
    both = threading.Event()

    @router.get("/")
    async def hello() -> str:
        seen.add(name_of_thread())
        if len(seen) == 2:
            both.set()
        both.wait(30)  # blocks its loop, so that the other gets what comes next
        return name_of_thread()

    def ask(url: str) -> None:
        with ThreadPoolExecutor(200) as threads:
            answers = []
            while not both.wait(0.01) and len(answers) < 200:
                answers.append(threads.submit(get, url))
            assert {answer.result() for answer in answers} == {"loop 0", "loop 1"}

    Client([App(HttpServer(router, backend=backend)) for _ in range(2)], ask).run()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("balances")
def test_a_signal_under_requests_loses_none(number: signal.Signals) -> None:
    router = Router()
    arrived: list[str] = []
    all_here, go = threading.Event(), threading.Event()

    @router.get("/{n:int}")
    async def slow(n: int) -> int:
        arrived.append(name_of_thread())
        if len(arrived) == 40:
            all_here.set()
        while not go.is_set():
            await anyio.to_thread.run_sync(go.wait, 0.1)
        return n

    def closed(port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=30).close()
        except OSError:
            return True
        return False

    def ask(url: str) -> None:
        with ThreadPoolExecutor(40) as threads:
            answers = [threads.submit(get, f"{url}/{n}") for n in range(40)]
            assert all_here.wait(30)
            os.kill(os.getpid(), number)
            port = int(url.rpartition(":")[2])
            wait_until(lambda: closed(port), "no thread listens any more")
            assert not any(answer.done() for answer in answers)
            go.set()
            assert [answer.result() for answer in answers] == [str(n) for n in range(40)]

    apps = [App(HttpServer(router)) for _ in range(2)]
    client = Client(apps, ask)
    client.run()
    assert set(arrived) <= {"loop 0", "loop 1"}


@pytest.fixture
def shop() -> Iterator[ModuleType]:
    """A module to put targets into."""
    made = sys.modules["shop"] = ModuleType("shop")
    path = list(sys.path)
    yield made
    del sys.modules["shop"]
    sys.path[:] = path


def test_an_asgi_application_is_shared_and_its_lifespan_is_not(
    shop: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    lifespans: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["loop"] = asyncio.get_running_loop()
            lifespans.append(f"up {name_of_thread()}")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            lifespans.append(f"down {name_of_thread()}")
            await send({"type": "lifespan.shutdown.complete"})
            return
        own = scope["state"]["loop"] is asyncio.get_running_loop()
        body = f"{name_of_thread()} {own}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def ask(url: str) -> None:
        found: set[str] = set()

        def both() -> bool:
            found.add(get(url))
            return found == {"loop 0 True", "loop 1 True"}

        wait_until(both, "an answer of each thread")

    shop.app = app  # type: ignore[attr-defined]
    caplog.set_level("INFO", "flowcoro.app")
    apps = load_apps("shop", 2, make_host(our_plugin))
    assert "target 'shop': one function is called by all 2 threads" in caplog.text
    Client(apps, ask).run()
    assert sorted(lifespans) == ["down loop 0", "down loop 1", "up loop 0", "up loop 1"]


def test_a_function_makes_one_for_each_thread(
    shop: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Router:
        return Router()

    shop.make = make  # type: ignore[attr-defined]
    caplog.set_level("INFO", "flowcoro.app")
    first, second = load_apps("shop:make", 2, make_host(our_plugin))
    assert "called by all" not in caplog.text
    assert servers_of(first)[0].app is not servers_of(second)[0].app


def test_an_address_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    host = make_host(our_plugin)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = make_context(plugins=host, config={"server": {"port": port}}).config
        apps = [App(HttpServer(Router())) for _ in range(2)]
        assert run_threads(apps, Environment(host, config)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot listen on 127.0.0.1:{port}: the address is in use" in line


@pytest.mark.usefixtures("balances")
def test_what_no_thread_took_is_closed() -> None:
    class Bad(HttpServer):
        async def __aenter__(self) -> Any:
            raise OSError("not today")

    host = make_host(our_plugin)
    config = make_context(plugins=host, config={"server": {"port": 0}}).config
    first = HttpServer(Router())
    port = 0

    def note() -> None:
        nonlocal port
        port = first.port

    app = App(first)
    app.when_stopping(note)
    assert run_threads([app, App(Bad(Router()))], Environment(host, config)) == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)


def in_threads(count: int, serve: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as threads:
        begun = [threads.submit(serve) for _ in range(count)]
        return [each.result() for each in begun]


def test_each_loop_sheds_load_of_its_own() -> None:
    overload = Overload(min_limit=1, initial_limit=1, max_limit=1, max_waiting=0)
    both_inside = threading.Barrier(2)

    async def call_next(request: Request) -> Response:
        await anyio.to_thread.run_sync(both_inside.wait, 30)
        assert overload.running == 1
        return Response("ok")

    async def serve() -> tuple[int, int]:
        response = await overload.handler(bare_request(), call_next)
        return response.status, overload.refused

    assert in_threads(2, lambda: asyncio.run(serve())) == [(200, 0), (200, 0)]


def test_all_loops_count_the_requests_of_a_client() -> None:
    limit = RateLimit(100, per=1e6, key=lambda request: "client")

    async def call_next(request: Request) -> Response:
        return Response("ok")

    async def serve() -> int:
        passed = 0
        for _ in range(50):
            with suppress(HttpError):
                await limit.handler(bare_request(), call_next)
                passed += 1
        return passed

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert sum(in_threads(4, lambda: asyncio.run(serve()))) == 100
    finally:
        sys.setswitchinterval(before)


SOURCE = """
import os, threading
from flowcoro_http import Router

router = Router()

@router.get("/")
async def who() -> str:
    return f"{os.getpid()} {threading.current_thread().name}"
"""


def test_workers_with_threads(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text("import sys; sys._is_gil_enabled = lambda: False")
    arguments = ("shop:router", "--workers", "2", "--threads", "2", "--port", "0")
    with Service("run", *arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path)) as service:
        urls = service.wait_for_log(r"listening on (http://\S+)", count=4)
        assert len(set(urls)) == 1
        seen: set[tuple[str, ...]] = set()

        def all_four() -> bool:
            seen.add(tuple(get(urls[0]).split(" ", 1)))
            return len(seen) == 4

        wait_until(all_four, "an answer of each thread of each worker")
        assert len({pid for pid, _ in seen}) == 2
        assert {thread for _, thread in seen} == {"loop 0", "loop 1"}
        service.terminate()
        assert service.wait() == 0, service.log
        assert "Traceback" not in service.log
