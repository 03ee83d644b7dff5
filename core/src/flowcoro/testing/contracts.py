"""The contract suites of the core's extension points.

Each class is a pytest base class: subclass it in your tests, define the one fixture it
asks for, and pytest runs the contract against your implementation. FlowCoro runs the
same suites on what is built in.

Example:
    ```python
    import pytest
    from flowcoro.testing.contracts import PluginContract

    import flowcoro_greeter.plugin


    class TestPlugin(PluginContract):
        @pytest.fixture
        def plugin(self):
            return flowcoro_greeter.plugin
    ```
"""

from __future__ import annotations

import asyncio
import threading
from types import ModuleType

import anyio
import click
import msgspec
import pytest

from flowcoro.app import (
    App,
    Component,
    ComponentFactory,
    Health,
    HealthCheck,
    HealthStatus,
)
from flowcoro.cli import Command, TargetKind
from flowcoro.cli._plugin import collect_all
from flowcoro.config import ConfigSection, load_config
from flowcoro.hookspecs import HOOK_API
from flowcoro.loops import LoopFactory
from flowcoro.plugins import PluginHost, PluginRecord, PluginStatus
from flowcoro.plugins._check import IMPORT_BUDGET, import_cost
from flowcoro.testing._host import make_host

__all__ = [
    "CommandContract",
    "ComponentContract",
    "ConfigSectionContract",
    "HealthCheckContract",
    "LoopFactoryContract",
    "PluginContract",
    "TargetKindContract",
]


class PluginContract:
    """What every plugin module keeps. Fixture `plugin`: the module.

    Override the fixture `features` with the plugin modules whose hooks it answers, for
    example `[flowcoro_http.plugin]`.
    """

    @pytest.fixture
    def plugin(self) -> ModuleType:
        """The plugin module under test."""
        raise NotImplementedError("define the fixture `plugin`")

    @pytest.fixture
    def features(self) -> list[ModuleType]:
        """Plugin modules that specify hooks which the plugin answers."""
        return []

    def test_states_its_hook_api(self, plugin: ModuleType) -> None:
        """`FLOWCORO_HOOK_API` is the current one."""
        assert plugin.FLOWCORO_HOOK_API == HOOK_API

    def test_imports_nothing_heavy(self, plugin: ModuleType) -> None:
        """Importing the module costs a start-up next to nothing."""
        assert min(import_cost(plugin.__name__) for _ in range(3)) <= IMPORT_BUDGET

    def test_loads_without_its_optional_owners(self, plugin: ModuleType) -> None:
        """It loads, or says which hook's owner is missing; it never breaks the host."""
        host = make_host(strict=False)
        record = _registered(host, plugin)
        assert record.status is PluginStatus.LOADED or "hook" in record.reason

    def test_hooks_keep_their_contracts(
        self, plugin: ModuleType, features: list[ModuleType]
    ) -> None:
        """Every hook is known, runs with default settings and returns what it should."""
        host = make_host(*features, strict=False)
        record = _registered(host, plugin)
        assert record.status is PluginStatus.LOADED, record.reason
        collect_all(host)
        assert not record.problems

    def test_hooks_answer_alike_when_asked_again(
        self, plugin: ModuleType, features: list[ModuleType]
    ) -> None:
        """A second application in the process gets the same names as the first."""
        host = make_host(*features, strict=False)
        _registered(host, plugin)
        first, second = collect_all(host), collect_all(host)
        assert {k: sorted(v) for k, v in first.items()} == {k: sorted(v) for k, v in second.items()}


def _registered(host: PluginHost, plugin: object) -> PluginRecord:
    found = (record for record in host.records.values() if record.plugin is plugin)
    return next(found, None) or host.register(plugin)


class ComponentContract:
    """What every component keeps. Fixture `factory`: makes a fresh one."""

    @pytest.fixture
    def factory(self) -> ComponentFactory:
        """The factory of the component under test."""
        raise NotImplementedError("define the fixture `factory`")

    @pytest.fixture
    def plugins(self) -> list[object]:
        """Plugins whose hooks or sections the component needs."""
        return []

    def test_is_named(self, factory: ComponentFactory) -> None:
        """It is a component with a name."""
        component = factory.create()
        assert isinstance(component, Component)
        assert component.name

    def test_makes_a_new_one_each_time(self, factory: ComponentFactory) -> None:
        """Two applications never share a component by accident."""
        assert factory.create() is not factory.create()

    async def test_runs_drains_and_stops(
        self, factory: ComponentFactory, plugins: list[object]
    ) -> None:
        """It starts in an application, is healthy, drains and leaves no task behind."""
        before = asyncio.all_tasks()
        with anyio.fail_after(30):
            async with App(factory.create(), plugins=make_host(*plugins)) as app:
                report = await app.health()
                assert report.status is not HealthStatus.FAIL, report.checks
        assert asyncio.all_tasks() <= before

    async def test_can_be_cancelled_at_start(
        self, factory: ComponentFactory, plugins: list[object]
    ) -> None:
        """Cancelling the start leaves no task behind."""
        before = asyncio.all_tasks()
        with anyio.move_on_after(0):
            async with App(factory.create(), plugins=make_host(*plugins)):
                await anyio.sleep_forever()
        assert asyncio.all_tasks() <= before


class CommandContract:
    """What every command keeps. Fixture `item`: the `Command`."""

    @pytest.fixture
    def item(self) -> Command:
        """The command under test."""
        raise NotImplementedError("define the fixture `item`")

    def test_has_a_name_and_a_summary(self, item: Command) -> None:
        """The help page can list it."""
        assert item.name == item.name.lower().strip()
        assert item.summary

    def test_loads_a_documented_click_command(self, item: Command) -> None:
        """It loads, and `--help` works."""
        loaded = item.load()
        assert isinstance(loaded, click.Command)
        with click.Context(loaded) as context:
            assert loaded.get_help(context)
        assert loaded.help


class ConfigSectionContract:
    """What every configuration section keeps. Fixture `section`: the `ConfigSection`."""

    @pytest.fixture
    def section(self) -> ConfigSection:
        """The section under test."""
        raise NotImplementedError("define the fixture `section`")

    def test_is_complete_without_a_file(self, section: ConfigSection) -> None:
        """Every field has a default."""
        config = load_config([section], environ={})
        assert isinstance(config[section.name], section.schema)

    def test_is_documented(self, section: ConfigSection) -> None:
        """The struct says what it is for."""
        assert section.schema.__dict__.get("__doc__")

    def test_is_frozen(self, section: ConfigSection) -> None:
        """Nobody changes the configuration of a running application."""
        value = load_config([section], environ={})[section.name]
        fields = msgspec.structs.fields(section.schema)
        for field in fields[:1]:
            with pytest.raises(AttributeError):
                setattr(value, field.name, None)


class HealthCheckContract:
    """What every health check keeps. Fixture `check`: the `HealthCheck`."""

    @pytest.fixture
    def check(self) -> HealthCheck:
        """The check under test."""
        raise NotImplementedError("define the fixture `check`")

    async def test_answers_in_time(self, check: HealthCheck) -> None:
        """It returns a `Health` within its own timeout."""
        with anyio.fail_after(check.timeout):
            assert isinstance(await check.check(), Health)

    async def test_survives_cancellation(self, check: HealthCheck) -> None:
        """A check that was cancelled can be asked again."""
        with anyio.move_on_after(0):
            await check.check()
        assert isinstance(await check.check(), Health)


class LoopFactoryContract:
    """What every event loop keeps. Fixture `loop_factory`: the `LoopFactory`."""

    @pytest.fixture
    def loop_factory(self) -> LoopFactory:
        """The factory under test."""
        raise NotImplementedError("define the fixture `loop_factory`")

    def test_runs_a_coroutine(self, loop_factory: LoopFactory) -> None:
        """It runs a coroutine and gives its result."""
        assert loop_factory.why_not() is None

        async def main() -> int:
            await asyncio.sleep(0)
            return 7

        with asyncio.Runner(loop_factory=loop_factory.create) as runner:
            assert runner.run(main()) == 7

    def test_takes_calls_from_other_threads(self, loop_factory: LoopFactory) -> None:
        """`call_soon_threadsafe` wakes it while it waits."""

        async def main() -> str:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[str] = loop.create_future()
            thread = threading.Thread(
                target=lambda: loop.call_soon_threadsafe(future.set_result, "woken")
            )
            thread.start()
            try:
                return await asyncio.wait_for(future, 10)
            finally:
                thread.join()

        with asyncio.Runner(loop_factory=loop_factory.create) as runner:
            assert runner.run(main()) == "woken"

    def test_makes_a_new_loop_each_time(self, loop_factory: LoopFactory) -> None:
        """Two runs never share a loop."""
        first, second = loop_factory.create(), loop_factory.create()
        first.close()
        second.close()
        assert first is not second


class TargetKindContract:
    """What every kind of target keeps. Fixture `kind`, and `found`: a thing of that kind."""

    @pytest.fixture
    def kind(self) -> TargetKind:
        """The kind under test."""
        raise NotImplementedError("define the fixture `kind`")

    @pytest.fixture
    def found(self) -> object:
        """What stands in a user's module, of that kind."""
        raise NotImplementedError("define the fixture `found`")

    def test_has_a_name_and_a_summary(self, kind: TargetKind) -> None:
        """Messages can name it."""
        assert kind.name
        assert kind.summary

    def test_makes_an_application_of_its_own(self, kind: TargetKind, found: object) -> None:
        """It knows the thing, and makes a new application of it each time."""
        assert kind.matches(found)
        first, second = kind.create(found), kind.create(found)
        assert isinstance(first, App)
        assert isinstance(second, App)
        assert first is not second

    def test_leaves_what_is_not_its_own(self, kind: TargetKind, found: object) -> None:
        """Neither an `App`, nor what any module may hold, nor a function that makes its own."""
        others = (App(), App, None, 5, "text", pytest, _Odd(), lambda: found, type(found))
        assert [other for other in others if kind.matches(other)] == []


class _Odd:
    """Can be called, and raises when it is looked at, as proxies outside their context do."""

    def __call__(self) -> None: ...

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(f"there is no {name} now")
