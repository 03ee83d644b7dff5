"""flowcoro.net's connections send files: all of it, in its order, or an error."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import anyio
import anyio.abc
import pytest

from net_cases import (
    Run,
    clogged,
    every_loop,
    every_pair,
    pair,
    run_on,
    turns,
    waiting,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")

MUCH = 1 << 24  # bytes: more than the kernel's buffers take


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "big"
    path.write_bytes(random.Random(3).randbytes(3_000_001))
    return path


@every_loop
@every_pair
def test_send_file(run: Run, tls: bool, big: Path) -> None:
    async def main() -> None:
        data = big.read_bytes()
        async with pair(tls) as (client, served):
            with big.open("rb") as file:
                file.seek(7)
                await client.write(b"<")
                sending = asyncio.ensure_future(client.send_file(file))
                assert await served.read_exactly(len(data) + 1) == b"<" + data
                assert await sending == len(data)
                assert await client.send_file(file, 10, 5) == 5
                assert await client.send_file(file, len(data) - 2) == 2
                assert await client.send_file(file, len(data) - 2, 100) == 2
                assert await client.send_file(file, len(data) + 5) == 0
                assert await client.send_file(file, 0, 0) == 0
                await client.write(b">")
                assert file.tell() == 7
            assert await served.read_exactly(10) == data[10:15] + data[-2:] * 2 + b">"
            assert client.bytes_sent == len(data) + 11

    run(main())


@every_loop
@every_pair
def test_a_file_after_what_is_unsent(run: Run, tls: bool, big: Path) -> None:
    """And whoever writes meanwhile is told, so that nothing comes in between."""

    async def main() -> None:
        async with pair(tls) as (client, served):
            served._set_limit(1024)
            writing, size = await clogged(client)
            with (big.parent / "bigger").open("w+b") as file:
                file.truncate(2 * MUCH)
                sending = await waiting(client.send_file(file))
                other = asyncio.ensure_future(client.send_file(file))
                assert await served.read_exactly(size) == bytes(size)
                with pytest.raises(anyio.BusyResourceError):
                    await other
                assert not sending.done()
                for write in (
                    lambda: client.write(b"between"),
                    lambda: client.write_many([b"between"]),
                    client.send_eof,
                ):
                    if not (tls and write == client.send_eof):
                        with pytest.raises(anyio.BusyResourceError):
                            await write()
                await asyncio.wait(writing)
                assert await served.read_exactly(2 * MUCH) == bytes(2 * MUCH)
                await sending
            await client.write(b"after")
            assert await served.read() == b"after"

    run(main())


@every_loop
@every_pair
@pytest.mark.parametrize("end", ["close", "abort", "reset"])
def test_a_file_to_one_that_ends(run: Run, tls: bool, big: Path, end: str) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            served._set_limit(1024)
            with big.open("r+b") as file:
                file.truncate(MUCH * 4)
                sending = await waiting(client.send_file(file))
                await turns(50)
                assert not sending.done()
                if end == "reset":
                    served.abort(reset=True)
                    with pytest.raises(anyio.BrokenResourceError):
                        await sending
                else:
                    closing = asyncio.ensure_future(client.close()) if end == "close" else None
                    client.abort() if end == "abort" else await turns()
                    with pytest.raises(anyio.ClosedResourceError):
                        await sending
                    client.abort()
                    if closing is not None:
                        await closing
                file.truncate(3_000_001)

    run(main())


@every_loop
@every_pair
def test_files_that_are_none(run: Run, tls: bool, big: Path) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            with big.open("rb") as file:
                for wrong in ({"offset": -1}, {"count": -1}):
                    with pytest.raises(ValueError, match="must not be negative"):
                        await client.send_file(file, **wrong)
            with pytest.raises(ValueError, match="closed file"):
                await client.send_file(file)
            await client.write(b"it still writes")
            assert await served.read() == b"it still writes"
            await client.close()
            with big.open("rb") as file, pytest.raises(anyio.ClosedResourceError):
                await client.send_file(file)

    run(main())
