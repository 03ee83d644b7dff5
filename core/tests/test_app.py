from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flowcoro import App, Component, FlowcoroError, Health, HealthStatus, hookimpl
from flowcoro.app import AppState, ComponentFactory, Context
from flowcoro.config import Config, ConfigFile
from flowcoro.errors import DependencyError, PluginError, StartupError
from flowcoro.plugins import PluginHost
from flowcoro.testing import make_context, make_host

pytestmark = pytest.mark.timeout(30)


def plugin(**hooks: Any) -> SimpleNamespace:
    marked = {name: hookimpl(function) for name, function in hooks.items()}
    return SimpleNamespace(FLOWCORO_HOOK_API=1, **marked)


def brings(*factories: ComponentFactory) -> SimpleNamespace:
    return plugin(flowcoro_components=lambda config: factories)


def lenient(*plugins: object) -> PluginHost:
    host = make_host(strict=False)
    for number, item in enumerate(plugins):
        host.register(item, name=f"p{number}", distribution=f"flowcoro-p{number} 1.0")
    return host


def settings(host: PluginHost, drain_timeout: float = 5.0) -> Config:
    return make_context(plugins=host, config={"server": {"drain_timeout": drain_timeout}}).config


def app(*components: Component, plugins: PluginHost | None = None, **kwargs: Any) -> App:
    host = plugins or make_host()
    return App(*components, plugins=host, config=settings(host, **kwargs))


class Recorder(Component):
    """Records its life; `waits` holds it at a step until it is released."""

    def __init__(self, name: str = "recorder", waits: str = "") -> None:
        self.name = name
        self.waits = waits
        self.steps: list[str] = []
        self.at = anyio.Event()
        self.go = anyio.Event()

    async def step(self, what: str) -> None:
        self.steps.append(what)
        if what == self.waits:
            self.at.set()
            await self.go.wait()

    async def __aenter__(self) -> Recorder:
        await self.step("start")
        return self

    async def drain(self) -> None:
        await self.step("drain")

    async def __aexit__(self, *exc: object) -> None:
        await self.step("close")


class Fragile(Component):
    """Breaks while it runs, when told to."""

    def __init__(self, name: str = "fragile") -> None:
        self.name = name
        self.broken = anyio.Event()

    async def __aenter__(self) -> Fragile:
        self.group = anyio.create_task_group()
        await self.group.__aenter__()
        self.group.start_soon(self.fall)
        return self

    async def fall(self) -> None:
        await self.broken.wait()
        raise OSError("cable cut")

    async def __aexit__(self, *exc: Any) -> bool | None:  # type: ignore[override]
        self.group.cancel_scope.cancel()
        return await self.group.__aexit__(*exc)


@asynccontextmanager
async def serving(application: App) -> AsyncIterator[asyncio.Task[None]]:
    """Serve in a task; on leaving it must have ended."""
    started = anyio.Event()
    task = asyncio.create_task(application.serve(on_started=started.set))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.wait((waiting,))
    try:
        yield task
    finally:
        await asyncio.wait((task,), timeout=20)
        assert task.done()


def interrupt(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


async def test_the_life_of_an_application() -> None:
    part = Recorder()
    application = app(part)
    assert application.state is AppState.STOPPED
    with pytest.raises(FlowcoroError, match="application 'app' is not running"):
        _ = application.context
    async with application as same:
        assert same is application
        assert application.state is AppState.RUNNING
        assert application.size == 1
        assert not application.failed
        with pytest.raises(FlowcoroError, match="application 'app' is running already"):
            await application.__aenter__()
        assert application.state is AppState.RUNNING
    assert application.state is AppState.STOPPED
    assert part.steps == ["start", "drain", "close"]
    await application.__aexit__(None, None, None)


async def test_an_application_can_run_again() -> None:
    part = Recorder()
    application = app(part)
    for _ in range(2):
        async with application:
            pass
    assert part.steps == ["start", "drain", "close"] * 2


@pytest.mark.parametrize("thing", [object(), Recorder, None, "http"])
def test_an_application_takes_components_only(thing: Any) -> None:
    with pytest.raises(TypeError, match="App takes components, got "):
        App(thing)
    with pytest.raises(TypeError, match="App takes components, got "):
        App().add(thing)


async def test_components_find_the_context_and_each_other() -> None:
    seen: list[Any] = []

    class Asks(Component):
        def attach(self, context: Context) -> None:
            resolver = context.dependencies.resolver(Recorder, needed_by="me")
            seen.extend([context, resolver.instance])

    part = Recorder()
    application = app(Asks(), part)
    async with application:
        assert seen == [application.context, part]
        assert application.context.name == "app"
        assert application.context.workers == 1
        assert await application.context.health() == await application.health()


async def test_what_was_given_to_the_constructor_wins() -> None:
    own, other = make_host(), make_host()
    application = App(plugins=own)
    environment = SimpleNamespace(plugins=other, config=settings(other, 3.0))
    application.use(environment, workers=4)  # type: ignore[arg-type]
    async with application:
        assert application.context.plugins is own
        assert application.drain_timeout == 3.0
        assert application.context.workers == 4


async def test_an_application_reads_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCORO_SERVER_DRAIN_TIMEOUT", "7")
    async with App() as application:
        assert application.drain_timeout == 7
        assert "core" in application.context.plugins.records


async def test_a_factory_of_the_application_is_a_dependency() -> None:
    application = app()
    application.provide(lambda: 5, as_type=int)
    async with application:
        dependencies = application.context.dependencies
        async with dependencies.scope() as scope:
            assert await scope.get(dependencies.resolver(int, needed_by="test")) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_stops(number: signal.Signals) -> None:
    part = Recorder(waits="drain")
    application = app(part)
    async with serving(application) as task:
        interrupt(number)
        await part.at.wait()
        assert application.state is AppState.DRAINING
        part.go.set()
    task.result()
    assert part.steps == ["start", "drain", "close"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_second_signal_cuts(caplog: pytest.LogCaptureFixture) -> None:
    part = Recorder(waits="drain")
    async with serving(app(part, drain_timeout=600)) as task:
        interrupt()
        await part.at.wait()
        interrupt()
    task.result()
    assert part.steps == ["start", "drain", "close"]
    assert "asked again to stop (SIGTERM): cutting" in caplog.text


async def test_a_second_signal_cuts_a_hook_that_hangs() -> None:
    at = anyio.Event()

    async def hangs(context: Context) -> None:
        at.set()
        await anyio.sleep_forever()

    host = lenient(plugin(flowcoro_stopping=hangs))
    async with serving(app(Recorder(), plugins=host, drain_timeout=15)) as task:
        interrupt()
        await at.wait()
        before = anyio.current_time()
        interrupt()
    task.result()
    assert anyio.current_time() - before < 10


async def test_sigterm_during_the_start_unwinds() -> None:
    first, second = Recorder("first"), Recorder("second", waits="start")
    application = app(first, second)
    task = asyncio.create_task(application.serve())
    await second.at.wait()
    assert application.state is AppState.STARTING
    interrupt()
    await asyncio.wait((task,), timeout=20)
    task.result()
    assert first.steps[-1] == "close"
    assert second.steps == ["start"]
    assert application.state is AppState.STOPPED


async def test_sigterm_during_the_started_hook_unwinds() -> None:
    at = anyio.Event()

    async def slow(context: Context) -> None:
        at.set()
        await anyio.sleep_forever()

    part = Recorder()
    task = asyncio.create_task(app(part, plugins=lenient(plugin(flowcoro_started=slow))).serve())
    await at.wait()
    interrupt()
    await asyncio.wait((task,), timeout=20)
    task.result()
    assert part.steps[-1] == "close"


async def test_serving_without_signal_handlers() -> None:
    def elsewhere() -> None:
        application = app(Recorder())
        asyncio.run(application.serve(on_started=application.request_stop))

    assert threading.current_thread() is threading.main_thread()
    await anyio.to_thread.run_sync(elsewhere)


async def test_a_hook_can_ask_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flowcoro")
    host = make_host(plugin(flowcoro_started=lambda context: context.request_stop("enough")))
    await app(Recorder(), plugins=host).serve()
    assert "app: stopping (enough)" in caplog.text


async def test_a_component_that_fails_stops_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fragile, other = Fragile(), Recorder()
    application = app(other, fragile)
    async with serving(application) as task:
        fragile.broken.set()
    assert isinstance(task.exception(), FlowcoroError)
    assert str(task.exception()) == "component 'fragile' failed: OSError: cable cut"
    assert application.failed
    assert other.steps == ["start", "drain", "close"]
    assert "component 'fragile' failed: OSError: cable cut" in caplog.text


async def test_a_component_that_fails_while_others_start_is_a_failure() -> None:
    fragile, slow = Fragile(), Recorder(waits="start")
    application = app(fragile, slow)
    task = asyncio.create_task(application.serve())
    await slow.at.wait()
    fragile.broken.set()
    await asyncio.wait((task,), timeout=20)
    assert isinstance(task.exception(), FlowcoroError)
    assert "component 'fragile' failed: OSError: cable cut" in str(task.exception())


async def test_a_component_that_is_not_essential_may_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fragile, other = Fragile(), Recorder()
    host = lenient(brings(ComponentFactory("fragile", lambda: fragile, essential=False)))
    application = app(other, plugins=host)
    async with serving(application) as task:
        fragile.broken.set()
        while (await application.health()).checks["fragile"].status is HealthStatus.PASS:
            await anyio.lowlevel.checkpoint()
        assert (await application.health()).checks["fragile"] == Health(
            HealthStatus.FAIL, "not running"
        )
        assert application.state is AppState.RUNNING
        application.request_stop()
    task.result()
    assert not application.failed
    assert "component 'fragile' of plugin 'p0' (flowcoro-p0 1.0) failed: OSError: cable cut" in (
        caplog.text
    )


def raises(error: BaseException) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise error

    return call


class BadAttach(Component):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def attach(self, context: Context) -> None:
        raise self.error


class Requires(Component):
    requires = ("nobody",)


BROKEN = {
    "create-raises": raises(OSError("no")),
    "create-exits": raises(SystemExit(3)),
    "create-gives-none": lambda: None,
    "attach-raises": lambda: BadAttach(ValueError("no")),
    "attach-cannot-resolve": lambda: BadAttach(DependencyError("no")),
    "requires-nobody": Requires,
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_component_that_is_not_essential_is_left_out(
    caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    factory = ComponentFactory("bad", BROKEN[broken], essential=False)  # type: ignore[arg-type]
    good = Recorder()
    async with app(good, plugins=lenient(brings(factory))):
        assert good.steps == ["start"]
    assert "component 'bad' of plugin 'p0' (flowcoro-p0 1.0) could not" in caplog.text
    assert "going on without it" in caplog.text


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_component_that_is_essential_names_its_plugin(broken: str) -> None:
    factory = ComponentFactory("bad", BROKEN[broken])  # type: ignore[arg-type]
    good = Recorder()
    application = app(good, plugins=lenient(brings(factory)))
    with pytest.raises(StartupError, match=r"component 'bad' of plugin 'p0' \(flowcoro-p0 1.0\)"):
        await application.__aenter__()
    assert good.steps == []
    assert application.state is AppState.STOPPED


async def test_a_broken_attach_of_the_applications_own_names_the_component() -> None:
    with pytest.raises(StartupError, match=r"component 'badattach' could not start: .*no"):
        await app(BadAttach(ValueError("no"))).__aenter__()


async def test_strict_mode_stops_what_had_started() -> None:
    part = Recorder()
    host = make_host(plugin(flowcoro_started=raises(ValueError("no"))))
    application = app(part, plugins=host)
    with pytest.raises(PluginError, match="failed in hook flowcoro_started"):
        await application.__aenter__()
    assert part.steps[-1] == "close"


async def test_strict_mode_stops_all_though_a_stopping_hook_fails() -> None:
    part = Recorder()
    host = make_host(plugin(flowcoro_stopping=raises(ValueError("no"))))
    application = app(part, plugins=host)
    await application.__aenter__()
    with pytest.raises(PluginError, match="failed in hook flowcoro_stopping"):
        await application.__aexit__(None, None, None)
    assert part.steps == ["start", "drain", "close"]
    assert application.state is AppState.STOPPED


async def test_callbacks_when_it_begins_to_stop() -> None:
    told: list[AppState] = []
    part = Recorder()
    application = app(part)
    application.when_stopping(raises(ValueError("no")))
    application.when_stopping(lambda: told.append(application.state))
    async with application:
        pass
    assert told == [AppState.DRAINING]
    assert part.steps == ["start", "drain", "close"]


async def test_a_stopping_hook_leaves_time_to_drain() -> None:
    async def hangs(context: Context) -> None:
        await anyio.sleep_forever()

    drained = []

    class Drains(Component):
        async def drain(self) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            drained.append(self)

    async with app(Drains(), plugins=lenient(plugin(flowcoro_stopping=hangs)), drain_timeout=0.2):
        pass
    assert drained, "one plugin's hook used up the time that work in flight had to finish"


async def test_a_cancelled_application_stops_in_order() -> None:
    part = Recorder()
    async with serving(app(part)) as task:
        task.cancel()
    assert task.cancelled()
    assert part.steps == ["start", "drain", "close"]


async def test_a_configuration_of_ones_own() -> None:
    host = make_host()
    application = App(plugins=host, config=settings(host, 1.5), name="shop")
    async with application:
        assert application.drain_timeout == 1.5
    assert ConfigFile() == ConfigFile(None, {})
