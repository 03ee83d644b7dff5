"""The page that shows the OpenAPI document: our own, complete, and without anybody's CDN.

The page is markup, a style sheet and a script in `pages/`, all from the service itself, so
it works offline and under a strict `Content-Security-Policy`, which it brings along. All
its links are relative: it stays whole under any prefix that a proxy or a mount adds.
"""

from __future__ import annotations

import html
import posixpath
from pathlib import Path
from string import Template

from flowcoro_http._response import Response
from flowcoro_http._route import Route

__all__ = ["docs_routes"]

_PAGES = Path(__file__).resolve().parent / "pages"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_routes(path: str, document_path: str, title: str) -> list[Route]:
    """Return the routes of the page.

    Args:
        path: where it is, such as `/docs`.
        document_path: where the document is.
        title: of the document.
    """
    folder = posixpath.dirname(path)
    template = Template((_PAGES / "docs.html").read_text(encoding="utf-8"))
    found = template.substitute(
        title=html.escape(title),
        assets=html.escape(f"./{posixpath.basename(path)}"),
        document=html.escape(f"./{posixpath.relpath(document_path, folder)}"),
        root=html.escape(f"./{posixpath.relpath('/', folder)}/"),
    )

    async def docs_page() -> Response:
        headers = {
            "content-security-policy": _POLICY,
            "cache-control": "no-cache",
            "x-content-type-options": "nosniff",
        }
        return Response.html(found, headers=headers)

    async def docs_style() -> Response:
        return _asset("docs.css")

    async def docs_script() -> Response:
        return _asset("docs.js")

    return [
        Route(path, docs_page, in_schema=False),
        Route(f"{path}/docs.css", docs_style, in_schema=False),
        Route(f"{path}/docs.js", docs_script, in_schema=False),
    ]


def _asset(name: str) -> Response:
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    return Response.file(_PAGES / name, headers=headers)
