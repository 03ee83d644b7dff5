"""An HTTP server in a process of its own: `python _http_server.py SERVER WORK`.

It prints its port when it serves, and ends with its standard input. Each SERVER does each
WORK that it has a way for, in the way that its own documentation shows first.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

TEXT = "Hello, World!"
WORKS = ("text", "path", "body", "asgi")


def peer(name: str) -> Any:
    """Import a peer, of which nothing is known when it is not installed."""
    return importlib.import_module(name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def announce(port: int) -> None:
    """Tell the port once it answers, and end the process with its standard input."""

    def watch() -> None:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        print(port, flush=True)
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


async def hello_asgi(scope: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI application can be."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, World!"})


def flowcoro_router() -> Any:
    import msgspec

    from flowcoro_http import Router

    class Item(msgspec.Struct):
        name: str
        price: float
        tags: list[str]
        description: str

    router = Router(openapi=None)

    @router.get("/")
    async def text() -> str:
        return TEXT

    @router.get("/users/{id:int}")
    async def user(id: int) -> dict[str, Any]:
        return {"id": id, "name": "Ada"}

    @router.post("/items")
    async def item(item: Item) -> dict[str, Any]:
        return {"name": item.name, "tags": len(item.tags)}

    return router


def fastapi_app() -> Any:
    class Item(peer("pydantic").BaseModel):  # type: ignore[misc]  # a peer's
        name: str
        price: float
        tags: list[str]
        description: str

    app = peer("fastapi").FastAPI()

    async def text() -> str:
        return TEXT

    async def user(id: int) -> dict[str, Any]:
        return {"id": id, "name": "Ada"}

    app.get("/", response_class=peer("fastapi.responses").PlainTextResponse)(text)
    app.get("/users/{id}")(user)

    # Its annotation is looked for among the module's names, where Item is none.
    async def item(item: Any) -> dict[str, Any]:
        return {"name": item.name, "tags": len(item.tags)}

    item.__annotations__["item"] = Item
    app.post("/items")(item)
    return app


def litestar_app() -> Any:
    import msgspec

    litestar = peer("litestar")

    class Item(msgspec.Struct):
        name: str
        price: float
        tags: list[str]
        description: str

    async def text() -> str:
        return TEXT

    async def user(id: int) -> dict[str, Any]:
        return {"id": id, "name": "Ada"}

    async def item(data: Any) -> dict[str, Any]:
        return {"name": data.name, "tags": len(data.tags)}

    item.__annotations__["data"] = Item
    item.__annotations__["return"] = dict[str, Any]
    routes = [
        litestar.get("/", media_type=litestar.MediaType.TEXT)(text),
        litestar.get("/users/{id:int}")(user),
        litestar.post("/items")(item),
    ]
    return litestar.Litestar(routes, openapi_config=None)


APPS: dict[str, Callable[[], Any]] = {
    "router": flowcoro_router,
    "fastapi": fastapi_app,
    "litestar": litestar_app,
    "asgi": lambda: hello_asgi,
}


async def rsgi(scope: Any, protocol: Any) -> None:
    """The least that an RSGI application can be."""
    protocol.response_str(200, [("content-type", "text/plain; charset=utf-8")], TEXT)


def serve_native(app: Any) -> None:
    import flowcoro
    from flowcoro_http import HttpServer

    async def main() -> None:
        async with HttpServer(app, port=0, backend="native") as server:
            announce(server.port)
            await asyncio.Event().wait()

    flowcoro.run(main())


def serve_hypercorn(app: Any) -> None:
    from flowcoro_http import HttpServer

    async def main() -> None:
        async with HttpServer(app, port=0, backend="hypercorn") as server:
            announce(server.port)
            await asyncio.Event().wait()

    asyncio.run(main())


def serve_uvicorn(app: Any) -> None:
    port = free_port()
    announce(port)
    peer("uvicorn").run(app, port=port, loop="uvloop", http="httptools", log_level="error")


def serve_granian(kind: str, app: str) -> None:
    port = free_port()
    announce(port)
    peer("granian").Granian(
        f"_http_server:{app}",
        port=port,
        interface=peer("granian.constants").Interfaces(kind),
        workers=1,
        log_enabled=False,
    ).serve()


def serve_socketify() -> None:
    app = peer("socketify").App()

    async def text(response: Any, request: Any) -> None:
        response.end(TEXT)

    app.get("/", text)
    port = free_port()
    app.listen(port, lambda _: announce(port))
    app.run()


# For granian, which imports them by name in a process of its own.
def __getattr__(name: str) -> Any:
    if name.endswith("_instance"):
        return APPS[name.removesuffix("_instance")]()
    raise AttributeError(name)


def main() -> None:
    server, _, app = sys.argv[1].partition(":")
    if server == "native":
        serve_native(APPS[app]())
    elif server == "hypercorn":
        serve_hypercorn(APPS[app]())
    elif server == "uvicorn":
        serve_uvicorn(APPS[app]())
    elif server == "granian":
        if app == "rsgi":
            serve_granian("rsgi", "rsgi")
        else:
            serve_granian("asgi", f"{app}_instance")
    elif server == "socketify":
        serve_socketify()
    else:
        sys.exit(f"no server {server!r}")


if __name__ == "__main__":
    main()
