"""How a process ends that some task ends, and what `App.run()` refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from test_cli_run import folder, run, started, write

__all__ = ["folder"]

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and workers need POSIX"),
]

ENDS = """
class Busy(Says):
    async def drain(self):
        loop = asyncio.get_running_loop()
        loop.call_soon(end)  # once more, which changes nothing
        for _ in range(3):
            await asyncio.sleep(0)
        say("drained")

def end():
    raise {error}

class Ends(Component):
    async def __aenter__(self):
        asyncio.get_running_loop().call_later(0.01, end)
        return self

app = App(Busy(), Ends())
"""


@pytest.mark.parametrize("loop", ["flowcoro", "asyncio"])
@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ("SystemExit(7)", 7, "a task raised SystemExit: 7"),
        ("SystemExit", 0, "a task raised SystemExit"),
        ("KeyboardInterrupt", 130, "a task raised KeyboardInterrupt"),
    ],
)
def test_what_a_task_ends_stops_in_order(
    folder: Path, loop: str, error: str, status: int, words: str
) -> None:
    write(folder, ENDS.format(error=error))
    with run("shop:app", "--loop", loop) as process:
        for word in ("up", "drained", "down"):
            process.hear(word)
        assert process.end() == status
    assert f"app: stopping ({words} in end ({folder / 'shop.py'}:" in process.error
    assert "failed" not in process.error
    assert "cutting" not in process.error


@pytest.mark.parametrize("name", ["workers", "threads"])
def test_app_run_is_one_event_loop(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "App(Says()).run()")
    monkeypatch.setenv(f"FLOWCORO_SERVER_{name.upper()}", "2")
    with started("shop.py") as process:
        assert process.refusal() == (
            f"flowcoro: error: server.{name} = 2: App.run() runs one event loop; "
            "`flowcoro run module:attribute` runs more"
        )


def test_app_run_goes_by_the_configuration_it_was_given(folder: Path) -> None:
    write(
        folder,
        """
        from flowcoro.testing import make_context
        config = make_context(config={"server": {"threads": 3}}).config
        App(Says(), config=config).run()
        """,
    )
    with started("shop.py") as process:
        assert "server.threads = 3" in process.refusal()
