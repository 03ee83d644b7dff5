"""Holds `src/flowcoro/_native.pyi` to what the installed extension says of itself.

    python core/bindings/check_stubs.py            # exits 1, with a diff, when they differ
    python core/bindings/check_stubs.py --update   # rewrites the stub

The extension that is installed in this environment counts, so install it first.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

BINDINGS = Path(__file__).resolve().parent
STUB = BINDINGS.parent / "src" / "flowcoro" / "_native.pyi"
HEADER = "# Written by core/bindings/check_stubs.py --update: change the bindings instead.\n"


def generate() -> str:
    """Returns the stub's text as the extension and the formatter want it."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / STUB.name
        # With private members: the Python face of this module is made of them.
        arguments = ["--quiet", "--include-private", "--module", "flowcoro._native"]
        arguments += ["--pattern-file", str(BINDINGS / "stub_patterns.txt")]
        subprocess.run(  # noqa: S603 - our own arguments
            [sys.executable, "-m", "nanobind.stubgen", *arguments, "-o", str(target)],
            check=True,
            cwd=folder,
        )
        text = HEADER + target.read_text(encoding="utf-8")
    # The generator starts docstrings on their second line; our style wants the first.
    text = ruff("check", "--fix-only", "--unsafe-fixes", "--select", "D200,D212", text=text)
    return ruff("format", text=text)


def ruff(*arguments: str, text: str) -> str:
    """Returns `text` as one command of ruff leaves it."""
    command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename", str(STUB)]
    return subprocess.run(  # noqa: S603 - our own arguments
        [*command, "-"], input=text, check=True, stdout=subprocess.PIPE, encoding="utf-8"
    ).stdout


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="rewrite the stub")
    update: bool = parser.parse_args().update

    fresh = generate()
    committed = STUB.read_text(encoding="utf-8") if STUB.exists() else ""
    if update:
        STUB.write_text(fresh, encoding="utf-8", newline="\n")
        return 0
    if fresh == committed:
        return 0
    sys.stdout.writelines(
        difflib.unified_diff(
            committed.splitlines(keepends=True),
            fresh.splitlines(keepends=True),
            fromfile="committed",
            tofile="generated",
        )
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
