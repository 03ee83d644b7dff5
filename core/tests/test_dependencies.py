from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Annotated, Any, Protocol

import anyio
import pytest

from flowcoro.app import Dependencies, Named, Resolver, Scope
from flowcoro.errors import DependencyError

HERE = __name__


class Engine: ...


class Turbo(Engine): ...


class Wheel:
    def __init__(self, size: int = 1) -> None:
        self.size = size


class Car:
    def __init__(self, engine: Engine, wheel: Wheel) -> None:
        self.parts = (engine, wheel)


class Chicken:
    def __init__(self, egg: Egg) -> None: ...


class Egg:
    def __init__(self, chicken: Chicken) -> None: ...


class Flies(Protocol):
    def fly(self) -> None: ...


@pytest.fixture
def dependencies() -> Dependencies:
    return Dependencies()


def plan(dependencies: Dependencies, annotation: Any, **kwargs: Any) -> Resolver:
    return dependencies.resolver(annotation, needed_by="the test", **kwargs)


async def value(dependencies: Dependencies, annotation: Any) -> Any:
    async with dependencies.scope() as scope:
        return await scope.get(plan(dependencies, annotation))


async def test_an_instance_by_its_type(dependencies: Dependencies) -> None:
    engine = Turbo()
    dependencies.add(engine)
    assert await value(dependencies, Turbo) is engine
    assert await value(dependencies, Engine) is engine
    assert dependencies.can_resolve(Engine)
    assert not dependencies.can_resolve(Wheel)


async def test_the_exact_type_wins_over_a_subclass(dependencies: Dependencies) -> None:
    plain = Engine()
    dependencies.add(Turbo())
    dependencies.add(plain)
    assert await value(dependencies, Engine) is plain


async def test_one_of_several_by_name(dependencies: Dependencies) -> None:
    left, right = Wheel(), Wheel()
    dependencies.add(left, name="left")
    dependencies.add(right, name="right")
    assert await value(dependencies, Annotated[Wheel, Named("right")]) is right
    assert await value(dependencies, Annotated[Wheel, "a note", Named("left")]) is left
    with pytest.raises(DependencyError) as caught:
        plan(dependencies, Wheel)
    assert str(caught.value) == (
        f"the test: {HERE}.Wheel is ambiguous, it is provided as 'left', 'right'; "
        "pick one with Annotated[Wheel, Named(...)]"
    )
    with pytest.raises(DependencyError, match=r"nothing provides .*Wheel named 'up'; available"):
        plan(dependencies, Annotated[Wheel, Named("up")])
    assert dependencies.can_resolve(Wheel)
    assert not dependencies.can_resolve(Annotated[Wheel, Named("up")])


def test_two_of_one_type_need_names(dependencies: Dependencies) -> None:
    dependencies.add(Wheel(), name="left")
    dependencies.add(Engine(), name="left")
    with pytest.raises(DependencyError, match=r"two instances of .*Wheel are both named 'left'"):
        dependencies.add(Wheel(), name="left")


async def test_an_annotation_without_a_name_is_the_class(dependencies: Dependencies) -> None:
    engine = Engine()
    dependencies.add(engine)
    assert await value(dependencies, Annotated[Engine, "a note"]) is engine


def test_what_nothing_provides(dependencies: Dependencies) -> None:
    with pytest.raises(DependencyError) as caught:
        plan(dependencies, Wheel)
    assert str(caught.value) == f"the test: nothing provides {HERE}.Wheel; available: nothing"
    dependencies.add(Engine())
    dependencies.provide(Wheel)
    with pytest.raises(DependencyError, match=f"available: {HERE}.Engine, {HERE}.Wheel$"):
        plan(dependencies, Car)


@pytest.mark.parametrize("annotation", [list[int], Any, "Wheel", None, Flies, int | str])
def test_what_is_not_a_class_is_nobodys(dependencies: Dependencies, annotation: Any) -> None:
    dependencies.add(Engine())
    assert not dependencies.can_resolve(annotation)
    with pytest.raises(DependencyError, match="the test: "):
        plan(dependencies, annotation)


async def test_a_function_runs_once_in_a_scope(dependencies: Dependencies) -> None:
    made = []

    def wheel() -> Wheel:
        made.append(Wheel(2))
        return made[-1]

    dependencies.provide(wheel)
    resolver = plan(dependencies, Wheel)
    async with dependencies.scope() as scope:
        first = await scope.get(resolver)
        assert await scope.get(plan(dependencies, Wheel)) is first
    async with dependencies.scope() as scope:
        assert await scope.get(resolver) is not first
    assert len(made) == 2


async def test_a_factory_runs_once_though_two_ask_at_once(dependencies: Dependencies) -> None:
    made: list[Wheel] = []

    async def wheel() -> Wheel:
        await anyio.lowlevel.checkpoint()
        made.append(Wheel())
        return made[-1]

    dependencies.provide(wheel)
    resolver = plan(dependencies, Wheel)
    got: list[Wheel] = []
    async with dependencies.scope() as scope:

        async def ask() -> None:
            got.append(await scope.get(resolver))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
    assert len(made) == 1
    assert got == [made[0], made[0]]


async def test_every_kind_of_factory(dependencies: Dependencies) -> None:
    steps: list[str] = []

    async def coroutine() -> Wheel:
        return Wheel(3)

    def generator() -> Iterator[Engine]:
        yield Engine()
        steps.append("engine released")

    async def asynchronous() -> AsyncIterator[Turbo]:
        yield Turbo()
        steps.append("turbo released")

    def car(engine: Annotated[Engine, "main"], wheel: Wheel, turbo: Turbo, spare: int = 0) -> Car:
        steps.append("car made")
        return Car(engine, wheel)

    for factory in (coroutine, generator, asynchronous, car):
        dependencies.provide(factory)
    async with dependencies.scope() as scope:
        made = await scope.get(plan(dependencies, Car))
        assert isinstance(made, Car)
        assert made.parts[1].size == 3
        assert steps == ["car made"]
    assert steps == ["car made", "turbo released", "engine released"]


async def test_a_class_is_its_own_factory(dependencies: Dependencies) -> None:
    engine = Engine()
    dependencies.add(engine)
    dependencies.provide(Wheel)
    dependencies.provide(Car)
    car = await value(dependencies, Car)
    assert car.parts[0] is engine


def test_the_annotation_of_a_generator(dependencies: Dependencies) -> None:
    def one() -> Generator[Wheel, None, None]:
        yield Wheel()

    async def other() -> AsyncGenerator[Engine, None]:
        yield Engine()

    dependencies.provide(one)
    dependencies.provide(other)
    assert dependencies.can_resolve(Wheel)
    assert dependencies.can_resolve(Engine)


async def test_the_type_may_be_given(dependencies: Dependencies) -> None:
    dependencies.provide(Turbo, as_type=Engine)
    assert isinstance(await value(dependencies, Engine), Turbo)


async def test_a_generator_sees_the_failure(dependencies: Dependencies) -> None:
    seen = []

    async def wheel() -> AsyncIterator[Wheel]:
        try:
            yield Wheel()
        except ValueError as error:
            seen.append(error)
            raise

    dependencies.provide(wheel)
    failure = ValueError("no luck")

    async def handler() -> None:
        async with dependencies.scope() as scope:
            await scope.get(plan(dependencies, Wheel))
            raise failure

    with pytest.raises(ValueError, match="no luck"):
        await handler()
    assert seen == [failure]


async def test_a_factory_that_fails_releases_what_was_made(dependencies: Dependencies) -> None:
    released = []

    def engine() -> Iterator[Engine]:
        try:
            yield Engine()
        finally:
            released.append("engine")

    def car(engine: Engine) -> Car:
        raise OSError("no paint")

    dependencies.provide(engine)
    dependencies.provide(car)
    with pytest.raises(OSError, match="no paint"):
        await value(dependencies, Car)
    assert released == ["engine"]


async def test_seeds_come_from_the_scope(dependencies: Dependencies) -> None:
    def car(engine: Engine, wheel: Wheel) -> Car:
        return Car(engine, wheel)

    dependencies.add(Engine())
    dependencies.provide(car)
    resolver = plan(dependencies, Car, seeds=[Wheel])
    wheel = Wheel(7)
    async with dependencies.scope({Wheel: wheel}) as scope:
        assert (await scope.get(resolver)).parts[1] is wheel
        assert await scope.get(plan(dependencies, Wheel, seeds=[Wheel])) is wheel
    async with dependencies.scope() as scope:
        with pytest.raises(DependencyError, match=r"opened without a .*Wheel"):
            await scope.get(resolver)
    with pytest.raises(DependencyError, match=r"car\(\): nothing provides .*Wheel"):
        plan(dependencies, Car)


def test_factories_in_a_circle(dependencies: Dependencies) -> None:
    dependencies.provide(Chicken)
    dependencies.provide(Egg)
    with pytest.raises(DependencyError) as caught:
        plan(dependencies, Egg)
    path = " -> ".join(f"{HERE}.{name}" for name in ("Egg", "Chicken", "Egg"))
    assert str(caught.value) == f"dependencies need each other in a circle: {path}"


def test_a_type_is_provided_once(dependencies: Dependencies) -> None:
    def another() -> Wheel:
        return Wheel()

    dependencies.provide(Wheel)
    with pytest.raises(
        DependencyError, match=r"Wheel is provided twice: by Wheel and by .*another"
    ):
        dependencies.provide(another)


def test_a_factory_must_tell_its_type(dependencies: Dependencies) -> None:
    def silent():  # type: ignore[no-untyped-def]
        return 1

    def vague() -> int | None:
        return 1

    def unknown() -> Missing:  # type: ignore[name-defined]  # noqa: F821
        return 1

    for factory in (vague, lambda: 1):
        with pytest.raises(DependencyError, match=r"needs a return annotation that is a class"):
            dependencies.provide(factory)
    with pytest.raises(DependencyError, match=r"silent needs a return annotation"):
        dependencies.provide(silent)
    with pytest.raises(DependencyError, match=r"annotation cannot be resolved: name 'Missing'"):
        dependencies.provide(unknown)


def test_a_parameter_without_annotation_is_told(dependencies: Dependencies) -> None:
    def wheel(size) -> Wheel:  # type: ignore[no-untyped-def]
        return Wheel(size)

    dependencies.provide(wheel)
    with pytest.raises(DependencyError, match="'size'"):
        plan(dependencies, Wheel)


async def test_only_parameters_that_need_a_value_are_asked_for(dependencies: Dependencies) -> None:
    def wheel(*args: int, size: int = 4, **kwargs: int) -> Wheel:
        return Wheel(size)

    dependencies.provide(wheel)
    assert (await value(dependencies, Wheel)).size == 4


def test_a_positional_only_parameter_is_refused(dependencies: Dependencies) -> None:
    def wheel(engine: Engine, /) -> Wheel:
        return Wheel()

    dependencies.add(Engine())
    dependencies.provide(wheel)
    with pytest.raises(DependencyError, match="parameter 'engine' is positional-only"):
        plan(dependencies, Wheel)


async def test_overriding(dependencies: Dependencies) -> None:
    real, fake = Engine(), Turbo()
    dependencies.add(real)
    outside = plan(dependencies, Engine)
    with dependencies.override(Engine, fake), dependencies.override(Wheel, None):
        assert await value(dependencies, Engine) is fake
        assert dependencies.can_resolve(Wheel)
        assert await value(dependencies, Wheel) is None
    assert await value(dependencies, Engine) is real
    assert not dependencies.can_resolve(Wheel)
    async with dependencies.scope() as scope:
        assert await scope.get(outside) is real


def test_a_plan_tells_its_components(dependencies: Dependencies) -> None:
    engine, wheel = Engine(), Wheel()
    dependencies.add(engine)
    dependencies.add(wheel)
    dependencies.provide(Car)
    assert set(plan(dependencies, Car).components()) == {engine, wheel}
    assert list(plan(dependencies, Engine).components()) == [engine]


async def test_a_scope_that_made_nothing() -> None:
    async with Scope({}) as scope:
        assert isinstance(scope, Scope)
