"""`Database` in an application: plugins, configuration, health, the lifecycle."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

import flowcoro_db
from flowcoro import App, Component, HealthStatus, hookimpl
from flowcoro.app import ComponentFactory
from flowcoro.config import ConfigSection, Secret
from flowcoro.errors import ConfigError, DuplicateClaimError, PluginError
from flowcoro.plugins import PluginHost
from flowcoro.testing import make_context, make_host
from flowcoro.testing.contracts import ComponentContract, ConfigSectionContract, PluginContract
from flowcoro_db import Database, DatabaseUrl, DatabaseUrlError, DbConfig, DriverSpec, hookspecs
from flowcoro_db import plugin as db_plugin


class TestPlugin(PluginContract):
    @pytest.fixture
    def plugin(self):  # type: ignore[no-untyped-def]
        return db_plugin


class TestSection(ConfigSectionContract):
    @pytest.fixture
    def section(self) -> ConfigSection:
        return db_plugin.flowcoro_config_sections()[0]


class TestDatabase(ComponentContract):
    @pytest.fixture
    def factory(self) -> ComponentFactory:
        return ComponentFactory("database", lambda: Database("sqlite://:memory:"))

    @pytest.fixture
    def plugins(self) -> list[object]:
        return [db_plugin]


def offer(name: str, *schemes: str) -> SimpleNamespace:
    """A plugin with one driver, which lends SQLite in memory other schemes."""

    def create(url: DatabaseUrl):  # type: ignore[no-untyped-def]
        return db_plugin.flowcoro_db_drivers()[0].create(DatabaseUrl.parse("sqlite://:memory:"))

    @hookimpl
    def flowcoro_db_drivers():  # type: ignore[no-untyped-def]
        return [DriverSpec(name, schemes, create)]

    return SimpleNamespace(
        __name__=f"plugin_{name}", FLOWCORO_HOOK_API=1, flowcoro_db_drivers=flowcoro_db_drivers
    )


async def test_a_strangers_driver_comes_through_the_hook() -> None:
    db = Database("scratch://x")
    db.attach(make_context(plugins=[db_plugin, offer("scratch", "scratch")]))
    async with db:
        assert await db.fetch_value("SELECT 7") == 7


async def test_the_example_of_the_hook_works() -> None:
    text = hookspecs.flowcoro_db_drivers.__doc__ or ""
    code = textwrap.dedent(text.partition("```python\n")[2].partition("```")[0])
    module = SimpleNamespace(__name__="example")
    exec(compile(code, "example", "exec"), module.__dict__)
    db = Database("scratch://x")
    db.attach(make_context(plugins=[db_plugin, module]))
    async with db:
        assert await db.fetch_value("SELECT 7") == 7


def test_an_unknown_scheme() -> None:
    context = make_context(plugins=[db_plugin])
    with pytest.raises(DatabaseUrlError) as caught:
        Database("postgre://me:s3cret@host/db").attach(context)
    text = str(caught.value)
    assert "did you mean 'postgres'?" in text
    assert "(known: postgres, postgresql, sqlite)" in text
    assert "flowcoro_db_drivers" in text
    assert "s3cret" not in text


def test_a_scheme_that_two_drivers_serve() -> None:
    context = make_context(plugins=[db_plugin, offer("other", "sqlite")])
    with pytest.raises(DatabaseUrlError, match="'sqlite' is served by"):
        Database("sqlite:///x.db").attach(context)


def test_a_name_that_two_plugins_claim() -> None:
    host = make_host(db_plugin, offer("sqlite", "mine"), strict=False)
    with pytest.raises((DatabaseUrlError, DuplicateClaimError), match="claimed by"):
        Database("sqlite:///x.db").attach(make_context(plugins=host))


def test_without_the_plugin() -> None:
    with pytest.raises(PluginError, match="flowcoro_db_drivers"):
        Database("sqlite:///x.db").attach(make_context())


async def test_alone_with_a_scheme_that_is_not_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host()
    monkeypatch.setattr(PluginHost, "load", lambda **_: host)
    with pytest.raises(DatabaseUrlError, match="no driver serves the scheme 'scratch'"):
        await Database("scratch://x").__aenter__()
    host.register(offer("scratch", "scratch"))
    async with Database("scratch://x") as db:
        assert await db.fetch_value("SELECT 7") == 7


async def test_alone_with_the_plugin_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    record = SimpleNamespace(plugin=None)
    monkeypatch.setattr(PluginHost, "load", lambda **_: SimpleNamespace(records={"db": record}))
    with pytest.raises(DatabaseUrlError, match="no driver serves"):
        await Database("scratch://x").__aenter__()


def test_configuration() -> None:
    settings = {"url": "postgresql://me:s3cret@host/db", "max_size": 3, "acquire_timeout": 1.5}
    context = make_context(plugins=[db_plugin], config={"db": settings})
    assert "s3cret" not in repr(context.config.section(DbConfig))
    db = Database(acquire_timeout=7)
    assert str(db.url) == "sqlite:///flowcoro.db"
    db.attach(context)
    assert str(db.url) == "postgresql://me:***@host/db"
    assert (db._config.max_size, db._config.acquire_timeout) == (3, 7)
    reports = Database(Secret("sqlite:///reports.db"), name="reports")
    reports.attach(context)
    assert str(reports.url) == "sqlite:///reports.db"
    assert "s3cret" not in repr(db)


def test_sizes_in_the_configuration_that_contradict_each_other() -> None:
    context = make_context(plugins=[db_plugin], config={"db": {"min_size": 5, "max_size": 2}})
    with pytest.raises(ConfigError, match=r"\[db\].*min_size=5, max_size=2"):
        Database("sqlite:///x.db").attach(context)


async def test_health() -> None:
    db = Database("sqlite://:memory:", acquire_timeout=0.01)
    assert (await db.health()).status is HealthStatus.FAIL
    async with db:
        health = await db.health()
        assert health.status is HealthStatus.PASS
        assert health.detail == "sqlite://:memory:, 1 of 1 connections, 0 in use, 0 waiting"
        async with db.connection():
            health = await db.health()
            assert health.status is HealthStatus.WARN
            assert "no answer" in health.detail


async def test_health_of_a_database_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with Database(f"sqlite:///{folder}/x.db", min_size=0) as db:
        folder.rmdir()
        health = await db.health()
        assert health.status is HealthStatus.FAIL
        assert "unable to open" in health.detail


async def test_in_an_application(sqlite_url: str) -> None:
    log: list[str] = []

    class Writer(Component):
        requires = (Database,)

        def __init__(self, db: Database) -> None:
            self.db = db

        async def drain(self) -> None:
            await self.db.execute("INSERT INTO t VALUES (1)")
            log.append("drained")

        async def health(self):  # type: ignore[no-untyped-def]
            return await self.db.health()

    db = Database(sqlite_url)
    async with App(Writer(db), db, plugins=make_host(db_plugin)) as app:
        await db.execute("CREATE TABLE t (x INTEGER)")
        assert (await app.health()).status is HealthStatus.PASS
    assert log == ["drained"]
    async with Database(sqlite_url) as again:
        assert await again.fetch_value("SELECT count(*) FROM t") == 1


async def test_drain_waits_for_the_work_in_hand() -> None:
    drained = anyio.Event()

    async def drain() -> None:
        await db.drain()
        drained.set()

    async with Database("sqlite://:memory:") as db, anyio.create_task_group() as group:
        async with db.connection() as connection:
            group.start_soon(drain)
            await anyio.lowlevel.checkpoint()
            assert not drained.is_set()
            await connection.execute("SELECT 1")
        with anyio.fail_after(10):
            await drained.wait()


def test_every_public_name_is_there() -> None:
    for name in flowcoro_db.__all__:
        if name != "__version__":
            assert getattr(flowcoro_db, name).__name__
    assert set(flowcoro_db.__all__) <= set(dir(flowcoro_db))
    with pytest.raises(AttributeError, match="nothing"):
        flowcoro_db.nothing  # noqa: B018


def test_importing_the_plugin_imports_no_database_library() -> None:
    code = (
        "import sys, flowcoro_db, flowcoro_db.plugin as p, flowcoro_db.hookspecs\n"
        "p.flowcoro_add_hookspecs(); p.flowcoro_db_drivers()\n"
        "print([m for m in ('asyncpg', 'aiosqlite', 'msgspec', 'anyio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
