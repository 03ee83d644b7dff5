"""From `module:attribute` to an application."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from flowcoro._describe import describe
from flowcoro.app import App, Component
from flowcoro.cli._target_kind import TargetKind
from flowcoro.errors import FlowcoroError, TargetError
from flowcoro.plugins import Claims, PluginHost

__all__ = ["load_app", "load_apps", "load_callable"]

logger = logging.getLogger("flowcoro.app")

_ASGI = ["scope", "receive", "send"]
_INSTALLED = {"site-packages", "dist-packages"}
_SEPARATORS = {"/", "\\"}


def load_app(target: str, plugins: PluginHost | None = None, *, folder: Path | None = None) -> App:
    """Import the application that `target` names.

    Args:
        target: `module:attribute`, or `module` for its `app`. The attribute is an `App`,
            a thing of which a plugin makes one, or a function without parameters that
            returns either.
        plugins: whom to ask about what is no `App` (`flowcoro_targets`).
        folder: where modules are looked for first; the current folder when not given.

    Raises:
        TargetError: there is no such module or attribute, or it is no application; the
            message says which and what was expected.
    """
    return _Maker(target, plugins).make(_find(target, folder))


def load_apps(target: str, count: int, plugins: PluginHost | None = None) -> list[App]:
    """Make several applications of what `target` names, for as many threads.

    A function is called for each, one call after the other. What a plugin makes
    applications of (an ASGI application) may be one object that they share, and the log
    says so. Applications and components are never shared.

    Args:
        target: see `load_app`.
        count: how many.
        plugins: see `load_app`.

    Raises:
        TargetError: as for `load_app`; or there is one `App` only, or two of them have a
            component in common.
    """
    found = _find(target, None)
    if isinstance(found, App):
        raise TargetError(
            f"target {target!r}: is one App, which cannot run on {count} event loops at once "
            "(server.threads); name a function without parameters that makes and returns one"
        )
    maker = _Maker(target, plugins)
    apps = [maker.make(found) for _ in range(count)]
    if len({id(source) for source in maker.sources}) < len(maker.sources):
        kind = type(maker.sources[0]).__name__
        logger.info("target %r: one %s is called by all %d threads", target, kind, count)
    _require_distinct(target, apps)
    return apps


def _find(target: str, folder: Path | None) -> object:
    module_name, _, path = target.partition(":")
    path = path or "app"
    if not module_name:
        raise TargetError(f"target {target!r}: expected module:attribute, such as app:app")
    if module_name.startswith(".") or not _SEPARATORS.isdisjoint(module_name):
        raise TargetError(
            f"target {target!r}: {module_name!r} is a path; expected module:attribute, "
            f"{_instead_of(module_name, path)}"
        )
    sys.path.insert(0, str(folder or Path.cwd()))
    found: object = _import(module_name, target)
    for name in path.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TargetError(f"target {target!r}: {module_name} has no {path!r}{hint}")
        found = getattr(found, name)
    return found


def _instead_of(path: str, attribute: str) -> str:
    """Name the module that a path may be meant for."""
    try:
        file = Path(path.replace("\\", "/")).resolve().relative_to(Path.cwd())
        name = file.with_suffix("").as_posix().lstrip(".")
    except ValueError:  # it is elsewhere, or no file's name
        return "such as app:app, below the current folder"
    return f"such as {name.replace('/', '.') or 'app'}:{attribute}"


def _require_distinct(target: str, apps: Sequence[App]) -> None:
    seen: set[int] = set()
    for app in apps:
        mine: list[App | Component] = [app, *app.components]
        for each in mine:
            if id(each) in seen:
                what = "App" if isinstance(each, App) else f"component {each.name!r}"
                raise TargetError(
                    f"target {target!r}: the function returned the same {what} again; expected a "
                    "new one at each call, since each thread needs its own (server.threads)"
                )
        seen.update(map(id, mine))


class _Maker:
    """Makes applications of what a target names.

    Attributes:
        sources: what plugins made them of.
    """

    def __init__(self, target: str, plugins: PluginHost | None) -> None:
        self.sources: list[object] = []
        self._target = target
        self._plugins = plugins

    @cached_property
    def _kinds(self) -> Claims[TargetKind]:
        """The kinds that plugins know; asked for only where there is no `App`."""
        if self._plugins is None:
            return Claims("target kind", ())
        return self._plugins.collect("flowcoro_targets", TargetKind)

    def make(self, found: object) -> App:
        app = self._as_app(found)
        if app is None and callable(found) and not isinstance(found, type):
            found = self._call(found)
            app = self._as_app(found)
        if app is not None:
            return app
        if inspect.iscoroutine(found):
            found.close()
        kind = type(found).__name__
        raise self._error(f"expected {self._expected()}, found {kind}")

    def _as_app(self, found: object) -> App | None:
        if isinstance(found, App):
            return found
        names = [name for name, kind in self._kinds.items() if self._matches(name, kind, found)]
        if not names:
            return None
        owners = [self._kinds.owner(name).label for name in names]
        if len(names) > 1:
            raise self._error(
                f"{' and '.join(owners)} both know how to run a {type(found).__name__}; "
                "block one of them (FLOWCORO_BLOCK_PLUGINS)"
            )
        kind = self._kinds[names[0]]
        try:
            app: object = kind.create(found)
        except FlowcoroError as error:
            raise self._error(str(error)) from error
        except (Exception, SystemExit) as error:
            raise self._error(f"{owners[0]} cannot run it: {describe(error)}") from error
        if not isinstance(app, App):
            made = type(app).__name__
            raise self._error(f"{owners[0]} made a {made} of it, expected a flowcoro.App")
        self.sources.append(found)
        return app

    def _matches(self, name: str, kind: TargetKind, found: object) -> bool:
        try:
            return bool(kind.matches(found))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's fault is its own
            message = f"kind {name!r}: {describe(error)}"
            if self._plugins is not None:
                self._plugins.note(self._kinds.owner(name), "flowcoro_targets", message, error)
            return False

    def _call(self, function: Callable[..., object]) -> object:
        needed = _needed(function)
        if needed:
            hint = "; flowcoro-http, which runs ASGI applications, is not loaded"
            raise self._error(
                f"expected {self._expected()}, or a function without parameters that returns "
                f"such; this {type(function).__name__} takes {', '.join(needed)}"
                f"{hint if needed == _ASGI else ''}"
            )
        try:
            return function()
        except (Exception, SystemExit) as error:
            raise self._error(f"calling it{_last_line(error)}: {describe(error)}") from error

    def _expected(self) -> str:
        *first, last = ["a flowcoro.App", *(kind.summary for kind in self._kinds.values())]
        return f"{', '.join(first)} or {last}" if first else last

    def _error(self, text: str) -> TargetError:
        return TargetError(f"target {self._target!r}: {text}")


def _needed(function: Callable[..., object]) -> list[str]:
    """Name the parameters that a call cannot do without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # it does not tell
        return []
    return [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
    ]


def _import(module_name: str, target: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            name, _, suffix = module_name.rpartition(".")
            hint = f"; did you mean {name}{target[len(module_name) :]}?" if suffix == "py" else ""
            raise TargetError(
                f"target {target!r}: no module {missing!r} in {Path.cwd()} or installed{hint}"
            ) from error
        raise TargetError(f"target {target!r}: {module_name} needs {missing!r}: {error}") from error
    except (Exception, SystemExit) as error:
        where = _last_line(error)
        raise TargetError(
            f"target {target!r}: importing {module_name}{where}: {describe(error)}"
        ) from error


def _last_line(error: BaseException) -> str:
    """Name the file and line that raised: the user's last, or else the last of all.

    Empty where there is none but the import machinery: a `SyntaxError` names its own.
    """
    trace = error.__traceback__
    where = users = ""
    here = Path.cwd()
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<") and "importlib" not in name and name != __file__:
            file = Path(name)
            where = f" ({file.name}, line {trace.tb_lineno})"
            if file.is_relative_to(here) and _INSTALLED.isdisjoint(file.parts):
                users = where
        trace = trace.tb_next
    return users or where


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
