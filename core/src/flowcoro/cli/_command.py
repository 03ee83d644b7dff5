"""What a command is, and those that come with the core."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import click

__all__ = ["BUILT_IN", "Command"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the `flowcoro` command line (`flowcoro_commands`).

    Attributes:
        name: what is typed after `flowcoro`.
        summary: one line for `flowcoro --help`.
        load: imports and returns the click command; called only when it runs.
    """

    name: str
    summary: str
    load: Callable[[], click.Command]


def _built_in(name: str, summary: str) -> Command:
    def load() -> click.Command:
        module = importlib.import_module(f"flowcoro.cli._{name}")
        return cast("click.Command", module.command)

    return Command(name, summary, load)


BUILT_IN = (
    _built_in("copy", "Copy a file or a directory, with a progress bar."),
    _built_in("demo", "Run the example application."),
    _built_in("doctor", "Tell what is installed, loaded and missing."),
    _built_in("new", "Make a new application."),
    _built_in("plugin", "Make, list and check plugins."),
    _built_in("run", "Run an application."),
)
