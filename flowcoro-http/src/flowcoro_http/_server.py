"""`HttpServer`: the component that listens and serves.

It opens the sockets, runs the lifespan of a foreign ASGI application, and leaves the
protocol to a backend and the counting to a `Gate`.
"""

from __future__ import annotations

import logging
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from flowcoro.app import Component, Health, HealthStatus
from flowcoro.config import ServerConfig
from flowcoro.errors import ConfigError, FlowcoroError
from flowcoro_http._asgi import Application
from flowcoro_http._backend import CountingServer, Server, ServerBackend, ServerOptions
from flowcoro_http._checks import check_text, shown_value
from flowcoro_http._config import HttpConfig
from flowcoro_http._declared import check_count
from flowcoro_http._encoding import ResponseEncoder
from flowcoro_http._gate import Gate
from flowcoro_http._lifespan import Lifespan
from flowcoro_http._middleware import Middleware
from flowcoro_http._route import Route
from flowcoro_http._router import Router
from flowcoro_http._sockets import BALANCES, SharedListeners, open_sockets, url_of
from flowcoro_http._tls import server_context
from flowcoro_http._types import ASGIApp

if TYPE_CHECKING:
    from flowcoro.app import Context
    from flowcoro.plugins import PluginHost

__all__ = ["HttpServer", "ServerFailedError"]

logger = logging.getLogger("flowcoro.http")

_CUT_GRACE = 1.0


class ServerFailedError(FlowcoroError):
    """A server backend ended without being asked to."""


class HttpServer(Component):
    """Serves a `Router`, or any ASGI 3 application, over HTTP and WebSocket.

    In an `App` it takes address and settings from the configuration (`[server]`,
    `[http]`), adds the routes and middleware of plugins to a router, and resolves what
    handlers ask for from the application's components. On SIGTERM it stops accepting,
    finishes requests in flight, closes WebSockets with 1001, and answers 503 to what is
    left at the deadline.

    It also runs by itself, `async with HttpServer(router, port=0) as server:`, with the
    defaults of `HttpConfig`, the built-in backend, and no plugins. Leaving the block cuts
    what is in flight; call `drain` before for a gentle end.

    Args:
        app: a router or an ASGI application.
        host: address or name to listen on; `server.host` when None.
        port: port to listen on, 0 for a free one; `server.port` when None.
        backend: name of the server backend, or a backend; `http.backend` when None.
        name: unique among the application's components.
        config: settings to use instead of the `[http]` section.

    Raises:
        TypeError: an argument is of another type.
        ValueError: the port is none, or a setting is out of range.
    """

    name = "http"

    def __init__(
        self,
        app: Router | ASGIApp,
        *,
        host: str | None = None,
        port: int | None = None,
        backend: str | ServerBackend | None = None,
        name: str = "http",
        config: HttpConfig | None = None,
    ) -> None:
        _check(app, port)
        _check_settings(host, backend, name, config)
        self.name = name
        self.app = app
        self._host = host
        self._port = port
        self._backend = backend
        self._given_config = config
        self._context: Context | None = None
        self._application: ASGIApp | None = None
        self._config = config or HttpConfig()
        self._lifespan: Lifespan | None = None
        self._gate: Gate | CountingServer | None = None
        self._group: TaskGroup | None = None
        self._shutdown = anyio.Event()
        self._served = anyio.Event()
        self._addresses: list[tuple[Any, ...]] = []
        self._url = ""
        self._shared: SharedListeners | None = None

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            RuntimeError: it is not started.
        """
        if not self._addresses:
            raise RuntimeError(f"server {self.name!r} is not started")
        port: int = self._addresses[0][1]
        return port

    @property
    def url(self) -> str:
        """The URL under which it can be reached from this machine, without a path.

        Raises:
            RuntimeError: it is not started.
        """
        if not self._url:
            raise RuntimeError(f"server {self.name!r} is not started")
        return self._url

    @property
    def application(self) -> ASGIApp:
        """The ASGI application that is served: the router with what plugins add to it.

        It is there once the server is attached or started; tests call it without a socket.

        Raises:
            RuntimeError: the server is neither attached nor started.
        """
        if self._application is None:
            raise RuntimeError(f"server {self.name!r} is neither attached nor started")
        return self._application

    @property
    def in_flight(self) -> int:
        """How many requests and WebSockets are being handled."""
        return self._gate.in_flight if self._gate else 0

    def attach(self, context: Context) -> None:
        """Read the configuration, bind the router, and learn which components it needs.

        Raises:
            ParameterError: a handler's parameter cannot be filled.
            DependencyError: nothing provides what a handler asks for.
            PluginError: no plugin provides the backend.
        """
        self._context = context
        self._config = self._given_config or _section(context)
        self._application = self.app
        if isinstance(self.app, Router):
            self._application = self._bind(self.app, context)
            found = (i for i in self._application.instances() if isinstance(i, Component))
            self.requires = tuple(dict.fromkeys(c.name for c in found if c is not self))
        self._find_backend()  # now, so that a wrong name stops the start before anything runs

    async def __aenter__(self) -> Self:
        """Listen and serve.

        Raises:
            ListenError: the address cannot be listened on; names it.
            ConfigError: the certificate or its key cannot be used; names the files.
            ServerFailedError: the backend or the application's lifespan failed.
        """
        if self._application is None:
            self._application = self._stand_alone()
        self._shutdown, self._served = anyio.Event(), anyio.Event()
        server = self._find_backend().create(self._options())
        listeners = await self._listen()
        self._addresses = [listener.getsockname() for listener in listeners]
        secure = bool(self._config.certfile)
        self._url = url_of(listeners[0], secure=secure, host=self._address()[0])
        try:
            self._lifespan = Lifespan(self._application, enabled=not self._is_ours())
            state = await self._lifespan.start()
            served = self._application
            if isinstance(server, CountingServer):
                server.state = state
                self._gate = server
            else:
                served = self._gate = Gate(self._application, state)
            self._group = await anyio.create_task_group().__aenter__()
        except BaseException:
            self._close(listeners)
            raise
        started = anyio.Event()
        self._group.start_soon(self._serve, server, served, listeners, started)
        try:
            await started.wait()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        logger.info("%s: listening on %s", self.name, self._url)
        return self

    async def drain(self) -> None:
        """Stop accepting; return when every request has finished, WebSockets included."""
        self._shutdown.set()
        if self._gate is None:
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._gate.drain)
            await self._served.wait()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cut what is still in flight and let go of everything."""
        group, gate, lifespan = self._group, self._gate, self._lifespan
        self._group = self._gate = self._lifespan = None
        self._shutdown.set()
        try:
            if group is not None and gate is not None:
                with anyio.CancelScope(shield=True):
                    with anyio.move_on_after(_CUT_GRACE):
                        await gate.cut()
                        await self._served.wait()
                    group.cancel_scope.cancel()
                await _leave(group, exc_type, exc, traceback)
        finally:
            if lifespan is not None:
                await lifespan.stop()
            self._addresses, self._url = [], ""
            if self._context is None:
                self._application = None

    async def health(self) -> Health:
        """Tell whether it serves, where, and how many requests are in flight."""
        if self._gate is None or self._served.is_set():
            return Health(HealthStatus.FAIL, "not serving")
        detail = f"{self._url}, {self.in_flight} in flight"
        if self._shutdown.is_set():
            return Health(HealthStatus.WARN, f"draining, {detail}")
        return Health(detail=detail)

    async def _serve(
        self,
        server: Server,
        app: ASGIApp,
        listeners: list[socket.socket],
        started: anyio.Event,
    ) -> None:
        try:
            await server.serve(app, listeners, started=started.set, shutdown=self._shutdown)
            if not self._shutdown.is_set():
                raise ServerFailedError(f"the backend of server {self.name!r} ended by itself")
        finally:
            self._served.set()
            self._close(listeners)

    async def _listen(self) -> list[socket.socket]:
        host, port = self._address()
        backlog, udp = self._config.backlog, self._config.http3
        if self._context is None:
            return await open_sockets(host, port, backlog=backlog, udp=udp)
        workers, shared = self._context.workers, self._context.shared
        key = ("flowcoro-http listeners", self.name)
        opened = shared.get(key, SharedListeners)
        if opened is not None:
            return opened.open(backlog)
        reuse_port = workers > 1 or (shared.threads > 1 and BALANCES)
        listeners = await open_sockets(host, port, backlog=backlog, reuse_port=reuse_port, udp=udp)
        if shared.threads > 1:
            self._shared = SharedListeners(listeners, shared.threads)
            shared.put(key, self._shared)
        return listeners

    def _close(self, listeners: list[socket.socket]) -> None:
        for listener in listeners:
            listener.close()
        if self._shared is not None:
            self._shared.close()

    def _is_ours(self) -> bool:
        return isinstance(self._application, Application)

    def _stand_alone(self) -> ASGIApp:
        if isinstance(self.app, Router):
            return self.app.bind(
                limits=self._config.limits(), openapi=self._config.openapi, docs=self._config.docs
            )
        return self.app

    def _bind(self, router: Router, context: Context) -> Application:
        plugins = context.plugins
        routes: list[tuple[str, Route]] = []
        middleware: list[Middleware] = []
        encoders: list[ResponseEncoder] = []
        if _has_hooks(plugins):
            found = plugins.collect("flowcoro_http_routes", Route, context=context)
            routes = [(found.owner(name).label, route) for name, route in found.items()]
            around = plugins.collect("flowcoro_http_middleware", Middleware, context=context)
            middleware = list(around.values())
            encoders = list(
                plugins.collect("flowcoro_http_response_encoders", ResponseEncoder).values()
            )
        return router.bind(
            dependencies=context.dependencies,
            routes=routes,
            middleware=middleware,
            encoders=encoders,
            limits=self._config.limits(),
            openapi=self._config.openapi,
            docs=self._config.docs,
        )

    def _find_backend(self) -> ServerBackend:
        wanted = self._backend or self._config.backend
        if isinstance(wanted, ServerBackend):
            return wanted
        if self._context is not None and _has_hooks(self._context.plugins):
            return self._context.plugins.collect("flowcoro_http_servers", ServerBackend)[wanted]
        from flowcoro_http.plugin import flowcoro_http_servers

        for built_in in flowcoro_http_servers():
            if built_in.name == wanted:
                return built_in
        raise ConfigError([f"http.backend: {wanted!r} comes from a plugin, and none is loaded"])

    def _options(self) -> ServerOptions:
        config = self._config
        return ServerOptions(
            keep_alive_timeout=config.keep_alive_timeout,
            head_timeout=config.head_timeout,
            body_timeout=config.body_timeout,
            send_timeout=config.send_timeout,
            max_connections=config.max_connections,
            max_memory=config.max_memory,
            max_head_bytes=config.max_head_bytes,
            max_headers=config.max_headers,
            max_message_bytes=config.max_message_bytes,
            ping_interval=config.ping_interval,
            backlog=config.backlog,
            access_log=config.access_log,
            certfile=config.certfile,
            keyfile=config.keyfile,
            tls=server_context(config.certfile, config.keyfile),  # whatever the backend
            http3=config.http3,
        )

    def _address(self) -> tuple[str, int]:
        defaults = ServerConfig()
        if self._context is not None:
            try:
                defaults = self._context.config.section(ServerConfig)
            except ConfigError:
                logger.debug("no [server] section; using its defaults")
        host = self._host if self._host is not None else defaults.host
        return host, self._port if self._port is not None else defaults.port


def _section(context: Context) -> HttpConfig:
    try:
        return context.config.section(HttpConfig)
    except ConfigError:
        return HttpConfig()  # flowcoro-http's own plugin is not loaded


def _has_hooks(plugins: PluginHost) -> bool:
    return "flowcoro_http_servers" in plugins.hooks()


async def _leave(
    group: TaskGroup,
    exc_type: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    """Leave a task group, raising the one error that ended it rather than a group."""
    try:
        await group.__aexit__(exc_type, exc, traceback)
    except BaseExceptionGroup as group_error:
        error: BaseException = group_error
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is not exc:
            raise error from None


def _check(app: object, port: object) -> None:
    """Refuse what would be found out with the first request only."""
    if isinstance(app, type):
        raise TypeError(f"HttpServer: expected an application, got the class {app.__name__}")
    if not callable(app):
        raise TypeError(
            f"HttpServer: expected a Router or an ASGI application, got {type(app).__name__}"
        )
    check_count("HttpServer", app, ("scope", "receive", "send"), plain=True)
    if port is not None and not (
        isinstance(port, int) and not isinstance(port, bool) and 0 <= port <= 65535
    ):
        raise ValueError(f"HttpServer: expected a port from 0 to 65535, got {port!r}")


def _check_settings(host: object, backend: object, name: object, config: object) -> None:
    """Refuse what only a section of the configuration is checked for, by who reads it."""
    if host is not None:
        check_text("HttpServer: host", host)
    check_text("HttpServer: name", name)
    if not isinstance(backend, str | ServerBackend | None):
        raise TypeError(
            f"HttpServer: backend: expected a name or a ServerBackend, not {shown_value(backend)}"
        )
    if config is None:
        return
    if not isinstance(config, HttpConfig):
        raise TypeError(f"HttpServer: config: expected an HttpConfig, not {shown_value(config)}")
    try:
        msgspec.convert(msgspec.structs.asdict(config), HttpConfig)
    except msgspec.ValidationError as error:
        raise ValueError(f"HttpServer: config: {error}") from None
