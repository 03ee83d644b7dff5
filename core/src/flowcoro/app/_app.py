"""`App`: components, plugins and configuration under one lifecycle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Self

import anyio

from flowcoro._deadline import Late, outcome_within
from flowcoro._describe import describe
from flowcoro.app._component import (
    Component,
    ComponentFactory,
    Health,
    HealthCheck,
    HealthReport,
    HealthStatus,
)
from flowcoro.app._context import AppState, Context, Shared
from flowcoro.app._dependencies import Dependencies
from flowcoro.app._environment import Environment, load_environment
from flowcoro.app._lifecycle import Lifecycle, Unit, check_names, in_order, satisfiable
from flowcoro.app._signals import stop_signals
from flowcoro.app._tasks import BackgroundTask, Restart
from flowcoro.config import Config, ServerConfig
from flowcoro.errors import FlowcoroError
from flowcoro.plugins import PluginHost

__all__ = ["App"]

logger = logging.getLogger("flowcoro.app")

_WORST = (HealthStatus.FAIL, HealthStatus.WARN, HealthStatus.PASS)
_COMPONENT_CHECK_TIMEOUT = 5.0


class App:
    """An application: components that start, run and stop together.

    Example:
        ```python
        from flowcoro import App
        from flowcoro_http import HttpServer, Router

        router = Router()


        @router.get("/")
        async def hello() -> str:
            return "Hello"


        app = App(HttpServer(router))
        ```

    `flowcoro run module:app` runs it; `app.run()` does so from a script;
    `async with app:` runs it within a test.

    Args:
        components: what it runs, in order of start unless `requires` says otherwise.
        name: for logs and health.
        plugins: the plugin host; the installed plugins when not given.
        config: the configuration; read from file and variables when not given.
    """

    def __init__(
        self,
        *components: Component,
        name: str = "app",
        plugins: PluginHost | None = None,
        config: Config | None = None,
    ) -> None:
        self.name = name
        self._components: list[Component] = []
        for component in components:
            self.add(component)
        self._providers: list[tuple[Callable[..., Any], type | None]] = []
        self._plugins = plugins
        self._config = config
        self._context: Context | None = None
        self._lifecycle: Lifecycle | None = None
        self._units: list[Unit] = []
        self._refused: list[Unit] = []
        self._checks: list[HealthCheck] = []
        self._stop = anyio.Event()
        self._starting: anyio.CancelScope | None = None
        self._stopping_hooks: anyio.CancelScope | None = None
        self._failure: Unit | None = None
        self._workers = 1
        self._shared = Shared()
        self._on_stopping: list[Callable[[], object]] = []
        self._on_asked_to_stop: Callable[[], object] | None = None
        self._late_checks: dict[str, asyncio.Task[object]] = {}

    @property
    def state(self) -> AppState:
        """Where the application is in its life."""
        return self._context.state if self._context else AppState.STOPPED

    @property
    def plugins(self) -> PluginHost | None:
        """The plugin host it was given; None until the installed plugins are loaded."""
        return self._plugins

    @property
    def config(self) -> Config | None:
        """The configuration it was given; None until it is read."""
        return self._config

    @property
    def components(self) -> tuple[Component, ...]:
        """The components it was given, in that order; plugins' come with the start."""
        return tuple(self._components)

    @property
    def context(self) -> Context:
        """What components see; there is one from start to stop.

        Raises:
            FlowcoroError: the application is not running.
        """
        if self._context is None:
            raise FlowcoroError(f"application {self.name!r} is not running")
        return self._context

    def add(self, component: Component) -> None:
        """Add a component before the application starts.

        Raises:
            TypeError: it is not a `Component`.
        """
        if not isinstance(component, Component):
            raise TypeError(f"App takes components, got {component!r}")
        self._components.append(component)

    def provide(self, factory: Callable[..., Any], *, as_type: type | None = None) -> None:
        """Offer what `factory` makes, once per request, to annotated parameters.

        Args:
            factory: see `Dependencies.provide`.
            as_type: the type that annotations name.
        """
        self._providers.append((factory, as_type))

    def task(
        self, *, name: str | None = None, restart: Restart = Restart.ON_FAILURE
    ) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Awaitable[None]]]:
        """Run the decorated coroutine function as a supervised background task.

        Args:
            name: see `BackgroundTask`.
            restart: see `BackgroundTask`.
        """

        def decorate(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            self.add(BackgroundTask(function, name=name, restart=restart))
            return function

        return decorate

    def use(
        self, environment: Environment, *, workers: int = 1, shared: Shared | None = None
    ) -> None:
        """Take plugins and configuration that were loaded already, before the start.

        What was given to the constructor wins.

        Args:
            environment: plugins and configuration.
            workers: how many processes serve this application.
            shared: what it has in common with the applications of other threads.
        """
        if self._plugins is None:
            self._plugins = environment.plugins
        if self._config is None:
            self._config = environment.config
        self._workers = workers
        self._shared = shared or Shared()

    def request_stop(self, reason: str = "request_stop()") -> None:
        """Ask the application to drain and stop; asked twice, to cut the draining short.

        Args:
            reason: one line for the log.
        """
        if self._stop.is_set():
            logger.warning("%s: asked again to stop (%s): cutting", self.name, reason)
            if self._stopping_hooks is not None:
                self._stopping_hooks.cancel()
            if self._lifecycle is not None:
                self._lifecycle.hurry()
            return
        logger.info("%s: stopping (%s)", self.name, reason)
        self._asked_to_stop()
        self._stop.set()
        if self._starting is not None:
            self._starting.cancel()

    def when_stopping(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the application begins to stop."""
        self._on_stopping.append(callback)

    async def health(self) -> HealthReport:
        """Ask every component and every plugin's check, side by side, each in time."""
        checks = [
            HealthCheck(unit.component.name, unit.component.health, _COMPONENT_CHECK_TIMEOUT)
            for unit in self._units
            if unit.failed is None
        ]
        found: dict[str, Health] = {
            unit.component.name: Health(HealthStatus.FAIL, "not running")
            for unit in (*self._units, *self._refused)
            if unit.failed is not None
        }
        async with anyio.create_task_group() as group:
            for check in (*checks, *self._checks):
                group.start_soon(self._check, check, found)
        worst = next((s for s in _WORST if any(h.status is s for h in found.values())), None)
        return HealthReport(worst or HealthStatus.PASS, dict(sorted(found.items())))

    async def __aenter__(self) -> Self:
        """Start: plugins, configuration, components in order.

        Raises:
            FlowcoroError: it could not start; what had started was closed again.
        """
        if self._context is not None:
            raise FlowcoroError(f"application {self.name!r} is running already")
        self._lifecycle, self._failure = None, None
        try:
            context = self._prepare()
            self._context = context
            self._lifecycle = self._assemble(context)
            await self._lifecycle.start()
            context.state = AppState.RUNNING
            await context.plugins.call_async("flowcoro_started", context=context)
        except BaseException:
            if self._lifecycle is not None:
                with anyio.CancelScope(shield=True):
                    await self._lifecycle.stop(0)
            self._context = None
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drain and stop every component, in reverse order, within the deadline."""
        context, lifecycle = self._context, self._lifecycle
        if context is None or lifecycle is None:
            return
        context.state = AppState.DRAINING
        for callback in self._on_stopping:
            try:
                callback()
            except Exception:
                logger.exception("%s: a callback for stopping failed", self.name)
        timeout = self.drain_timeout
        deadline = anyio.current_time() + timeout
        with anyio.CancelScope(shield=True):
            try:
                with anyio.CancelScope() as self._stopping_hooks:
                    # Half of the time at most: the rest is for work in flight.
                    await context.plugins.call_async(
                        "flowcoro_stopping", timeout=timeout / 2, context=context
                    )
            finally:
                await lifecycle.stop(max(deadline - anyio.current_time(), 0.0))
                context.state = AppState.STOPPED
                self._context = None

    async def serve(
        self,
        *,
        on_started: Callable[[], object] | None = None,
        on_asked_to_stop: Callable[[], object] | None = None,
    ) -> None:
        """Run until `request_stop`, SIGTERM or SIGINT, then drain and stop.

        A second signal cuts the draining short.

        Args:
            on_started: called once everything runs.
            on_asked_to_stop: called when the application is asked to stop, before it
                begins to; perhaps more than once, and perhaps from a signal's handler,
                so it must be short and take no lock.

        Raises:
            FlowcoroError: it could not start, or a component failed while it ran.
        """
        self._stop = anyio.Event()
        self._on_asked_to_stop = on_asked_to_stop
        with stop_signals(self._asked_to_stop, self.request_stop):
            self._starting = anyio.CancelScope()
            with self._starting as starting:
                await self.__aenter__()
            self._starting = None
            if not starting.cancelled_caught:
                try:
                    if on_started is not None:
                        on_started()
                    await self._stop.wait()
                finally:
                    await self.__aexit__(None, None, None)
        if self._failure is not None:
            error = self._failure.failed
            reason = describe(error) if error is not None else "unknown"
            raise FlowcoroError(f"{self._failure.label} failed: {reason}") from error

    def run(self, *, loop: str | None = None) -> None:
        """Run the application from a script, until a signal to stop.

        It runs on one event loop in this process, and refuses a configuration that asks for
        more (`server.workers`, `server.threads`), which is for `flowcoro run`.

        Args:
            loop: name of the event loop; see `flowcoro.loops.choose_loop`.

        Raises:
            SystemExit: with status 1, after one readable line on standard error, when
                it could not start or a component failed.
        """
        from flowcoro.app._main import run_app

        status = run_app(self, loop=loop)
        if status:
            raise SystemExit(status)

    @property
    def drain_timeout(self) -> float:
        """Seconds that work in flight may take to finish (`server.drain_timeout`)."""
        return self.context.config.section(ServerConfig).drain_timeout

    @property
    def size(self) -> int:
        """How many components it runs, those of plugins included."""
        return len(self._units)

    @property
    def failed(self) -> bool:
        """Whether an essential component failed while the application ran."""
        return self._failure is not None

    @property
    def stuck(self) -> list[str]:
        """Names of components that ignored cancellation when the application stopped."""
        return [u.label for u in self._lifecycle.stuck] if self._lifecycle else []

    def _prepare(self) -> Context:
        if self._plugins is None or self._config is None:
            environment = load_environment(plugins=self._plugins)
            self._plugins = self._plugins or environment.plugins
            self._config = self._config or environment.config
        dependencies = Dependencies()
        for factory, as_type in self._providers:
            dependencies.provide(factory, as_type=as_type)
        return Context(
            name=self.name,
            config=self._config,
            plugins=self._plugins,
            dependencies=dependencies,
            check_health=self.health,
            stop=self.request_stop,
            workers=self._workers,
            shared=self._shared,
        )

    def _assemble(self, context: Context) -> Lifecycle:
        """Make the plugins' components, attach all to the context and order them."""
        self._refused = []
        units = [*self._plugin_units(context), *(Unit(c) for c in self._components)]
        check_names(units)
        context.dependencies.add(context)
        for unit in units:
            context.dependencies.add(unit.component, name=unit.component.name)
        attached = [unit for unit in units if self._attach(unit, context)]
        kept = satisfiable(attached)
        self._refused += [unit for unit in units if unit not in kept]
        checks = context.plugins.collect("flowcoro_health_checks", HealthCheck, context=context)
        self._units = in_order(kept)
        taken = {unit.component.name: unit for unit in units}
        for name in checks.keys() & taken.keys():
            logger.error(
                "health check %r of %s is left out: %s has that name",
                name,
                checks.owner(name).label,
                taken[name].label,
            )
        self._checks = [check for name, check in checks.items() if name not in taken]
        return Lifecycle(self._units, self._component_failed)

    def _plugin_units(self, context: Context) -> Iterator[Unit]:
        claims = context.plugins.collect(
            "flowcoro_components", ComponentFactory, config=context.config
        )
        for name, factory in claims.items():
            owner = claims.owner(name).label
            unit = Unit(Component(), owner, factory.essential)
            unit.component.name = name
            try:
                component = factory.create()
                if not isinstance(component, Component):
                    raise TypeError(f"its factory made {component!r}, expected a component")
            except (Exception, SystemExit) as error:  # noqa: BLE001 - refuse() decides
                unit.refuse(error, "could not be made")
                self._refused.append(unit)
                continue
            component.name = name
            unit.component = component
            yield unit

    def _attach(self, unit: Unit, context: Context) -> bool:
        try:
            unit.component.attach(context)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - refuse() decides
            unit.refuse(error, "could not start")
            context.dependencies.remove(unit.component)
            return False
        return True

    def _asked_to_stop(self) -> None:
        if self._on_asked_to_stop is not None:
            self._on_asked_to_stop()

    def _component_failed(self, unit: Unit) -> None:
        self._failure = self._failure or unit
        if not self._stop.is_set():
            self.request_stop(f"{unit.label} failed")

    async def _check(self, check: HealthCheck, found: dict[str, Health]) -> None:
        late = self._late_checks.get(check.name)
        if late is not None and not late.done():
            # Asking again would leave one more task behind each time.
            found[check.name] = Health(HealthStatus.FAIL, "has not answered an earlier question")
            return
        outcome = await outcome_within(_answer(check), check.timeout)
        error = outcome.error
        if isinstance(error, Late):
            self._late_checks[check.name] = error.task
            health = Health(HealthStatus.FAIL, f"no answer within {check.timeout:g} s")
        elif error is not None:
            logger.warning("health check %r raised", check.name, exc_info=error)
            health = Health(HealthStatus.FAIL, f"raised {type(error).__name__}")
        elif not isinstance(outcome.value, Health):
            kind = type(outcome.value).__name__
            health = Health(HealthStatus.FAIL, f"answered {kind}, expected Health")
        else:
            health = outcome.value
        found[check.name] = health


async def _answer(check: HealthCheck) -> Health:
    return await check.check()
