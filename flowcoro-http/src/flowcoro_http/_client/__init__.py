"""The HTTP client.

Layers, each of which may use only those before it:

1. `_checks`, `_errors`, `_retry`, `_response`: what a client is given, words for what went wrong,
   when to try again, and what comes of a fetch.
2. `_pool`: who gets which connection. What a connection reads and writes is native.
3. `_transport`: httpx over the pool. `_fetch`: the way without httpx.
4. `_setup`, `_sending`: from settings to what works by them; a request with its retries.
5. `_client`: `HttpClient`.
"""

from flowcoro_http._client._client import HttpClient

__all__ = ["HttpClient"]
