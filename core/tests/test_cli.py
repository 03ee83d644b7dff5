"""The command line within this process; `test_cli_run.py` runs it as a process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from flowcoro import reactor
from flowcoro.cli import BUILT_IN, _demo, _doctor, _template, main
from flowcoro.cli._root import root
from flowcoro.errors import FlowcoroError

MARKED = "from flowcoro import hookimpl\nFLOWCORO_HOOK_API = 1\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, in which modules are found."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield here
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(here)):
            del sys.modules[name]


def flowcoro(*arguments: str) -> Result:
    result = CliRunner().invoke(root, arguments, prog_name="flowcoro")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result


def refused(*arguments: str) -> str:
    """Return the one line with which a command refuses."""
    result = flowcoro(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("flowcoro: error: ")
    return line.removeprefix("flowcoro: error: ")


def test_the_version() -> None:
    assert flowcoro("--version").output == f"flowcoro {version('flowcoro')}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_commands_without_importing_them(site: Any, arguments: list[str]) -> None:
    source = f"""
{MARKED}
@hookimpl
def flowcoro_commands():
    from flowcoro.cli import Command
    return [Command("greet", "Say hello.", lambda: 1 / 0)]
"""
    site.install("flowcoro-greet", {"greet": "greet_plugin"}, {"greet_plugin": source})
    output = flowcoro(*arguments).output
    for command in BUILT_IN:
        assert f"{command.name} " in output
        assert command.summary in output
    assert "Say hello." in output


@pytest.mark.parametrize("command", [c.name for c in BUILT_IN])
def test_every_command_has_help(command: str) -> None:
    result = flowcoro(command, "--help")
    assert result.exit_code == 0
    assert "Usage: flowcoro" in result.output


def test_a_command_of_a_plugin(site: Any) -> None:
    site.install_good()
    assert flowcoro("good").exit_code == 0
    context = click.Context(root)
    assert {"good", *(c.name for c in BUILT_IN)} <= set(root.list_commands(context))


def test_no_such_command() -> None:
    result = flowcoro("rum")
    assert result.exit_code == 2
    assert "No such command 'rum'" in result.stderr


def command_of(load: str) -> str:
    return f"""
{MARKED}
@hookimpl
def flowcoro_commands():
    from flowcoro.cli import Command
    return [Command("x", "X.", {load})]
"""


def test_a_command_that_two_plugins_claim(site: Any) -> None:
    for name in ("a", "b"):
        source = command_of("print")
        site.install(f"flowcoro-{name}", {name: f"{name}_plugin"}, {f"{name}_plugin": source})
    result = flowcoro("x")
    assert result.exit_code == 1
    for name in ("a", "b"):
        assert f"plugin '{name}' (flowcoro-{name} 1.0)" in result.stderr


@pytest.mark.parametrize("load", ["lambda: 1 / 0", "lambda: None"])
def test_a_command_that_cannot_be_loaded_names_its_plugin(site: Any, load: str) -> None:
    site.install("flowcoro-a", {"a": "a_plugin"}, {"a_plugin": command_of(load)})
    assert "plugin 'a' (flowcoro-a 1.0)" in refused("x")
    assert flowcoro("plugin", "list").exit_code == 0


def test_a_command_that_claims_a_built_in_name_does_not_get_it(site: Any) -> None:
    source = command_of("print").replace('"x"', '"doctor"')
    site.install("flowcoro-a", {"a": "a_plugin"}, {"a_plugin": source})
    assert "Tell what is installed" in flowcoro("doctor", "--help").output


BROKEN_FILES = {
    "not-toml": ("[server", "not valid TOML"),
    "plugins": ("[plugins]\nblock = 3\n", "plugins.block = 3: expected"),
}


@pytest.mark.parametrize("content", BROKEN_FILES)
@pytest.mark.parametrize(
    "arguments", [["plugin", "list"], ["plugin", "info", "core"], ["greet"], ["--help"], []]
)
def test_a_configuration_error_is_one_message(
    folder: Path, content: str, arguments: list[str]
) -> None:
    text, expected = BROKEN_FILES[content]
    (folder / "flowcoro.toml").write_text(text, encoding="utf-8")
    assert expected in refused(*arguments)


def test_listing_plugins(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raises = {"bad_plugin": "raise AssertionError('imported')"}
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, raises)
    site.install("flowcoro-old", {"old": "old_plugin"}, requires=["flowcoro>=99"])
    site.install("flowcoro-hid", {"hid": "hid_plugin"})
    monkeypatch.setenv("FLOWCORO_BLOCK_PLUGINS", "hid")
    lines = flowcoro("plugin", "list").output.splitlines()
    assert lines[0].split() == ["name", "distribution", "version", "state", "summary"]
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert rows["core"][1:4] == ["flowcoro", version("flowcoro"), "installed"]
    assert rows["bad"][1:4] == ["flowcoro-bad", "1.0", "installed"]
    assert rows["old"][3] == "incompatible"
    assert "requires flowcoro>=99" in " ".join(rows["old"])
    assert rows["hid"][3] == "blocked"
    listed = json.loads(flowcoro("plugin", "list", "--json").output)
    assert [row["name"] for row in listed] == list(rows)
    assert next(row for row in listed if row["name"] == "old")["requires"] == ">=99"
    assert "bad_plugin" not in sys.modules


@pytest.mark.parametrize("by_file", [True, False])
def test_listing_what_the_configuration_blocks(
    site: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, by_file: bool
) -> None:
    site.install("flowcoro-hid", {"hid": "hid_plugin"})
    if by_file:
        (folder / "flowcoro.toml").write_text("[plugins]\nblock = ['hid']\n", encoding="utf-8")
    else:
        monkeypatch.setenv("FLOWCORO_PLUGINS_BLOCK", "hid")
    listed = json.loads(flowcoro("plugin", "list", "--json").output)
    assert next(row for row in listed if row["name"] == "hid")["state"] == "blocked"


@pytest.mark.parametrize("line", ["flowcoro>>=1", "flowcoro !!! nonsense"])
def test_listing_in_spite_of_a_garbled_requirement(site: Any, line: str) -> None:
    site.install("flowcoro-garbled", {"garbled": "garbled_plugin"}, requires=[line])
    site.install_good()
    result = flowcoro("plugin", "list")
    assert result.exit_code == 0
    assert "flowcoro-good" in result.output
    assert "flowcoro-garbled" in result.output


def test_describing_a_plugin(site: Any) -> None:
    site.install_good()
    result = flowcoro("plugin", "info", "good")
    assert result.exit_code == 0
    for part in (
        *("good: The flowcoro-good plugin", "flowcoro-good 1.0", "good_plugin"),
        *("flowcoro>=0.1", "loaded", "flowcoro_commands", "flowcoro_components"),
        *("command       good", "component     good"),
    ):
        assert part in result.output


def test_describing_a_plugin_that_failed(site: Any) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": "raise OSError('no')"})
    result = flowcoro("plugin", "info", "bad")
    assert result.exit_code == 1
    assert "status        failed: import: OSError: no" in result.output


def test_describing_a_plugin_with_problems(site: Any) -> None:
    source = f"{MARKED}\n@hookimpl\ndef flowcoro_commands(): return 5"
    site.install("flowcoro-odd", {"odd": "odd_plugin"}, {"odd_plugin": source})
    output = flowcoro("plugin", "info", "odd").output
    assert "problem       flowcoro_commands: returned int, expected a sequence" in output


def test_describing_a_plugin_that_is_not_there() -> None:
    assert "no plugin named 'gone' is installed (known: core" in refused("plugin", "info", "gone")


def test_checking_a_good_plugin(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_good()
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    monkeypatch.setattr("flowcoro.plugins._check.IMPORT_BUDGET", 30.0)
    result = flowcoro("plugin", "check", "good")
    assert result.exit_code == 0, result.output
    assert result.output.count("ok  ") == 5
    assert "FAIL" not in result.output


def test_checking_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowcoro.plugins._check.IMPORT_BUDGET", 30.0)
    result = flowcoro("plugin", "check", "core")
    assert result.exit_code == 0, result.output


def test_checking_a_broken_plugin(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"{MARKED}\n@hookimpl\ndef flowcoro_components(config): raise OSError('no')"
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": source}, requires=[])
    site.install("flowcoro-worse", {"worse": "worse_plugin"}, {"worse_plugin": "1 / 0"})
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    result = flowcoro("plugin", "check", "bad", "worse", "gone")
    assert result.exit_code == 1
    for part in (
        "FAIL declares a flowcoro range: declare a range of flowcoro in the dependencies",
        "FAIL hooks keep their contracts: flowcoro_components: OSError: no",
        "FAIL loads: import: ZeroDivisionError: division by zero",
        "FAIL installed: no such plugin (known: ",
    ):
        assert part in result.output
    assert "4 finding(s)" in result.stderr


def test_a_component_that_cannot_be_made_is_a_finding(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"""
{MARKED}
@hookimpl
def flowcoro_components(config):
    from flowcoro.app import ComponentFactory
    return [ComponentFactory("x", lambda: 1 / 0)]
"""
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": source})
    site.install_good()
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    monkeypatch.setattr("flowcoro.plugins._check.IMPORT_BUDGET", 30.0)
    result = flowcoro("plugin", "check", "bad")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.output
    assert flowcoro("plugin", "check", "good").exit_code == 0


def test_a_section_without_defaults_is_a_finding_of_its_plugin(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"""
{MARKED}
import msgspec
from flowcoro.config import ConfigSection

class Shop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str

@hookimpl
def flowcoro_config_sections():
    return [ConfigSection("shop", Shop)]
"""
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": source})
    site.install_good()
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    monkeypatch.setattr("flowcoro.plugins._check.IMPORT_BUDGET", 30.0)
    result = flowcoro("plugin", "check", "bad")
    assert result.exit_code == 1
    assert "flowcoro_config_sections: section [shop]: key 'url' is required" in result.output
    assert "expected a default" in result.output
    assert flowcoro("plugin", "check", "good").exit_code == 0


def test_hooks_of_features_are_asked_too(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"""
{MARKED}
from types import SimpleNamespace
from flowcoro import hookspec

@hookspec
def flowcoro_zoo_animals(config): "Name animals."

@hookimpl
def flowcoro_add_hookspecs():
    return [SimpleNamespace(flowcoro_zoo_animals=flowcoro_zoo_animals)]
"""
    user = f"{MARKED}\n@hookimpl\ndef flowcoro_zoo_animals(config): raise OSError('no')"
    site.install("flowcoro-zoo", {"zoo": "zoo_plugin"}, {"zoo_plugin": source})
    site.install("flowcoro-ape", {"ape": "ape_plugin"}, {"ape_plugin": user})
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    result = flowcoro("plugin", "check", "ape")
    assert result.exit_code == 1
    assert "flowcoro_zoo_animals: OSError: no" in result.output


def test_making_a_plugin(folder: Path) -> None:
    result = flowcoro("plugin", "new", "flowcoro-say-hello")
    assert result.exit_code == 0
    made = folder / "flowcoro-say-hello"
    project = (made / "pyproject.toml").read_text(encoding="utf-8")
    assert 'name = "flowcoro-say-hello"' in project
    assert "flowcoro>=" in project.replace(" ", "")
    assert (made / "src" / "flowcoro_say_hello" / "plugin.py").is_file()
    sources = list(made.rglob("*.py"))
    assert any("test" in source.name for source in sources)
    for source in sources:
        compile(source.read_text(encoding="utf-8"), str(source), "exec")
    assert not list(made.rglob("*.tmpl"))
    assert "flowcoro plugin check say_hello" in result.output


def test_making_an_application(folder: Path) -> None:
    result = flowcoro("new", "shop", "--into", "apps")
    assert result.exit_code == 0
    assert "flowcoro run app:app" in result.output
    made = folder / "apps" / "shop"
    assert (made / "app.py").is_file()
    for source in made.rglob("*.py"):
        compile(source.read_text(encoding="utf-8"), str(source), "exec")


@pytest.mark.parametrize("command", [["plugin", "new"], ["new"]])
@pytest.mark.parametrize("name", ["Shop", "my_shop", "a b", "1st", "-", "../up", "a--b", ""])
def test_a_name_that_cannot_be_one(folder: Path, command: list[str], name: str) -> None:
    result = flowcoro(*command, "--", name)
    assert result.exit_code == 1
    assert f"name {name!r}: expected lower-case words joined by hyphens" in result.stderr
    assert list(folder.iterdir()) == []


def test_making_something_where_something_is(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "mine.txt").touch()
    (folder / "file").touch()
    for name in ("shop", "file"):
        assert "exists already; expected a new or empty folder" in refused("new", name)
    (folder / "empty").mkdir()
    assert flowcoro("new", "empty").exit_code == 0


def test_rendering_a_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "templates" / "demo"
    (source / "$package").mkdir(parents=True)
    (source / "$package" / "$name.txt.tmpl").write_text("I am $name, $$5\n", encoding="utf-8")
    (source / "left-out.txt").touch()
    monkeypatch.setattr(_template, "_TEMPLATES", tmp_path / "templates")
    made = _template.render("demo", tmp_path / "x" / "y", {"name": "n", "package": "p"})
    assert [f.relative_to(made) for f in made.rglob("*.*")] == [Path("p/n.txt")]
    assert (made / "p" / "n.txt").read_text(encoding="utf-8") == "I am n, $5\n"
    (tmp_path / "file").touch()
    with pytest.raises(FlowcoroError, match=r"Not a directory|exists"):
        _template.render("demo", tmp_path / "file" / "x", {"name": "n", "package": "p"})


def test_the_values_of_templates() -> None:
    values = _template.plugin_values("flowcoro-say-hello")
    assert values["package"] == "flowcoro_say_hello"
    assert values["plugin"] == "say_hello"
    assert values["Plugin"] == "SayHello"
    assert values["range"] == _template.app_values("shop")["range"]


def test_the_demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_demo, "demo_folder", lambda: folder)
    text = "from flowcoro import App\ndef create_app(data):\n    return App(name=data.name)\n"
    (folder / "app.py").write_text(text, encoding="utf-8")
    ran: list[Any] = []
    monkeypatch.setattr(_demo, "run_app", lambda app, environment: ran.append((app, environment)))
    result = flowcoro("demo", "data", "--port", "8123")
    assert result.exit_code == 0
    ((app, environment),) = ran
    assert app.name == "data"
    assert environment.config["server"].port == 8123
    assert "FlowCoro demo: http://127.0.0.1:8123/" in result.output
    text = "def create_app(data):\n    return 5\n"
    (folder / "app.py").write_text(text, encoding="utf-8")
    assert "create_app() returned int, not an App" in refused("demo")


def test_an_installation_without_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (_demo.demo_folder() / "app.py").is_file()
    monkeypatch.setattr(_demo, "__file__", str(tmp_path / "a" / "b" / "c" / "d" / "_demo.py"))
    assert "carries no demo" in refused("demo")


def test_the_doctor(site: Any) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": "raise OSError('[no]')"})
    result = flowcoro("doctor", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["flowcoro"] == version("flowcoro")
    assert not report["healthy"]
    bad = next(p for p in report["plugins"] if p["name"] == "bad")
    assert (bad["status"], bad["reason"]) == ("failed", "import: OSError: [no]")
    assert report["loop"] == {"name": "flowcoro", "reactor": reactor.available()[0]}
    assert report["reactors"].keys() == set(reactor.backends())
    assert "flowcoro-http" in report["extras"]
    table = flowcoro("doctor")
    assert table.exit_code == 1
    assert "OSError: [no]" in table.output
    assert table.stderr == ""


def test_the_doctor_tells_why_a_reactor_cannot_be_used(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {"io_uring": "[the kernel] refuses", "epoll": None}
    monkeypatch.setattr(reactor, "backends", lambda: list(reasons))
    monkeypatch.setattr(reactor, "why_not", reasons.__getitem__)
    output = flowcoro("doctor").output
    assert "io_uring cannot be used: [the kernel] refuses" in output
    assert "epoll usable" in output


def test_the_doctor_finds_nothing_wrong(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowcoro.plugins._host.discover", site.infos)
    result = flowcoro("doctor", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["healthy"]
    assert "event loop    flowcoro, reactor" in flowcoro("doctor").output


@pytest.mark.parametrize(
    "hook",
    ["flowcoro_commands()", "flowcoro_components(config)", "flowcoro_health_checks(context)"],
)
def test_the_doctor_asks_every_hook(site: Any, hook: str) -> None:
    source = f"{MARKED}\n@hookimpl\ndef {hook}: raise OSError('no')"
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": source})
    report = json.loads(flowcoro("doctor", "--json").stdout)
    assert not report["healthy"]
    bad = next(p for p in report["plugins"] if p["name"] == "bad")
    assert bad["problems"] == [f"{hook.partition('(')[0]}: OSError: no"]


def test_the_doctor_reports_a_wrong_configuration(site: Any, folder: Path) -> None:
    site.install("flowcoro-hid", {"hid": "hid_plugin"}, {"hid_plugin": "raise AssertionError"})
    text = "[server]\nprot = 1\n[plugins]\nblock = ['hid']\n"
    (folder / "flowcoro.toml").write_text(text, encoding="utf-8")
    report = json.loads(flowcoro("doctor", "--json").stdout)
    assert "did you mean 'port'" in report["configuration"]
    assert next(p for p in report["plugins"] if p["name"] == "hid")["status"] == "blocked"
    assert "wrong" in flowcoro("doctor").output


def test_the_doctor_reports_in_strict_mode_too(site: Any, folder: Path) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": "raise OSError('no')"})
    (folder / "flowcoro.toml").write_text("[plugins]\nstrict = true\n", encoding="utf-8")
    report = json.loads(flowcoro("doctor", "--json").stdout)
    assert not report["healthy"]
    assert any(p["name"] == "bad" and p["status"] == "failed" for p in report["plugins"])


def test_the_doctor_without_native_core_and_loop(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"""
{MARKED}
@hookimpl
def flowcoro_loop_factories():
    from flowcoro.loops import LoopFactory
    return [LoopFactory("flowcoro", None), LoopFactory("bad", lambda: 1 / 0)]
"""
    site.install("flowcoro-a", {"a": "a_plugin"}, {"a_plugin": source})
    monkeypatch.setitem(sys.modules, "flowcoro._native", None)
    report = _doctor.examine()
    assert report["native"]["works"] is False
    assert "claimed by plugin 'a'" in report["loop"]["reactor"]
    monkeypatch.setenv("FLOWCORO_LOOP", "bad")
    assert "ZeroDivisionError" in _doctor.examine()["loop"]["reactor"]


def test_the_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["flowcoro", "--version"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
