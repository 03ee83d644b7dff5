"""The OpenAPI 3.1 document of a router's routes."""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from flowcoro_http._annotations import bare_type, holds_files, item_type, schema_hook
from flowcoro_http._form_reader import MULTIPART, URL_ENCODED
from flowcoro_http._forms import UploadFile
from flowcoro_http._parameters import REQUIRED, Plan, PlannedParameter, Source
from flowcoro_http._problem import PROBLEM_TYPE, phrase
from flowcoro_http._response import Response
from flowcoro_http._route import Route
from flowcoro_http._routing import WEBSOCKET, PathTemplate

__all__ = ["build_openapi"]

_REFERENCE = "#/components/schemas/{name}"
_PROBLEM_NAME = "Problem"
_PROBLEM_SCHEMA: Mapping[str, Any] = {
    "title": _PROBLEM_NAME,
    "description": "Problem details (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "description": "What is wrong with each parameter.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "location": {"type": "string"},
                    "message": {"type": "string"},
                    "expected": {"type": "string"},
                },
                "required": ["location", "message"],
            },
        },
    },
    "required": ["type", "title", "status"],
}


def build_openapi(
    routes: Iterable[tuple[Route, Plan]], *, title: str, version: str, description: str = ""
) -> dict[str, Any]:
    """Describe routes.

    Args:
        routes: each route, its path the full template, with its plan.
        title: of the document.
        version: of the API.
        description: of the API.

    Returns:
        The document, ready to be encoded as JSON.
    """
    listed = [(r, p) for r, p in routes if r.in_schema and not r.websocket]
    schemas = _Schemas(plan for _, plan in listed)
    identifiers: set[str] = set()
    paths: dict[str, dict[str, Any]] = {}
    for route, plan in listed:
        template = PathTemplate.parse(route.path)
        item = paths.setdefault(template.plain, {})
        for method in route.methods:
            if method in {WEBSOCKET, "CONNECT"} or method.lower() in item:
                continue
            item[method.lower()] = _operation(route, plan, template, method, schemas, identifiers)
    info = {"title": title, "version": version}
    if description:
        info["description"] = description
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": {path: item for path, item in paths.items() if item},
        "components": {"schemas": {**schemas.components, _PROBLEM_NAME: dict(_PROBLEM_SCHEMA)}},
    }


class _Schemas:
    """The schemas of every type that the plans mention, with shared components."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        types = []
        for plan in plans:
            types += [p.annotation for p in plan.parameters if _has_schema(p)]
            types.append(plan.returns)
        known = [t for t in types if _can_describe(t)]
        found, self.components = msgspec.json.schema_components(
            known, ref_template=_REFERENCE, schema_hook=schema_hook
        )
        self._types = list(zip(known, found, strict=True))

    def of(self, annotation: Any) -> dict[str, Any]:
        """Return the schema of a type; an empty one when it has none."""
        for known, schema in self._types:
            if known is annotation or known == annotation:
                return dict(schema)
        return {}


def _has_schema(parameter: PlannedParameter) -> bool:
    return parameter.source not in {Source.REQUEST, Source.DEPENDENCY}


def _can_describe(annotation: Any) -> bool:
    if annotation in {inspect.Signature.empty, None, Any}:
        return False
    try:
        msgspec.json.schema(annotation, schema_hook=schema_hook)
    except (TypeError, NameError):
        return False
    return True


def _operation(
    route: Route,
    plan: Plan,
    template: PathTemplate,
    method: str,
    schemas: _Schemas,
    identifiers: set[str],
) -> dict[str, Any]:
    summary, description = route.documentation()
    operation: dict[str, Any] = {"operationId": _identifier(route, method, identifiers)}
    if summary:
        operation["summary"] = summary
    if description:
        operation["description"] = description
    if route.tags:
        operation["tags"] = list(route.tags)
    if route.deprecated:
        operation["deprecated"] = True
    parameters = _path_parameters(plan, template, schemas)
    parameters += [
        _parameter(p, schemas) for p in plan.of(Source.QUERY, Source.HEADER, Source.COOKIE)
    ]
    if parameters:
        operation["parameters"] = parameters
    for body in plan.of(Source.BODY):
        operation["requestBody"] = _request_body(body, schemas)
    forms = plan.of(Source.FORM, Source.FILE)
    if forms:
        operation["requestBody"] = _form_body(forms, schemas)
    operation["responses"] = _responses(route, plan, schemas)
    return operation


def _identifier(route: Route, method: str, taken: set[str]) -> str:
    name = getattr(route.handler, "__name__", "") or type(route.handler).__name__
    base = re.sub(r"\W+", "_", name).strip("_") or "operation"
    candidates = [base, f"{base}_{method.lower()}"]
    candidates.append(re.sub(r"\W+", "_", f"{candidates[-1]}_{route.path}").strip("_"))
    found = next((c for c in candidates if c not in taken), None)
    if found is None:
        count = 2
        while f"{candidates[-1]}_{count}" in taken:
            count += 1
        found = f"{candidates[-1]}_{count}"
    taken.add(found)
    return found


def _path_parameters(plan: Plan, template: PathTemplate, schemas: _Schemas) -> list[dict[str, Any]]:
    """Describe every parameter of the template, whether the handler asks for it or not."""
    planned = {p.alias: p for p in plan.of(Source.PATH)}
    found = []
    for parameter in template.parameters:
        if parameter.name in planned:
            described = _parameter(planned[parameter.name], schemas)
        else:
            schema = msgspec.json.schema(parameter.converter.type)
            described = {"name": parameter.name, "in": "path", "required": True, "schema": schema}
        if parameter.converter.name == "path":
            # OpenAPI has no word for a parameter that may have slashes.
            described["x-flowcoro-slashes"] = True
        found.append(described)
    return found


def _parameter(parameter: PlannedParameter, schemas: _Schemas) -> dict[str, Any]:
    required = parameter.default is REQUIRED and not parameter.multiple
    found: dict[str, Any] = {
        "name": parameter.alias,
        "in": str(parameter.source),
        "required": required or parameter.source is Source.PATH or parameter.default is REQUIRED,
        "schema": _schema(parameter, schemas.of(parameter.annotation)),
    }
    if parameter.description:
        found["description"] = parameter.description
    return found


# Where msgspec says no more than that it is a text.
_FORMATS: Mapping[Any, Mapping[str, str]] = {
    dt.datetime: {"format": "date-time"},
    dt.time: {"format": "time"},
    decimal.Decimal: {"pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
}


def _schema(parameter: PlannedParameter, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema with its default; a list that has to be there has items."""
    bare = bare_type(parameter.annotation)
    if parameter.multiple:
        more = _FORMATS.get(bare_type(item_type(bare)), {})
        schema = {**schema, "items": {**schema.get("items", {}), **more}} if more else schema
    else:
        schema = {**schema, **_FORMATS.get(bare, {})}
    if parameter.multiple and parameter.default is REQUIRED:
        schema = {**schema, "minItems": max(schema.get("minItems", 1), 1)}
    return _with_default(parameter, schema)


def _with_default(parameter: PlannedParameter, schema: dict[str, Any]) -> dict[str, Any]:
    if parameter.default in (REQUIRED, None):
        return schema
    try:
        default = msgspec.to_builtins(parameter.default)
    except TypeError:
        return schema
    return {**schema, "default": default}


def _request_body(parameter: PlannedParameter, schemas: _Schemas) -> dict[str, Any]:
    if parameter.annotation is bytes:
        content: dict[str, Any] = {"application/octet-stream": {"schema": {}}}
    elif parameter.annotation is str:
        content = {"text/plain": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": schemas.of(parameter.annotation)}}
    # Bytes and text may be empty, which is a body that is not there.
    needed = parameter.default is REQUIRED and parameter.annotation not in {bytes, str}
    found: dict[str, Any] = {"required": needed, "content": content}
    if parameter.description:
        found["description"] = parameter.description
    return found


def _form_body(parameters: list[PlannedParameter], schemas: _Schemas) -> dict[str, Any]:
    """Describe a form: the fields of the one that takes the whole, and the single ones."""
    properties: dict[str, Any] = {}
    for parameter in parameters:
        if not parameter.whole:
            schema = _file_schema(parameter) or schemas.of(parameter.annotation)
            schema = _schema(parameter, schema)
            if parameter.description:
                schema = {**schema, "description": parameter.description}
            properties[parameter.alias] = schema
    required = [p.alias for p in parameters if not p.whole and p.default is REQUIRED]
    found: list[dict[str, Any]] = [schemas.of(p.annotation) for p in parameters if p.whole]
    if properties:
        single: dict[str, Any] = {"type": "object", "properties": properties}
        found.append({**single, "required": required} if required else single)
    schema = found[0] if len(found) == 1 else {"allOf": found}
    has_files = any(p.source is Source.FILE or holds_files(p.annotation) for p in parameters)
    media = [MULTIPART] if has_files else [URL_ENCODED, MULTIPART]
    needed = any(p.default is REQUIRED for p in parameters)
    described: dict[str, Any] = {"schema": schema}
    encoding = {
        p.alias: {"contentType": ", ".join(p.file.content_types)}
        for p in parameters
        if p.file is not None and p.file.content_types
    }
    if encoding:
        described["encoding"] = encoding
    return {"required": needed, "content": dict.fromkeys(media, described)}


def _file_schema(parameter: PlannedParameter) -> dict[str, Any]:
    """Return the schema of a file or a list of files; empty for what is no file."""
    if parameter.source is not Source.FILE:
        return {}
    file = schema_hook(UploadFile)
    return {"type": "array", "items": file} if parameter.multiple else file


def _responses(route: Route, plan: Plan, schemas: _Schemas) -> dict[str, Any]:
    returns = plan.returns
    status = 204 if returns is None and route.status == 200 else route.status
    success: dict[str, Any] = {"description": phrase(status)}
    content = _success_content(returns, schemas)
    if content is not None and status not in {204, 304}:
        success["content"] = content
    problem = {PROBLEM_TYPE: {"schema": {"$ref": _REFERENCE.format(name=_PROBLEM_NAME)}}}
    responses = {str(status): success}
    if any(p.source not in {Source.REQUEST, Source.DEPENDENCY} for p in plan.parameters):
        responses["422"] = {"description": phrase(422), "content": problem}
    responses["default"] = {"description": "A problem", "content": problem}
    return responses


def _success_content(returns: Any, schemas: _Schemas) -> dict[str, Any] | None:
    bare = (
        typing.get_args(returns)[0] if typing.get_origin(returns) is typing.Annotated else returns
    )
    if bare in {None, inspect.Signature.empty}:
        return None
    if isinstance(bare, type) and issubclass(bare, Response):
        return None
    if bare is str:
        return {"text/plain": {"schema": {"type": "string"}}}
    if bare is bytes:
        return {"application/octet-stream": {"schema": {}}}
    return {"application/json": {"schema": schemas.of(returns)}}
