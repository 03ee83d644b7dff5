"""`flowcoro new`: an application from a template."""

from __future__ import annotations

from pathlib import Path

import click

from flowcoro.cli._template import app_values, render

__all__ = ["command"]


@click.command("new")
@click.argument("name")
@click.option(
    "--into", default=".", type=click.Path(file_okay=False, path_type=Path), help="Parent folder."
)
def command(name: str, into: Path) -> None:
    """Make an application called NAME in a new folder of that name."""
    folder = render("app", into / name, app_values(name))
    click.echo(f"Made {folder}. Next:")
    click.echo(f"  cd {folder}")
    click.echo('  python -m pip install -e ".[test]"')
    click.echo("  flowcoro run app:app --reload")
