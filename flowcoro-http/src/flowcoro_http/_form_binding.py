"""From a form to arguments: single fields, files, and the whole as one value."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect as shapes

from flowcoro_http._annotations import bare_type, is_list, item_type, shape_of, single_shape
from flowcoro_http._conversion import BadParameter, converter, missing
from flowcoro_http._forms import FormData, UploadFile
from flowcoro_http._markers import File
from flowcoro_http._parameters import REQUIRED, PlannedParameter, Source
from flowcoro_http._problem import FieldError, HttpError
from flowcoro_http._request import Request

__all__ = ["FormBinder"]

_Reader: TypeAlias = Callable[[FormData], Awaitable[Any]]

_SEVERAL = (
    shapes.ListType,
    shapes.SetType,
    shapes.FrozenSetType,
    shapes.TupleType,
    shapes.VarTupleType,
)
# Of these an empty text may be a value; of others it is what a browser sends for none.
_TEXT = (
    shapes.AnyType,
    shapes.BytesType,
    shapes.CustomType,
    shapes.EnumType,
    shapes.LiteralType,
    shapes.StrType,
    *_SEVERAL,
)
_MISSING = re.compile(r"Object missing required field `(.*)`")


class FormBinder:
    """Makes those of a handler's arguments that come from a form.

    Args:
        parameters: the parameters, all of them from a form.
    """

    def __init__(self, parameters: Sequence[PlannedParameter]) -> None:
        taken = {p.alias for p in parameters if not p.whole}
        self._readers = [(p.name, _reader(p, taken)) for p in parameters]
        self._optional = all(p.default is not REQUIRED for p in parameters)

    async def bind(
        self, request: Request, arguments: dict[str, Any], errors: list[FieldError]
    ) -> None:
        """Add arguments, and what is wrong with those that cannot be made.

        Raises:
            HttpError: 415 or 413 for a form, or a file of it, that is not taken; 400 for
                one that cannot be read; 408.
        """
        nothing = self._optional and "content-type" not in request.headers
        form = FormData() if nothing else await request.form()
        for name, read in self._readers:
            try:
                arguments[name] = await read(form)
            except BadParameter as bad:
                errors.append(bad.error)


def _reader(parameter: PlannedParameter, taken: Collection[str]) -> _Reader:
    if parameter.whole:
        return _whole(parameter, taken)
    return _file(parameter) if parameter.source is Source.FILE else _field(parameter)


def _field(parameter: PlannedParameter) -> _Reader:
    convert = converter(parameter)
    is_text = _takes_empty(parameter.annotation)

    async def read(form: FormData) -> Any:
        found = form.fields.get_all(parameter.alias)
        if not found or (found[0] == "" and not is_text):
            if parameter.default is REQUIRED:
                raise missing(parameter)
            return parameter.default
        return convert(found if parameter.multiple else found[0])

    return read


def _file(parameter: PlannedParameter) -> _Reader:
    rules = parameter.file or File()
    bare = bare_type(parameter.annotation)
    as_bytes = bare_type(item_type(bare) if is_list(bare) else bare) is bytes
    make: Callable[[Iterable[Any]], Any] = list
    for kind in (tuple, set, frozenset):
        if bare is kind or getattr(bare, "__origin__", None) is kind:
            make = kind

    async def read(form: FormData) -> Any:
        files = form.files.get(parameter.alias, ())
        if not files:
            if parameter.alias in form.fields:
                error = FieldError(parameter.location, "a text, not a file", parameter.expected)
                raise BadParameter(error)
            if parameter.default is REQUIRED:
                raise missing(parameter)
            return parameter.default
        taken = files if parameter.multiple else files[:1]
        for file in taken:
            _check_file(file, rules, parameter.location)
        found = [await file.read() for file in taken] if as_bytes else taken
        return make(found) if parameter.multiple else found[0]

    return read


def _check_file(file: UploadFile, rules: File, location: str) -> None:
    if rules.max_bytes and file.size > rules.max_bytes:
        raise HttpError(
            413,
            f"{location}: the file is larger than {rules.max_bytes} bytes",
            extensions={"max_bytes": rules.max_bytes},
        )
    media = file.content_type.partition(";")[0].strip().lower()
    group = media.partition("/")[0]
    taken = {each.lower() for each in rules.content_types}
    if taken and not {media, f"{group}/*", "*/*"} & taken:
        raise HttpError(415, f"{location}: expected a file of {', '.join(rules.content_types)}")


def _whole(parameter: PlannedParameter, taken: Collection[str]) -> _Reader:
    annotation = parameter.annotation
    fields: Sequence[Any] = getattr(shape_of(annotation), "fields", ())
    several = {f.encode_name for f in fields if isinstance(single_shape(f.type), _SEVERAL)}
    no_text = {f.encode_name for f in fields if not _is_text(f.type)}
    # An empty list leaves no trace in a form.
    lists = {f.encode_name for f in fields if f.encode_name in several and f.required}

    async def read(form: FormData) -> Any:
        if parameter.default is not REQUIRED and not form.fields and not form.files:
            return parameter.default
        values: dict[str, Any] = {name: [] for name in lists}
        for name in form.fields:
            found = form.fields.get_all(name)
            if name not in taken and not (name in no_text and found[0] == ""):
                values[name] = found if name in several else found[0]
        for name, files in form.files.items():
            if name not in taken:
                values[name] = list(files) if name in several else files[0]
        try:
            return msgspec.convert(values, annotation, strict=False, dec_hook=_take_file)
        except msgspec.ValidationError as error:
            raise BadParameter(_explain(str(error))) from None

    return read


def _take_file(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    raise ValueError(f"Expected a file, got `{type(value).__name__}`")


def _explain(text: str) -> FieldError:
    message, _, place = text.partition(" - at `")
    path = place.removesuffix("`").removeprefix("$")
    found = _MISSING.fullmatch(message)
    if found is not None and not path:
        return FieldError(f"form.{found[1]}", "missing")
    return FieldError(f"form{path}", message)


def _is_text(shape: Any) -> bool:
    shape = single_shape(shape)
    if isinstance(shape, shapes.UnionType):
        return any(_is_text(option) for option in shape.types)
    return isinstance(shape, _TEXT)


def _takes_empty(annotation: Any) -> bool:
    return _is_text(shape_of(annotation))
