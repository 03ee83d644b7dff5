"""Servers, limits of forms and static files that are made of what makes no sense: told at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from flowcoro_http import FormLimits, HttpConfig, HttpServer, Router, StaticFiles


@pytest.mark.parametrize(
    ("options", "expected", "why"),
    [
        ({"host": 3}, TypeError, "HttpServer: host: expected text, not int"),
        ({"host": b"localhost"}, TypeError, "HttpServer: host: expected text, not bytes"),
        ({"port": True}, ValueError, "HttpServer: expected a port"),
        ({"name": None}, TypeError, "HttpServer: name: expected text"),
        ({"backend": 3}, TypeError, "HttpServer: backend: expected a name or a ServerBackend"),
        ({"config": {"backend": "native"}}, TypeError, "HttpServer: config: expected an HttpConf"),
        ({"config": HttpConfig(max_body_bytes=-1)}, ValueError, r">= 0 - at `\$\.max_body_bytes`"),
        ({"config": HttpConfig(body_timeout=math.nan)}, ValueError, r"at `\$\.body_timeout`"),
        ({"config": HttpConfig(max_headers=999)}, ValueError, r"<= 256 - at `\$\.max_headers`"),
        ({"config": HttpConfig(certfile=3)}, ValueError, "Expected `str`, got `int`"),  # type: ignore[arg-type]
    ],
)
def test_servers(options: dict[str, Any], expected: type[Exception], why: str) -> None:
    with pytest.raises(expected, match=why):
        HttpServer(Router(), **options)


@pytest.mark.parametrize("field", ["max_fields", "max_files", "max_field_bytes", "memory"])
def test_limits_of_forms(field: str) -> None:
    FormLimits(**{field: 0})
    with pytest.raises(ValueError, match=f"FormLimits: {field}: expected 0 or more, not -1"):
        FormLimits(**{field: -1})
    for value in ("3", math.nan, None, True):
        with pytest.raises(TypeError, match=f"FormLimits: {field}: expected an integer"):
            FormLimits(**{field: value})


def test_static_files(tmp_path: Path) -> None:
    for folder in (3, None, b"/"):
        with pytest.raises(TypeError, match="StaticFiles: directory: expected a path"):
            StaticFiles(folder)  # type: ignore[arg-type]
    for field, value in (("index", None), ("hidden", "no"), ("cache_control", 60)):
        with pytest.raises(TypeError, match=f"StaticFiles: {field}: expected"):
            StaticFiles(tmp_path, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="control character"):
        StaticFiles(tmp_path, cache_control="no-store\r\n")
