"""What a broken plugin may do, and that it takes nobody else down with it.

Every plugin here is a real installed distribution. Each test asserts two things: the log
says which plugin and why, and the good plugin beside it works.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowcoro import App, Component
from flowcoro.app import AppState, _lifecycle
from flowcoro.app._environment import load_environment
from flowcoro.cli import Command
from flowcoro.errors import ConfigError, FlowcoroError, PluginError, StartupError
from flowcoro.plugins import PluginHost, PluginStatus, discover

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


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise RuntimeError('no licence')", "import: RuntimeError: no licence"),
        ("import module_that_nobody_has", "import: ModuleNotFoundError: No module named"),
        ("import sys; sys.exit(3)", "import: SystemExit: 3"),
        ("def broken(:\n", "import: SyntaxError: invalid syntax"),
        ("x = 'never closed\n", "import: SyntaxError: unterminated string"),
    ],
    ids=["raises", "needs-a-module", "exits", "syntax", "string"],
)
async def test_a_plugin_whose_import_raises(
    site: Any, caplog: pytest.LogCaptureFixture, source: str, why: str
) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": source})
    site.install_good()
    host = site.load()
    assert host.records["bad"].status is PluginStatus.FAILED
    assert host.records["bad"].error is not None
    assert f"plugin 'bad' (flowcoro-bad 1.0) is failed: {why}" in caplog.text
    async with the_good_one_works(host):
        pass
    with pytest.raises(PluginError, match=r"plugin 'bad' \(flowcoro-bad 1.0\) is failed: import"):
        site.load(strict=True)


async def test_a_plugin_whose_import_raises_a_base_exception(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # As extension modules do: a panic in Rust reaches Python as a BaseException.
    source = "class PanicException(BaseException): ...\nraise PanicException('index out of bounds')"
    site.install("flowcoro-rusty", {"rusty": "rusty_plugin"}, {"rusty_plugin": source})
    site.install_good()
    host = site.load()
    assert host.records["rusty"].status is PluginStatus.FAILED
    assert "plugin 'rusty' (flowcoro-rusty 1.0)" in caplog.text
    assert "index out of bounds" in caplog.text
    async with the_good_one_works(host):
        pass


def test_an_interrupt_while_plugins_load_is_not_swallowed(site: Any) -> None:
    site.install(
        "flowcoro-slow", {"slow": "slow_plugin"}, {"slow_plugin": "raise KeyboardInterrupt"}
    )
    with pytest.raises(KeyboardInterrupt):
        site.load()


def test_a_target_that_is_not_there(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.install("flowcoro-gone", {"gone": "gone_plugin"})
    site.install("flowcoro-less", {"less": "less_plugin:plugin"}, {"less_plugin": ""})
    host = site.load()
    assert "plugin 'gone' (flowcoro-gone 1.0) is failed: import: ModuleNotFound" in caplog.text
    assert "plugin 'less' (flowcoro-less 1.0) is failed: import: AttributeError" in caplog.text
    assert host.records["core"].status is PluginStatus.LOADED


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("raise ValueError('bad mood')", "ValueError: bad mood"),
        ("raise SystemExit(2)", "SystemExit: 2"),
        ("return 5", "returned int, expected a sequence of"),
        ("return ['x']", "returned an item of str, expected"),
    ],
)
@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("flowcoro_commands", ""),
        ("flowcoro_components", "config"),
        ("flowcoro_config_sections", ""),
        ("flowcoro_health_checks", ""),
        ("flowcoro_loop_factories", ""),
    ],
)
async def test_a_plugin_that_raises_in_a_hook(
    site: Any,
    caplog: pytest.LogCaptureFixture,
    hook: str,
    arguments: str,
    statement: str,
    why: str,
) -> None:
    source = f"{HEADER}\n@hookimpl\ndef {hook}({arguments}):\n    {statement}\n"
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": source})
    site.install_good()
    host = site.load()
    assert host.records["bad"].status is PluginStatus.LOADED
    async with the_good_one_works(host) as app:
        from flowcoro.loops import LoopFactory

        assert "asyncio" in host.collect("flowcoro_loop_factories", LoopFactory)
        assert app.context.config["server"].port == 8000
    assert f"plugin 'bad' (flowcoro-bad 1.0) failed in hook {hook}: {why}" in caplog.text
    (problem,) = host.records["bad"].problems
    assert problem.hook == hook


@pytest.mark.parametrize("hook", ["flowcoro_started", "flowcoro_stopping"])
@pytest.mark.parametrize("word", ["", "async "])
async def test_a_plugin_that_raises_in_an_event_hook(
    site: Any, caplog: pytest.LogCaptureFixture, hook: str, word: str
) -> None:
    source = f"{HEADER}\n@hookimpl\n{word}def {hook}(context):\n    raise ValueError('bad mood')\n"
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": source})
    site.install_good()
    async with the_good_one_works(site.load()):
        pass
    assert f"plugin 'bad' (flowcoro-bad 1.0) failed in hook {hook}: ValueError: bad mood" in (
        caplog.text
    )


async def test_a_plugin_that_raises_while_it_declares_its_section(
    site: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = f"{HEADER}\n@hookimpl\ndef flowcoro_config_sections(): raise ValueError('bad mood')\n"
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": source})
    site.install_good()
    settings = tmp_path / "settings.toml"
    settings.write_text("[bad]\ncolour = 'red'\n", encoding="utf-8")
    monkeypatch.setenv("FLOWCORO_CONFIG", str(settings))
    # Its settings are there as they were yesterday; the application must not stop for it.
    async with the_good_one_works(site.load()):
        pass
    assert "plugin 'bad' (flowcoro-bad 1.0) failed in hook flowcoro_config_sections" in caplog.text


async def test_a_plugin_for_another_flowcoro(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.install(
        "flowcoro-future",
        {"future": "future_plugin"},
        {"future_plugin": "raise AssertionError('imported')"},
        requires=["flowcoro>=99"],
    )
    site.install_good()
    host = site.load()
    assert host.records["future"].status is PluginStatus.INCOMPATIBLE
    assert (
        "plugin 'future' (flowcoro-future 1.0) is incompatible: requires flowcoro>=99, but "
        "flowcoro " in caplog.text
    )
    async with the_good_one_works(host):
        pass


async def test_a_plugin_with_an_unknown_hook(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    source = f"{HEADER}\n@hookimpl\ndef flowcoro_comands(): return []\n"
    site.install("flowcoro-typo", {"typo": "typo_plugin"}, {"typo_plugin": source})
    site.install_good()
    host = site.load()
    assert host.records["typo"].status is PluginStatus.FAILED
    assert (
        "plugin 'typo' (flowcoro-typo 1.0) is failed: implements unknown hook "
        "'flowcoro_comands'; did you mean 'flowcoro_commands'? (mark it optionalhook=True if "
        "its owner may be absent)" in caplog.text
    )
    async with the_good_one_works(host):
        pass


def claimant(component: str) -> str:
    return f"""
from flowcoro import Component, hookimpl
from flowcoro.app import ComponentFactory
FLOWCORO_HOOK_API = 1

class Claimant(Component): ...

@hookimpl
def flowcoro_components(config):
    return [ComponentFactory({component!r}, Claimant)]
"""


async def test_two_plugins_that_claim_one_component_name(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("red", "blue"):
        source = claimant("cache")
        site.install(f"flowcoro-{name}", {name: f"{name}_plugin"}, {f"{name}_plugin": source})
    site.install_good()
    host = site.load()
    async with the_good_one_works(host) as app:
        assert "cache" not in (await app.health()).checks
    conflict = (
        "component 'cache' is claimed by plugin 'blue' (flowcoro-blue 1.0) and "
        "plugin 'red' (flowcoro-red 1.0)"
    )
    assert caplog.text.count(conflict) == 2
    for name in ("red", "blue"):
        assert conflict in host.records[name].problems[0].message


async def test_a_component_name_that_the_application_uses_too(site: Any) -> None:
    class Mine(Component):
        name = "good"

    site.install_good()
    with pytest.raises(FlowcoroError) as caught:
        async with App(Mine(), plugins=site.load()):
            pass
    assert str(caught.value) == (
        "component name 'good' is used twice: by plugin 'good' (flowcoro-good 1.0) "
        "and by the application"
    )


async def test_two_distributions_that_claim_one_plugin_name(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two", "three"):
        site.install(
            f"flowcoro-{name}",
            {"cache": f"cache_{name}"},
            {f"cache_{name}": "raise AssertionError('imported')"},
            version="3.1",
        )
    site.install_good()
    host = site.load()
    record = host.records["cache"]
    assert record.status is PluginStatus.FAILED
    for name in ("one", "two", "three"):
        assert f"flowcoro-{name} 3.1" in record.reason
        assert f"flowcoro-{name} 3.1" in caplog.text
    async with the_good_one_works(host):
        pass


def test_a_contested_plugin_name_that_is_blocked_is_no_failure(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two"):
        site.install(f"flowcoro-{name}", {"cache": f"cache_{name}"})
    assert site.load(block=["cache"]).records["cache"].status is PluginStatus.BLOCKED
    assert caplog.text == ""


def test_a_stranger_that_calls_itself_core(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.install("flowcoro-usurper", {"core": "usurper_plugin"}, {"usurper_plugin": HEADER})
    site.install_good()
    host = site.load()
    assert host.records["core"].info.distribution == "flowcoro"
    assert host.records["core"].status is PluginStatus.LOADED
    assert load_environment(plugins=host).config["server"].port == 8000
    assert "flowcoro-usurper 1.0" in caplog.text


def test_a_stranger_that_calls_itself_core_in_strict_mode(site: Any) -> None:
    site.install("flowcoro-usurper", {"core": "usurper_plugin"}, {"usurper_plugin": HEADER})
    with pytest.raises(PluginError, match=r"flowcoro-usurper 1\.0 may not use that name"):
        site.load(strict=True)


HALF = """
from flowcoro import Component, hookimpl
from flowcoro.app import ComponentFactory
FLOWCORO_HOOK_API = 1
steps = []

def part(label, fails=False):
    class Part(Component):
        async def __aenter__(self):
            steps.append(f"start {label}")
            if fails:
                raise OSError("port 5432 refused")
            return self

        async def __aexit__(self, *exc):
            steps.append(f"close {label}")

    return Part

@hookimpl
def flowcoro_components(config):
    return [
        ComponentFactory("half-a", part("a")),
        ComponentFactory("half-b", part("b")),
        ComponentFactory("half-c", part("c", fails=True), essential=ESSENTIAL),
        ComponentFactory("half-d", part("d")),
    ]
"""


async def test_a_component_whose_start_fails_half_way(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source = f"ESSENTIAL = True\n{HALF}"
    site.install("flowcoro-half", {"half": "half_plugin"}, {"half_plugin": source})
    site.install_good()
    app = App(plugins=site.load())
    with pytest.raises(StartupError) as caught:
        await app.__aenter__()
    assert str(caught.value) == (
        "component 'half-c' of plugin 'half' (flowcoro-half 1.0) could not start: "
        "OSError: port 5432 refused"
    )
    import half_plugin

    assert half_plugin.steps == ["start a", "start b", "start c", "close b", "close a"]
    assert app.state is AppState.STOPPED


async def test_a_component_that_is_not_essential_and_cannot_start(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source = f"ESSENTIAL = False\n{HALF}"
    site.install("flowcoro-half", {"half": "half_plugin"}, {"half_plugin": source})
    site.install_good()
    async with the_good_one_works(site.load()) as app:
        assert (await app.health()).checks["half-c"].status == "fail"
    assert (
        "component 'half-c' of plugin 'half' (flowcoro-half 1.0) could not start: "
        "OSError: port 5432 refused; going on without it" in caplog.text
    )
    import half_plugin

    assert half_plugin.steps == [
        *("start a", "start b", "start c", "start d"),
        *("close d", "close b", "close a"),
    ]


async def test_a_plugin_blocked_by_a_variable(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": "raise AssertionError"})
    site.install_good()
    monkeypatch.setenv("FLOWCORO_BLOCK_PLUGINS", "bad, other")
    host = site.load()
    record = host.records["bad"]
    assert record.status is PluginStatus.BLOCKED
    assert record.reason == "blocked by configuration"
    assert record.error is None
    async with the_good_one_works(host):
        pass
    assert "bad" not in caplog.text


async def test_a_plugin_blocked_by_the_configuration(site: Any, tmp_path: Any) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": "raise AssertionError"})
    site.install_good()
    others = [i.name for i in discover() if i.name not in {"core", "good"}]
    settings = tmp_path / "settings.toml"
    settings.write_text(f"[plugins]\nblock = {others}\n[bad]\nkept = true\n", encoding="utf-8")
    environment = load_environment(config_path=settings)
    assert environment.plugins.records["bad"].status is PluginStatus.BLOCKED
    async with the_good_one_works(environment.plugins):
        pass


@pytest.mark.parametrize("by_variable", [True, False])
def test_the_core_cannot_be_blocked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, by_variable: bool
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("" if by_variable else "[plugins]\nblock = ['core']\n", encoding="utf-8")
    if by_variable:
        monkeypatch.setenv("FLOWCORO_BLOCK_PLUGINS", "core")
    with pytest.raises(ConfigError, match="'core' is FlowCoro and cannot be blocked"):
        load_environment(config_path=settings)


def test_strict_configuration_refuses_to_start(site: Any, tmp_path: Any) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": "raise OSError('no')"})
    settings = tmp_path / "settings.toml"
    settings.write_text("[plugins]\nstrict = true\n", encoding="utf-8")
    with pytest.raises(PluginError, match=r"plugin 'bad' \(flowcoro-bad 1.0\) is failed"):
        load_environment(config_path=settings)
