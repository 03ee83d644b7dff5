"""Databases to test against: SQLite files, and a PostgreSQL server that is real."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import glob
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from flowcoro_db import Database

DEFAULT_SERVER = "postgresql://postgres@127.0.0.1:5432/test"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server's URL: the one that is named, the usual one, or one started for the tests."""
    named = os.environ.get("FLOWCORO_TEST_POSTGRES_URL")
    url = named or DEFAULT_SERVER
    problem = asyncio.run(_why_not(url))
    if problem is None:
        yield url
        return
    if named or os.environ.get("CI") == "true":
        pytest.fail(f"no PostgreSQL server at {url}: {problem}")
    with contextlib.ExitStack() as stack:
        started = stack.enter_context(_private_server())
        if started is None:
            pytest.skip(f"NOT TESTED: no PostgreSQL server, and none could be started ({problem})")
        yield started


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database of a random name, dropped afterwards."""
    name = f"flowcoro_test_{secrets.token_hex(6)}"
    asyncio.run(_execute(postgres_server, f'CREATE DATABASE "{name}"'))
    yield f"{postgres_server.rpartition('/')[0]}/{name}"
    asyncio.run(_execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Each database in turn."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    found: str = request.getfixturevalue(fixture)
    return found


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    """An open database with an empty table `users (id, name)`."""
    async with Database(url, max_size=5) as db:
        await db.execute("DROP TABLE IF EXISTS users")
        await db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        yield db


async def _why_not(url: str) -> str | None:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError) as error:
        return f"{type(error).__name__}: {error}"
    await connection.close()
    return None


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@contextlib.contextmanager
def _private_server() -> Iterator[str | None]:
    """Start a server from installed binaries, as a user that initdb accepts."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"))
    control = found[-1] if found else shutil.which("pg_ctl")
    if control is None:
        yield None
        return
    initdb = str(Path(control).with_name("initdb"))
    prefix = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []
    home = Path(tempfile.mkdtemp(prefix="flowcoro-pg-"))
    data = home / "data"
    try:
        if prefix:
            shutil.chown(home, "postgres")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {home}"

        def run(*command: object) -> None:
            line = [*prefix, *map(str, command)]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL, cwd=home)

        run(initdb, "-D", data, "-U", "postgres", "-A", "trust")
        run(control, "-D", data, "-w", "-l", home / "log", "-o", options, "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            run(control, "-D", data, "-w", "-m", "fast", "stop")
    except (OSError, subprocess.CalledProcessError, LookupError):
        yield None
    finally:
        shutil.rmtree(home, ignore_errors=True)
