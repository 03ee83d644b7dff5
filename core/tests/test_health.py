from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from flowcoro import App, Component, Health, HealthStatus, hookimpl
from flowcoro.app import HealthCheck, _app
from flowcoro.plugins import PluginHost
from flowcoro.testing import make_context, make_host

pytestmark = pytest.mark.timeout(30)


class Recorder(Component): ...


def having(*checks: HealthCheck) -> PluginHost:
    host = make_host(strict=False)
    plugin = SimpleNamespace(FLOWCORO_HOOK_API=1)
    plugin.flowcoro_health_checks = hookimpl(lambda context: checks)
    host.register(plugin, name="p0", distribution="flowcoro-p0 1.0")
    return host


def app(*components: Component, plugins: PluginHost | None = None) -> App:
    host = plugins or make_host()
    return App(*components, plugins=host, config=make_context(plugins=host).config)


def check(name: str, answer: Callable[[], Any], timeout: float = 5.0) -> HealthCheck:
    return HealthCheck(name, answer, timeout)


async def answer(health: Any) -> Any:
    return health


async def test_health(caplog: pytest.LogCaptureFixture) -> None:
    checks = [
        check("fine", lambda: answer(Health(detail="yes"))),
        check("late", anyio.sleep_forever, timeout=0.01),
        check("raises", lambda: answer(1 / 0)),
        check("warns", lambda: answer(Health(HealthStatus.WARN))),
        check("nothing", lambda: answer(None)),
        check("recorder", lambda: answer(Health())),
    ]
    host = having(*checks)
    async with app(Recorder(), plugins=host) as application:
        report = await application.health()
    assert report.status is HealthStatus.FAIL
    assert list(report.checks) == ["fine", "late", "nothing", "raises", "recorder", "warns"]
    assert report.checks["fine"].detail == "yes"
    assert report.checks["late"] == Health(HealthStatus.FAIL, "no answer within 0.01 s")
    assert report.checks["raises"] == Health(HealthStatus.FAIL, "raised ZeroDivisionError")
    assert report.checks["nothing"].status is HealthStatus.FAIL
    assert (
        "health check 'recorder' of plugin 'p0' (flowcoro-p0 1.0) is left out: "
        "component 'recorder' has that name" in caplog.text
    )


async def test_the_worst_of_the_checks_counts() -> None:
    async with app() as application:
        assert (await application.health()).status is HealthStatus.PASS
    warns = [check("warns", lambda: answer(Health(HealthStatus.WARN)))]
    host = having(*warns)
    async with app(Recorder(), plugins=host) as application:
        assert (await application.health()).status is HealthStatus.WARN


async def test_a_components_health_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_app, "_COMPONENT_CHECK_TIMEOUT", 0.01)

    class Hangs(Component):
        async def health(self) -> Health:
            await anyio.sleep_forever()
            return Health()

    async with app(Hangs()) as application:
        report = await application.health()
    assert report.checks["hangs"] == Health(HealthStatus.FAIL, "no answer within 0.01 s")


async def test_a_check_that_ignores_cancellation_does_not_hold_up_the_others() -> None:
    release = asyncio.Event()

    async def deaf() -> Health:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Health()

    host = having(check("deaf", deaf, 0.02))
    async with app(plugins=host) as application:
        asking = asyncio.create_task(application.health())
        done, _ = await asyncio.wait((asking,), timeout=2)
        release.set()
        await asyncio.wait((asking,))
        assert done, "health() waits for the check without end"


async def test_a_check_that_ignores_cancellation_is_not_asked_again_and_again() -> None:
    release = asyncio.Event()
    asked = 0

    async def deaf() -> Health:
        nonlocal asked
        asked += 1
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Health()

    before = asyncio.all_tasks()
    async with app(plugins=having(check("deaf", deaf, 0.01))) as application:
        for _ in range(2):
            report = await application.health()
            assert report.checks["deaf"].status is HealthStatus.FAIL
        left = asyncio.all_tasks() - before
        release.set()
        await asyncio.wait(left)
        # Each probe would otherwise leave one more task behind for ever.
        assert asked == 1
        assert len(left) == 1
        assert (await application.health()).checks["deaf"].status is HealthStatus.PASS
