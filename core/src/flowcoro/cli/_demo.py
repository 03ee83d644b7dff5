"""`flowcoro demo`: the example application of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from flowcoro.app import App
from flowcoro.app._environment import load_environment
from flowcoro.app._main import run_app
from flowcoro.cli._target import load_callable
from flowcoro.errors import FlowcoroError

__all__ = ["command", "demo_folder"]

_MODULE = "flowcoro_live_demo"


@click.command("demo")
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port."
)
def command(directory: Path, host: str, port: int) -> None:
    """Serve the example application; it keeps its data in DIRECTORY (here, if not given)."""
    directory.mkdir(parents=True, exist_ok=True)
    options = (f"server.host={host}", f"server.port={port}")
    environment = load_environment(options=options)
    # The example is several modules, which import each other by their plain names.
    sys.path.insert(0, str(demo_folder()))
    create_app = load_callable(demo_folder() / "app.py", "create_app", _MODULE)
    app = create_app(directory.resolve())
    if not isinstance(app, App):
        raise FlowcoroError(f"the demo's create_app() returned {type(app).__name__}, not an App")
    if port:
        click.echo(f"FlowCoro demo: http://{host}:{port}/  (data in {directory.resolve()})")
    sys.exit(run_app(app, environment=environment))


def demo_folder() -> Path:
    """Return the example's folder: that of the checkout, else the copy in the wheel.

    Raises:
        FlowcoroError: this installation has neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[2] / "docs" / "examples" / "live", package / "_demo"):
        if (folder / "app.py").is_file():
            return folder
    raise FlowcoroError("this installation of flowcoro carries no demo")
