"""The contract suites hold for what is built in, and fail for what is broken."""

from __future__ import annotations

import asyncio
import inspect
import sys
from types import ModuleType
from typing import Any

import anyio
import click
import msgspec
import pytest

import flowcoro.plugin
from flowcoro import App, Component, Health
from flowcoro.app import BackgroundTask, ComponentFactory, HealthCheck
from flowcoro.cli import BUILT_IN, Command, TargetKind
from flowcoro.config import ConfigSection
from flowcoro.errors import FlowcoroError
from flowcoro.loops import LoopFactory
from flowcoro.plugins._check import check_plugin, import_cost
from flowcoro.testing import contracts, make_context, make_host
from flowcoro.testing.contracts import (
    CommandContract,
    ComponentContract,
    ConfigSectionContract,
    HealthCheckContract,
    LoopFactoryContract,
    PluginContract,
    TargetKindContract,
)


async def work() -> None:
    await anyio.sleep_forever()


class TestCorePlugin(PluginContract):
    @pytest.fixture
    def plugin(self) -> ModuleType:
        return flowcoro.plugin


class TestBackgroundTask(ComponentContract):
    @pytest.fixture
    def factory(self) -> ComponentFactory:
        return ComponentFactory("work", lambda: BackgroundTask(work))


class TestPlainComponent(ComponentContract):
    @pytest.fixture
    def factory(self) -> ComponentFactory:
        return ComponentFactory("plain", type("Plain", (Component,), {}))


class TestBuiltInCommands(CommandContract):
    @pytest.fixture(params=BUILT_IN, ids=lambda command: command.name)
    def item(self, request: pytest.FixtureRequest) -> Command:
        return request.param


class TestCoreSections(ConfigSectionContract):
    @pytest.fixture(
        params=flowcoro.plugin.flowcoro_config_sections(), ids=lambda section: section.name
    )
    def section(self, request: pytest.FixtureRequest) -> ConfigSection:
        return request.param


class TestHealthCheck(HealthCheckContract):
    @pytest.fixture
    def check(self) -> HealthCheck:
        return HealthCheck("slow", slowly)


async def slowly() -> Health:
    await anyio.lowlevel.checkpoint()
    return Health()


class TestCoreLoops(LoopFactoryContract):
    @pytest.fixture(
        params=flowcoro.plugin.flowcoro_loop_factories(), ids=lambda factory: factory.name
    )
    def loop_factory(self, request: pytest.FixtureRequest) -> LoopFactory:
        return request.param


class TestTargetKind(TargetKindContract):
    @pytest.fixture
    def kind(self) -> TargetKind:
        return TargetKind("work", "work", lambda found: found is work, lambda found: App())

    @pytest.fixture
    def found(self) -> object:
        return work


def test_every_suite_is_run_here() -> None:
    used = {
        base for value in globals().values() if inspect.isclass(value) for base in value.__bases__
    }
    assert {getattr(contracts, name) for name in contracts.__all__} <= used


@pytest.mark.parametrize("name", contracts.__all__)
def test_every_suite_is_documented(name: str) -> None:
    suite = getattr(contracts, name)
    assert "Fixture `" in (inspect.getdoc(suite) or "")
    for test, function in vars(suite).items():
        if test.startswith("test_"):
            assert inspect.getdoc(function), test


# Below, broken implementations: each must be caught by the test that is named.

MARKED = "from flowcoro import hookimpl\nFLOWCORO_HOOK_API = 1\n"
PLUGINS = {
    "test_states_its_hook_api": "FLOWCORO_HOOK_API = 7",
    "test_imports_nothing_heavy": "FLOWCORO_HOOK_API = 1\nimport time\ntime.sleep(0.15)",
    "test_loads_without_its_optional_owners": (
        f"{MARKED}\n@hookimpl\ndef flowcoro_add_hookspecs(): raise OSError('no')"
    ),
    "test_hooks_keep_their_contracts": (
        f"{MARKED}\n@hookimpl\ndef flowcoro_components(config): return 5"
    ),
    "test_hooks_answer_alike_when_asked_again": (
        f"{MARKED}\nfrom flowcoro.cli import Command\nasked = []\n"
        "@hookimpl\ndef flowcoro_commands():\n"
        "    asked.append(1)\n    return [Command(f'c{len(asked)}', 'x', None)]"
    ),
}


@pytest.mark.parametrize("test", PLUGINS)
def test_a_broken_plugin(site: Any, monkeypatch: pytest.MonkeyPatch, test: str) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": PLUGINS[test]})
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    import bad_plugin

    arguments: dict[str, Any] = {"plugin": bad_plugin, "features": []}
    function = getattr(PluginContract(), test)
    taken = {name: arguments[name] for name in inspect.signature(function).parameters}
    with pytest.raises(AssertionError):
        function(**taken)


def test_every_plugin_test_is_shown_to_fail() -> None:
    assert set(PLUGINS) == {n for n in vars(PluginContract) if n.startswith("test_")}


class Leaky(Component):
    """Leaves a task behind, whether it started or not."""

    left: asyncio.Task[None]

    async def __aenter__(self) -> Leaky:
        self.left = asyncio.create_task(work())
        LEFT.append(self.left)
        await anyio.lowlevel.checkpoint()
        return self


LEFT: list[asyncio.Task[None]] = []
SHARED = Component()


class Sick(Component):
    async def health(self) -> Health:
        raise OSError("no")


async def returned(function: Any, *arguments: Any) -> Any:
    value = function(*arguments)
    return await value if inspect.isawaitable(value) else value


@pytest.mark.parametrize(
    ("test", "create"),
    [
        ("test_is_named", object),
        ("test_is_named", lambda: SHARED),
        ("test_makes_a_new_one_each_time", lambda: SHARED),
        ("test_runs_drains_and_stops", Leaky),
        ("test_runs_drains_and_stops", Sick),
        ("test_can_be_cancelled_at_start", Leaky),
    ],
)
async def test_a_broken_component(test: str, create: Any) -> None:
    factory = ComponentFactory("bad", create)
    function = getattr(ComponentContract(), test)
    arguments = [factory, []][: len(inspect.signature(function).parameters)]
    with pytest.raises(AssertionError):
        await returned(function, *arguments)
    while LEFT:
        task = LEFT.pop()
        task.cancel()
        await asyncio.wait((task,))


@pytest.mark.parametrize(
    ("test", "item"),
    [
        ("test_has_a_name_and_a_summary", Command("Shout", "Shout.", lambda: click.Command("s"))),
        ("test_has_a_name_and_a_summary", Command("hush", "", lambda: click.Command("hush"))),
        ("test_loads_a_documented_click_command", Command("x", "X.", lambda: len)),  # type: ignore[arg-type, return-value]
        ("test_loads_a_documented_click_command", Command("x", "X.", lambda: click.Command("x"))),
    ],
)
def test_a_broken_command(test: str, item: Command) -> None:
    with pytest.raises(AssertionError):
        getattr(CommandContract(), test)(item)


class Needy(msgspec.Struct, frozen=True):
    """Has a field without a default."""

    key: str


class Silent(msgspec.Struct, frozen=True):
    key: str = ""


class Soft(msgspec.Struct):
    """Can be changed."""

    key: str = ""


Silent.__doc__ = None


@pytest.mark.parametrize(
    ("test", "schema"),
    [
        ("test_is_complete_without_a_file", Needy),
        ("test_is_documented", Silent),
        ("test_is_frozen", Soft),
    ],
)
def test_a_broken_section(test: str, schema: type[msgspec.Struct]) -> None:
    with pytest.raises((AssertionError, FlowcoroError, pytest.fail.Exception)):
        getattr(ConfigSectionContract(), test)(ConfigSection("bad", schema))


class Once:
    """Answers while it was never cancelled."""

    cancelled = False

    async def __call__(self) -> Health | None:
        try:
            await anyio.lowlevel.checkpoint()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return None if self.cancelled else Health()


async def says_nothing() -> None: ...


@pytest.mark.parametrize(
    ("test", "check"),
    [
        ("test_answers_in_time", HealthCheck("late", work, 0.01)),  # type: ignore[arg-type]
        ("test_answers_in_time", HealthCheck("nothing", says_nothing)),  # type: ignore[arg-type]
        ("test_survives_cancellation", HealthCheck("once", Once())),  # type: ignore[arg-type]
    ],
)
async def test_a_broken_health_check(test: str, check: HealthCheck) -> None:
    with pytest.raises((AssertionError, TimeoutError)):
        await getattr(HealthCheckContract(), test)(check)


class Deaf(asyncio.SelectorEventLoop):
    """Never hears of calls from other threads."""

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(lambda: None)


class Wrong(asyncio.SelectorEventLoop):
    def run_until_complete(self, future: Any) -> Any:
        super().run_until_complete(future)
        return 8


def test_a_broken_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = LoopFactoryContract()
    with pytest.raises(AssertionError):
        suite.test_runs_a_coroutine(LoopFactory("no", Wrong, lambda: "no such kernel"))
    with pytest.raises(AssertionError):
        suite.test_runs_a_coroutine(LoopFactory("wrong", Wrong))
    shared = asyncio.new_event_loop()
    with pytest.raises(AssertionError):
        suite.test_makes_a_new_loop_each_time(LoopFactory("shared", lambda: shared))
    original = asyncio.wait_for
    monkeypatch.setattr(asyncio, "wait_for", lambda future, timeout: original(future, 0.05))
    with pytest.raises(TimeoutError):
        suite.test_takes_calls_from_other_threads(LoopFactory("deaf", Deaf))


KINDS = {
    "test_has_a_name_and_a_summary": [
        TargetKind("", "a thing", lambda found: found is work, lambda found: App()),
        TargetKind("thing", "", lambda found: found is work, lambda found: App()),
    ],
    "test_makes_an_application_of_its_own": [
        TargetKind("blind", "a thing", lambda found: False, lambda found: App()),
        TargetKind("shared", "a thing", lambda found: True, lambda found, app=App(): app),  # type: ignore[misc] # noqa: B008
        TargetKind("other", "a thing", lambda found: True, lambda found: found),
    ],
    "test_leaves_what_is_not_its_own": [
        TargetKind("greedy", "a thing", callable, lambda found: App()),
        TargetKind("rash", "a thing", lambda found: hasattr(found, "thing"), lambda found: App()),
    ],
}


@pytest.mark.parametrize(
    ("test", "kind"), [(test, kind) for test, kinds in KINDS.items() for kind in kinds]
)
def test_a_broken_kind(test: str, kind: TargetKind) -> None:
    function = getattr(TargetKindContract(), test)
    arguments = [kind, work][: len(inspect.signature(function).parameters)]
    with pytest.raises((AssertionError, RuntimeError)):
        function(*arguments)


def test_every_test_of_kinds_is_shown_to_fail() -> None:
    assert set(KINDS) == {name for name in vars(TargetKindContract) if name.startswith("test_")}


@pytest.mark.parametrize(
    ("suite", "fixture"),
    [
        (PluginContract, "plugin"),
        (ComponentContract, "factory"),
        (CommandContract, "item"),
        (ConfigSectionContract, "section"),
        (HealthCheckContract, "check"),
        (LoopFactoryContract, "loop_factory"),
        (TargetKindContract, "kind"),
        (TargetKindContract, "found"),
    ],
)
def test_a_suite_without_its_fixture_says_which(suite: type, fixture: str) -> None:
    function = inspect.unwrap(getattr(suite, fixture)._get_wrapped_function())
    arguments = [None] * len(inspect.signature(function).parameters)
    with pytest.raises(NotImplementedError, match=f"define the fixture `{fixture}`"):
        function(*arguments)


def test_the_price_of_an_import(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"chatty_plugin": "print('hello')", "broken_plugin": "raise OSError('no')"}
    site.install("flowcoro-x", {}, modules)
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    assert 0 <= import_cost("chatty_plugin") < 60
    with pytest.raises(FlowcoroError, match="importing broken_plugin fails: OSError: no"):
        import_cost("broken_plugin")


def test_findings_about_a_plugin_that_is_not_there() -> None:
    (finding,) = check_plugin(make_host(), "gone", print)
    assert not finding.passed
    assert finding.detail == "no such plugin (known: core)"


def test_the_fixtures_that_pytest_finds(plugin_host: Any, app_context: Any) -> None:
    assert plugin_host.strict
    assert list(plugin_host.records) == ["core"]
    assert app_context.plugins is plugin_host
    assert app_context.config["server"].port == 8000


async def test_a_context_without_an_application() -> None:
    part = Component()
    part.name = "part"
    context = make_context(part, config={"log": {"level": "DEBUG"}}, name="x", workers=3)
    assert context.config["log"].level == "DEBUG"
    assert (context.name, context.workers, context.state) == ("x", 3, "running")
    assert context.dependencies.resolver(Component, needed_by="me").instance is part
    assert (await context.health()).status == "pass"
    context.request_stop("enough")
    assert "flowcoro.testing.contracts" in sys.modules
