"""Several event loops in one process: `run_threads`, and `load_apps` which feeds it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import Self

import anyio
import pytest

from flowcoro.app import App, Component, Restart, Shared
from flowcoro.app._environment import Environment
from flowcoro.app._threads import check_threads, run_threads
from flowcoro.cli._target import load_apps
from flowcoro.errors import ConfigError, TargetError
from flowcoro.hookspecs import hookimpl
from flowcoro.loops import LoopFactory
from flowcoro.testing import make_context, make_host
from log_tools import logging_as_before

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    with logging_as_before():
        yield


@pytest.fixture
def environment() -> Environment:
    return environment_with(drain_timeout=30.0)


def environment_with(**server: float) -> Environment:
    host = make_host()
    context = make_context(plugins=host, config={"server": server, "log": {"level": "DEBUG"}})
    return Environment(host, context.config)


class Says(Component):
    """Notes what happens to it, and in which thread."""

    def __init__(self, heard: list[tuple[str, int, str]], index: int) -> None:
        self.heard = heard
        self.index = index

    def say(self, word: str) -> None:
        self.heard.append((word, self.index, threading.current_thread().name))

    async def __aenter__(self) -> Self:
        self.say("up")
        return self

    async def drain(self) -> None:
        self.say("draining")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.say("down")


class Heard(list[tuple[str, int, str]]):
    def by(self, word: str) -> list[int]:
        return sorted(index for said, index, _ in self if said == word)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def stop_at_once(request_stop: Callable[[str], None]) -> None:
    request_stop("the test is over")


def test_each_application_has_a_thread_and_a_loop(environment: Environment, heard: Heard) -> None:
    loops = []

    class Looks(Says):
        async def __aenter__(self) -> Self:
            loops.append(asyncio.get_running_loop())
            return await super().__aenter__()

    status = run_threads(
        [App(Looks(heard, n)) for n in range(3)], environment, on_started=stop_at_once
    )
    assert status == 0
    assert len({id(loop) for loop in loops}) == 3
    assert all(loop.is_closed() for loop in loops)
    assert sorted(heard) == sorted(
        (word, n, f"loop {n}") for word in ("up", "draining", "down") for n in range(3)
    )
    assert not [each for each in threading.enumerate() if each.name.startswith("loop ")]


def test_the_first_starts_alone(environment: Environment) -> None:
    states: list[str] = []
    others = threading.Barrier(2)

    class First(Component):
        async def __aenter__(self) -> Self:
            for _ in range(100):  # time for the others, had they begun
                await asyncio.sleep(0)
            assert not states
            return self

    class Other(Component):
        async def __aenter__(self) -> Self:
            states.append(apps[0].state)
            await anyio.to_thread.run_sync(others.wait)  # these start side by side
            return self

    apps = [App(First()), App(Other()), App(Other())]
    assert run_threads(apps, environment, on_started=stop_at_once) == 0
    assert states == ["running", "running"]


def test_what_they_share(environment: Environment) -> None:
    seen: list[object] = []

    class Shares(Component):
        async def __aenter__(self) -> Self:
            shared = app_of[self].context.shared
            assert shared.threads == 2
            found = shared.get("port", int)
            if found is None:
                shared.put("port", 8000)
            seen.append(found)
            return self

    app_of = {component: App(component) for component in (Shares(), Shares())}
    assert run_threads(list(app_of.values()), environment, on_started=stop_at_once) == 0
    assert seen == [None, 8000]


def test_shared_values() -> None:
    shared = Shared()
    assert shared.threads == 1
    shared.put("name", "a")
    assert shared.get("name", str) == "a"
    with pytest.raises(TypeError, match="'name' is a str, expected a int"):
        shared.get("name", int)
    with pytest.raises(ValueError, match="something is shared as 'name' already"):
        shared.put("name", "b")


class Bad(Says):
    async def __aenter__(self) -> Self:
        raise OSError("port 80 refused")


def test_a_first_that_cannot_start(
    environment: Environment, heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    apps = [App(Bad(heard, 0)), App(Says(heard, 1))]
    started = pytest.fail
    assert run_threads(apps, environment, on_started=lambda _: started("it did not")) == 1
    assert heard == []
    assert capsys.readouterr().err.splitlines() == [
        "flowcoro: error: component 'bad' could not start: OSError: port 80 refused"
    ]


def test_another_that_cannot_start_stops_all(
    environment: Environment, heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    apps = [App(Says(heard, 0)), App(Bad(heard, 1)), App(Bad(heard, 2)), App(Says(heard, 3))]
    assert run_threads(apps, environment, on_started=lambda _: pytest.fail("it did not")) == 1
    assert 0 in heard.by("up")
    assert heard.by("up") == heard.by("down")
    assert capsys.readouterr().err.splitlines() == [
        "flowcoro: error: component 'bad' could not start: OSError: port 80 refused"
    ]


def test_one_that_fails_ends_all_at_once(
    environment: Environment, heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    others_down = threading.Event()
    fail = threading.Event()

    class Drains(Says):
        async def drain(self) -> None:
            # Were the others asked only once this one has ended, it would wait in vain.
            assert await anyio.to_thread.run_sync(others_down.wait, 30)

    class Tells(Says):
        async def __aexit__(self, *exc: object) -> None:
            others_down.set()

    failing = App(Drains(heard, 1))

    @failing.task(restart=Restart.NEVER)
    async def vital() -> None:
        await anyio.to_thread.run_sync(fail.wait)
        raise OSError("disk gone")

    status = run_threads(
        [App(Tells(heard, 0)), failing], environment, on_started=lambda _: fail.set()
    )
    assert status == 1
    assert "component 'vital' failed: OSError: disk gone" in capsys.readouterr().err


def test_one_that_stops_by_itself_stops_all(environment: Environment, heard: Heard) -> None:
    running = threading.Event()
    stops = App(Says(heard, 1))

    @stops.task()
    async def last_words() -> None:
        await anyio.to_thread.run_sync(running.wait)
        stops.request_stop("all is done")

    apps = [App(Says(heard, 0)), stops, App(Says(heard, 2))]
    assert run_threads(apps, environment, on_started=lambda _: running.set()) == 0
    assert heard.by("draining") == heard.by("down") == [0, 1, 2]


def test_asked_again_it_cuts_the_draining_short(environment: Environment) -> None:
    draining = threading.Barrier(3)
    cut: list[int] = []

    class Busy(Component):
        async def drain(self) -> None:
            await anyio.to_thread.run_sync(draining.wait)
            try:
                await anyio.sleep_forever()
            finally:
                cut.append(1)

    def ask_twice(request_stop: Callable[[str], None]) -> None:
        def ask() -> None:
            request_stop("once")
            draining.wait()
            request_stop("twice")

        threading.Thread(target=ask).start()

    assert run_threads([App(Busy()), App(Busy())], environment, on_started=ask_twice) == 0
    assert cut == [1, 1]


def test_a_request_to_stop_during_the_start(environment: Environment, heard: Heard) -> None:
    class Asks(Says):
        async def __aenter__(self) -> Self:
            app.request_stop("no use")
            return await super().__aenter__()

    app = App(Asks(heard, 0))
    assert (
        run_threads(
            [app, App(Says(heard, 1))], environment, on_started=lambda _: pytest.fail("it ran")
        )
        == 0
    )
    assert heard.by("up") in ([], [0])


def test_a_loop_that_there_is_not(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_threads([App(), App()], environment, loop="uring") == 1
    assert "no plugin provides loop 'uring'" in capsys.readouterr().err


def test_a_loop_that_cannot_be_made(heard: Heard, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def create() -> asyncio.AbstractEventLoop:
        if made:
            raise OSError("too many of them")
        made.append(asyncio.new_event_loop())
        return made[0]

    class Loops:
        FLOWCORO_HOOK_API = 1

        @hookimpl
        def flowcoro_loop_factories(self) -> list[LoopFactory]:
            return [LoopFactory("scarce", create)]

    host = make_host(Loops())
    environment = Environment(host, make_context(plugins=host).config)
    assert run_threads([App(Says(heard, n)) for n in range(3)], environment, loop="scarce") == 1
    assert heard.by("up") == heard.by("down") == [0]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == ("flowcoro: error: loop 'scarce' could not be made: OSError: too many of them")


def test_what_ends_a_loop_ends_the_process(environment: Environment, heard: Heard) -> None:
    class Leaves(Component):
        async def __aenter__(self) -> Self:
            asyncio.get_running_loop().call_soon(sys.exit, 7)
            return self

    with pytest.raises(SystemExit) as caught:
        run_threads([App(Says(heard, 0)), App(Leaves())], environment)
    assert caught.value.code == 7
    assert heard.by("up") == heard.by("draining") == heard.by("down") == [0]


@pytest.mark.parametrize("scarce", ["loop 0", "loop 1", "flowcoro watchdog"])
def test_a_thread_that_cannot_start_stops_all(
    environment: Environment,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scarce: str,
) -> None:
    start = threading.Thread.start
    watchdogs: list[threading.Thread] = []

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name == scarce and (watchdogs or scarce != "flowcoro watchdog"):
            raise RuntimeError("can't start new thread")
        if thread.name == "flowcoro watchdog":
            watchdogs.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    apps = [App(Says(heard, n)) for n in range(3)]
    assert run_threads(apps, environment, on_started=lambda _: pytest.fail("it did not")) == 1
    name = "loop 0" if scarce == "loop 0" else "loop 1"
    assert heard.by("up") == heard.by("draining") == heard.by("down") == [0][: name != "loop 0"]
    assert capsys.readouterr().err.splitlines() == [
        f"flowcoro: error: {name} could not start: RuntimeError: can't start new thread"
    ]
    for each in watchdogs:
        each.join(30)
        assert not each.is_alive()


def test_what_is_called_when_all_run_may_fail(
    environment: Environment, heard: Heard, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(request_stop: Callable[[str], None]) -> None:
        raise OSError("nobody listens")

    apps = [App(Says(heard, n)) for n in range(2)]
    assert run_threads(apps, environment, on_started=fail) == 1
    assert heard.by("up") == heard.by("draining") == heard.by("down") == [0, 1]
    assert capsys.readouterr().err.splitlines() == [
        "flowcoro: error: on_started failed: OSError: nobody listens"
    ]


def test_with_the_gil_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    check_threads(1)
    with pytest.raises(ConfigError) as caught:
        check_threads(4)
    assert "server.threads = 4: " in str(caught.value)
    assert "--workers 4 runs processes" in str(caught.value)
    monkeypatch.delattr(sys, "_is_gil_enabled")
    with pytest.raises(ConfigError):
        check_threads(4)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    check_threads(4)


@pytest.mark.parametrize(
    ("free_threaded", "why"),
    [(None, "needs a free-threaded Python"), (1, "an extension that was imported needs it")],
)
def test_the_refusal_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, free_threaded: int | None, why: str
) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: free_threaded)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    with pytest.raises(ConfigError, match=why):
        check_threads(2)


def test_on_windows_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="not available on Windows"):
        check_threads(2)


@contextmanager
def module(name: str, **content: object) -> Iterator[None]:
    made = ModuleType(name)
    vars(made).update(content)
    sys.modules[name] = made
    path = list(sys.path)
    try:
        yield
    finally:
        del sys.modules[name]
        sys.path[:] = path


def test_a_function_is_called_for_each_thread() -> None:
    made: list[App] = []

    def create() -> App:
        made.append(App(Component()))
        return made[-1]

    with module("shop", create=create):
        assert load_apps("shop:create", 3) == made
    assert len(set(map(id, made))) == 3


class Single(Component):
    """The only one."""


SINGLE = Single()
ONE = App()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (ONE, "is one App, which cannot run on 2 event loops at once (server.threads); name a"),
        (lambda: ONE, "the function returned the same App again; expected a new one"),
        (lambda: App(SINGLE), "returned the same component 'single' again; expected a"),
        (5, "expected a flowcoro.App, found int"),
    ],
)
def test_applications_and_components_are_not_shared(target: object, message: str) -> None:
    with module("shop", app=target), pytest.raises(TargetError) as caught:
        load_apps("shop", 2)
    assert message in str(caught.value)
