"""Questions about annotations: scalar or list, document or not, and how to name a type."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import msgspec.inspect

from flowcoro_http._forms import UploadFile

__all__ = [
    "SCALARS",
    "UNIONS",
    "bare_type",
    "describe_type",
    "holds_files",
    "is_document",
    "is_file",
    "is_list",
    "is_scalar",
    "item_type",
    "nested_field",
    "schema_hook",
    "shape_of",
    "single_shape",
    "without_none",
]

SCALARS = (
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
# What JSON can have within JSON, and a form cannot have within a form.
_NESTED = (
    msgspec.inspect.CollectionType,
    msgspec.inspect.DataclassType,
    msgspec.inspect.DictType,
    msgspec.inspect.NamedTupleType,
    msgspec.inspect.StructType,
    msgspec.inspect.TypedDictType,
)
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence)
UNIONS = (typing.Union, types.UnionType)


def bare_type(annotation: Any) -> Any:
    """Strip `Annotated` and `NewType` and look through an `Optional`."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif typing.get_origin(annotation) in UNIONS:
            options = [a for a in typing.get_args(annotation) if a is not type(None)]
            if len(options) != 1:
                return annotation
            annotation = options[0]
        else:
            return annotation


def without_none(annotation: Any) -> Any:
    """Strip None from an `Optional`: what comes as text is there or is not, and never None."""
    if typing.get_origin(annotation) is Annotated:
        base, *metadata = typing.get_args(annotation)
        return Annotated[(without_none(base), *metadata)]
    if typing.get_origin(annotation) in UNIONS:
        options = [a for a in typing.get_args(annotation) if a is not type(None)]
        return typing.Union[tuple(options)] if options else annotation  # noqa: UP007
    return annotation


def is_scalar(annotation: Any) -> bool:
    """Tell whether one text can be read as it."""
    bare = bare_type(annotation)
    if typing.get_origin(bare) is typing.Literal:
        return True
    if typing.get_origin(bare) in UNIONS:
        return all(is_scalar(a) for a in typing.get_args(bare) if a is not type(None))
    return isinstance(bare, type) and (bare in SCALARS or issubclass(bare, enum.Enum))


def is_list(annotation: Any) -> bool:
    """Tell whether it is a list, a tuple or a set of something; `Optional` not looked through."""
    return annotation in _LISTS or typing.get_origin(annotation) in _LISTS


def item_type(annotation: Any) -> Any:
    """Return what a list is of; `str` if it does not say."""
    arguments = [a for a in typing.get_args(annotation) if a is not Ellipsis]
    return arguments[0] if arguments else str


def is_document(annotation: Any) -> bool:
    """Tell whether it has parts, as JSON has."""
    bare = bare_type(annotation)
    origin = typing.get_origin(bare) or bare
    if origin in UNIONS:
        return any(is_document(a) for a in typing.get_args(bare))
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


def is_file(annotation: Any) -> bool:
    """Tell whether it is an uploaded file, or a list of those."""
    bare = bare_type(annotation)
    return bare is UploadFile or (is_list(bare) and bare_type(item_type(bare)) is UploadFile)


def shape_of(annotation: Any) -> Any:
    """Return what msgspec sees in a type, looking through metadata and an `Optional`."""
    return single_shape(msgspec.inspect.type_info(annotation))


def single_shape(shape: Any) -> Any:
    """Look through metadata, and through a union with None."""
    while True:
        if isinstance(shape, msgspec.inspect.Metadata):
            shape = shape.type
            continue
        if not isinstance(shape, msgspec.inspect.UnionType):
            return shape
        options = [t for t in shape.types if not isinstance(t, msgspec.inspect.NoneType)]
        if len(options) != 1:
            return shape
        shape = options[0]


def nested_field(annotation: Any) -> str:
    """Return the name of a field that has parts of its own, as no form has; empty for none."""
    shape = shape_of(annotation)
    fields = {field.encode_name: field.type for field in getattr(shape, "fields", ())}
    if isinstance(shape, msgspec.inspect.DictType):
        fields[""] = shape.value_type
    for name, kind in fields.items():
        found = single_shape(kind)
        item = single_shape(getattr(found, "item_type", found))
        if isinstance(item, _NESTED):
            return name or "of any name"
    return ""


def holds_files(annotation: Any) -> bool:
    """Tell whether some fields of a struct, a dataclass or a `TypedDict` are uploaded files."""
    shapes = [single_shape(f.type) for f in getattr(shape_of(annotation), "fields", ())]
    items = [single_shape(getattr(shape, "item_type", shape)) for shape in shapes]
    return any(getattr(item, "cls", None) is UploadFile for item in items)


def schema_hook(annotation: Any) -> dict[str, Any]:
    """Tell msgspec the schema of what it does not know: an uploaded file.

    Raises:
        NotImplementedError: it is another class.
    """
    if annotation is UploadFile:
        return {"type": "string", "format": "binary"}
    raise NotImplementedError


def describe_type(annotation: Any) -> str:
    """Name a type for the reader of a problem document: `int`, `bool (true or false)`."""
    bare = bare_type(annotation)
    origin = typing.get_origin(bare)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(bare)))}"
    if origin in UNIONS:
        return " or ".join(describe_type(a) for a in typing.get_args(bare) if a is not type(None))
    if is_list(bare):
        return f"list of {describe_type(item_type(bare))}"
    if isinstance(bare, type) and issubclass(bare, enum.Enum):
        return f"one of {', '.join(repr(member.value) for member in bare)}"
    notes: dict[Any, str] = {
        UploadFile: "file",
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
    if typing.get_origin(annotation) in UNIONS:  # of an optional one, its own
        metas = [m for a in typing.get_args(annotation) for m in getattr(a, "__metadata__", ())]
    found = [
        f" {words} {getattr(meta, attribute)}"
        for meta in metas
        for attribute, words in _LIMITS.items()
        if getattr(meta, attribute, None) is not None
    ]
    return ",".join(found)
