"""Filling in the templates of `flowcoro new` and `flowcoro plugin new`.

A template is a folder of files; `$name` stands for a value in the text and in the path,
and the ending `.tmpl`, which keeps tools off the unfilled files, is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from string import Template

from flowcoro.errors import FlowcoroError

__all__ = ["app_values", "plugin_values", "render"]

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def app_values(name: str) -> dict[str, str]:
    """Return what the application template needs.

    Raises:
        FlowcoroError: `name` cannot be a project's name.
    """
    _check_name(name)
    return {"name": name, "package": name.replace("-", "_"), "range": _range()}


def plugin_values(name: str) -> dict[str, str]:
    """Return what the plugin template needs.

    Raises:
        FlowcoroError: `name` cannot be a distribution's name.
    """
    _check_name(name)
    plugin = name.removeprefix("flowcoro-").replace("-", "_")
    return {
        "name": name,
        "package": name.replace("-", "_"),
        "plugin": plugin,
        "Plugin": "".join(part.capitalize() for part in plugin.split("_")),
        "range": _range(),
    }


def render(template: str, folder: Path, values: Mapping[str, str]) -> Path:
    """Write a template's files below `folder`.

    Returns:
        The folder.

    Raises:
        FlowcoroError: the folder exists and is not empty, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FlowcoroError(f"{folder} exists already; expected a new or empty folder")
    source = _TEMPLATES / template
    try:
        for file in sorted(source.rglob("*.tmpl")):
            relative = Template(str(file.relative_to(source))).substitute(values)
            target = folder / relative.removesuffix(".tmpl")
            target.parent.mkdir(parents=True, exist_ok=True)
            text = Template(file.read_text(encoding="utf-8")).substitute(values)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FlowcoroError(f"{folder}: {error.strerror}") from error
    return folder


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise FlowcoroError(
            f"name {name!r}: expected lower-case words joined by hyphens, such as flowcoro-greeter"
        )


def _range() -> str:
    """Return the range of versions that are compatible with the running one."""
    major, minor, *_ = version("flowcoro").split(".")
    return f">={major}.{minor},<{major}.{int(minor) + 1}"
