"""When a request is tried again, and how long after."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from flowcoro_http._checks import check_int, check_seconds, check_texts, shown_value
from flowcoro_http._client._errors import IDEMPOTENT, shown

__all__ = ["Retrier", "RetryPolicy", "log_retry"]

logger = logging.getLogger("flowcoro.http.client")

# Never sent, so never done.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout)
# Maybe done, and maybe only by halves.
_BROKEN = (
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
)

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")

_RESERVE = 10.0
"""Retries that a budget has at the start, and at most."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which requests are tried again, how often, and when.

    The delay doubles from `first_delay` up to `longest_delay`, and up to half of it is left out
    by chance, lest all clients of a server that is back come at once. A `Retry-After` of the
    response is waited for, unless it is longer than `longest_retry_after` or than the request's
    own deadline: then the response is the outcome.

    A request that never left, since there was no connection, is tried again whatever its method.

    Attributes:
        retries: how often at most, besides the first time; 0: never.
        first_delay: seconds before the first retry.
        longest_delay: seconds at most between two tries, a `Retry-After` aside.
        longest_retry_after: seconds of a `Retry-After` that are still waited for.
        statuses: of responses after which a request is tried again.
        methods: which may be tried again, in upper case; those that RFC 9110 (9.2.2) calls
            idempotent unless told otherwise. A `POST` that is repeated may be done twice.
        budget: how many retries there may be for each request of the client, on the average;
            beyond that, and a reserve of ten, failures are not tried again, so that a server in
            trouble does not get several times its load. None: no such bound.
    """

    retries: int = 2
    first_delay: float = 0.1
    longest_delay: float = 10.0
    longest_retry_after: float = 60.0
    statuses: Collection[int] = frozenset({429, 502, 503, 504})
    methods: Collection[str] = IDEMPOTENT
    budget: float | None = 0.2

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            TypeError: an attribute is of another type.
            ValueError: a number is out of range, or a method is none in upper case.
        """
        check_int("RetryPolicy: retries", self.retries)
        check_seconds("RetryPolicy: first_delay", self.first_delay)
        check_seconds("RetryPolicy: longest_delay", self.longest_delay)
        if self.first_delay > self.longest_delay:
            raise ValueError(
                "RetryPolicy: expected first_delay <= longest_delay, "
                f"not {self.first_delay} and {self.longest_delay} seconds"
            )
        check_seconds("RetryPolicy: longest_retry_after", self.longest_retry_after)
        check_seconds("RetryPolicy: budget", self.budget, optional=True, unit="retries")
        _check_statuses(self.statuses)
        check_texts("RetryPolicy: methods", self.methods, "{'GET', 'POST'}")
        for method in self.methods:
            if not _METHOD.fullmatch(method):
                raise ValueError(
                    "RetryPolicy: methods: expected them in upper case, such as {'GET', 'POST'}, "
                    f"not {shown_value(method)}"
                )

    def wants_status(self, method: str, status: int) -> bool:
        """Tell whether a request with that response is one to be tried again."""
        return self.retries > 0 and status in self.statuses and method in self.methods

    def wants_error(self, method: str, error: Exception) -> bool:
        """Tell whether a request that failed so is one to be tried again."""
        return isinstance(error, _UNSENT) or (method in self.methods and isinstance(error, _BROKEN))

    def delay(self, tried: int, headers: Mapping[str, str] | None = None) -> float | None:
        """Return the seconds to wait before the next try.

        Args:
            tried: how often it was tried.
            headers: of the response, if there was one.

        Returns:
            The seconds; None when the server asks for more than is waited for.
        """
        longest = min(self.first_delay * 2.0 ** min(tried - 1, 64), self.longest_delay)
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        asked = None if headers is None else _retry_after(headers.get("retry-after"))
        if asked is None:
            return delay
        return None if asked > self.longest_retry_after else max(delay, asked)


def _check_statuses(statuses: object) -> None:
    if isinstance(statuses, str | bytes) or not isinstance(statuses, Collection):
        raise TypeError(
            "RetryPolicy: statuses: expected several, such as {429, 503}, "
            f"not {shown_value(statuses)}"
        )
    for status in statuses:
        check_int("RetryPolicy: statuses", status, least=100, most=599)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` (RFC 9110, section 10.2.3), if there is one."""
    if value is None:
        return None
    if value.isascii() and value.isdecimal():
        return float(value[:10])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


class Retrier:
    """Decides for the requests of a client, within its budget.

    Args:
        policy: what to go by.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._share = policy.budget
        self._left = _RESERVE

    def note_request(self) -> None:
        """Note that a request begins, which adds to the budget."""
        if self._share is not None and self._left < _RESERVE:
            self._left = min(self._left + self._share, _RESERVE)

    def next_delay(
        self,
        policy: RetryPolicy,
        tried: int,
        left: float,
        headers: Mapping[str, str] | None = None,
    ) -> float | None:
        """Return the seconds to wait before a request that is one for it is tried again.

        Args:
            policy: that of the request.
            tried: how often it was tried.
            left: seconds until its deadline.
            headers: of the response, if there was one.

        Returns:
            The seconds; None: it is not tried again.
        """
        if tried > policy.retries:
            return None
        delay = policy.delay(tried, headers)
        if delay is None or delay >= left:
            return None
        if self._share is not None:
            if self._left < 1:
                return None
            self._left -= 1
        return delay


def log_retry(method: str, url: object, delay: float, outcome: object) -> None:
    """Tell of a retry.

    Args:
        method: the request's.
        url: whatever stands in it that is secret is left out.
        delay: seconds until then.
        outcome: what there was: a response, or an error, whose words are not ours.
    """
    if logger.isEnabledFor(logging.INFO):
        status = getattr(outcome, "status_code", None) or getattr(outcome, "status", None)
        what = type(outcome).__name__ if status is None else f"status {status}"
        logger.info("%s %s: %s, tried again in %.3f s", method, shown(url), what, delay)
