"""The example application: over HTTP, over WebSocket, across restarts, in a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from _service import Service

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def demo(folder: Path) -> Service:
    return Service("demo", "--port", "0", cwd=folder)


def test_notes_survive_a_restart(tmp_path: Path) -> None:
    with demo(tmp_path) as service:
        url = service.url()
        assert "FlowCoro live demo" in httpx.get(f"{url}/").text
        made = httpx.post(f"{url}/api/notes", json={"text": "remember"})
        assert made.status_code == 201
        assert made.json()["text"] == "remember"
        service.terminate()
        assert service.wait() == 0, service.log
    assert [path.suffix for path in tmp_path.iterdir()] == [".db"]
    with demo(tmp_path) as service:
        url = service.url()
        notes = httpx.get(f"{url}/api/notes").json()
        assert [note["text"] for note in notes] == ["remember"]
        gone = httpx.delete(f"{url}/api/notes/{notes[0]['id']}")
        assert gone.status_code == 204
        assert httpx.get(f"{url}/api/notes").json() == []


def test_a_named_directory_keeps_the_data(tmp_path: Path) -> None:
    with Service("demo", "data", "--port", "0", cwd=tmp_path) as service:
        httpx.post(f"{service.url()}/api/notes", json={"text": "x"}).raise_for_status()
    assert (tmp_path / "data" / "flowcoro-demo.db").is_file()


@pytest.mark.parametrize(
    ("content", "status", "named"),
    [
        (b"{", 400, "JSON"),
        (b"[]", 422, "object"),
        (b"{}", 422, "text"),
        (b'{"text": 1}', 422, "text"),
        (b'{"text": ""}', 422, "text"),
        (b'{"text": "x", "more": 1}', 422, "more"),
        (b'{"text": "' + b"x" * 2001 + b'"}', 422, "text"),
        (b"\xff\xfe", 400, ""),
    ],
)
def test_bad_notes_are_problems(live: str, content: bytes, status: int, named: str) -> None:
    answer = httpx.post(
        f"{live}/api/notes", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert named in answer.text
    assert "Traceback" not in answer.text


def test_unknown_paths_and_methods_are_problems(live: str) -> None:
    missing = httpx.get(f"{live}/api/nothing")
    assert missing.status_code == 404
    wrong = httpx.put(f"{live}/api/notes")
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["allow"]
    for answer in (missing, wrong, httpx.get(f"{live}/api/notes?limit=x")):
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("number", ["0", "9" * 27, "-1"])
def test_a_number_that_no_note_can_have(live: str, number: str) -> None:
    answer = httpx.delete(f"{live}/api/notes/{number}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_status_shows_plugins_and_health(live: str) -> None:
    status = httpx.get(f"{live}/api/status").json()
    assert status["health"] == "pass"
    assert {"core", "db", "http", "observability"} <= {p["name"] for p in status["plugins"]}
    assert {"database", "notes", "chat", "http"} <= {c["name"] for c in status["checks"]}
    assert httpx.get(f"{live}/readyz").status_code == 200
    assert "http_server_request_duration" in httpx.get(f"{live}/metrics").text


def test_everyone_hears_what_is_said(live: str) -> None:
    url = live.replace("http", "ws") + "/ws/chat"
    with connect(url) as ada, connect(url) as bob:
        line = {"name": "Ada", "text": "Hello"}
        # Bob listens once his own line comes back.
        bob.send(json.dumps({"name": "Bob", "text": "here"}))
        assert json.loads(bob.recv(timeout=30))["text"] == "here"
        ada.send(json.dumps(line))
        assert json.loads(bob.recv(timeout=30)) == line


def test_a_wrong_line_ends_only_its_sender(live: str) -> None:
    url = live.replace("http", "ws") + "/ws/chat"
    with connect(url) as good:
        with connect(url) as bad:
            bad.send("{")
            with pytest.raises(Exception, match=r"100[78]|invalid|received"):
                bad.recv(timeout=30)
        good.send(json.dumps({"name": "Ada", "text": "still here"}))
        assert json.loads(good.recv(timeout=30))["text"] == "still here"


def test_the_pages_work_in_a_browser(live: str, tmp_path: Path) -> None:
    if BROWSER is None:
        assert os.environ.get("CI") != "true", "CI has no Chromium"
        pytest.skip("NOT TESTED: there is no Chromium on this machine")
    httpx.post(f"{live}/api/notes", json={"text": "seen in a browser"}).raise_for_status()
    for path, expected in (
        ("/", "seen in a browser"),
        ("/status", "flowcoro-observability"),
        ("/docs#notes-post-_api_notes", "length ≤ 2000"),  # what JavaScript made of the document
    ):
        dom = subprocess.run(
            [
                BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000",
                "--dump-dom", f"{live}{path}",
            ],
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        ).stdout  # fmt: skip
        assert expected in dom


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory):
    with demo(tmp_path_factory.mktemp("live")) as service:
        yield service.url()
