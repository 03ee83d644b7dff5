"""`HttpClient`: its interface, and which way its requests take."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx
import msgspec
import pytest
import trustme
from anyio import ClosedResourceError

from _peers import OK, Peer, answer, answering, never, peer, read_request
from _serving import make_router, serving
from flowcoro.app import HealthStatus
from flowcoro_http import HttpClient, HttpConfig


class User(msgspec.Struct):
    id: int


def respond(request: httpx.Request) -> httpx.Response:
    match request.url.path:
        case "/user":
            return httpx.Response(200, json={"id": 7})
        case "/echo":
            return httpx.Response(200, content=request.content, headers=request.headers)
        case "/method":
            return httpx.Response(200, text=request.method)
        case "/slow":
            raise httpx.ReadTimeout("late", request=request)
        case "/down":
            raise httpx.ConnectError("refused", request=request)
        case "/health":
            return httpx.Response(503)
        case _:
            return httpx.Response(404)


def client(**options: object) -> HttpClient:
    return HttpClient(
        base_url="http://service",
        transport=httpx.MockTransport(respond),
        headers={"x-from": "us"},
        **options,  # type: ignore[arg-type]
    )


async def test_typed_answers() -> None:
    async with client() as http:
        assert await http.get_json("/user", type=User) == User(7)
        assert await http.request_json("POST", "/echo", type=User, body=User(9)) == User(9)
        with pytest.raises(msgspec.ValidationError):
            await http.get_json("/user", type=list)
        with pytest.raises(httpx.HTTPStatusError):
            await http.get_json("/none", type=User)


async def test_cookies_go_where_they_belong() -> None:
    jar = httpx.Cookies()
    jar.set("sid", "secret", domain="service.example")
    jar.set("sid", "other", domain="bank.example")
    async with client(cookies=jar) as http:
        for url, sent in [
            ("http://service.example/echo", "sid=secret"),
            ("http://evil.example/echo", None),
        ]:
            assert (await http.get(url)).headers.get("cookie") == sent
            assert (await http.fetch(url)).headers.get("cookie") == sent
    async with client(cookies={"sid": "everywhere"}) as http:
        assert (await http.get("http://evil/echo")).headers["cookie"] == "sid=everywhere"


async def test_bodies_of_every_type() -> None:
    async with client() as http:
        for body in (b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc"):
            assert (await http.post("/echo", content=body)).content == b"abc"


async def test_every_method() -> None:
    async with client() as http:
        for method in ("get", "post", "put", "patch", "delete"):
            response = await getattr(http, method)("/method")
            assert response.text == method.upper()
        response = await http.post("/echo", content=b"x")
        assert (response.content, response.headers["x-from"]) == (b"x", "us")
        async with http.stream("GET", "/user") as streamed:
            assert await streamed.aread() == b'{"id":7}'


async def test_timeouts_are_the_built_in_ones() -> None:
    async with client(timeout=5) as http:
        with pytest.raises(TimeoutError, match="GET /slow: no answer: late"):
            await http.get("/slow")
        with pytest.raises(TimeoutError, match=r"within 0\.5 s"):
            async with http.stream("GET", "/slow", timeout=0.5):
                raise AssertionError("not reached")
        with pytest.raises(httpx.ConnectError):
            await http.get("/down")


async def test_http2_goes_by_httpxs_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certfile)
    issued.private_key_pem.write_to_path(keyfile)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    config = HttpConfig(certfile=str(certfile), keyfile=str(keyfile))
    async with serving(make_router(), backend="hypercorn", config=config) as server:
        for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
            async with HttpClient(base_url=server.url, http2=http2, verify=trusted) as http:
                response = await http.get("/")
                assert (response.http_version, response.text) == (version, "hello")
                assert (await http.fetch("/")).text() == "hello"
                assert (http.state() is None) == http2


async def proxied(seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader, seen):
        writer.write(answer(b"by the proxy"))


@pytest.mark.parametrize("how", ["given", "http", "all"])
async def test_proxies(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with peer(proxied) as server, peer(answering(OK)) as direct:
        if how == "given":
            options = {"proxy": server.url}
        else:
            options = {}
            monkeypatch.setenv(f"{how}_proxy", server.url)
            monkeypatch.setenv("no_proxy", "localhost")
        async with HttpClient(**options) as http:  # type: ignore[arg-type]
            assert (await http.get("http://elsewhere.example/a")).text == "by the proxy"
            assert (await http.fetch("http://elsewhere.example/b")).text() == "by the proxy"
            expected = "by the proxy" if how == "given" else "ok"
            assert (await http.get(direct.url)).text == expected
        assert server.targets[:2] == ["http://elsewhere.example/a", "http://elsewhere.example/b"]
        async with HttpClient(trust_env=False) as http:
            assert (await http.get(direct.url)).text == "ok"


async def test_limits_of_single_waits() -> None:
    async with peer(never) as server:
        for options in ({"read_timeout": 0.05}, {"max_connections": 1, "pool_timeout": 0.05}):
            async with HttpClient(timeout=10, **options) as http:  # type: ignore[arg-type]
                asked = [asyncio.create_task(http.get(server.url)) for _ in range(2)]
                done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                with pytest.raises(TimeoutError, match=r"GET http://localhost:\d+/: no answer"):
                    done.pop().result()
                for each in asked:
                    each.cancel()
                await asyncio.wait(asked)


async def test_health_and_life() -> None:
    http = client()
    assert (await http.health()).status is HealthStatus.FAIL
    with pytest.raises(ClosedResourceError):
        await http.get("/user")
    async with http:
        assert (await http.health()).status is HealthStatus.PASS
        assert isinstance(http.client, httpx.AsyncClient)
    async with client(health_path="/health") as sick:
        health = await sick.health()
        assert (health.status, health.detail) == (HealthStatus.FAIL, "/health answers 503")
    async with client(health_path="/user", http2=True) as well:
        assert (await well.health()).status is HealthStatus.PASS
    async with HttpClient() as network:
        assert network.timeout == 30.0
    await network.__aexit__(None, None, None)
