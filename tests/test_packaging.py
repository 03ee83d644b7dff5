"""Wheels, installed as a stranger installs them: no workspace, nothing editable."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from _environments import (
    CONSTRAINTS,
    NATIVE,
    ROOT,
    SUPPORTED,
    build,
    build_all,
    find_python,
    make_environment,
    run,
)

INCLUDE = ROOT / "core" / "native" / "include"

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]


@pytest.fixture(scope="session")
def python() -> str:
    found = find_python("3.11") or find_python("3.12") or find_python("3.13")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory, python: str) -> Path:
    """Every wheel for `python`, with the source distributions that they were built from."""
    return build_all(tmp_path_factory.mktemp("wheels"), python)


@pytest.fixture(scope="session")
def native_wheels(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the native wheels for an interpreter, from the checkout; built when first asked for."""

    @functools.cache
    def built(python: str) -> Path:
        return build(tmp_path_factory.mktemp("native"), python, NATIVE, "--wheel")

    return built


@contextmanager
def running(*command: str | Path, cwd: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run a server; stop it with SIGTERM and require the status 0."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out


def listening_url(process: subprocess.Popen[str]) -> str:
    """Read the log until the server says where it listens."""
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    seen = []
    for line in process.stdout:
        seen.append(line)
        found = re.search(r"http://[\w.:\[\]]+", line)
        if found and "listening" in line:
            return found[0]
        assert time.monotonic() < deadline
    raise AssertionError("".join(seen))


def get_json(url: str) -> object:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_a_plugin_from_the_template_works_everywhere(
    tmp_path: Path, wheels: Path, python: str
) -> None:
    """`plugin new` outside the workspace, its own tests, its wheel, a new environment."""
    find = ("--find-links", wheels, "--constraint", CONSTRAINTS)
    author = make_environment(tmp_path / "author", python)
    run(author / "pip", "install", "--quiet", *find, "flowcoro", "flowcoro-http", "pytest")
    run(author / "flowcoro", "plugin", "new", "flowcoro-greeter", cwd=tmp_path)
    folder = tmp_path / "flowcoro-greeter"
    assert (folder / "pyproject.toml").is_file()
    run(author / "pip", "install", "--quiet", *find, "-e", f"{folder}[test]")
    assert " passed" in run(author / "python", "-m", "pytest", "-q", cwd=folder)
    assert "FAIL" not in run(author / "flowcoro", "plugin", "check", "greeter")
    run("uv", "build", "--quiet", "--wheel", "--python", python, "--out-dir", wheels, folder)

    user = make_environment(tmp_path / "user", python)
    run(
        user / "pip", "install", "--quiet", *find,
        "flowcoro", "flowcoro-http", "flowcoro-greeter",
    )  # fmt: skip
    listed = run(user / "pip", "list", "--editable", "--format", "freeze")
    assert "flowcoro" not in listed
    assert "Hello, Ada!" in run(user / "flowcoro", "greeter", "Ada")
    app = tmp_path / "service"
    run(user / "flowcoro", "new", "service", cwd=tmp_path)
    settings = ("--port", "0", "--set", "greeter.greeting=Salut")
    with running(user / "flowcoro", "run", "app:app", *settings, cwd=app) as process:
        url = listening_url(process)
        assert get_json(f"{url}/greeter/Ada") == {"greeting": "Salut, Ada!"}
        assert get_json(f"{url}/hello/Ada") == {"greeting": "Hello, Ada"}
    report = json.loads(run(user / "flowcoro", "doctor", "--json", cwd=app))
    assert report["healthy"]
    described = run(user / "flowcoro", "plugin", "info", "greeter", cwd=app)
    assert "health check" in described
    assert "flowcoro_http_routes" in described


def test_the_application_template_passes_its_own_tests(
    tmp_path: Path, wheels: Path, python: str
) -> None:
    binaries = make_environment(tmp_path / "venv", python)
    find = ("--find-links", wheels, "--constraint", CONSTRAINTS)
    run(binaries / "pip", "install", "--quiet", *find, "flowcoro[http]", "pytest")
    run(binaries / "flowcoro", "new", "hello", cwd=tmp_path)
    run(binaries / "pip", "install", "--quiet", *find, "-e", f"{tmp_path / 'hello'}[test]")
    assert " passed" in run(binaries / "python", "-m", "pytest", "-q", cwd=tmp_path / "hello")


def test_everything_runs_the_demo_from_wheels(tmp_path: Path, wheels: Path, python: str) -> None:
    """`pip install flowcoro[all]`, `flowcoro demo`, a note that survives a restart."""
    binaries = make_environment(tmp_path / "venv", python)
    find = ("--find-links", wheels, "--constraint", CONSTRAINTS)
    run(binaries / "pip", "install", "--quiet", *find, "flowcoro[all]")
    folder = tmp_path / "data"
    folder.mkdir()
    for start in range(2):
        with running(binaries / "flowcoro", "demo", "--port", "0", cwd=folder) as process:
            url = listening_url(process)
            request = urllib.request.Request(
                f"{url}/api/notes",
                data=json.dumps({"text": f"note {start}"}).encode(),
                headers={"content-type": "application/json"},
            )
            urllib.request.urlopen(request, timeout=30).close()
            notes = get_json(f"{url}/api/notes")
            assert isinstance(notes, list)
            assert [note["text"] for note in notes] == [f"note {i}" for i in range(start, -1, -1)]
            with urllib.request.urlopen(f"{url}/", timeout=30) as page:
                assert b"FlowCoro live demo" in page.read()
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as metrics:
                assert b"http_server_request_duration_seconds_count" in metrics.read()


SERVES = """
import anyio, flowcoro
from flowcoro_http import HttpServer, Router
from flowcoro_http.servers.native import NATIVE

router = Router()

@router.get("/")
async def hello() -> str:
    return "hello"

async def main():
    async with HttpServer(router, host="127.0.0.1", port=0, backend=NATIVE) as server:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(b"GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
            answer = b"".join([piece async for piece in stream]).decode()
    print(answer.split()[1], answer.split()[-1])

flowcoro.run(main())
"""


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_native_wheels_work_on_every_python(
    version: str,
    tmp_path: Path,
    wheels: Path,
    python: str,
    native_wheels: Callable[[str], Path],
) -> None:
    found = find_python(version)
    if found is None:
        assert os.environ.get("CI") != "true", f"CI has no Python {version}"
        pytest.skip(f"NOT TESTED: there is no Python {version} on this machine")
    built = wheels if found == python else native_wheels(found)
    binaries = make_environment(tmp_path / "venv", found)
    run(
        binaries / "pip", "install", "--quiet", "--constraint", CONSTRAINTS,
        "--find-links", built, "--find-links", wheels, "flowcoro[all]", "pytest",
    )  # fmt: skip
    code = (
        "from flowcoro.lockfree import Queue; q = Queue(2); "
        "assert q.try_put(1) and q.try_get() == 1; print('native', q.capacity)"
    )
    assert "native 2" in run(binaries / "python", "-c", code)
    assert "200 hello" in run(binaries / "python", "-c", SERVES)
    assert json.loads(run(binaries / "flowcoro", "doctor", "--json", cwd=tmp_path))["healthy"]
    tests = ROOT / "core" / "tests" / "test_lockfree.py"
    assert " passed" in run(
        binaries / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider",
        "--rootdir", tmp_path, "-c", os.devnull, tests, cwd=tmp_path,
    )  # fmt: skip


CONSUMER = """
cmake_minimum_required(VERSION 3.25)
project(hello LANGUAGES CXX)
find_package(flowcoro 0.1 CONFIG REQUIRED)
find_package(Threads REQUIRED)
add_executable(hello main.cpp)
target_link_libraries(hello PRIVATE flowcoro::native Threads::Threads)
"""


def test_extensions_are_built_against_the_wheel(tmp_path: Path, wheels: Path, python: str) -> None:
    """Headers and the CMake package, where only the wheel is: a plugin in C, a program in C++."""
    binaries = make_environment(tmp_path / "venv", python)
    find = ("--find-links", wheels, "--constraint", CONSTRAINTS)
    run(binaries / "pip", "install", "--quiet", *find, "flowcoro")
    code = "import flowcoro; print(flowcoro.get_cmake_dir())"
    root = f"-Dflowcoro_ROOT={run(binaries / 'python', '-c', code, cwd=tmp_path).strip()}"
    assert str(tmp_path) in root

    plugin = tmp_path / "plugin"
    source = ROOT / "tests" / "native_plugin"
    interpreter = f"-DPython_EXECUTABLE={binaries / 'python'}"
    run("cmake", "-S", source, "-B", plugin, "-G", "Ninja", root, interpreter)
    run("cmake", "--build", plugin)
    code = (
        "import echo_plugin; from flowcoro.reactor import Reactor; "
        "echo_plugin.misuse(Reactor()); print(echo_plugin.stats())"
    )
    assert "'serving': 0" in run(binaries / "python", "-c", code, cwd=plugin)

    program = tmp_path / "program"
    program.mkdir()
    (program / "CMakeLists.txt").write_text(CONSUMER, encoding="utf-8")
    shutil.copy(ROOT / "core/native/examples/project/main.cpp", program)
    run("cmake", "-S", program, "-B", program / "build", "-G", "Ninja", root)
    run("cmake", "--build", program / "build")
    assert "Hello from a worker" in run(program / "build" / "hello")


def contents(archive: Path) -> list[str]:
    """The files of a wheel, or of a source distribution without its outermost folder."""
    if archive.suffix == ".whl":
        names = zipfile.ZipFile(archive).namelist()
    else:
        with tarfile.open(archive) as tar:
            names = [each.name.partition("/")[2] for each in tar if each.isfile()]
    return sorted(names)


def of_any_python(wheel: Path) -> list[str]:
    """The files of a wheel, an extension's by the name that it is imported by."""
    names = (re.sub(r"\.cpython-\d+[\w-]*(?=\.so$)", "", name) for name in contents(wheel))
    return sorted(name for name in names if not name.endswith("RECORD"))


@pytest.mark.parametrize("distribution", NATIVE)
def test_the_source_distribution_builds_the_same_wheel(
    distribution: str, wheels: Path, python: str, native_wheels: Callable[[str], Path]
) -> None:
    """As the checkout does: of another Python if there is one, since that has been built."""
    name = {"core": "flowcoro"}.get(distribution, distribution).replace("-", "_")
    others = (found for version in SUPPORTED if (found := find_python(version)) is not None)
    other = next((found for found in others if found != python), python)
    (source,) = wheels.glob(f"{name}-0*.tar.gz")
    assert not [n for n in contents(source) if n.startswith(("build/", "native/build/"))]
    assert not [n for n in contents(source) if n.endswith((".so", ".o"))]
    (ours,) = wheels.glob(f"{name}-0*.whl")
    (theirs,) = native_wheels(other).glob(f"{name}-0*.whl")
    assert of_any_python(ours) == of_any_python(theirs)


def test_the_wheel_of_core_has_what_others_build_with(wheels: Path) -> None:
    (wheel,) = wheels.glob("flowcoro-0*.whl")
    names = contents(wheel)
    assert "flowcoro/_demo/app.py" in names
    assert "flowcoro/_native.pyi" in names
    assert "flowcoro/py.typed" in names
    assert "flowcoro/_include/flowcoro/native_api.h" in names
    assert "flowcoro/_include/flowcoro/transport/protocol.h" in names
    assert "flowcoro/_cmake/flowcoroConfig.cmake" in names
    headers = sorted(str(p.relative_to(INCLUDE)) for p in INCLUDE.rglob("*.h*"))
    installed = [n.removeprefix("flowcoro/_include/") for n in names if "/_include/" in n]
    assert installed == headers
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_of_http_has_its_extension_and_no_sources(wheels: Path) -> None:
    (source,) = wheels.glob("flowcoro_http-0*.tar.gz")
    # In the checkout it is beside this distribution.
    assert "core/include/flowcoro/native_api.h" in contents(source)
    (wheel,) = wheels.glob("flowcoro_http-0*.whl")
    package = ROOT / "flowcoro-http" / "src"
    expected = {
        str(p.relative_to(package))
        for p in package.rglob("*")
        if p.is_file() and p.suffix not in {".pyc", ".so", ".pyd"}
    }
    assert {"flowcoro_http/_native.pyi", "flowcoro_http/py.typed"} < expected
    found = {name for name in of_any_python(wheel) if ".dist-info/" not in name}
    assert found == {*expected, "flowcoro_http/_native.so"}
    metadata = [name for name in contents(wheel) if ".dist-info/" in name]
    assert any(name.endswith("licenses/LICENSE") for name in metadata)
