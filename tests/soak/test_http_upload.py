"""Uploads of a gigabyte: too large or not, they do not cost memory. `make soak-upload`: of ten."""

from __future__ import annotations

import pytest
from run_http_soak import soaked
from run_http_upload import GIGABYTE, LIMIT, MOST_GROWTH, upload

from flowcoro import reactor

all_kinds = pytest.mark.parametrize("chunked", [False, True], ids=["one-piece", "chunks"])
all_reactors = pytest.mark.parametrize("reactor_name", reactor.available())


@all_reactors
@all_kinds
def test_one_that_is_too_large_and_goes_on(
    reactor_name: str, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOAK_LINGER", "0.1")
    with soaked(reactor_name, "router", max_body_bytes=LIMIT) as server:
        made = upload(server, 100 * GIGABYTE, chunked=chunked)
    assert made.status == 413
    assert made.was_cut
    assert made.growth < MOST_GROWTH


@all_reactors
def test_one_that_is_streamed(reactor_name: str) -> None:
    with soaked(reactor_name, "router", max_body_bytes=2 * GIGABYTE) as server:
        made = upload(server, GIGABYTE, chunked=False)
    assert (made.status, made.was_cut) == (200, False)
    assert made.answer.endswith(b"\r\n\r\n%d" % made.sent)
    assert made.growth < MOST_GROWTH
