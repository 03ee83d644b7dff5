"""What may stand after `flowcoro run`, and what may not."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowcoro.cli._root import root
from flowcoro.cli._target import load_app, load_callable
from flowcoro.errors import TargetError


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
    "good.py": "no module 'good.py' in ",
    ".good:app": "TypeError: ",
    "good:apq": "good has no 'apq'; did you mean 'app'?",
    "good:app.nothing": "good has no 'app.nothing'",
    "good:number": "expected a flowcoro.App, found int",
    "good:App": "expected a flowcoro.App, found type",
    "good:gives_none": "expected a flowcoro.App, found NoneType",
    "good:raises": "calling it: ZeroDivisionError: division by zero",
    "good:takes": "calling it: TypeError: ",
    "good:later": "expected a flowcoro.App, found coroutine",
    "needs:app": "needs needs 'gone_library': No module named 'gone_library'",
    "broken:app": "importing broken (broken.py, line 3): ValueError: two lines",
    "syntax:app": "importing syntax",
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
async def later(): ...
class Space:
    app = app
""",
    "needs": "import gone_library",
    "broken": "\ndef fail(): \n    raise ValueError('two\\nlines')\nfail()\n",
    "syntax": "def broken(:\n",
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
