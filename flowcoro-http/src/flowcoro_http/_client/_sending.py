"""`Sending`: one request of httpx's, sent as often as its policy says."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httpx

from flowcoro_http._client._checks import (
    check_auth,
    check_method,
    check_url,
    refuse_headers,
)
from flowcoro_http._client._errors import without_user
from flowcoro_http._client._retry import RetryPolicy, log_retry
from flowcoro_http._client._setup import Opened, as_policy

__all__ = ["Sending"]


class Sending:
    """A request, and what it is sent by.

    Args:
        opened: the client's parts.
        method: the HTTP method.
        url: absolute, or relative to the base URL.
        options: what httpx takes for a request.
        phases: seconds of each wait where the client has no limit of its own; None: any time.
        stream: whether the response's body is left to be read.
    """

    def __init__(
        self,
        opened: Opened,
        method: str,
        url: str,
        options: dict[str, Any],
        *,
        phases: float | None,
        stream: bool,
    ) -> None:
        self._opened = opened
        self._options = {
            name: options.pop(name) for name in ("auth", "follow_redirects") if name in options
        }
        if "auth" in self._options:
            check_auth(self._options["auth"])
        _check_body(options)
        self._stream = stream
        try:
            where, user = without_user(url)
            self._request = opened.client.build_request(
                method, where, timeout=opened.settings.phases(phases), **options
            )
        except (AttributeError, TypeError, ValueError) as error:
            check_url("HttpClient: url", url)
            check_method(method)
            refuse_headers(options.get("headers") or {}, "ascii", error)
        if user is not None:
            self._options.setdefault("auth", user)
        if not isinstance(self._request.stream, httpx.AsyncByteStream):
            raise TypeError(
                "HttpClient: the body is one of synchronous pieces; expected bytes, text or an "
                "asynchronous iterator"
            )

    async def run(self, retries: RetryPolicy | int | None, deadline: float) -> httpx.Response:
        """Send it until there is a response that stands, or nothing helps.

        Args:
            retries: None: the client's own.
            deadline: when it is too late to try again, by the loop's clock.
        """
        opened = self._opened
        policy = opened.retrier.policy if retries is None else as_policy(retries)
        request = self._request
        method = request.method
        opened.retrier.note_request()
        may_repeat = isinstance(request.stream, httpx.ByteStream)
        tried = 1
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = await opened.client.send(request, stream=self._stream, **self._options)
                if not may_repeat or not policy.wants_status(method, outcome.status_code):
                    return outcome
            except httpx.TransportError as error:
                if not may_repeat or not policy.wants_error(method, error):
                    raise
                outcome = error
            headers = outcome.headers if isinstance(outcome, httpx.Response) else None
            delay = opened.retrier.next_delay(policy, tried, _left(deadline), headers)
            if delay is None:
                if isinstance(outcome, httpx.Response):
                    return outcome
                raise outcome
            log_retry(method, request.url, delay, outcome)
            if isinstance(outcome, httpx.Response):
                await outcome.aclose()
            await asyncio.sleep(delay)
            tried += 1


def _check_body(options: dict[str, Any]) -> None:
    """See that there is one body: of several httpx sends one, and says nothing."""
    if isinstance(content := options.get("content"), bytearray | memoryview):
        options["content"] = bytes(content)  # httpx would take it for pieces
    if "json" not in options and "content" not in options:
        return
    form = bool(options.get("data") or options.get("files"))
    if form + (options.get("content") is not None) + (options.get("json") is not None) > 1:
        raise ValueError("a request has content, json, or data and files, not several of these")


def _left(deadline: float) -> float:
    if deadline == math.inf:
        return math.inf
    return deadline - asyncio.get_running_loop().time()
