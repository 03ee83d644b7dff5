from __future__ import annotations

import inspect
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import flowcoro
import flowcoro_http
import flowcoro_http.plugin as our_plugin
from flowcoro.app import App, Component, ComponentFactory
from flowcoro.cli import Command
from flowcoro.config import ConfigSection
from flowcoro.errors import ConfigError, PluginError
from flowcoro.plugins import PluginHost, PluginStatus
from flowcoro.testing import make_context, make_host
from flowcoro.testing.contracts import (
    CommandContract,
    ComponentContract,
    ConfigSectionContract,
    PluginContract,
)
from flowcoro_http import (
    HttpClient,
    HttpConfig,
    HttpServer,
    Middleware,
    Request,
    Response,
    ResponseEncoder,
    Route,
    Router,
    ServerBackend,
    hookspecs,
)
from flowcoro_http._middleware import CallNext
from flowcoro_http.testing import (
    MiddlewareContract,
    ResponseEncoderContract,
    RouteContract,
    ServerBackendContract,
    client_for,
)


class TestPlugin(PluginContract):
    @pytest.fixture
    def plugin(self) -> ModuleType:
        return our_plugin


class TestConfig(ConfigSectionContract):
    @pytest.fixture
    def section(self) -> ConfigSection:
        return next(iter(our_plugin.flowcoro_config_sections()))


class TestCommand(CommandContract):
    @pytest.fixture
    def item(self) -> Command:
        return next(iter(our_plugin.flowcoro_commands()))


class TestServerComponent(ComponentContract):
    @pytest.fixture
    def factory(self) -> ComponentFactory:
        return ComponentFactory("http", lambda: HttpServer(Router(), port=0))

    @pytest.fixture
    def plugins(self) -> list[object]:
        return [our_plugin]


class TestClientComponent(ComponentContract):
    @pytest.fixture
    def factory(self) -> ComponentFactory:
        return ComponentFactory("client", HttpClient)


class TestNative(ServerBackendContract):
    @pytest.fixture
    def backend(self) -> ServerBackend:
        return our_plugin.flowcoro_http_servers()[0]


class TestNativeOnOurLoop(TestNative):
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, object]]:
        return "asyncio", {"loop_factory": flowcoro.new_event_loop}


class TestHypercorn(ServerBackendContract):
    @pytest.fixture
    def backend(self) -> ServerBackend:
        return our_plugin.flowcoro_http_servers()[1]


class TestJson(ResponseEncoderContract):
    @pytest.fixture
    def encoder(self) -> ResponseEncoder:
        return next(iter(our_plugin.flowcoro_http_response_encoders()))


class TestExampleMiddleware(MiddlewareContract):
    @pytest.fixture
    def middleware(self) -> Middleware:
        async def add(request: Request, call_next: CallNext) -> Response:
            response = await call_next(request)
            response.headers["x-request-id"] = request.id
            return response

        return Middleware("request-id", add)


class TestExampleRoute(RouteContract):
    @pytest.fixture
    def route(self) -> Route:
        async def ping() -> str:
            """Answer."""
            return "pong"

        return Route("/ping", ping, name="ping")


HOOKS = [getattr(hookspecs, name) for name in hookspecs.__all__]


def example(hook: Any) -> ModuleType:
    """The example of a hook's docstring, run as a module."""
    code = re.search(r"```python\n(.*?)```", inspect.getdoc(hook) or "", re.S)
    assert code is not None
    module = types.ModuleType(f"example_of_{hook.__name__}")
    exec(textwrap.dedent(code[1]), module.__dict__)
    return module


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_is_documented_and_its_example_runs(hook: Any) -> None:
    text = inspect.getdoc(hook) or ""
    for part in ("When:", "Thread:", "Result:", "On failure:", "Since:", "Example:"):
        assert part in text
    with pytest.raises(AssertionError):
        hook(*inspect.signature(hook).parameters)
    host = make_host(our_plugin)
    record = host.register(example(hook))
    assert record.status is PluginStatus.LOADED
    assert record.hooks == (hook.__name__,)


async def test_an_application_has_what_plugins_add() -> None:
    host = make_host(our_plugin, *(example(hook) for hook in HOOKS))
    router = Router()

    @router.get("/value")
    async def value() -> dict[str, int]:
        """A value."""
        return {"a": 1}

    server = HttpServer(router, port=0, backend="my-hypercorn")
    for _ in range(2):  # a second start adds nothing twice
        async with App(server, plugins=host), httpx.AsyncClient(base_url=server.url) as client:
            response = await client.get("/ping", headers={"x-request-id": "r1"})
            assert (response.text, response.headers["x-request-id"]) == ("pong", "r1")
            response = await client.get("/value", headers={"accept": "application/msgpack"})
            assert response.headers["content-type"] == "application/msgpack"
            assert "/ping" in (await client.get("/openapi.json")).json()["paths"]
    assert len(router.routes) == 1


def test_a_backend_that_no_plugin_provides() -> None:
    server = HttpServer(Router(), port=0, backend="quick")
    with pytest.raises(PluginError, match="no plugin provides server backend 'quick'"):
        server.attach(make_context(plugins=[our_plugin]))
    with pytest.raises(ConfigError, match="'quick' comes from a plugin"):
        server.attach(make_context())


async def test_without_its_own_plugin_defaults_hold() -> None:
    server = HttpServer(Router(), port=0)
    async with App(server, plugins=make_host()), httpx.AsyncClient() as client:
        assert (await client.get(server.url)).status_code == 404


async def test_an_application_with_an_empty_host() -> None:
    server = HttpServer(Router(), port=0)
    server.attach(make_context(plugins=PluginHost()))
    async with server:
        assert server.port > 0


async def test_settings_come_from_the_configuration() -> None:
    router = Router()

    @router.post("/")
    async def size(request: Request) -> int:
        return len(await request.body())

    server = HttpServer(router, config=HttpConfig(max_body_bytes=3))
    server.attach(
        make_context(
            plugins=[our_plugin],
            config={"http": {"max_body_bytes": 5}, "server": {"host": "127.0.0.1", "port": 0}},
        )
    )
    async with server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.post("/", content=b"1234")).status_code == 413
    server = HttpServer(router)
    server.attach(
        make_context(
            plugins=[our_plugin],
            config={"http": {"max_body_bytes": 5, "openapi": False}, "server": {"port": 0}},
        )
    )
    async with server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.post("/", content=b"1234")).json() == 4
        assert (await client.get("/openapi.json")).status_code == 404


class Store(Component):
    name = "store"


async def test_a_server_starts_after_what_its_handlers_need() -> None:
    router = Router()

    @router.provide
    def wrapped(store: Store) -> Wrapper:
        return Wrapper(store)

    @router.get("/")
    async def use(wrapped: Wrapper) -> str:
        return wrapped.store.name

    server = HttpServer(router, port=0)
    async with App(server, Store(), plugins=make_host(our_plugin)):
        assert server.requires == ("store",)
        async with httpx.AsyncClient() as client:
            assert (await client.get(server.url)).text == "store"


class Wrapper:
    def __init__(self, store: Store) -> None:
        self.store = store


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "shop_for_test.py").write_text(
        "from flowcoro_http import HttpServer, Router\n"
        "router = Router('/shop')\n"
        "@router.get('/items/{id:int}')\n"
        "async def item(id: int) -> int:\n"
        "    '''Show an item.'''\n"
        "    return id\n"
        "@router.websocket('/ws')\n"
        "async def ws() -> None: ...\n"
        "server = HttpServer(router)\n"
        "class app:\n"
        "    components = [server]\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "shop_for_test"
    sys.modules.pop("shop_for_test", None)


@pytest.mark.parametrize("attribute", [":router", ":server", ""])
def test_the_routes_command(module: str, attribute: str) -> None:
    command = next(iter(our_plugin.flowcoro_commands())).load()
    result = CliRunner().invoke(command, [module + attribute])
    assert result.output.splitlines() == [
        "GET        /shop/items/{id:int}  - Show an item",
        "WEBSOCKET  /shop/ws",
    ]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:app", "No module named"),
        ("shop_for_test:missing", "no attribute 'missing'"),
        ("shop_for_test:item", "is a function; expected a Router"),
        ("", "Empty module name"),
    ],
)
def test_the_routes_command_without_routes(module: str, target: str, words: str) -> None:
    command = next(iter(our_plugin.flowcoro_commands())).load()
    result = CliRunner().invoke(command, [target])
    assert result.exit_code == 1
    assert words in result.output


def test_public_names_load_from_their_homes() -> None:
    assert set(flowcoro_http.__all__) == {*flowcoro_http._HOMES, "__version__"}
    for name in flowcoro_http._HOMES:
        vars(flowcoro_http).pop(name, None)
        assert getattr(flowcoro_http, name).__name__ or True
    assert set(flowcoro_http.__all__) <= set(dir(flowcoro_http))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = flowcoro_http.nothing


def test_every_private_module_keeps_its_word() -> None:
    folder = Path(flowcoro_http.__file__).parent
    for path in folder.rglob("*.py"):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        module = __import__(name.removesuffix(".__init__"), fromlist=["__all__"])
        if path.name != "__init__.py":
            missing = [n for n in module.__all__ if not hasattr(module, n)]
            assert not missing, f"{name}: {missing}"
        assert len(path.read_text().splitlines()) <= 500, f"{name} is too long"


async def test_a_client_for_any_application() -> None:
    async with client_for(Router(), base_url="http://other") as client:
        assert str(client.base_url) == "http://other"


async def test_the_example_of_the_readme() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code is not None
    module = types.ModuleType("readme")
    exec(code[1], module.__dict__)
    assert isinstance(module.app, App)
    async with client_for(module.router) as client:
        assert (await client.put("/notes/1", json={"text": "a"})).status_code == 201
        assert (await client.get("/notes/1")).json() == {"text": "a"}
        assert (await client.get("/notes/2")).json()["detail"] == "there is no note 2"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("backlog", 10**12, "http.backlog = 1000000000000: expected `int` <= 2147483647"),
        ("max_head_bytes", 1, "http.max_head_bytes = 1: expected `int` >= 1024"),
        ("max_head_bytes", 10**12, "http.max_head_bytes = 1000000000000: expected `int` <= "),
    ],
)
def test_settings_that_nothing_can_be_served_with(key: str, value: int, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        make_context(plugins=[our_plugin], config={"http": {key: value}})
