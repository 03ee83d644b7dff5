"""Order, start, drain and close of components, seen from `App` and from `Unit` itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest

from flowcoro import App, Component
from flowcoro.app import _lifecycle
from flowcoro.app._lifecycle import Lifecycle, Unit, check_names, in_order
from flowcoro.errors import DuplicateClaimError, StartupError
from flowcoro.testing import make_context, make_host

pytestmark = pytest.mark.timeout(30)

Step = Callable[[], Awaitable[None]]


async def nothing() -> None: ...


class Part(Component):
    """Writes down what happens to it, and does what it is told to."""

    def __init__(
        self,
        name: str,
        log: list[str],
        *,
        requires: Sequence[str | type] = (),
        start: Step = nothing,
        drain: Step = nothing,
        close: Step = nothing,
    ) -> None:
        self.name = name
        self.requires = requires
        self.log = log
        self.steps = {"start": start, "drain": drain, "close": close}

    async def do(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        await self.steps[what]()

    async def __aenter__(self) -> Part:
        await self.do("start")
        return self

    async def drain(self) -> None:
        await self.do("drain")

    async def __aexit__(self, *exc: object) -> None:
        await self.do("close")


class Other(Part): ...


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lifecycle, "CLOSE_GRACE", 0.05)


def app(*parts: Component, drain_timeout: float = 5.0) -> App:
    host = make_host()
    config = make_context(plugins=host, config={"server": {"drain_timeout": drain_timeout}}).config
    return App(*parts, plugins=host, config=config)


def fails(error: BaseException) -> Step:
    async def step() -> None:
        raise error

    return step


def names(units: Sequence[Unit]) -> list[str]:
    return [unit.component.name for unit in units]


def units(*parts: Component) -> list[Unit]:
    return [Unit(part) for part in parts]


async def test_the_given_order_is_kept(log: list[str]) -> None:
    assert names(in_order(units(*(Part(n, log) for n in "cab")))) == ["c", "a", "b"]


async def test_what_is_required_comes_first(log: list[str]) -> None:
    parts = [
        Part("web", log, requires=["cache", Other]),
        Part("cache", log, requires=["db"]),
        Other("db", log),
        Other("queue", log),
    ]
    assert names(in_order(units(*parts))) == ["db", "cache", "queue", "web"]


async def test_a_type_does_not_require_itself(log: list[str]) -> None:
    parts = [Other("a", log, requires=[Other]), Other("b", log)]
    assert names(in_order(units(*parts))) == ["b", "a"]


async def test_components_that_require_each_other(log: list[str]) -> None:
    parts = [Part("a", log, requires=["b"]), Part("b", log, requires=["c"])]
    parts.append(Part("c", log, requires=["b"]))
    with pytest.raises(StartupError, match=r"require each other in a circle: b -> c -> b$"):
        in_order(units(*parts))


@pytest.mark.parametrize(("wanted", "shown"), [("db", "'db'"), (Other, "Other")])
async def test_a_required_component_that_is_not_there(
    log: list[str], wanted: Any, shown: str
) -> None:
    parts = [Part("a", log, requires=[wanted]), Part("b", log)]
    with pytest.raises(StartupError) as caught:
        in_order(units(*parts))
    assert str(caught.value) == f"it requires {shown}, which is not there (there is: a, b)"


async def test_one_name_used_twice(log: list[str]) -> None:
    first = Unit(Part("a", log), owner="plugin 'x' (flowcoro-x 1.0)")
    second = Unit(Part("a", log), owner="plugin 'y' (flowcoro-y 1.0)")
    with pytest.raises(DuplicateClaimError) as caught:
        check_names([first, second])
    assert str(caught.value) == (
        "component name 'a' is used twice: by plugin 'x' (flowcoro-x 1.0) "
        "and by plugin 'y' (flowcoro-y 1.0)"
    )


async def test_one_after_the_other_and_back(log: list[str]) -> None:
    async with app(Part("a", log), Part("b", log)):
        log.append("run")
    assert log == [
        *("start a", "start b", "run"),
        *("drain b", "close b", "drain a", "close a"),
    ]


async def test_a_start_that_fails_rolls_back(log: list[str]) -> None:
    bad = Part("c", log, start=fails(OSError("port taken")))
    application = app(Part("a", log), Part("b", log), bad, Part("d", log))
    with pytest.raises(StartupError, match="component 'c' could not start: OSError: port taken"):
        await application.__aenter__()
    assert [step for step in log if not step.startswith("drain")] == [
        *("start a", "start b", "start c"),
        *("close b", "close a"),
    ]


async def test_a_roll_back_goes_on_past_a_close_that_fails(
    log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = Part("c", log, start=fails(OSError("port taken")))
    rude = Part("b", log, close=fails(ValueError("not so fast")))
    with pytest.raises(StartupError, match="port taken"):
        await app(Part("a", log), rude, bad).__aenter__()
    assert log[-1] == "close a"
    assert "component 'b' failed while it stopped: ValueError: not so fast" in caplog.text


async def test_a_start_that_cancels_itself_is_a_failure(log: list[str]) -> None:
    # As awaiting a task does that somebody else has cancelled.
    bad = Part("b", log, start=fails(asyncio.CancelledError()))
    with pytest.raises(StartupError, match="component 'b' could not start"):
        await app(Part("a", log), bad).__aenter__()
    assert log[-1] == "close a"


class Panic(BaseException): ...


@pytest.mark.parametrize("error", [SystemExit(3), Panic("index out of bounds")])
async def test_a_start_that_exits_or_panics_is_a_failure(
    log: list[str], error: BaseException
) -> None:
    application = app(Part("a", log), Part("b", log, start=fails(error)))
    with pytest.raises(StartupError, match=r"component 'b' could not start: .*(3|bounds)"):
        await application.__aenter__()
    assert log[-1] == "close a"


@pytest.mark.parametrize("what", ["drain", "close"])
async def test_a_stop_that_fails_is_told_and_the_others_stop(
    log: list[str], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    bad = Part("b", log, **{what: fails(ValueError("no"))})
    async with app(Part("a", log), bad, Part("c", log)):
        pass
    assert "component 'b' failed while it stopped: ValueError: no" in caplog.text
    assert log[-2:] == ["drain a", "close a"]
    assert "close b" in log


async def test_what_is_required_still_runs_while_one_drains(log: list[str]) -> None:
    states: list[bool] = []
    below = Part("db", log)

    async def drain() -> None:
        states.append("drain db" not in log)

    async with app(Part("web", log, requires=["db"], drain=drain), below):
        pass
    assert states == [True]


async def test_the_drain_deadline(log: list[str], caplog: pytest.LogCaptureFixture) -> None:
    slow = Part("slow", log, drain=anyio.sleep_forever)
    async with app(Part("a", log), slow, drain_timeout=0.02):
        pass
    assert "component 'slow' was still busy at the drain deadline" in caplog.text
    assert log[-3:] == ["close slow", "drain a", "close a"]


async def test_one_deadline_holds_for_all_draining(log: list[str]) -> None:
    parts = [Part(str(n), log, drain=anyio.sleep_forever) for n in range(5)]
    before = anyio.current_time()
    async with app(*parts, drain_timeout=0.2):
        pass
    assert anyio.current_time() - before < 0.2 * len(parts)


@pytest.mark.usefixtures("brief")
async def test_a_close_that_hangs_is_cut(log: list[str], caplog: pytest.LogCaptureFixture) -> None:
    application = app(Part("a", log), Part("b", log, close=anyio.sleep_forever), drain_timeout=0)
    async with application:
        pass
    assert "component 'b' did not stop within its deadline; cutting it" in caplog.text
    assert log[-1] == "close a"
    assert application.stuck == []


def swallowing() -> tuple[Step, Callable[[], None]]:
    release = anyio.Event()

    async def step() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    return step, release.set


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("what", ["drain", "close"])
async def test_one_that_ignores_cancellation_is_left_behind(
    log: list[str], caplog: pytest.LogCaptureFixture, what: str
) -> None:
    before = asyncio.all_tasks()
    step, release = swallowing()
    application = app(Part("a", log), Part("b", log, **{what: step}), drain_timeout=0)
    async with application:
        pass
    assert application.stuck == ["component 'b'"]
    assert "component 'b' ignores cancellation; leaving it behind" in caplog.text
    assert log[-1] == "close a"
    release()
    await asyncio.wait(asyncio.all_tasks() - before)


@pytest.mark.usefixtures("brief")
async def test_a_start_that_ignores_cancellation_is_left_behind(
    log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    step, release = swallowing()
    application = app(Part("a", log), Part("b", log, start=step))
    starting = asyncio.create_task(application.__aenter__())
    while "start b" not in log:
        await anyio.lowlevel.checkpoint()
    starting.cancel()
    await asyncio.wait((starting,))
    stuck = application.stuck
    release()
    await asyncio.wait(asyncio.all_tasks() - before)
    assert starting.cancelled()
    assert "component 'b' ignores cancellation; leaving it behind" in caplog.text
    assert "close a" in log
    assert stuck == ["component 'b'"]


async def test_hurrying_cuts_the_draining(log: list[str]) -> None:
    draining = anyio.Event()

    async def drain() -> None:
        draining.set()
        await anyio.sleep_forever()

    ordered = units(Part("a", log, drain=drain), Part("b", log, drain=drain))
    lifecycle = Lifecycle(ordered, lambda unit: None)
    await lifecycle.start()
    async with anyio.create_task_group() as group:
        group.start_soon(lifecycle.stop, 600)
        await draining.wait()
        lifecycle.hurry()
    assert log[-4:] == ["drain b", "close b", "drain a", "close a"]


async def test_hurrying_cuts_a_close_that_hangs(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lifecycle, "CLOSE_GRACE", 0.02)
    closing = anyio.Event()

    async def close() -> None:
        closing.set()
        await anyio.sleep_forever()

    lifecycle = Lifecycle(units(Part("a", log, close=close)), lambda unit: None)
    await lifecycle.start()
    stopping = asyncio.create_task(lifecycle.stop(600))
    await closing.wait()
    lifecycle.hurry()
    done, _ = await asyncio.wait((stopping,), timeout=5)
    if not done:
        stopping.cancel()
        await asyncio.wait((stopping,))
    assert done, "it waits for the drain deadline though nothing drains any more"


async def test_the_last_word_of_a_component_that_breaks(
    log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Breaks(Part):
        async def __aenter__(self) -> Breaks:
            self.group = anyio.create_task_group()
            await self.group.__aenter__()
            self.group.start_soon(self.break_later)
            self.go = anyio.Event()
            return self

        async def break_later(self) -> None:
            await self.go.wait()
            raise OSError("socket gone")

        async def __aexit__(self, *exc: Any) -> bool | None:  # type: ignore[override]
            return await self.group.__aexit__(*exc)

    told: list[Unit] = []
    part = Breaks("b", log)
    lifecycle = Lifecycle(units(Part("a", log), part), told.append)
    await lifecycle.start()
    part.go.set()
    while not told:
        await anyio.lowlevel.checkpoint()
    (unit,) = told
    assert unit.component is part
    assert "component 'b' failed: OSError: socket gone" in caplog.text
    await lifecycle.stop(1)
    assert log == ["start a", "drain a", "close a"]


async def test_a_component_whose_task_is_cancelled_by_another(log: list[str]) -> None:
    told: list[Unit] = []
    (unit,) = units(Part("a", log))
    lifecycle = Lifecycle([unit], told.append)
    await lifecycle.start()
    assert unit._task is not None
    unit._task.cancel()
    while not told:
        await anyio.lowlevel.checkpoint()
    assert str(unit.failed) == "component 'a' ended without being asked to"
    assert "close a" in log


async def test_a_unit_that_never_started_has_stopped(log: list[str]) -> None:
    (unit,) = units(Part("a", log))
    assert await unit.stop(0)


async def test_a_component_may_hold_cancel_scopes(log: list[str]) -> None:
    class Holds(Component):
        name = "holds"

        async def __aenter__(self) -> Holds:
            self.scope = anyio.move_on_after(600)
            self.scope.__enter__()
            return self

        async def __aexit__(self, *exc: Any) -> None:
            self.scope.__exit__(None, None, None)

    async with app(Holds(), Holds.__new__(type("Holds2", (Holds,), {}))):
        pass


async def test_what_requires_a_component_that_could_not_start(
    log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = Unit(Part("a", log, start=fails(OSError("no"))), "plugin 'x' (d 1)", essential=False)
    dependent = Unit(Part("b", log, requires=["a"]), "plugin 'y' (e 1)", essential=False)
    fine = Unit(Part("c", log))
    lifecycle = Lifecycle(in_order([dependent, bad, fine]), lambda unit: None)
    await lifecycle.start()
    assert "component 'a' of plugin 'x' (d 1) could not start: OSError: no; going on" in caplog.text
    assert (
        "component 'b' of plugin 'y' (e 1) could not start: it requires component 'a' of "
        "plugin 'x' (d 1), which is not running; going on without it" in caplog.text
    )
    await lifecycle.stop(1)
    assert log == ["start a", "start c", "drain c", "close c"]
    needs = Unit(Part("d", log, requires=["a"]))
    failing = Lifecycle([Unit(Part("a", log), essential=False, failed=OSError()), needs], print)
    with pytest.raises(StartupError, match="component 'd' could not start: it requires"):
        await failing.start()


class Cancelling:
    """Awaitable steps that cancel the start at the nth of them."""

    def __init__(self, nth: int, cancel: Callable[[], object]) -> None:
        self.left = nth
        self.cancel = cancel

    async def __call__(self) -> None:
        for _ in range(3):
            if self.left == 0:
                self.cancel()
            self.left -= 1
            await asyncio.sleep(0)


@pytest.mark.parametrize("way", ["task", "scope"])
@pytest.mark.parametrize("nth", range(14))
async def test_cancelling_at_every_await_of_the_start(log: list[str], way: str, nth: int) -> None:
    before = asyncio.all_tasks()
    scope = anyio.CancelScope()
    ran = False

    async def life() -> None:
        nonlocal ran
        step = Cancelling(nth, task.cancel if way == "task" else scope.cancel)
        with scope:
            async with app(*(Part(name, log, start=step) for name in "abcd")):
                ran = True

    task = asyncio.create_task(life())
    await asyncio.wait((task,))
    assert task.cancelled() == (way == "task" and not ran)
    assert asyncio.all_tasks() == before
    started = [step.split()[1] for step in log if step.startswith("start")]
    closed = [step.split()[1] for step in log if step.startswith("close")]
    # The one that was cancelled while it entered is not closed; all before it are.
    assert closed in (started[::-1], started[-2::-1])
    assert ran == (nth >= 12)
