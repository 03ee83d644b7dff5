from __future__ import annotations

import gc
import logging
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from flowcoro import hookimpl, hookspec
from flowcoro.cli import Command
from flowcoro.errors import DuplicateClaimError, PluginError
from flowcoro.plugins import PluginHost, PluginStatus, Problem
from flowcoro.testing import make_host


def plugin(**hooks: Any) -> SimpleNamespace:
    """Make a plugin from functions, each marked as a hook implementation."""
    marked = {name: hookimpl(function) for name, function in hooks.items()}
    return SimpleNamespace(FLOWCORO_HOOK_API=1, **marked)


def commands(*names: str) -> Any:
    found = [Command(name, "Does it.", lambda: None) for name in names]  # type: ignore[arg-type]
    return plugin(flowcoro_commands=lambda: found)


def owner_of_specs() -> SimpleNamespace:
    """A feature: it specifies one hook that takes two arguments."""

    @hookspec
    def flowcoro_zoo_animals(cage: int, food: str) -> None:
        """Name animals."""

    specs = SimpleNamespace(flowcoro_zoo_animals=flowcoro_zoo_animals)
    return plugin(flowcoro_add_hookspecs=lambda: [specs])


def test_an_empty_host() -> None:
    host = PluginHost()
    assert dict(host.records) == {}
    assert host.call("flowcoro_commands") == []
    assert host.hooks(features=True) == []
    assert "flowcoro_components" in host.hooks()


def test_registering_by_hand() -> None:
    host = PluginHost(strict=True)
    record = host.register(commands("x"), name="mine", distribution="here")
    assert record is host.records["mine"]
    assert record.status is PluginStatus.LOADED
    assert record.hooks == ("flowcoro_commands",)
    assert record.label == "plugin 'mine' (here)"
    assert host.register(plugin()).info.name == "SimpleNamespace"
    with pytest.raises(PluginError, match="a plugin named 'mine' is registered already"):
        host.register(plugin(), name="mine")


def test_the_records_cannot_be_changed() -> None:
    host = make_host()
    with pytest.raises(TypeError):
        host.records["x"] = None  # type: ignore[index]


def test_one_plugin_under_two_names_is_refused() -> None:
    host = PluginHost()
    twice = commands("x")
    host.register(twice, name="a")
    assert host.register(twice, name="b").status is PluginStatus.FAILED
    assert list(host.collect("flowcoro_commands", Command)) == ["x"]


def test_answers_come_in_the_order_of_loading_and_priority() -> None:
    host = PluginHost(strict=True)
    for name in ("c", "a", "b"):
        host.register(commands(name), name=name)
    first, last = SimpleNamespace(FLOWCORO_HOOK_API=1), SimpleNamespace(FLOWCORO_HOOK_API=1)
    last.flowcoro_commands = hookimpl(trylast=True)(lambda: ["last"])
    first.flowcoro_commands = hookimpl(tryfirst=True)(lambda: ["first"])
    host.register(last, name="last")
    host.register(commands("d"), name="d")
    host.register(first, name="first")
    names = [answer.record.info.name for answer in host.call("flowcoro_commands")]
    assert names == ["first", "c", "a", "b", "d", "last"]


def test_a_plugin_with_nothing_to_say_is_left_out() -> None:
    host = PluginHost(strict=True)
    host.register(plugin(flowcoro_commands=lambda: None))
    assert host.call("flowcoro_commands") == []


def test_arguments_are_those_of_the_specification() -> None:
    host = make_host(owner_of_specs())
    assert host.hooks(features=True) == ["flowcoro_zoo_animals"]
    assert host.arguments("flowcoro_zoo_animals") == ("cage", "food")
    with pytest.raises(PluginError, match=r"takes \['cage', 'food'\], not \['cage'\]"):
        host.call("flowcoro_zoo_animals", cage=1)
    for ask in (host.arguments, host.call):
        with pytest.raises(PluginError, match="no hook named 'flowcoro_zo' is specified"):
            ask("flowcoro_zo")


def test_an_implementation_takes_the_arguments_it_wants() -> None:
    host = make_host(owner_of_specs())
    host.register(plugin(flowcoro_zoo_animals=lambda food: food.upper()), name="eater")
    (answer,) = host.call("flowcoro_zoo_animals", cage=1, food="hay")
    assert answer.value == "HAY"


def test_an_implementation_with_a_wrong_argument_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = PluginHost()
    record = host.register(plugin(flowcoro_components=lambda konfig: []), name="wrong")
    assert record.status is PluginStatus.FAILED
    assert "konfig" in record.reason
    assert "plugin 'wrong' (registered by hand) is failed" in caplog.text
    assert host.call("flowcoro_components", config=None) == []


def test_a_hook_wrapper_is_refused() -> None:
    host = PluginHost()
    wrapping = SimpleNamespace(FLOWCORO_HOOK_API=1)

    @hookimpl(wrapper=True)
    def flowcoro_commands() -> Any:
        return (yield)

    wrapping.flowcoro_commands = flowcoro_commands
    record = host.register(wrapping)
    assert record.status is PluginStatus.FAILED
    assert record.reason == "flowcoro_commands: hook wrappers are not supported"


def test_an_unmarked_hook_is_refused(site: Any) -> None:
    site.install(
        "flowcoro-forgot",
        {"forgot": "forgot_plugin"},
        {"forgot_plugin": "FLOWCORO_HOOK_API = 1\ndef flowcoro_commands(): return []\n"},
    )
    record = site.load().records["forgot"]
    assert record.status is PluginStatus.FAILED
    assert record.reason == "flowcoro_commands() is not marked with @hookimpl"


def test_a_hook_that_was_imported_for_use_is_not_called_unmarked(site: Any) -> None:
    site.install(
        "flowcoro-uses",
        {"uses": "uses_plugin"},
        {
            "uses_plugin": """
            from flowcoro.hookspecs import flowcoro_commands
            FLOWCORO_HOOK_API = 1
            """
        },
    )
    assert site.load().records["uses"].status is PluginStatus.LOADED


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        (None, "does not state its hook API; add FLOWCORO_HOOK_API = 1 to the module"),
        (2, "was written for hook API 2, this is hook API 1"),
        ("1", "was written for hook API '1', this is hook API 1"),
    ],
)
def test_another_hook_api_is_incompatible(stated: object, reason: str) -> None:
    host = PluginHost()
    other = SimpleNamespace() if stated is None else SimpleNamespace(FLOWCORO_HOOK_API=stated)
    record = host.register(other)
    assert record.status is PluginStatus.INCOMPATIBLE
    assert record.reason == reason
    assert record.plugin is None


def test_an_attribute_of_a_module_can_be_the_plugin(site: Any) -> None:
    source = """
    from flowcoro import hookimpl

    class Plugin:
        FLOWCORO_HOOK_API = 1

        @hookimpl
        def flowcoro_loop_factories(self):
            return []

    plugin = Plugin()
    """
    site.install("flowcoro-object", {"object": "object_plugin:plugin"}, {"object_plugin": source})
    record = site.load(strict=True).records["object"]
    assert record.status is PluginStatus.LOADED
    assert record.hooks == ("flowcoro_loop_factories",)


def test_a_target_that_is_no_target(site: Any) -> None:
    site.install("flowcoro-odd", {"odd": "not a module!"})
    record = site.load().records["odd"]
    assert record.status is PluginStatus.FAILED
    assert "not a module!" in record.reason


def test_a_hook_of_a_feature_that_comes_later(site: Any) -> None:
    feature = """
    from types import SimpleNamespace
    from flowcoro import hookimpl, hookspec
    FLOWCORO_HOOK_API = 1

    @hookspec
    def flowcoro_zz_things(): "Name things."

    @hookimpl
    def flowcoro_add_hookspecs():
        return [SimpleNamespace(flowcoro_zz_things=flowcoro_zz_things)]
    """
    user = """
    from flowcoro import hookimpl
    FLOWCORO_HOOK_API = 1

    @hookimpl
    def flowcoro_zz_things(): return ["thing"]
    """
    site.install("flowcoro-zz", {"zz": "zz_plugin"}, {"zz_plugin": feature})
    site.install("flowcoro-aa", {"aa": "aa_plugin"}, {"aa_plugin": user})
    (answer,) = site.load(strict=True).call("flowcoro_zz_things")
    assert answer.value == ["thing"]
    blocked = site.load(block=["zz"])
    assert blocked.records["aa"].reason == (
        "implements hook 'flowcoro_zz_things' of plugin 'zz' (flowcoro-zz 1.0), which is blocked"
    )


def test_an_optional_hook_needs_no_owner() -> None:
    host = PluginHost(strict=True)
    guest = SimpleNamespace(FLOWCORO_HOOK_API=1)
    guest.flowcoro_http_routes = hookimpl(optionalhook=True)(lambda: ())
    assert host.register(guest).status is PluginStatus.LOADED


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (lambda: None, "NoneType"),
        (lambda: [object()], "did not find any 'flowcoro' hooks"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_specifications_that_cannot_be_added(answer: Any, part: str) -> None:
    host = PluginHost()
    record = host.register(plugin(flowcoro_add_hookspecs=answer, flowcoro_commands=lambda: ["x"]))
    assert record.status is PluginStatus.FAILED
    assert part in record.reason
    assert host.call("flowcoro_commands") == []


def test_two_owners_of_one_hook() -> None:
    host = PluginHost()
    assert host.register(owner_of_specs(), name="one").status is PluginStatus.LOADED
    second = host.register(owner_of_specs(), name="two")
    assert second.status is PluginStatus.FAILED
    assert "flowcoro_zoo_animals" in second.reason


def test_collect_leaves_out_what_has_the_wrong_shape(caplog: pytest.LogCaptureFixture) -> None:
    host = PluginHost()
    nameless = Command("", "Does it.", lambda: None)  # type: ignore[arg-type]
    answers = {"number": 3, "texts": ["x"], "nameless": [nameless], "lazy": iter(())}
    for name, value in answers.items():
        host.register(plugin(flowcoro_commands=lambda value=value: value), name=name)
    host.register(commands("good"), name="good")
    assert list(host.collect("flowcoro_commands", Command)) == ["good"]
    said = {n: r.problems[0].message for n, r in host.records.items() if r.problems}
    assert said == {
        "number": "returned int, expected a sequence of Command",
        "texts": "returned an item of str, expected Command",
        "nameless": "returned a Command without a name",
        "lazy": "returned tuple_iterator, expected a sequence of Command",
    }
    for name in answers:
        assert f"plugin {name!r} (registered by hand) failed in hook flowcoro_commands" in (
            caplog.text
        )


def test_a_problem_is_noted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    host = PluginHost()
    record = host.register(plugin(flowcoro_commands=lambda: 1 / 0), name="bad")
    for _ in range(3):
        host.call("flowcoro_commands")
    problem = Problem("flowcoro_commands", "ZeroDivisionError: division by zero")
    assert record.problems == [problem]
    assert isinstance(record.problems[0].error, ZeroDivisionError)
    assert caplog.text.count("failed in hook") == 1


def test_the_traceback_is_logged_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flowcoro")
    host = PluginHost()
    host.register(plugin(flowcoro_commands=lambda: 1 / 0), name="bad")
    host.call("flowcoro_commands")
    assert "Traceback" in caplog.text


def test_a_synchronous_hook_must_not_be_a_coroutine() -> None:
    async def late() -> list[Command]:
        return []

    host = PluginHost()
    record = host.register(plugin(flowcoro_commands=late))
    assert host.call("flowcoro_commands") == []
    assert record.problems[0].message == "returned an awaitable from a synchronous hook"


def test_strict_raises_at_the_first_problem() -> None:
    host = make_host(plugin(flowcoro_commands=lambda: 1 / 0))
    with pytest.raises(PluginError, match="failed in hook flowcoro_commands: ZeroDiv") as caught:
        host.call("flowcoro_commands")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(PluginError, match="does not state its hook API"):
        make_host(SimpleNamespace())
    contested = make_host(commands("run"))
    with pytest.raises(PluginError, match="command 'run' is claimed by plugin 'core'"):
        contested.collect("flowcoro_commands", Command)


def test_a_contested_name_is_recorded_against_both() -> None:
    host = PluginHost()
    records = [host.register(commands("x", name), name=name) for name in ("a", "b")]
    claims = host.collect("flowcoro_commands", Command)
    assert sorted(claims) == ["a", "b"]
    for record in records:
        assert "is claimed by plugin 'a'" in record.problems[0].message
    with pytest.raises(DuplicateClaimError):
        claims["x"]


def interrupted(*args: Any) -> Any:
    raise KeyboardInterrupt


def test_an_interrupt_in_a_hook_is_not_swallowed() -> None:
    host = PluginHost()
    host.register(plugin(flowcoro_commands=interrupted))
    with pytest.raises(KeyboardInterrupt):
        host.call("flowcoro_commands")


async def test_call_async_awaits_what_is_awaitable() -> None:
    async def late(context: Any) -> str:
        await anyio.lowlevel.checkpoint()
        return f"late {context}"

    async def silent(context: Any) -> None:
        await anyio.lowlevel.checkpoint()

    host = PluginHost(strict=True)
    host.register(plugin(flowcoro_started=late), name="a")
    host.register(plugin(flowcoro_started=lambda context: f"at once {context}"), name="b")
    host.register(plugin(flowcoro_started=silent), name="c")
    answers = await host.call_async("flowcoro_started", context=1)
    assert [(a.record.info.name, a.value) for a in answers] == [("a", "late 1"), ("b", "at once 1")]


async def test_call_async_runs_them_side_by_side() -> None:
    met = anyio.Event()

    async def waits(context: Any) -> str:
        await met.wait()
        return "waited"

    async def sets(context: Any) -> str:
        met.set()
        return "set"

    host = PluginHost(strict=True)
    host.register(plugin(flowcoro_started=waits), name="a")
    host.register(plugin(flowcoro_started=sets), name="b")
    answers = await host.call_async("flowcoro_started", context=None)
    assert [a.value for a in answers] == ["waited", "set"]


async def test_call_async_isolates_failures(caplog: pytest.LogCaptureFixture) -> None:
    async def raises(context: Any) -> None:
        raise ValueError("no luck")

    async def exits(context: Any) -> None:
        raise SystemExit(3)

    async def hangs(context: Any) -> None:
        await anyio.sleep_forever()

    async def times_out_itself(context: Any) -> None:
        raise TimeoutError("the peer is silent")

    async def fine(context: Any) -> str:
        return "fine"

    host = PluginHost()
    for function in (raises, exits, hangs, times_out_itself, fine):
        host.register(plugin(flowcoro_started=function), name=function.__name__)
    (answer,) = await host.call_async("flowcoro_started", timeout=0.01, context=None)
    assert answer.value == "fine"
    said = {n: r.problems[0].message for n, r in host.records.items() if r.problems}
    assert said == {
        "raises": "ValueError: no luck",
        "exits": "SystemExit: 3",
        "hangs": "was not done within 0.01 s",
        "times_out_itself": "TimeoutError: the peer is silent",
    }
    assert "plugin 'hangs' (registered by hand) failed in hook flowcoro_started" in caplog.text


async def test_call_async_in_strict_mode() -> None:
    async def raises(context: Any) -> None:
        raise ValueError("no luck")

    host = PluginHost(strict=True)
    host.register(plugin(flowcoro_started=raises), name="bad")
    with pytest.raises(PluginError, match=r"plugin 'bad' .* ValueError: no luck") as caught:
        await host.call_async("flowcoro_started", context=None)
    assert isinstance(caught.value.__cause__, ValueError)


async def test_strict_mode_leaves_no_awaitable_behind(recwarn: pytest.WarningsRecorder) -> None:
    async def fine(context: Any) -> None:
        """Never awaited when the next plugin raises first."""

    host = PluginHost(strict=True)
    host.register(plugin(flowcoro_started=fine), name="a")
    host.register(plugin(flowcoro_started=lambda context: 1 / 0), name="b")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        await host.call_async("flowcoro_started", context=None)
    gc.collect()
    assert [str(w.message) for w in recwarn.list] == []
