"""What middleware is made with wrongly: said when it is made, with field and expectation."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from flowcoro_http import Middleware
from flowcoro_http.middleware import (
    BodyLimit,
    Compression,
    Cors,
    Deadline,
    Overload,
    RateLimit,
    RequestId,
    SecurityHeaders,
    Sessions,
    TrustedProxies,
)

KEY = "k" * 32
NAN = math.nan
INF = math.inf


def named(middleware: type[Middleware], *arguments: Any) -> Callable[..., Middleware]:
    return partial(middleware, *arguments)


@pytest.mark.parametrize(
    ("make", "field", "values", "expected"),
    [
        (BodyLimit, "max_bytes", (-1,), ValueError),
        (BodyLimit, "max_bytes", ("3", 1.5, None, True), TypeError),
        (named(BodyLimit, 1), "applies", (3, "no"), TypeError),
        (Deadline, "seconds", (0, -1, NAN, INF, 10**400), ValueError),
        (Deadline, "seconds", ("3", None, True), TypeError),
        (named(Deadline, 1), "header", (3, None), TypeError),
        (RequestId, "header", (3, None), TypeError),
        (RequestId, "trust", ("no", 1), TypeError),
        (RateLimit, "limit", (0, -1), ValueError),
        (RateLimit, "limit", ("3", 1.5, NAN, None), TypeError),
        (named(RateLimit, 1), "per", (0, -1, NAN, INF), ValueError),
        (named(RateLimit, 1), "per", ("3", None), TypeError),
        (named(RateLimit, 1), "burst", (-1,), ValueError),
        (named(RateLimit, 1), "burst", ("3", 1.5), TypeError),
        (named(RateLimit, 1), "key", (None, "address"), TypeError),
        (named(RateLimit, 1), "max_keys", (0,), ValueError),
        (named(RateLimit, 1), "max_keys", ("3",), TypeError),
        (named(RateLimit, 1), "name", (3, None), TypeError),
        (Overload, "target", (0, NAN, INF), ValueError),
        (Overload, "target", ("3", None), TypeError),
        (Overload, "interval", (NAN, INF), ValueError),
        (Overload, "interval", ("3",), TypeError),
        (Overload, "latency", (-1, NAN, INF), ValueError),
        (Overload, "latency", ("3",), TypeError),
        (Overload, "min_limit", (0, 101), ValueError),
        (Overload, "min_limit", ("3", 1.5), TypeError),
        (Overload, "max_limit", (99,), ValueError),
        (Overload, "max_waiting", (-1,), ValueError),
        (Overload, "max_waiting", ("3",), TypeError),
        (Overload, "retry_after", (-1,), ValueError),
        (Overload, "retry_after", ("soon", None, 1.5), TypeError),
        (Overload, "exempt", ("/health",), TypeError),
        (Compression, "codings", ("gzip", 3, [3]), TypeError),
        (Compression, "minimum_bytes", (-1,), ValueError),
        (Compression, "minimum_bytes", ("3", None), TypeError),
        (Compression, "gzip_level", (0, 10), ValueError),
        (Compression, "gzip_level", ("3", 1.5, True), TypeError),
        (Compression, "brotli_quality", (-1, 12), ValueError),
        (Compression, "zstd_level", (0, 20), ValueError),
        (Compression, "skip", ("image/png",), TypeError),
        (SecurityHeaders, "hsts_seconds", (-1,), ValueError),
        (SecurityHeaders, "hsts_seconds", ("3", 1.5, None), TypeError),
        (SecurityHeaders, "hsts_subdomains", ("no",), TypeError),
        (SecurityHeaders, "hsts_preload", (1,), TypeError),
        (SecurityHeaders, "more", (["a"], "a: b"), TypeError),
        (Cors, "origins", ("https://a.example", b"*", 3, [3]), TypeError),
        (Cors, "origin_pattern", ("(", "*"), ValueError),
        (Cors, "origin_pattern", (3, b"https://a", re.compile(b"a")), TypeError),
        (Cors, "methods", ("GET", 3, [3]), TypeError),
        (Cors, "methods", (["G T"], [""]), ValueError),
        (Cors, "headers", ("x-a", 3, [None]), TypeError),
        (Cors, "headers", (["a b"], ["a\r\nb"], ["€"]), ValueError),
        (Cors, "expose", ("x-a", 3), TypeError),
        (Cors, "expose", (["a, b"], ["a\r\nb"]), ValueError),
        (Cors, "credentials", ("no", 1), TypeError),
        (Cors, "max_age", (-1,), ValueError),
        (Cors, "max_age", ("3", NAN, None), TypeError),
        (named(Sessions, [KEY]), "cookie", (3, None), TypeError),
        (named(Sessions, [KEY]), "max_age", (0, -1), ValueError),
        (named(Sessions, [KEY]), "max_age", ("3", NAN, None), TypeError),
        (named(Sessions, [KEY]), "refresh_after", (-1,), ValueError),
        (named(Sessions, [KEY]), "refresh_after", ("3",), TypeError),
        (named(Sessions, [KEY]), "path", (3, None), TypeError),
        (named(Sessions, [KEY]), "domain", (3, None), TypeError),
        (named(Sessions, [KEY]), "secure", ("no", 0), TypeError),
        (named(Sessions, [KEY]), "same_site", ("Lax", "no", "", None, []), ValueError),
        (TrustedProxies, "networks", ("10.0.0.0/8", 3, [10], [None], b"a"), TypeError),
        (TrustedProxies, "networks", (["nonsense"], ["10.0.0.1/8"]), ValueError),
        (named(TrustedProxies, []), "header", ("X-Forwarded", [], None), ValueError),
        (named(TrustedProxies, []), "host", ("no", 1), TypeError),
    ],
)
def test_arguments(
    make: Callable[..., Middleware],
    field: str,
    values: tuple[Any, ...],
    expected: type[Exception],
) -> None:
    kind = make.func if isinstance(make, partial) else make
    for value in values:
        with pytest.raises(expected, match=rf"^{kind.__name__}: .*{field}"):
            make(**{field: value})


def test_names_of_fields() -> None:
    for make in (partial(Deadline, 1), RequestId):
        for header in ("a b", "a\r\nb", "€"):
            with pytest.raises(ValueError, match=r"header name .* is not a token"):
                make(header=header)
    with pytest.raises(TypeError, match="SecurityHeaders: x-a: expected text, not int"):
        SecurityHeaders(more={"x-a": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="SecurityHeaders: x-frame-options: expected text"):
        SecurityHeaders(frame_options=3)  # type: ignore[arg-type]


def test_keys_that_are_none() -> None:
    """A number of bytes() would be as many NULs, which everybody can sign with."""
    for key, kind in ((32, "int"), (bytearray(32), "bytearray"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"Sessions: key 2: expected text or bytes, not {kind}"):
            Sessions([KEY, key])  # type: ignore[list-item]
    for keys in ({KEY, KEY * 2}, {KEY: KEY}, 32, None, bytearray(32)):
        with pytest.raises(TypeError, match="Sessions: keys: expected several") as caught:
            Sessions(keys)  # type: ignore[arg-type]
        assert KEY not in str(caught.value)


def test_what_is_right() -> None:
    Cors(origin_pattern=re.compile(r"https://.*\.example"), headers=["*"])  # type: ignore[arg-type]
    Cors({"https://a.example": None}, methods={"GET"}, max_age=0)  # type: ignore[arg-type]
    TrustedProxies(iter(["unix", "10.0.0.0/8"]))
    TrustedProxies([ipaddress.ip_network("10.0.0.0/8")])  # type: ignore[list-item]
    TrustedProxies([ipaddress.ip_address("10.0.0.1")])  # type: ignore[list-item]
    SecurityHeaders(frame_options="", opener_policy=None, hsts_seconds=0)  # type: ignore[arg-type]
    Sessions((KEY, KEY.encode()), max_age=1, same_site="none")
    Compression(codings=())
    Deadline(0.5)
    RateLimit(1, 0.5, burst=0)
