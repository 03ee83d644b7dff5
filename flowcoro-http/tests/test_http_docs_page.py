"""The page that shows the OpenAPI document, as a browser under a strict policy gets it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest

import flowcoro_http
from flowcoro_http import HttpConfig, HttpServer, Router, SecurityHeaders
from flowcoro_http.testing import client_for

PAGES = Path(flowcoro_http.__file__).parent / "pages"


class Page(HTMLParser):
    """What a page loads, and what a policy would keep it from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self.data: dict[str, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.inline += [name for name in found if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in found):
            self.inline.append(tag)
        self.links += [found[n] or "" for n in ("src", "href") if n in found and tag != "a"]
        self.data.update((k, v) for k, v in found.items() if k.startswith("data-"))


def shop(router: Router) -> Router:
    @router.get("/items")
    async def items() -> list[str]:
        """List items."""
        return []

    return router


@pytest.mark.parametrize(
    ("router", "path", "document", "root"),
    [
        (Router(), "/docs", "/openapi.json", "/"),
        (Router("/api"), "/api/docs", "/api/openapi.json", "/"),
        (Router(docs="/about/the/api"), "/about/the/api", "/openapi.json", "/"),
        (Router("/a/b", docs="/d", openapi="/x/y.json"), "/a/b/d", "/a/b/x/y.json", "/"),
    ],
)
async def test_all_that_it_needs_is_there(
    router: Router, path: str, document: str, root: str
) -> None:
    router.use(SecurityHeaders())
    async with client_for(shop(router)) as client:
        response = await client.get(path)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        page = Page(response.text)
        assert urljoin(path, page.data["data-document"]) == document
        assert urljoin(path, page.data["data-root"]) == root
        loaded = [urljoin(path, link) for link in page.links if not link.startswith("data:")]
        assert [link.rpartition("/")[2] for link in loaded] == ["docs.css", "docs.js"]
        for link, media in zip(loaded, ("text/css", "text/javascript"), strict=True):
            part = await client.get(link)
            assert part.headers["content-type"] == f"{media}; charset=utf-8"
            tag = {"if-none-match": part.headers["etag"]}
            assert (await client.get(link, headers=tag)).status_code == 304
        paths = (await client.get(document)).json()["paths"]
        assert list(paths) == [f"{router.registry.prefix}/items"]


async def test_nothing_of_it_needs_leave_or_another_site() -> None:
    async with client_for(shop(Router())) as client:
        response = await client.get("/docs")
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert Page(response.text).inline == []
    script = (PAGES / "docs.js").read_text()
    style = (PAGES / "docs.css").read_text()
    for text in (response.text, style, script):
        assert not re.search(r"(src|href|url|import|fetch)\W{1,3}(https?:)?//", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    assert "new Function" not in script
    assert sum(len(text) for text in (response.text, style, script)) < 60_000


async def test_a_title_is_text() -> None:
    title = '</title><script>alert(1)</script>$root & "'
    async with client_for(shop(Router(title=title))) as client:
        text = (await client.get("/docs")).text
    assert "<script>alert" not in text
    assert "&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;$root &amp; &quot;" in text


async def test_below_a_mount_its_links_still_lead_to_it() -> None:
    outer = Router(openapi=None)
    outer.mount("/inner", shop(Router("/v1")))
    async with client_for(outer) as client:
        page = Page((await client.get("/inner/v1/docs")).text)
        assert urljoin("/inner/v1/docs", page.data["data-document"]) == "/inner/v1/openapi.json"
        assert urljoin("/inner/v1/docs", page.data["data-root"]) == "/inner/"
        for link in page.links[:2]:
            if not link.startswith("data:"):
                assert (await client.get(urljoin("/inner/v1/docs", link))).status_code == 200


async def test_it_can_be_turned_off() -> None:
    for router in (Router(docs=None), Router(openapi=None)):
        async with client_for(shop(router)) as client:
            assert (await client.get("/docs")).status_code == 404
    async with client_for(shop(Router()).bind(docs=False)) as client:
        assert (await client.get("/docs")).status_code == 404
        assert (await client.get("/openapi.json")).status_code == 200
    async with client_for(shop(Router()).bind(openapi=False)) as client:
        assert (await client.get("/docs")).status_code == 404


@pytest.mark.parametrize("config", [HttpConfig(docs=False), HttpConfig(openapi=False)])
async def test_it_can_be_turned_off_in_the_configuration(config: HttpConfig) -> None:
    server = HttpServer(shop(Router()), host="127.0.0.1", port=0, config=config)
    async with server, client_for(server._application) as client:  # type: ignore[arg-type]
        assert (await client.get("/docs")).status_code == 404


async def test_a_route_of_the_user_wins() -> None:
    router = shop(Router())

    @router.get("/docs")
    async def page() -> str:
        return "mine"

    async with client_for(router) as client:
        assert (await client.get("/docs")).text == "mine"
        assert (await client.get("/openapi.json")).json()["paths"].keys() == {"/items", "/docs"}


def test_paths_with_slashes_are_told_apart() -> None:
    router = Router()

    @router.get("/files/{rest:path}")
    async def files(rest: str) -> str:
        return rest

    @router.get("/other/{rest:path}")
    async def other() -> str:
        return ""

    for path in ("/files/{rest}", "/other/{rest}"):
        parameter = router.openapi()["paths"][path]["get"]["parameters"][0]
        assert parameter["x-flowcoro-slashes"] is True
