"""Health, readiness and metrics through hooks alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType

import httpx
import pytest

import flowcoro_http.plugin
import flowcoro_observability.plugin
from flowcoro import App, Component, Health, HealthStatus
from flowcoro.app import AppState, ComponentFactory, Shared
from flowcoro.config import ConfigSection
from flowcoro.errors import ConfigError, FlowcoroError
from flowcoro.testing import make_context, make_host
from flowcoro.testing.contracts import (
    ComponentContract,
    ConfigSectionContract,
    PluginContract,
)
from flowcoro_http import HttpError, HttpServer, Router
from flowcoro_http.testing import client_for
from flowcoro_observability import ObservabilityConfig, Telemetry

PLUGINS = (flowcoro_http.plugin, flowcoro_observability.plugin)


def make_router() -> Router:
    router = Router()

    @router.get("/users/{id}")
    async def user(id: int) -> dict[str, int]:
        return {"id": id}

    @router.get("/refuse")
    async def refuse() -> None:
        raise HttpError(409, "no")

    @router.get("/break")
    async def broken() -> None:
        raise RuntimeError("a bug")

    return router


@asynccontextmanager
async def serving(*components: Component, **config: object) -> AsyncIterator[httpx.AsyncClient]:
    """A started application and a client of its in-memory server."""
    server = HttpServer(make_router(), port=0)
    host = make_host(*PLUGINS, strict=False)
    async with App(*components, server, plugins=host) as app:
        assert app.state is AppState.RUNNING
        async with client_for(server.application) as client:
            yield client


class TestPlugin(PluginContract):
    @pytest.fixture
    def plugin(self) -> ModuleType:
        return flowcoro_observability.plugin

    @pytest.fixture
    def features(self) -> list[ModuleType]:
        return [flowcoro_http.plugin]


class TestComponent(ComponentContract):
    @pytest.fixture
    def factory(self) -> ComponentFactory:
        def create() -> Component:
            # The plugin itself brings one under the usual name.
            telemetry = Telemetry()
            telemetry.name = "second"
            return telemetry

        return ComponentFactory("second", create)

    @pytest.fixture
    def plugins(self) -> list[object]:
        return [flowcoro_observability.plugin]


class TestSection(ConfigSectionContract):
    @pytest.fixture
    def section(self) -> ConfigSection:
        return ConfigSection("observability", ObservabilityConfig)


async def test_alive_and_ready() -> None:
    async with serving() as client:
        alive = await client.get("/healthz")
        ready = await client.get("/readyz")
    assert alive.status_code == 200
    assert alive.headers["content-type"] == "application/health+json"
    assert alive.json() == {"status": "pass"}
    assert ready.status_code == 200
    assert ready.json()["state"] == "running"
    assert ready.json()["checks"]["http"][0]["status"] == "pass"


async def test_a_sick_component_makes_it_unready_but_alive() -> None:
    class Sick(Component):
        name = "sick"

        async def health(self) -> Health:
            return Health(HealthStatus.FAIL, "cannot")

    async with serving(Sick()) as client:
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["status"] == "fail"
    assert ready.json()["checks"]["sick"] == [{"status": "fail", "output": "cannot"}]


async def test_a_draining_application_is_unready() -> None:
    server = HttpServer(make_router(), port=0)
    async with App(server, plugins=make_host(*PLUGINS)) as app:
        app.context.state = AppState.DRAINING
        async with client_for(server.application) as client:
            ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["state"] == "draining"


async def test_requests_are_counted_by_route_and_status() -> None:
    async with serving() as client:
        for number in range(3):
            await client.get(f"/users/{number}")
        await client.get("/users/x")
        await client.get("/refuse")
        await client.get("/break")
        await client.get("/nowhere/1")
        await client.get("/nowhere/2")
        await client.request("BREW", "/nowhere/2")
        exposition = (await client.get("/metrics")).text
    counts = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in exposition.splitlines()
        if line.startswith("http_server_request_duration_seconds_count")
    }

    def count(**labels: str) -> float:
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        return sum(n for line, n in counts.items() if all(w in line for w in wanted))

    assert count(http_route="/users/{id}", http_response_status_code="200") == 3
    assert count(http_route="/users/{id}", http_response_status_code="422") == 1
    assert count(http_route="/refuse", http_response_status_code="409") == 1
    assert count(http_route="/break", http_response_status_code="500") == 1
    assert count(http_response_status_code="404", http_request_method="GET") == 2
    assert count(http_request_method="_OTHER") == 1
    # Paths that match nothing must not make a time series each.
    assert "nowhere" not in exposition
    assert 'http_server_active_requests{http_request_method="GET"} 1.0' in exposition


async def test_two_applications_do_not_mix() -> None:
    async with serving() as first:
        await first.get("/users/1")
        async with serving() as second:
            assert "/users/{id}" not in (await second.get("/metrics")).text
        assert "/users/{id}" in (await first.get("/metrics")).text


async def test_an_application_may_add_instruments() -> None:
    telemetry = Telemetry()
    telemetry.attach(make_context(plugins=PLUGINS))
    telemetry.meter.create_counter("orders").add(2)
    assert "orders_total 2.0" in telemetry.exposition().decode()


async def test_the_threads_of_a_process_have_one_registry() -> None:
    shared = Shared(threads=2)
    first, second = Telemetry(), Telemetry()
    for each in (first, second):
        each.attach(make_context(plugins=PLUGINS, shared=shared))
    async with second:
        async with first:
            for each in (first, second):
                each.request_done("GET", "/", 200, 0.1)
                assert first.exposition() == second.exposition()
        with pytest.raises(FlowcoroError, match="not attached"):
            _ = first.meter
        second.request_done("GET", "/", 200, 0.1)
        second.meter.create_counter("orders").add(1)
        text = second.exposition().decode()
    assert "http_server_request_duration_seconds_count" in text
    (count,) = re.findall(r"duration_seconds_count{.*} (\S+)", text)
    assert float(count) == 3
    assert "orders_total 1.0" in text


async def test_paths_and_buckets_come_from_configuration() -> None:
    config = {"observability": {"metrics_path": "/m", "buckets": [0.5, 1.0]}}
    server = HttpServer(make_router())
    context = make_context(Telemetry(), plugins=PLUGINS, config=config)
    telemetry = context.dependencies.resolver(Telemetry, needed_by="test").instance
    assert isinstance(telemetry, Telemetry)
    telemetry.attach(context)
    server.attach(context)
    async with client_for(server.application) as client:
        await client.get("/users/1")
        text = (await client.get("/m")).text
    assert 'le="0.5"' in text
    assert 'le="0.25"' not in text


@pytest.mark.parametrize("buckets", [[1.0, 0.5], [1.0, 1.0], []])
def test_bad_buckets_are_refused(buckets: list[float]) -> None:
    with pytest.raises(ConfigError, match="ascending"):
        make_context(plugins=PLUGINS, config={"observability": {"buckets": buckets}})


async def test_a_blocked_plugin_leaves_no_routes_and_no_cost() -> None:
    server = HttpServer(make_router(), port=0)
    app = App(server, plugins=make_host(flowcoro_http.plugin))
    async with app, client_for(server.application) as client:
        assert (await client.get("/users/1")).status_code == 200
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/healthz")).status_code == 404


def test_blocked_it_loads_nothing_heavy() -> None:
    code = (
        "import sys; from flowcoro.plugins import PluginHost;"
        "host = PluginHost.load(block=['observability']);"
        "assert str(host.records['observability'].status) == 'blocked';"
        "print(any(m.startswith(('opentelemetry', 'prometheus')) for m in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


async def test_it_loads_without_http() -> None:
    async with App(plugins=make_host(flowcoro_observability.plugin)) as app:
        report = await app.health()
    assert report.checks["observability"].status == "pass"


async def test_log_records_have_the_ids_of_their_span() -> None:
    import json
    import logging

    from opentelemetry.sdk.trace import TracerProvider

    from flowcoro.log import AsyncHandler, JsonFormatter, Logger, Trace, set_trace_provider

    batches: list[bytes] = []
    handler = AsyncHandler(batches.append, formatter=JsonFormatter())
    logger = Logger("tests.observability", logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("tests")
    before = set_trace_provider(lambda: Trace("mine"))
    try:
        async with App(plugins=make_host(*PLUGINS)):
            async with App(plugins=make_host(*PLUGINS)):
                pass
            with tracer.start_as_current_span("one") as span:
                logger.info("within")
            logger.info("between")
        with tracer.start_as_current_span("two"):
            logger.info("after")
    finally:
        set_trace_provider(before)
    handler.close()
    within, between, after = map(json.loads, b"".join(batches).splitlines())
    context = span.get_span_context()
    assert within["trace_id"] == f"{context.trace_id:032x}"
    assert within["span_id"] == f"{context.span_id:016x}"
    assert between["trace_id"] == after["trace_id"] == "mine"
