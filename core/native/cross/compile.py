"""Compiles the native core for systems that we do not have, by zig's clang and libraries.

    python core/native/cross/compile.py                       # every target below
    python core/native/cross/compile.py aarch64-macos --headers-only

For each target: every public header that is the target's, in one translation unit and each twice,
and the reactors' tests, linked, under our warnings as errors. What is linked is left in
core/native/build/cross/<target>, to be run on such a system. Exits 1 when something does not
compile. The first run for a target also builds zig's C++ library: a minute, once.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

NATIVE = Path(__file__).resolve().parent.parent
INCLUDE = NATIVE / "include"
TESTS = NATIVE / "tests"
OUTPUT = NATIVE / "build" / "cross"
TARGETS = ("x86_64-macos", "aarch64-macos", "x86_64-freebsd")

# System headers that none of the targets has: who needs them belongs to another system.
FOREIGN = re.compile(
    r"linux/|sys/(epoll|eventfd|sendfile)\.h|(winsock2|ws2tcpip|mswsock|windows)\.h", re.IGNORECASE
)
INCLUDED = re.compile(r'#\s*include\s*[<"]([^>"]+)[>"]')

# zig instruments C and C++ unless it is told not to.
FLAGS = ("-std=c++20", "-Werror", "-fno-sanitize=all", "-g0")


def warnings() -> list[str]:
    """Returns the flags that cmake/warnings.cmake gives compilers like this one."""
    text = (NATIVE / "cmake" / "warnings.cmake").read_text(encoding="utf-8")
    found = re.search(r"PRIVATE (-W[^)]*)\)", text)
    if found is None:
        raise SystemExit("compile.py: no warning flags in cmake/warnings.cmake")
    return found[1].split()


def unconditional_includes(file: Path) -> list[str]:
    """Returns what a file includes on every system."""
    depth = 0
    names = []
    for line in file.read_text(encoding="utf-8").splitlines():
        directive = line.replace(" ", "")
        if directive.startswith("#if"):
            depth += 1
        elif directive.startswith("#endif"):
            depth -= 1
        elif depth == 0 and (found := INCLUDED.match(line)):
            names.append(found[1])
    return names


def public_headers() -> list[str]:
    """Returns the names of all public headers but those of other systems."""
    headers = [*INCLUDE.rglob("*.hpp"), *INCLUDE.rglob("*.h")]
    includes = {
        path.relative_to(INCLUDE).as_posix(): unconditional_includes(path) for path in headers
    }
    foreign: set[str] = set()
    while True:
        more = {
            name
            for name, wanted in includes.items()
            if any(FOREIGN.match(each) or each in foreign for each in wanted)
        }
        if more == foreign:
            return sorted(includes.keys() - foreign)
        foreign = more


def compiles(target: str, source: Path, *arguments: str) -> bool:
    """Runs the compiler; says what it did, and what it said when it refused."""
    command = [sys.executable, "-m", "ziglang", "c++", "-target", target, *FLAGS, *warnings()]
    command += ["-I", str(INCLUDE), "-I", str(TESTS), str(source), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    good = done.returncode == 0
    print(f"{target}: {source.name}: {'ok' if good else 'FAILED'}", flush=True)  # noqa: T201
    if not good:
        print(done.stderr, file=sys.stderr, flush=True)  # noqa: T201
    return good


def compile_headers(target: str) -> bool:
    """Compiles all public headers; twice, so that one which lacks its guard shows."""
    names = public_headers()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "public_headers.cpp"
        lines = [f'#include "{name}"\n' for name in [*names, *reversed(names)]]
        source.write_text("".join(lines), encoding="utf-8")
        return compiles(target, source, "-c", "-o", str(Path(folder) / "object"))


def compile_tests(target: str) -> bool:
    """Compiles and links the reactors' tests."""
    output = OUTPUT / target
    output.mkdir(parents=True, exist_ok=True)
    good = True
    for source in sorted(TESTS.glob("reactor_*_test.cpp")):
        if not any(FOREIGN.match(each) for each in unconditional_includes(source)):
            good &= compiles(target, source, "-pthread", "-o", str(output / source.stem))
    return good


def main() -> int:
    """Compiles for each target that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", default=TARGETS, help=f"of: {', '.join(TARGETS)}, …")
    parser.add_argument("--headers-only", action="store_true", help="leave the tests out")
    options = parser.parse_args()
    good = True
    for target in options.targets:
        good &= compile_headers(target)
        if not options.headers_only:
            good &= compile_tests(target)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
