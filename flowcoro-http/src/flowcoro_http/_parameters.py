"""From a handler's signature to a plan: where each argument comes from.

Read once, when routes are bound; a request then only follows the plan (`_binding`). The
rules, in this order:

1. `Request`, `RequestHead` and `WebSocket` are the request itself.
2. `Annotated[..., Path()]`, `Query()`, `Header()`, `Cookie()`, `Body()`, `Form()`, `File()`
   say it outright, and `Annotated[..., Named("x")]` asks for a dependency by name.
3. A name in the path template is a path parameter.
4. A type that something provides is a dependency, even if it could be decoded.
5. Scalars (`int`, `float`, `bool`, `str`, `UUID`, dates and times, `Decimal`, enums,
   `Literal`, optional ones) and lists of them are query parameters.
6. msgspec structs, dataclasses, `TypedDict`s, named tuples, dictionaries and lists of
   those are the JSON body.
7. `UploadFile`, and lists of those, are files of a form.
8. Any other class is a dependency.
"""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from flowcoro.app import Named
from flowcoro_http._agreement import are_alike, default_problem, path_problem
from flowcoro_http._annotations import (
    SCALARS,
    bare_type,
    describe_type,
    is_document,
    is_file,
    is_list,
    is_scalar,
    item_type,
    nested_field,
    schema_hook,
    without_none,
)
from flowcoro_http._forms import UploadFile
from flowcoro_http._markers import Body, Cookie, File, Form, Header, Marker, Path, Query
from flowcoro_http._request import Request, RequestHead
from flowcoro_http._route import Route
from flowcoro_http._routing import PathTemplate
from flowcoro_http._types import Handler
from flowcoro_http._websocket import WebSocket

__all__ = [
    "REQUIRED",
    "ParameterError",
    "Plan",
    "PlannedParameter",
    "Source",
    "check_signature",
    "make_plan",
    "read_signature",
]


class ParameterError(TypeError):
    """A handler's parameter cannot be planned; names handler, parameter and remedy."""


class Source(enum.StrEnum):
    """Where an argument comes from."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    COOKIE = "cookie"
    BODY = "body"
    FORM = "form"
    FILE = "file"
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
        whole: whether it takes a whole form.
        file: what is said of a file.
    """

    name: str
    source: Source
    alias: str
    annotation: Any
    default: Any = REQUIRED
    multiple: bool = False
    description: str = ""
    whole: bool = False
    file: File | None = None

    @property
    def location(self) -> str:
        """Where problems say it is: `query.limit`."""
        if self.source is Source.BODY or self.whole:
            return str(self.source)
        place = Source.FORM if self.source is Source.FILE else self.source
        return f"{place}.{self.alias}"

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


# What may ask for anything that a request has.
_ASKING = frozenset({Source.REQUEST, Source.DEPENDENCY})

_MARKED = {
    Path: Source.PATH,
    Query: Source.QUERY,
    Header: Source.HEADER,
    Cookie: Source.COOKIE,
    Body: Source.BODY,
    Form: Source.FORM,
    File: Source.FILE,
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
    _check_bodies(route, planned)
    if route.websocket and not any(p.source in _ASKING for p in planned):
        raise ParameterError(
            f"{route.label}: no parameter is the WebSocket, so that nobody could accept it; "
            "add one, such as websocket: WebSocket"
        )
    _check_names(route, template, signature, planned)
    return Plan(route.label, tuple(planned), signature.return_annotation)


def check_signature(route: Route, template: PathTemplate, signature: inspect.Signature) -> None:
    """Tell what is wrong with the parameters, whatever prefixes and dependencies there will be.

    Args:
        route: the route.
        template: its path, as far as it is known.
        signature: the handler's signature, evaluated.

    Raises:
        ParameterError: naming handler, parameter, and what is possible.
    """
    for parameter in signature.parameters.values():
        where = f"{route.label}: parameter {parameter.name!r}"
        if parameter.name in {"self", "cls"} and parameter.annotation is parameter.empty:
            raise ParameterError(f"{where} is of no instance; register an instance's method")
        annotation, marker, named = _unwrap(parameter.annotation, where)
        is_of_path = isinstance(marker, Path) or (marker is None and not named)
        alias = (marker.name if marker is not None else "") or parameter.name
        _check_agreement(parameter, annotation, alias if is_of_path else "", template, where)


def _check_agreement(
    parameter: inspect.Parameter, annotation: Any, alias: str, template: PathTemplate, where: str
) -> None:
    """See to it that the type fits the default, and what the path takes by that name."""
    problem = ""
    if parameter.default is not parameter.empty:
        problem = default_problem(annotation, parameter.default)
    for of_path in template.parameters:
        if not problem and of_path.name == alias and annotation is not parameter.empty:
            problem = path_problem(of_path, annotation)
    if problem:
        raise ParameterError(f"{where} {problem}")


def _check_names(
    route: Route,
    template: PathTemplate,
    signature: inspect.Signature,
    planned: Sequence[PlannedParameter],
) -> None:
    """Refuse a slip in a name, by which a part of the path would be asked for in the query.

    A parameter of the path that nobody takes is no mistake by itself: a prefix may have it,
    and middleware, dependencies and the request tell of it.
    """
    if any(p.source in _ASKING for p in planned):
        return
    taken = {p.alias for p in planned if p.source is Source.PATH}
    for parameter in planned:
        where = f"{route.label}: parameter {parameter.name!r}"
        _, marker, _ = _unwrap(signature.parameters[parameter.name].annotation, where)
        if parameter.source is not Source.QUERY or marker is not None:
            continue
        for name in template.names:
            alike = name not in taken and are_alike(name, parameter.name)
            if alike and parameter.default is REQUIRED:
                raise ParameterError(
                    f"{where} is none of path {template.raw!r}, and nothing takes {{{name}}} of "
                    f"it; name it {name!r}, or say with Annotated[..., Query()] that it is of the "
                    "query"
                )


def _check_bodies(route: Route, planned: Sequence[PlannedParameter]) -> None:
    """See to it that there is a body, and that it is read in one way."""
    bodies = [p for p in planned if p.source is Source.BODY or p.whole]
    forms = [p for p in planned if p.source in {Source.FORM, Source.FILE}]
    wanting = bodies + [p for p in forms if not p.whole]
    if len(bodies) > 1:
        names = " and ".join(repr(p.name) for p in bodies)
        raise ParameterError(
            f"{route.label}: parameters {names} both want the body; "
            "put them into one msgspec.Struct"
        )
    if forms and any(p.source is Source.BODY for p in bodies):
        raise ParameterError(
            f"{route.label}: parameter {bodies[0].name!r} is the body, and parameter "
            f"{forms[0].name!r} of a form; a body is one or the other: use Form() for both"
        )
    if wanting and (route.websocket or set(route.methods) <= {"GET", "HEAD"}):
        what = "a WebSocket handshake" if route.websocket else "/".join(route.methods)
        part = "the body" if bodies else "of a form"
        raise ParameterError(
            f"{route.label}: parameter {wanting[0].name!r} would be {part}, but {what} has none; "
            "use another method, Annotated[..., Query()], or provide it as a dependency"
        )


def _plan_parameter(
    parameter: inspect.Parameter,
    route: Route,
    template: PathTemplate,
    provides: Callable[[Any], bool],
) -> PlannedParameter:
    where = f"{route.label}: parameter {parameter.name!r}"
    annotation, marker, named = _unwrap(parameter.annotation, where)
    _check_agreement(parameter, annotation, "", template, where)
    default = REQUIRED if parameter.default is parameter.empty else parameter.default
    bare = bare_type(annotation)
    source = _classify(parameter.name, annotation, marker, named, template, provides)
    if source is Source.REQUEST:
        _check_request_kind(bare, route, where)
    if annotation is parameter.empty:
        if source is not Source.PATH:
            example = _USUAL.get(parameter.name, "str")
            raise ParameterError(
                f"{where} has no type; annotate it, for example {parameter.name}: {example}"
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
    if source is Source.PATH:
        _check_agreement(parameter, annotation, alias, template, where)
    whole = source is Source.FORM and is_document(bare) and not is_list(bare)
    if source in _TEXTS | {Source.FORM, Source.FILE}:
        annotation = without_none(annotation)
    _check_type(annotation, source, whole, where)
    return PlannedParameter(
        name=parameter.name,
        source=source,
        alias=alias,
        annotation=parameter.annotation if source is Source.DEPENDENCY else annotation,
        default=default,
        multiple=source in _SEVERAL and is_list(bare),
        description=marker.description if marker is not None else "",
        whole=whole,
        file=marker if isinstance(marker, File) else None,
    )


# What they are for who comes from other frameworks.
_USUAL = {
    "request": "Request",
    "req": "Request",
    "websocket": "WebSocket",
    "socket": "WebSocket",
    "ws": "WebSocket",
}
_SEVERAL = frozenset({Source.QUERY, Source.HEADER, Source.FORM, Source.FILE})
_TEXTS = frozenset({Source.PATH, Source.QUERY, Source.HEADER, Source.COOKIE})


def _check_type(annotation: Any, source: Source, whole: bool, where: str) -> None:
    if source is Source.BODY or whole:
        _check_decodable(annotation, where)
        if whole and (name := nested_field(annotation)):
            raise ParameterError(
                f"{where}: field {name!r} has fields of its own, which a form cannot have; "
                "expected scalars, files and lists of those"
            )
    elif source in _TEXTS or source is Source.FORM:
        _check_text_type(annotation, source, where)
    elif source is Source.FILE:
        bare = bare_type(annotation)
        item = bare_type(item_type(bare)) if is_list(bare) else bare
        if item not in {UploadFile, bytes}:
            raise ParameterError(
                f"{where}: {describe_type(annotation)} is no file; expected UploadFile, bytes, "
                "or a list of either"
            )


def _classify(
    name: str,
    annotation: Any,
    marker: Marker | None,
    named: bool,
    template: PathTemplate,
    provides: Callable[[Any], bool],
) -> Source | None:
    bare = bare_type(annotation)
    source: Source | None = None
    if isinstance(bare, type) and issubclass(bare, RequestHead):
        source = Source.REQUEST
    elif marker is not None:
        source = _MARKED[type(marker)]
    elif named:
        source = Source.DEPENDENCY
    elif name in template.names:
        source = Source.PATH
    elif isinstance(bare, type) and bare not in SCALARS and provides(bare):
        source = Source.DEPENDENCY
    elif is_scalar(bare) or (is_list(bare) and is_scalar(item_type(bare))):
        source = Source.QUERY
    elif is_document(bare):
        source = Source.FILE if is_file(bare) else Source.BODY
    elif is_file(bare):
        source = Source.FILE
    elif isinstance(bare, type) and bare not in {object, bytes, bytearray, type(None)}:
        source = Source.DEPENDENCY
    return source


def _check_request_kind(bare: Any, route: Route, where: str) -> None:
    wrong = Request if route.websocket else WebSocket
    if issubclass(bare, wrong):
        right = "WebSocket" if route.websocket else "Request"
        raise ParameterError(f"{where}: this route gives a {right}, not a {bare.__name__}")


def _unwrap(annotation: Any, where: str) -> tuple[Any, Marker | None, bool]:
    """Take our markers out of `Annotated`, leaving what msgspec reads."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, None, False
    base, *metadata = typing.get_args(annotation)
    markers = [m() if isinstance(m, type) and m in _MARKED else m for m in metadata]
    ours = [m for m in markers if isinstance(m, Marker)]
    if len(ours) > 1:
        raise ParameterError(f"{where} has two markers; keep one of {ours}")
    named = any(isinstance(m, Named) for m in markers)
    rest = [m for m in markers if isinstance(m, msgspec.Meta)]
    kept: Any = Annotated[(base, *rest)] if rest else base
    return kept, (ours[0] if ours else None), named


def _check_text_type(annotation: Any, source: Source, where: str) -> None:
    bare = bare_type(annotation)
    several = source in _SEVERAL and is_list(bare) and is_scalar(item_type(bare))
    if several or is_scalar(bare):
        try:
            msgspec.json.Decoder(annotation)  # such as a least length of an int
        except TypeError as error:
            raise ParameterError(f"{where} has no such limits: {error}") from error
        return
    lists = " or a list of those" if source in _SEVERAL else ""
    if source is Source.FORM:
        lists += "; or a struct, a dataclass or a TypedDict for the whole form"
    raise ParameterError(
        f"{where}: {describe_type(annotation)} cannot be read from the {source}; expected int, "
        f"float, bool, str, UUID, a date or time, Decimal, an enum or a Literal{lists}"
    )


def _check_decodable(annotation: Any, where: str) -> None:
    if bare_type(annotation) in {bytes, str}:
        return
    try:
        # The schema, since a decoder accepts any class and fails when it is used.
        msgspec.json.schema(annotation, schema_hook=schema_hook)
    except (TypeError, NameError) as error:
        raise ParameterError(f"{where} cannot be decoded from JSON: {error}") from error
