"""The built-in drivers keep the contract that ships with the hook."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowcoro_db import DriverSpec, plugin
from flowcoro_db.testing import DriverContract

BUILT_IN = {spec.name: spec for spec in plugin.flowcoro_db_drivers()}

COUNT_FOR_EVER = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
)


class TestSqlite(DriverContract):
    slow_sql = COUNT_FOR_EVER
    unreachable_url = "sqlite:////flowcoro/no/such/directory/x.db"

    @pytest.fixture
    def spec(self) -> DriverSpec:
        return BUILT_IN["sqlite"]

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/contract.db"


class TestSqliteInMemory(TestSqlite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return "sqlite://:memory:"


class TestPostgresql(DriverContract):
    slow_sql = "SELECT pg_sleep(60)"
    unreachable_url = "postgresql://somebody:s3cret@127.0.0.1:1/nothing"

    @pytest.fixture
    def spec(self) -> DriverSpec:
        return BUILT_IN["postgresql"]

    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url
