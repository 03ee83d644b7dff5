from __future__ import annotations

import pytest

from flowcoro.errors import DuplicateClaimError, PluginError
from flowcoro.plugins import Claims, PluginInfo, PluginRecord, PluginStatus


def record(name: str) -> PluginRecord:
    return PluginRecord(PluginInfo(name, name, f"flowcoro-{name}", "1.0"), PluginStatus.LOADED)


A, B, C = record("a"), record("b"), record("c")


def test_a_name_that_one_plugin_claims() -> None:
    claims = Claims("command", [("x", 1, A), ("y", 2, B)])
    assert dict(claims) == {"x": 1, "y": 2}
    assert len(claims) == 2
    assert "x" in claims
    assert claims.owner("y") is B
    assert claims.contested == {}


def test_a_name_that_two_claim_is_nobodys() -> None:
    claims = Claims("command", [("x", 1, A), ("y", 2, A), ("x", 3, B)])
    assert dict(claims) == {"y": 2}
    assert "x" not in claims
    assert claims.contested == {"x": (A, B)}
    for ask in (claims.__getitem__, claims.owner):
        with pytest.raises(DuplicateClaimError) as caught:
            ask("x")
        assert str(caught.value) == (
            "command 'x' is claimed by plugin 'a' (flowcoro-a 1.0) and plugin 'b' "
            "(flowcoro-b 1.0); block one of them (FLOWCORO_BLOCK_PLUGINS) or rename it"
        )


def test_a_third_claimant_is_named_too() -> None:
    claims = Claims("loop", [("x", 1, A), ("x", 2, B), ("x", 3, C)])
    assert claims.contested == {"x": (A, B, C)}
    assert "plugin 'c' (flowcoro-c 1.0)" in claims.conflict("x")


def test_a_name_that_nobody_claims() -> None:
    claims = Claims("loop", [("asyncio", 1, A), ("uring", 2, A)])
    with pytest.raises(PluginError) as caught:
        claims["asynci0"]
    assert str(caught.value) == (
        "no plugin provides loop 'asynci0'; did you mean 'asyncio'? (known: asyncio, uring)"
    )
    assert not isinstance(caught.value, DuplicateClaimError)
    with pytest.raises(PluginError, match=r"no plugin provides loop 'z' \(known: asyncio, uring\)"):
        claims.owner("z")


def test_nothing_claimed() -> None:
    claims: Claims[int] = Claims("loop", [])
    assert not claims
    with pytest.raises(PluginError, match=r"\(known: none\)"):
        claims["x"]
