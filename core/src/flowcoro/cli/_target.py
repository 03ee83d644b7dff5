"""From `module:attribute` to an application."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from flowcoro._describe import describe
from flowcoro.app import App
from flowcoro.errors import TargetError

__all__ = ["load_app", "load_callable"]


def load_app(target: str, *, folder: Path | None = None) -> App:
    """Import the application that `target` names.

    Args:
        target: `module:attribute`, or `module` for its `app`. The attribute is an `App`
            or a function without parameters that returns one.
        folder: where modules are looked for first; the current folder when not given.

    Raises:
        TargetError: there is no such module or attribute, or it is no application; the
            message says which and what was expected.
    """
    module_name, _, path = target.partition(":")
    path = path or "app"
    if not module_name:
        raise TargetError(f"target {target!r}: expected module:attribute, such as app:app")
    sys.path.insert(0, str(folder or Path.cwd()))
    found: object = _import(module_name, target)
    for name in path.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TargetError(f"target {target!r}: {module_name} has no {path!r}{hint}")
        found = getattr(found, name)
    if callable(found) and not isinstance(found, App | type):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise TargetError(f"target {target!r}: calling it: {describe(error)}") from error
    if inspect.iscoroutine(found):
        found.close()
        raise TargetError(f"target {target!r}: expected a flowcoro.App, found coroutine")
    if not isinstance(found, App):
        kind = type(found).__name__
        raise TargetError(f"target {target!r}: expected a flowcoro.App, found {kind}")
    return found


def _import(module_name: str, target: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise TargetError(
                f"target {target!r}: no module {missing!r} in {Path.cwd()} or installed"
            ) from error
        raise TargetError(f"target {target!r}: {module_name} needs {missing!r}: {error}") from error
    except (Exception, SystemExit) as error:
        where = _last_line(error)
        raise TargetError(
            f"target {target!r}: importing {module_name}{where}: {describe(error)}"
        ) from error


def _last_line(error: BaseException) -> str:
    """Name the file and line that raised, past the import machinery."""
    trace = error.__traceback__
    where = ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<") and "importlib" not in name:
            where = f" ({Path(name).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return where


def load_callable(file: Path, attribute: str, module_name: str) -> Callable[..., object]:
    """Import `file` under `module_name` and return one of its functions.

    Raises:
        TargetError: the file cannot be imported; the message says why.
    """
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise TargetError(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TargetError(f"{file.name}{_last_line(error)}: {describe(error)}") from error
    function: Callable[..., object] = getattr(module, attribute)
    return function
