from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, version
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from flowcoro.plugins import PluginInfo, PluginStatus, blocked_by_environment, discover
from flowcoro.plugins._metadata import incompatibility

RAISES = "raise AssertionError('imported')"


def info(requires: str) -> PluginInfo:
    return PluginInfo("x", "x", "flowcoro-x", "1", requires=requires)


def test_discover_reads_the_metadata(site: Any) -> None:
    site.install(
        "flowcoro-zoo",
        {"zoo": "zoo_plugin", "ape": "zoo_plugin:ape"},
        {"zoo_plugin": RAISES},
        version="2.5",
        requires=["anyio", "flowcoro<0.2,>=0.1"],
    )
    ape, zoo = (i for i in site.infos() if i.name != "core")
    assert (ape.name, ape.target) == ("ape", "zoo_plugin:ape")
    assert (zoo.name, zoo.target) == ("zoo", "zoo_plugin")
    assert zoo.distribution == "flowcoro-zoo"
    assert zoo.version == "2.5"
    assert zoo.requires == "<0.2,>=0.1"
    assert zoo.summary == "The flowcoro-zoo plugin"
    assert zoo.origin == "flowcoro-zoo 2.5"


def test_discover_sorts_by_name(site: Any) -> None:
    for name in ("b", "c", "a"):
        site.install(f"flowcoro-{name}", {name: f"{name}_module"})
    names = [i.name for i in discover()]
    assert names == sorted(names)
    assert {"a", "b", "c", "core"} <= set(names)


def test_the_core_is_a_plugin_like_any_other() -> None:
    core = next(i for i in discover() if i.name == "core")
    assert core.target == "flowcoro.plugin"
    assert core.distribution == "flowcoro"
    assert core.version == version("flowcoro")


def test_listing_imports_nothing(site: Any) -> None:
    site.install("flowcoro-bad", {"bad": "bad_plugin"}, {"bad_plugin": RAISES})
    discover()  # what reading metadata itself needs is imported by now
    before = set(sys.modules)
    names = [i.name for i in discover()]
    assert "bad" in names
    assert set(sys.modules) == before
    assert "bad_plugin" not in sys.modules


def test_an_entry_point_without_distribution() -> None:
    point = EntryPoint("stray", "stray.plugin", "flowcoro")
    assert discover([point]) == [PluginInfo("stray", "stray.plugin", "(unknown)", "")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ""),
        (["flowcoro"], ""),
        (["flowcoro>=0.1"], ">=0.1"),
        (["flowcoro >= 0.1 , < 0.2"], ">=0.1,<0.2"),
        (["flowcoro (>=0.1)"], ">=0.1"),
        (["flowcoro[http]>=0.1"], ">=0.1"),
        (["FlowCoro>=0.1"], ">=0.1"),
        (["flowcoro~=0.1.0"], "~=0.1.0"),
        (["flowcoro==0.1.*"], "==0.1.*"),
        (["flowcoro>=0.1; python_version >= '3.11'"], ">=0.1"),
        (["flowcoro>=9; python_version < '3.0'"], ""),
        (["flowcoro>=9; extra == 'all'"], ""),
        (["flowcoro[http]>=9; extra == 'all'"], ""),
        (["flowcoro>=0.1", "flowcoro<0.2"], ">=0.1,<0.2"),
        (["flowcoro-http>=9", "flowcorox>=9", "anyio>=4"], ""),
        (["flowcoro @ https://example.com/flowcoro.whl"], ""),
    ],
)
def test_the_declared_range(site: Any, lines: list[str], expected: str) -> None:
    site.install("flowcoro-x", {"x": "x_plugin"}, requires=lines)
    (found,) = (i for i in site.infos() if i.name == "x")
    assert found.requires == expected


@pytest.mark.parametrize(
    ("requires", "fits"),
    [
        ("", True),
        (">=0.1", True),
        (">=0.1,<0.2", True),
        (">=0.1.0", True),
        ("~=0.1.0", True),
        ("==0.1.0", True),
        ("!=0.1.0", False),
        ("<0.1", False),
        (">=99", False),
        (">=0.1,<0.1.0", False),
    ],
)
def test_the_range_and_the_running_version(
    monkeypatch: pytest.MonkeyPatch, requires: str, fits: bool
) -> None:
    monkeypatch.setattr("flowcoro.plugins._metadata.version", lambda name: "0.1.0")
    reason = incompatibility(info(requires))
    assert (reason is None) == fits
    if reason is not None:
        assert reason == f"requires flowcoro{requires}, but flowcoro 0.1.0 is installed"


def test_a_development_version_belongs_to_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowcoro.plugins._metadata.version", lambda name: "0.1.1.dev3")
    assert incompatibility(info(">=0.1,<0.2")) is None
    assert incompatibility(info(">=0.2")) is not None


numbers = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(
    lambda parts: ".".join(map(str, parts))
)
bounds = st.lists(
    st.tuples(st.sampled_from([">=", "<", "<=", ">", "==", "!="]), numbers).map("".join),
    min_size=1,
    max_size=3,
).map(",".join)


@given(numbers, bounds)
def test_ranges_mean_what_packaging_says(ours: str, declared: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowcoro.plugins._metadata.version", lambda name: ours)
        fits = incompatibility(info(declared)) is None
    assert fits == SpecifierSet(declared).contains(ours, prereleases=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", set()), ("a", {"a"}), ("a,b", {"a", "b"}), (" a , ,b ", {"a", "b"})],
)
def test_blocked_by_environment(value: str, expected: set[str]) -> None:
    assert blocked_by_environment({"FLOWCORO_BLOCK_PLUGINS": value}) == expected
    assert blocked_by_environment({}) == frozenset()


@pytest.mark.parametrize(
    "line", ["flowcoro !!! nonsense", "flowcoro>>=1", "flowcoro>=not-a-version", "flowcoro;;"]
)
def test_a_requirement_that_nobody_can_read_spoils_one_plugin_only(site: Any, line: str) -> None:
    site.install("flowcoro-garbled", {"garbled": "garbled_plugin"}, requires=[line])
    site.install_good()
    host = site.load()
    garbled = host.records["garbled"]
    assert garbled.status is not PluginStatus.LOADED
    assert line.removeprefix("flowcoro").strip() in garbled.reason
    assert host.records["good"].status is PluginStatus.LOADED


@pytest.mark.parametrize("metadata", ["", "Metadata-Version: 2.1\n"])
def test_a_distribution_without_metadata_spoils_one_plugin_only(site: Any, metadata: str) -> None:
    site.install_good()
    site.install("flowcoro-bare", {"bare": "bare_plugin"}, metadata=metadata)
    listed = {i.name: i for i in discover()}
    assert isinstance(listed["bare"].distribution, str)
    assert isinstance(listed["bare"].version, str)
    assert listed["good"].distribution == "flowcoro-good"
