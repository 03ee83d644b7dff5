"""`flowcoro plugin`: make, list, describe and check plugins."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flowcoro.config import Config
    from flowcoro.plugins import PluginHost, PluginRecord

__all__ = ["collect_all", "command"]

_FILE = "FLOWCORO_CONFIG"


@click.group("plugin")
def command() -> None:
    """Make, list and check plugins."""


@command.command("new")
@click.argument("name")
@click.option(
    "--into", default=".", type=click.Path(file_okay=False, path_type=Path), help="Parent folder."
)
def new(name: str, into: Path) -> None:
    """Make a plugin distribution called NAME, such as flowcoro-greeter."""
    from flowcoro.cli._template import plugin_values, render

    values = plugin_values(name)
    folder = render("plugin", into / name, values)
    click.echo(f"Made {folder}. Next:")
    click.echo(f"  cd {folder}")
    click.echo('  python -m pip install -e ".[test]"')
    click.echo("  python -m pytest")
    click.echo(f"  flowcoro plugin check {values['plugin']}")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(*, as_json: bool) -> None:
    """List installed plugins from metadata alone; none is imported."""
    from flowcoro.plugins import blocked_by_environment, discover
    from flowcoro.plugins._metadata import incompatibility

    blocked = blocked_by_environment() | _blocked_by_configuration()
    rows = []
    for info in discover():
        reason = incompatibility(info) or ""
        state = "blocked" if info.name in blocked else "incompatible" if reason else "installed"
        rows.append(
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "state": state,
                "requires": info.requires,
                "summary": reason or info.summary,
            }
        )
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
        return
    # Plain columns: importing rich would double this command's start-up time.
    columns = ("name", "distribution", "version", "state", "summary")
    lines = [columns, *(tuple(row[c] for c in columns) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@command.command("info")
@click.argument("name")
def info(name: str) -> None:
    """Load plugins and describe the one called NAME."""
    from flowcoro.plugins import PluginStatus

    host = _load()
    record = _find(host, name)
    click.echo(f"{record.info.name}: {record.info.summary}")
    click.echo(f"  distribution  {record.info.origin}")
    click.echo(f"  module        {record.info.target}")
    click.echo(f"  requires      flowcoro{record.info.requires}")
    click.echo(f"  status        {record.status}{f': {record.reason}' if record.reason else ''}")
    if record.status is not PluginStatus.LOADED:
        sys.exit(1)
    for hook in record.hooks:
        click.echo(f"  hook          {hook}")
    for what, names in _contributions(host, record).items():
        click.echo(f"  {what:<13} {', '.join(names)}")
    for problem in record.problems:
        click.echo(f"  problem       {problem.hook}: {problem.message}")


@command.command("check")
@click.argument("names", nargs=-1)
def check(names: tuple[str, ...]) -> None:
    """Check that the plugins NAMES (all, if none is given) keep the contract."""
    from flowcoro.plugins._check import check_plugin

    host = _load()
    failed = 0
    for name in names or tuple(host.records):
        click.echo(name)
        for finding in check_plugin(host, name, collect_all):
            mark = click.style("ok  ", "green") if finding.passed else click.style("FAIL", "red")
            click.echo(f"  {mark} {finding.rule}{f': {finding.detail}' if finding.detail else ''}")
            failed += not finding.passed
    if failed:
        click.echo(f"{failed} finding(s)", err=True)
        sys.exit(1)


def collect_all(host: PluginHost) -> dict[str, Any]:
    """Ask for every registration hook, as an application would.

    The core's hooks are checked for what they return; of features' hooks the core
    knows only that they must not raise.
    """
    from flowcoro._describe import describe
    from flowcoro.app import App, ComponentFactory, Context, Dependencies, HealthCheck
    from flowcoro.cli._command import Command
    from flowcoro.cli._target_kind import TargetKind
    from flowcoro.loops import LoopFactory

    config = _default_config(host)
    components = host.collect("flowcoro_components", ComponentFactory, config=config)
    app = App(plugins=host, config=config)
    context = Context("check", config, host, Dependencies(), app.health, app.request_stop)
    for name, factory in components.items():
        try:
            context.dependencies.add(factory.create(), name=name)
        except Exception as error:  # noqa: BLE001 - the finding is what the check is for
            message = f"component {name!r} could not be made: {describe(error)}"
            host.note(components.owner(name), "flowcoro_components", message, error)
    arguments = {"config": config, "context": context}
    for hook in host.hooks(features=True):
        wanted = host.arguments(hook)
        if set(wanted) <= set(arguments):
            host.call(hook, **{name: arguments[name] for name in wanted})
    return {
        "command": host.collect("flowcoro_commands", Command),
        "component": components,
        "health check": host.collect("flowcoro_health_checks", HealthCheck, context=context),
        "loop": host.collect("flowcoro_loop_factories", LoopFactory),
        "target": host.collect("flowcoro_targets", TargetKind),
    }


def _default_config(host: PluginHost) -> Config:
    """Read an empty configuration; a section that needs more is its plugin's problem."""
    from flowcoro.config import ConfigSection, load_config
    from flowcoro.errors import ConfigError

    hook = "flowcoro_config_sections"
    claims = host.collect(hook, ConfigSection)
    sections = []
    for name, section in claims.items():
        try:
            load_config([section], environ={})
        except ConfigError as error:
            message = f"{error}; expected a default, since a plugin may be installed and unused"
            host.note(claims.owner(name), hook, message)
        else:
            sections.append(section)
    return load_config(sections, environ={})


def _blocked_by_configuration() -> frozenset[str]:
    # Importing the configuration costs a third of `plugin list`; most folders have none.
    sources = (name for name in os.environ if name.startswith(("FLOWCORO_PLUGINS_", _FILE)))
    if not Path("flowcoro.toml").is_file() and not any(sources):
        return frozenset()
    from flowcoro.config import ConfigFile

    return frozenset(ConfigFile.read().plugins().block)


def _contributions(host: PluginHost, record: PluginRecord) -> dict[str, list[str]]:
    found = {
        what: [name for name in claims if claims.owner(name) is record]
        for what, claims in collect_all(host).items()
    }
    return {what: names for what, names in found.items() if names}


def _load() -> PluginHost:
    from flowcoro.config import ConfigFile
    from flowcoro.plugins import PluginHost

    return PluginHost.load(block=ConfigFile.read().plugins().block)


def _find(host: PluginHost, name: str) -> PluginRecord:
    from flowcoro.errors import PluginError

    if name not in host.records:
        known = ", ".join(host.records) or "none"
        raise PluginError(f"no plugin named {name!r} is installed (known: {known})")
    return host.records[name]
