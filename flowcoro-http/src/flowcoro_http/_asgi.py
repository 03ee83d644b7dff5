"""The bound router: requests, WebSockets and lifespan.

`Application` is what a `Router` becomes once its routes, dependencies, middleware and
encoders are known; it never changes, so requests share it without locks. A request goes
through: table -> middleware -> endpoint (bind, call, encode) -> exchange. Errors become
responses at the endpoint and again around each middleware (`_guard`).

It is an ASGI 3 application. The native engine calls `handle`, `finish` and `recover`
instead, with exchanges of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

from flowcoro.app import Dependencies
from flowcoro_http._binding import Binder
from flowcoro_http._config import Limits
from flowcoro_http._encoding import EncoderSet
from flowcoro_http._exchange import AsgiExchange, AsgiHead, Exchange
from flowcoro_http._lifespan import answer_lifespan
from flowcoro_http._middleware import CallNext, Middleware, chain, no_response, own_cancellation
from flowcoro_http._mounting import path_within, scope_below
from flowcoro_http._problem import ClientDisconnected, HttpError, Problem, phrase
from flowcoro_http._request import Request, RequestHead
from flowcoro_http._response import Response, as_response, problem_response, render, settle
from flowcoro_http._route import Route, methods_of
from flowcoro_http._routing import WEBSOCKET, MalformedPathError, Match, RouteTable
from flowcoro_http._sending import UnsendableError, label_of, send_response
from flowcoro_http._types import ASGIApp, Handler, Receive, Scope, Send
from flowcoro_http._urls import RouteUrls
from flowcoro_http._websocket import InvalidMessageError, WebSocket

__all__ = ["Application", "Endpoint", "ErrorHandler", "Mount"]

logger = logging.getLogger("flowcoro.http")

ErrorHandler: TypeAlias = Callable[[Request, Any], Any]
"""Turns an exception into what a handler could have returned."""

_CLIENT_CLOSED = 499
# Of the server, of the event loop, of the interpreter: not a handler's failure.
_PASSING = (Exception, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
_INTERNAL, _POLICY, _NORMAL = 1011, 1008, 1000


@dataclass(slots=True)
class Mount:
    """Another ASGI application under a prefix."""

    prefix: str
    app: ASGIApp


@dataclass(slots=True)
class Endpoint:
    """A route that is ready to be called.

    Attributes:
        route: the route, its path the full template.
        binder: makes the handler's arguments.
        limits: the limits of this route.
        error_handlers: by exception type, the nearest router's first.
        dependencies: opens scopes for what is made per request.
        respond: answers a request, the middleware of included routers around it.
        has_middleware: whether there is any of those.
        invoke: calls the handler, in a thread if it is a plain function.
    """

    route: Route
    binder: Binder
    limits: Limits
    error_handlers: Sequence[Mapping[type[Exception], ErrorHandler]]
    dependencies: Dependencies
    respond: CallNext | None = None
    has_middleware: bool = False
    invoke: Callable[[dict[str, Any]], Awaitable[Any]] = field(init=False)

    def __post_init__(self) -> None:
        handler = self.route.handler
        is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - its kind, not whether it is there
        )
        self.invoke = partial(_await_it if is_async else _in_thread, handler)

    async def call(self, request: RequestHead) -> Any:
        """Bind the arguments and call the handler.

        What was made for the request is released before its response goes out, so that
        a failing commit is still an error; for a stream, after its last piece.
        """
        if not self.binder.needs_scope:
            return await self.invoke(await self.binder.bind(request, None))
        seeds: dict[type, object] = {type(request): request, RequestHead: request}
        async with AsyncExitStack() as stack:
            scope = await stack.enter_async_context(self.dependencies.scope(seeds))
            result = await self.invoke(await self.binder.bind(request, scope))
            if isinstance(request, Request) and isinstance(result, Response) and result.is_stream:
                request.routing.at_end(stack.pop_all().aclose)
            return result


async def _await_it(handler: Handler, arguments: dict[str, Any]) -> Any:
    return await handler(**arguments)


async def _in_thread(handler: Handler, arguments: dict[str, Any]) -> Any:
    result = await anyio.to_thread.run_sync(partial(handler, **arguments))
    return await result if inspect.isawaitable(result) else result


class Application:
    """A bound router.

    Args:
        table: what answers what.
        endpoints: the endpoints in the table.
        middleware: goes around every request, in order of registration.
        error_handlers: the router's, for errors outside of endpoints.
        encoders: encode what handlers return.
        limits: for what no route sets itself.
    """

    def __init__(
        self,
        *,
        table: RouteTable[Endpoint | Mount],
        endpoints: Sequence[Endpoint],
        middleware: Sequence[Middleware],
        error_handlers: Mapping[type[Exception], ErrorHandler],
        encoders: EncoderSet,
        limits: Limits,
    ) -> None:
        self.encoders = encoders
        self.has_middleware = bool(middleware)
        self.table = table
        self.endpoints = endpoints
        self._error_handlers = error_handlers
        self._limits = limits
        self._respond = chain(middleware, self._dispatch, self._guard)

    @property
    def routes(self) -> list[Route]:
        """Every route, with its full path."""
        return [endpoint.route for endpoint in self.endpoints]

    def url_for(self, name: str, /, **params: Any) -> str:
        """Return the path of a route, plugins' routes included; see `Router.url_for`.

        Raises:
            UrlError: as `Router.url_for`.
        """
        return self._urls.path_for(name, params)

    @cached_property
    def _methods(self) -> frozenset[str]:
        return methods_of(self.routes)

    @cached_property
    def _urls(self) -> RouteUrls:
        return RouteUrls(self.routes)

    def instances(self) -> Iterator[object]:
        """Yield every application-wide instance that some handler depends on."""
        for endpoint in self.endpoints:
            yield from endpoint.binder.instances()

    def compile(self, endpoint: Endpoint, middleware: Sequence[Middleware]) -> None:
        """Make `endpoint.respond`, with the middleware of the routers it came through."""
        endpoint.has_middleware = bool(middleware)
        endpoint.respond = chain(
            middleware, self._guard(partial(self._answer, endpoint)), self._guard
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        kind = scope["type"]
        if kind == "http":
            await self.handle(AsgiExchange(scope, receive, send))
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await answer_lifespan(receive, send)
        else:
            raise ValueError(f"a router serves http, websocket and lifespan, not {kind!r}")

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        request, mount = self._request(exchange)
        if mount is not None:
            scope = scope_below(exchange.scope, mount.prefix)
            await mount.app(scope, exchange.receive, exchange.send)
        else:
            await self._conclude(request, self._respond(request))

    async def finish(self, exchange: Exchange, endpoint: Endpoint, result: Any) -> None:
        """Answer with what an endpoint's handler has returned, whoever called it."""

        async def returned(request: Request) -> Response:
            return self._as_response(endpoint, request, result)

        request, _ = self._request(exchange)
        await self._conclude(request, self._guard(returned)(request))

    async def recover(self, exchange: Exchange, endpoint: Endpoint, error: BaseException) -> None:
        """Answer with what becomes of an error that an endpoint's handler has raised."""
        if isinstance(error, asyncio.CancelledError):
            error = own_cancellation(error)
        request, _ = self._request(exchange)
        if not isinstance(error, Exception):
            await _apologize(request, error)
            raise error
        request.routing.endpoint = endpoint
        await self._conclude(request, self._failed(request, error))

    def _request(self, exchange: Exchange) -> tuple[Request, Mount | None]:
        """Find out what a request is for."""
        limits = self._limits
        request = Request(
            exchange, max_body_bytes=limits.max_body_bytes, body_timeout=limits.body_timeout
        )
        request.routing.application = self
        try:
            found = self.table.match(_method(exchange), path_within(exchange))
        except MalformedPathError as error:
            if exchange.method == "OPTIONS" and path_within(exchange) == b"*":
                # It asks about the server as a whole (RFC 9110, section 9.3.7).
                request.routing.allowed = self._methods
            else:
                request.routing.malformed = str(error)
            return request, None
        if isinstance(found, Match):
            target = found.value
            if isinstance(target, Mount):
                return request, target
            _attach(request, target, found)
        else:
            request.routing.allowed = found.allowed
        return request, None

    async def _conclude(self, request: Request, answer: Awaitable[Response]) -> None:
        try:
            try:
                response = await answer
            except BaseException as error:
                await _apologize(request, error)
                raise
            await self._finish(request, response)
        finally:
            if request.routing.cleanup is not None:
                await request.routing.cleanup.aclose()

    async def _dispatch(self, request: Request) -> Response:
        endpoint = request.routing.endpoint
        if endpoint is not None and endpoint.respond is not None:
            return await endpoint.respond(request)
        return self._missing(request)

    def _missing(self, request: Request) -> Response:
        if request.routing.malformed:
            return problem_response(Problem(400, detail=request.routing.malformed))
        allowed = sorted(request.routing.allowed - {WEBSOCKET})
        if allowed:
            allow = {"allow": ", ".join(sorted({*allowed, "OPTIONS"}))}
            if request.method == "OPTIONS":
                return Response(status=204, headers=allow)
            detail = f"{request.method[:32]} is not one of the methods of this resource"
            return problem_response(Problem(405, detail=detail), allow)
        if request.routing.allowed:
            upgrade = {"upgrade": "websocket", "connection": "upgrade"}
            return problem_response(Problem(426, detail="this is a WebSocket"), upgrade)
        return problem_response(Problem(404, detail="there is nothing at this path"))

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        timeout = endpoint.limits.request_timeout
        if timeout:
            with anyio.fail_after(timeout):
                result = await endpoint.call(request)
        else:
            result = await endpoint.call(request)
        return self._as_response(endpoint, request, result)

    def _as_response(self, endpoint: Endpoint, request: Request, result: Any) -> Response:
        response = as_response(result, endpoint.route.status)
        render(response, self.encoders, request)
        return response

    def _guard(self, call: CallNext, name: str = "") -> CallNext:
        """Make a step return a response whatever it raises, cancellation apart.

        Args:
            call: the step.
            name: of the middleware that it is; empty for an endpoint.
        """

        async def guarded(request: Request) -> Response:
            try:
                response = await call(request)
            except Exception as error:  # noqa: BLE001 - logged where it is answered
                return await self._failed(request, error)
            except asyncio.CancelledError as error:
                return await self._failed(request, own_cancellation(error))
            try:
                if not isinstance(response.body, bytes):
                    await settle(response, request)
                    render(response, self.encoders, request)
                return response
            except Exception as raised:  # noqa: BLE001 - logged where it is answered
                is_one = isinstance(response, Response)
                return await self._failed(
                    request, raised if is_one else no_response(name, response)
                )

        return guarded

    async def _failed(self, request: Request, error: Exception) -> Response:
        group, error = error, _single(error)
        handler = self._find_handler(request, error)
        if handler is None and group is not error:
            handler = self._find_handler(request, group)
            error = group if handler is not None else error
        if handler is not None:
            try:
                result = handler(request, error)
                result = await result if inspect.isawaitable(result) else result
                response = as_response(result, 200)
                await settle(response, request)
                render(response, self.encoders, request)
            except Exception as second:  # noqa: BLE001 - logged below
                error = _single(second)
            else:
                return response
        return _default_response(request, error)

    def _find_handler(self, request: Request, error: Exception) -> ErrorHandler | None:
        endpoint = request.routing.endpoint
        layers = endpoint.error_handlers if endpoint is not None else [self._error_handlers]
        for handlers in layers:
            for kind in type(error).__mro__:
                if kind in handlers:
                    return handlers[kind]
        return None

    async def _finish(self, request: Request, response: Response) -> None:
        try:
            render(response, self.encoders, request)  # what middleware made itself
        except Exception as error:  # noqa: BLE001 - logged in there
            response = _default_response(request, error)
        if response.status == _CLIENT_CLOSED:
            return
        with contextlib.suppress(OSError):  # the client has gone; nobody is left to tell
            try:
                await send_response(request, response)
            except UnsendableError as error:
                await send_response(request, _default_response(request, error))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._limits
        socket = WebSocket(scope, receive, send, max_message_bytes=limits.max_message_bytes)
        socket.routing.application = self
        try:
            await self._serve_socket(socket, receive, send)
        finally:
            socket.discard()

    async def _serve_socket(self, socket: WebSocket, receive: Receive, send: Send) -> None:
        scope = socket.scope
        try:
            found = self.table.match(WEBSOCKET, path_within(AsgiHead(scope)))
        except MalformedPathError as error:
            await _refuse(socket, receive, HttpError(400, str(error)))
            return
        if not isinstance(found, Match):
            await _refuse(socket, receive, HttpError(404, "there is no WebSocket at this path"))
            return
        target = found.value
        if isinstance(target, Mount):
            await target.app(scope_below(scope, target.prefix), receive, send)
            return
        _attach(socket, target, found)
        if (await receive())["type"] == "websocket.connect":
            await socket.attend(partial(_converse, socket, target))


def _method(exchange: Exchange) -> str:
    """Return the method; a peer that writes our word for a WebSocket has none that we know."""
    method = exchange.method
    return "" if method == WEBSOCKET else method


def _attach(request: RequestHead, endpoint: Endpoint, found: Match[Any]) -> None:
    request.route = endpoint.route
    request.path_params = found.params
    request.routing.raw_params = found.raw
    if isinstance(request, Request):
        request.routing.endpoint = endpoint
        request.max_body_bytes = endpoint.limits.max_body_bytes


async def _apologize(request: Request, error: BaseException) -> None:
    """Answer before what is no Exception goes on to whoever logs it, who then sees the id."""
    if isinstance(error, _PASSING):
        return
    error.add_note(f"while {label_of(request)} (request {request.id}) was answered")
    with contextlib.suppress(OSError):
        await send_response(request, _failure(request))


def _single(error: Exception) -> Exception:
    """Take the one error out of the groups that task groups wrap it in."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _default_response(request: Request, error: Exception) -> Response:
    if isinstance(error, HttpError):
        return problem_response(error.problem, error.headers)
    if isinstance(error, ClientDisconnected):
        logger.debug("%s: the client left early", label_of(request))
        return Response(status=_CLIENT_CLOSED)
    if isinstance(error, TimeoutError):
        logger.warning(
            "%s (request %s) took too long", label_of(request), request.id, exc_info=error
        )
        problem = Problem(
            504, detail="the request took too long", extensions={"request_id": request.id}
        )
        return problem_response(problem, {"x-request-id": request.id})
    logger.error("%s (request %s) failed", label_of(request), request.id, exc_info=error)
    return _failure(request)


def _failure(request: Request) -> Response:
    problem = Problem(
        500,
        detail="the server failed; its log tells more under this request id",
        extensions={"request_id": request.id},
    )
    return problem_response(problem, {"x-request-id": request.id})


async def _refuse(socket: WebSocket, receive: Receive, error: HttpError) -> None:
    if (await receive())["type"] == "websocket.connect":
        with contextlib.suppress(anyio.BrokenResourceError):
            await socket.deny(error)


async def _converse(socket: WebSocket, endpoint: Endpoint) -> None:
    """Run a WebSocket handler and close as its outcome asks."""
    try:
        await endpoint.call(socket)
        await socket.close()
    except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - logged in _close_for
        if isinstance(raised, asyncio.CancelledError):
            raised = own_cancellation(raised)
        error = _single(raised)
        with contextlib.suppress(anyio.BrokenResourceError):
            await _close_for(socket, error)


async def _close_for(socket: WebSocket, error: Exception) -> None:
    if isinstance(error, anyio.EndOfStream | anyio.BrokenResourceError):
        logger.debug("%s: the peer has gone", label_of(socket))
        await socket.close()
    elif isinstance(error, InvalidMessageError):
        await socket.close(error.code, str(error))
    elif isinstance(error, HttpError):
        if socket.accepted:
            code = _POLICY if error.status < 500 else _INTERNAL
            await socket.close(code, error.problem.title or phrase(error.status))
        else:
            await socket.deny(error)
    else:
        logger.error("%s (request %s) failed", label_of(socket), socket.id, exc_info=error)
        if socket.accepted:
            await socket.close(_INTERNAL)
        else:
            await socket.deny(HttpError(500, extensions={"request_id": socket.id}))
