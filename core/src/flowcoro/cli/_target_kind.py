"""What `flowcoro run` can run beside an `App`, as plugins describe it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcoro.app import App

__all__ = ["TargetKind"]


@dataclass(frozen=True, slots=True)
class TargetKind:
    """A kind of thing that `flowcoro run` makes an application of (`flowcoro_targets`).

    Attributes:
        name: unique among kinds.
        summary: what it is, with its article, for messages: "an ASGI application".
        matches: tells whether a thing is of this kind. It is asked about whatever stands
            in somebody's module, so it looks, calls nothing of it and raises nothing.
        create: makes an application of it; what it raises as a `FlowcoroError` is shown
            to the user as it is.
    """

    name: str
    summary: str
    matches: Callable[[object], bool]
    create: Callable[[Any], App]
