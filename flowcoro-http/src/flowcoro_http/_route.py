"""`Route`: one path, its methods, its handler and what the documentation says of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flowcoro_http._checks import check_int, check_text, check_texts
from flowcoro_http._declared import TOKEN, check_handler, check_path, name_of
from flowcoro_http._routing import ANY_METHOD, WEBSOCKET
from flowcoro_http._types import Handler

__all__ = ["Route", "methods_of"]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path; plugins return these from `flowcoro_http_routes`.

    Attributes:
        path: the template, such as `/users/{id:int}`.
        handler: the typed handler; a plain function runs in a worker thread.
        methods: the methods it takes, in upper case.
        name: what `url_for` finds it by; unique among plugins' routes. When not given,
            `GET /users/{id:int}`.
        status: the status of a response that the handler does not make itself.
        websocket: whether it takes WebSocket handshakes instead of requests.
        max_body_bytes: the largest body it takes; the router's limit when None.
        summary: one line for OpenAPI; the docstring's first when empty.
        description: more for OpenAPI; the rest of the docstring when empty.
        tags: groups for OpenAPI.
        deprecated: whether OpenAPI marks it so.
        in_schema: whether OpenAPI lists it.

    Raises:
        TypeError: the handler is none, such as a generator function, or a plain function for
            WebSockets; or another field is of another type.
        ValueError: a method, the status or `max_body_bytes` is none.
    """

    path: str
    handler: Handler
    methods: Sequence[str] = ("GET",)
    name: str = ""
    status: int = 200
    websocket: bool = False
    max_body_bytes: int | None = None
    summary: str = ""
    description: str = ""
    tags: Sequence[str] = ()
    deprecated: bool = False
    in_schema: bool = True

    def __post_init__(self) -> None:
        check_path(f"route of {name_of(self.handler)}", self.path)
        where = f"route {self.path!r}"
        if isinstance(self.methods, str):
            raise TypeError(f"methods of {self.path!r}: expected a sequence, such as ('GET',)")
        methods = (WEBSOCKET,) if self.websocket else _methods(where, self.methods)
        check_handler(where, self.handler, websocket=self.websocket)
        check_int(f"{where}: status", self.status, least=200, most=599)
        check_int(f"{where}: max_body_bytes", self.max_body_bytes, optional=True)
        check_texts(f"{where}: tags", self.tags, "['users']")
        for field in ("name", "summary", "description"):
            check_text(f"{where}: {field}", getattr(self, field))
        object.__setattr__(self, "methods", methods)
        object.__setattr__(self, "tags", tuple(self.tags))
        if not self.name:
            object.__setattr__(self, "name", self._default_name)

    @property
    def _default_name(self) -> str:
        return f"{'|'.join(self.methods)} {self.path}"

    @property
    def given_name(self) -> str:
        """The name if one was given, else empty."""
        return "" if self.name == self._default_name else self.name

    @property
    def label(self) -> str:
        """How messages name it: methods, path and handler."""
        handler = getattr(self.handler, "__qualname__", repr(self.handler))
        return f"{'|'.join(self.methods)} {self.path} ({handler})"

    def documentation(self) -> tuple[str, str]:
        """Return summary and description, from the fields or from the docstring."""
        text = inspect.getdoc(self.handler) or ""
        first, _, rest = text.partition("\n\n")
        summary = self.summary or " ".join(first.split()).removesuffix(".")
        return summary, self.description or rest.strip()


def methods_of(routes: Iterable[Route]) -> frozenset[str]:
    """Return the methods that some of the routes take, and `OPTIONS`."""
    found = {"OPTIONS", *(method for route in routes for method in route.methods)}
    return frozenset(found | {"HEAD"} if "GET" in found else found)


def _methods(where: str, given: Sequence[str]) -> tuple[str, ...]:
    check_texts(f"{where}: methods", tuple(given), "('GET',)")
    methods = tuple(method.upper() for method in given)
    if not methods:
        raise ValueError(f"{where} has no methods")
    for method in methods:
        if method == WEBSOCKET:
            raise ValueError(f"{where}: {method} is no method; use Router.websocket")
        if method == ANY_METHOD or not TOKEN.match(method):
            raise ValueError(f"{where}: {method!r} is no method; name each, such as 'GET'")
    return methods
