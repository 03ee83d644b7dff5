"""A plugin that serves by uvicorn, where the configuration says `http.backend = "uvicorn"`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowcoro import hookimpl

if TYPE_CHECKING:
    import socket

    import anyio

    from flowcoro_http import ServerBackend, ServerOptions

FLOWCORO_HOOK_API = 1


class UvicornServer:
    """Serves an ASGI application by uvicorn."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options

    async def serve(
        self,
        app: Any,
        sockets: Sequence[socket.socket],
        *,
        started: Callable[[], None],
        shutdown: anyio.Event,
    ) -> None:
        import anyio
        import uvicorn

        class Server(uvicorn.Server):
            @contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield  # signals are the application's

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                started()

        config = uvicorn.Config(
            app,
            lifespan="off",  # that is HttpServer's
            log_config=None,
            access_log=self.options.access_log,
            backlog=self.options.backlog,
            timeout_keep_alive=round(self.options.keep_alive_timeout),
            ws_max_size=self.options.max_message_bytes,
            ssl_certfile=self.options.certfile or None,
            ssl_keyfile=self.options.keyfile or None,
        )
        server = Server(config)

        async def stop() -> None:
            await shutdown.wait()
            server.should_exit = True

        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            await server.serve(sockets=list(sockets))
            group.cancel_scope.cancel()


@hookimpl
def flowcoro_http_servers() -> list[ServerBackend]:
    from flowcoro_http import ServerBackend

    return [ServerBackend("uvicorn", UvicornServer)]
