"""`flowcoro run` with a FastAPI application, in processes of their own."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from _service import Service, wait_until

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and workers need POSIX"),
]

SHOPS = Path(__file__).parent / "frameworks"
SOURCE = """
import asyncio, os, sys
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, Request
from flowcoro_http import Router

@asynccontextmanager
async def lifespan(app):
    print(f"up {os.getpid()}")
    yield {"greeting": "from the lifespan"}
    print(f"down {os.getpid()}")

app = FastAPI(lifespan=lifespan)

@app.get("/about")
async def about(request: Request):
    return {
        "pid": os.getpid(),
        "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        "hypercorn": "hypercorn" in sys.modules,
        "greeting": request.state.greeting,
    }

@app.post("/items/{id}")
async def add(id: int, names: list[str]):
    return {"id": id, "names": names}

@app.get("/slow")
async def slow():
    print("busy")
    await anyio.to_thread.run_sync(lambda: open(os.environ["GATE"]).read())
    return "done"

def create():
    return app

router = Router()

@router.get("/")
async def hello() -> str:
    return "hello from a router"

def wsgi(environ, start_response): ...
def takes(x): ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


@contextmanager
def running(folder: Path, *arguments: str, **environ: str) -> Iterator[Service]:
    """Run until SIGTERM, and require an orderly end."""
    with Service("run", *arguments, cwd=folder, **environ) as service:
        yield service
        service.terminate()
        assert service.wait() == 0, service.log
        assert "Traceback" not in service.log


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("target", ["shop", "shop:app", "shop:create"])
def test_an_application_of_fastapi(folder: Path, target: str) -> None:
    with running(folder, target, "--port", "0") as service:
        url = service.url()
        about = get(f"{url}/about")
        assert about == {
            "pid": service.pid,
            "loop": "flowcoro",
            "hypercorn": False,
            "greeting": "from the lifespan",
        }
        request = urllib.request.Request(
            f"{url}/items/7", b'["a"]', {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer) == {"id": 7, "names": ["a"]}
    assert f"up {service.pid}\n" in service.lines
    assert f"down {service.pid}\n" in service.lines


@pytest.mark.parametrize("name", ["fastapi", "starlette", "litestar", "django"])
def test_applications_of_other_frameworks(name: str) -> None:
    with running(SHOPS, f"{name}_shop:app", "--port", "0") as service:
        assert get(f"{service.url()}/items/7?size=l") == {"id": 7, "size": "l"}
        if name != "django":  # which has no lifespan
            assert get(f"{service.url()}/stock") == {"stock": 3}


def test_a_router(folder: Path) -> None:
    with (
        running(folder, "shop:router", "--port", "0") as service,
        urllib.request.urlopen(service.url(), timeout=30) as answer,
    ):
        assert answer.read() == b"hello from a router"


def test_options(folder: Path) -> None:
    (folder / "mine.toml").write_text("[http]\naccess_log = true\n[server]\nport = 1\n")
    arguments = ("--host", "localhost", "--port", "0", "--loop", "asyncio", "--config", "mine.toml")
    with running(folder, "shop:app", *arguments, "--set", "http.backend=hypercorn") as service:
        url = service.url()
        assert url.startswith("http://localhost:")
        about = get(f"{url}/about")
        assert (about["loop"], about["hypercorn"]) == ("asyncio", True)
        service.wait_for_log(r"flowcoro.http.access: .*GET /about")


def test_a_request_in_flight_is_finished(folder: Path) -> None:
    gate = folder / "gate"
    os.mkfifo(gate)
    with (
        ThreadPoolExecutor() as threads,
        running(folder, "shop:app", "--port", "0", GATE=str(gate)) as service,
    ):
        answer = threads.submit(get, f"{service.url()}/slow")
        service.wait_for_log("busy")
        service.terminate()
        service.wait_for_log(r"stopping \(SIGTERM\)")
        assert not answer.done()
        assert "down" not in service.log
        gate.write_text("go")
        assert answer.result(30) == "done"
        assert service.wait() == 0, service.log
        assert "down" in service.log


def test_workers_share_a_port(folder: Path) -> None:
    with running(folder, "shop:app", "--port", "0", "--workers", "2") as service:
        urls = service.wait_for_log(r"listening on (http://\S+)", count=2)
        assert len(set(urls)) == 1
        workers = {int(pid) for pid in service.wait_for_log(r"up (\d+)", count=2)}
        assert len(workers) == 2
        answered: set[int] = set()

        def both() -> bool:
            answered.add(get(f"{urls[0]}/about")["pid"])  # on a connection of its own
            return answered == workers

        wait_until(both, "an answer of each worker")
    assert {int(pid) for pid in service.wait_for_log(r"down (\d+)", count=2)} == workers


def test_reloading(folder: Path) -> None:
    with running(folder, "shop:app", "--port", "0", "--reload") as service:
        first = get(f"{service.url()}/about")["pid"]
        (folder / "shop.py").write_text(SOURCE.replace('"pid"', '"process"'), encoding="utf-8")
        url = service.wait_for_log(r"listening on (http://\S+)", count=2)[1]
        assert get(f"{url}/about")["process"] != first


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shop:wsgi", "expected an ASGI 3 application, found a WSGI one (function); a2wsgi"),
        ("shop:takes", "expected a flowcoro.App or an ASGI 3 application, or a function without"),
        ("shop:FastAPI", "expected a flowcoro.App or an ASGI 3 application, found type"),
        ("shop:apq", "shop has no 'apq'; did you mean 'app'?"),
    ],
)
def test_what_cannot_be_run(folder: Path, target: str, message: str) -> None:
    with Service("run", target, cwd=folder) as service:
        assert service.wait() == 1
    (line,) = service.lines
    assert line.startswith(f"flowcoro: error: target {target!r}: ")
    assert message in line


def test_without_the_plugin_it_says_what_is_missing(folder: Path) -> None:
    blocked = "http,observability"
    with Service("run", "shop:app", cwd=folder, FLOWCORO_BLOCK_PLUGINS=blocked) as service:
        assert service.wait() == 1
    (line,) = service.lines
    assert "takes scope, receive, send; flowcoro-http, which runs ASGI applications" in line


def test_a_lifespan_that_fails(folder: Path) -> None:
    source = SOURCE.replace('print(f"up {os.getpid()}")', 'raise OSError("no database")')
    (folder / "shop.py").write_text(source, encoding="utf-8")
    with Service("run", "shop:app", "--port", "0", cwd=folder) as service:
        assert service.wait() == 1
    assert service.lines[-1] == (
        "flowcoro: error: component 'http' could not start: "
        "the ASGI application could not start: OSError: no database\n"
    )
