"""The router as an ASGI 3 application: requests, WebSockets and lifespan.

`Application` is what a `Router` becomes once its routes, dependencies, middleware and
encoders are known; it never changes, so requests share it without locks. A request goes
through: table -> middleware -> endpoint (bind, call, encode) -> ASGI events. Errors
become responses at the endpoint and again around each middleware (`_guard`).
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

from flowcoro.app import Dependencies
from flowcoro_http._binding import Binder
from flowcoro_http._config import Limits
from flowcoro_http._encoding import EncoderSet
from flowcoro_http._middleware import CallNext, Middleware, chain
from flowcoro_http._problem import ClientDisconnected, HttpError, Problem, phrase
from flowcoro_http._request import Request, RequestHead
from flowcoro_http._response import Response, as_response, problem_response, render
from flowcoro_http._route import Route
from flowcoro_http._routing import WEBSOCKET, MalformedPathError, Match, RouteTable
from flowcoro_http._types import ASGIApp, Handler, Receive, Scope, Send
from flowcoro_http._websocket import InvalidMessageError, WebSocket

__all__ = ["Application", "Endpoint", "ErrorHandler", "Mount"]

logger = logging.getLogger("flowcoro.http")

ErrorHandler: TypeAlias = Callable[[Request, Any], Any]
"""Turns an exception into what a handler could have returned."""

_CLIENT_CLOSED = 499
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
        invoke: calls the handler, in a thread if it is a plain function.
    """

    route: Route
    binder: Binder
    limits: Limits
    error_handlers: Sequence[Mapping[type[Exception], ErrorHandler]]
    dependencies: Dependencies
    respond: CallNext | None = None
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
                request.routing.cleanup = stack.pop_all()
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
        self._table = table
        self._endpoints = endpoints
        self._error_handlers = error_handlers
        self._encoders = encoders
        self._limits = limits
        self._respond = chain(middleware, self._dispatch, self._guard)

    @property
    def routes(self) -> list[Route]:
        """Every route, with its full path."""
        return [endpoint.route for endpoint in self._endpoints]

    def instances(self) -> Iterator[object]:
        """Yield every application-wide instance that some handler depends on."""
        for endpoint in self._endpoints:
            yield from endpoint.binder.instances()

    def compile(self, endpoint: Endpoint, middleware: Sequence[Middleware]) -> None:
        """Make `endpoint.respond`, with the middleware of the routers it came through."""
        endpoint.respond = chain(
            middleware, self._guard(partial(self._answer, endpoint)), self._guard
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await _lifespan(receive, send)
        else:
            raise ValueError(f"a router serves http, websocket and lifespan, not {kind!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._limits
        request = Request(
            scope, receive, max_body_bytes=limits.max_body_bytes, body_timeout=limits.body_timeout
        )
        try:
            found = self._table.match(scope["method"], _raw_path(scope))
        except MalformedPathError as error:
            request.routing.malformed = str(error)
        else:
            if isinstance(found, Match):
                target = found.value
                if isinstance(target, Mount):
                    await target.app(_below(scope, target.prefix), receive, send)
                    return
                _attach(request, target, found)
            else:
                request.routing.allowed = found.allowed
        response = await self._respond(request)
        try:
            await self._finish(request, response, receive, send)
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
        response = as_response(result, endpoint.route.status)
        render(response, self._encoders, request)
        return response

    def _guard(self, call: CallNext) -> CallNext:
        """Make a step return a response whatever it raises, cancellation apart."""

        async def guarded(request: Request) -> Response:
            try:
                return await call(request)
            except Exception as error:  # noqa: BLE001 - logged where it is answered
                return await self._failed(request, error)

        return guarded

    async def _failed(self, request: Request, error: Exception) -> Response:
        error = _single(error)
        handler = self._find_handler(request, error)
        if handler is not None:
            try:
                result = handler(request, error)
                result = await result if inspect.isawaitable(result) else result
                response = as_response(result, 200)
                render(response, self._encoders, request)
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

    async def _finish(
        self, request: Request, response: Response, receive: Receive, send: Send
    ) -> None:
        try:
            render(response, self._encoders, request)  # what middleware made itself
        except Exception as error:  # noqa: BLE001 - logged in there
            response = _default_response(request, error)
        if response.status == _CLIENT_CLOSED:
            return
        with contextlib.suppress(OSError):  # the client has gone; nobody is left to tell
            await _send_response(request, response, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._limits
        socket = WebSocket(scope, receive, send, max_message_bytes=limits.max_message_bytes)
        try:
            await self._serve_socket(socket, receive, send)
        finally:
            socket.discard()

    async def _serve_socket(self, socket: WebSocket, receive: Receive, send: Send) -> None:
        scope = socket.scope
        try:
            found = self._table.match(WEBSOCKET, _raw_path(scope))
        except MalformedPathError as error:
            await _refuse(socket, receive, HttpError(400, str(error)))
            return
        if not isinstance(found, Match):
            await _refuse(socket, receive, HttpError(404, "there is no WebSocket at this path"))
            return
        target = found.value
        if isinstance(target, Mount):
            await target.app(_below(scope, target.prefix), receive, send)
            return
        _attach(socket, target, found)
        if (await receive())["type"] == "websocket.connect":
            async with anyio.create_task_group() as group:
                group.start_soon(socket.pump)
                await _converse(socket, target)
                group.cancel_scope.cancel()


def _raw_path(scope: Scope) -> bytes:
    """Return the path as it came, without the prefix this application is mounted at."""
    raw: bytes | None = scope.get("raw_path")
    if not raw:
        # Already decoded by the server: encode what would be read as an escape.
        raw = scope["path"].replace("%", "%25").encode()
    root = (scope.get("root_path") or "").encode()
    if root and raw.startswith(root + b"/"):
        return raw[len(root) :]
    return b"/" if root and raw == root else raw


def _below(scope: Scope, prefix: str) -> Scope:
    return {**scope, "root_path": (scope.get("root_path") or "") + prefix}


def _attach(request: RequestHead, endpoint: Endpoint, found: Match[Any]) -> None:
    request.route = endpoint.route
    request.path_params = found.params
    request.routing.raw_params = found.raw
    if isinstance(request, Request):
        request.routing.endpoint = endpoint
        request.max_body_bytes = endpoint.limits.max_body_bytes


def _single(error: Exception) -> Exception:
    """Take the one error out of the groups that task groups wrap it in."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _default_response(request: Request, error: Exception) -> Response:
    if isinstance(error, HttpError):
        return problem_response(error.problem, error.headers)
    if isinstance(error, ClientDisconnected):
        logger.debug("%s: the client left early", _label(request))
        return Response(status=_CLIENT_CLOSED)
    if isinstance(error, TimeoutError):
        logger.warning("%s (request %s) took too long", _label(request), request.id)
        return problem_response(Problem(504, detail="the request took too long"))
    logger.error("%s (request %s) failed", _label(request), request.id, exc_info=error)
    problem = Problem(
        500,
        detail="the server failed; its log tells more under this request id",
        extensions={"request_id": request.id},
    )
    return problem_response(problem, {"x-request-id": request.id})


def _label(request: RequestHead) -> str:
    method = request.scope.get("method", WEBSOCKET)
    # The path is the client's: quoted, so that it cannot forge lines of the log.
    return f"{method[:32]} {request.path[:200]!r}"


async def _send_response(request: Request, response: Response, send: Send) -> None:
    body, status, headers = response.body, response.status, response.headers.raw
    silent = status in {204, 304}
    if not isinstance(body, bytes):
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await _send_stream(request, body, start, send, silent=silent)
        return
    if not silent:
        # The length is ours to say, whatever a handler has set.
        headers = [field for field in headers if field[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    content = b"" if silent or request.method == "HEAD" else body
    await send({"type": "http.response.body", "body": content})


async def _send_stream(
    request: Request, pieces: AsyncIterable[bytes], start: Scope, send: Send, *, silent: bool
) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(pieces, "aclose", None)
    try:
        await send(start)
        if silent or request.method == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_when_gone, request, group.cancel_scope)
            if await _send_pieces(request, pieces, send):
                await send({"type": "http.response.body", "body": b""})
            group.cancel_scope.cancel()
    finally:
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()


async def _cancel_when_gone(request: Request, scope: anyio.CancelScope) -> None:
    await request.wait_disconnected()
    scope.cancel()


async def _send_pieces(request: Request, pieces: AsyncIterable[bytes], send: Send) -> bool:
    """Send every piece; False when they broke off, which the client must notice."""
    try:
        async for piece in pieces:
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    except OSError:
        return False
    except Exception as error:
        # The status is out. Returning without the last event makes the server cut the
        # connection, so that nobody takes the part for the whole.
        logger.error(
            "%s (request %s): its stream failed", _label(request), request.id, exc_info=error
        )
        return False
    return True


async def _refuse(socket: WebSocket, receive: Receive, error: HttpError) -> None:
    if (await receive())["type"] == "websocket.connect":
        with contextlib.suppress(anyio.BrokenResourceError):
            await socket.deny(error)


async def _converse(socket: WebSocket, endpoint: Endpoint) -> None:
    """Run a WebSocket handler and close as its outcome asks."""
    try:
        await endpoint.call(socket)
        await socket.close()
    except Exception as raised:  # noqa: BLE001 - logged in _close_for
        error = _single(raised)
        with contextlib.suppress(anyio.BrokenResourceError):
            await _close_for(socket, error)


async def _close_for(socket: WebSocket, error: Exception) -> None:
    if isinstance(error, anyio.EndOfStream | anyio.BrokenResourceError):
        logger.debug("%s: the peer has gone", _label(socket))
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
        logger.error("%s (request %s) failed", _label(socket), socket.id, exc_info=error)
        if socket.accepted:
            await socket.close(_INTERNAL)
        else:
            await socket.deny(HttpError(500, extensions={"request_id": socket.id}))


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
