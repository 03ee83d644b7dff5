"""`Router`: what an application's author writes routes with.

A router only collects; `bind` turns it into an `Application` without changing it, so it
can be bound twice (two servers, two starts). Called as an ASGI application of its own,
it binds itself when first used, with its own dependencies only.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, overload

from flowcoro.app import Dependencies
from flowcoro_http._asgi import Application, ErrorHandler
from flowcoro_http._assembly import About, Assembly, describe
from flowcoro_http._config import Limits
from flowcoro_http._declared import check_count, check_path
from flowcoro_http._encoding import JSON, ResponseEncoder
from flowcoro_http._middleware import Middleware, MiddlewareHandler
from flowcoro_http._parameters import check_signature, read_signature
from flowcoro_http._registry import Registered, Registry
from flowcoro_http._response import Response
from flowcoro_http._route import Route
from flowcoro_http._routing import PathTemplate
from flowcoro_http._settings import (
    check_application,
    check_exception,
    check_literal,
    check_middleware,
    check_options,
    check_settings,
    checked_prefix,
)
from flowcoro_http._static import StaticFiles
from flowcoro_http._types import ASGIApp, Handler, Receive, Scope, Send
from flowcoro_http._urls import RouteUrls

__all__ = ["Router"]

H = TypeVar("H", bound=Handler)
E = TypeVar("E", bound=ErrorHandler)
M = TypeVar("M", bound=MiddlewareHandler)
F = TypeVar("F", bound=Callable[..., Any])


class Router:
    """Typed routes; itself an ASGI 3 application.

    Example:
        ```python
        import msgspec
        from flowcoro_http import Router


        class Note(msgspec.Struct):
            text: str


        router = Router()


        @router.get("/hello/{name}")
        async def hello(name: str, excited: bool = False) -> str:
            return f"Hello, {name}{'!' if excited else '.'}"


        @router.post("/notes", status=201)
        async def add(note: Note) -> Note:
            return note
        ```

    What a handler returns becomes the response: a `Response` as it is, `str` as plain
    text, `bytes` as they are, None as 204, anything else as JSON. A plain (not `async`)
    handler runs in a worker thread.

    What a handler raises becomes a problem document (RFC 9457): `HttpError` as it says,
    `TimeoutError` 504, anything else 500, logged under a request id and without a word
    on the inside; `exception_handler` changes that. Bad parameters are told all at once:
    422, or 400 where something is not even well-formed.

    Args:
        prefix: goes before every path, such as `/api`.
        title: of the OpenAPI document.
        version: of the API, for the OpenAPI document.
        description: of the API, for the OpenAPI document.
        openapi: the path of the OpenAPI document; None for no document.
        docs: the path of the page that shows the document; None for no page.
        tags: OpenAPI tags of every route.
        max_body_bytes: the largest body of every route; the server's limit when None.

    Raises:
        TypeError: one of these is of another type.
        ValueError: a path cannot be read, or `max_body_bytes` is negative.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        title: str = "FlowCoro",
        version: str = "0.1.0",
        description: str = "",
        openapi: str | None = "/openapi.json",
        docs: str | None = "/docs",
        tags: Sequence[str] = (),
        max_body_bytes: int | None = None,
    ) -> None:
        texts = {"title": title, "version": version, "description": description}
        check_settings(texts, {"openapi": openapi, "docs": docs}, tags, max_body_bytes)
        self.title = title
        self.version = version
        self.description = description
        self.openapi_path = openapi
        self.docs_path = docs
        self.registry = Registry(checked_prefix("Router", prefix), tuple(tags), max_body_bytes)
        self._application: Application | None = None
        self._revision = -1
        self._urls = (-1, RouteUrls(()))
        self._binding = threading.Lock()

    # -- registration ----------------------------------------------------------------

    def route(
        self, path: str, *, methods: Sequence[str] = ("GET",), **options: Any
    ) -> Callable[[H], H]:
        """Register the decorated handler.

        Args:
            path: the template: `/users/{id}`, `/users/{id:int}`, `/files/{rest:path}`;
                converters are `str`, `int`, `float`, `uuid` and `path`. A trailing
                slash counts.
            methods: the methods it takes. `HEAD` comes with `GET`, `OPTIONS` by itself.
            options: the other attributes of `Route`: `status`, `name`, `tags`,
                `summary`, `description`, `deprecated`, `in_schema`, `max_body_bytes`.

        Raises:
            ValueError: the template cannot be read, or an option has no such value.
            ParameterError: a parameter of the handler cannot be filled.
            TypeError: the handler is none, such as a generator function; there is no such
                option, or it is of another type.
        """
        return self._decorator("route", path, options, methods=methods)

    def get(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler of GET and HEAD; see `route`."""
        return self._decorator("get", path, options, methods=("GET",))

    def post(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler of POST; see `route`."""
        return self._decorator("post", path, options, methods=("POST",))

    def put(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler of PUT; see `route`."""
        return self._decorator("put", path, options, methods=("PUT",))

    def patch(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler of PATCH; see `route`."""
        return self._decorator("patch", path, options, methods=("PATCH",))

    def delete(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a handler of DELETE; see `route`."""
        return self._decorator("delete", path, options, methods=("DELETE",))

    def websocket(self, path: str, **options: Any) -> Callable[[H], H]:
        """Register a coroutine function for WebSockets; it has a parameter of type `WebSocket`."""
        return self._decorator("websocket", path, options, websocket=True)

    def add(self, route: Route) -> None:
        """Register a ready `Route`; raises as `route`."""
        if not isinstance(route, Route):
            raise TypeError(f"Router.add: expected a Route, got {route!r}")
        self._register(Registered(route), sys._getframe(1).f_locals)  # noqa: SLF001

    def include(self, prefix: str, router: Router) -> None:
        """Serve another router's routes under a prefix.

        Its middleware and its exception handlers hold for its own routes, within this
        router's; what it provides is provided to all. Routes that it gets later count.

        Args:
            prefix: goes before its paths; may have parameters.
            router: the other router.

        Raises:
            TypeError: it is no router, or the prefix no text.
            ValueError: the prefix cannot be read, or the routers include each other.
        """
        checked = checked_prefix("Router.include", prefix)
        if not isinstance(router, Router):
            raise TypeError(f"Router.include at {prefix!r}: expected a Router, got {router!r}")
        if self.registry in router.registry.everything():
            raise ValueError(f"router at {prefix!r} would include itself")
        self.registry.included.append((checked, router.registry))
        Registry.changes += 1

    def mount(self, prefix: str, app: ASGIApp) -> None:
        """Hand everything under a prefix to another ASGI application.

        Routes win over mounted applications. This router's middleware does not see their
        requests, and their lifespan is not run.

        Args:
            prefix: at least one literal segment, such as `/static`.
            app: the other application; it gets the prefix as `root_path`.

        Raises:
            TypeError: it is no ASGI 3 application.
            ValueError: the prefix is empty or has parameters.
        """
        checked = checked_prefix("Router.mount", prefix)
        check_application(f"Router.mount at {prefix!r}", app)
        check_literal("mount", prefix, checked)
        self.registry.mounts.append((checked, app))
        Registry.changes += 1

    def static(
        self,
        prefix: str,
        directory: str | os.PathLike[str],
        *,
        index: str = "",
        hidden: bool = False,
        cache_control: str = "",
    ) -> None:
        """Serve the files of a folder under a prefix; see `StaticFiles`.

        Args:
            prefix: goes before the files' paths, such as `/static`; without parameters, may be
                empty.
            directory: the folder.
            index: name of the file that stands for a folder, such as `index.html`.
            hidden: whether files and folders whose name begins with a dot are served.
            cache_control: the `Cache-Control` of every file; none when empty.

        Raises:
            NotADirectoryError: there is no such folder.
            ValueError: the prefix or `index` cannot be used.
        """
        checked = checked_prefix("Router.static", prefix)
        check_literal("static", prefix, checked, may_be_empty=True)
        files = StaticFiles(directory, index=index, hidden=hidden, cache_control=cache_control)
        self._register(Registered(Route(f"{checked}/{{path:path}}", files, in_schema=False)), {})
        if index and checked:

            async def to_folder() -> Response:
                return files.redirect(checked.rpartition("/")[2])

            self._register(Registered(Route(checked, to_folder, in_schema=False)), {})

    def use(self, *middleware: Middleware) -> None:
        """Register ready middleware, such as that of `flowcoro_http.middleware`.

        Args:
            middleware: each stands where its `order` says.

        Raises:
            TypeError: one is none; a function becomes one by `router.middleware`.
        """
        for item in middleware:
            check_middleware(item)
        self.registry.middleware.extend(middleware)
        Registry.changes += 1

    @overload
    def middleware(self, handler: M) -> M: ...

    @overload
    def middleware(self, *, name: str = "", order: int = 0) -> Callable[[M], M]: ...

    def middleware(
        self, handler: M | None = None, *, name: str = "", order: int = 0
    ) -> M | Callable[[M], M]:
        """Register the decorated `async def handler(request, call_next) -> Response`.

        Args:
            handler: the middleware, when used without parentheses.
            name: for messages; the function's when empty.
            order: where it stands; the lowest is outermost.

        Raises:
            TypeError: the handler is no coroutine function of two arguments.
        """

        def decorate(handler: M) -> M:
            label = name or getattr(handler, "__name__", type(handler).__name__)
            self.registry.middleware.append(Middleware(label, handler, order))
            Registry.changes += 1
            return handler

        return decorate if handler is None else decorate(handler)

    def exception_handler(self, kind: type[Exception]) -> Callable[[E], E]:
        """Register `handler(request, error)`, whose result answers instead.

        The nearest class of the exception wins; a handler for `HttpError` sees the
        problems that handlers raise, not those for unknown paths and methods.

        Args:
            kind: the exception, subclasses included.

        Raises:
            TypeError: that is no class of exceptions, or the handler does not take two
                arguments.
        """
        check_exception(kind)

        def decorate(handler: E) -> E:
            where = f"exception handler of {kind.__name__}"
            check_count(where, handler, ("request", "error"), plain=True)
            self.registry.error_handlers[kind] = handler
            Registry.changes += 1
            return handler

        return decorate

    def provide(self, factory: F, *, as_type: type | None = None) -> F:
        """Offer what `factory` makes, once per request, to annotated parameters.

        A factory may ask for `Request`, `WebSocket` or `RequestHead`. It is offered to
        the whole application that serves this router. Usable as a decorator.

        Args:
            factory: see `flowcoro.app.Dependencies.provide`.
            as_type: the type that annotations name.
        """
        if not callable(factory):
            raise TypeError(f"Router.provide: expected a function or a class, got {factory!r}")
        self.registry.providers.append((factory, as_type))
        Registry.changes += 1
        return factory

    # -- use --------------------------------------------------------------------------

    @property
    def routes(self) -> list[Route]:
        """Every route, those of included routers too, with full paths."""
        return [flat.route for flat in self.registry.flatten()]

    def url_for(self, name: str, /, **params: Any) -> str:
        """Return the path of a route: absolute, percent-encoded, prefixes included.

        A handler asks `request.url_for`, which knows where the application is mounted.

        Example:
            ```python
            from flowcoro_http import Router

            router = Router("/api")


            @router.get("/users/{id:int}", name="user")
            async def show(id: int) -> str: ...


            assert router.url_for("user", id=7) == "/api/users/7"
            assert router.url_for("show", id=7) == "/api/users/7"
            ```

        Args:
            name: the name that the route was given; or its methods and path, such as
                `GET /api/users/{id:int}`; or its handler's function's name, where that
                stands for one path only.
            params: what the path's parameters are: text, numbers, `bool`, `UUID`,
                dates and times, `Decimal`, enums.

        Raises:
            UrlError: no route or several have the name, or a parameter is missing,
                surplus or unsuitable.
        """
        revision, urls = self._urls
        if revision != Registry.changes:
            revision = Registry.changes
            urls = RouteUrls(self.routes)
            self._urls = (revision, urls)
        return urls.path_for(name, params)

    def openapi(self, *, title: str | None = None, version: str | None = None) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document of the routes.

        Args:
            title: of the document; the router's when not given.
            version: of the API; the router's when not given.

        Raises:
            ParameterError: a handler's annotations cannot be resolved.
        """
        about = About(title or self.title, version or self.version, self.description)
        return describe(self.registry, about)

    def bind(
        self,
        *,
        dependencies: Dependencies | None = None,
        routes: Iterable[tuple[str, Route]] = (),
        middleware: Iterable[Middleware] = (),
        encoders: Sequence[ResponseEncoder] = (JSON,),
        limits: Limits | None = None,
        openapi: bool = True,
        docs: bool = True,
    ) -> Application:
        """Make the application that serves these routes; this router does not change.

        Args:
            dependencies: what handlers may ask for; only the router's own when None.
            routes: further routes, each with the label of its owner. This router's win
                over them; a warning is logged.
            middleware: outside this router's own of the same order.
            encoders: encode what handlers return.
            limits: for what no router or route sets.
            openapi: whether to serve the document at the router's `openapi` path.
            docs: whether to serve the page that shows it at the router's `docs` path.

        Raises:
            ParameterError: a handler's parameter cannot be filled.
            DependencyError: nothing, or too much, provides what one asks for.
            RouteConflictError: two of the router's routes have one path and method.
        """
        prefix = self.registry.prefix
        path = None
        if openapi and self.openapi_path is not None:
            path = prefix + self.openapi_path
        assembly = Assembly(self.registry, dependencies or Dependencies(), limits or Limits())
        return assembly.application(
            routes=routes,
            middleware=middleware,
            encoders=encoders,
            about=About(self.title, self.version, self.description),
            document_path=path,
            docs_path=prefix + self.docs_path if docs and self.docs_path is not None else None,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI application of its own, without plugins."""
        if scope["type"] == "lifespan":
            await self._start(scope, receive, send)
        else:
            await self._bound()(scope, receive, send)

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            application = self._bound()
        except Exception as error:  # noqa: BLE001 - the server that asked reports it
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await application(scope, receive, send)

    def _bound(self) -> Application:
        """Return the application of what is registered by now."""
        application = self._application
        if application is not None and self._revision == Registry.changes:
            return application
        with self._binding:
            revision = Registry.changes
            application = self._application = self.bind()
            self._revision = revision
        return application

    # -- the work behind -----------------------------------------------------------------

    def _decorator(
        self, name: str, path: str, options: dict[str, Any], **own: Any
    ) -> Callable[[H], H]:
        local_names = sys._getframe(2).f_locals  # noqa: SLF001 - see _register
        check_path(f"Router.{name}", path, example=f"@router.{name}('/items')")
        check_options(f"Router.{name} at {path!r}", options)

        def decorate(handler: H) -> H:
            self._register(Registered(Route(path, handler, **own, **options)), local_names)
            return handler

        return decorate

    def _register(self, registered: Registered, local_names: dict[str, Any]) -> None:
        """Take a route in; complain at once where that is possible.

        Annotations that are strings may name classes of the function that registers the
        handler, which only its frame knows.
        """
        route = registered.route
        template = PathTemplate.parse(self.registry.prefix + route.path)
        try:
            check_signature(route, template, read_signature(route.handler, {}))
        except NameError:
            # Or a name that the module defines later: it is looked for again when bound.
            registered.local_names = dict(local_names)
        self.registry.routes.append(registered)
        Registry.changes += 1
