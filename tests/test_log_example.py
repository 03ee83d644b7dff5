"""The example of the guide to logging runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "docs/examples/log/jobs.py"


def test_jobs_log_with_their_trace_ids(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split(" ", 1) for line in ran.stdout.splitlines()]
    by_message = {message.strip(): trace for trace, message in lines if "thread" not in message}
    assert len(set(by_message.values())) == 3
    assert by_message["INFO job 2 begins"] == by_message["INFO job 2 done 0.5"]
    assert by_message["INFO job 0 begins"] == by_message["ERROR job 0 failed"]
    assert sum("in a thread" in message for _, message in lines) == 3
