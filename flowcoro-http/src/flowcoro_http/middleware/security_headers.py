"""Header fields by which browsers protect a site's users."""

from __future__ import annotations

from collections.abc import Mapping

from flowcoro_http._checks import check_flag, check_int, check_text
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._multi import MutableHeaders
from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = ["SecurityHeaders"]

_YEAR = 365 * 24 * 60 * 60
_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)


class SecurityHeaders(Middleware):
    """Adds security header fields to every response that does not have them itself.

    An empty value leaves a field out. What a handler sets wins, so one page may have a
    `Content-Security-Policy` of its own.

    Args:
        hsts_seconds: how long browsers are to use HTTPS only (`Strict-Transport-Security`,
            RFC 6797); sent over HTTPS only. 0 for no such field.
        hsts_subdomains: whether that holds for subdomains too.
        hsts_preload: whether the site agrees to be on browsers' lists for it; needs the
            subdomains and a year at least.
        content_security_policy: what pages may load and do. By default only what comes from
            their own origin, and no other site may frame them.
        frame_options: for browsers without `frame-ancestors`: `DENY` or `SAMEORIGIN`.
        referrer_policy: what other sites learn of where a visitor comes from.
        content_type_options: `nosniff` keeps browsers from guessing types.
        opener_policy: `Cross-Origin-Opener-Policy`.
        resource_policy: `Cross-Origin-Resource-Policy`; none by default, since others may
            well use an API or a picture.
        permissions_policy: what of the device pages may use; none by default.
        more: further fields.
        order: where it stands.

    Raises:
        ValueError: a value cannot be in a header field, or `hsts_preload` lacks what it needs.
        TypeError: an argument is of another type.
    """

    def __init__(
        self,
        *,
        hsts_seconds: int = _YEAR,
        hsts_subdomains: bool = False,
        hsts_preload: bool = False,
        content_security_policy: str = _POLICY,
        frame_options: str = "DENY",
        referrer_policy: str = "strict-origin-when-cross-origin",
        content_type_options: str = "nosniff",
        opener_policy: str = "same-origin",
        resource_policy: str = "",
        permissions_policy: str = "",
        more: Mapping[str, str] | None = None,
        order: int = -900,
    ) -> None:
        super().__init__("security-headers", self._handle, order)
        check_int("SecurityHeaders: hsts_seconds", hsts_seconds)
        check_flag("SecurityHeaders: hsts_subdomains", hsts_subdomains)
        check_flag("SecurityHeaders: hsts_preload", hsts_preload)
        if not isinstance(more, Mapping | None):
            raise TypeError(
                "SecurityHeaders: more: expected a mapping of names to values, "
                f"not {type(more).__name__}"
            )
        if hsts_preload and (hsts_seconds < _YEAR or not hsts_subdomains):
            raise ValueError("hsts_preload needs hsts_subdomains, and a year of hsts_seconds")
        fields = {
            "x-content-type-options": content_type_options,
            "x-frame-options": frame_options,
            "referrer-policy": referrer_policy,
            "content-security-policy": content_security_policy,
            "cross-origin-opener-policy": opener_policy,
            "cross-origin-resource-policy": resource_policy,
            "permissions-policy": permissions_policy,
            **(more or {}),
        }
        fields = {name: value for name, value in fields.items() if value}
        for name, value in fields.items():
            check_text("SecurityHeaders: a field's name", name)
            check_text(f"SecurityHeaders: {name}", value)
        self._fields = MutableHeaders(fields).multi_items()
        self._hsts = ""
        if hsts_seconds:
            subdomains = "; includeSubDomains" if hsts_subdomains else ""
            preload = "; preload" if hsts_preload else ""
            self._hsts = f"max-age={hsts_seconds}{subdomains}{preload}"

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        for name, value in self._fields:
            response.headers.setdefault(name, value)
        if self._hsts and request.scheme == "https":
            response.headers.setdefault("strict-transport-security", self._hsts)
        return response
