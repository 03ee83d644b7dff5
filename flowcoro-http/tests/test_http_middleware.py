"""What every middleware of ours keeps, and the small ones in detail."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest

import flowcoro_http.middleware as package
import flowcoro_http.plugin as our_plugin
from _serving import bare_request
from flowcoro import App, Context, hookimpl
from flowcoro.testing import make_host, simulate
from flowcoro_http import (
    BodyLimit,
    Compression,
    Cors,
    Deadline,
    HttpServer,
    Middleware,
    Overload,
    RateLimit,
    Request,
    RequestId,
    Response,
    Router,
    SecurityHeaders,
    Session,
    Sessions,
    TrustedProxies,
)
from flowcoro_http._middleware import CallNext
from flowcoro_http.testing import MiddlewareContract, client_for

KEY = "0123456789abcdef"


def make_all() -> list[Middleware]:
    return [
        TrustedProxies(["127.0.0.0/8", "unix"]),
        RequestId(),
        SecurityHeaders(),
        Cors(["*"]),
        RateLimit(1000),
        Overload(),
        Deadline(60),
        BodyLimit(10_000),
        Compression(minimum_bytes=0),
        Sessions([KEY]),
    ]


ALL = make_all()


class TestOurs(MiddlewareContract):
    @pytest.fixture(params=ALL, ids=lambda middleware: middleware.name)
    def middleware(self, request: pytest.FixtureRequest) -> Middleware:
        middleware: Middleware = request.param
        return middleware


def test_the_order_is_as_it_is_written() -> None:
    assert [m.order for m in ALL] == sorted({m.order for m in ALL})
    table = [line for line in (package.__doc__ or "").splitlines() if line.startswith("| -")]
    written = [line.split("|")[1:3] for line in table]
    documented = [int(order) for order, name in written if "observability" not in name]
    assert documented == [m.order for m in ALL]
    names = [name.strip(" `") for _, name in written if "observability" not in name]
    assert names == [type(m).__name__ for m in ALL]
    assert {"Session", "client_key", *names} == set(package.__all__)
    assert {m.name for m in ALL if repr(m).startswith(type(m).__name__)} == {m.name for m in ALL}
    assert len({hash(m) for m in ALL}) == len(ALL)


def echo_router(*middleware: Middleware) -> Router:
    router = Router(openapi=None)
    router.use(*middleware)

    @router.route("/", methods=["GET", "POST"])
    async def echo(request: Request) -> dict[str, Any]:
        return {"id": request.id, "size": len(await request.body())}

    @router.post("/ignore")
    async def ignore() -> str:
        return "ignored"

    return router


async def test_all_of_them_together() -> None:
    router = echo_router(*reversed(make_all()))

    @router.get("/visits")
    async def visits(request: Request) -> int:
        session = Session.of(request)
        session["visits"] = session.get("visits", 0) + 1
        return int(session["visits"])

    async with client_for(router, base_url="https://testserver") as client:
        headers = {"origin": "https://elsewhere.example"}
        for count in (1, 2):
            response = await client.get("/visits", headers=headers)
            assert response.json() == count
        assert response.headers["content-encoding"] in {"gzip", "br", "zstd"}
        assert response.headers["strict-transport-security"] == "max-age=31536000"
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["ratelimit"] == '"default";r=998;t=1'
        assert response.headers["x-request-id"]
        assert response.headers["vary"] == "cookie, accept-encoding"
        assert (await client.post("/", content=b"x" * 10_001)).status_code == 413


async def test_a_plugin_may_add_them() -> None:
    plugin: Any = ModuleType("some_plugin")
    plugin.FLOWCORO_HOOK_API = 1

    @hookimpl
    def flowcoro_http_middleware(context: Context) -> list[Middleware]:
        return [Cors(["https://app.example"]), SecurityHeaders(), RequestId()]

    plugin.flowcoro_http_middleware = flowcoro_http_middleware
    server = HttpServer(echo_router(), port=0)
    async with App(server, plugins=make_host(our_plugin, plugin)), httpx.AsyncClient() as client:
        response = await client.get(server.url, headers={"origin": "https://app.example"})
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"]


async def test_use_takes_middleware_only() -> None:
    async def function(request: Request, call_next: CallNext) -> Response:
        return await call_next(request)

    with pytest.raises(TypeError, match="expected Middleware"):
        Router().use(function)  # type: ignore[arg-type]


async def test_request_ids() -> None:
    async with client_for(echo_router(RequestId())) as client:
        response = await client.get("/", headers={"x-request-id": "mine.1"})
        assert response.headers["x-request-id"] == response.json()["id"] == "mine.1"
        for bad in ("", "a b", "x" * 65, "ü".encode(), "a;b"):
            response = await client.get("/", headers={"x-request-id": bad})
            given = response.headers["x-request-id"]
            assert len(given) == 32
            assert given == response.json()["id"]
        assert (await client.get("/nowhere")).headers["x-request-id"]
    async with client_for(echo_router(RequestId(header="X-Trace", trust=False))) as client:
        headers = {"x-trace": "mine", "x-request-id": "mine"}
        first, second = [(await client.get("/", headers=headers)) for _ in range(2)]
        assert first.json()["id"] == first.headers["x-trace"] != "mine"
        assert second.headers["x-trace"] != first.headers["x-trace"]
    for header in ("", "a b", "a\r\nb"):
        with pytest.raises(ValueError, match="token"):
            RequestId(header=header)


async def test_body_limits() -> None:
    router = echo_router(BodyLimit(10, applies=lambda request: request.path != "/ignore"))
    async with client_for(router) as client:
        assert (await client.post("/", content=b"x" * 10)).json()["size"] == 10
        response = await client.post("/", content=b"x" * 11)
        assert (response.status_code, response.json()["max_body_bytes"]) == (413, 10)
        assert (await client.post("/ignore", content=b"x" * 11)).status_code == 200

        async def pieces() -> AsyncIterator[bytes]:
            yield b"x" * 6
            yield b"x" * 6

        assert (await client.post("/", content=pieces())).status_code == 413
    router = Router(openapi=None)
    router.use(BodyLimit(1000))

    @router.post("/", max_body_bytes=5)
    async def small(request: Request) -> int:
        return len(await request.body())

    async with client_for(router) as client:
        assert (await client.post("/", content=b"x" * 6)).json()["max_body_bytes"] == 5
    with pytest.raises(ValueError, match="expected 0 or more"):
        BodyLimit(-1)


async def test_refused_before_it_is_read() -> None:
    router = echo_router(BodyLimit(10))
    async with client_for(router) as client:
        response = await client.post("/ignore", content=b"x" * 11)
        assert response.status_code == 413


def test_deadlines() -> None:
    async def main() -> None:
        router = Router(openapi=None)
        router.use(Deadline(10, header="x-request-timeout"))
        ended: list[str] = []
        remaining: list[float] = []

        @router.get("/{seconds:float}")
        async def slow(seconds: float, request: Request) -> str:
            remaining.append(request.remaining)
            try:
                await anyio.sleep(seconds)
            finally:
                ended.append(f"{seconds:g}")
            remaining.append(request.remaining)
            return "done"

        @router.get("/own")
        async def own() -> None:
            with anyio.fail_after(1):
                await anyio.sleep(5)

        @router.get("/stream")
        async def stream() -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"a"
                await anyio.sleep(100)
                yield b"b"

            return Response.stream(pieces())

        async with client_for(router) as client:
            assert (await client.get("/9.5")).text == "done"
            assert remaining == [pytest.approx(10), pytest.approx(0.5)]
            began = anyio.current_time()
            response = await client.get("/11")
            assert (response.status_code, response.json()["status"]) == (504, 504)
            assert anyio.current_time() - began == pytest.approx(10)
            assert ended == ["9.5", "11"]
            for given, status in [("2", 504), ("3.5", 200), ("100", 200), ("x", 200), ("-1", 200)]:
                response = await client.get("/3", headers={"x-request-timeout": given})
                assert response.status_code == status, given
            assert (await client.get("/1", headers={"x-request-timeout": "0"})).status_code == 504
            assert (await client.get("/own")).status_code == 504
            assert (await client.get("/stream")).text == "ab"

    simulate(main, seeds=3, stalls=0)
    for seconds in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="a finite number of seconds, more than 0"):
            Deadline(seconds)


def test_without_a_deadline_time_is_endless() -> None:
    async def main() -> None:
        request = bare_request()
        assert request.remaining == math.inf
        request.deadline = anyio.current_time() - 5
        assert request.remaining == 0

    anyio.run(main)


async def test_security_headers() -> None:
    router = echo_router(
        SecurityHeaders(permissions_policy="camera=()", more={"x-robots-tag": "none"})
    )

    @router.get("/own")
    async def own() -> Response:
        return Response("x", headers={"Content-Security-Policy": "default-src *"})

    async with client_for(router) as client:
        for path in ("/", "/nowhere", "/%zz"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["content-security-policy"].startswith("default-src 'self'; ")
            assert headers["referrer-policy"] == "strict-origin-when-cross-origin"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert headers["permissions-policy"] == "camera=()"
            assert headers["x-robots-tag"] == "none"
            assert "cross-origin-resource-policy" not in headers
            assert "strict-transport-security" not in headers  # not over HTTP (RFC 6797, 7.2)
        headers = (await client.get("/own")).headers
        assert headers.get_list("content-security-policy") == ["default-src *"]
    everything = SecurityHeaders(
        hsts_seconds=2 * 31536000, hsts_subdomains=True, hsts_preload=True, frame_options=""
    )
    async with client_for(echo_router(everything), base_url="https://x") as client:
        headers = (await client.get("/")).headers
        expected = "max-age=63072000; includeSubDomains; preload"
        assert headers["strict-transport-security"] == expected
        assert "x-frame-options" not in headers
    async with client_for(echo_router(SecurityHeaders(hsts_seconds=0)), base_url="https://x") as c:
        assert "strict-transport-security" not in (await c.get("/")).headers
    with pytest.raises(ValueError, match="hsts_preload needs"):
        SecurityHeaders(hsts_preload=True)
    with pytest.raises(ValueError, match="control character"):
        SecurityHeaders(referrer_policy="a\r\nset-cookie: b=c")


ORIGINS = ["https://app.example", "https://a.trusted.example", "https://b.trusted.example"]

CORS = Cors(
    ["https://app.example"],
    origin_pattern=r"https://[a-z]+\.trusted\.example",
    methods=["GET", "put"],
    headers=["X-Token"],
    expose=["x-total"],
    credentials=True,
    max_age=60,
)


async def ask(middleware: Middleware, method: str = "GET", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client_for(echo_router(middleware)) as client:
        return await client.request(method, "/", headers=named)


@pytest.mark.parametrize("origin", ORIGINS)
async def test_cors_lets_origins_read(origin: str) -> None:
    response = await ask(CORS, origin=origin)
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-expose-headers"] == "x-total"
    assert response.headers["vary"] == "origin"
    response = await ask(CORS, "OPTIONS", origin=origin, access_control_request_method="PUT")
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-allow-methods"] == "GET, PUT"
    allowed = response.headers["access-control-allow-headers"]
    assert allowed == "accept, accept-language, content-language, content-type, x-token"
    assert response.headers["access-control-max-age"] == "60"
    assert "access-control-expose-headers" not in response.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://app.example",
        "https://app.example.evil.example",
        "https://app.example:8443",
        "https://xapp.example",
        "HTTPS://APP.EXAMPLE",
        "https://a.trusted.example.evil.example",
        "https://evil.example/https://a.trusted.example",
        "null",
        "",
        "*",
    ],
)
async def test_cors_keeps_others_out(origin: str) -> None:
    response = await ask(CORS, origin=origin)
    assert response.status_code == 200
    assert response.headers["vary"] == "origin"  # a cache must not give this to who may
    preflight = await ask(CORS, "OPTIONS", origin=origin, access_control_request_method="PUT")
    for answer in (response, preflight):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_cors_for_everyone() -> None:
    everyone = Cors(["*"], headers=["*"])
    for origin in ("https://x.example", "null"):
        response = await ask(everyone, origin=origin)
        assert response.headers["access-control-allow-origin"] == "*"
        assert "vary" not in response.headers
    response = await ask(
        everyone,
        "OPTIONS",
        origin="https://x.example",
        access_control_request_method="GET",
        access_control_request_headers="Authorization, x-b, b@d, " + "x" * 200,
    )
    allowed = response.headers["access-control-allow-headers"]
    assert allowed.endswith("content-type, authorization, x-b")
    assert response.headers["vary"] == "access-control-request-headers"


async def test_what_is_no_preflight_reaches_the_handler() -> None:
    response = await ask(CORS, "OPTIONS", origin="https://app.example")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    response = await ask(CORS)
    assert response.headers["vary"] == "origin"
    async with client_for(echo_router(CORS)) as client:
        response = await client.get("/nowhere", headers={"origin": "https://app.example"})
        assert response.status_code == 404
        assert response.headers["access-control-allow-origin"] == "https://app.example"


def test_mistakes_of_cors_are_found_early() -> None:
    with pytest.raises(ValueError, match="credentials for every origin"):
        Cors(["*"], credentials=True)
    for origin in ("app.example", "https://app.example/", "https://app.example/x", "null", ""):
        with pytest.raises(ValueError, match="is no origin"):
            Cors([origin])
    with pytest.raises(TypeError, match="expected several"):
        Cors("https://app.example")
    with pytest.raises(ValueError, match=r"expose: .* is not a token"):
        Cors(["*"], expose=["a\r\nb"])


async def test_vary_is_added_to() -> None:
    router = Router(openapi=None)
    router.use(CORS)

    @router.get("/{vary}")
    async def vary(vary: str) -> Response:
        return Response("x", headers=[("vary", vary), ("Vary", "Cookie")])

    async with client_for(router) as client:
        for given, expected in [
            ("Accept", "Accept, Cookie, origin"),
            ("*", "*, Cookie"),
            ("ORIGIN", "ORIGIN, Cookie"),
        ]:
            response = await client.get(f"/{given}")
            assert ", ".join(response.headers.get_list("vary")) == expected
