"""What may stand after `flowcoro run`, and what may not."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowcoro.app import App
from flowcoro.cli import TargetKind
from flowcoro.cli._root import root
from flowcoro.cli._target import load_app, load_callable
from flowcoro.errors import FlowcoroError, TargetError
from flowcoro.hookspecs import hookimpl
from flowcoro.plugins import PluginHost
from flowcoro.testing import make_host


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


TARGETS = {
    ":app": "expected module:attribute, such as app:app",
    "": "expected module:attribute, such as app:app",
    "gone": "no module 'gone' in ",
    "gone:app": "no module 'gone' in ",
    "gone.deep:app": "no module 'gone' in ",
    "good.deep:app": "no module 'good.deep' in ",
    "good.py": " or installed; did you mean good?",
    "good.py:make": " or installed; did you mean good:make?",
    "gone.py:app": "no module 'gone' in ",
    ".good:app": "'.good' is a path; expected module:attribute, such as good:app",
    "./good:make": "'./good' is a path; expected module:attribute, such as good:make",
    "./shop/good.py": " is a path; expected module:attribute, such as shop.good:app",
    "shop\\good.py:app": " is a path; expected module:attribute, such as shop.good:app",
    "/gone/good.py:app": "expected module:attribute, such as app:app, below the current folder",
    ".": "'.' is a path; expected module:attribute, such as app:app",
    "good:apq": "good has no 'apq'; did you mean 'app'?",
    "good:app.nothing": "good has no 'app.nothing'",
    "good:number": ", found int",
    "good:App": ", found type",
    "good:gives_none": ", found NoneType",
    "good:raises": "calling it (good.py, line 9): ZeroDivisionError: division by zero",
    "good:takes": "a function without parameters that returns such; this function takes x",
    "good:later": ", found coroutine",
    "needs:app": "needs needs 'gone_library': No module named 'gone_library'",
    "broken:app": "importing broken (broken.py, line 3): ValueError: two lines",
    "syntax:app": "importing syntax: SyntaxError: ",
    "nul:app": "importing nul: SyntaxError: ",
    "mute:app": "importing mute (mute.py, line 6): Mute: (its text cannot be had: LookupError)",
    "within:app": "importing within (within.py, line 3): JSONDecodeError: ",
    "exits:app": "importing exits (exits.py, line 2): SystemExit: 3",
}
MODULES = {
    "good": """
from flowcoro import App

app = App()
number = 5

def make(): return App(name="made")
def gives_none(): ...
def raises(): return 1 / 0
def takes(x): ...
def asgi(scope, receive, send): ...
def gives_number(): return number
async def later(): ...
class Space:
    app = app
    number = number
""",
    "needs": "import gone_library",
    "broken": "\ndef fail(): \n    raise ValueError('two\\nlines')\nfail()\n",
    "syntax": "def broken(:\n",
    "nul": "\0",
    "mute": """
class Mute(Exception):
    def __str__(self):
        raise LookupError

raise Mute
""",
    "within": "import json\n\njson.loads('no JSON')\n",
    "exits": "import sys\nsys.exit(3)\n",
}


@pytest.fixture
def modules(folder: Path) -> Path:
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("target", TARGETS)
def test_running_a_bad_target(target: str) -> None:
    line = refused("run", target)
    assert line.startswith(f"target {target!r}: ")
    assert TARGETS[target] in line
    gc.collect()  # what was made and thrown away must not complain later


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("target", "name"),
    [("good", "app"), ("good:app", "app"), ("good:make", "made"), ("good:Space.app", "app")],
)
def test_loading_a_target(target: str, name: str) -> None:
    assert load_app(target).name == name


def test_loading_a_function_from_a_file(modules: Path) -> None:
    assert load_callable(modules / "good.py", "make", "made_module")().name == "made"  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=r"broken.py \(broken.py, line 3\): ValueError"):
        load_callable(modules / "broken.py", "make", "made_module")
    with pytest.raises(TargetError, match="not a Python file"):
        load_callable(modules / "notes.txt", "make", "made_module")


class Knows:
    """A plugin that knows how to run one kind."""

    FLOWCORO_HOOK_API = 1

    def __init__(self, *kinds: TargetKind) -> None:
        self.kinds = kinds

    @hookimpl
    def flowcoro_targets(self) -> list[TargetKind]:
        return list(self.kinds)


def is_number(found: object) -> bool:
    return isinstance(found, int)


def named(number: int) -> App:
    return App(name=f"number {number}")


def fails(number: object) -> App:
    raise OSError("no such number")


def refuses(number: object) -> App:
    raise FlowcoroError("only odd numbers can be run")


NUMBER = TargetKind("number", "a number", is_number, named)


def knowing(*plugins: Knows, strict: bool = False) -> PluginHost:
    host = make_host(strict=strict)
    for index, plugin in enumerate(plugins):
        host.register(plugin, name=f"p{index}")
    return host


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("target", ["good:number", "good:gives_number", "good:Space.number"])
def test_what_a_plugin_makes_an_application_of(target: str) -> None:
    assert load_app(target, knowing(Knows(NUMBER), strict=True)).name == "number 5"


@pytest.mark.usefixtures("modules")
def test_no_plugin_is_asked_about_an_application() -> None:
    def never(found: object) -> bool:
        raise AssertionError("it was asked")

    host = knowing(Knows(TargetKind("any", "anything", never, named)), strict=True)
    assert load_app("good:app", host).name == "app"


@pytest.mark.usefixtures("modules")
def test_what_is_known_is_not_called() -> None:
    def is_function(found: object) -> bool:
        return getattr(found, "__name__", "") == "raises"

    kind = TargetKind("function", "a function", is_function, lambda found: App(name="not called"))
    assert load_app("good:raises", knowing(Knows(kind))).name == "not called"


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([], "expected a flowcoro.App, found int"),
        (
            [
                TargetKind("text", "a text", lambda found: isinstance(found, str), fails),
                TargetKind("list", "a list", lambda found: isinstance(found, list), fails),
            ],
            "expected a flowcoro.App, a text or a list, found int",
        ),
        (
            [TargetKind("number", "a number", is_number, fails)],
            "plugin 'p0' (registered by hand) cannot run it: OSError: no such number",
        ),
        ([TargetKind("number", "a number", is_number, refuses)], "only odd numbers can be run"),
        (
            [TargetKind("number", "a number", is_number, lambda found: found)],
            "plugin 'p0' (registered by hand) made a int of it, expected a flowcoro.App",
        ),
        (
            [NUMBER, TargetKind("whole", "a whole number", is_number, named)],
            "plugin 'p0' (registered by hand) and plugin 'p1' (registered by hand) both know how "
            "to run a int; block one of them (FLOWCORO_BLOCK_PLUGINS)",
        ),
    ],
)
def test_what_plugins_cannot_run(kinds: list[TargetKind], message: str) -> None:
    with pytest.raises(TargetError) as caught:
        load_app("good:number", knowing(*map(Knows, kinds)))
    assert str(caught.value) == f"target 'good:number': {message}"


@pytest.mark.usefixtures("modules")
def test_a_kind_that_raises_when_it_is_asked_stops_no_other() -> None:
    host = knowing(Knows(TargetKind("bad", "a bad one", fails, named)), Knows(NUMBER))
    assert load_app("good:number", host).name == "number 5"
    (problem,) = host.records["p0"].problems
    assert (problem.hook, problem.message) == (
        "flowcoro_targets",
        "kind 'bad': OSError: no such number",
    )
    assert host.records["p1"].problems == []


@pytest.mark.usefixtures("modules")
def test_an_asgi_application_where_nothing_runs_it() -> None:
    with pytest.raises(TargetError, match="takes scope, receive, send; flowcoro-http, which runs"):
        load_app("good:asgi")
    with pytest.raises(TargetError, match=r"this function takes x$"):
        load_app("good:takes")
