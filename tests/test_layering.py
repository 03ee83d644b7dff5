"""Who may import whom (DESIGN, section 2), read from the source by its syntax tree.

Imports under `TYPE_CHECKING` are words, not dependencies, and do not count.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PACKAGES = {
    "flowcoro": ROOT / "core/src/flowcoro",
    "flowcoro_http": ROOT / "flowcoro-http/src/flowcoro_http",
    "flowcoro_db": ROOT / "flowcoro-db/src/flowcoro_db",
    "flowcoro_observability": ROOT / "plugins/flowcoro-observability/src/flowcoro_observability",
}

MAY_IMPORT = {
    "flowcoro": set(),
    "flowcoro_http": {"flowcoro"},
    "flowcoro_db": {"flowcoro"},
    "flowcoro_observability": {"flowcoro", "flowcoro_http"},
}

# The layers of the core, lowest first, as `flowcoro/__init__.py` states them.
CORE_LAYERS = [
    {"errors", "hookspecs", "_backoff", "_deadline", "_describe"},
    {"_native"},
    {"_headers", "_waiting"},
    {"lockfree", "memory", "reactor", "scheduler"},
    {"config"},
    {"io", "log"},
    {"plugins"},
    {"_loop"},
    {"loops"},
    {"net"},
    {"app"},
    {"workers"},
    {"cli", "plugin", "__main__"},
    {"testing"},
]

# What a plugin module must not pull in: it loads inside factories.
HEAVY = {
    "aiosqlite",
    "anyio",
    "asyncpg",
    "click",
    "httpx",
    "hypercorn",
    "msgspec",
    "opentelemetry",
    "prometheus_client",
    "rich",
    "watchfiles",
}


def python_files(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def imports(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the absolute dotted names that a module imports, wherever it does."""
    hidden: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            hidden.update(inner for child in node.body for inner in ast.walk(child))
    parts = module.split(".")
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                cut = node.level - 1 if is_package else node.level
                base = ".".join([*parts[: len(parts) - cut], *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path: Path, package: str) -> list[str]:
    relative = path.relative_to(PACKAGES[package].parent).with_suffix("")
    is_package = relative.name == "__init__"
    module = ".".join(relative.parent.parts if is_package else relative.parts)
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return list(imports(tree, module, is_package=is_package))


@pytest.mark.parametrize("package", PACKAGES)
def test_distributions_import_only_what_the_map_allows(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in python_files(package)
        for name in imports_of(path, package)
        if name.split(".")[0] in PACKAGES.keys() - {package} - MAY_IMPORT[package]
    ]
    assert not wrong


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "flowcoro"])
def test_features_use_public_names_only(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in python_files(package)
        for name in imports_of(path, package)
        if name.split(".")[0] in MAY_IMPORT[package]
        and any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
    ]
    assert not wrong


def test_core_layers_import_downwards_only() -> None:
    level = {name: i for i, names in enumerate(CORE_LAYERS) for name in names}
    wrong = []
    for path in python_files("flowcoro"):
        own = path.relative_to(PACKAGES["flowcoro"]).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imports_of(path, "flowcoro"):
            head, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if head == "flowcoro" and other in level and level[other] > level[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    # The core's plugin hands out the command line's descriptions: the one door upwards.
    assert not wrong


def test_every_core_module_has_its_layer() -> None:
    level = {name for names in CORE_LAYERS for name in names} | {"__init__"}
    found = {
        path.relative_to(PACKAGES["flowcoro"]).parts[0].removesuffix(".py")
        for path in python_files("flowcoro")
    }
    assert found <= level


@pytest.mark.parametrize("package", PACKAGES)
def test_plugin_modules_import_nothing_heavy(package: str) -> None:
    code = f"import sys, {package}.plugin; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ran.stdout.split()}
    assert not loaded & HEAVY


def test_only_the_bindings_know_python() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "core/native").rglob("*.[hc]pp")
        if "build" not in path.relative_to(ROOT / "core/native").parts
        and re.search(r"Python\.h|nanobind|pybind", path.read_text(encoding="utf-8"))
    ]
    assert not wrong


def test_one_header_names_the_standard_atomics() -> None:
    include = ROOT / "core/native/include"
    users = {
        str(path.relative_to(include))
        for path in include.rglob("*.hpp")
        if re.search(r"std::(atomic|memory_order)|<atomic>", _code(path))
    }
    assert users == {"flowcoro/detail/atomic.hpp"}


def _code(path: Path) -> str:
    """The file without its comments, which may name anything."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_modules_declare_their_names(package: str) -> None:
    missing = []
    for path in python_files(package):
        if path.name == "__main__.py" or "templates" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not any(
            isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(node)
            for node in tree.body
        ):
            missing.append(str(path.relative_to(ROOT)))
    assert not missing
