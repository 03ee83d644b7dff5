"""Every hook is documented, and every example in the documentation works."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from textwrap import dedent
from types import ModuleType
from typing import Any

import anyio
import pytest

import flowcoro
from flowcoro import App, hookspecs
from flowcoro.app import ComponentFactory, HealthCheck
from flowcoro.cli import Command, TargetKind
from flowcoro.config import ConfigFile, ConfigSection
from flowcoro.loops import LoopFactory
from flowcoro.plugins import PluginHost, PluginStatus
from flowcoro.testing import make_host

HOOKS = sorted(
    name
    for name, value in vars(hookspecs).items()
    if inspect.isfunction(value) and hasattr(value, "flowcoro_spec")
)
KINDS: dict[str, tuple[type, list[str]]] = {
    "flowcoro_commands": (Command, []),
    "flowcoro_components": (ComponentFactory, ["config"]),
    "flowcoro_config_sections": (ConfigSection, []),
    "flowcoro_health_checks": (HealthCheck, ["context"]),
    "flowcoro_loop_factories": (LoopFactory, []),
    "flowcoro_targets": (TargetKind, []),
}
EVENTS = ["flowcoro_started", "flowcoro_stopping"]

hooks = pytest.mark.parametrize("hook", HOOKS)


def docstring(hook: str) -> str:
    return inspect.getdoc(getattr(hookspecs, hook)) or ""


def example(hook: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", docstring(hook), re.DOTALL)
    return dedent(block)


@pytest.fixture
def plugin(hook: str) -> Iterator[ModuleType]:
    """The example, executed as the module of a plugin."""
    module = ModuleType(f"example_{hook}")
    sys.modules[module.__name__] = module
    source = f"{example(hook)}\nFLOWCORO_HOOK_API = 1\n"
    exec(compile(source, f"<example of {hook}>", "exec"), vars(module))
    yield module
    del sys.modules[module.__name__]


def test_the_list_of_hooks_is_complete() -> None:
    assert set(HOOKS) == {n for n in hookspecs.__all__ if n.startswith("flowcoro_")}
    assert set(HOOKS) == {*KINDS, *EVENTS, "flowcoro_add_hookspecs"}
    assert PluginHost().hooks() == HOOKS


def test_the_public_names_exist() -> None:
    for name in hookspecs.__all__:
        assert hasattr(hookspecs, name)
    for name in flowcoro.__all__:
        assert getattr(flowcoro, name) is not None
        assert name in dir(flowcoro)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", flowcoro.__version__)
    with pytest.raises(AttributeError, match="module 'flowcoro' has no attribute 'Bapp'"):
        _ = flowcoro.Bapp  # type: ignore[attr-defined]


@hooks
@pytest.mark.parametrize("part", ["When:", "Thread:", "Result:", "On failure:", "Since:"])
def test_every_hook_tells(hook: str, part: str) -> None:
    assert re.search(rf"(^|\s){part} \S", docstring(hook))


@hooks
def test_every_hook_documents_its_arguments(hook: str) -> None:
    parameters = list(inspect.signature(getattr(hookspecs, hook)).parameters)
    if parameters:
        (told,) = re.findall(r"Args: (.*)", docstring(hook))
        assert all(f"`{name}`" in told for name in parameters)
    else:
        assert "Args:" not in docstring(hook)


@hooks
def test_a_specification_is_never_called(hook: str) -> None:
    specification = getattr(hookspecs, hook)
    with pytest.raises(AssertionError, match="a specification is never called"):
        specification(*([None] * len(inspect.signature(specification).parameters)))


@hooks
def test_the_example_loads(hook: str, plugin: ModuleType) -> None:
    host = make_host(strict=True)
    record = host.register(plugin)
    assert record.status is PluginStatus.LOADED
    assert record.hooks == (hook,)
    assert record.problems == []


@hooks
async def test_the_example_does_what_it_shows(
    hook: str, plugin: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    host = make_host(strict=True)
    record = host.register(plugin)
    application = App(plugins=host, name="shop")
    with anyio.fail_after(20):
        async with application:
            given = {"config": application.context.config, "context": application.context}
            if hook in KINDS:
                kind, names = KINDS[hook]
                claims = host.collect(hook, kind, **{name: given[name] for name in names})
                items = [item for name, item in claims.items() if claims.owner(name) is record]
                assert items
                for item in items:
                    await use(item, application, plugin)
            elif hook in EVENTS:
                await host.call_async(hook, context=application.context)
            else:
                assert set(host.hooks(features=True)) == {"flowcoro_greeter_phrases"}
    if hook in EVENTS:
        assert "shop is " in capsys.readouterr().out
    assert record.problems == []


async def use(item: Any, application: App, plugin: ModuleType) -> None:
    """Use what an example contributes, as the core would."""
    match item:
        case Command():
            from click.testing import CliRunner

            ran = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(item.load()))
            assert ran.output == "Hello\n"
        case ComponentFactory():
            assert (await application.health()).checks[item.name].status == "pass"
            assert item.create().name
        case HealthCheck():
            report = await application.health()
            assert report.checks[item.name].detail == "all phrases are polite"
        case LoopFactory():
            assert item.why_not() is None
            item.create().close()
        case TargetKind():
            assert not item.matches("Good morning")
            assert item.matches(plugin.Greeting("Good morning"))
            async with item.create(plugin.Greeting("Good morning")):
                pass
        case ConfigSection():
            from flowcoro.app._environment import read_config

            host = application.context.plugins
            file = ConfigFile(None, {item.name: {"greeting": "Hi"}})
            assert read_config(host, file, environ={})[item.name].greeting == "Hi"
        case _:
            raise AssertionError(f"nobody uses {item!r}")
