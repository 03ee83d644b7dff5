"""The gallery of the guide to HTTP: forms, files, events and middleware in one service."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from _service import Service

FOLDER = Path(__file__).parents[1] / "docs/examples/http"
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    kept = tmp_path_factory.mktemp("gallery") / "pictures"
    with Service("run", "gallery:app", "--port", "0", cwd=FOLDER, GALLERY=str(kept)) as service:
        with httpx.Client(base_url=service.url(), timeout=30) as client:
            yield client
        service.terminate()
        assert service.wait() == 0, service.log


def test_pictures_come_and_are_told_of(gallery: httpx.Client) -> None:
    page = gallery.get("/")
    assert "<title>Gallery</title>" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert gallery.get("/pages/gallery.js").headers["content-type"].startswith("text/javascript")

    with gallery.stream("GET", "/events") as events:
        lines = events.iter_lines()
        made = gallery.post("/pictures", files={"photo": ("../a.png", DOT, "image/png")})
        assert made.status_code == 201, made.text
        assert [next(lines), next(lines), next(lines)] == [
            "id: 1",
            f'data: {{"name":"{made.json()["name"]}","title":""}}',
            "",
        ]
    with gallery.stream("GET", "/events", headers={"last-event-id": "0"}) as events:
        assert next(events.iter_lines()) == "id: 1"

    picture = gallery.get(f"/pictures/{made.json()['name']}")
    assert (picture.content, picture.headers["content-type"]) == (DOT, "image/png")
    tag = {"if-none-match": picture.headers["etag"]}
    assert gallery.get(f"/pictures/{made.json()['name']}", headers=tag).status_code == 304
    assert gallery.get("/pictures.json").json() == [made.json()]


def test_what_is_not_taken(gallery: httpx.Client) -> None:
    for files, data, status in [
        ({"photo": ("a.html", b"<script>", "text/html")}, {}, 415),
        ({"photo": ("a.png", bytes(10_000_001), "image/png")}, {}, 413),
        ({"photo": ("a.png", bytes(20_000_001), "image/png")}, {}, 413),
        ({"other": ("a.png", DOT, "image/png")}, {}, 422),
        ({"photo": ("a.png", DOT, "image/png")}, {"title": "x" * 101}, 422),
    ]:
        assert gallery.post("/pictures", files=files, data=data).status_code == status
    assert gallery.get("/pictures/..%2f..%2fetc/passwd").status_code in {400, 404}


def test_a_session_has_an_end(gallery: httpx.Client) -> None:
    with httpx.Client(base_url=gallery.base_url) as visitor:
        statuses = [
            visitor.post("/pictures", files={"photo": ("a", DOT, "image/png")}).status_code
            for _ in range(11)
        ]
    assert statuses == [201] * 10 + [403]
