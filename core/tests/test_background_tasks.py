from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import pytest

from flowcoro import App, Component, FlowcoroError, HealthStatus, Named
from flowcoro._backoff import Backoff
from flowcoro.app import BackgroundTask, Context, Restart
from flowcoro.errors import DependencyError, StartupError
from flowcoro.testing import make_host

pytestmark = pytest.mark.timeout(30)


class Store(Component):
    def __init__(self, name: str = "store") -> None:
        self.name = name
        self.open = False

    async def __aenter__(self) -> Store:
        self.open = True
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.open = False


class Session:
    closed = False


def app(*components: Component) -> App:
    return App(*components, plugins=make_host())


def quick() -> Backoff:
    return Backoff(first=0.001, longest=0.002)


async def test_it_runs_as_long_as_the_application() -> None:
    steps: list[str] = []
    running = anyio.Event()

    async def work() -> None:
        steps.append("started")
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            steps.append("cancelled")

    task = BackgroundTask(work)
    assert task.name == "work"
    async with app(task) as running_app:
        await running.wait()
        assert (await running_app.health()).checks["work"].status is HealthStatus.PASS
        assert steps == ["started"]
    assert steps == ["started", "cancelled"]


async def test_the_decorator_adds_one() -> None:
    application = app()
    done = anyio.Event()

    @application.task(name="ticker", restart=Restart.NEVER)
    async def tick() -> None:
        done.set()

    async with application:
        await done.wait()
        assert "ticker" in (await application.health()).checks
    assert callable(tick)


async def test_its_parameters_are_dependencies() -> None:
    seen: list[Any] = []
    done = anyio.Event()
    first, second = Store("first"), Store("second")

    async def work(
        context: Context, store: Annotated[Store, Named("second")], session: Session, extra: int = 5
    ) -> None:
        seen.extend([context, store, store.open, session, session.closed, extra])
        done.set()

    async def session(store: Annotated[Store, Named("first")]) -> AsyncIterator[Session]:
        made = Session()
        yield made
        made.closed = True

    # Given before the stores, it starts after them all the same.
    application = app(BackgroundTask(work), first, second)
    application.provide(session)
    async with application:
        await done.wait()
        context, store, was_open, made, was_closed, extra = seen
        assert context is application.context
        assert store is second
        assert was_open
        assert not was_closed
        assert extra == 5
        while not made.closed:  # the scope lasts one run, which has just ended
            await anyio.lowlevel.checkpoint()


async def test_what_it_asks_for_starts_before_it_and_stops_after_it() -> None:
    states: list[bool] = []
    running = anyio.Event()

    async def work(store: Store) -> None:
        states.append(store.open)
        running.set()
        try:
            await anyio.sleep_forever()
        finally:
            states.append(store.open)

    async with app(BackgroundTask(work), Store()):
        await running.wait()
    assert states == [True, True]


def undeclared() -> list[tuple[Any, str]]:
    async def lacking(store: Store) -> None: ...

    async def unresolvable(x: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    async def unannotated(store) -> None: ...  # type: ignore[no-untyped-def]

    return [
        (lacking, "background task 'lacking': nothing provides "),
        (
            unresolvable,
            "task 'unresolvable': annotation cannot be resolved: name 'Missing'",
        ),
        (unannotated, "'store'"),
    ]


@pytest.mark.parametrize(("function", "said"), undeclared())
async def test_a_parameter_that_cannot_be_had(function: Any, said: str) -> None:
    with pytest.raises(StartupError, match=said) as caught:
        async with app(BackgroundTask(function)):
            pass
    assert isinstance(caught.value.__cause__, DependencyError)


async def test_a_failure_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    runs = 0
    recovered = anyio.Event()

    async def flaky() -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise OSError("connection lost")
        recovered.set()
        await anyio.sleep_forever()

    async with app(BackgroundTask(flaky, backoff=quick())) as application:
        await recovered.wait()
        assert (await application.health()).checks["flaky"].status is HealthStatus.PASS
    assert runs == 4
    assert caplog.text.count("background task 'flaky' failed") == 3
    assert "connection lost" in caplog.text


async def test_health_warns_while_it_waits() -> None:
    failed = anyio.Event()

    async def broken() -> None:
        failed.set()
        raise OSError("secret detail")

    task = BackgroundTask(broken, backoff=Backoff(first=600, longest=600))
    async with app(task) as application:
        await failed.wait()
        await anyio.wait_all_tasks_blocked()
        health = (await application.health()).checks["broken"]
        assert health.status is HealthStatus.WARN
        assert health.detail == "failed: OSError; waiting to start again"


async def test_returning_is_the_end_unless_always() -> None:
    runs = {"on-failure": 0, "always": 0}
    enough = anyio.Event()

    async def once() -> None:
        runs["on-failure"] += 1

    async def again() -> None:
        runs["always"] += 1
        if runs["always"] == 3:
            enough.set()

    async with app(
        BackgroundTask(once, backoff=quick()),
        BackgroundTask(again, restart=Restart.ALWAYS, backoff=quick()),
    ) as application:
        await enough.wait()
        assert (await application.health()).status is HealthStatus.PASS
    assert runs["on-failure"] == 1
    assert runs["always"] >= 3


async def test_a_failure_that_must_not_be_stops_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def vital() -> None:
        raise OSError("disk gone")

    application = app(BackgroundTask(vital, restart=Restart.NEVER))
    with pytest.raises(FlowcoroError) as caught:
        await application.serve()
    assert str(caught.value) == "component 'vital' failed: OSError: disk gone"
    assert "component 'vital' failed: OSError: disk gone" in caplog.text


async def test_each_run_has_its_own_scope() -> None:
    sessions: list[Session] = []
    enough = anyio.Event()

    async def work(session: Session) -> None:
        assert all(s.closed for s in sessions)
        sessions.append(session)
        if len(sessions) == 3:
            enough.set()
            await anyio.sleep_forever()
        raise OSError("again")

    async def session() -> AsyncIterator[Session]:
        made = Session()
        try:
            yield made
        finally:
            made.closed = True

    application = app(BackgroundTask(work, backoff=quick()))
    application.provide(session)
    async with application:
        await enough.wait()
    assert len({id(s) for s in sessions}) == 3
    assert all(s.closed for s in sessions)


async def test_a_dependency_that_fails_counts_as_a_failed_run() -> None:
    tries = 0
    worked = anyio.Event()

    async def session() -> Session:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("not yet")
        return Session()

    async def work(session: Session) -> None:
        worked.set()

    application = app(BackgroundTask(work, backoff=quick()))
    application.provide(session)
    async with application:
        await worked.wait()
    assert tries == 3


async def test_leaving_one_that_never_started() -> None:
    async def work() -> None: ...

    await BackgroundTask(work).__aexit__(None, None, None)


def test_the_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(first=1, longest=5, healthy=10)
    assert [backoff.delay_after(0) for _ in range(4)] == [1, 2, 4, 5]
    assert backoff.delay_after(10) == 1
    assert backoff.delay_after(9.9) == 2


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (-1, 1), (2, 1)])
def test_delays_that_make_no_sense(first: float, longest: float) -> None:
    with pytest.raises(ValueError, match="expected 0 < first <= longest"):
        Backoff(first, longest)
