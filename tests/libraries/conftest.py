"""Every test here runs on the native loop, over each backend, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from flowcoro import Loop, loops, reactor
from libraries import _databases as databases
from libraries._support import Certificates, LoopFactory

DEADLINE = 30.0
"""Seconds until a test that hangs is told so; none takes more than a few."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Wrap each asynchronous test in what all of them are held to."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = _watched(item.obj, str(item.callspec.params["backend"]))


def _watched(test: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Run a test within the deadline, see that the loop is ours and no task is left in it."""

    @functools.wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> None:
        loop = asyncio.get_running_loop()
        assert type(loop) is Loop
        assert loop.reactor == backend
        before = asyncio.all_tasks()  # fixtures' among them
        async with asyncio.timeout(DEADLINE):
            await test(*args, **kwargs)
        tasks = asyncio.all_tasks() - before
        if tasks:  # what was told to end gets the time to
            await asyncio.wait(tasks, timeout=5)
        assert [task for task in tasks if not task.done()] == []

    return watched


@pytest.fixture(params=reactor.available())
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn."""
    if problem := loops.why_no_native_loop():
        pytest.skip(problem)
    name: str = request.param
    return name


@pytest.fixture
def loop_factory(backend: str) -> LoopFactory:
    """Makes a native loop over the backend."""
    return functools.partial(loops.new_event_loop, backend)


@pytest.fixture
def anyio_backend(loop_factory: LoopFactory) -> tuple[str, dict[str, Any]]:
    """Have anyio's plugin run the asynchronous tests on it."""
    return "asyncio", {"loop_factory": loop_factory}


@pytest.fixture(autouse=True)
def nothing_stays_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the open descriptors, once the loop is closed; `keeps_descriptors` allows them.

    Collecting makes a ResourceWarning of this test's an error in this test.
    """
    before = _descriptors()
    yield
    gc.collect()
    if request.node.get_closest_marker("keeps_descriptors") is None:
        left = _descriptors()
        assert {fd: left[fd] for fd in left.keys() - before.keys()} == {}


@pytest.fixture(autouse=True)
def nothing_is_logged_by_asyncio(nothing_stays_open: None) -> Iterator[None]:
    """Take asyncio's errors, which nobody is there to raise to, for failures."""
    told: list[str] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(self.format(record))

    handler = Notes(logging.ERROR)
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert told == []


def _descriptors() -> dict[int, str]:
    where = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    found = {}
    for name in os.listdir(where):
        try:
            found[int(name)] = os.readlink(f"{where}/{name}") if sys.platform == "linux" else ""
        except OSError:
            continue  # the one that lists them
    return found


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket at a free port of loopback, which takes connections at once."""
    # asyncio turns Nagle's algorithm off only where the protocol is told to be TCP.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as found:
        found.bind(("127.0.0.1", 0))
        found.listen(128)
        yield found


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A server's certificate for loopback, and who trusts it."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    found = Certificates(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    found.authority.write_bytes(authority.cert_pem.bytes())
    found.key.write_bytes(issued.private_key_pem.bytes())
    found.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return found


@pytest.fixture
def server_tls(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return context


@pytest.fixture
def client_tls(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.authority)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """An empty database of a random name, dropped afterwards."""
    with databases.postgres() as found:
        yield found


@pytest.fixture(scope="session")
def mysql_options() -> Iterator[dict[str, Any]]:
    """How to connect to an empty database of a random name, dropped afterwards."""
    with databases.mysql() as found:
        yield found


@pytest.fixture(scope="session")
def redis_url() -> str:
    return databases.redis()


@pytest.fixture
def prefix(redis_url: str) -> Iterator[str]:
    """What this test's keys begin with; they are deleted afterwards."""
    with databases.redis_prefix(redis_url) as found:
        yield found
