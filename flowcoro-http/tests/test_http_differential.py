"""The engine beside h11 and httptools: what each takes for requests, out of the same bytes.

Where they disagree, the reason must stand in docs/reference/http-strictness.md, whose
tables are read here: what the engine refuses with a reason that is there, another may
accept if the table says so; the rest is told apart by `_parting`.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from _mutations import mutated
from _readers import ACCEPTED, READERS, REFUSED, Engineer, Outcome, Request, engineer

PAGE = Path(__file__).parents[2] / "docs/reference/http-strictness.md"
CASES = int(os.environ.get("DIFFERENTIAL_CASES", "12000"))
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))

_HOST = b"Host: a\r\n"
_FRAMES = {
    "Request lines": (b"", b"\r\n" + _HOST + b"\r\n"),
    "Heads": (b"", b""),
    "Fields": (b"POST / HTTP/1.1\r\n" + _HOST, b"\r\n\r\n"),
    "Chunked bodies": (b"POST / HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n", b""),
}
_LAXER = "What the engine reads and others do not"


@dataclass(frozen=True)
class Row:
    """A line of the page's tables: an example, and what comes of it."""

    section: str
    cells: tuple[str, ...]
    example: bytes


def _rows() -> Iterator[Row]:
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, *lines = section.splitlines()
        for line in lines:
            # Not stripped: space is what some examples are about.
            cells = tuple(line.removeprefix("| ").removesuffix(" |").split(" | "))
            found = re.search(r"\| `(.+?)` \|", line)
            if line.startswith("| ") and found:
                example = found[1].encode("latin-1").decode("unicode_escape").encode("latin-1")
                before, after = _FRAMES.get(title, (b"", b""))
                yield Row(title, cells, before + example + after)


ROWS = tuple(_rows())
REFUSALS = tuple(row for row in ROWS if row.section != _LAXER)
LAXER = tuple(row for row in ROWS if row.section == _LAXER)
# By the engine's reason: who accepts some of what it refuses so.
MAY_ACCEPT = {
    name: {row.cells[0] for row in REFUSALS if row.cells[2 + i] == ACCEPTED}
    for i, name in enumerate(READERS)
}


@pytest.fixture(scope="module")
def ours() -> Iterator[Engineer]:
    with engineer() as made:
        yield made


def _verdict(outcome: Outcome) -> str:
    if outcome.end == REFUSED:
        return REFUSED
    assert outcome.requests
    return ACCEPTED


def test_the_page_has_all_tables() -> None:
    assert {row.section for row in REFUSALS} == set(_FRAMES)
    assert len(LAXER) >= 3


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: f"{row.cells[0]}: {row.cells[1]}")
def test_what_is_refused(row: Row, ours: Engineer) -> None:
    outcome = ours.read(row.example + b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (outcome.end, outcome.reason) == (REFUSED, row.cells[0])
    assert b"served" not in outcome.sent
    assert outcome.status >= 400
    verdicts = tuple(_verdict(read(row.example)) for read in READERS.values())
    assert verdicts == row.cells[2:]


@pytest.mark.parametrize("row", LAXER, ids=lambda row: row.cells[2])
def test_what_only_others_refuse(row: Row, ours: Engineer) -> None:
    name, words = row.cells[:2]
    assert ours.read(row.example).requests[0].complete
    assert READERS[name](row.example).reason.startswith(words)


def _state(outcome: Outcome, index: int) -> str:
    if index < len(outcome.requests):
        if outcome.requests[index].complete:
            return "complete"
        return "refused in its body" if outcome.end == REFUSED else "partial"
    return outcome.end


def _differing(one: Request, other: Request) -> str:
    return ", ".join(
        name
        for name in ("method", "target", "fields", "version", "body", "complete")
        if getattr(one, name) != getattr(other, name)
    )


def _parting(name: str, ours: Outcome, theirs: Outcome, index: int) -> bool:
    """Tell whether the one goes on where the other does not, for a reason that is known."""
    if index == 0:
        return False
    last = ours.requests[index - 1]
    closes, keeps = (last.has(b"connection", each) for each in (b"close", b"keep-alive"))
    if last.method == b"CONNECT":
        return True
    if name == "h11":
        return theirs.end == "last" and last.version == "1.0" and keeps
    return theirs.upgraded or theirs.trailers or (last.version == "1.0" and closes and keeps)


def _disagreement(name: str, ours: Outcome, theirs: Outcome) -> str | None:
    """Return in what they disagree, unless the page has it; None: in nothing."""
    for index in range(len(ours.requests) + 1):
        here, there = _state(ours, index), _state(theirs, index)
        if theirs.upgraded and index == len(theirs.requests) - 1:
            return None  # it leaves the body alone
        taken = here in {"complete", "partial"}
        if taken and there in {"complete", "partial"}:
            differing = _differing(ours.requests[index], theirs.requests[index])
            if differing or here == "partial":
                return differing or None
        elif there == "last" or here == "last":
            accord = here == there or {here, there} == {"last", "more"}
            stricter = here == "last" and there == REFUSED
            parts = _parting(name, ours, theirs, index)
            return None if accord or stricter or parts else f"{here}, where it is {there}"
        elif here.startswith("refuse"):
            if there.startswith("refuse") or there == "more":
                return None
            if here == "refused in its body" and there == "partial":
                return None  # it has not seen enough
            known = ours.reason in MAY_ACCEPT[name]
            return None if known else f"refused ({ours.reason}), where it is {there}"
        elif there.startswith("refuse"):
            if not taken or (here == "partial" and there == "refused in its body"):
                return None
            known = any(
                row.cells[0] == name and theirs.reason.startswith(row.cells[1]) for row in LAXER
            )
            return None if known else f"{here}, where it is refused ({theirs.reason})"
        else:
            return None if here == there else f"{here}, where it is {there}"
    return None


def test_mutated_requests(ours: Engineer) -> None:
    chosen = random.Random(SEED)
    accepted = refused = 0
    for _ in range(CASES):
        content = mutated(chosen)
        outcome = ours.read(content)
        cuts = tuple(sorted(chosen.sample(range(len(content) + 1), k=chosen.randrange(4))))
        again = ours.read(content, cuts)
        assert (again.requests, again.end, again.reason) == (
            outcome.requests,
            outcome.end,
            outcome.reason,
        ), (content, cuts)
        for name, read in READERS.items():
            found = _disagreement(name, outcome, read(content))
            assert found is None, f"{name}: {found}: {content!r}"
        accepted += len(outcome.requests)
        refused += outcome.end == REFUSED
    # Of both there is enough to say something.
    assert accepted > CASES / 2
    assert refused > CASES / 4
