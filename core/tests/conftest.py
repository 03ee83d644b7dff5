"""Fixtures: a clean environment, and made-up distributions that are really installed."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from flowcoro.plugins import PluginHost, PluginInfo, discover

GOOD_PLUGIN = """
from flowcoro import Component, hookimpl

FLOWCORO_HOOK_API = 1


class Good(Component):
    running = False

    async def __aenter__(self):
        self.running = True
        return self


@hookimpl
def flowcoro_components(config):
    from flowcoro.app import ComponentFactory

    return [ComponentFactory("good", Good)]


@hookimpl
def flowcoro_commands():
    import click

    from flowcoro.cli import Command

    return [Command("good", "Do good.", lambda: click.Command("good", help="Do good."))]
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FLOWCORO_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("flowcoro")
    before = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:], logger.propagate = before


class Site:
    """A folder on `sys.path` into which distributions are installed.

    Written the way an installer writes them: modules, and a `.dist-info` folder with
    METADATA, entry_points.txt and RECORD. So discovery reads them as it reads any other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.distributions: list[str] = []
        self.modules: list[str] = []

    def install(
        self,
        name: str,
        plugins: Mapping[str, str],
        modules: Mapping[str, str] | None = None,
        *,
        version: str = "1.0",
        requires: Iterable[str] = ("flowcoro>=0.1",),
        metadata: str | None = None,
    ) -> None:
        """Install a distribution.

        Args:
            name: the distribution's.
            plugins: entry points of group `flowcoro`.
            modules: source text by module name.
            version: the distribution's.
            requires: its requirements.
            metadata: the text of METADATA instead of the usual one; none when empty.
        """
        for module, source in (modules or {}).items():
            (self.folder / f"{module}.py").write_text(dedent(source), encoding="utf-8")
            self.modules.append(module)
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        if metadata is None:
            lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            lines += [f"Summary: The {name} plugin", *(f"Requires-Dist: {r}" for r in requires)]
            metadata = "\n".join(lines) + "\n"
        if metadata:
            (info / "METADATA").write_text(metadata, encoding="utf-8")
        points = "".join(f"{key} = {target}\n" for key, target in plugins.items())
        (info / "entry_points.txt").write_text(f"[flowcoro]\n{points}", encoding="utf-8")
        files = [f"{module}.py" for module in modules or {}]
        files += [f"{info.name}/{file}" for file in ("METADATA", "entry_points.txt", "RECORD")]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files), encoding="utf-8")
        self.distributions.append(name)
        importlib.invalidate_caches()

    def install_good(self) -> None:
        """Install a plugin that does all right: component `good`, command `good`."""
        self.install("flowcoro-good", {"good": "good_plugin"}, {"good_plugin": GOOD_PLUGIN})

    def infos(self) -> list[PluginInfo]:
        """Discover, and leave out what else this environment has installed."""
        return [i for i in discover() if i.name == "core" or i.distribution in self.distributions]

    def load(self, *, strict: bool = False, block: Iterable[str] = ()) -> PluginHost:
        """Load the core's plugin and what was installed here."""
        return PluginHost.load(infos=self.infos(), strict=strict, block=block)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    made = Site(folder)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()
