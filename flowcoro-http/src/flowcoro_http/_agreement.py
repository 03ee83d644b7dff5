"""Whether what a handler says of a parameter agrees with its path and with its own default.

Asked when a handler is registered, and again when it is bound, with its whole path.
"""

from __future__ import annotations

import collections.abc
import decimal
import enum
import typing
from collections.abc import Collection
from difflib import SequenceMatcher
from typing import Any

import msgspec

from flowcoro_http._annotations import (
    SCALARS,
    UNIONS,
    bare_type,
    describe_type,
    is_list,
    item_type,
)
from flowcoro_http._conversion import read_text
from flowcoro_http._markers import Marker
from flowcoro_http._routing import TemplateParameter

__all__ = ["are_alike", "default_problem", "path_problem"]

# Texts that a converter takes. `str` and `path` take any.
_SAMPLES = {
    "int": ("0", "1", "7", "-7", "1700000000"),
    "float": ("0.5", "-1.5", "0", "1"),
    "uuid": ("12345678-1234-4234-8234-123456789abc",),
}
# What a type's values may be replaced with.
_ALSO: dict[type, tuple[type, ...]] = {float: (int,), decimal.Decimal: (int,)}
_ALIKE = 0.8


def path_problem(parameter: TemplateParameter, annotation: Any) -> str:
    """Say why no text can be both what the path takes and what the handler takes.

    Args:
        parameter: the path's.
        annotation: the handler's, without our markers.

    Returns:
        What is wrong; empty when some text is both.
    """
    kind = parameter.converter.name
    samples = _SAMPLES.get(kind)
    if samples is None or any(_takes(annotation, text, parameter) for text in samples):
        return ""
    return (
        f"is {describe_type(bare_type(annotation))}, but {{{parameter.name}:{kind}}} of the path "
        f"takes none; expected {parameter.converter.type.__name__}, or another converter"
    )


def _takes(annotation: Any, text: str, parameter: TemplateParameter) -> bool:
    """Tell whether a type takes a text, or another that the path's parameter takes too."""
    bare = bare_type(annotation)
    if typing.get_origin(bare) in UNIONS:
        options = [a for a in typing.get_args(bare) if a is not type(None)]
        return any(_takes(option, text, parameter) for option in options)
    texts = [text]
    if typing.get_origin(bare) is typing.Literal:
        texts = [str(value) for value in typing.get_args(bare)]
    elif isinstance(bare, type) and issubclass(bare, enum.Enum):
        texts = [str(member.value) for member in bare]
    return any(_parses(parameter, each) and _reads(bare, each) for each in texts)


def _parses(parameter: TemplateParameter, text: str) -> bool:
    try:
        parameter.converter.parse(text)
    except ValueError:
        return False
    return True


def _reads(bare: Any, text: str) -> bool:
    try:
        read_text(bare)(text)
    except (msgspec.ValidationError, ValueError, OverflowError):
        return False
    except TypeError:  # a type that is no parameter's: told elsewhere
        return True
    return True


def default_problem(annotation: Any, default: Any) -> str:
    """Say what is wrong with a parameter's default.

    None is any parameter's, and what is no scalar, list or document is not looked at.

    Args:
        annotation: the parameter's type, without our markers.
        default: the default.

    Returns:
        What is wrong; empty when nothing is.
    """
    marker = default if isinstance(default, type) else type(default)
    if issubclass(marker, Marker):
        name = marker.__name__
        return f"has {name}() as default; it belongs into the type: Annotated[..., {name}()]"
    if _fits(annotation, default):
        return ""
    return f"is {describe_type(bare_type(annotation))}, which its default {default!r} is not"


def _fits(annotation: Any, default: Any) -> bool:
    bare = bare_type(annotation)
    origin = typing.get_origin(bare) or bare
    if default is None:
        return True
    if origin is typing.Literal:
        return default in typing.get_args(bare)
    if origin in UNIONS:
        return any(_fits(option, default) for option in typing.get_args(bare))
    if is_list(bare):
        several = isinstance(default, Collection) and not isinstance(default, str | bytes | dict)
        return several and all(_fits(item_type(bare), item) for item in default)
    if not isinstance(origin, type):
        return True
    if origin in SCALARS or issubclass(origin, enum.Enum):
        return isinstance(default, (origin, *_ALSO.get(origin, ())))
    if typing.is_typeddict(origin) or issubclass(origin, dict | collections.abc.Mapping):
        return isinstance(default, collections.abc.Mapping)
    return not issubclass(origin, msgspec.Struct) or isinstance(default, origin)


def are_alike(one: str, other: str) -> bool:
    """Tell whether one name looks like a slip in the other: `user_id`, `userid`, `id`."""
    first, second = sorted((one.lower(), other.lower()), key=len)
    if first.replace("_", "") == second.replace("_", ""):
        return True
    if second.endswith(f"_{first}"):
        return True
    return SequenceMatcher(None, first, second).ratio() > _ALIKE
