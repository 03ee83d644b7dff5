"""From a handler's signature to a plan: where each argument comes from.

Read once, when routes are bound; a request then only follows the plan (`_binding`). The
rules, in this order:

1. `Request`, `RequestHead` and `WebSocket` are the request itself.
2. `Annotated[..., Path()]`, `Query()`, `Header()`, `Cookie()`, `Body()` say it outright,
   and `Annotated[..., Named("x")]` asks for a dependency by name.
3. A name in the path template is a path parameter.
4. A type that something provides is a dependency, even if it could be decoded.
5. Scalars (`int`, `float`, `bool`, `str`, `UUID`, dates and times, `Decimal`, enums,
   `Literal`, optional ones) and lists of them are query parameters.
6. msgspec structs, dataclasses, `TypedDict`s, named tuples, dictionaries and lists of
   those are the JSON body.
7. Any other class is a dependency.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from flowcoro.app import Named
from flowcoro_http._request import Request, RequestHead
from flowcoro_http._route import Route
from flowcoro_http._routing import PathTemplate
from flowcoro_http._types import Handler
from flowcoro_http._websocket import WebSocket

__all__ = [
    "REQUIRED",
    "Body",
    "Cookie",
    "Header",
    "ParameterError",
    "Path",
    "Plan",
    "PlannedParameter",
    "Query",
    "Source",
    "make_plan",
    "read_signature",
]


class ParameterError(TypeError):
    """A handler's parameter cannot be planned; names handler, parameter and remedy."""


@dataclass(frozen=True, slots=True)
class _Marker:
    name: str = ""
    description: str = ""


class Path(_Marker):
    """Marks a path parameter: `Annotated[int, Path("id")]`.

    Attributes:
        name: its name in the template; the parameter's when empty.
        description: for OpenAPI.
    """


class Query(_Marker):
    """Marks a query parameter: `Annotated[str, Query("q")]`.

    Attributes:
        name: its name in the query; the parameter's when empty.
        description: for OpenAPI.
    """


class Header(_Marker):
    """Marks a header field: `Annotated[str, Header("user-agent")]`.

    Attributes:
        name: its name; the parameter's with hyphens for underscores when empty.
        description: for OpenAPI.
    """


class Cookie(_Marker):
    """Marks a cookie: `Annotated[str, Cookie("session")]`.

    Attributes:
        name: its name; the parameter's when empty.
        description: for OpenAPI.
    """


class Body(_Marker):
    """Marks the body: JSON for most types, the raw body for `bytes` and `str`.

    Attributes:
        name: not used.
        description: for OpenAPI.
    """


class Source(enum.StrEnum):
    """Where an argument comes from."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    COOKIE = "cookie"
    BODY = "body"
    REQUEST = "request"
    DEPENDENCY = "dependency"


class _Required(enum.Enum):
    REQUIRED = "required"

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required.REQUIRED
"""The default of a parameter that has none."""


@dataclass(frozen=True, slots=True)
class PlannedParameter:
    """One parameter of a handler and where its argument comes from.

    Attributes:
        name: the parameter's name.
        source: where the argument comes from.
        alias: its name over there.
        annotation: its type, without our markers.
        default: its default, or `REQUIRED`.
        multiple: whether it takes every value of its name.
        description: for OpenAPI.
    """

    name: str
    source: Source
    alias: str
    annotation: Any
    default: Any = REQUIRED
    multiple: bool = False
    description: str = ""

    @property
    def location(self) -> str:
        """Where problems say it is: `query.limit`."""
        return "body" if self.source is Source.BODY else f"{self.source}.{self.alias}"

    @property
    def expected(self) -> str:
        """What problems say would be right."""
        return describe_type(self.annotation)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to call one handler.

    Attributes:
        label: how messages name the handler.
        parameters: its parameters.
        returns: its return annotation; `inspect.Signature.empty` when it has none.
    """

    label: str
    parameters: tuple[PlannedParameter, ...] = ()
    returns: Any = field(default=inspect.Signature.empty)

    def of(self, *sources: Source) -> list[PlannedParameter]:
        """Return the parameters from `sources`, in order."""
        return [p for p in self.parameters if p.source in sources]


_SCALARS = (
    int,
    float,
    bool,
    str,
    uuid.UUID,
    decimal.Decimal,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
)
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence)
_UNIONS = (typing.Union, types.UnionType)
_MARKED = {
    Path: Source.PATH,
    Query: Source.QUERY,
    Header: Source.HEADER,
    Cookie: Source.COOKIE,
    Body: Source.BODY,
}


def read_signature(handler: Handler, local_names: Mapping[str, Any]) -> inspect.Signature:
    """Read a handler's signature with its annotations evaluated.

    Args:
        handler: the handler.
        local_names: what the annotations may name beside the module's globals.

    Raises:
        NameError: an annotation names what is not (yet) there.
        ParameterError: it is no function, or has parameters that nothing can fill.
    """
    label = getattr(handler, "__qualname__", repr(handler))
    try:
        signature = inspect.signature(handler, eval_str=True, locals=local_names)
    except (ValueError, TypeError) as error:
        raise ParameterError(f"{label}: its signature cannot be read: {error}") from error
    for parameter in signature.parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise ParameterError(
                f"{label}: parameter {stars}{parameter.name}: name each parameter, with a type"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ParameterError(
                f"{label}: parameter {parameter.name!r} is positional-only; "
                "arguments are passed by name"
            )
    return signature


def make_plan(
    route: Route,
    template: PathTemplate,
    signature: inspect.Signature,
    provides: Callable[[Any], bool],
) -> Plan:
    """Decide where each argument comes from.

    Args:
        route: the route.
        template: its full path, prefixes included.
        signature: the handler's signature, evaluated.
        provides: tells whether something provides a type as a dependency.

    Raises:
        ParameterError: naming handler, parameter, and what is possible.
    """
    planned = [
        _plan_parameter(parameter, route, template, provides)
        for parameter in signature.parameters.values()
    ]
    bodies = [p.name for p in planned if p.source is Source.BODY]
    if len(bodies) > 1:
        raise ParameterError(
            f"{route.label}: parameters {' and '.join(map(repr, bodies))} both want the body; "
            "put them into one msgspec.Struct"
        )
    if bodies and (route.websocket or set(route.methods) <= {"GET", "HEAD"}):
        what = "a WebSocket handshake" if route.websocket else "/".join(route.methods)
        raise ParameterError(
            f"{route.label}: parameter {bodies[0]!r} would be the body, but {what} has none; "
            "use another method, Annotated[..., Query()], or provide it as a dependency"
        )
    return Plan(route.label, tuple(planned), signature.return_annotation)


def _plan_parameter(
    parameter: inspect.Parameter,
    route: Route,
    template: PathTemplate,
    provides: Callable[[Any], bool],
) -> PlannedParameter:
    where = f"{route.label}: parameter {parameter.name!r}"
    annotation, marker, named = _unwrap(parameter.annotation, where)
    default = REQUIRED if parameter.default is parameter.empty else parameter.default
    bare = _bare(annotation)
    source = _classify(parameter.name, annotation, marker, named, template, provides)
    if source is Source.REQUEST:
        _check_request_kind(bare, route, where)
    if annotation is parameter.empty:
        if source is not Source.PATH:
            raise ParameterError(
                f"{where} has no type; annotate it, for example {parameter.name}: str"
            )
        annotation = str
    if source is None:
        raise ParameterError(
            f"{where}: {describe_type(annotation)} is neither a scalar (query), a struct, "
            "dataclass or TypedDict (body), nor a class (dependency); say which with "
            "Annotated[..., Query() | Header() | Cookie() | Body()]"
        )
    alias = marker.name if marker is not None else ""
    if not alias:
        name = parameter.name
        alias = name.replace("_", "-") if source is Source.HEADER else name
    if source is Source.PATH and alias not in template.names:
        raise ParameterError(
            f"{where}: path {template.raw!r} has no parameter {alias!r} "
            f"(it has: {', '.join(template.names) or 'none'})"
        )
    multiple = source in {Source.QUERY, Source.HEADER} and _is_list(bare)
    if source in {Source.PATH, Source.QUERY, Source.HEADER, Source.COOKIE}:
        _check_text_type(annotation, source, where)
    elif source is Source.BODY:
        _check_decodable(annotation, where)
    description = marker.description if marker is not None else ""
    kept = parameter.annotation if source is Source.DEPENDENCY else annotation
    return PlannedParameter(parameter.name, source, alias, kept, default, multiple, description)


def _classify(
    name: str,
    annotation: Any,
    marker: _Marker | None,
    named: bool,
    template: PathTemplate,
    provides: Callable[[Any], bool],
) -> Source | None:
    bare = _bare(annotation)
    source: Source | None = None
    if isinstance(bare, type) and issubclass(bare, RequestHead):
        source = Source.REQUEST
    elif marker is not None:
        source = _MARKED[type(marker)]
    elif named:
        source = Source.DEPENDENCY
    elif name in template.names:
        source = Source.PATH
    elif isinstance(bare, type) and bare not in _SCALARS and provides(bare):
        source = Source.DEPENDENCY
    elif _is_scalar(bare) or (_is_list(bare) and _is_scalar(_item_type(bare))):
        source = Source.QUERY
    elif _is_document(bare):
        source = Source.BODY
    elif isinstance(bare, type) and bare not in {object, bytes, bytearray, type(None)}:
        source = Source.DEPENDENCY
    return source


def _check_request_kind(bare: Any, route: Route, where: str) -> None:
    wrong = Request if route.websocket else WebSocket
    if issubclass(bare, wrong):
        right = "WebSocket" if route.websocket else "Request"
        raise ParameterError(f"{where}: this route gives a {right}, not a {bare.__name__}")


def _unwrap(annotation: Any, where: str) -> tuple[Any, _Marker | None, bool]:
    """Take our markers out of `Annotated`, leaving what msgspec reads."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, None, False
    base, *metadata = typing.get_args(annotation)
    markers = [m() if isinstance(m, type) and m in _MARKED else m for m in metadata]
    ours = [m for m in markers if isinstance(m, _Marker)]
    if len(ours) > 1:
        raise ParameterError(f"{where} has two markers; keep one of {ours}")
    named = any(isinstance(m, Named) for m in markers)
    rest = [m for m in markers if isinstance(m, msgspec.Meta)]
    kept: Any = Annotated[(base, *rest)] if rest else base
    return kept, (ours[0] if ours else None), named


def _bare(annotation: Any) -> Any:
    """Strip `Annotated` and `NewType` and look through an `Optional`."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif typing.get_origin(annotation) in _UNIONS:
            options = [a for a in typing.get_args(annotation) if a is not type(None)]
            if len(options) != 1:
                return annotation
            annotation = options[0]
        else:
            return annotation


def _is_scalar(annotation: Any) -> bool:
    bare = _bare(annotation)
    if typing.get_origin(bare) is typing.Literal:
        return True
    if typing.get_origin(bare) in _UNIONS:
        return all(_is_scalar(a) for a in typing.get_args(bare) if a is not type(None))
    return isinstance(bare, type) and (bare in _SCALARS or issubclass(bare, enum.Enum))


def _is_list(annotation: Any) -> bool:
    return annotation in _LISTS or typing.get_origin(annotation) in _LISTS


def _item_type(annotation: Any) -> Any:
    arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis]
    return arguments[0] if arguments else str


def _is_document(annotation: Any) -> bool:
    bare = _bare(annotation)
    origin = typing.get_origin(bare) or bare
    if origin in _UNIONS:
        return any(_is_document(a) for a in typing.get_args(bare))
    if not isinstance(origin, type):
        return bool(typing.is_typeddict(origin))
    return (
        issubclass(origin, msgspec.Struct | dict)
        or origin is collections.abc.Mapping
        or dataclasses.is_dataclass(origin)
        or typing.is_typeddict(origin)
        or (issubclass(origin, tuple) and hasattr(origin, "_fields"))
        or origin in _LISTS
    )


def _check_text_type(annotation: Any, source: Source, where: str) -> None:
    bare = _bare(annotation)
    if _is_scalar(bare):
        return
    if source is not Source.PATH and _is_list(bare) and _is_scalar(_item_type(bare)):
        return
    lists = "" if source is Source.PATH else " or a list of those"
    raise ParameterError(
        f"{where}: {describe_type(annotation)} cannot be read from the {source}; expected int, "
        f"float, bool, str, UUID, a date or time, Decimal, an enum or a Literal{lists}"
    )


def _check_decodable(annotation: Any, where: str) -> None:
    if _bare(annotation) in {bytes, str}:
        return
    try:
        # The schema, since a decoder accepts any class and fails when it is used.
        msgspec.json.schema(annotation)
    except (TypeError, NameError) as error:
        raise ParameterError(f"{where} cannot be decoded from JSON: {error}") from error


def describe_type(annotation: Any) -> str:
    """Name a type for the reader of a problem document: `int`, `bool (true or false)`."""
    bare = _bare(annotation)
    origin = typing.get_origin(bare)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(bare)))}"
    if origin in _UNIONS:
        return " or ".join(describe_type(a) for a in typing.get_args(bare) if a is not type(None))
    if _is_list(bare):
        return f"list of {describe_type(_item_type(bare))}"
    if isinstance(bare, type) and issubclass(bare, enum.Enum):
        return f"one of {', '.join(repr(member.value) for member in bare)}"
    notes: dict[Any, str] = {
        bool: "bool (true or false)",
        uuid.UUID: "UUID",
        dt.datetime: "date and time (RFC 3339)",
        dt.date: "date (RFC 3339)",
        dt.time: "time (RFC 3339)",
        dt.timedelta: "duration (ISO 8601)",
        decimal.Decimal: "decimal number",
    }
    name = notes.get(bare) or getattr(bare, "__name__", None) or str(bare)
    return name + _limits(annotation)


_LIMITS = {
    "gt": ">",
    "ge": ">=",
    "lt": "<",
    "le": "<=",
    "multiple_of": "multiple of",
    "min_length": "length >=",
    "max_length": "length <=",
    "pattern": "matching",
}


def _limits(annotation: Any) -> str:
    metas: Sequence[Any] = getattr(annotation, "__metadata__", ())
    found = [
        f" {words} {getattr(meta, attribute)}"
        for meta in metas
        for attribute, words in _LIMITS.items()
        if getattr(meta, attribute, None) is not None
    ]
    return ",".join(found)
