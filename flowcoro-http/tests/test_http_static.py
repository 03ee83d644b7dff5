"""A folder's files, and whatever a client may try to get at others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from _serving import raw, read_all, serving
from flowcoro_http import Route, Router, StaticFiles
from flowcoro_http import _static as static
from flowcoro_http.testing import client_for

SECRET = "nobody gets to see this"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("static")
    root = base / "public"
    (root / "sub/deep").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "a b+ü.txt").write_text("odd")
    (root / "sub/index.html").write_text("<p>index")
    (root / "sub/deep/b.css").write_text("b")
    for name in (".env", ".git/config", "sub/.htaccess"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(SECRET)
    (base / "secret.txt").write_text(SECRET)
    (base / "public-not").mkdir()
    (base / "public-not/c.txt").write_text(SECRET)
    (root / "within").symlink_to("sub/deep/b.css")
    (root / "folder").symlink_to("sub", target_is_directory=True)
    (root / "out.txt").symlink_to(base / "secret.txt")
    (root / "out").symlink_to(base, target_is_directory=True)
    (root / "beside").symlink_to("../public-not", target_is_directory=True)
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    (root / "odd:name").mkdir()
    (root / "odd:name/index.html").write_text("colon")
    return root


def site(tree: Path, **options: object) -> Router:
    router = Router(openapi=None)
    router.static("/static", tree, **options)  # type: ignore[arg-type]
    return router


async def test_files_are_served(tree: Path) -> None:
    async with client_for(site(tree, cache_control="max-age=60")) as client:
        for path, text, media in [
            ("a.txt", "a", "text/plain; charset=utf-8"),
            ("a%20b+%C3%BC.txt", "odd", "text/plain; charset=utf-8"),
            ("sub/deep/b.css", "b", "text/css; charset=utf-8"),
            ("within", "b", "application/octet-stream"),
            ("folder/deep/b.css", "b", "text/css; charset=utf-8"),
        ]:
            response = await client.get(f"/static/{path}")
            assert (response.status_code, response.text) == (200, text), path
            assert response.headers["content-type"] == media
            assert response.headers["cache-control"] == "max-age=60"
        response = await client.get("/static/a.txt", headers={"range": "bytes=0-5"})
        assert response.status_code == 206
        assert (await client.head("/static/a.txt")).headers["content-length"] == "1"
        assert (await client.post("/static/a.txt")).status_code == 405


OUTSIDE = [
    "",
    "sub",
    "sub/",
    "a.txt/",
    "a.txt/x",
    "missing",
    ".env",
    ".git/config",
    "%2egit/config",
    "sub/.htaccess",
    "out.txt",
    "out/secret.txt",
    "out/public/a.txt/../../secret.txt",
    "beside/c.txt",
    "loop",
    "fifo",
    "../secret.txt",
    "..%2fsecret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "%252e%252e%252fsecret.txt",
    "..%252fsecret.txt",
    "sub/../../secret.txt",
    "sub/..%5c..%5csecret.txt",
    "..\\secret.txt",
    "%5c..%5csecret.txt",
    "..%c0%afsecret.txt",
    "%c0%ae%c0%ae/secret.txt",
    "....//secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc/passwd",
    "%2Fetc%2Fpasswd",
    "sub%2findex.html",
    "sub%2Findex.html",
    "sub//index.html",
    "a.txt%00",
    "a.txt%00.css",
    "%00",
    "a.txt%0a",
    "./a.txt",
    "sub/./index.html",
    "file:///etc/passwd",
    "~root/.profile",
    "a" * 300,
    "a/" * 3000,
]


async def test_nothing_else_is(tree: Path) -> None:
    """Over a connection, since clients tidy paths up before they send them."""
    async with serving(site(tree, index="missing.html")) as server:
        for path in OUTSIDE:
            async with raw(server) as stream:
                line = f"GET /static/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                await stream.send(line.encode())
                answer = await read_all(stream)
            assert SECRET.encode() not in answer, path
            status = int(answer.split()[1])
            assert status in {400, 404} or (status, path) == (308, "sub"), path


PIECES = [
    *["..", ".", "", "sub", "out", "beside", "%2e", "%2f", "\\", "%5c", "%00", "secret.txt"],
    *["c.txt", ".env", "folder", "public", "..;", "a.txt", "~", "%"],
]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.sampled_from(PIECES),
        max_size=6,
    ),
    st.sampled_from(["/", "%2f", "//", "\\", "/./"]),
)
def test_no_mixture_gets_out(tree: Path, parts: list[str], separator: str) -> None:
    import anyio

    async def ask() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "raw_path": f"/static/{separator.join(parts)}".encode(),
            "headers": [],
            "query_string": b"",
        }
        sent: list[bytes] = []

        async def receive() -> dict[str, object]:
            await anyio.sleep_forever()
            return {}

        async def send(message: object) -> None:
            sent.append(message.get("body", b""))  # type: ignore[attr-defined]

        await site(tree, index="index.html")(scope, receive, send)
        assert SECRET.encode() not in b"".join(sent)

    anyio.run(ask)


async def test_folders_have_an_index(tree: Path) -> None:
    async with client_for(site(tree, index="index.html")) as client:
        assert (await client.get("/static/sub/")).text == "<p>index"
        assert (await client.get("/static/folder/")).text == "<p>index"
        for path, location in [
            ("/static/sub", "./sub/"),
            ("/static", "./static/"),
            ("/static/odd:name", "./odd%3Aname/"),
        ]:
            response = await client.get(path)
            assert (response.status_code, response.headers["location"]) == (308, location)
            assert (await client.get(path, follow_redirects=True)).status_code in {200, 404}
        response = await client.get("/static/odd:name", follow_redirects=True)
        assert response.text == "colon"
        assert (await client.get("/static/sub/deep/")).status_code == 404
        assert (await client.get("/static/")).status_code == 404
    async with client_for(site(tree)) as client:
        assert (await client.get("/static")).status_code == 404


async def test_hidden_files_on_request(tree: Path) -> None:
    async with client_for(site(tree, hidden=True)) as client:
        assert (await client.get("/static/.env")).text == SECRET
        assert (await client.get("/static/../.env")).status_code == 404
        assert (await client.get("/static/out.txt")).status_code == 404


async def test_at_the_root_and_as_a_route(tree: Path) -> None:
    router = Router(openapi=None)
    router.static("", tree / "sub", index="index.html")

    @router.get("/deep/own")
    async def own() -> str:
        return "own"

    async with client_for(router) as client:
        assert (await client.get("/")).text == "<p>index"
        assert (await client.get("/deep/own")).text == "own"
        assert (await client.get("/deep/b.css")).text == "b"
    router = Router()
    router.add(Route("/files/{path:path}", StaticFiles(tree), in_schema=False))
    async with client_for(router) as client:
        assert (await client.get("/files/a.txt")).text == "a"
        assert (await client.get("/openapi.json")).json()["paths"] == {}


async def test_a_link_that_appears_between_look_and_opening(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process swaps folders while one is looked at."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub/secret.txt").write_text("harmless")
    find = static._find

    def swap() -> None:
        if not (root / "sub").is_symlink():
            (root / "sub").rename(root / "was")
            (root / "sub").symlink_to(tree.parent, target_is_directory=True)

    def then_swap(directory: str, names: list[str]) -> object:
        found = find(directory, names)
        swap()
        return found

    monkeypatch.setattr(static, "_find", then_swap)
    async with client_for(site(root)) as client:
        assert (await client.get("/static/sub/secret.txt")).status_code == 404
    # And while it is walked down to.
    monkeypatch.setattr(static, "_find", find)
    (root / "sub").unlink()
    (root / "was").rename(root / "sub")
    walk = static._lstat_below

    def swap_and_walk(root: str, names: list[str]) -> os.stat_result:
        swap()
        return walk(root, names)

    monkeypatch.setattr(static, "_lstat_below", swap_and_walk)
    async with client_for(site(root)) as client:
        assert (await client.get("/static/sub/secret.txt")).status_code == 404


async def test_where_directories_cannot_be_opened(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "_lstat_below", static._lstat_by_path)
    async with client_for(site(tree)) as client:
        assert (await client.get("/static/folder/deep/b.css")).text == "b"
        assert (await client.get("/static/out/secret.txt")).status_code == 404


def test_mistakes_are_found_early(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="no-such"):
        StaticFiles(tmp_path / "no-such")
    with pytest.raises(NotADirectoryError):
        StaticFiles(tree / "a.txt")
    for index in ("../index.html", "sub/index.html", "..", "a\\b"):
        with pytest.raises(ValueError, match="expected a name"):
            StaticFiles(tree, index=index)
    with pytest.raises(ValueError, match="literal prefix"):
        Router().static("/{x}", tree)
    assert repr(StaticFiles(tree)) == f"StaticFiles({str(tree)!r})"
