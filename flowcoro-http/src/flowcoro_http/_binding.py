"""From a request to a handler's arguments, by the plan.

Every bad parameter is found before the client is told, so one round trip tells it all.
Within a JSON body msgspec stops at the first mistake, and so do we.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from flowcoro.app import Dependencies, Resolver
from flowcoro_http._conversion import BadParameter, converter, missing
from flowcoro_http._form_binding import FormBinder
from flowcoro_http._parameters import REQUIRED, Plan, PlannedParameter, Source
from flowcoro_http._problem import FieldError, HttpError, bad_parameters
from flowcoro_http._request import Request, RequestHead, decode_json

if TYPE_CHECKING:
    from flowcoro.app import Scope

__all__ = ["Binder"]

_Reader = Callable[[RequestHead], Any]


class Binder:
    """Follows one handler's plan.

    Args:
        plan: the plan.
        dependencies: what dependencies resolve to.
        seeds: types that each request supplies itself.

    Attributes:
        needs_scope: whether some dependency is made anew for each request.

    Raises:
        DependencyError: nothing, or too much, provides what a parameter asks for.
    """

    def __init__(self, plan: Plan, dependencies: Dependencies, seeds: tuple[type, ...]) -> None:
        self.plan = plan
        self._readers: list[tuple[str, _Reader]] = []
        self._resolvers: list[tuple[str, Resolver]] = []
        self._instances: dict[str, Any] = {}
        self._body: PlannedParameter | None = None
        forms = plan.of(Source.FORM, Source.FILE)
        self._form = FormBinder(forms) if forms else None
        for parameter in plan.parameters:
            if parameter in forms:
                continue
            if parameter.source is Source.BODY:
                self._body = parameter
            elif parameter.source is Source.REQUEST:
                self._readers.append((parameter.name, _itself))
            elif parameter.source is Source.DEPENDENCY:
                self._add_dependency(parameter, dependencies, seeds)
            else:
                self._readers.append((parameter.name, _reader(parameter)))
        self._decode = _body_decoder(self._body) if self._body is not None else None
        self.needs_scope = bool(self._resolvers)

    @property
    def constants(self) -> Mapping[str, Any]:
        """The arguments that are the same for every request."""
        return self._instances

    def instances(self) -> Iterator[object]:
        """Yield every application-wide instance that the handler depends on."""
        yield from self._instances.values()
        for _, resolver in self._resolvers:
            yield from resolver.components()

    async def bind(self, request: RequestHead, scope: Scope | None) -> dict[str, Any]:
        """Make the arguments.

        Args:
            request: the request or the WebSocket.
            scope: makes and keeps per-request dependencies; needed if `needs_scope`.

        Raises:
            HttpError: 422 or 400 with every bad parameter in `errors`; 413, 415 or 408
                for a body that cannot be taken.
        """
        arguments = dict(self._instances)
        errors: list[FieldError] = []
        for name, read in self._readers:
            try:
                arguments[name] = read(request)
            except BadParameter as bad:
                errors.append(bad.error)
        if self._body is not None:
            arguments[self._body.name] = await self._read_body(request, errors)
        if self._form is not None and isinstance(request, Request):
            await self._form.bind(request, arguments, errors)
        if errors:
            raise bad_parameters(errors)
        if scope is not None:
            for name, resolver in self._resolvers:
                arguments[name] = await scope.get(resolver)
        return arguments

    def _add_dependency(
        self, parameter: PlannedParameter, dependencies: Dependencies, seeds: tuple[type, ...]
    ) -> None:
        if parameter.default is not REQUIRED and not dependencies.can_resolve(parameter.annotation):
            self._instances[parameter.name] = parameter.default
            return
        needed_by = f"{self.plan.label}: parameter {parameter.name!r}"
        resolver = dependencies.resolver(parameter.annotation, needed_by=needed_by, seeds=seeds)
        if resolver.instance is not None:
            self._instances[parameter.name] = resolver.instance
        else:
            self._resolvers.append((parameter.name, resolver))

    async def _read_body(self, request: RequestHead, errors: list[FieldError]) -> Any:
        parameter, decode = self._body, self._decode
        if parameter is None or decode is None or not isinstance(request, Request):
            raise TypeError("only requests have bodies")  # pragma: no cover - plans see to it
        content = await request.body()
        if not content and parameter.default is not REQUIRED:
            return parameter.default
        try:
            return decode(request, content)
        except HttpError as error:
            # Merged with what is wrong elsewhere, unless the body cannot be taken at all.
            found = error.problem.extensions.get("errors")
            if found is None or not errors:
                raise
            raise bad_parameters(
                [*errors, *(FieldError(**item) for item in found)], status=error.status
            ) from None


def _itself(request: RequestHead) -> RequestHead:
    return request


def _reader(parameter: PlannedParameter) -> _Reader:
    """Make the function that reads one path, query, header or cookie parameter."""
    convert = converter(parameter)
    alias, default, multiple = parameter.alias, parameter.default, parameter.multiple

    def values(request: RequestHead) -> list[str]:
        if parameter.source is Source.HEADER:
            return request.headers.get_all(alias)
        return request.query.get_all(alias)

    def value(request: RequestHead) -> str | None:
        if parameter.source is Source.PATH:
            return request.routing.raw_params.get(alias)
        if parameter.source is Source.QUERY:
            return request.query.get(alias)
        if parameter.source is Source.HEADER:
            return request.headers.get(alias)
        return request.cookies.get(alias)

    get: Callable[[RequestHead], Any] = values if multiple else value

    def read(request: RequestHead) -> Any:
        found = get(request)
        if found is None or found == []:
            if default is not REQUIRED:
                return default
            raise missing(parameter)
        return convert(found)

    return read


def _body_decoder(parameter: PlannedParameter) -> Callable[[Request, bytes], Any]:
    annotation = parameter.annotation
    if annotation is bytes:
        return lambda request, content: content
    if annotation is str:
        return _decode_text
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(annotation)

    def decode(request: Request, content: bytes) -> Any:
        media = request.headers.get("content-type", "application/json")
        media = media.partition(";")[0].strip().lower()
        if media != "application/json" and not media.endswith("+json"):
            raise HttpError(
                415,
                "expected a body of application/json",
                headers={"accept": "application/json"},
            )
        if not content:
            raise bad_parameters([FieldError("body", "missing", "JSON")])
        return decode_json(content, decoder)

    return decode


def _decode_text(request: Request, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        error = FieldError("body", "not UTF-8", "UTF-8 text")
        raise bad_parameters([error], status=400) from None
