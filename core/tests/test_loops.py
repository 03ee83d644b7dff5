from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest

import flowcoro
from flowcoro import FlowcoroError, hookimpl
from flowcoro.errors import DuplicateClaimError, PluginError
from flowcoro.loops import DEFAULT_LOOP, LoopFactory, choose_loop, run
from flowcoro.plugins import PluginHost
from flowcoro.testing import make_host


class OwnLoop(asyncio.SelectorEventLoop): ...


def host(*factories: LoopFactory, strict: bool = True) -> PluginHost:
    plugin = SimpleNamespace(FLOWCORO_HOOK_API=1)
    plugin.flowcoro_loop_factories = hookimpl(lambda: factories)
    return make_host(plugin, strict=strict)


OWN = LoopFactory("own", OwnLoop)


async def kind_of_loop() -> type:
    return type(asyncio.get_running_loop())


def test_the_default_is_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWCORO_LOOP", raising=False)
    assert choose_loop(plugins=make_host()).name == DEFAULT_LOOP == "flowcoro"
    assert choose_loop().name == "flowcoro"
    assert run(kind_of_loop()) is flowcoro.Loop


def test_a_new_loop_for_a_runner() -> None:
    with asyncio.Runner(loop_factory=flowcoro.new_event_loop) as runner:
        assert runner.run(kind_of_loop()) is flowcoro.Loop
    loop = flowcoro.new_event_loop("epoll")
    assert loop.reactor == "epoll"
    loop.close()
    with pytest.raises(ValueError, match="wheel"):
        flowcoro.new_event_loop("wheel")


def test_install_makes_it_asyncios() -> None:
    before = asyncio.get_event_loop_policy()
    try:
        flowcoro.install()
        assert asyncio.run(kind_of_loop()) is flowcoro.Loop
    finally:
        asyncio.set_event_loop_policy(before)


def test_modules_without_such_a_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Lop'"):
        _ = flowcoro.loops.Lop


def test_a_loop_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(kind_of_loop(), loop="own", plugins=host(OWN)) is OwnLoop
    monkeypatch.setenv("FLOWCORO_LOOP", "own")
    assert run(kind_of_loop(), plugins=host(OWN)) is OwnLoop
    assert run(kind_of_loop(), loop="asyncio", plugins=host(OWN)) is not OwnLoop


def test_results_and_exceptions_come_through() -> None:
    async def seven() -> int:
        return 7

    async def fails() -> None:
        raise ValueError("no luck")

    assert flowcoro.run(seven(), plugins=make_host()) == 7
    with pytest.raises(ValueError, match="no luck"):
        run(fails(), plugins=make_host())


def test_debug_mode() -> None:
    async def debugging() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert run(debugging(), debug=True, plugins=make_host())
    assert not run(debugging(), debug=False, plugins=make_host())


def test_no_such_loop() -> None:
    main = kind_of_loop()
    with pytest.raises(PluginError) as caught:
        run(main, loop="asynci", plugins=make_host())
    assert str(caught.value) == (
        "no plugin provides loop 'asynci'; did you mean 'asyncio'? (known: asyncio, flowcoro)"
    )
    assert inspect.getcoroutinestate(main) == inspect.CORO_CLOSED


def test_a_loop_that_cannot_run_here() -> None:
    with pytest.raises(FlowcoroError, match="loop 'ring' cannot run here: no such kernel"):
        choose_loop("ring", plugins=host(LoopFactory("ring", OwnLoop, lambda: "no such kernel")))


def test_two_plugins_that_claim_one_loop() -> None:
    with pytest.raises(DuplicateClaimError, match="loop 'asyncio' is claimed by plugin 'core'"):
        choose_loop("asyncio", plugins=host(LoopFactory("asyncio", OwnLoop), strict=False))


def broken(*args: Any) -> Any:
    raise OSError("out of file descriptors")


@pytest.mark.parametrize(
    "factory", [LoopFactory("bad", broken), LoopFactory("bad", OwnLoop, broken)]
)
def test_a_broken_factory_is_one_readable_error(factory: LoopFactory) -> None:
    main = kind_of_loop()
    try:
        with pytest.raises(FlowcoroError, match=r"loop 'bad' .*OSError: out of file descriptors"):
            run(main, loop="bad", plugins=host(factory))
        assert inspect.getcoroutinestate(main) == inspect.CORO_CLOSED
    finally:
        main.close()
