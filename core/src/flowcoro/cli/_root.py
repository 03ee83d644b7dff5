"""The root of the command line: it finds commands and reports errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from flowcoro._describe import describe
from flowcoro.cli._command import BUILT_IN, Command
from flowcoro.errors import FlowcoroError, PluginError

if TYPE_CHECKING:
    from flowcoro.plugins import Claims

__all__ = ["root"]


class Root(click.Group):
    """A click group whose commands come from plugins and are imported when they run.

    The core's own commands are looked up first, so that `flowcoro plugin list` imports
    no plugin and works however broken they are.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command; plugins are loaded for it."""
        return sorted({**_by_name(BUILT_IN), **_of_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        found = _by_name(BUILT_IN).get(cmd_name)
        return found.load() if found is not None else self._of_plugin(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands with their summaries, without importing them."""
        known = {**_of_plugins(), **_by_name(BUILT_IN)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, known[name].summary) for name in sorted(known)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and turn FlowCoro's errors into one readable message and status 1."""
        try:
            return super().main(*args, **kwargs)
        except FlowcoroError as error:
            click.echo(f"flowcoro: error: {error}", err=True)
            sys.exit(1)

    def _of_plugin(self, name: str) -> click.Command | None:
        claims = _claims()
        if name not in claims and name not in claims.contested:
            return None
        owner = claims.owner(name).label
        try:
            command = claims[name].load()
        except (Exception, SystemExit) as error:
            reason = describe(error)
            raise PluginError(f"command {name!r} of {owner} cannot be loaded: {reason}") from error
        if not isinstance(command, click.Command):
            raise PluginError(f"command {name!r} of {owner}: expected a click command")
        return command


def _by_name(commands: tuple[Command, ...]) -> dict[str, Command]:
    return {command.name: command for command in commands}


def _claims() -> Claims[Command]:
    from flowcoro.config import ConfigFile
    from flowcoro.plugins import PluginHost

    settings = ConfigFile.read().plugins()
    host = PluginHost.load(block=settings.block, strict=settings.strict)
    return host.collect("flowcoro_commands", Command)


def _of_plugins() -> Mapping[str, Command]:
    return _claims()


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"flowcoro {version('flowcoro')}")
        ctx.exit()


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def root() -> None:
    """FlowCoro: the asynchronous platform that you assemble from plugins."""
