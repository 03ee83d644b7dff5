"""What a broken plugin may do while an application stops; see also `test_plugin_faults.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowcoro import App, Component
from flowcoro.app import AppState, _lifecycle
from flowcoro.cli import Command
from flowcoro.plugins import PluginHost, PluginStatus

HEADER = "from flowcoro import Component, hookimpl\nFLOWCORO_HOOK_API = 1\n"


@asynccontextmanager
async def the_good_one_works(host: PluginHost, *components: Component) -> AsyncIterator[App]:
    """Run an application and see the good plugin's contributions work in it."""
    assert host.records["good"].status is PluginStatus.LOADED
    assert "good" in host.collect("flowcoro_commands", Command)
    with anyio.fail_after(20):
        async with App(*components, plugins=host) as app:
            report = await app.health()
            assert report.checks["good"].status == "pass"
            yield app
    assert app.state is AppState.STOPPED


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lifecycle, "CLOSE_GRACE", 0.05)
    monkeypatch.setenv("FLOWCORO_SERVER_DRAIN_TIMEOUT", "0.05")


STOPPING = """
import asyncio

import anyio
from flowcoro import Component, hookimpl
from flowcoro.app import ComponentFactory
FLOWCORO_HOOK_API = 1
release = None

class Stubborn(Component):
    async def {method}(self, *exc):
        global release
        release = asyncio.Event()
        {body}

@hookimpl
def flowcoro_components(config):
    return [ComponentFactory("stubborn", Stubborn)]
"""
SWALLOWS = """
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass
"""


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("drain", "was still busy at the drain deadline"),
        ("__aexit__", "did not stop within its deadline; cutting it"),
    ],
)
async def test_a_plugin_that_hangs_on_shutdown(
    site: Any, caplog: pytest.LogCaptureFixture, method: str, said: str
) -> None:
    source = STOPPING.format(method=method, body="await anyio.sleep_forever()")
    site.install("flowcoro-stub", {"stub": "stub_plugin"}, {"stub_plugin": source})
    site.install_good()
    async with the_good_one_works(site.load()) as app:
        pass
    assert f"component 'stubborn' of plugin 'stub' (flowcoro-stub 1.0) {said}" in caplog.text
    assert app.stuck == []


@pytest.mark.parametrize("method", ["drain", "__aexit__"])
async def test_a_plugin_that_swallows_cancellation_for_ever(
    site: Any, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    source = STOPPING.format(method=method, body=SWALLOWS)
    site.install("flowcoro-stub", {"stub": "stub_plugin"}, {"stub_plugin": source})
    site.install_good()
    before = asyncio.all_tasks()
    async with the_good_one_works(site.load()) as app:
        pass
    label = "component 'stubborn' of plugin 'stub' (flowcoro-stub 1.0)"
    assert app.stuck == [label]
    assert f"{label} ignores cancellation; leaving it behind" in caplog.text
    import stub_plugin

    stub_plugin.release.set()
    await asyncio.wait(asyncio.all_tasks() - before)


@pytest.mark.parametrize("hook", ["flowcoro_started", "flowcoro_stopping"])
async def test_an_event_hook_that_swallows_cancellation_for_ever(
    site: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    source = f"""
{HEADER}
import asyncio
release = None

@hookimpl
async def {hook}(context):
    global release
    release = asyncio.Event()
    {SWALLOWS.replace(chr(10) + "    ", chr(10))}
"""
    site.install("flowcoro-deaf", {"deaf": "deaf_plugin"}, {"deaf_plugin": source})
    site.install_good()
    host = site.load()
    import deaf_plugin

    original = host.call_async

    async def soon(hook: str, **arguments: Any) -> Any:
        return await original(hook, **{**arguments, "timeout": 0.05})

    monkeypatch.setattr(host, "call_async", soon)

    async def life() -> None:
        async with App(plugins=host):
            pass

    before = asyncio.all_tasks()
    task = asyncio.create_task(life())
    done, _ = await asyncio.wait((task,), timeout=3)
    deaf_plugin.release.set()
    await asyncio.wait(asyncio.all_tasks() - before)
    assert done, "the application waits for the hook without end"
    assert f"plugin 'deaf' (flowcoro-deaf 1.0) failed in hook {hook}" in caplog.text
