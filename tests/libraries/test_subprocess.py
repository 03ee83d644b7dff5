"""asyncio's subprocesses on the native loop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Coroutine
from typing import Any

import pytest

from libraries._support import MEGABYTE


def python(program: str, **options: Any) -> Coroutine[Any, Any, asyncio.subprocess.Process]:
    return asyncio.create_subprocess_exec(sys.executable, "-c", program, **options)


async def test_pipes_both_ways() -> None:
    body = os.urandom(4 * MEGABYTE)
    process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    out, _ = await process.communicate(body)
    assert out == body
    assert process.returncode == 0


async def test_a_conversation_line_by_line() -> None:
    program = "import sys\nfor line in sys.stdin: print(line.strip().upper(), flush=True)"
    process = await python(program, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for word in (b"one", b"two", b"three"):
        process.stdin.write(word + b"\n")
        assert await process.stdout.readline() == word.upper() + b"\n"
    process.stdin.close()
    assert await process.stdout.read() == b""
    assert await process.wait() == 0


async def test_errors_and_codes() -> None:
    process = await python("import sys; print('x'); sys.exit(7)", stdout=PIPE, stderr=STDOUT)
    out, _ = await process.communicate()
    assert out == b"x\n"
    assert process.returncode == 7
    with pytest.raises(FileNotFoundError):
        await asyncio.create_subprocess_exec("/nowhere/to/be/found")
    shell = await asyncio.create_subprocess_shell(
        "echo out; echo err >&2", stdout=PIPE, stderr=PIPE
    )
    assert await shell.communicate() == (b"out\n", b"err\n")


async def test_it_is_told_to_end() -> None:
    process = await python("print('up', flush=True); input()", stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await process.wait()
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == -signal.SIGTERM


async def test_many_at_once() -> None:
    async def ask(number: int) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "echo", str(number), stdin=DEVNULL, stdout=PIPE
        )
        out, _ = await process.communicate()
        return out

    answers = await asyncio.gather(*map(ask, range(20)))
    assert answers == [f"{number}\n".encode() for number in range(20)]
