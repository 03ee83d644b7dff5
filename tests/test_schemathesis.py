"""The examples against what their own OpenAPI documents promise, with made-up requests.

Schemathesis reads the document and makes requests that fit it and requests that do not, at every
limit and at random. No answer may be a server's failure, have a status, a type or a content that
the document does not tell of, take what does not fit, or refuse what does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from _service import Service

pytestmark = pytest.mark.timeout(300)

TESTS = Path(__file__).parent
GALLERY = TESTS.parent / "docs/examples/http"


def check(service: Service, document: str, folder: Path, *options: str) -> None:
    """Let it make requests, the same ones each time."""
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{service.url()}{document}",
            "--checks", "all", "--max-examples", "40", "--seed", "1", "--continue-on-failure",
            "--request-timeout", "30", "--workers", "1", "--warnings", "off", *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=290,
        env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}\n{service.log}"
    assert "No issues found" in ran.stdout
    assert "Traceback" not in service.log


def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    with Service("demo", "--port", "0", cwd=tmp_path) as service:
        check(service, "/openapi.json", tmp_path)


# Of a form every field is a text: there is no number where a text is asked for.
FORMS = ("--exclude-checks", "negative_data_rejection")


def test_the_gallery_keeps_its_promises(tmp_path: Path) -> None:
    kept = str(tmp_path / "pictures")
    with Service("run", "gallery:app", "--port", "0", cwd=GALLERY, GALLERY=kept) as service:
        check(service, "/openapi.json", tmp_path, "--exclude-path", "/events", *FORMS)


@pytest.mark.parametrize(
    "options", [("--exclude-tag", "forms"), ("--include-tag", "forms", *FORMS)]
)
def test_every_kind_of_parameter(tmp_path: Path, options: tuple[str, ...]) -> None:
    with Service("run", "_everything:app", "--port", "0", cwd=TESTS) as service:
        check(service, "/v1/openapi.json", tmp_path, *options)
