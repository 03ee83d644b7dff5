"""Conditional requests (RFC 9110, section 13): the rules, apart from requests and files.

Validators and header fields in, a verdict out. Dates are seconds since the Unix epoch.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate

from flowcoro_http._multi import Headers

__all__ = ["Validators", "Verdict", "evaluate", "format_date", "parse_date", "range_holds"]

_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS: Mapping[str, int] = {name: number for number, name in enumerate(_NAMES, start=1)}
_TIME = r"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)"
# The three of RFC 9110, section 5.6.7: what is sent today, and two that are old.
_DATES = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        rf"[A-Z][a-z]{{2}}, (?P<day>\d\d) (?P<month>[A-Z][a-z]{{2}}) (?P<year>\d{{4}}) {_TIME} GMT",
        rf"[A-Z][a-z]+day, (?P<day>\d\d)-(?P<month>[A-Z][a-z]{{2}})-(?P<year>\d\d) {_TIME} GMT",
        rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"(?:[ \t]*,)*[ \t]*{_TAG}(?:[ \t]*,(?:[ \t]*{_TAG})?)*[ \t]*")
_EACH_TAG = re.compile(_TAG)


class Verdict(enum.Enum):
    """What preconditions ask for."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not modified"
    """304: the client has it already."""
    FAILED = "failed"
    """412: it is not what the client takes it for."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one version of a resource from another (RFC 9110, section 8.8).

    Attributes:
        etag: the entity tag with its quotes; empty when there is none.
        modified: when it was modified last; None when nobody knows.
    """

    etag: str = ""
    modified: int | None = None


def evaluate(headers: Headers, found: Validators) -> Verdict:
    """Judge the preconditions of a GET or HEAD, in the order of section 13.2.2.

    Args:
        headers: the request's.
        found: the validators of what would be sent.
    """
    match = _tags(headers, "if-match")
    if match is not None:
        if not _holds(match, found.etag, strongly=True):
            return Verdict.FAILED
    else:
        since = _date(headers, "if-unmodified-since")
        if since is not None and found.modified is not None and found.modified > since:
            return Verdict.FAILED
    none_match = _tags(headers, "if-none-match")
    if none_match is not None:
        return Verdict.NOT_MODIFIED if _holds(none_match, found.etag) else Verdict.PROCEED
    since = _date(headers, "if-modified-since")
    if since is not None and found.modified is not None and found.modified <= since:
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def range_holds(headers: Headers, found: Validators, now: float) -> bool:
    """Tell whether a `Range` still fits, by `If-Range` (section 13.1.5).

    A date is as good as a tag only if the resource cannot have changed twice within its
    second (section 8.8.2.2), which is so once that second is over.

    Args:
        headers: the request's.
        found: the validators of what would be sent.
        now: the time.
    """
    given = headers.get_all("if-range")
    if not given:
        return True
    if len(given) > 1:
        return False
    if given[0].startswith(('"', "W/")):
        return bool(found.etag) and given[0] == found.etag and not found.etag.startswith("W/")
    modified = found.modified
    return modified is not None and parse_date(given[0]) == modified and now - modified >= 2


def format_date(seconds: float) -> str:
    """Write a date as header fields have it."""
    return formatdate(seconds, usegmt=True)


def parse_date(text: str) -> int | None:
    """Read an HTTP date in any of its three forms (section 5.6.7); None for another text."""
    for pattern in _DATES:
        found = pattern.fullmatch(text.strip())
        if found is not None:
            break
    else:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:
        this = datetime.now(UTC).year
        year += this - this % 100
        year -= 100 if year > this + 50 else 0
    month = _MONTHS.get(found["month"])
    if month is None:
        return None
    clock = int(found["h"]), int(found["m"]), int(found["s"])
    try:
        return int(datetime(year, month, int(found["day"]), *clock, tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        return None


def _date(headers: Headers, name: str) -> int | None:
    """Read a date; what is none is ignored, as sections 13.1.3 and 13.1.4 ask."""
    values = headers.get_all(name)
    return parse_date(values[0]) if len(values) == 1 else None


def _tags(headers: Headers, name: str) -> Sequence[str] | None:
    """Read a list of tags, or `*`; empty for what is neither, None when it is not there."""
    values = headers.get_all(name)
    if not values:
        return None
    text = ", ".join(values).strip()
    if text == "*":
        return ["*"]
    return _EACH_TAG.findall(text) if _TAGS.fullmatch(text) else []


def _holds(tags: Sequence[str], etag: str, *, strongly: bool = False) -> bool:
    """Compare as section 8.8.3.2 says; `*` means any version at all."""
    if "*" in tags:
        return True
    if not etag or (strongly and etag.startswith("W/")):
        return False
    if strongly:
        return etag in tags
    bare = etag.removeprefix("W/")
    return any(tag.removeprefix("W/") == bare for tag in tags)
