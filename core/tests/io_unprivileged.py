"""Run as a program: file operations of a user who may not, and what each raises, as JSON.

Arguments: the loop, and a folder of root's. It becomes another user first, for root may everything.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable

from flowcoro.io import Directory, File, write_atomic
from io_cases import run_on

__all__ = ["CALLS", "NOBODY"]

NOBODY = 65534


async def _open(path: str, mode: str) -> None:
    await File.open(path, mode)  # type: ignore[call-overload]


async def _walk(path: str) -> None:
    async for _ in Directory(path).walk():
        pass


HERE = Directory()

# By what is done: the path that the error must have, and the call.
CALLS: dict[str, tuple[str, Callable[[], Awaitable[object]]]] = {
    "read a file of somebody else's": ("secret", lambda: _open("secret", "rb")),
    "read it as text": ("secret", lambda: _open("secret", "r")),
    "write it": ("readable", lambda: _open("readable", "wb")),
    "append to it": ("readable", lambda: _open("readable", "ab")),
    "make a file": ("locked/new", lambda: _open("locked/new", "xb")),
    "go through a directory": ("closed/file", lambda: _open("closed/file", "rb")),
    "write_atomic": ("locked/file", lambda: write_atomic("locked/file", b"new")),
    "write_atomic a new one": ("locked/new", lambda: write_atomic("locked/new", b"new")),
    "list_files": ("closed", lambda: Directory("closed").list_files()),
    "walk": ("./closed", lambda: _walk(".")),
    "stat": ("./closed/file", lambda: HERE.stat("closed/file")),
    "exists": ("./closed/file", lambda: HERE.exists("closed/file")),
    "create_directory": ("./locked/new", lambda: HERE.create_directory("locked/new")),
    "remove": ("./locked/file", lambda: HERE.remove("locked/file")),
    "remove a tree": ("./locked/file", lambda: HERE.remove("locked", recursive=True)),
    "rename": ("./locked/file", lambda: HERE.rename("locked/file", "locked/new")),
    "copy from": ("./secret", lambda: HERE.copy("secret", "open/copy")),
    "copy to": ("./locked/new", lambda: HERE.copy("readable", "locked/new")),
    "copy a tree": ("./closed", lambda: HERE.copy("closed", "open/copy", recursive=True)),
}


async def _raised(call: Callable[[], Awaitable[object]]) -> tuple[str, str | None]:
    try:
        await call()
    except OSError as error:
        return type(error).__name__, error.filename
    return "nothing", None


def _become_nobody() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


async def _main() -> dict[str, tuple[str, str | None]]:
    # What is imported late comes before: nobody may not read root's Python.
    async with File.open("readable") as file:
        await file.read()
    await HERE.list_files()
    await HERE.stat("readable")
    _become_nobody()
    return {what: await _raised(call) for what, (_, call) in CALLS.items()}


if __name__ == "__main__":
    os.chdir(sys.argv[2])  # the way there may be closed to nobody, too
    print(json.dumps(run_on(sys.argv[1], _main())))
