"""pytest fixtures and the marker `simulate`; pytest finds it by its `pytest11` entry point.

What is heavy is imported when a test asks for it: this module is loaded for every run of pytest.
"""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flowcoro.app import Context
    from flowcoro.plugins import PluginHost
    from flowcoro.testing import SimulatedLoop

__all__ = ["app_context", "plugin_host", "simulated_loop"]

_MARKER = (
    "simulate(seeds=1000, first_seed=0, **options): run an async test on a SimulatedLoop, once for"
    " each seed; see flowcoro.testing.simulate"
)


@pytest.fixture
def plugin_host() -> PluginHost:
    """A strict plugin host with the core's plugin only; `register` adds what is tested."""
    from flowcoro.testing import make_host

    return make_host()


@pytest.fixture
def app_context(plugin_host: PluginHost) -> Context:
    """A context over `plugin_host`, with every setting at its default."""
    from flowcoro.testing import make_context

    return make_context(plugins=plugin_host)


@pytest.fixture
def simulated_loop(request: pytest.FixtureRequest) -> SimulatedLoop:
    """The loop that a test marked with `simulate` runs on, a fresh one for each seed."""
    if request.node.get_closest_marker("simulate") is None:
        pytest.fail("the fixture simulated_loop is for tests marked with @pytest.mark.simulate")
    return _NotYet()  # type: ignore[return-value]


class _NotYet:
    """What stands for the loop until a run has its own."""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"simulated_loop.{name}: there is a loop within the test only, a fresh one for each"
            " seed; other fixtures are made before"
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose seeds."""
    group = parser.getgroup("flowcoro")
    group.addoption(
        "--simulate-seed",
        type=int,
        metavar="N",
        help="run tests marked with simulate for this seed only: replays a failure",
    )
    group.addoption(
        "--simulate-seeds",
        type=int,
        metavar="COUNT",
        help="run tests marked with simulate for so many seeds instead of their own number",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse the marker where a test does not run by `pytest_pyfunc_call`."""
    cls = getattr(item, "cls", None)
    by_itself = cls is not None and issubclass(cls, unittest.TestCase)
    if by_itself and item.get_closest_marker("simulate") is not None:
        pytest.fail(
            "unittest runs the methods of its TestCase by itself, and not on a simulated loop:"
            " mark a function, or a method of another class",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run a marked test on simulated loops, and not on what other plugins would give it."""
    marker = pyfuncitem.get_closest_marker("simulate")
    if marker is None:
        return (yield)
    test, called = _unwrapped(pyfuncitem.obj), pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        pytest.fail("a test that is marked with simulate must be a coroutine function")
    options = _options(marker, pyfuncitem.config)

    # Its parameters are those of the test, by which pytest calls it; it is no coroutine function,
    # so that nobody else takes it for one.
    def run(**arguments: Any) -> None:
        from flowcoro.testing import SimulationFailure, simulate

        def main(loop: SimulatedLoop) -> Awaitable[object]:
            if "simulated_loop" in arguments:
                arguments["simulated_loop"] = loop
            awaitable: Awaitable[object] = test(**arguments)
            return awaitable

        __tracebackhide__ = True
        try:
            simulate(main, **options)
        except SimulationFailure as failure:
            replay = f"pytest --simulate-seed={failure.seed} '{pyfuncitem.nodeid}'"
            pyfuncitem.add_report_section(
                "call", "simulation", "\n".join([f"replay it by {replay}", *failure.trace[-200:]])
            )
            raise

    pyfuncitem.obj = run
    try:
        return (yield)
    finally:
        pyfuncitem.obj = called


def _unwrapped(test: Any) -> Any:
    """Return the test without what pytest-asyncio puts around it, to run it on its own loop."""
    while getattr(test, "__globals__", {}).get("__name__", "").startswith("pytest_asyncio"):
        test = test.__wrapped__
    return test


def _options(marker: pytest.Mark, config: pytest.Config) -> dict[str, Any]:
    """Return what to give to `simulate`: the marker's arguments, and those of the command line."""
    from flowcoro.testing import simulate

    known = list(inspect.signature(simulate).parameters)[1:]
    unknown = [name for name in marker.kwargs if name not in known]
    if unknown or len(marker.args) > 2:
        wrong = ", ".join(unknown) or f"{len(marker.args)} arguments by position"
        pytest.fail(f"@pytest.mark.simulate: {wrong}; expected {', '.join(known)}", pytrace=False)
    options: dict[str, Any] = dict(zip(("seeds", "first_seed"), marker.args, strict=False))
    options.update(marker.kwargs)
    if (count := config.getoption("--simulate-seeds")) is not None:
        options["seeds"] = count
    if (seed := config.getoption("--simulate-seed")) is not None:
        options["seed"] = seed
    return options
