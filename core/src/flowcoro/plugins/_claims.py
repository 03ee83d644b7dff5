"""Names that plugins claim, each by one plugin only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from flowcoro.errors import DuplicateClaimError, PluginError
from flowcoro.plugins._record import PluginRecord

__all__ = ["Claims"]

T = TypeVar("T")


class Claims(Mapping[str, T], Generic[T]):
    """What plugins contributed to one hook, by name.

    Iterating yields the names that exactly one plugin claims. A name that two claim is
    nobody's: asking for it raises an error that names both distributions.
    """

    def __init__(self, what: str, found: Iterable[tuple[str, T, PluginRecord]]) -> None:
        """Sort contributions into claims.

        Args:
            what: what a name stands for, for messages ("command", "component").
            found: name, value and claimant, in order.
        """
        self._what = what
        self._values: dict[str, T] = {}
        self._owners: dict[str, PluginRecord] = {}
        self._contested: dict[str, list[PluginRecord]] = {}
        for name, value, owner in found:
            if name in self._contested:
                self._contested[name].append(owner)
            elif name in self._values:
                del self._values[name]
                self._contested[name] = [self._owners.pop(name), owner]
            else:
                self._values[name] = value
                self._owners[name] = owner

    @property
    def contested(self) -> Mapping[str, tuple[PluginRecord, ...]]:
        """The names that more than one plugin claims, with the claimants."""
        return {name: tuple(owners) for name, owners in self._contested.items()}

    def owner(self, name: str) -> PluginRecord:
        """Return the plugin that claims `name`.

        Raises:
            DuplicateClaimError: several plugins claim it.
            PluginError: none does.
        """
        self._check(name)
        return self._owners[name]

    def conflict(self, name: str) -> str:
        """Describe who contests `name`."""
        owners = " and ".join(record.label for record in self._contested[name])
        return (
            f"{self._what} {name!r} is claimed by {owners}; "
            "block one of them (FLOWCORO_BLOCK_PLUGINS) or rename it"
        )

    def __getitem__(self, name: str) -> T:
        self._check(name)
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _check(self, name: str) -> None:
        if name in self._contested:
            raise DuplicateClaimError(self.conflict(name))
        if name not in self._values:
            near = difflib.get_close_matches(name, self._values, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(sorted(self._values)) or "none"
            raise PluginError(f"no plugin provides {self._what} {name!r}{hint} (known: {known})")
