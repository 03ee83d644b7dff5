from __future__ import annotations

import logging
import random
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _serving import bare_request
from flowcoro_http import Request, Response, Router, Session, Sessions
from flowcoro_http.middleware import sessions as module
from flowcoro_http.testing import client_for

OLD, NEW = "old-old-old-old-old", "new-new-new-new-new"


def shop(sessions: Sessions) -> Router:
    router = Router(openapi=None)
    router.use(sessions)

    @router.post("/cart/{item}")
    async def add(item: str, request: Request) -> list[str]:
        session = Session.of(request)
        cart: list[str] = session.setdefault("cart", [])
        cart.append(item)  # within a value
        return cart

    @router.get("/cart")
    async def cart(request: Request) -> Any:
        return Session.of(request).get("cart", [])

    @router.get("/unused")
    async def unused() -> str:
        return "x"

    @router.get("/all")
    async def everything(request: Request) -> dict[str, Any]:
        return dict(Session.of(request))

    @router.post("/logout")
    async def logout(request: Request) -> None:
        Session.of(request).clear()

    @router.post("/fill/{size:int}")
    async def fill(size: int, request: Request) -> None:
        Session.of(request)["x"] = random.Random(1).randbytes(size // 2).hex()

    @router.post("/bad")
    async def bad(request: Request) -> None:
        Session.of(request)["x"] = object()

    return router


def cookie_of(response: httpx.Response, name: str = "session") -> Any:
    found = SimpleCookie(response.headers.get("set-cookie", ""))
    return found.get(name)


async def test_a_session_is_kept_in_a_cookie() -> None:
    async with client_for(shop(Sessions([NEW])), base_url="https://x") as client:
        response = await client.get("/cart")
        assert (response.json(), "set-cookie" in response.headers) == ([], False)
        assert response.headers["vary"] == "cookie"
        response = await client.post("/cart/a")
        cookie = cookie_of(response)
        assert (cookie["path"], cookie["samesite"], cookie["max-age"]) == ("/", "Lax", "1209600")
        assert cookie["secure"]
        assert cookie["httponly"]
        assert response.headers["cache-control"] == "private"
        assert (await client.post("/cart/b")).json() == ["a", "b"]
        response = await client.get("/cart")
        assert (response.json(), "set-cookie" in response.headers) == (["a", "b"], False)
        response = await client.get("/unused")
        assert "vary" not in response.headers
        response = await client.post("/logout")
        assert cookie_of(response)["max-age"] == "0"
        assert not client.cookies
        assert (await client.get("/cart")).json() == []


async def test_other_attributes() -> None:
    sessions = Sessions(
        [NEW], cookie="sid", path="/cart", domain="x.example", secure=False, same_site="strict"
    )
    async with client_for(shop(sessions)) as client:
        cookie = cookie_of(await client.post("/cart/a"), "sid")
        assert (cookie["path"], cookie["domain"], cookie["samesite"]) == (
            "/cart",
            "x.example",
            "Strict",
        )
        assert not cookie["secure"]


async def signed(sessions: Sessions) -> str:
    async with client_for(shop(sessions)) as client:
        value: str = cookie_of(await client.post("/cart/a")).value
        return value


async def ask(sessions: Sessions, cookie: str | bytes) -> httpx.Response:
    raw = cookie.encode("latin-1") if isinstance(cookie, str) else cookie
    async with client_for(shop(sessions)) as client:
        return await client.get("/cart", headers={"cookie": b"session=" + raw})


async def test_keys_are_rotated() -> None:
    before = await signed(Sessions([OLD]))
    during = Sessions([NEW, OLD])
    assert (await ask(during, before)).json() == ["a"]
    after = await signed(during)
    assert (await ask(Sessions([NEW]), after)).json() == ["a"]
    assert (await ask(Sessions([OLD]), after)).json() == []
    assert (await ask(Sessions([NEW]), before)).json() == []
    response = await ask(Sessions([NEW]), before)
    assert cookie_of(response)["max-age"] == "0"  # it will never be good again


async def test_of_another_name_it_is_not_taken() -> None:
    value = await signed(Sessions([NEW]))
    other = Sessions([NEW], cookie="other")
    async with client_for(shop(other)) as client:
        response = await client.get("/cart", headers={"cookie": f"other={value}"})
        assert response.json() == []


async def test_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    sessions = Sessions([NEW], max_age=100, refresh_after=40)
    value = await signed(sessions)
    now = time.time()
    for seconds, expected, sent in [
        (30, ["a"], None),
        (60, ["a"], "100"),
        (99, ["a"], "100"),
        (110, [], "0"),
        (-50, [], "0"),
    ]:
        monkeypatch.setattr(time, "time", lambda later=now + seconds: later)
        monkeypatch.setattr(module, "_now", lambda later=now + seconds: later)
        response = await ask(sessions, value)
        cookie = cookie_of(response)
        assert response.json() == expected, seconds
        assert (cookie and cookie["max-age"]) == sent, seconds


async def test_nothing_that_was_not_signed_is_taken() -> None:
    sessions = Sessions([NEW])
    value = await signed(sessions)
    payload, stamp, signature = value.split(".")
    forged = [
        "",
        "x",
        ".",
        "..",
        "...",
        "=" * 100,
        value[:-1],
        value + "x",
        f"{payload}.{stamp}",
        f"{payload}.{stamp}.",
        f"{payload}..{signature}",
        f".{payload}.{stamp}.{signature}",
        f"{payload}x.{stamp}.{signature}",
        f"{payload}.AAAAAA.{signature}",
        value.swapcase(),
        "\xff\xfe",
        "a" * 100_000,
        value + "." + "a" * 4096,
    ]
    for cookie in forged:
        response = await ask(sessions, cookie)
        assert (response.status_code, response.json()) == (200, []), cookie[:50]
    for position in range(len(value)):
        changed = value[:position] + chr(ord(value[position]) ^ 1) + value[position + 1 :]
        if ";" in changed or '"' in changed:
            continue
        response = await ask(sessions, changed)
        # The last character of base64 has bits that mean nothing.
        assert response.json() == [] or position == len(value) - 1, position


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_a_session(cookie: bytes) -> None:
    values, _ = Sessions([NEW]).read(cookie.decode("latin-1"))
    assert values == {}


async def test_what_is_signed_but_no_session() -> None:
    sessions = Sessions([NEW])
    for value in ([1], "text", None, 7):
        text = sessions._serializer.dumps(value)
        assert (await ask(sessions, text)).json() == []


async def test_too_much_for_a_cookie(caplog: pytest.LogCaptureFixture) -> None:
    async with client_for(shop(Sessions([NEW]))) as client:
        assert (await client.post("/fill/2000")).status_code == 204
        response = await client.post("/fill/9000")
        assert response.status_code == 500
        assert "set-cookie" not in response.headers
        assert (await client.post("/bad")).status_code == 500
    assert "browsers take 4096" in caplog.text


async def test_secrets_stay_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sessions = Sessions([NEW, OLD])
    value = await signed(Sessions([NEW]))
    await ask(sessions, value[:-3])
    async with client_for(shop(sessions)) as client:
        response = await client.post("/bad")
        await client.post("/fill/9000")
    shown = [repr(sessions), str(sessions), caplog.text, response.text]
    router = Router(openapi=None)
    router.use(sessions)
    seen: list[str] = []

    @router.get("/cart")
    async def look(request: Request) -> None:
        session = Session.of(request)
        session["token"] = "hidden-hidden"
        seen.append(f"{session!r} {request.state!r}")

    async with client_for(router) as client:
        await client.get("/cart")
    for text in [*shown, *seen]:
        assert NEW not in text
        assert OLD not in text
        assert "hidden-hidden" not in text
    assert "BadTimeSignature" in caplog.text
    for keys in (["short-secret"], [NEW, b"short-secret"]):
        with pytest.raises(ValueError, match=r"key [12] of sessions is shorter") as caught:
            Sessions(keys)
        assert "short-secret" not in str(caught.value)


def test_mistakes_are_found_early() -> None:
    with pytest.raises(ValueError, match="need a key"):
        Sessions([])
    with pytest.raises(TypeError, match="expected several"):
        Sessions(NEW)
    with pytest.raises(ValueError, match="only with secure"):
        Sessions([NEW], same_site="none", secure=False)
    with pytest.raises(ValueError, match="not a token"):
        Sessions([NEW], cookie="a b")
    with pytest.raises(ValueError, match="forbidden character"):
        Sessions([NEW], path="/;x")
    with pytest.raises(RuntimeError, match="not around this request"):
        Session.of(bare_request())


async def test_it_is_a_dictionary() -> None:
    router = Router(openapi=None)
    router.use(Sessions([b"0123456789abcdef"]))

    @router.get("/")
    async def handler(request: Request) -> Response:
        session = Session.of(request)
        session.update(a=1, b=[1, {"c": None}])
        del session["a"]
        assert len(session) == 1
        assert list(session) == ["b"]
        assert "a" not in session
        with pytest.raises(KeyError):
            session["a"]
        return Response("x", headers={"cache-control": "no-store"})

    async with client_for(router) as client:
        response = await client.get("/")
        assert response.headers["cache-control"] == "no-store"
        assert "set-cookie" in response.headers
