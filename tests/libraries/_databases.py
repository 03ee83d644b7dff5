"""Servers to test against, with a corner of its own in each: nothing else there is touched.

`FLOWCORO_TEST_POSTGRES_URL`, `FLOWCORO_TEST_MYSQL_URL` and `FLOWCORO_TEST_REDIS_URL` name them;
not given, the usual ones of loopback. A server that was named must be there, and CI's too;
otherwise the tests that need it are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import urllib.parse
from collections.abc import Iterator
from typing import Any, NoReturn

import asyncpg
import pymysql
import pytest
import redis as redis_client

DEFAULTS = {
    "POSTGRES": "postgresql://postgres@127.0.0.1:5432/test",
    "MYSQL": "mysql://root@127.0.0.1:3306/test",
    "REDIS": "redis://127.0.0.1:6379/0",
}


def _url(kind: str) -> str:
    return os.environ.get(f"FLOWCORO_TEST_{kind}_URL") or DEFAULTS[kind]


def _not_there(kind: str, problem: object) -> NoReturn:
    variable = f"FLOWCORO_TEST_{kind}_URL"
    if os.environ.get(variable) or os.environ.get("CI") == "true":
        pytest.fail(f"no server for {variable}: {problem}")
    pytest.skip(f"NOT TESTED: no server (see {variable}): {problem}")


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Make a database in PostgreSQL: its URL."""
    server = _url("POSTGRES")
    name = f"flowcoro_test_{secrets.token_hex(6)}"

    async def execute(sql: str) -> None:
        connection = await asyncpg.connect(server, timeout=5)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    try:
        asyncio.run(execute(f'CREATE DATABASE "{name}"'))
    except (OSError, asyncpg.PostgresError) as error:
        _not_there("POSTGRES", error)
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        asyncio.run(execute(f'DROP DATABASE "{name}" WITH (FORCE)'))


@contextlib.contextmanager
def mysql() -> Iterator[dict[str, Any]]:
    """Make a database in MariaDB or MySQL: how to connect to it."""
    parts = urllib.parse.urlsplit(_url("MYSQL"))
    options = {
        "host": parts.hostname,
        "port": parts.port or 3306,
        "user": urllib.parse.unquote(parts.username or "root"),
        "password": urllib.parse.unquote(parts.password or ""),
    }
    name = f"flowcoro_test_{secrets.token_hex(6)}"

    def execute(sql: str) -> None:
        connection = pymysql.connect(**options, connect_timeout=5)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
        finally:
            connection.close()

    try:
        execute(f"CREATE DATABASE {name}")
    except pymysql.MySQLError as error:
        _not_there("MYSQL", error)
    try:
        yield {**options, "db": name}
    finally:
        execute(f"DROP DATABASE {name}")


def redis() -> str:
    """Find Redis: its URL."""
    url = _url("REDIS")
    with redis_client.Redis.from_url(url, socket_connect_timeout=5) as client:
        try:
            client.ping()
        except redis_client.RedisError as error:
            _not_there("REDIS", error)
    return url


@contextlib.contextmanager
def redis_prefix(url: str) -> Iterator[str]:
    """Make a prefix for keys, which are deleted afterwards."""
    prefix = f"flowcoro-test-{secrets.token_hex(6)}"
    try:
        yield prefix
    finally:
        with redis_client.Redis.from_url(url) as client:
            for key in client.scan_iter(f"{prefix}:*", count=1_000):
                client.delete(key)
