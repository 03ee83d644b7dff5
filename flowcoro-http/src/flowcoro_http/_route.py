"""`Route`: one path, its methods, its handler and what the documentation says of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flowcoro_http._routing import WEBSOCKET
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
        if isinstance(self.methods, str):
            raise TypeError(f"methods of {self.path!r}: expected a sequence, such as ('GET',)")
        methods = (WEBSOCKET,) if self.websocket else tuple(m.upper() for m in self.methods)
        if not methods:
            raise ValueError(f"route {self.path!r} has no methods")
        if not 200 <= self.status <= 599:
            raise ValueError(f"route {self.path!r}: status {self.status} is not from 200 to 599")
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
