"""What `flowcoro run` takes for an ASGI application, and what not."""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from typing import Any

import fastapi
import pytest
import starlette.applications

import flowcoro_http.plugin as our_plugin
from flowcoro.cli import TargetKind
from flowcoro.errors import TargetError
from flowcoro.testing.contracts import TargetKindContract
from flowcoro_http import HttpServer, Router
from flowcoro_http._target import is_application, serve


async def plain(scope: Any, receive: Any, send: Any) -> None: ...


async def with_options(scope: Any, receive: Any, send: Any, *, debug: bool = False) -> None: ...


def wrapped(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    return plain(scope, receive, send)


class Instance:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class OtherNames:
    """The specification calls them positional."""

    async def __call__(self, _1: Any, _2: Any, _3: Any) -> None: ...


class InSlot:
    """Chooses at its start what its call is, as a well-known middleware does."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = plain


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class Shy:
    """A proxy outside its context."""

    def __call__(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("working outside of request context")


async def with_another(scope: Any, receive: Any, send: Any, more: Any) -> None: ...
async def of_anything(*arguments: Any) -> None: ...
async def without() -> None: ...
def of_three(first: Any, second: Any, third: Any) -> None: ...


APPLICATIONS: dict[str, Any] = {
    "function": plain,
    "function with options": with_options,
    "plain function": wrapped,
    "instance": Instance(),
    "bound method": Instance().__call__,
    "other names": OtherNames(),
    "partial": functools.partial(with_options, debug=True),
    "slot": InSlot(),
    "Router": Router(),
    "FastAPI": fastapi.FastAPI(),
    "Starlette": starlette.applications.Starlette(),
    "WSGI": Wsgi(),
}
OTHERS: dict[str, Any] = {
    "class": Instance,
    "four parameters": with_another,
    "any parameters": of_anything,
    "no parameters": without,
    "no coroutine": of_three,
    "builtin": print,
    "no callable": 5,
    "proxy": Shy(),
    "factory": lambda: plain,
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application(name: str) -> None:
    assert is_application(APPLICATIONS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_no_application(name: str) -> None:
    assert not is_application(OTHERS[name])


@pytest.mark.parametrize("found", [fastapi.FastAPI(), Router(), plain])
def test_it_is_served(found: Any) -> None:
    (server,) = serve(found).components
    assert isinstance(server, HttpServer)
    assert server.app is found


def test_a_wsgi_application_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        TargetError, match=r"found a WSGI one \(Wsgi\); a2wsgi.WSGIMiddleware makes"
    ):
        serve(Wsgi())  # type: ignore[arg-type]


class TestTarget(TargetKindContract):
    @pytest.fixture
    def kind(self) -> TargetKind:
        (kind,) = our_plugin.flowcoro_targets()
        return kind

    @pytest.fixture(params=["instance", "FastAPI", "Router"])
    def found(self, request: pytest.FixtureRequest) -> object:
        return APPLICATIONS[request.param]
