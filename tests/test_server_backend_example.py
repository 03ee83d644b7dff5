"""The server backend of the plugin author's guide keeps the contracts that it tells of."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

import flowcoro_http.plugin
from flowcoro import App
from flowcoro.testing import make_host
from flowcoro.testing.contracts import PluginContract
from flowcoro_http import HttpConfig, HttpServer, Router, ServerBackend
from flowcoro_http.testing import ServerBackendContract

FOLDER = str(Path(__file__).parents[1] / "docs/examples/http")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setattr(sys, "path", [FOLDER, *sys.path])
    monkeypatch.setenv("PYTHONPATH", FOLDER)
    yield importlib.import_module("uvicorn_backend")
    del sys.modules["uvicorn_backend"]


class TestPlugin(PluginContract):
    @pytest.fixture
    def plugin(self, example: ModuleType) -> ModuleType:
        return example

    @pytest.fixture
    def features(self) -> list[ModuleType]:
        return [flowcoro_http.plugin]


class TestBackend(ServerBackendContract):
    @pytest.fixture
    def backend(self, example: ModuleType) -> ServerBackend:
        (backend,) = example.flowcoro_http_servers()
        return backend


async def test_the_configuration_chooses_it(example: ModuleType) -> None:
    router = Router()

    @router.get("/")
    async def hello() -> str:
        return "hello"

    server = HttpServer(router, host="127.0.0.1", port=0, config=HttpConfig(backend="uvicorn"))
    host = make_host(flowcoro_http.plugin, example, strict=True)
    async with App(server, plugins=host), httpx.AsyncClient() as client:
        response = await client.get(server.url)
        assert (response.text, response.headers["server"]) == ("hello", "uvicorn")
