"""What the documentation shows must run: every Python block of README and docs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "```python" in page.read_text(encoding="utf-8")
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="module")
def greeter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of the author's guide, made as the guide says."""
    folder = tmp_path_factory.mktemp("author")
    subprocess.run(
        [sys.executable, "-m", "flowcoro", "plugin", "new", "flowcoro-greeter"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "flowcoro-greeter" / "src"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, greeter: Path, tmp_path: Path) -> None:
    """The blocks of a page run one after the other, as a reader would type them."""
    script = tmp_path / "page.py"
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    script.write_text("\n\n".join(blocks), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(greeter), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / ".mkdocs.yml").read_text(encoding="utf-8")
    pages = [
        path.relative_to(ROOT / "docs")
        for path in (ROOT / "docs").rglob("*.md")
        if "examples" not in path.parts
    ]
    assert not [str(page) for page in pages if str(page) not in navigation]
