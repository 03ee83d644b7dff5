"""What an application runs: `Component`, its health, and how plugins offer both.

Only vocabulary lives here. Starting, supervising and stopping components is
`_lifecycle`'s work; finding a component for an annotation is `_dependencies`'.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from flowcoro.app._context import Context

__all__ = [
    "Component",
    "ComponentFactory",
    "Health",
    "HealthCheck",
    "HealthReport",
    "HealthStatus",
]


class HealthStatus(enum.StrEnum):
    """How well something does, in the words of draft-inadarei-api-health-check-06."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Health:
    """One answer to "are you well?".

    Attributes:
        status: `PASS`, `WARN` (works, but somebody should look) or `FAIL`.
        detail: one line for the operator; never a secret.
    """

    status: HealthStatus = HealthStatus.PASS
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The health of a whole application.

    Attributes:
        status: the worst status among `checks`; `PASS` when there are none.
        checks: one `Health` for each component and each plugin's check, by name.
    """

    status: HealthStatus
    checks: Mapping[str, Health]


class Component:
    """Something an application runs: a server, a pool, a broker.

    A component is an async context manager with a name. The application enters and
    leaves it in one task of its own, so a component may hold anyio task groups and
    cancel scopes across its life. Subclasses override what they need; each default
    does nothing.

    Attributes:
        name: unique in its application; the lower-cased class name unless set.
        requires: what must have started before this component: names of components,
            or types (every component of that type). Read after `attach`.
    """

    name: str = ""
    requires: Sequence[str | type] = ()

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Give each subclass a default name."""
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__.lower()

    def attach(self, context: Context) -> None:
        """Receive the application's context, before anything starts.

        Called once per start, synchronously, in the order the components were given.
        The place to read configuration and to compute `requires`.

        Args:
            context: configuration, plugins and dependencies of the application.
        """

    async def __aenter__(self) -> Self:
        """Start; return when ready to serve. An exception fails the application's start."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop and release everything. Cancelled when the drain deadline has passed."""

    async def drain(self) -> None:
        """Take no new work and return when the work in hand is finished.

        Called before `__aexit__`, while everything this component requires still runs.
        Cancelled at the application's drain deadline; `__aexit__` then cuts the rest.
        """

    async def health(self) -> Health:
        """Tell how well the component does, within the check's deadline (5 s)."""
        return Health()


@dataclass(frozen=True, slots=True)
class ComponentFactory:
    """A component that a plugin adds to every application (`flowcoro_components`).

    Attributes:
        name: unique among all components of the application.
        create: makes the component; does no I/O. Heavy imports belong in here.
        essential: when true, a failing start stops the application and rolls back what
            had started; when false, the failure is logged and the application goes on
            without this component.
    """

    name: str
    create: Callable[[], Component]
    essential: bool = True


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A health check that a plugin adds (`flowcoro_health_checks`).

    Attributes:
        name: unique among the application's checks and components.
        check: returns the health; an exception counts as `FAIL`.
        timeout: seconds until the check counts as `FAIL`.
    """

    name: str
    check: Callable[[], Awaitable[Health]]
    timeout: float = 5.0
