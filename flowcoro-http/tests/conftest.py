"""What the tests of flowcoro-http share."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme

import _serving
import flowcoro
import flowcoro.reactor
from _handling import Pause, no_wait
from flowcoro_http import HttpConfig
from log_tools import logging_as_before


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Applications set up the log of the process: Litestar has its root begin at INFO."""
    with logging_as_before():
        yield


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run by asyncio; over FlowCoro's loop where a test of servers or clients asks for it."""
    options: dict[str, Any] = {}
    over_ours = False
    if "served_by" in request.fixturenames:
        _, over_ours = request.getfixturevalue("served_by")
    if "client_loop" in request.fixturenames:
        over_ours = request.getfixturevalue("client_loop") == "flowcoro"
    if over_ours:
        options["loop_factory"] = flowcoro.new_event_loop
    if "native_over" in request.fixturenames:
        name = request.getfixturevalue("native_over")
        if name != "asyncio":
            options["loop_factory"] = partial(flowcoro.new_event_loop, name)
    return "asyncio", options


@pytest.fixture(params=["flowcoro", "asyncio"])
def client_loop(request: pytest.FixtureRequest) -> str:
    """The loop that a client's test runs on."""
    chosen: str = request.param
    return chosen


@pytest.fixture(params=["asyncio", *flowcoro.reactor.available()])
def native_over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Serve by the native backend, over each loop: asyncio's, and ours with each reactor."""
    monkeypatch.setattr(_serving, "BACKEND", "native")
    name: str = request.param
    return name


@pytest.fixture(params=["router", "asgi"])
def called_by(request: pytest.FixtureRequest) -> str:
    """What calls a handler: the engine by itself, or an ASGI application."""
    chosen: str = request.param
    return chosen


@pytest.fixture(params=["at-once", "waits"])
def pause(request: pytest.FixtureRequest) -> Pause:
    """What a handler begins with: nothing, or a wait, with which it gets the task for itself."""

    async def a_turn() -> None:
        await asyncio.sleep(0)

    return no_wait if request.param == "at-once" else a_turn


@pytest.fixture
def secured(tmp_path: Path) -> tuple[HttpConfig, ssl.SSLContext]:
    """What a server of localhost that speaks TLS is set up by, and what its clients trust."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    for pem in issued.cert_chain_pems:
        pem.write_to_path(certfile, append=True)
    issued.private_key_pem.write_to_path(keyfile)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    config = HttpConfig(certfile=str(certfile), keyfile=str(keyfile), keep_alive_timeout=60)
    return config, client


@pytest.fixture(
    params=[("native", True), ("native", False), ("hypercorn", False)],
    ids=["native", "native-on-asyncio", "hypercorn"],
)
def served_by(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """The name of a built-in backend, and whether it is over FlowCoro's loop."""
    chosen: tuple[str, bool] = request.param
    return chosen


@pytest.fixture
def backend(served_by: tuple[str, bool], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Serve by each of the built-in backends; the module of the one."""
    name, _ = served_by
    monkeypatch.setattr(_serving, "BACKEND", name)
    return importlib.import_module(f"flowcoro_http.servers.{name}")
