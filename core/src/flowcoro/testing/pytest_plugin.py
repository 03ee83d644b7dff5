"""pytest fixtures and the marker `simulate`; pytest finds it by its `pytest11` entry point.

What is heavy is imported when a test asks for it: this module is loaded for every run of pytest.
"""

from __future__ import annotations

import inspect
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
    # What stands here until a run has its own.
    return None  # type: ignore[return-value]


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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Run a marked test on simulated loops, and not on what other plugins would give it."""
    marker = pyfuncitem.get_closest_marker("simulate")
    if marker is None:
        return (yield)
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        pytest.fail("a test that is marked with simulate must be a coroutine function")
    config, options = pyfuncitem.config, dict(marker.kwargs)
    if marker.args:
        options["seeds"] = marker.args[0]
    if (count := config.getoption("--simulate-seeds")) is not None:
        options["seeds"] = count
    if (seed := config.getoption("--simulate-seed")) is not None:
        options["seed"] = seed

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
        pyfuncitem.obj = test
