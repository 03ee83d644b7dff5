"""`flowcoro routes module:router`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from flowcoro_http._router import Router
from flowcoro_http._server import HttpServer

__all__ = ["routes"]


@click.command()
@click.argument("target")
def routes(target: str) -> None:
    """List the routes of a router, an HttpServer or an App.

    TARGET is module:attribute, such as app:router.
    """
    found = _load(target)
    routers = _routers(found)
    if not routers:
        raise click.ClickException(
            f"{target} is a {type(found).__name__}; expected a Router, or what serves one"
        )
    rows = [(r, route) for r in routers for route in r.routes]
    width = max((len("|".join(route.methods)) for _, route in rows), default=0)
    for _, route in rows:
        summary = route.documentation()[0]
        line = f"{'|'.join(route.methods):<{width}}  {route.path}"
        click.echo(f"{line}  - {summary}" if summary else line)


def _load(target: str) -> object:
    module_name, _, path = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for name in (path or "app").split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.ClickException(f"{target}: {error}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    result: object = found
    return result


def _routers(found: object) -> list[Router]:
    if isinstance(found, Router):
        return [found]
    if isinstance(found, HttpServer):
        return _routers(found.app)
    components = getattr(found, "components", ())
    return [r for c in components if isinstance(c, HttpServer) for r in _routers(c.app)]
