"""`flowcoro doctor`: what is installed, loaded, failed and missing, and why."""

from __future__ import annotations

import importlib
import platform
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import click

from flowcoro._describe import describe
from flowcoro.app._environment import read_config
from flowcoro.cli._plugin import collect_all
from flowcoro.config import ConfigFile, PluginsConfig
from flowcoro.errors import ConfigError, FlowcoroError
from flowcoro.loops import choose_loop
from flowcoro.plugins import PluginHost, PluginStatus

__all__ = ["command", "examine"]

_MARKS = {
    PluginStatus.LOADED: "[green]loaded[/]",
    PluginStatus.BLOCKED: "[yellow]blocked[/]",
    PluginStatus.INCOMPATIBLE: "[red]incompatible[/]",
    PluginStatus.FAILED: "[red]failed[/]",
}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, as_json: bool) -> None:
    """Tell what is installed, loaded, failed and missing, and why.

    Exits with status 1 when a plugin failed or the configuration is wrong.
    """
    import logging

    # Each failure is a row of the report; the log lines would say it twice.
    logging.getLogger("flowcoro").addHandler(logging.NullHandler())
    logging.getLogger("flowcoro").propagate = False
    report = examine()
    if as_json:
        import json

        click.echo(json.dumps(report, indent=2))
    else:
        _print(report)
    sys.exit(0 if report["healthy"] else 1)


def examine() -> dict[str, Any]:
    """Gather the report, as plain data."""
    host, config_error = _load()
    # Asked here so that what they do wrong shows below.
    try:
        collect_all(host)
    except ConfigError as error:
        config_error = config_error or str(error)
    plugins = [
        {
            "name": record.info.name,
            "distribution": record.info.distribution,
            "version": record.info.version,
            "status": str(record.status),
            "reason": record.reason,
            "hooks": list(record.hooks),
            "problems": [f"{p.hook}: {p.message}" for p in record.problems],
        }
        for record in host.records.values()
    ]
    native = _native()
    broken = {str(PluginStatus.FAILED), str(PluginStatus.INCOMPATIBLE)}
    return {
        "healthy": not config_error
        and native["works"]
        and not any(p["status"] in broken or p["problems"] for p in plugins),
        "flowcoro": version("flowcoro"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "native": native,
        "reactors": _reactors(),
        "loop": _loop(host),
        "plugins": plugins,
        "extras": _extras(),
        "configuration": config_error or "ok",
    }


def _load() -> tuple[PluginHost, str]:
    """Load as much as can be, never strictly: a doctor looks at everything."""
    problem = ""
    file, settings = ConfigFile(), PluginsConfig()
    try:
        file = ConfigFile.read()
        settings = file.plugins()
    except ConfigError as error:
        problem = str(error)
    host = PluginHost.load(block=settings.block)
    try:
        read_config(host, file)
    except ConfigError as error:
        problem = problem or str(error)
    return host, problem


def _native() -> dict[str, Any]:
    try:
        native = importlib.import_module("flowcoro._native")
        return {"works": True, "detail": dict(native.build_info())}
    except ImportError as error:
        return {"works": False, "detail": str(error)}


def _loop(host: PluginHost) -> dict[str, str]:
    try:
        factory = choose_loop(plugins=host)
        loop = factory.create()
    except FlowcoroError as error:
        return {"name": "none", "reactor": str(error)}
    except Exception as error:  # noqa: BLE001 - a plugin's loop may fail in any way
        return {"name": "none", "reactor": describe(error)}
    waits_by = getattr(loop, "_selector", loop)
    reactor = getattr(loop, "reactor", type(waits_by).__name__)
    loop.close()
    return {"name": factory.name, "reactor": reactor}


def _reactors() -> dict[str, str]:
    """Map each of the native core's reactors to why it cannot be used, or to nothing."""
    try:
        reactor = importlib.import_module("flowcoro.reactor")
    except ImportError:
        return {}
    return {name: reactor.why_not(name) or "" for name in reactor.backends()}


def _extras() -> dict[str, str]:
    """Map each distribution that an extra of flowcoro would install to its version."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    for line in requires("flowcoro") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.name == "flowcoro":
            continue
        try:
            found[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            found[requirement.name] = ""
    return found


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    native = report["native"]
    loop = report["loop"]
    detail = native["detail"]
    shown = ", ".join(f"{k} {v}" for k, v in detail.items()) if native["works"] else detail
    mark = "[green]works[/]" if native["works"] else "[red]missing[/]"
    console.print(f"[bold]flowcoro {report['flowcoro']}[/] on {escape(report['python'])}")
    console.print(f"native core   {mark} ({escape(shown)})")
    for name, reason in report["reactors"].items():
        state = f"[yellow]cannot be used[/]: {escape(reason)}" if reason else "[green]usable[/]"
        console.print(f"reactor       {name} {state}")
    console.print(f"event loop    {escape(loop['name'])}, reactor {escape(loop['reactor'])}")
    ok = report["configuration"] == "ok"
    wrong = escape(report["configuration"])
    console.print(f"configuration {'[green]ok[/]' if ok else f'[red]wrong[/]: {wrong}'}")
    table = Table("plugin", "distribution", "status", "why, and what went wrong", box=None)
    for plugin in report["plugins"]:
        table.add_row(
            plugin["name"],
            f"{plugin['distribution']} {plugin['version']}",
            _MARKS[PluginStatus(plugin["status"])],
            escape("\n".join(filter(None, [plugin["reason"], *plugin["problems"]]))),
        )
    console.print(table)
    for name, installed in report["extras"].items():
        state = f"[green]{installed}[/]" if installed else "[yellow]not installed[/]"
        console.print(f"extra  {name}: {state}")
