from __future__ import annotations

import random
from typing import Any

import anyio
import httpx
import pytest

from _serving import bare_request
from flowcoro.testing import simulate
from flowcoro_http import RateLimit, Request, Router
from flowcoro_http.middleware import client_key
from flowcoro_http.testing import client_for


def limited(*middleware: RateLimit) -> Router:
    router = Router(openapi=None)
    router.use(*middleware)

    @router.get("/")
    async def handler() -> str:
        return "x"

    return router


def by_name(request: Request) -> str | None:
    return request.headers.get("x-name")


async def get(client: httpx.AsyncClient, name: str = "a") -> httpx.Response:
    return await client.get("/", headers={"x-name": name})


def test_a_bucket_fills_again() -> None:
    async def main() -> None:
        async with client_for(limited(RateLimit(4, 2.0, key=by_name))) as client:
            for left, seconds in [(3, 1), (2, 1), (1, 2), (0, 2)]:
                response = await get(client)
                assert response.status_code == 200
                assert response.headers["ratelimit"] == f'"default";r={left};t={seconds}'
                assert response.headers["ratelimit-policy"] == '"default";q=4;w=2'
            response = await get(client)
            assert (response.status_code, response.json()["status"]) == (429, 429)
            assert response.headers["retry-after"] == "1"
            assert response.headers["ratelimit"] == '"default";r=0;t=2'
            assert (await get(client, "b")).status_code == 200
            await anyio.sleep(0.49)
            assert (await get(client)).status_code == 429
            await anyio.sleep(0.011)
            assert (await get(client)).status_code == 200
            assert (await get(client)).status_code == 429
            await anyio.sleep(100)
            statuses = [(await get(client)).status_code for _ in range(6)]
            assert statuses == [200] * 4 + [429] * 2

    simulate(main, seeds=3, stalls=0)


def test_in_the_long_run_it_is_the_rate() -> None:
    async def main() -> None:
        middleware = RateLimit(10, 1.0, burst=25, key=by_name)
        chance = random.Random(1)
        taken = 0
        for _ in range(5000):
            wait, _, _ = middleware._take("a", anyio.current_time())
            taken += wait == 0
            await anyio.sleep(chance.expovariate(50))
        elapsed = anyio.current_time()
        assert taken == pytest.approx(25 + 10 * elapsed, abs=2)

    simulate(main, seeds=3, stalls=0)


def test_retry_after_is_the_truth() -> None:
    async def main() -> None:
        async with client_for(limited(RateLimit(1, 7.3, burst=2, key=by_name))) as client:
            for _ in range(2):
                assert (await get(client)).status_code == 200
            response = await get(client)
            assert response.status_code == 429
            await anyio.sleep(int(response.headers["retry-after"]))
            assert (await get(client)).status_code == 200

    simulate(main, seeds=3, stalls=0)


def test_memory_is_bounded() -> None:
    async def main() -> None:
        middleware = RateLimit(1, 60.0, key=by_name, max_keys=100)
        async with client_for(limited(middleware)) as client:
            for number in range(1000):
                assert (await get(client, str(number))).status_code == 200
                assert len(middleware._full_at) <= 100
            assert (await get(client, "999")).status_code == 429
            assert (await get(client, "1")).status_code == 200  # forgotten
            await anyio.sleep(1000)
            for number in range(60):
                await get(client, f"later {number}")
            assert len(middleware._full_at) <= 60  # who has all tokens need not be remembered

    simulate(main, seeds=1, stalls=0)


async def test_several_policies_and_no_key() -> None:
    router = limited(
        RateLimit(100, 60, key=by_name, name="a"),
        RateLimit(1, 60, key=by_name, name="b", order=-650),
    )
    async with client_for(router) as client:
        response = await get(client)
        assert response.headers.get_list("ratelimit-policy") == ['"b";q=1;w=60', '"a";q=100;w=60']
        response = await get(client)
        assert response.status_code == 429
        assert '"b";r=0' in response.headers["ratelimit"]
        for _ in range(3):
            response = await client.get("/")
            assert response.status_code == 200
            assert "ratelimit" not in response.headers


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (("testclient", 1), "testclient"),
        (None, None),
    ],
)
def test_clients_are_told_apart(client: Any, key: str | None) -> None:
    request = bare_request(client=client)
    assert client_key(request) == key


def test_mistakes_are_found_early() -> None:
    for arguments in ({"limit": 0}, {"limit": 1, "per": 0}, {"limit": 1, "per": float("inf")}):
        with pytest.raises(ValueError, match=r"RateLimit: .*expected"):
            RateLimit(**arguments)  # type: ignore[arg-type]
    for options in ({"burst": -1}, {"max_keys": 0}):
        with pytest.raises(ValueError, match=r"RateLimit: .*expected"):
            RateLimit(1, **options)  # type: ignore[arg-type]
    for name in ('a"b', "a\\b", "ü", "a\nb"):
        with pytest.raises(ValueError, match="printable ASCII"):
            RateLimit(1, name=name)
