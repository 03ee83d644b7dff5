"""What the tests of flowcoro-http share."""

from __future__ import annotations

import importlib
from functools import partial
from types import ModuleType
from typing import Any

import pytest

import _serving
import flowcoro
import flowcoro.reactor


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
