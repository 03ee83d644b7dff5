"""Dependencies by annotation: what a handler's `db: Database` becomes.

Two kinds of provider exist. An *instance* (every component is one) lives as long as
the application. A *factory* runs at most once per `Scope` (a request, a message) and
may be a function, a coroutine function, or a generator of either kind, whose code
after `yield` runs when the scope closes. Annotations are resolved to a `Resolver`
once, when handlers are bound; a request then only calls resolvers.

What does not belong here: reading a handler's signature (that is the feature's
business, flowcoro-http for one) and anything about transport.
"""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Annotated, Any, Self

import anyio

from flowcoro.errors import DependencyError

__all__ = ["Dependencies", "Named", "Resolver", "Scope"]

_GENERATORS = (
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterator,
    collections.abc.Generator,
    collections.abc.Iterator,
)


@dataclass(frozen=True, slots=True)
class Named:
    """Picks one of several instances: `Annotated[Database, Named("reports")]`."""

    name: str


@dataclass(frozen=True, slots=True)
class Resolver:
    """How to obtain one annotated value inside a `Scope`.

    Attributes:
        wanted: the type asked for.
        instance: the application-wide instance; meaningful with `has_instance`.
        has_instance: whether an application-wide instance is what was asked for.
        seed: whether the scope's opener supplies it (a `Request`, say).
        factory: the factory to call, or None.
        arguments: resolvers of the factory's own parameters, by name.
    """

    wanted: type
    instance: object | None = None
    has_instance: bool = False
    seed: bool = False
    factory: Callable[..., Any] | None = None
    arguments: Mapping[str, Resolver] = field(default_factory=dict)

    def components(self) -> Iterator[object]:
        """Yield every application-wide instance that this value depends on."""
        if self.has_instance:
            yield self.instance
        for argument in self.arguments.values():
            yield from argument.components()


@dataclass(frozen=True, slots=True)
class _Instance:
    value: object
    name: str | None


class Dependencies:
    """What annotations resolve to, for one application.

    Example:
        ```python
        dependencies = Dependencies()
        dependencies.add(database)
        resolver = dependencies.resolver(Database, needed_by="GET /users")
        async with dependencies.scope() as scope:
            assert await scope.get(resolver) is database
        ```
    """

    def __init__(self) -> None:
        self._instances: list[_Instance] = []
        self._factories: dict[type, Callable[..., Any]] = {}
        self._overrides: dict[type, object] = {}

    def add(self, instance: object, *, name: str | None = None) -> None:
        """Provide `instance` to every annotation that its type satisfies.

        Args:
            instance: what to provide, application-wide.
            name: how `Named` tells it from others of the same type.

        Raises:
            DependencyError: an instance of the same type and name is there already.
        """
        for other in self._instances:
            if type(other.value) is type(instance) and other.name == name:
                raise DependencyError(
                    f"two instances of {_show(type(instance))} are both named {name!r}; "
                    "give each its own name"
                )
        self._instances.append(_Instance(instance, name))

    def remove(self, instance: object) -> None:
        """Provide `instance` no longer; plans that were made already do not change."""
        self._instances = [i for i in self._instances if i.value is not instance]

    def provide(self, factory: Callable[..., Any], *, as_type: type | None = None) -> None:
        """Provide what `factory` returns or yields, once per scope.

        Args:
            factory: a function, coroutine function, generator or asynchronous generator
                function. Its parameters are dependencies themselves.
            as_type: the type that annotations name; taken from the return annotation
                when not given (`T` of `AsyncIterator[T]` for generators).

        Raises:
            DependencyError: no type is given or annotated, or the type has a factory.
        """
        provided = as_type or _returned_type(factory)
        if provided in self._factories:
            raise DependencyError(
                f"{_show(provided)} is provided twice: by {_name(self._factories[provided])} "
                f"and by {_name(factory)}"
            )
        self._factories[provided] = factory

    @contextlib.contextmanager
    def override(self, wanted: type, value: object) -> Iterator[None]:
        """Provide `value` for exactly `wanted` within the block; for tests.

        Resolvers that were made outside the block do not change.
        """
        before = self._overrides.copy()
        self._overrides[wanted] = value
        try:
            yield
        finally:
            self._overrides = before

    def can_resolve(self, annotation: Any) -> bool:
        """Tell whether some provider matches `annotation` (perhaps more than one)."""
        wanted, name = _split(annotation)
        return isinstance(wanted, type) and (
            wanted in self._overrides
            or wanted in self._factories
            or bool(self._matching(wanted, name))
        )

    def resolver(self, annotation: Any, *, needed_by: str, seeds: Sequence[type] = ()) -> Resolver:
        """Plan how to obtain `annotation`.

        Args:
            annotation: a class, or `Annotated[cls, Named(...)]`.
            needed_by: who asks, for the error message.
            seeds: types that every scope's opener will supply.

        Returns:
            The plan, for `Scope.get`.

        Raises:
            DependencyError: nothing provides it, several things do, or factories need
                each other in a circle.
        """
        return self._resolver(annotation, needed_by, tuple(seeds), ())

    def arguments(
        self, function: Callable[..., Any], *, needed_by: str, seeds: Sequence[type] = ()
    ) -> dict[str, Resolver]:
        """Plan how to obtain each parameter of `function` that has no default.

        Args:
            function: its parameters are annotated with what they need.
            needed_by: who asks, for the error message.
            seeds: types that every scope's opener will supply.

        Returns:
            A plan for each parameter, by name.

        Raises:
            DependencyError: see `resolver`; or a parameter lacks an annotation or cannot
                be passed by name.
        """
        return self._arguments(function, needed_by, tuple(seeds), ())

    def scope(self, seeds: Mapping[type, object] | None = None) -> Scope:
        """Open a scope, within which each factory runs at most once.

        Args:
            seeds: values that this scope supplies itself, by type.
        """
        return Scope(seeds or {})

    def _matching(self, wanted: type, name: str | None) -> list[_Instance]:
        found = [i for i in self._instances if _is(i.value, wanted)]
        if name is not None:
            return [i for i in found if i.name == name]
        exact = [i for i in found if type(i.value) is wanted]
        return exact or found

    def _resolver(
        self, annotation: Any, needed_by: str, seeds: tuple[type, ...], path: tuple[type, ...]
    ) -> Resolver:
        wanted, name = _split(annotation)
        if not isinstance(wanted, type) or typing.get_origin(wanted) is not None:
            raise DependencyError(f"{needed_by}: {_show(annotation)} is not a class")
        if wanted in self._overrides:
            return Resolver(wanted, instance=self._overrides[wanted], has_instance=True)
        if wanted in seeds:
            return Resolver(wanted, seed=True)
        found = self._matching(wanted, name)
        if len(found) == 1:
            return Resolver(wanted, instance=found[0].value, has_instance=True)
        if len(found) > 1:
            names = ", ".join(repr(i.name) for i in found)
            raise DependencyError(
                f"{needed_by}: {_show(wanted)} is ambiguous, it is provided as {names}; "
                f"pick one with Annotated[{wanted.__name__}, Named(...)]"
            )
        if name is None and wanted in self._factories:
            return self._factory_resolver(wanted, seeds, path)
        label = f"{_show(wanted)} named {name!r}" if name is not None else _show(wanted)
        offered = sorted({_show(type(i.value)) for i in self._instances})
        offered += sorted(_show(t) for t in self._factories)
        raise DependencyError(
            f"{needed_by}: nothing provides {label}; "
            f"available: {', '.join(offered) if offered else 'nothing'}"
        )

    def _factory_resolver(
        self, wanted: type, seeds: tuple[type, ...], path: tuple[type, ...]
    ) -> Resolver:
        factory = self._factories[wanted]
        if wanted in path:
            circle = " -> ".join(_show(t) for t in (*path[path.index(wanted) :], wanted))
            raise DependencyError(f"dependencies need each other in a circle: {circle}")
        arguments = self._arguments(factory, f"{_name(factory)}()", seeds, (*path, wanted))
        return Resolver(wanted, factory=factory, arguments=arguments)

    def _arguments(
        self,
        function: Callable[..., Any],
        needed_by: str,
        seeds: tuple[type, ...],
        path: tuple[type, ...],
    ) -> dict[str, Resolver]:
        found: dict[str, Resolver] = {}
        for parameter in _signature(function, needed_by).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.default is not parameter.empty:
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise DependencyError(
                    f"{needed_by}: parameter {parameter.name!r} is positional-only; "
                    "dependencies are passed by name"
                )
            if parameter.annotation is parameter.empty:
                raise DependencyError(
                    f"{needed_by}: parameter {parameter.name!r} has no annotation; "
                    "expected the type of what to pass"
                )
            found[parameter.name] = self._resolver(parameter.annotation, needed_by, seeds, path)
        return found


class Scope:
    """Holds what factories made for one request until it is over.

    An asynchronous context manager; values are released in reverse order.
    """

    __slots__ = ("_making", "_stack", "_values")

    def __init__(self, seeds: Mapping[type, object]) -> None:
        self._values: dict[type, object] = dict(seeds)
        self._stack: AsyncExitStack | None = None
        self._making: anyio.Lock | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._stack is None:
            return False
        return bool(await self._stack.__aexit__(exc_type, exc, traceback))

    async def get(self, resolver: Resolver) -> Any:
        """Return the value that `resolver` plans, making it if this scope has none yet."""
        if resolver.has_instance:
            return resolver.instance
        if resolver.wanted in self._values:
            return self._values[resolver.wanted]
        if resolver.factory is None:
            raise DependencyError(f"this scope was opened without a {_show(resolver.wanted)}")
        arguments = {name: await self.get(r) for name, r in resolver.arguments.items()}
        # Two tasks of one request may ask at once; the first one's value is for both.
        self._making = self._making or anyio.Lock()
        async with self._making:
            if resolver.wanted not in self._values:
                self._values[resolver.wanted] = await self._make(resolver.factory, arguments)
        return self._values[resolver.wanted]

    async def _make(self, factory: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        if self._stack is None:
            self._stack = AsyncExitStack()
        if inspect.isasyncgenfunction(factory):
            manager = contextlib.asynccontextmanager(factory)(**arguments)
            return await self._stack.enter_async_context(manager)
        if inspect.isgeneratorfunction(factory):
            return self._stack.enter_context(contextlib.contextmanager(factory)(**arguments))
        value = factory(**arguments)
        return await value if inspect.isawaitable(value) else value


def _is(value: object, wanted: type) -> bool:
    try:
        return isinstance(value, wanted)
    except TypeError:
        return False  # list[int], or a protocol that is not checkable at run time


def _split(annotation: Any) -> tuple[Any, str | None]:
    if typing.get_origin(annotation) is Annotated:
        wanted, *metadata = typing.get_args(annotation)
        for item in metadata:
            if isinstance(item, Named):
                return wanted, item.name
        return wanted, None
    return annotation, None


def _signature(factory: Callable[..., Any], label: str = "") -> inspect.Signature:
    try:
        return inspect.signature(factory, eval_str=True)
    except NameError as error:
        raise DependencyError(
            f"{label or _name(factory)}: annotation cannot be resolved: {error}"
        ) from error


def _returned_type(factory: Callable[..., Any]) -> type:
    if isinstance(factory, type):
        return factory
    returned = _signature(factory).return_annotation
    if typing.get_origin(returned) in _GENERATORS:
        returned = typing.get_args(returned)[0]
    missing = returned is inspect.Signature.empty
    if missing or not isinstance(returned, type):
        raise DependencyError(
            f"{_name(factory)} needs a return annotation that is a class (or as_type=...)"
        )
    return returned


def _show(annotation: Any) -> str:
    if isinstance(annotation, type):
        return f"{annotation.__module__}.{annotation.__qualname__}"
    return repr(annotation)


def _name(factory: Callable[..., Any]) -> str:
    return getattr(factory, "__qualname__", repr(factory))
