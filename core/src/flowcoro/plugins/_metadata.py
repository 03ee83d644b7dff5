"""What is installed, read from distribution metadata alone: no plugin is imported here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points, version

from flowcoro.hookspecs import PROJECT

__all__ = ["BLOCK_VARIABLE", "PluginInfo", "blocked_by_environment", "discover", "incompatibility"]

BLOCK_VARIABLE = "FLOWCORO_BLOCK_PLUGINS"

# Importing `packaging` costs a third of the command line's start-up, so the form in which
# nearly every plugin declares its range, such as `flowcoro[http]>=0.1,<0.2`, is read here.
# Any other form goes to `packaging`.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN = re.compile(r"flowcoro\s*(?:\[[^\]]*\])?\s*\(?([0-9.,<>=\s]*)\)?")
_EXTRA = re.compile(r";.*\bextra\s*==")
_BOUND = re.compile(r"(>=|<)\s*(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One entry point of group `flowcoro`.

    Attributes:
        name: the plugin's name, unique in an environment.
        target: `module` or `module:attribute` that holds the hook implementations.
        distribution: name of the distribution that installed it.
        version: that distribution's version.
        requires: the version range of `flowcoro` it declares, such as `>=0.1,<0.2`;
            empty when it declares none.
        summary: the distribution's one-line description.
    """

    name: str
    target: str
    distribution: str
    version: str
    requires: str = ""
    summary: str = ""

    @property
    def origin(self) -> str:
        """Distribution and version, as messages name them."""
        return f"{self.distribution} {self.version}".strip()


def discover(found: Iterable[EntryPoint] | None = None) -> list[PluginInfo]:
    """List the installed plugins, sorted by name, without importing any.

    Args:
        found: entry points to read instead of the environment's.
    """
    points = entry_points(group=PROJECT) if found is None else found
    infos = [_info(point) for point in points]
    return sorted(infos, key=lambda info: (info.name, info.distribution))


def blocked_by_environment(environ: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Return the names in `FLOWCORO_BLOCK_PLUGINS` (separated by commas)."""
    names = environ.get(BLOCK_VARIABLE, "").split(",")
    return frozenset(name.strip() for name in names if name.strip())


def incompatibility(info: PluginInfo) -> str | None:
    """Tell why the running flowcoro is outside the plugin's declared range, or None."""
    if not info.requires:
        return None
    ours = version("flowcoro")
    try:
        if _within(ours, info.requires):
            return None
    except ValueError:
        return f"declares a range of flowcoro that cannot be read: {info.requires!r}"
    return f"requires flowcoro{info.requires}, but flowcoro {ours} is installed"


def _info(point: EntryPoint) -> PluginInfo:
    dist = point.dist
    if dist is None:
        return PluginInfo(point.name, point.value, "(unknown)", "")
    metadata = dist.metadata

    def field(name: str) -> str:
        # Its protocol has no get(), and asking for what is missing is deprecated.
        return metadata[name] if name in metadata else ""  # noqa: SIM401

    return PluginInfo(
        name=point.name,
        target=point.value,
        distribution=field("Name") or "(unnamed)",
        version=field("Version"),
        requires=_required_range(dist),
        summary=field("Summary"),
    )


def _required_range(dist: Distribution) -> str:
    specifiers = []
    for line in dist.requires or ():
        name = _NAME.match(line)
        if name is None or name[0].lower() != PROJECT or _EXTRA.search(line):
            continue
        plain = _PLAIN.fullmatch(line)
        if plain is not None:
            specifiers.append(plain[1].replace(" ", ""))
            continue
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            specifiers.append(line.removeprefix(name[0]).strip())
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            specifiers.append(str(requirement.specifier))
    return ",".join(part for part in specifiers if part)


def _within(ours: str, declared: str) -> bool:
    bounds = [_BOUND.fullmatch(part) for part in declared.split(",")]
    if re.fullmatch(r"\d+(\.\d+)*", ours) and all(bounds):
        return all(
            _compare(ours, bound[2]) < 0 if bound[1] == "<" else _compare(ours, bound[2]) >= 0
            for bound in bounds
            if bound is not None
        )
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(declared).contains(ours, prereleases=True)


def _compare(left: str, right: str) -> int:
    """Compare two plain release numbers; missing parts count as 0 (PEP 440)."""
    a, b = ([int(part) for part in text.split(".")] for text in (left, right))
    length = max(len(a), len(b))
    a += [0] * (length - len(a))
    b += [0] * (length - len(b))
    return (a > b) - (a < b)
