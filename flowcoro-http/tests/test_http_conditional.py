"""The rules of RFC 9110, sections 13 and 14, without a server."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcoro_http import Headers
from flowcoro_http._conditional import (
    Validators,
    Verdict,
    evaluate,
    format_date,
    parse_date,
    range_holds,
)
from flowcoro_http._ranges import MAX_RANGES, Span, parts_of, requested_spans

EXAMPLE = 784111777
"""Sun, 06 Nov 1994 08:49:37 GMT, which RFC 9110 has in all three forms."""

TAG = '"v1"'
AT = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
FOUND = Validators(TAG, EXAMPLE)


def fields(*items: tuple[str, str]) -> Headers:
    return Headers([(name.encode(), value.encode("latin-1")) for name, value in items])


@pytest.mark.parametrize(
    "text", [AT, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", f" {AT} "]
)
def test_dates_are_read_in_three_forms(text: str) -> None:
    assert parse_date(text) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 32 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nox 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        f"{AT}, {AT}",
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert parse_date(text) is None


def test_two_digits_of_a_year_mean_the_near_one() -> None:
    """More than 50 years ahead is the past (section 5.6.7)."""
    found = parse_date("Sunday, 06-Nov-00 08:49:37 GMT")
    assert found == calendar.timegm((2000, 11, 6, 8, 49, 37, 0, 0, 0))


def test_dates_come_back_as_they_were_written() -> None:
    assert format_date(EXAMPLE) == AT
    assert format_date(EXAMPLE + 0.9) == AT


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ([], Verdict.PROCEED),
        ([("if-match", TAG)], Verdict.PROCEED),
        ([("if-match", "*")], Verdict.PROCEED),
        ([("if-match", f'"a,b", {TAG}')], Verdict.PROCEED),
        ([("if-match", '"a"'), ("if-match", TAG)], Verdict.PROCEED),
        ([("if-match", '"v2"')], Verdict.FAILED),
        ([("if-match", f"W/{TAG}")], Verdict.FAILED),  # compared strongly
        ([("if-match", "v1")], Verdict.FAILED),
        ([("if-match", "")], Verdict.FAILED),
        ([("if-match", TAG), ("if-unmodified-since", BEFORE)], Verdict.PROCEED),
        ([("if-unmodified-since", BEFORE)], Verdict.FAILED),
        ([("if-unmodified-since", AT)], Verdict.PROCEED),
        ([("if-unmodified-since", "then")], Verdict.PROCEED),
        ([("if-none-match", TAG)], Verdict.NOT_MODIFIED),
        ([("if-none-match", f"W/{TAG}")], Verdict.NOT_MODIFIED),  # weakly
        ([("if-none-match", "*")], Verdict.NOT_MODIFIED),
        ([("if-none-match", f', "x" ,,{TAG},')], Verdict.NOT_MODIFIED),
        ([("if-none-match", '"v2"')], Verdict.PROCEED),
        ([("if-none-match", '"v2"'), ("if-modified-since", AFTER)], Verdict.PROCEED),
        ([("if-none-match", TAG[:-1])], Verdict.PROCEED),
        ([("if-modified-since", AT)], Verdict.NOT_MODIFIED),
        ([("if-modified-since", AFTER)], Verdict.NOT_MODIFIED),
        ([("if-modified-since", BEFORE)], Verdict.PROCEED),
        ([("if-modified-since", "then")], Verdict.PROCEED),
        ([("if-modified-since", AT), ("if-modified-since", AT)], Verdict.PROCEED),
        ([("if-match", '"v2"'), ("if-none-match", TAG)], Verdict.FAILED),
        ([("if-match", TAG), ("if-none-match", TAG)], Verdict.NOT_MODIFIED),
    ],
)
def test_preconditions(given: list[tuple[str, str]], verdict: Verdict) -> None:
    assert evaluate(fields(*given), FOUND) is verdict


def test_without_validators_only_the_star_holds() -> None:
    for name, verdict in [("if-match", Verdict.FAILED), ("if-none-match", Verdict.PROCEED)]:
        assert evaluate(fields((name, TAG)), Validators()) is verdict
    assert evaluate(fields(("if-match", "*")), Validators()) is Verdict.PROCEED
    assert evaluate(fields(("if-modified-since", AT)), Validators()) is Verdict.PROCEED
    weak = Validators(f"W/{TAG}")
    assert evaluate(fields(("if-match", f"W/{TAG}")), weak) is Verdict.FAILED
    assert evaluate(fields(("if-none-match", TAG)), weak) is Verdict.NOT_MODIFIED


@pytest.mark.parametrize(
    ("given", "found", "holds"),
    [
        (None, FOUND, True),
        (TAG, FOUND, True),
        ('"v2"', FOUND, False),
        (f"W/{TAG}", FOUND, False),
        (f"W/{TAG}", Validators(f"W/{TAG}"), False),
        (AT, FOUND, True),
        (AFTER, FOUND, False),
        (BEFORE, FOUND, False),
        ("nonsense", FOUND, False),
        (AT, Validators(TAG), False),
        (TAG, Validators(), False),
    ],
)
def test_ranges_hold_for_the_same_version(
    given: str | None, found: Validators, holds: bool
) -> None:
    headers = fields() if given is None else fields(("if-range", given))
    assert range_holds(headers, found, EXAMPLE + 100) is holds


def test_a_date_is_no_strong_validator_within_its_second() -> None:
    assert not range_holds(fields(("if-range", AT)), FOUND, EXAMPLE + 1.5)
    assert not range_holds(fields(("if-range", TAG), ("if-range", TAG)), FOUND, EXAMPLE + 9)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-", [(0, 100)]),
        ("bytes=-1", [(99, 100)]),
        ("bytes=-1000", [(0, 100)]),
        ("Bytes = 5-9", [(5, 10)]),
        ("bytes=90-200", [(90, 100)]),
        ("bytes=0-1, 4-5 ,,\t8-9", [(0, 2), (4, 6), (8, 10)]),
        ("bytes=8-9,0-1", [(8, 10), (0, 2)]),  # as they were asked for
        ("bytes=8-9,0-1,1-3", [(0, 4), (8, 10)]),  # overlapping ones become one
        ("bytes=0-4,5-9", [(0, 10)]),
        ("bytes=0-1,100-200", [(0, 2)]),
        ("bytes=100-", []),
        ("bytes=-0", []),
        (f"bytes={'9' * 5000}-", []),
        (f"bytes=-{'9' * 5000}", [(0, 100)]),
        (f"bytes={'0' * 5000}1-2", [(1, 3)]),
        ("bytes=", None),
        ("bytes=,", None),
        ("bytes=5", None),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2,x", None),
        ("bytes=--1", None),
        ("bytes=+1-2", None),
        ("bytes=\uff11-2".encode().decode("latin-1"), None),
        ("bytes 0-1", None),
        ("lines=0-1", None),
        ("bytes=" + "0-0," * MAX_RANGES, [(0, 1)]),
        ("bytes=" + "0-0," * (MAX_RANGES + 1), None),
    ],
)
def test_ranges(text: str, spans: list[tuple[int, int]] | None) -> None:
    found = requested_spans(fields(("range", text)), 100)
    assert found == (None if spans is None else [Span(*span) for span in spans])


def test_ranges_of_nothing() -> None:
    assert requested_spans(fields(), 100) is None
    assert requested_spans(fields(("range", "bytes=0-1"), ("range", "bytes=0-1")), 100) is None
    assert requested_spans(fields(("range", "bytes=0-")), 0) == []
    assert requested_spans(fields(("range", "bytes=-5")), 0) is None


numbers = st.one_of(st.none(), st.integers(0, 120))


@given(st.lists(st.tuples(numbers, numbers), max_size=6), st.integers(0, 100))
def test_spans_are_what_was_asked_for(
    specs: list[tuple[int | None, int | None]], size: int
) -> None:
    text = ",".join(f"{'' if a is None else a}-{'' if b is None else b}" for a, b in specs)
    found = requested_spans(fields(("range", f"bytes={text}")), size)
    if found is None:
        return
    wanted: set[int] = set()
    for first, last in specs:
        if first is None:
            wanted.update(range(max(0, size - (last or 0)), size))
        else:
            wanted.update(range(first, size if last is None else min(last + 1, size)))
    covered = [i for span in found for i in range(span.start, span.stop)]
    assert sorted(covered) == sorted(wanted)


def test_parts_know_their_size() -> None:
    parts = parts_of([Span(0, 2), Span(10, 100)], 100, "text/plain")
    boundary = parts.content_type.removeprefix("multipart/byteranges; boundary=")
    body = b"".join(p if isinstance(p, bytes) else b"x" * p.size for p in parts.pieces)
    assert len(body) == parts.size
    assert body.startswith(f"--{boundary}\r\nContent-Type: text/plain\r\n".encode())
    assert body.endswith(f"\r\n--{boundary}--\r\n".encode())
    assert b"Content-Range: bytes 10-99/100\r\n\r\n" + b"x" * 90 in body
