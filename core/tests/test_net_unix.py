"""flowcoro.net's servers at Unix sockets: whose path it is, and who may use it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowcoro.net import Connection, UnixClient, UnixServer
from net_cases import (
    ANYIO_LOOPS,
    descriptors,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")


@pytest.fixture(params=ANYIO_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def echo(connection: Connection) -> None:
    async for data in connection:
        await connection.write(data)


async def test_a_path(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = UnixServer()
    await server.bind_and_listen(path, mode=0o600)
    assert server.addresses == [str(path)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    serving = asyncio.create_task(server.serve(echo))
    async with await UnixClient.connect(path) as client:
        await client.write(b"hello")
        assert await client.read() == b"hello"
    await server.stop()
    await serving
    assert not path.exists()


async def test_a_path_that_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
        old.listen()
    async with UnixServer() as server:
        await server.bind_and_listen(path)
        async with await UnixClient.connect(path), await server.accept():
            pass


async def test_a_path_where_somebody_listens(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with UnixServer() as server:
        await server.bind_and_listen(path)
        with pytest.raises(OSError, match=r"in use: .*socket") as caught:
            await UnixServer().bind_and_listen(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.filename == str(path)
        client = await UnixClient.connect(path)  # the first one still does
        await client.close()


async def test_a_path_that_was_taken_over_is_left(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = UnixServer()
    await server.bind_and_listen(path)
    path.unlink()
    async with UnixServer() as other:
        await other.bind_and_listen(path)
        await server.stop()
        async with await UnixClient.connect(path), await other.accept():
            pass
        assert path.exists()
    assert not path.exists()


async def test_a_path_that_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = UnixServer()
    await server.bind_and_listen(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="socket"):
        await UnixClient.connect(path)
    await server.stop()


async def test_paths_that_cannot_be_had(tmp_path: Path) -> None:
    before = descriptors()
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OSError, match=r"in use: .*file"):
        await UnixServer().bind_and_listen(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "a file"
    with pytest.raises(FileNotFoundError, match="missing"):
        await UnixServer().bind_and_listen(tmp_path / "missing" / "socket")
    with pytest.raises(OSError, match="too long") as caught:
        await UnixServer().bind_and_listen(tmp_path / ("x" * 200))
    assert caught.value.errno == errno.ENAMETOOLONG
    assert descriptors() == before


@contextmanager
def anybody() -> Iterator[None]:
    """As root, who may do all, be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_path_that_is_forbidden() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with UnixServer() as server:
            await server.bind_and_listen(folder / "socket", mode=0)
            folder.chmod(0o555)
            with anybody(), pytest.raises(PermissionError, match="socket"):
                await UnixClient.connect(folder / "socket")
            with anybody(), pytest.raises(PermissionError, match="other"):
                await UnixServer().bind_and_listen(folder / "other")
            folder.chmod(0o700)
