from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from flowcoro_http import (
    Body,
    Header,
    Request,
    Response,
    Route,
    Router,
    WebSocket,
)
from flowcoro_http.testing import client_for


class Item(msgspec.Struct):
    """A thing for sale."""

    name: str
    price: float = 0.0


def test_mistakes_in_routes() -> None:
    async def a() -> None: ...

    with pytest.raises(TypeError, match="expected a sequence"):
        Route("/", a, methods="GET")
    with pytest.raises(ValueError, match="no methods"):
        Route("/", a, methods=())
    with pytest.raises(ValueError, match="status: expected 200 to 599, not 99"):
        Route("/", a, status=99)
    with pytest.raises(ValueError, match="leading slash"):
        Router().get("x")(a)
    with pytest.raises(ValueError, match="leading slash"):
        Router("x")


def test_the_openapi_document_is_valid_and_complete() -> None:
    class Page(msgspec.Struct):
        items: list[Item]

    router = Router("/shop", title="Shop", version="2.0", description="Sells.", tags=["shop"])

    @router.get("/items/{id:int}/{rest:path}", summary="Find it")
    async def find(id: int, q: str | None = None, many: list[int] | None = None) -> Page:
        """Ignored, since a summary is given.

        But this counts.
        """
        raise AssertionError

    @router.post("/items", status=201, deprecated=True)
    async def add(item: Item, dry: bool = False) -> Item:
        """Add an item."""
        return item

    @router.route("/any", methods=["get", "PUT"])
    async def both() -> str:
        return ""

    @router.delete("/items/{name}")
    async def remove(request: Request) -> None: ...

    @router.websocket("/ws")
    async def ws(socket: WebSocket) -> None: ...

    @router.get("/hidden", in_schema=False)
    async def hidden() -> bytes:
        return b""

    @router.get("/raw")
    async def both_() -> Response: ...  # type: ignore[empty-body]

    @router.get("/unknown")
    async def unknown() -> Router: ...  # type: ignore[empty-body]

    document = router.openapi()
    OpenAPIV31SpecValidator(document).validate()
    assert document["info"] == {"title": "Shop", "version": "2.0", "description": "Sells."}
    assert list(document["paths"]) == [
        "/shop/items/{id}/{rest}",
        "/shop/items",
        "/shop/any",
        "/shop/items/{name}",
        "/shop/raw",
        "/shop/unknown",
    ]
    find_it = document["paths"]["/shop/items/{id}/{rest}"]["get"]
    assert find_it["summary"] == "Find it"
    assert find_it["description"] == "But this counts."
    assert [(p["name"], p["in"], p["required"]) for p in find_it["parameters"]] == [
        ("id", "path", True),
        ("rest", "path", True),
        ("q", "query", False),
        ("many", "query", False),
    ]
    ok = find_it["responses"]["200"]["content"]["application/json"]["schema"]
    assert ok == {"$ref": "#/components/schemas/Page"}
    add_it = document["paths"]["/shop/items"]["post"]
    assert (add_it["summary"], add_it["deprecated"]) == ("Add an item", True)
    assert add_it["requestBody"]["required"] is True
    assert set(add_it["responses"]) == {"201", "422", "default"}
    assert document["paths"]["/shop/items/{name}"]["delete"]["responses"]["204"]
    assert set(document["components"]["schemas"]) == {"Item", "Page", "Problem"}
    ids = [o["operationId"] for item in document["paths"].values() for o in item.values()]
    assert len(ids) == len(set(ids))
    assert router.openapi(title="T", version="9")["info"]["title"] == "T"


def test_corners_of_the_openapi_document() -> None:
    router = Router()

    def make() -> Any:
        async def same(
            raw: Annotated[bytes, Body(description="anything")],
            marker: Annotated[Any, Header("x-m", description="why")] = None,
            when: datetime = datetime(2024, 1, 2, tzinfo=UTC),
        ) -> Annotated[list[int], msgspec.Meta(min_length=1)]:
            raise AssertionError

        same.__annotations__["marker"] = Annotated[int | None, Header("x-m", description="why")]
        return same

    for path in ("/a", "/a.b", "/a-b"):
        router.post(path)(make())
        router.put(path)(make())

    @router.post("/text")
    async def text(body: Annotated[str, Body()]) -> bytes:
        return b""

    document = router.openapi()
    OpenAPIV31SpecValidator(document).validate()
    operation = document["paths"]["/a"]["post"]
    assert operation["requestBody"] == {
        "required": False,  # no bytes are bytes too
        "content": {"application/octet-stream": {"schema": {}}},
        "description": "anything",
    }
    assert operation["parameters"][0]["description"] == "why"
    assert operation["parameters"][1]["schema"]["default"] == "2024-01-02T00:00:00Z"
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"type": "array", "items": {"type": "integer"}, "minItems": 1}
    assert "text/plain" in document["paths"]["/text"]["post"]["requestBody"]["content"]
    ids = [o["operationId"] for item in document["paths"].values() for o in item.values()]
    assert len(set(ids)) == 7


async def test_the_openapi_document_is_served() -> None:
    router = Router("/api")

    @router.get("/x")
    async def x() -> str:
        return ""

    async with client_for(router) as client:
        response = await client.get("/api/openapi.json")
        assert response.json() == router.openapi()
    async with client_for(router.bind(openapi=False)) as client:
        assert (await client.get("/api/openapi.json")).status_code == 404
    async with client_for(Router(openapi=None)) as client:
        assert (await client.get("/openapi.json")).status_code == 404

    @router.get("/openapi.json")
    async def own() -> str:
        return "own"

    async with client_for(router) as client:
        assert (await client.get("/api/openapi.json")).text == "own"
