"""The plugin host: loads plugins in isolation, calls their hooks one by one.

pluggy keeps the implementations and checks their signatures. Loading and calling are
our own: pluggy's loader stops at the first import that fails, and its call stops at
the first hook that raises, and here one plugin must never stop another.

Loading goes through all plugins phase by phase: refuse what is blocked or outside its
declared version range (metadata only), import, check the hook API, add
specifications, register implementations, refuse unknown hooks.
"""

from __future__ import annotations

import inspect
import logging
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Any, NoReturn, TypeVar

import pluggy

from flowcoro import hookspecs
from flowcoro._describe import describe
from flowcoro.errors import ConfigError, PluginError
from flowcoro.plugins._claims import Claims
from flowcoro.plugins._metadata import PluginInfo, blocked_by_environment, discover, incompatibility
from flowcoro.plugins._record import PluginRecord, PluginStatus, Problem
from flowcoro.plugins._validate import api_mismatch, unknown_hooks, unmarked_hooks

__all__ = ["Contribution", "PluginHost"]

T = TypeVar("T")

# Whatever else a plugin raises is its own fault, `SystemExit` and the panics of extension
# modules (which are no `Exception`) included.
_NOT_FAULTS = (KeyboardInterrupt, GeneratorExit)

_CORE = "core"

logger = logging.getLogger("flowcoro.plugins")


@dataclass(frozen=True, slots=True)
class Contribution:
    """One plugin's answer to one hook call.

    Attributes:
        record: the plugin that answered.
        value: what it returned; never None (a plugin that has nothing to say is left out).
    """

    record: PluginRecord
    value: Any


@dataclass(slots=True)
class _Candidate:
    """A plugin on its way through the loading phases."""

    record: PluginRecord
    specs: list[object] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.record.status is PluginStatus.LOADED


class PluginHost:
    """Plugins and their hooks, for one process or one test.

    `PluginHost()` is empty; `register` adds plugins by hand. `PluginHost.load()` adds
    what is installed.

    Args:
        strict: raise on the first plugin that cannot load or that fails in a hook,
            rather than record it.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._records: dict[str, PluginRecord] = {}
        self._by_plugin: dict[int, PluginRecord] = {}

    @classmethod
    def load(
        cls,
        *,
        block: Iterable[str] = (),
        strict: bool = False,
        infos: Iterable[PluginInfo] | None = None,
    ) -> PluginHost:
        """Make a host with the installed plugins.

        Args:
            block: names of plugins to leave out, beside `FLOWCORO_BLOCK_PLUGINS`.
            strict: raise on the first plugin that cannot load.
            infos: the plugins to load instead of the installed ones.

        Raises:
            ConfigError: `core`, FlowCoro's own plugin, is to be blocked.
            PluginError: in strict mode, naming plugin, distribution and reason.
        """
        host = cls(strict=strict)
        blocked = blocked_by_environment() | frozenset(block)
        if _CORE in blocked:
            raise ConfigError([f"plugins.block: {_CORE!r} is FlowCoro and cannot be blocked"])
        host._load_all(list(discover() if infos is None else infos), blocked)
        return host

    @property
    def records(self) -> Mapping[str, PluginRecord]:
        """Every plugin that was found, by name, whatever its outcome."""
        return types.MappingProxyType(self._records)

    def register(
        self, plugin: object, *, name: str | None = None, distribution: str = "registered by hand"
    ) -> PluginRecord:
        """Add a plugin by hand: for tests, and for hooks written in an application.

        It takes the same checks as an installed plugin.

        Args:
            plugin: a module or object with hook implementations and `FLOWCORO_HOOK_API`.
            name: its name; the module's or class's name when not given.
            distribution: what messages name as its origin.

        Returns:
            Its record, whose status tells the outcome.

        Raises:
            PluginError: the name is taken; or, in strict mode, it cannot be loaded.
        """
        name = name or str(getattr(plugin, "__name__", type(plugin).__name__))
        if name in self._records:
            raise PluginError(f"a plugin named {name!r} is registered already")
        record = PluginRecord(PluginInfo(name, "", distribution, ""), PluginStatus.LOADED)
        record.plugin = plugin
        self._records[name] = record
        self._admit([_Candidate(record)])
        return record

    def hooks(self, *, features: bool = False) -> list[str]:
        """Return the names of the hooks that are specified, sorted.

        Args:
            features: leave out the core's own.
        """
        caller = self._manager.hook
        names = [name for name in vars(caller) if getattr(caller, name).has_spec()]
        return sorted(n for n in names if not (features and hasattr(hookspecs, n)))

    def arguments(self, hook: str) -> tuple[str, ...]:
        """Return the names of the arguments that a hook's specification takes.

        Raises:
            PluginError: the hook is not specified.
        """
        caller = getattr(self._manager.hook, hook, None)
        if caller is None or caller.spec is None:
            raise PluginError(f"no hook named {hook!r} is specified by any loaded plugin")
        return tuple(caller.spec.argnames)

    def call(self, hook: str, /, **arguments: Any) -> list[Contribution]:
        """Ask every plugin, in order of name; each in isolation.

        Args:
            hook: the hook's name.
            arguments: what the specification takes.

        Returns:
            The answers that are not None.

        Raises:
            PluginError: the hook is not specified, or, in strict mode, a plugin raised.
        """
        answers = []
        for record, value in self._answers(hook, arguments):
            if inspect.isawaitable(value):
                _discard(value)
                self.note(record, hook, "returned an awaitable from a synchronous hook")
            elif value is not None:
                answers.append(Contribution(record, value))
        return answers

    async def call_async(
        self, hook: str, /, *, timeout: float = 10.0, **arguments: Any
    ) -> list[Contribution]:
        """Ask every plugin; await, side by side, what they return to be awaited.

        Args:
            hook: the hook's name.
            timeout: seconds that each plugin's awaitable may take.
            arguments: what the specification takes.

        Returns:
            The answers that are not None, in order of name.

        Raises:
            PluginError: the hook is not specified, or, in strict mode, a plugin raised
                or was late.
        """
        import asyncio

        from flowcoro._deadline import Late, Outcome, outcome_within

        async def settle(value: Any) -> Outcome[Any]:
            if inspect.isawaitable(value):
                return await outcome_within(value, timeout)
            return Outcome(value)

        pending = self._pending(hook, arguments)
        try:
            settled = await asyncio.gather(*(settle(value) for _, value in pending))
        finally:
            for _, value in pending:
                _discard(value)
        answers = []
        for (record, _), outcome in zip(pending, settled, strict=True):
            error = outcome.error
            if isinstance(error, Late):
                self.note(record, hook, f"was not done within {timeout:g} s", error)
            elif error is not None:
                self.note(record, hook, describe(error), error)
            elif outcome.value is not None:
                answers.append(Contribution(record, outcome.value))
        return answers

    def collect(self, hook: str, kind: type[T], /, **arguments: Any) -> Claims[T]:
        """Ask every plugin for named descriptions, check their types, settle their names.

        Args:
            hook: a hook that returns a sequence of `kind`.
            kind: the type of each description; it has a `name`.
            arguments: what the specification takes.

        Returns:
            The descriptions by name. What has the wrong type is left out and recorded;
            a name that two plugins claim is contested and recorded against both.

        Raises:
            PluginError: the hook is not specified, or, in strict mode, a plugin broke
                its contract.
        """
        found: list[tuple[str, T, PluginRecord]] = []
        for contribution in self.call(hook, **arguments):
            value = contribution.value
            complaint = _wrong_shape(value, kind)
            if complaint:
                self.note(contribution.record, hook, complaint)
                continue
            found += [(getattr(item, "name"), item, contribution.record) for item in value]  # noqa: B009
        claims = Claims(_noun(kind), found)
        for name, owners in claims.contested.items():
            for record in owners:
                self.note(record, hook, claims.conflict(name))
        return claims

    def _load_all(self, infos: list[PluginInfo], blocked: frozenset[str]) -> None:
        claimants: dict[str, list[PluginInfo]] = {}
        for info in infos:
            claimants.setdefault(info.name, []).append(info)
        candidates = []
        for name, claiming in claimants.items():
            record = PluginRecord(self._rightful(claiming), PluginStatus.LOADED)
            self._records[name] = record
            if name in blocked:
                record.status, record.reason = PluginStatus.BLOCKED, "blocked by configuration"
            elif len(claiming) > 1 and name != _CORE:
                origins = ", ".join(info.origin for info in claiming)
                self._refuse(record, PluginStatus.FAILED, f"its name is claimed by {origins}")
            else:
                candidates.append(_Candidate(record))
        for candidate in candidates:
            self._import(candidate.record)
        self._admit(candidates)

    def _rightful(self, claiming: list[PluginInfo]) -> PluginInfo:
        """Choose whom a name stands for; `core` is FlowCoro's own, whoever claims it."""
        ours = [i for i in claiming if i.name == _CORE and i.distribution == hookspecs.PROJECT]
        if ours and len(claiming) > 1:
            others = ", ".join(i.origin for i in claiming if i not in ours)
            message = f"plugin {_CORE!r} is FlowCoro's own; {others} may not use that name"
            if self.strict:
                raise PluginError(message)
            logger.error("%s", message)
        return (ours or claiming)[0]

    def _import(self, record: PluginRecord) -> None:
        info = record.info
        reason = incompatibility(info)
        if reason is not None:
            self._refuse(record, PluginStatus.INCOMPATIBLE, reason)
            return
        point = EntryPoint(info.name, info.target, hookspecs.PROJECT)
        if point.pattern.match(info.target) is None:
            reason = f"entry point {info.target!r}: expected module or module:attribute"
            self._refuse(record, PluginStatus.FAILED, reason)
            return
        try:
            record.plugin = point.load()
        except _NOT_FAULTS:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin's fault is its own
            self._refuse(record, PluginStatus.FAILED, f"import: {describe(error)}", error)

    def _admit(self, candidates: list[_Candidate]) -> None:
        """Take imported plugins through the remaining phases."""
        for phase in (self._check_api, self._gather_specs, self._add_specs):
            for candidate in candidates:
                if candidate.alive:
                    self._guard(phase, candidate)
        # Registered only when every specification is known, whatever the order of names.
        for candidate in candidates:
            if candidate.alive:
                self._guard(self._register, candidate)

    def _guard(self, phase: Callable[[_Candidate], None], candidate: _Candidate) -> None:
        try:
            phase(candidate)
        except (PluginError, *_NOT_FAULTS):
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin's fault is its own
            self._refuse(candidate.record, PluginStatus.FAILED, describe(error), error)

    def _check_api(self, candidate: _Candidate) -> None:
        reason = api_mismatch(candidate.record.plugin)
        if reason is not None:
            self._refuse(candidate.record, PluginStatus.INCOMPATIBLE, reason)

    def _gather_specs(self, candidate: _Candidate) -> None:
        add = getattr(candidate.record.plugin, "flowcoro_add_hookspecs", None)
        if add is not None and hasattr(add, f"{hookspecs.PROJECT}_impl"):
            candidate.specs = list(add())

    def _add_specs(self, candidate: _Candidate) -> None:
        specs: Any  # pluggy takes any object, though it is typed as module or class
        for specs in candidate.specs:
            self._manager.add_hookspecs(specs)

    def _register(self, candidate: _Candidate) -> None:
        record, manager = candidate.record, self._manager
        plugin = record.plugin
        unmarked = unmarked_hooks(plugin, list(vars(manager.hook)))
        if unmarked:
            reason = f"{unmarked[0]}() is not marked with @hookimpl"
            self._refuse(record, PluginStatus.FAILED, reason)
            return
        try:
            manager.register(plugin, name=record.info.name)
        except pluggy.PluginValidationError as error:
            manager.unregister(name=record.info.name)
            reason = " ".join(str(error).split())
            self._refuse(record, PluginStatus.FAILED, reason, error)
            return
        complaints = unknown_hooks(manager, plugin, self._records.values())
        callers = manager.get_hookcallers(plugin) or []
        if not complaints:
            complaints = [
                f"{caller.name}: hook wrappers are not supported"
                for caller in callers
                for impl in caller.get_hookimpls()
                if impl.plugin is plugin and (impl.hookwrapper or impl.wrapper)
            ]
        if complaints:
            manager.unregister(plugin)
            self._refuse(record, PluginStatus.FAILED, "; ".join(complaints))
            return
        record.hooks = tuple(sorted(caller.name for caller in callers))
        self._by_plugin[id(plugin)] = record

    def _pending(self, hook: str, arguments: Mapping[str, Any]) -> list[tuple[PluginRecord, Any]]:
        pending: list[tuple[PluginRecord, Any]] = []
        try:
            for answer in self._answers(hook, arguments):
                pending.append(answer)  # noqa: PERF402 - what came before must be closed
        except BaseException:
            for _, value in pending:
                _discard(value)
            raise
        return pending

    def _answers(
        self, hook: str, arguments: Mapping[str, Any]
    ) -> Iterator[tuple[PluginRecord, Any]]:
        expected = self.arguments(hook)
        if set(expected) != set(arguments):
            raise PluginError(f"hook {hook} takes {sorted(expected)}, not {sorted(arguments)}")
        caller = getattr(self._manager.hook, hook)
        order = {id(record): index for index, record in enumerate(self._records.values())}

        def rank(impl: pluggy.HookImpl) -> tuple[int, int]:
            priority = 0 if impl.tryfirst else 2 if impl.trylast else 1
            return priority, order[id(self._by_plugin[id(impl.plugin)])]

        for impl in sorted(caller.get_hookimpls(), key=rank):
            record = self._by_plugin[id(impl.plugin)]
            try:
                value = impl.function(*(arguments[name] for name in impl.argnames))
            except _NOT_FAULTS:
                raise
            except BaseException as error:  # noqa: BLE001 - a plugin's fault is its own
                self.note(record, hook, describe(error), error)
            else:
                yield record, value

    def _refuse(
        self,
        record: PluginRecord,
        status: PluginStatus,
        reason: str,
        error: BaseException | None = None,
    ) -> None:
        record.status, record.reason, record.error = status, reason, error
        record.plugin = None
        message = f"{record.label} is {status}: {reason}"
        if self.strict:
            raise PluginError(message) from error
        logger.error("%s", message)
        if error is not None:
            logger.debug("%s", record.label, exc_info=error)

    def note(
        self, record: PluginRecord, hook: str, message: str, error: BaseException | None = None
    ) -> None:
        """Record and log that a plugin did something wrong; the same thing only once.

        Args:
            record: the plugin.
            hook: the hook whose contract it broke.
            message: what happened, in one line.
            error: the exception, where there was one.

        Raises:
            PluginError: in strict mode.
        """
        problem = Problem(hook, message, error)
        text = f"{record.label} failed in hook {hook}: {message}"
        if self.strict:
            _raise(PluginError(text), error)
        if problem in record.problems:
            return
        record.problems.append(problem)
        logger.error("%s", text)
        if error is not None:
            logger.debug("%s", text, exc_info=error)


def _raise(error: Exception, cause: BaseException | None) -> NoReturn:
    raise error from cause


def _discard(value: Any) -> None:
    """Close a coroutine that nobody has begun to await."""
    if inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
        value.close()


def _noun(kind: type) -> str:
    """Turn `ServerBackend` into "server backend", for messages."""
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in kind.__name__).strip()
    return spaced.removesuffix(" factory")


def _wrong_shape(value: Any, kind: type) -> str | None:
    if not isinstance(value, list | tuple):
        return f"returned {type(value).__name__}, expected a sequence of {kind.__name__}"
    for item in value:
        if not isinstance(item, kind):
            return f"returned an item of {type(item).__name__}, expected {kind.__name__}"
        name = getattr(item, "name", None)
        if not isinstance(name, str) or not name:
            return f"returned a {kind.__name__} without a name"
    return None
