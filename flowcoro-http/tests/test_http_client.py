from __future__ import annotations

import httpx
import msgspec
import pytest
from anyio import ClosedResourceError

from flowcoro.app import HealthStatus
from flowcoro_http import HttpClient


class User(msgspec.Struct):
    id: int


def answer(request: httpx.Request) -> httpx.Response:
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
        transport=httpx.MockTransport(answer),
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
        with pytest.raises(TimeoutError, match="GET /slow: no answer within 5 s"):
            await http.get("/slow")
        with pytest.raises(TimeoutError, match=r"within 0\.5 s"):
            async with http.stream("GET", "/slow", timeout=0.5):
                raise AssertionError("not reached")
        with pytest.raises(httpx.ConnectError):
            await http.get("/down")


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
