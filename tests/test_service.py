"""A whole service, as a process: draining, workers, bad input, sick plugins."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from _service import Service, wait_until

APP = '''
import os

import anyio
from flowcoro import App
from flowcoro_http import HttpServer, Router

router = Router()
waiting = 0
stopping = anyio.Event()


@router.get("/wait")
async def wait() -> str:
    """Answer only once the application has begun to stop."""
    global waiting
    waiting += 1
    await stopping.wait()
    return "done"


@router.get("/hang")
async def hang() -> str:
    global waiting
    waiting += 1
    await anyio.sleep_forever()
    return "never"


@router.get("/waiting")
async def count() -> int:
    return waiting


@router.get("/pid")
async def pid() -> int:
    return os.getpid()


@router.post("/echo")
async def echo(text: dict[str, str]) -> dict[str, str]:
    return text


app = App(HttpServer(router))
app.when_stopping(stopping.set)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(APP)
    return tmp_path


async def in_flight(url: str, path: str, count: int, service: Service) -> list[httpx.Response]:
    """Have `count` requests in flight, then SIGTERM; return what came back."""
    answers: list[httpx.Response | httpx.HTTPError] = []
    limits = httpx.Limits(max_connections=count + 1)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def ask() -> None:
            try:
                answers.append(await client.get(path))
            except httpx.HTTPError as error:
                answers.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(ask)
            with anyio.fail_after(60):
                while (await client.get("/waiting")).json() < count:
                    await anyio.lowlevel.checkpoint()
            service.terminate()
    return answers  # type: ignore[return-value]


async def test_sigterm_finishes_fifty_requests_in_flight(folder: Path) -> None:
    with Service("run", "service:app", "--port", "0", cwd=folder) as service:
        answers = await in_flight(service.url(), "/wait", 50, service)
        status = await anyio.to_thread.run_sync(service.wait)
    assert [a.text for a in answers] == ["done"] * 50
    assert status == 0, service.log


async def test_sigterm_cuts_what_does_not_finish(folder: Path) -> None:
    options = ("--port", "0", "--set", "server.drain_timeout=0.3")
    with Service("run", "service:app", *options, cwd=folder) as service:
        answers = await in_flight(service.url(), "/hang", 50, service)
        status = await anyio.to_thread.run_sync(service.wait)
    assert len(answers) == 50
    assert not [a for a in answers if isinstance(a, httpx.Response) and a.status_code == 200]
    assert status == 0, service.log
    assert "drain deadline" in service.log


async def test_service_goes_on_when_a_worker_is_killed(folder: Path) -> None:
    with Service("run", "service:app", "--port", "0", "--workers", "2", cwd=folder) as service:
        url = service.url()
        service.wait_for_log("listening on", 2)

        def pid() -> int:
            # A new connection each time, so that the kernel chooses a worker anew.
            found: int = httpx.get(f"{url}/pid", timeout=30).json()
            return found

        seen = {await anyio.to_thread.run_sync(pid) for _ in range(64)}
        assert len(seen) == 2
        victim = seen.pop()
        (survivor,) = seen
        os.kill(victim, signal.SIGKILL)
        service.wait_for_log(r"worker \d ended with signal 9")
        # The kernel may hand a connection to the dying socket; what follows must work.
        assert await anyio.to_thread.run_sync(pid) in {survivor, *range(victim + 1, 2**22)}
        service.wait_for_log("listening on", 3)
        workers = {await anyio.to_thread.run_sync(pid) for _ in range(64)}
        assert len(workers) == 2
        assert victim not in workers
        service.terminate()
        assert await anyio.to_thread.run_sync(service.wait) == 0


def test_workers_stop_when_the_supervisor_is_killed(folder: Path) -> None:
    with Service("run", "service:app", "--port", "0", "--workers", "2", cwd=folder) as service:
        url = service.url()
        service.wait_for_log("listening on", 2)
        os.kill(service.pid, signal.SIGKILL)

        def gone() -> bool:
            host, port = url.removeprefix("http://").split(":")
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) != 0

        wait_until(gone, "workers to stop")


def test_reload_serves_the_new_code(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--port", str(port), "--reload")
    with Service("run", "service:app", *options, cwd=folder) as service:
        url = service.url()
        assert httpx.post(f"{url}/echo", json={"a": "b"}).json() == {"a": "b"}
        changed = APP.replace("return text", 'return {"changed": "yes"}')
        (folder / "service.py").write_text(changed)
        service.wait_for_log("listening on", 2)
        assert httpx.post(f"{url}/echo", json={"a": "b"}).json() == {"changed": "yes"}


def test_two_signals_cut_the_draining_short(folder: Path) -> None:
    with Service("run", "service:app", "--port", "0", cwd=folder) as service:
        url = service.url()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n")
            wait_until(lambda: httpx.get(f"{url}/waiting").json() == 1, "the request")
            service.terminate()
            service.wait_for_log("stopping")
            service.terminate()
            assert service.wait() == 0
    assert "asked again" in service.log


def test_a_failing_start_is_one_readable_line(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = subprocess.run(
            [sys.executable, "-m", "flowcoro", "run", "service:app", "--port", str(port)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    errors = [line for line in ran.stderr.splitlines() if line.startswith("flowcoro: error:")]
    assert len(errors) == 1
    assert f"127.0.0.1:{port}" in errors[0]
    assert "component 'http'" in errors[0]
