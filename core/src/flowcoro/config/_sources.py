"""Where configuration comes from: each source yields leaves that know their origin."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowcoro.errors import ConfigError

__all__ = ["Leaf", "file_leaves", "option_leaves", "read_toml"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value and where it was written.

    Attributes:
        path: the keys that lead to it, the section first.
        value: the value as read; always a string from variables and options.
        origin: the file, the variable or the option.
        text: whether the value is text that stands for another type.
    """

    path: tuple[str, ...]
    value: Any
    origin: str
    text: bool = False

    @property
    def key(self) -> str:
        """The dotted key."""
        return ".".join(self.path)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ConfigError: it is missing, unreadable, or not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; expected a flowcoro.toml"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}; expected a readable file"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from error


def file_leaves(tree: Mapping[str, Any], origin: str) -> list[Leaf]:
    """Turn a TOML tree into one leaf per section; the schema takes it apart further."""
    return [Leaf((section,), table, origin) for section, table in tree.items()]


def option_leaves(options: Iterable[str]) -> list[Leaf]:
    """Turn `section.key=value` options of the command line into leaves.

    Raises:
        ConfigError: an option does not have that form.
    """
    leaves = []
    for option in options:
        key, equals, value = option.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or len(path) < 2 or not all(path):
            raise ConfigError([f"option {key!r}: expected section.key=value"])
        leaves.append(Leaf(path, value, f"option {key.strip()}", text=True))
    return leaves
