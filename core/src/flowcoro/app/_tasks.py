"""Background tasks that the application supervises."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio

from flowcoro._backoff import Backoff
from flowcoro.app._component import Component, Health, HealthStatus
from flowcoro.app._context import Context
from flowcoro.app._dependencies import Dependencies, Resolver

__all__ = ["BackgroundTask", "Restart"]

logger = logging.getLogger("flowcoro.app")


class Restart(enum.StrEnum):
    """What happens when a background task ends by itself.

    `NEVER`: its failure stops the application. `ON_FAILURE`: it is started again after
    a growing delay. `ALWAYS`: also when it returns.
    """

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class BackgroundTask(Component):
    """A coroutine function that runs as long as the application does.

    Its parameters are dependencies by annotation, in a scope that lasts one run. It
    starts once the components it asks for run, and is cancelled when the application
    stops.

    Args:
        function: the coroutine function.
        name: the component's name; the function's own when not given.
        restart: what happens when it ends by itself.
        backoff: delays between runs; 0.1 s doubling to 30 s when not given.
    """

    def __init__(
        self,
        function: Callable[..., Awaitable[None]],
        *,
        name: str | None = None,
        restart: Restart = Restart.ON_FAILURE,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name or str(getattr(function, "__name__", "task"))
        self.restart = restart
        self._function = function
        self._backoff = backoff or Backoff()
        self._dependencies = Dependencies()
        self._arguments: dict[str, Resolver] = {}
        self._stack: AsyncExitStack | None = None
        self._trouble = ""

    def attach(self, context: Context) -> None:
        """Resolve the function's parameters and require the components among them."""
        self._dependencies = context.dependencies
        self._arguments = context.dependencies.arguments(
            self._function, needed_by=f"background task {self.name!r}"
        )
        needed = [c for r in self._arguments.values() for c in r.components()]
        self.requires = [c.name for c in needed if isinstance(c, Component)]

    async def __aenter__(self) -> Self:
        """Start the first run."""
        self._stack = AsyncExitStack()
        await self._stack.__aenter__()
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        group.start_soon(self._supervise, name=f"background task {self.name!r}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel the run and wait for it."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.__aexit__(exc_type, exc, traceback)

    async def health(self) -> Health:
        """Warn while the task waits to be started again."""
        if self._trouble:
            return Health(HealthStatus.WARN, self._trouble)
        return Health()

    async def _supervise(self) -> None:
        while True:
            began = anyio.current_time()
            try:
                await self._run_once()
            except Exception as error:
                if self.restart is Restart.NEVER:
                    raise
                logger.exception("background task %r failed", self.name)
                self._trouble = f"failed: {type(error).__name__}; waiting to start again"
            else:
                if self.restart is not Restart.ALWAYS:
                    return
            delay = self._backoff.delay_after(anyio.current_time() - began)
            await anyio.sleep(delay)

    async def _run_once(self) -> None:
        async with self._dependencies.scope() as scope:
            arguments: dict[str, Any] = {
                name: await scope.get(resolver) for name, resolver in self._arguments.items()
            }
            self._trouble = ""
            await self._function(**arguments)
